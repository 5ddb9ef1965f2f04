/* SPDX-License-Identifier: MIT-0
 *
 * LSTM, one step, for Armv7-M cores without DSP instructions: gates i, f, g, o; dense, with factored weights,
 * or joint.
 *
 * State: int16 cells[units] with fraction bits as in the parameters, then int8 hidden[units] (scale 2^-7).
 */
#ifndef PG_LSTM_THUMB2_H
#define PG_LSTM_THUMB2_H

#include "pg_recurrent_thumb2.h"

typedef struct {
    pg_linear_thumb2_params gates; /* of the operands side by side, or of the joint components */
    const int32_t *multipliers;    /* [4 units] */
    pg_thumb2_factor input_factor; /* joint: of x and h side by side */
    pg_thumb2_factor recurrent_factor;
    const int8_t *initial_hidden; /* [units], or NULL for zeros */
    const int16_t *initial_cells; /* [units], or NULL for zeros */
    int32_t joint;                /* 1: the components of the input factor are the gates' only operand */
    int32_t inputs;
    int32_t units;
    int32_t input_shift;     /* max(k, 0) */
    int32_t recurrent_shift; /* max(-k, 0) */
    int32_t shift;           /* of the requantisation */
    int32_t cell_fraction;   /* 4 .. 12 */
    int32_t factor_at;       /* words of scratch before the operand of a factor */
    int32_t sums_at;         /* before the sums */
} pg_lstm_thumb2_params;

PG_INLINE void pg_lstm_thumb2_start(const pg_lstm_thumb2_params *p, void *state) {
    const size_t units = (size_t)p->units;
    memset(state, 0, 3 * units);
    if (p->initial_cells != NULL) {
        memcpy(state, p->initial_cells, 2 * units);
    }
    if (p->initial_hidden != NULL) {
        memcpy((int8_t *)state + 2 * units, p->initial_hidden, units);
    }
}

/* c' and h' of every unit from the sums of its gates; y gets h'. */
PG_INLINE void pg_lstm_thumb2_cells(const pg_lstm_thumb2_params *p, const int32_t *sums, int16_t *cells,
                                    int8_t *y) {
    const int32_t units = p->units;
    const int32_t shift = p->shift;
    const int32_t fraction = p->cell_fraction;
    for (int32_t j = 0; j < units; ++j) {
        const int32_t *m = p->multipliers + j;
        const int32_t in = pg_logistic(pg_thumb2_argument(sums[j], m[0], shift));
        const int32_t forget = pg_logistic(pg_thumb2_argument(sums[units + j], m[units], shift));
        const int32_t candidate = pg_tanh(pg_thumb2_argument(sums[2 * units + j], m[2 * units], shift));
        const int32_t out = pg_logistic(pg_thumb2_argument(sums[3 * units + j], m[3 * units], shift));
        const int32_t update = pg_thumb2_round(pg_multiply_q15(in, candidate), 15 - fraction);
        const int32_t cell = pg_clamp(pg_multiply_q15(cells[j], forget) + update, -32768, 32767);
        const int32_t squashed = pg_tanh(pg_clamp(cell * (1 << (12 - fraction)), -32768, 32767));
        cells[j] = (int16_t)cell;
        y[j] = (int8_t)pg_clamp(pg_thumb2_round(pg_multiply_q15(out, squashed), 8), -128, 127);
    }
}

/* Scratch, words: the gates' operand, a factor's, the sums. */
PG_INLINE void pg_lstm_thumb2_step(const pg_lstm_thumb2_params *p, void *state, const int8_t *x, int8_t *y,
                                   void *scratch, pg_linear_thumb2_block *gates,
                                   pg_linear_thumb2_block *input_factor,
                                   pg_linear_thumb2_block *recurrent_factor) {
    int8_t *hidden = (int8_t *)state + 2 * p->units;
    int32_t *operand = (int32_t *)scratch;
    int32_t *factor = operand + p->factor_at;
    int32_t *sums = operand + p->sums_at;
    int32_t sum;
    if (p->joint != 0) {
        const pg_linear_thumb2_params *rows = &p->input_factor.rows;
        sum = pg_thumb2_widen(x, factor, p->inputs, p->input_shift);
        sum += pg_thumb2_widen(hidden, factor + p->inputs, p->units, p->recurrent_shift);
        pg_linear_thumb2_complete(rows, factor, sum);
        input_factor(factor, rows->stream, sums, rows);
        sum = pg_thumb2_components(&p->input_factor, sums, operand, 0);
    } else {
        const int32_t rank = p->input_factor.rows.outputs;
        sum = pg_thumb2_side(&p->input_factor, x, p->inputs, p->input_shift, operand, factor, sums,
                             input_factor);
        sum += pg_thumb2_side(&p->recurrent_factor, hidden, p->units, p->recurrent_shift,
                              operand + (rank > 0 ? rank : p->inputs), factor, sums, recurrent_factor);
    }
    pg_linear_thumb2_complete(&p->gates, operand, sum);
    gates(operand, p->gates.stream, sums, &p->gates);
    pg_lstm_thumb2_cells(p, sums, (int16_t *)state, y);
    memcpy(hidden, y, (size_t)p->units);
}

#endif /* PG_LSTM_THUMB2_H */
