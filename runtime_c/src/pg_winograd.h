/* SPDX-License-Identifier: MIT-0
 *
 * What the exact Winograd convolutions for cores with DSP instructions share: parameters, padded copies of
 * input rows, and the plain C meaning of the instructions on pairs of halfwords.
 */
#ifndef PG_WINOGRAD_H
#define PG_WINOGRAD_H

#include "pg_conv_dsp.h"

typedef struct {
    int32_t row;        /* bytes from an output row to the one below */
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
} pg_winograd_out;

typedef struct {
    int32_t height, width, channels; /* of the input */
    int32_t wide;                    /* channels in a padded copy: a multiple of 4 */
    int32_t top, left;               /* padding */
    int32_t zero_point;              /* of the input */
} pg_winograd_rows;

typedef struct {
    const uint32_t *stream; /* start values, transformed weights and multipliers in reading order */
    pg_winograd_rows row;
    int32_t out_h, out_w, out_c;
    pg_winograd_out out;
} pg_winograd_params;

/* Row r of the padded map into to, whose borders hold the zero point already. */
PG_KERNEL void pg_winograd_row(const pg_winograd_rows *p, const int8_t *x, int32_t r, int8_t *to) {
    const int32_t y = r - p->top;
    to += p->left * p->wide;
    if (y < 0 || y >= p->height) {
        pg_fill(to, p->zero_point, p->width * p->wide, false);
        return;
    }
    x += y * p->width * p->channels;
    if (p->wide == p->channels) {
        pg_conv_dsp_copy(to, x, p->width * p->channels);
        return;
    }
    for (int32_t i = 0; i < p->width; ++i) {
        pg_conv_dsp_copy(to, x, p->channels);
        to += p->wide;
        x += p->channels;
    }
}

/* Halfword by halfword. */
PG_INLINE uint32_t pg_winograd_add(uint32_t a, uint32_t b) {
    return pg_conv_dsp_word(pg_conv_dsp_half(a, 0) + pg_conv_dsp_half(b, 0),
                            pg_conv_dsp_half(a, 1) + pg_conv_dsp_half(b, 1));
}

PG_INLINE uint32_t pg_winograd_subtract(uint32_t a, uint32_t b) {
    return pg_conv_dsp_word(pg_conv_dsp_half(a, 0) - pg_conv_dsp_half(b, 0),
                            pg_conv_dsp_half(a, 1) - pg_conv_dsp_half(b, 1));
}

/* Sum of the products of 4 quads halfwords: two words of every four, at a and at b. */
PG_INLINE uint32_t pg_winograd_dot(const uint32_t *a, const uint32_t *b, int32_t quads) {
    uint32_t sum = 0;
    for (int32_t q = 0; q < quads; ++q) {
        for (int32_t i = 0; i < 4; ++i) {
            sum += (uint32_t)(pg_conv_dsp_half(a[4 * q + i / 2], i % 2) *
                              pg_conv_dsp_half(b[4 * q + i / 2], i % 2));
        }
    }
    return sum;
}

#endif /* PG_WINOGRAD_H */
