/* SPDX-License-Identifier: MIT-0
 *
 * GRU, one step, for Armv7-M cores without DSP instructions: gates r, z, n, reset after the recurrent
 * product; dense or with factored weights.
 *
 * State: int16 hidden[units] (Q15), then its int8 copy [units] (scale 2^-7), the operand of the next step.
 */
#ifndef PG_GRU_THUMB2_H
#define PG_GRU_THUMB2_H

#include "pg_recurrent_thumb2.h"

typedef struct {
    pg_linear_thumb2_params input_rows;     /* of x or its components: 3 units, the bias of the gates */
    pg_linear_thumb2_params recurrent_rows; /* of h or its components: 3 units, the bias inside the reset */
    const int32_t *multipliers;             /* [3 units] */
    pg_thumb2_factor input_factor;
    pg_thumb2_factor recurrent_factor;
    const int16_t *initial_hidden; /* [units], or NULL for zeros */
    int32_t inputs;
    int32_t units;
    int32_t input_shift;     /* max(k, 0) */
    int32_t recurrent_shift; /* max(-k, 0) */
    int32_t shift;           /* of the requantisation */
    int32_t factor_at;       /* words of scratch before the operand of a factor */
    int32_t sums_at;         /* before the sums of the input, then of the recurrent product */
} pg_gru_thumb2_params;

/* The int8 copy of a state. */
PG_INLINE int8_t pg_gru_thumb2_narrow(int32_t hidden) {
    return (int8_t)pg_clamp(pg_thumb2_round(hidden, 8), -128, 127);
}

PG_INLINE void pg_gru_thumb2_start(const pg_gru_thumb2_params *p, void *state) {
    int16_t *hidden = (int16_t *)state;
    int8_t *narrow = (int8_t *)state + 2 * p->units;
    for (int32_t j = 0; j < p->units; ++j) {
        hidden[j] = (int16_t)(p->initial_hidden != NULL ? p->initial_hidden[j] : 0);
        narrow[j] = pg_gru_thumb2_narrow(hidden[j]);
    }
}

/* The new state of every unit from both products; y gets its int8 copy. */
PG_INLINE void pg_gru_thumb2_cells(const pg_gru_thumb2_params *p, const int32_t *from_x,
                                   const int32_t *from_h, int16_t *hidden, int8_t *y) {
    const int32_t units = p->units;
    const int32_t shift = p->shift;
    for (int32_t j = 0; j < units; ++j) {
        const int32_t *m = p->multipliers + j;
        const int32_t at = units + j;
        const int32_t row = 2 * units + j;
        const int32_t reset = pg_logistic(pg_thumb2_argument(from_x[j] + from_h[j], m[0], shift));
        const int32_t keep = pg_logistic(pg_thumb2_argument(from_x[at] + from_h[at], m[units], shift));
        const int32_t gated = (int32_t)(((int64_t)from_h[row] * reset) >> 16);
        const int32_t candidate = pg_tanh(pg_thumb2_argument(from_x[row] + 2 * gated, m[2 * units], shift));
        const int32_t next = candidate + ((keep * (hidden[j] - candidate) + (1 << 14)) >> 15);
        hidden[j] = (int16_t)next;
        y[j] = pg_gru_thumb2_narrow(next);
    }
}

/* Scratch, words: the operand of a product, a factor's, the sums. */
PG_INLINE void pg_gru_thumb2_step(const pg_gru_thumb2_params *p, void *state, const int8_t *x, int8_t *y,
                                  void *scratch, pg_linear_thumb2_block *input_rows,
                                  pg_linear_thumb2_block *recurrent_rows,
                                  pg_linear_thumb2_block *input_factor,
                                  pg_linear_thumb2_block *recurrent_factor) {
    int8_t *narrow = (int8_t *)state + 2 * p->units;
    int32_t *operand = (int32_t *)scratch;
    int32_t *factor = operand + p->factor_at;
    int32_t *from_x = operand + p->sums_at;
    int32_t *from_h = from_x + 3 * p->units;
    int32_t sum =
        pg_thumb2_side(&p->input_factor, x, p->inputs, p->input_shift, operand, factor, from_x, input_factor);
    pg_linear_thumb2_complete(&p->input_rows, operand, sum);
    input_rows(operand, p->input_rows.stream, from_x, &p->input_rows);
    sum = pg_thumb2_side(&p->recurrent_factor, narrow, p->units, p->recurrent_shift, operand, factor, from_h,
                         recurrent_factor);
    pg_linear_thumb2_complete(&p->recurrent_rows, operand, sum);
    recurrent_rows(operand, p->recurrent_rows.stream, from_h, &p->recurrent_rows);
    pg_gru_thumb2_cells(p, from_x, from_h, (int16_t *)state, y);
    memcpy(narrow, y, (size_t)p->units);
}

#endif /* PG_GRU_THUMB2_H */
