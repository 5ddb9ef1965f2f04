/* SPDX-License-Identifier: MIT-0
 *
 * Scaled dot-product attention: y = the mean of the values, weighted by how well their keys meet a query.
 * Queries [queries][heads][depth], keys [keys][heads][depth], values [keys][heads][width], outputs
 * [queries][heads][width], all int8. For every query of every head:
 *
 *   acc[j] = sum_d (q[d] - query_zero) k[j][d]          the keys' zero point adds the same to every acc
 *   n[j]   = RQ(min(max acc - acc[j], limit), score_multiplier, score_shift)          1024 steps an octave
 *   E[j]   = 2^(-n[j] / 1024) as a Q15 number >> drop, to nearest
 *   y[f]   = requantised (sum_j E[j] (v[j][f] - value_zero)) / (sum_j E[j])
 *
 * The quotient is a product with one reciprocal per query and head. y may be q where depth == width.
 * Scratch: one int32 per key.
 */
#ifndef PG_ATTENTION_H
#define PG_ATTENTION_H

#include "projgen_runtime.h"

typedef struct {
    int32_t queries;
    int32_t keys; /* 1 .. 1024: sum E < 2^23 */
    int32_t heads;
    int32_t depth; /* features of a query and of a key in one head; 255^2 depth < 2^31 */
    int32_t width; /* features of a value in one head */
    int32_t query_zero;
    int32_t value_zero;
    int32_t score_multiplier;
    int32_t score_shift;
    int32_t drop; /* bits that weights are shortened by, so that their sum fits */
    int32_t value_multiplier;
    pg_requant out;
} pg_attention_params;

/* round(32767 2^(-i / 32)) and round(32768 2^(-i / 1024)), i = 0 .. 31 */
static const uint16_t pg_exp2_coarse[32] = {32767, 32065, 31378, 30705, 30047, 29404, 28774, 28157,
                                            27554, 26963, 26385, 25820, 25267, 24725, 24196, 23677,
                                            23170, 22673, 22187, 21712, 21247, 20791, 20346, 19910,
                                            19483, 19066, 18657, 18258, 17866, 17483, 17109, 16742};
static const uint16_t pg_exp2_fine[32] = {32768, 32746, 32724, 32702, 32679, 32657, 32635, 32613,
                                          32591, 32569, 32547, 32525, 32503, 32481, 32459, 32437,
                                          32415, 32393, 32371, 32349, 32327, 32306, 32284, 32262,
                                          32240, 32218, 32196, 32175, 32153, 32131, 32109, 32088};

/* 2^(-n / 1024) as a Q15 number >> drop, to nearest: 0 .. 32767; n >= 0. */
PG_INLINE int32_t pg_exp2_weight(int32_t n, int32_t drop) {
    const int32_t shift = 15 + drop + (n >> 10);
    if (shift > 30) {
        return 0;
    }
    const int32_t product = (int32_t)pg_exp2_coarse[(n >> 5) & 31] * (int32_t)pg_exp2_fine[n & 31];
    return (product + ((int32_t)1 << (shift - 1))) >> shift;
}

/* acc[j] = sum_d (q[d] - zero) k[j][d], keys `step` elements apart, four of them at a time. Returns the
 * largest. */
PG_INLINE int32_t pg_attention_scores(const int8_t *q, int32_t zero, const int8_t *k, int32_t step,
                                      int32_t depth, int32_t keys, int32_t *acc) {
    int32_t largest = INT32_MIN;
    int32_t j = 0;
    for (; j + 4 <= keys; j += 4) {
        const int8_t *k0 = k;
        const int8_t *k1 = k0 + step;
        const int8_t *k2 = k1 + step;
        const int8_t *k3 = k2 + step;
        int32_t acc0 = 0;
        int32_t acc1 = 0;
        int32_t acc2 = 0;
        int32_t acc3 = 0;
        for (int32_t d = 0; d < depth; ++d) {
            const int32_t x = q[d] - zero;
            acc0 += x * k0[d];
            acc1 += x * k1[d];
            acc2 += x * k2[d];
            acc3 += x * k3[d];
        }
        acc[j] = acc0;
        acc[j + 1] = acc1;
        acc[j + 2] = acc2;
        acc[j + 3] = acc3;
        acc0 = acc0 > acc1 ? acc0 : acc1;
        acc2 = acc2 > acc3 ? acc2 : acc3;
        acc0 = acc0 > acc2 ? acc0 : acc2;
        largest = acc0 > largest ? acc0 : largest;
        k = k3 + step;
    }
    for (; j < keys; ++j) {
        int32_t sum = 0;
        for (int32_t d = 0; d < depth; ++d) {
            sum += (q[d] - zero) * k[d];
        }
        acc[j] = sum;
        largest = sum > largest ? sum : largest;
        k += step;
    }
    return largest;
}

/* Scores become weights where they lie. Returns the weights' sum, 2^12 .. 2^23 - 1. */
PG_INLINE int32_t pg_attention_weights(const pg_attention_params *p, int32_t largest, int32_t *row) {
    const int32_t m = p->score_multiplier;
    const int32_t shift = p->score_shift;
    const int32_t limit = INT32_MAX >> shift;
    const int32_t drop = p->drop;
    const int32_t keys = p->keys;
    int32_t sum = 0;
    for (int32_t j = 0; j < keys; ++j) {
        const int32_t distance = largest - row[j];
        const int32_t e = pg_exp2_weight(pg_rq(distance < limit ? distance : limit, m, shift), drop);
        row[j] = e;
        sum += e;
    }
    return sum;
}

/* One output from its sum of weighted values; with up from pg_attention_reciprocal. */
PG_INLINE int8_t pg_attention_mean(const pg_attention_params *p, int32_t acc, int32_t zeros, int32_t up,
                                   int32_t reciprocal) {
    const int32_t centred = (int32_t)((uint32_t)(acc - zeros) << up);
    return (int8_t)pg_requantise(pg_multiply_high(centred, reciprocal), p->value_multiplier, &p->out);
}

/* floor(2^47 / (sum << up)) by long division in 32 bits; up, stored, brings the sum to 2^22 .. 2^23 - 1. */
PG_INLINE int32_t pg_attention_reciprocal(int32_t sum, int32_t *up) {
    uint32_t divisor = (uint32_t)sum;
    *up = 0;
    while (divisor < ((uint32_t)1 << 22) && *up < 11) {
        divisor <<= 1;
        ++*up;
    }
    uint32_t quotient = 0x80000000u / divisor;
    uint32_t rest = 0x80000000u % divisor;
    for (int32_t i = 0; i < 2; ++i) {
        rest <<= 8;
        quotient = (quotient << 8) + rest / divisor;
        rest %= divisor;
    }
    return (int32_t)quotient;
}

/* The weighted mean of values `step` elements apart, four features at a time. */
PG_INLINE void pg_attention_values(const pg_attention_params *p, const int32_t *row, int32_t sum,
                                   const int8_t *v, int32_t step, int8_t *y) {
    int32_t up;
    const int32_t reciprocal = pg_attention_reciprocal(sum, &up);
    const int32_t zeros = p->value_zero * sum;
    const int32_t keys = p->keys;
    const int32_t width = p->width;
    int32_t f = 0;
    for (; f + 4 <= width; f += 4) {
        const int8_t *at = v + f;
        int32_t acc0 = 0;
        int32_t acc1 = 0;
        int32_t acc2 = 0;
        int32_t acc3 = 0;
        for (int32_t j = 0; j < keys; ++j) {
            const int32_t e = row[j];
            acc0 += e * at[0];
            acc1 += e * at[1];
            acc2 += e * at[2];
            acc3 += e * at[3];
            at += step;
        }
        y[f] = pg_attention_mean(p, acc0, zeros, up, reciprocal);
        y[f + 1] = pg_attention_mean(p, acc1, zeros, up, reciprocal);
        y[f + 2] = pg_attention_mean(p, acc2, zeros, up, reciprocal);
        y[f + 3] = pg_attention_mean(p, acc3, zeros, up, reciprocal);
    }
    for (; f < width; ++f) {
        const int8_t *at = v + f;
        int32_t acc = 0;
        for (int32_t j = 0; j < keys; ++j) {
            acc += row[j] * *at;
            at += step;
        }
        y[f] = pg_attention_mean(p, acc, zeros, up, reciprocal);
    }
}

PG_KERNEL void pg_attention(const pg_attention_params *p, const int8_t *q, const int8_t *k, const int8_t *v,
                            int8_t *y, void *scratch) {
    int32_t *row = (int32_t *)scratch;
    const int32_t heads = p->heads;
    const int32_t depth = p->depth;
    const int32_t width = p->width;
    for (int32_t i = 0; i < p->queries; ++i) {
        for (int32_t h = 0; h < heads; ++h) {
            const int32_t largest =
                pg_attention_scores(q, p->query_zero, k + h * depth, heads * depth, depth, p->keys, row);
            const int32_t sum = pg_attention_weights(p, largest, row);
            pg_attention_values(p, row, sum, v + h * width, heads * width, y);
            q += depth;
            y += width;
        }
    }
}

#endif /* PG_ATTENTION_H */
