/* SPDX-License-Identifier: MIT-0
 *
 * Parameters of the LSTM step for cores with DSP instructions; the step itself is emitted for its shape.
 *
 * State: of a joint layer first x as int16; int16 hidden[stride], each value already shifted as the gate
 * products need it, then int16 cells[stride]; stride is the number of units rounded up to 8. It is aligned to
 * 4 bytes.
 */
#ifndef PG_LSTM_DSP_H
#define PG_LSTM_DSP_H

#include "pg_recurrent_dsp.h"

typedef struct {
    const uint32_t *gates;        /* per unit: start values, packed weights, multipliers */
    const uint32_t *input_factor; /* stream of the input or joint factor; NULL where the matrix is dense */
    const uint32_t *recurrent_factor; /* stream of the recurrent factor; NULL where the matrix is dense */
    const int8_t *initial_hidden;     /* [units], or NULL for zeros */
    const int16_t *initial_cells;     /* [units], or NULL for zeros */
} pg_lstm_dsp_params;

PG_INLINE void pg_lstm_dsp_start(const pg_lstm_dsp_params *p, void *state, int32_t units, int32_t stride,
                                 int32_t hidden_shift) {
    int16_t *hidden = (int16_t *)state;
    memset(state, 0, 4 * (size_t)stride);
    if (p->initial_hidden != NULL) {
        pg_widen(p->initial_hidden, units, hidden_shift, hidden);
    }
    if (p->initial_cells != NULL) {
        memcpy(hidden + stride, p->initial_cells, 2 * (size_t)units);
    }
}

/* What the emitted block does, in plain C: all units of one step. */
typedef struct {
    int32_t units;
    int32_t stride;
    int32_t quads;        /* of four columns */
    bool half;            /* two more columns */
    bool wide;            /* int16 weights instead of packed pairs */
    int32_t shift;        /* of the requantisation */
    int32_t fraction;     /* bits of the cells */
    int32_t hidden_shift; /* of the stored hidden state */
} pg_lstm_dsp_shape;

PG_INLINE void pg_lstm_dsp_cells(const int16_t *operand, const uint32_t *stream, int16_t *hidden, int8_t *y,
                                 const pg_lstm_dsp_shape s) {
    for (int32_t j = 0; j < s.units; ++j) {
        int32_t acc[4];
        const uint32_t *m = pg_rows_run(acc, 4, stream, stream + 4, operand, s.quads, s.half, s.wide);
        const int32_t v_i = pg_rq(acc[0], (int32_t)m[0], s.shift);
        const int32_t v_f = pg_rq(acc[1], (int32_t)m[1], s.shift);
        const int32_t v_g = pg_rq(acc[2], (int32_t)m[2], s.shift);
        const int32_t v_o = pg_rq(acc[3], (int32_t)m[3], s.shift);
        const int32_t in = pg_tanh_wide(v_i, PG_LOGISTIC_BIAS) >> 16;
        const int32_t forget = pg_tanh_wide(v_f, PG_LOGISTIC_BIAS) >> 16;
        const int32_t candidate = pg_tanh_wide(v_g, PG_TANH_BIAS) >> 15;
        const int32_t out = pg_tanh_wide(v_o, PG_LOGISTIC_BIAS) >> 16;
        const int32_t update = (in * candidate + 0x4000 + (1 << (29 - s.fraction))) >> (30 - s.fraction);
        const int32_t kept = (hidden[s.stride + j] * forget + 0x4000) >> 15;
        const int32_t cell = pg_clamp(kept + update, -32768, 32767);
        const int32_t squashed = pg_tanh_wide(cell * (1 << (12 - s.fraction)), PG_TANH_BIAS) >> 15;
        const int32_t value = pg_clamp((out * squashed + 0x404000) >> 23, -128, 127);
        hidden[s.stride + j] = (int16_t)cell;
        hidden[j] = (int16_t)(value * (1 << s.hidden_shift));
        y[j] = (int8_t)value;
        stream = m + 4;
    }
}

#endif /* PG_LSTM_DSP_H */
