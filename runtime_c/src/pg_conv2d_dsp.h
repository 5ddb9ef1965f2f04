/* SPDX-License-Identifier: MIT-0
 *
 * Convolution of any geometry for cores with DSP instructions: parameters, and the way to one window's
 * pixels.
 */
#ifndef PG_CONV2D_DSP_H
#define PG_CONV2D_DSP_H

#include "pg_conv_dsp.h"
#include "pg_window.h"

typedef struct {
    const uint32_t *stream;    /* start values, weights and multipliers in reading order, group by group */
    pg_conv_dsp_matrix matrix; /* of one group */
    pg_window window;
    int32_t groups;
    int32_t group_words; /* of the stream */
    int32_t pitch;       /* elements of a padded row */
    int32_t ring;        /* elements of scratch before the padded rows */
    int32_t rows;        /* of a streamed segment that one call computes */
} pg_conv2d_dsp_params;

/* Bytes of the outputs, and of those of one call for rows. */
PG_INLINE int32_t pg_conv2d_dsp_bytes(const pg_conv2d_dsp_params *p) {
    return p->window.out_h * p->window.out_w * p->matrix.pixel;
}

PG_INLINE int32_t pg_conv2d_dsp_row_bytes(const pg_conv2d_dsp_params *p) {
    return p->rows * p->window.out_w * p->matrix.pixel;
}

/* A block: copies a window whose rows lie step bytes apart to one place. */
typedef void pg_conv_dsp_gather(const void *from, void *to, int32_t step);

/* The rows under the windows of output row oy, padding included, in ring: the rows that the last output row
 * shares are moved up, the others copied from the map x or, where rows is given, from kernel_h pointers. */
PG_KERNEL void pg_conv2d_dsp_rows(const pg_conv2d_dsp_params *p, const void *rows, const void *x, bool wide,
                                  int32_t oy, void *ring) {
    const pg_window *g = &p->window;
    const int32_t bytes = wide ? 2 : 1;
    const int32_t length = g->in_w * g->in_c;
    int32_t row = 0;
    if (rows == NULL && oy > 0 && g->kernel_h > g->stride_h) {
        row = g->kernel_h - g->stride_h;
        pg_conv_dsp_copy(ring, pg_at(ring, g->stride_h * p->pitch, wide), row * p->pitch * bytes);
    }
    for (; row < g->kernel_h; ++row) {
        const void *from = pg_window_source(g, rows, x, oy, row, wide);
        void *to = pg_at_mutable(ring, row * p->pitch + g->pad_left * g->in_c, wide);
        if (from != NULL) {
            pg_conv_dsp_copy(to, from, length * bytes);
        } else {
            pg_fill(to, g->zero_point, length, wide);
        }
    }
}

/* Whether row oy's windows lie inside the map as far as its height is concerned. */
PG_INLINE bool pg_conv2d_dsp_row_inside(const pg_window *g, int32_t oy) {
    const int32_t iy = oy * g->stride_h - g->pad_top;
    return iy >= 0 && iy + (g->kernel_h - 1) * g->dilation_h < g->in_h;
}

#endif /* PG_CONV2D_DSP_H */
