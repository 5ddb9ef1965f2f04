/* SPDX-License-Identifier: MIT-0
 *
 * GRU, one step: int8 input and output, int16 state, gates r, z, n, reset after the recurrent product. Dense
 * or with factored weights.
 *
 * State: int16 hidden[units] (Q15), then its int8 copy [units] (scale 2^-7), the operand of the next step. It
 * is aligned to 2 bytes; the output is neither the state nor the input.
 */
#ifndef PG_GRU_H
#define PG_GRU_H

#include "pg_recurrent.h"

typedef struct {
    pg_gates gates;
    pg_factor input_factor;        /* rank 0: dense */
    pg_factor recurrent_factor;    /* rank 0: dense */
    const int32_t *candidate_bias; /* [units], added to the recurrent product of gate n */
    const int16_t *initial_hidden; /* [units], or NULL for zeros */
    int32_t inputs;
    int32_t units;
} pg_gru_params;

/* The int8 copy of a state. */
PG_INLINE int8_t pg_gru_narrow(int32_t hidden) {
    return (int8_t)pg_clamp(pg_round_shift(hidden, 8), -128, 127);
}

/* The new state of every unit; y gets its int8 copy. */
PG_INLINE void pg_gru_cells(const pg_gru_params *p, pg_operands v, int16_t *hidden, int8_t *y) {
    const pg_gates *g = &p->gates;
    const int32_t units = p->units;
    for (int32_t j = 0; j < units; ++j) {
        const int32_t row = 2 * units + j;
        const int32_t reset = pg_logistic(pg_gate(g, v, j));
        const int32_t keep = pg_logistic(pg_gate(g, v, units + j));
        const int32_t from_h = pg_recurrent_part(g, v, row) + p->candidate_bias[j];
        const int32_t gated = (int32_t)(((int64_t)from_h * reset) >> 16);
        const int32_t acc = pg_input_part(g, v, row) + g->bias[row] + 2 * gated;
        const int32_t candidate = pg_tanh(pg_gate_argument(g, acc, row));
        const int32_t next = candidate + ((keep * (hidden[j] - candidate) + (1 << 14)) >> 15);
        hidden[j] = (int16_t)next;
        y[j] = pg_gru_narrow(next);
    }
}

PG_INLINE void pg_gru_start(const pg_gru_params *p, void *state) {
    int16_t *hidden = (int16_t *)state;
    int8_t *narrow = (int8_t *)state + 2 * p->units;
    for (int32_t j = 0; j < p->units; ++j) {
        hidden[j] = (int16_t)(p->initial_hidden != NULL ? p->initial_hidden[j] : 0);
        narrow[j] = pg_gru_narrow(hidden[j]);
    }
}

PG_KERNEL void pg_gru_reset(const pg_gru_params *p, void *state) {
    pg_gru_start(p, state);
}

/* Dense: both operands are int8. */
PG_KERNEL void pg_gru(const pg_gru_params *p, void *state, const int8_t *x, int8_t *y) {
    int8_t *narrow = (int8_t *)state + 2 * p->units;
    const pg_operands v = {x, narrow, false, false};
    pg_gru_cells(p, v, (int16_t *)state, y);
    memcpy(narrow, y, (size_t)p->units);
}

PG_KERNEL void pg_gru_projected_reset(const pg_gru_params *p, void *state) {
    pg_gru_start(p, state);
}

/* One or both matrices factored. scratch: int16[rank of the input factor + rank of the recurrent factor]. */
PG_KERNEL void pg_gru_projected(const pg_gru_params *p, void *state, const int8_t *x, int8_t *y,
                                void *scratch) {
    int8_t *narrow = (int8_t *)state + 2 * p->units;
    const pg_operands v = pg_project(&p->input_factor, &p->recurrent_factor, x, p->inputs, narrow, p->units,
                                     (int16_t *)scratch);
    pg_gru_cells(p, v, (int16_t *)state, y);
    memcpy(narrow, y, (size_t)p->units);
}

#endif /* PG_GRU_H */
