/* SPDX-License-Identifier: MIT-0
 *
 * Parameters of the pointwise convolution for cores with DSP instructions.
 */
#ifndef PG_POINTWISE_DSP_H
#define PG_POINTWISE_DSP_H

#include "pg_conv_dsp.h"

typedef struct {
    const uint32_t *stream; /* start values, weights and multipliers in reading order */
    pg_conv_dsp_matrix matrix;
    int32_t pixels;     /* of the whole map */
    int32_t row_pixels; /* of one row */
    int32_t inputs;     /* channels of a pixel */
} pg_pointwise_dsp_params;

#endif /* PG_POINTWISE_DSP_H */
