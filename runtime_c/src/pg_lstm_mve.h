/* SPDX-License-Identifier: MIT-0
 *
 * Parameters of the LSTM step for cores with MVE; the step itself is emitted for its shape.
 *
 * State: the operand's bytes (x, int8 hidden, low-rank intermediates, each at a place the emitted code
 * knows), then int16 cells[units rounded up to 8]. It is aligned to 4 bytes.
 */
#ifndef PG_LSTM_MVE_H
#define PG_LSTM_MVE_H

#include "pg_recurrent_mve.h"

typedef struct {
    const int8_t *gates;                   /* per eight units and gate: weights by vectors of columns */
    const int32_t *gate_table;             /* per eight units and gate: start values, multipliers */
    const int8_t *input_factor;            /* of x, or joint; NULL where the matrix is dense */
    const int32_t *input_factor_table;     /* per eight rows: start values, multipliers */
    const int8_t *recurrent_factor;        /* NULL where the matrix is dense */
    const int32_t *recurrent_factor_table; /* per eight rows: start values, multipliers */
    const int8_t *initial_hidden;          /* [units], or NULL for zeros */
    const int16_t *initial_cells;          /* [units], or NULL for zeros */
} pg_lstm_mve_params;

PG_INLINE void pg_lstm_mve_start(const pg_lstm_mve_params *p, void *state, int32_t units, int32_t hidden,
                                 int32_t cells, int32_t bytes) {
    memset(state, 0, (size_t)bytes);
    if (p->initial_hidden != NULL) {
        memcpy((int8_t *)state + hidden, p->initial_hidden, (size_t)units);
    }
    if (p->initial_cells != NULL) {
        memcpy((int8_t *)state + cells, p->initial_cells, 2 * (size_t)units);
    }
}

/* The cells of up to eight units in plain C: v holds the table arguments of gates i, f, g, o. */
PG_INLINE void pg_lstm_mve_cells(int32_t v[4][8], int32_t count, int32_t fraction, int16_t *cells,
                                 int8_t *y) {
    for (int32_t j = 0; j < 8; ++j) {
        const int32_t in = pg_logistic(v[0][j]);
        const int32_t forget = pg_logistic(v[1][j]);
        const int32_t product = pg_multiply_q15(in, pg_tanh(v[2][j]));
        const int32_t update = (product + (1 << (14 - fraction))) >> (15 - fraction);
        const int32_t cell = pg_clamp(pg_multiply_q15(cells[j], forget) + update, -32768, 32767);
        const int32_t squashed = pg_tanh(pg_clamp(cell * (1 << (12 - fraction)), -32768, 32767));
        const int32_t value = (pg_multiply_q15(pg_logistic(v[3][j]), squashed) + 128) >> 8;
        cells[j] = (int16_t)cell;
        if (j < count) {
            y[j] = (int8_t)pg_clamp(value, -128, 127);
        }
    }
}

#endif /* PG_LSTM_MVE_H */
