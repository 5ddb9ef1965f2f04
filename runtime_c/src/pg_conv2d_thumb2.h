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

/* Whether row oy's windows lie inside the map as far as its height is concerned. */
PG_INLINE bool pg_conv2d_thumb2_row_inside(const pg_window *g, int32_t oy) {
    const int32_t iy = oy * g->stride_h - g->pad_top;
    return iy >= 0 && iy + (g->kernel_h - 1) * g->dilation_h < g->in_h;
}

#endif /* PG_CONV2D_THUMB2_H */
