/* SPDX-License-Identifier: MIT-0
 *
 * Fully connected: y[r][n] = requantise(bias[n] + sum_k w[n][k] x[r][k]) for every row r.
 */
#ifndef PG_LINEAR_H
#define PG_LINEAR_H

#include "pg_matrix.h"

typedef struct {
    const int8_t *weights;      /* [outputs][inputs] */
    const int32_t *bias;        /* [outputs], input zero point folded in */
    const int32_t *multipliers; /* [outputs], multiples of 4 */
    int32_t rows;
    int32_t inputs;
    int32_t outputs;
    pg_requant out;
} pg_linear_params;

PG_INLINE void pg_linear(const pg_linear_params *p, const void *x, bool x_wide, void *y, bool y_wide) {
    const pg_matrix a = {p->weights, p->bias, p->multipliers};
    const pg_requant out = p->out;
    for (int32_t row = 0; row < p->rows; ++row) {
        pg_matrix_vector(a, p->inputs, p->outputs, &out, x, x_wide, y, y_wide);
        x = pg_at(x, p->inputs, x_wide);
        y = pg_at_mutable(y, p->outputs, y_wide);
    }
}

PG_KERNEL void pg_linear_s8_s8(const pg_linear_params *p, const int8_t *x, int8_t *y) {
    pg_linear(p, x, false, y, false);
}

PG_KERNEL void pg_linear_s8_s16(const pg_linear_params *p, const int8_t *x, int16_t *y) {
    pg_linear(p, x, false, y, true);
}

PG_KERNEL void pg_linear_s16_s8(const pg_linear_params *p, const int16_t *x, int8_t *y) {
    pg_linear(p, x, true, y, false);
}

PG_KERNEL void pg_linear_s16_s16(const pg_linear_params *p, const int16_t *x, int16_t *y) {
    pg_linear(p, x, true, y, true);
}

#endif /* PG_LINEAR_H */
