/* SPDX-License-Identifier: MIT-0
 *
 * Parameters of the element-wise sum and product for cores with MVE (Helium).
 */
#ifndef PG_BINARY_MVE_H
#define PG_BINARY_MVE_H

#include "projgen_runtime.h"

/* Read by the blocks in this order. */
typedef struct {
    int32_t a; /* sum: factors, which fit 16 bits; product: zero points */
    int32_t b;
    int32_t start; /* of the sum: what the zero points amount to */
    int32_t half_multiplier;
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
    int32_t count;
} pg_binary_mve_numbers;

typedef struct {
    const int8_t *constant; /* an operand that is no input; NULL without one */
    pg_binary_mve_numbers numbers;
} pg_binary_mve_params;

#endif /* PG_BINARY_MVE_H */
