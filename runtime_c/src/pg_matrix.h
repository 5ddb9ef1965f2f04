/* SPDX-License-Identifier: MIT-0
 *
 * Shared core of the matrix kernels: outputs y[n] = requantise(bias[n] + sum_k w[n][k] x[k]) of one input
 * vector. Four outputs share each load of x.
 */
#ifndef PG_MATRIX_H
#define PG_MATRIX_H

#include "projgen_runtime.h"

typedef struct {
    const int8_t *weights;      /* [outputs][inputs] */
    const int32_t *bias;        /* [outputs], input zero point folded in */
    const int32_t *multipliers; /* [outputs], multiples of 4 */
} pg_matrix;

PG_INLINE void pg_matrix_vector(pg_matrix a, int32_t inputs, int32_t outputs, const pg_requant *out,
                                const void *x, bool x_wide, void *y, bool y_wide) {
#if defined(PG_HAS_NEON)
    pg_neon_matrix_vector(a.weights, a.bias, a.multipliers, inputs, outputs, out, x, x_wide, y, y_wide);
#else
    int32_t n = 0;
    for (; n + 4 <= outputs; n += 4) {
        const int8_t *w0 = a.weights;
        const int8_t *w1 = w0 + inputs;
        const int8_t *w2 = w1 + inputs;
        const int8_t *w3 = w2 + inputs;
        int32_t acc0 = a.bias[n];
        int32_t acc1 = a.bias[n + 1];
        int32_t acc2 = a.bias[n + 2];
        int32_t acc3 = a.bias[n + 3];
        for (int32_t k = 0; k < inputs; ++k) {
            const int32_t v = pg_get(x, k, x_wide);
            acc0 += v * *w0++;
            acc1 += v * *w1++;
            acc2 += v * *w2++;
            acc3 += v * *w3++;
        }
        pg_put(y, n, pg_requantise(acc0, a.multipliers[n], out), y_wide);
        pg_put(y, n + 1, pg_requantise(acc1, a.multipliers[n + 1], out), y_wide);
        pg_put(y, n + 2, pg_requantise(acc2, a.multipliers[n + 2], out), y_wide);
        pg_put(y, n + 3, pg_requantise(acc3, a.multipliers[n + 3], out), y_wide);
        a.weights = w3;
    }
    for (; n < outputs; ++n) {
        int32_t acc = a.bias[n];
        for (int32_t k = 0; k < inputs; ++k) {
            acc += pg_get(x, k, x_wide) * *a.weights++;
        }
        pg_put(y, n, pg_requantise(acc, a.multipliers[n], out), y_wide);
    }
#endif
}

#endif /* PG_MATRIX_H */
