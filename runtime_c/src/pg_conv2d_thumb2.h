/* SPDX-License-Identifier: MIT-0
 *
 * Convolution of any geometry for Armv7-M cores without DSP instructions: parameters, and the way to one
 * window's pixels.
 */
#ifndef PG_CONV2D_THUMB2_H
#define PG_CONV2D_THUMB2_H

#include "pg_conv_thumb2.h"
#include "pg_window.h"

typedef struct {
    const uint32_t *stream;       /* start values, weights and multipliers in reading order, group by group */
    pg_conv_thumb2_matrix matrix; /* of one group */
    pg_window window;
    int32_t groups;
    int32_t group_words; /* of the stream */
    int32_t pitch;       /* elements of a padded row */
    int32_t ring;        /* elements of scratch before the padded rows */
    int32_t rows;        /* of a streamed segment that one call computes */
} pg_conv2d_thumb2_params;

/* Bytes of the outputs, and of those of one call for rows. */
PG_INLINE int32_t pg_conv2d_thumb2_bytes(const pg_conv2d_thumb2_params *p) {
    return p->window.out_h * p->window.out_w * p->matrix.pixel;
}

PG_INLINE int32_t pg_conv2d_thumb2_row_bytes(const pg_conv2d_thumb2_params *p) {
    return p->rows * p->window.out_w * p->matrix.pixel;
}

/* The rows under the windows of output row oy, padding included, in ring: the rows that the last output row
 * shares are moved up, the others copied from the map x or, where rows is given, from kernel_h pointers. */
PG_KERNEL void pg_conv2d_thumb2_rows(const pg_conv2d_thumb2_params *p, const void *rows, const int8_t *x,
                                     int32_t oy, int8_t *ring) {
    const pg_window *g = &p->window;
    const int32_t length = g->in_w * g->in_c;
    int32_t row = 0;
    if (rows == NULL && oy > 0 && g->kernel_h > g->stride_h) {
        row = g->kernel_h - g->stride_h;
        pg_conv_thumb2_copy(ring, ring + g->stride_h * p->pitch, row * p->pitch);
    }
    for (; row < g->kernel_h; ++row) {
        const void *from = pg_window_source(g, rows, x, oy, row, false);
        int8_t *to = ring + row * p->pitch + g->pad_left * g->in_c;
        if (from != NULL) {
            pg_conv_thumb2_copy(to, from, length);
        } else {
            pg_fill(to, g->zero_point, length, false);
        }
    }
}

/* Whether row oy's windows lie inside the map as far as its height is concerned. */
PG_INLINE bool pg_conv2d_thumb2_row_inside(const pg_window *g, int32_t oy) {
    const int32_t iy = oy * g->stride_h - g->pad_top;
    return iy >= 0 && iy + (g->kernel_h - 1) * g->dilation_h < g->in_h;
}

#endif /* PG_CONV2D_THUMB2_H */
