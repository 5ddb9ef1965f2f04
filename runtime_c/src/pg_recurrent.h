/* SPDX-License-Identifier: MIT-0
 *
 * What the portable LSTM and GRU share: gate products over int8 or low-rank int16 operands.
 */
#ifndef PG_RECURRENT_H
#define PG_RECURRENT_H

#include "pg_activation.h"

/* sum of w[k] v[k] over int8 or int16 (wide) values. */
PG_INLINE int32_t pg_dot(const int8_t *w, const void *v, int32_t count, bool wide) {
#if defined(PG_HAS_NEON)
    return pg_neon_dot(w, v, count, wide);
#else
    int32_t acc = 0;
    for (int32_t k = 0; k < count; ++k) {
        acc += w[k] * pg_get(v, k, wide);
    }
    return acc;
#endif
}

/* value << bits without overflow of the result; value may be negative. */
PG_INLINE int32_t pg_shift_left(int32_t value, int32_t bits) {
    return (int32_t)((uint32_t)value << bits);
}

/* value / 2^bits to nearest, halves up; bits >= 0. */
PG_INLINE int32_t pg_round_shift(int32_t value, int32_t bits) {
    return (value + ((1 << bits) >> 1)) >> bits;
}

/* Weights (rank x inputs) that turn an int8 vector into an int16 one: z = sat16(RQ(w v + bias)). */
typedef struct {
    const int8_t *weights;      /* [rank][inputs] */
    const int32_t *bias;        /* [rank], or NULL for none */
    const int32_t *multipliers; /* [rank] */
    int32_t rank;
    int32_t shift;
} pg_factor;

PG_INLINE void pg_apply_factor(const pg_factor *f, const int8_t *v, int32_t inputs, int16_t *z) {
    for (int32_t j = 0; j < f->rank; ++j) {
        const int32_t start = f->bias != NULL ? f->bias[j] : 0;
        const int32_t acc = start + pg_dot(f->weights + j * inputs, v, inputs, false);
        z[j] = (int16_t)pg_clamp(pg_rq(acc, f->multipliers[j], f->shift), -32768, 32767);
    }
}

/* Both matrices of a layer: acc = (w x << max(k, 0)) + (r h << max(-k, 0)) + bias, one row a gate and unit.
 */
typedef struct {
    const int8_t *input_weights;     /* [gates * units][input width] */
    const int8_t *recurrent_weights; /* [gates * units][recurrent width] */
    const int32_t *bias;             /* [gates * units] */
    const int32_t *multipliers;      /* [gates * units] */
    int32_t input_width;             /* inputs, or the rank of the input factor */
    int32_t recurrent_width;         /* units, or the rank of the recurrent factor; 0: no such part */
    int32_t input_shift;             /* max(k, 0) */
    int32_t recurrent_shift;         /* max(-k, 0) */
    int32_t shift;                   /* of the requantisation */
} pg_gates;

/* The two operands of a step: int8 values, or int16 values after a factor. */
typedef struct {
    const void *x;
    const void *h;
    bool x_wide;
    bool h_wide;
} pg_operands;

PG_INLINE int32_t pg_input_part(const pg_gates *g, pg_operands v, int32_t row) {
    const int32_t width = g->input_width;
    return pg_shift_left(pg_dot(g->input_weights + row * width, v.x, width, v.x_wide), g->input_shift);
}

PG_INLINE int32_t pg_recurrent_part(const pg_gates *g, pg_operands v, int32_t row) {
    const int32_t width = g->recurrent_width;
    if (width == 0) {
        return 0;
    }
    return pg_shift_left(pg_dot(g->recurrent_weights + row * width, v.h, width, v.h_wide),
                         g->recurrent_shift);
}

/* Argument of a gate's table, Q3.12, saturated, from its accumulator. */
PG_INLINE int32_t pg_gate_argument(const pg_gates *g, int32_t acc, int32_t row) {
    return pg_clamp(pg_rq(acc, g->multipliers[row], g->shift), -32768, 32767);
}

/* Argument of a gate both products feed. */
PG_INLINE int32_t pg_gate(const pg_gates *g, pg_operands v, int32_t row) {
    const int32_t acc = pg_input_part(g, v, row) + pg_recurrent_part(g, v, row) + g->bias[row];
    return pg_gate_argument(g, acc, row);
}

/* The operands of a step with the factors applied; z has room for both ranks. A rank of 0 means dense. */
PG_INLINE pg_operands pg_project(const pg_factor *input, const pg_factor *recurrent, const int8_t *x,
                                 int32_t inputs, const int8_t *h, int32_t units, int16_t *z) {
    pg_operands v = {x, h, false, false};
    if (input->rank > 0) {
        pg_apply_factor(input, x, inputs, z);
        v.x = z;
        v.x_wide = true;
        z += input->rank;
    }
    if (recurrent->rank > 0) {
        pg_apply_factor(recurrent, h, units, z);
        v.h = z;
        v.h_wide = true;
    }
    return v;
}

#endif /* PG_RECURRENT_H */
