/* SPDX-License-Identifier: MIT-0
 *
 * Pointwise convolution for cores with MVE (Helium).
 */
#ifndef PG_POINTWISE_MVE_H
#define PG_POINTWISE_MVE_H

#include "pg_conv_mve.h"

typedef struct {
    const uint32_t *stream; /* weights, start values and multipliers in reading order */
    pg_conv_mve_block block;
    int32_t pixels;     /* of the whole map */
    int32_t row_pixels; /* of one row */
    uint16_t together;  /* pixels of a block */
    uint16_t inputs;    /* bytes of a pixel of x */
    uint16_t outputs;   /* from one output pixel to the next */
    uint16_t pitch;     /* bytes of an operand's pixel */
    uint16_t operand;   /* pixels that are copied at once, a multiple of the block's */
} pg_pointwise_mve_params;

/* Every output of count pixels, a copy of a few of them after the other, so that y may be x where its pixels
 * are no longer. The last pixels are computed together with as many before them as a block takes: these are
 * set aside first. Scratch: two operands, one of p->operand pixels and one of a block's, and 16 bytes that
 * may be read. */
PG_KERNEL void pg_pointwise_mve_pixels(const pg_pointwise_mve_params *p, pg_conv_mve_run *run, const void *x,
                                       const int8_t *residual, void *y, void *scratch, int32_t count) {
    const int32_t together = p->together;
    const int32_t bytes = p->inputs;
    const int8_t *from = (const int8_t *)x;
    int8_t *to = (int8_t *)y;
    int8_t *rest = (int8_t *)scratch + p->operand * p->pitch;
    const void *operand[1] = {scratch};
    const int32_t whole = count - count % together;
    const int32_t last = count - together;
    if (whole < count) {
        pg_conv_mve_pixels(rest, from + last * bytes, together, bytes, p->pitch, bytes);
    }
    for (int32_t at = 0; at < whole; at += p->operand) {
        const int32_t now = whole - at < p->operand ? whole - at : p->operand;
        pg_conv_mve_pixels(scratch, from + at * bytes, now, bytes, p->pitch, bytes);
        run(operand, p->stream, to + at * p->outputs, &p->block, now / together, residual + at * p->outputs);
    }
    if (whole < count) {
        operand[0] = rest;
        run(operand, p->stream, to + last * p->outputs, &p->block, 1, residual + last * p->outputs);
    }
}

PG_KERNEL void pg_pointwise_mve(const pg_pointwise_mve_params *p, pg_conv_mve_run *run, const void *x,
                                const int8_t *residual, void *y, void *scratch) {
    pg_pointwise_mve_pixels(p, run, x, residual, y, scratch, p->pixels);
}

/* One row of a streamed segment: rows holds one pointer to a row of x's type. */
PG_KERNEL void pg_pointwise_mve_row(const pg_pointwise_mve_params *p, pg_conv_mve_run *run, const void *rows,
                                    const int8_t *residual, void *y, void *scratch) {
    const void *row = pg_conv_mve_streamed_row(rows, 0);
    pg_pointwise_mve_pixels(p, run, row, residual, y, scratch, p->row_pixels);
}

#endif /* PG_POINTWISE_MVE_H */
