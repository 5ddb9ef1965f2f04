/* SPDX-License-Identifier: MIT-0
 *
 * 1x1 convolution with stride 1 for Armv6-M cores: four pixels at a time through a block. The operand of four
 * pixels is made before their outputs are written, so y may begin where x begins if it is no longer.
 */
#ifndef PG_POINTWISE_THUMB1_H
#define PG_POINTWISE_THUMB1_H

#include "pg_conv_thumb1.h"

typedef struct {
    const uint32_t *stream; /* start values, weights and multipliers in reading order */
    pg_conv_thumb1_matrix matrix;
    int32_t pixels;     /* of the whole map */
    int32_t row_pixels; /* of one row */
    int32_t inputs;     /* channels of a pixel */
} pg_pointwise_thumb1_params;

/* Bytes of the outputs, and of one row of them. */
PG_INLINE int32_t pg_pointwise_thumb1_bytes(const pg_pointwise_thumb1_params *p) {
    return p->pixels * p->matrix.pixel;
}

PG_INLINE int32_t pg_pointwise_thumb1_row_bytes(const pg_pointwise_thumb1_params *p) {
    return p->row_pixels * p->matrix.pixel;
}

/* residual: y holds what the block adds.
 * Scratch: operand (64 bytes a quad), outputs of four pixels, the last one to three pixels. */
PG_INLINE void pg_pointwise_thumb1(const pg_pointwise_thumb1_params *p, int32_t left, const int8_t *x,
                                   int8_t *y, bool residual, void *scratch, pg_conv_thumb1_block *block) {
    const pg_conv_thumb1_matrix *matrix = &p->matrix;
    const int32_t inputs = p->inputs;
    int32_t *operand = (int32_t *)scratch;
    for (; left >= 4; left -= 4) {
        pg_conv_thumb1_pack(x, inputs, operand, inputs);
        block(operand, p->stream, y, matrix);
        x += 4 * inputs;
        y += 4 * matrix->outputs;
    }
    if (left > 0) {
        int8_t *results = (int8_t *)(operand + 16 * matrix->quads);
        int8_t *pixels = results + 4 * matrix->outputs;
        memcpy(pixels, x, (size_t)(left * inputs)); /* what the others hold has no effect */
        pg_conv_thumb1_pack(pixels, inputs, operand, inputs);
        pg_conv_thumb1_rest(matrix, p->stream, left, operand, y, residual, results, block);
    }
}

PG_KERNEL void pg_pointwise_thumb1_s8(const pg_pointwise_thumb1_params *p, const int8_t *x, int8_t *y,
                                      void *scratch, pg_conv_thumb1_block *block) {
    pg_pointwise_thumb1(p, p->pixels, x, y, false, scratch, block);
}

PG_KERNEL void pg_pointwise_thumb1_residual(const pg_pointwise_thumb1_params *p, const int8_t *x, int8_t *y,
                                            void *scratch, pg_conv_thumb1_block *block) {
    pg_pointwise_thumb1(p, p->pixels, x, y, true, scratch, block);
}

PG_KERNEL void pg_pointwise_thumb1_s8_row(const pg_pointwise_thumb1_params *p, const int8_t *const *rows,
                                          int8_t *y, void *scratch, pg_conv_thumb1_block *block) {
    pg_pointwise_thumb1(p, p->row_pixels, rows[0], y, false, scratch, block);
}

PG_KERNEL void pg_pointwise_thumb1_residual_row(const pg_pointwise_thumb1_params *p,
                                                const int8_t *const *rows, int8_t *y, void *scratch,
                                                pg_conv_thumb1_block *block) {
    pg_pointwise_thumb1(p, p->row_pixels, rows[0], y, true, scratch, block);
}

#endif /* PG_POINTWISE_THUMB1_H */
