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

/* A block: copies a window whose rows lie step bytes apart to one place. */
typedef void pg_conv_dsp_gather(const void *from, void *to, int32_t step);

/* Whether row oy's windows lie inside the map as far as its height is concerned. */
PG_INLINE bool pg_conv2d_dsp_row_inside(const pg_window *g, int32_t oy) {
    const int32_t iy = oy * g->stride_h - g->pad_top;
    return iy >= 0 && iy + (g->kernel_h - 1) * g->dilation_h < g->in_h;
}

#endif /* PG_CONV2D_DSP_H */
