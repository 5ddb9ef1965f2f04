/* SPDX-License-Identifier: MIT-0
 *
 * Parameters of the element-wise sum and product for cores with DSP instructions.
 */
#ifndef PG_BINARY_DSP_H
#define PG_BINARY_DSP_H

#include "projgen_runtime.h"

/* Constants as the blocks load them: two halfwords a word, that of a below that of b. */
typedef struct {
    uint32_t first;  /* sum: both factors; product: the zero point of a twice */
    uint32_t second; /* sum: start value; product: the zero point of b twice */
    int32_t multiplier;
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
} pg_binary_dsp_constants;

typedef struct {
    const int8_t *constant; /* an operand that is no input; NULL without one */
    int32_t count;
    pg_binary_dsp_constants constants;
} pg_binary_dsp_params;

#endif /* PG_BINARY_DSP_H */
