/* SPDX-License-Identifier: MIT-0
 *
 * Parameters of the pointwise convolution for cores with MVE (Helium).
 */
#ifndef PG_POINTWISE_MVE_H
#define PG_POINTWISE_MVE_H

#include "pg_conv_mve.h"

typedef struct {
    const uint32_t *stream; /* weights, start values and multipliers in reading order */
    pg_conv_mve_block block;
    int32_t pixels;     /* of the whole map */
    int32_t row_pixels; /* of one row */
    int32_t inputs;     /* channels of a pixel */
    int32_t outputs;
    int32_t pitch;   /* bytes of an operand's pixel */
    int32_t operand; /* pixels that are copied at once, a multiple of the block's */
} pg_pointwise_mve_params;

#endif /* PG_POINTWISE_MVE_H */
