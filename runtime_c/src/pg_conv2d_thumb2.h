/* SPDX-License-Identifier: MIT-0
 *
 * Convolution of any geometry for Armv7-M cores without DSP instructions: parameters, and the rows under its
 * windows.
 */
#ifndef PG_CONV2D_THUMB2_H
#define PG_CONV2D_THUMB2_H

#include "pg_conv_thumb2.h"
#include "pg_window_rows.h"

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

/* The rows under the windows of output row oy, padding included, in ring. */
PG_KERNEL void pg_conv2d_thumb2_rows(const pg_conv2d_thumb2_params *p, const void *rows, const int8_t *x,
                                     int32_t oy, int8_t *ring) {
    pg_window_rows(&p->window, p->pitch, rows, x, false, oy, rows == NULL && oy > 0, ring);
}

#endif /* PG_CONV2D_THUMB2_H */
