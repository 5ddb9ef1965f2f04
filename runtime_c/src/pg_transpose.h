/* SPDX-License-Identifier: MIT-0
 *
 * Axes permuted, up to four: y is written in order, x read with one stride per axis of y.
 */
#ifndef PG_TRANSPOSE_H
#define PG_TRANSPOSE_H

#include "projgen_runtime.h"

typedef struct {
    int32_t out[4];     /* shape of y */
    int32_t strides[4]; /* of x in elements, per axis of y */
} pg_transpose_params;

PG_INLINE void pg_transpose(const pg_transpose_params *p, const void *x, void *y, bool wide) {
    const int32_t run = p->out[3];
    const int32_t step = p->strides[3];
    int32_t n = 0;
    for (int32_t i = 0; i < p->out[0]; ++i) {
        for (int32_t j = 0; j < p->out[1]; ++j) {
            for (int32_t k = 0; k < p->out[2]; ++k) {
                int32_t at = i * p->strides[0] + j * p->strides[1] + k * p->strides[2];
                for (int32_t l = 0; l < run; ++l) {
                    pg_put(y, n++, pg_get(x, at, wide), wide);
                    at += step;
                }
            }
        }
    }
}

PG_KERNEL void pg_transpose_s8(const pg_transpose_params *p, const int8_t *x, int8_t *y) {
    pg_transpose(p, x, y, false);
}

PG_KERNEL void pg_transpose_s16(const pg_transpose_params *p, const int16_t *x, int16_t *y) {
    pg_transpose(p, x, y, true);
}

#endif /* PG_TRANSPOSE_H */
