/* SPDX-License-Identifier: MIT-0
 *
 * Element-wise sum and product with a repeated operand for cores with DSP instructions. Both are
 * y = requantise(f a + s), where f and s are linear in b: one pair for every channel, or one for every pixel.
 */
#ifndef PG_AFFINE_DSP_H
#define PG_AFFINE_DSP_H

#include "projgen_runtime.h"

/* Read by the blocks in this order. */
typedef struct {
    int32_t rows;  /* of a, each as long as b, or with one element of b each */
    int32_t quads; /* of four elements a row; a block knows how many elements are left over */
    int32_t multiplier;
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
    int32_t factor; /* f = factor + factor_step b, which fits 16 bits */
    int32_t factor_step;
    int32_t start; /* s = start + start_step b */
    int32_t start_step;
} pg_affine_dsp_numbers;

typedef struct {
    const int8_t *constant; /* an operand that is no input; NULL without one */
    int32_t channels;       /* elements of a row */
    pg_affine_dsp_numbers numbers;
} pg_affine_dsp_params;

#endif /* PG_AFFINE_DSP_H */
