/* SPDX-License-Identifier: MIT-0
 *
 * LSTM, one step: int8 input and output, int16 cells, gates i, f, g, o. Dense, with factored weights, or
 * joint.
 *
 * State: int16 cells[units] with fraction bits as in the parameters, then int8 hidden[units] (scale 2^-7). It
 * is aligned to 2 bytes; the output is neither the state nor the input.
 */
#ifndef PG_LSTM_H
#define PG_LSTM_H

#include "pg_recurrent.h"

typedef struct {
    pg_gates gates;
    pg_factor input_factor;       /* rank 0: dense */
    pg_factor recurrent_factor;   /* rank 0: dense */
    const int8_t *initial_hidden; /* [units], or NULL for zeros */
    const int16_t *initial_cells; /* [units], or NULL for zeros */
    int32_t inputs;
    int32_t units;
    int32_t cell_fraction; /* 4 .. 12 */
} pg_lstm_params;

/* Joint: one vector z, factored from x and h together, is the gates' only operand. */
typedef struct {
    pg_gates factor;              /* its rows are the components of z, int8 weights of x and of h */
    pg_gates gates;               /* input width: the rank; no recurrent weights */
    const int8_t *initial_hidden; /* [units], or NULL for zeros */
    const int16_t *initial_cells; /* [units], or NULL for zeros */
    int32_t rank;
    int32_t units;
    int32_t cell_fraction; /* 4 .. 12 */
} pg_lstm_joint_params;

/* c' and h' of every unit; y gets h'. */
PG_INLINE void pg_lstm_cells(const pg_gates *g, pg_operands v, int32_t units, int32_t fraction,
                             int16_t *cells, int8_t *y) {
    for (int32_t j = 0; j < units; ++j) {
        const int32_t in = pg_logistic(pg_gate(g, v, j));
        const int32_t forget = pg_logistic(pg_gate(g, v, units + j));
        const int32_t candidate = pg_tanh(pg_gate(g, v, 2 * units + j));
        const int32_t out = pg_logistic(pg_gate(g, v, 3 * units + j));
        const int32_t update = pg_round_shift(pg_multiply_q15(in, candidate), 15 - fraction);
        const int32_t cell = pg_clamp(pg_multiply_q15(cells[j], forget) + update, -32768, 32767);
        const int32_t squashed = pg_tanh(pg_clamp(pg_shift_left(cell, 12 - fraction), -32768, 32767));
        cells[j] = (int16_t)cell;
        y[j] = (int8_t)pg_clamp(pg_round_shift(pg_multiply_q15(out, squashed), 8), -128, 127);
    }
}

PG_INLINE void pg_lstm_start(const int8_t *hidden, const int16_t *cells, size_t units, void *state) {
    memset(state, 0, 3 * units);
    if (cells != NULL) {
        memcpy(state, cells, 2 * units);
    }
    if (hidden != NULL) {
        memcpy((int8_t *)state + 2 * units, hidden, units);
    }
}

PG_KERNEL void pg_lstm_reset(const pg_lstm_params *p, void *state) {
    pg_lstm_start(p->initial_hidden, p->initial_cells, (size_t)p->units, state);
}

/* Dense: both operands are int8. */
PG_KERNEL void pg_lstm(const pg_lstm_params *p, void *state, const int8_t *x, int8_t *y) {
    int8_t *hidden = (int8_t *)state + 2 * p->units;
    const pg_operands v = {x, hidden, false, false};
    pg_lstm_cells(&p->gates, v, p->units, p->cell_fraction, (int16_t *)state, y);
    memcpy(hidden, y, (size_t)p->units);
}

PG_KERNEL void pg_lstm_projected_reset(const pg_lstm_params *p, void *state) {
    pg_lstm_start(p->initial_hidden, p->initial_cells, (size_t)p->units, state);
}

/* One or both matrices factored. scratch: int16[rank of the input factor + rank of the recurrent factor]. */
PG_KERNEL void pg_lstm_projected(const pg_lstm_params *p, void *state, const int8_t *x, int8_t *y,
                                 void *scratch) {
    int8_t *hidden = (int8_t *)state + 2 * p->units;
    const pg_operands v = pg_project(&p->input_factor, &p->recurrent_factor, x, p->inputs, hidden, p->units,
                                     (int16_t *)scratch);
    pg_lstm_cells(&p->gates, v, p->units, p->cell_fraction, (int16_t *)state, y);
    memcpy(hidden, y, (size_t)p->units);
}

PG_KERNEL void pg_lstm_joint_reset(const pg_lstm_joint_params *p, void *state) {
    pg_lstm_start(p->initial_hidden, p->initial_cells, (size_t)p->units, state);
}

/* Both matrices share their first factor. scratch: int16[rank]. */
PG_KERNEL void pg_lstm_joint(const pg_lstm_joint_params *p, void *state, const int8_t *x, int8_t *y,
                             void *scratch) {
    int16_t *z = (int16_t *)scratch;
    int8_t *hidden = (int8_t *)state + 2 * p->units;
    const pg_operands from = {x, hidden, false, false};
    for (int32_t j = 0; j < p->rank; ++j) {
        z[j] = (int16_t)pg_gate(&p->factor, from, j);
    }
    const pg_operands v = {z, NULL, true, false};
    pg_lstm_cells(&p->gates, v, p->units, p->cell_fraction, (int16_t *)state, y);
    memcpy(hidden, y, (size_t)p->units);
}

#endif /* PG_LSTM_H */
