/* SPDX-License-Identifier: MIT-0
 *
 * Softmax over the last axis in exact integers: with d = max - x, E = table[d] and S = sum E,
 * y = min(floor((512 E + S) / (2 S)), 255) - 128. Output scale 1/256, zero point -128. y may be x.
 */
#ifndef PG_SOFTMAX_H
#define PG_SOFTMAX_H

#include "projgen_runtime.h"

typedef struct {
    const uint16_t *table; /* [256] */
    int32_t rows;
    int32_t count; /* elements of a row, 1 .. 32767: then 2 S and 512 E + S fit 32 bits */
} pg_softmax_params;

PG_KERNEL void pg_softmax(const pg_softmax_params *p, const int8_t *x, int8_t *y) {
    for (int32_t row = 0; row < p->rows; ++row) {
        int32_t max = x[0];
        for (int32_t i = 1; i < p->count; ++i) {
            max = x[i] > max ? x[i] : max;
        }
        uint32_t sum = 0;
        for (int32_t i = 0; i < p->count; ++i) {
            sum += p->table[max - x[i]];
        }
        for (int32_t i = 0; i < p->count; ++i) {
            const uint32_t share = (512u * p->table[max - x[i]] + sum) / (2u * sum);
            y[i] = (int8_t)((int32_t)(share < 255u ? share : 255u) - 128);
        }
        x += p->count;
        y += p->count;
    }
}

#endif /* PG_SOFTMAX_H */
