/* SPDX-License-Identifier: MIT-0
 *
 * Layer normalisation of rows of int8 features: less the mean, over the deviation, times gamma, plus beta.
 *
 *   S = sum x,  V = features sum x^2 - S^2                features^2 times the variance, exactly
 *   r 2^e = the root of 2^8 V + epsilon                   r of 16 bits
 *   t = (features x - S) / sqrt(V + epsilon / 2^8) with 11 fraction bits, through one reciprocal of r
 *   y = requantised gamma t + beta
 *
 * y may be x.
 */
#ifndef PG_LAYER_NORM_H
#define PG_LAYER_NORM_H

#include "projgen_runtime.h"

typedef struct {
    const int16_t *gamma; /* [features], |gamma| < 2^11 */
    const int32_t *beta;  /* [features], in units of gamma times t */
    int32_t rows;
    int32_t features;     /* 1 .. 4096 */
    int32_t epsilon_low;  /* the lower 31 bits of epsilon */
    int32_t epsilon_high; /* the bits above; epsilon is 1 .. 2^52 - 1 */
    int32_t multiplier;
    pg_requant out;
} pg_layer_norm_params;

/* floor(sqrt(v)), bit by bit; v >= 2^30. */
PG_INLINE uint32_t pg_root(uint32_t v) {
    uint32_t root = 0;
    for (uint32_t bit = (uint32_t)1 << 15; bit != 0; bit >>= 1) {
        const uint32_t next = root | bit;
        root = next * next <= v ? next : root;
    }
    return root;
}

PG_KERNEL void pg_layer_norm(const pg_layer_norm_params *p, const int8_t *x, int8_t *y) {
    const int32_t features = p->features;
    const int16_t *gamma = p->gamma;
    const int32_t *beta = p->beta;
    const int32_t multiplier = p->multiplier;
    const pg_requant out = p->out;
    const uint64_t epsilon = ((uint64_t)(uint32_t)p->epsilon_high << 31) + (uint32_t)p->epsilon_low;
    for (int32_t row = 0; row < p->rows; ++row) {
        int32_t sum = 0;
        int32_t squares = 0;
        for (int32_t i = 0; i < features; ++i) {
            const int32_t v = x[i];
            sum += v;
            squares += v * v;
        }
        const int64_t spread = (int64_t)features * squares - (int64_t)sum * sum;
        uint64_t square = ((uint64_t)spread << 8) + epsilon;
        int32_t e = 0;
        while (square >= (uint64_t)1 << 32) {
            square >>= 2;
            ++e;
        }
        while (square < (uint64_t)1 << 30) {
            square <<= 2;
            --e;
        }
        /* floor(2^45 / root) by long division in 32 bits. */
        const uint32_t root = pg_root((uint32_t)square);
        const uint32_t high = 0x80000000u / root;
        const uint32_t rest = 0x80000000u % root;
        int32_t reciprocal = (int32_t)((high << 14) + (rest << 14) / root);
        int32_t up = 2 - e;
        if (up < 0) {
            reciprocal >>= -up;
            up = 0;
        }
        for (int32_t i = 0; i < features; ++i) {
            const int32_t centred = (int32_t)((uint32_t)(features * x[i] - sum) << up);
            const int32_t t = pg_multiply_high(centred, reciprocal);
            y[i] = (int8_t)pg_requantise(gamma[i] * t + beta[i], multiplier, &out);
        }
        x += features;
        y += features;
    }
}

#endif /* PG_LAYER_NORM_H */
