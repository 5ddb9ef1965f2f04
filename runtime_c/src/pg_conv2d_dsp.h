/* SPDX-License-Identifier: MIT-0
 *
 * Convolution of any geometry for cores with DSP instructions: parameters, and the rows under its
 * windows.
 */
#ifndef PG_CONV2D_DSP_H
#define PG_CONV2D_DSP_H

#include "pg_conv_dsp.h"
#include "pg_window_rows.h"

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

/* The rows under the windows of output row oy, padding included, in ring. */
PG_KERNEL void pg_conv2d_dsp_rows(const pg_conv2d_dsp_params *p, const void *rows, const void *x, bool wide,
                                  int32_t oy, void *ring) {
    pg_window_rows(&p->window, p->pitch, rows, x, wide, oy, rows == NULL && oy > 0, ring);
}

#endif /* PG_CONV2D_DSP_H */
