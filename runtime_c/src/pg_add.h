/* SPDX-License-Identifier: MIT-0
 *
 * Element-wise sum: y = requantise(factor_a (a - zero_a) + factor_b (b - zero_b)).
 * b broadcasts against a: the axes of a are merged to four, b has a stride for each. Either operand may be a
 * constant of the parameters. y may be a, and b where nothing is broadcast.
 */
#ifndef PG_ADD_H
#define PG_ADD_H

#include "projgen_runtime.h"

typedef struct {
    const int8_t *constant; /* an operand that is no input; NULL without one */
    int32_t shape[4];       /* of a and y */
    int32_t b_strides[4];   /* elements of b per axis, 0 where it is broadcast */
    int32_t factor_a, zero_a;
    int32_t factor_b, zero_b;
    int32_t multiplier;
    pg_requant out;
} pg_add_params;

PG_KERNEL void pg_add(const pg_add_params *p, const int8_t *a, const int8_t *b, int8_t *y) {
    const pg_requant out = p->out;
    const int32_t zero_a = p->zero_a;
    const int32_t zero_b = p->zero_b;
    const int32_t factor_a = p->factor_a;
    const int32_t factor_b = p->factor_b;
    const int32_t multiplier = p->multiplier;
    const int32_t run = p->shape[3];
    const int32_t b_step = p->b_strides[3];
    int32_t n = 0;
    for (int32_t i = 0; i < p->shape[0]; ++i) {
        for (int32_t j = 0; j < p->shape[1]; ++j) {
            for (int32_t k = 0; k < p->shape[2]; ++k) {
                int32_t at = i * p->b_strides[0] + j * p->b_strides[1] + k * p->b_strides[2];
                for (int32_t l = 0; l < run; ++l) {
                    const int32_t da = a[n] - zero_a;
                    const int32_t db = b[at] - zero_b;
                    y[n] = (int8_t)pg_requantise(factor_a * da + factor_b * db, multiplier, &out);
                    at += b_step;
                    ++n;
                }
            }
        }
    }
}

PG_KERNEL void pg_add_constant_a(const pg_add_params *p, const int8_t *b, int8_t *y) {
    pg_add(p, p->constant, b, y);
}

PG_KERNEL void pg_add_constant_b(const pg_add_params *p, const int8_t *a, int8_t *y) {
    pg_add(p, a, p->constant, y);
}

#endif /* PG_ADD_H */
