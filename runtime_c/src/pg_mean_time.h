/* SPDX-License-Identifier: MIT-0
 *
 * Mean over the steps of a sequence of unknown length. The state holds one int32 sum of (x - zero_point) per
 * feature: reset once, take every step, finish after the last. With T steps and sum S,
 * y = requantise(floor((S 2^fraction + floor(T / 2)) / T)).
 */
#ifndef PG_MEAN_TIME_H
#define PG_MEAN_TIME_H

#include "projgen_runtime.h"

typedef struct {
    int32_t features;
    int32_t zero_point; /* of the input */
    int32_t fraction;   /* T 2^fraction and the sums fit int32 */
    int32_t multiplier;
    pg_requant out;
} pg_mean_time_params;

PG_KERNEL void pg_mean_time_reset(const pg_mean_time_params *p, void *state) {
    memset(state, 0, (size_t)p->features * sizeof(int32_t));
}

PG_KERNEL void pg_mean_time(const pg_mean_time_params *p, void *state, const int8_t *x) {
    int32_t *sums = (int32_t *)state;
    for (int32_t i = 0; i < p->features; ++i) {
        sums[i] += x[i] - p->zero_point;
    }
}

PG_KERNEL void pg_mean_time_finish(const pg_mean_time_params *p, const void *state, int32_t steps,
                                   int8_t *y) {
    const int32_t *sums = (const int32_t *)state;
    for (int32_t i = 0; i < p->features; ++i) {
        int32_t whole = sums[i] / steps;
        int32_t rest = sums[i] % steps;
        if (rest < 0) {
            rest += steps;
            --whole;
        }
        const int32_t scale = (int32_t)1 << p->fraction;
        const int32_t mean = whole * scale + (rest * scale + steps / 2) / steps;
        y[i] = (int8_t)pg_requantise(mean, p->multiplier, &p->out);
    }
}

#endif /* PG_MEAN_TIME_H */
