/* SPDX-License-Identifier: MIT-0
 *
 * y = table[x + 128] for every element: any int8 -> int8 function. y may be x.
 */
#ifndef PG_LUT_H
#define PG_LUT_H

#include "projgen_runtime.h"

typedef struct {
    const int8_t *table; /* [256] */
    int32_t count;
} pg_lut_params;

PG_KERNEL void pg_lut(const pg_lut_params *p, const int8_t *x, int8_t *y) {
    const int8_t *middle = p->table + 128;
    const int32_t count = p->count;
    for (int32_t i = 0; i < count; ++i) {
        y[i] = middle[x[i]];
    }
}

#endif /* PG_LUT_H */
