/* SPDX-License-Identifier: MIT-0
 *
 * Parameters of the fully connected kernels for cores with MVE (Helium).
 */
#ifndef PG_LINEAR_MVE_H
#define PG_LINEAR_MVE_H

#include "projgen_runtime.h"

typedef struct {
    const uint32_t *stream; /* start values, weights and multipliers in reading order */
    int32_t rows;
    int32_t inputs;
    int32_t outputs;
    int32_t zero_point; /* of the output; 0 for int16 */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
} pg_linear_mve_params;

#endif /* PG_LINEAR_MVE_H */
