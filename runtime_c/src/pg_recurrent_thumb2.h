/* SPDX-License-Identifier: MIT-0
 *
 * What LSTM and GRU for Armv7-M cores without DSP instructions share: products of both operands by the blocks
 * of the fully connected layers, which give the sums themselves.
 */
#ifndef PG_RECURRENT_THUMB2_H
#define PG_RECURRENT_THUMB2_H

#include "pg_activation.h"
#include "pg_linear_thumb2.h"

/* Weights that turn an int8 vector into an int16 one: z = sat16(RQ(sums)). No rows: there are none. */
typedef struct {
    pg_linear_thumb2_params rows;
    const int32_t *multipliers;
    int32_t shift; /* of the requantisation */
} pg_thumb2_factor;

/* value / 2^bits to nearest, halves up; bits >= 0. */
PG_INLINE int32_t pg_thumb2_round(int32_t value, int32_t bits) {
    return (value + ((1 << bits) >> 1)) >> bits;
}

/* An accumulator as int16, saturated: the argument of a gate's table, Q3.12, or a component. */
PG_INLINE int32_t pg_thumb2_argument(int32_t acc, int32_t m, int32_t shift) {
    return pg_clamp(pg_rq(acc, m, shift), -32768, 32767);
}

/* count values times 2^shift as words; returns their sum. */
PG_INLINE int32_t pg_thumb2_widen(const int8_t *v, int32_t *to, int32_t count, int32_t shift) {
    const int32_t sum = pg_linear_thumb2_widen(v, to, count);
    if (shift > 0) {
        for (int32_t i = 0; i < count; ++i) {
            to[i] = to[i] * (1 << shift);
        }
    }
    return sum * (1 << shift);
}

/* The components of the sums of a factor, times 2^shift; returns the sum of what it writes. */
PG_INLINE int32_t pg_thumb2_components(const pg_thumb2_factor *f, const int32_t *sums, int32_t *to,
                                       int32_t shift) {
    int32_t total = 0;
    for (int32_t j = 0; j < f->rows.outputs; ++j) {
        to[j] = pg_thumb2_argument(sums[j], f->multipliers[j], f->shift) * (1 << shift);
        total += to[j];
    }
    return total;
}

/* One side of the gate products: v itself or its components; returns the sum of what it writes.
 * operand, sums: scratch of the factor. */
PG_INLINE int32_t pg_thumb2_side(const pg_thumb2_factor *f, const int8_t *v, int32_t count, int32_t shift,
                                 int32_t *to, int32_t *operand, int32_t *sums,
                                 pg_linear_thumb2_block *block) {
    if (f->rows.outputs == 0) {
        return pg_thumb2_widen(v, to, count, shift);
    }
    pg_linear_thumb2_complete(&f->rows, operand, pg_linear_thumb2_widen(v, operand, count));
    block(operand, f->rows.stream, sums, &f->rows);
    return pg_thumb2_components(f, sums, to, shift);
}

#endif /* PG_RECURRENT_THUMB2_H */
