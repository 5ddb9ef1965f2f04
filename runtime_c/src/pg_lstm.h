/* SPDX-License-Identifier: MIT-0
 *
 * LSTM, one step: int8 input and output, int16 cells, gates i, f, g, o. Dense or with factored weights.
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

/* c' and h' of every unit; y gets h'. */
PG_INLINE void pg_lstm_cells(const pg_lstm_params *p, pg_operands v, int16_t *cells, int8_t *y) {
    const pg_gates *g = &p->gates;
    const int32_t units = p->units;
    const int32_t fraction = p->cell_fraction;
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

PG_INLINE void pg_lstm_start(const pg_lstm_params *p, void *state) {
    const size_t units = (size_t)p->units;
    memset(state, 0, 3 * units);
    if (p->initial_cells != NULL) {
        memcpy(state, p->initial_cells, 2 * units);
    }
    if (p->initial_hidden != NULL) {
        memcpy((int8_t *)state + 2 * units, p->initial_hidden, units);
    }
}

PG_KERNEL void pg_lstm_reset(const pg_lstm_params *p, void *state) {
    pg_lstm_start(p, state);
}

/* Dense: both operands are int8. */
PG_KERNEL void pg_lstm(const pg_lstm_params *p, void *state, const int8_t *x, int8_t *y) {
    int8_t *hidden = (int8_t *)state + 2 * p->units;
    const pg_operands v = {x, hidden, false, false};
    pg_lstm_cells(p, v, (int16_t *)state, y);
    memcpy(hidden, y, (size_t)p->units);
}

PG_KERNEL void pg_lstm_projected_reset(const pg_lstm_params *p, void *state) {
    pg_lstm_start(p, state);
}

/* One or both matrices factored. scratch: int16[rank of the input factor + rank of the recurrent factor]. */
PG_KERNEL void pg_lstm_projected(const pg_lstm_params *p, void *state, const int8_t *x, int8_t *y,
                                 void *scratch) {
    int8_t *hidden = (int8_t *)state + 2 * p->units;
    const pg_operands v = pg_project(&p->input_factor, &p->recurrent_factor, x, p->inputs, hidden, p->units,
                                     (int16_t *)scratch);
    pg_lstm_cells(p, v, (int16_t *)state, y);
    memcpy(hidden, y, (size_t)p->units);
}

#endif /* PG_LSTM_H */
