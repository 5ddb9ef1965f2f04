/* SPDX-License-Identifier: MIT-0
 *
 * Parameters of the GRU step for cores with DSP instructions; the step itself is emitted for its shape.
 *
 * State: int16 hidden[stride] (Q15), then int16 narrow[stride], its int8 copy already shifted as the gate
 * products need it; stride is the number of units rounded up to 8. It is aligned to 4 bytes.
 */
#ifndef PG_GRU_DSP_H
#define PG_GRU_DSP_H

#include "pg_recurrent_dsp.h"

typedef struct {
    const uint32_t *gates;            /* per two units: starts, weights, multipliers */
    const uint32_t *input_factor;     /* stream of the input factor; NULL where the matrix is dense */
    const uint32_t *recurrent_factor; /* stream of the recurrent factor; NULL where the matrix is dense */
    const int16_t *initial_hidden;    /* [units], or NULL for zeros */
} pg_gru_dsp_params;

PG_INLINE void pg_gru_dsp_start(const pg_gru_dsp_params *p, void *state, int32_t units, int32_t stride,
                                int32_t hidden_shift) {
    int16_t *hidden = (int16_t *)state;
    memset(state, 0, 4 * (size_t)stride);
    for (int32_t j = 0; p->initial_hidden != NULL && j < units; ++j) {
        const int32_t narrow = pg_clamp((p->initial_hidden[j] + 128) >> 8, -128, 127);
        hidden[j] = p->initial_hidden[j];
        hidden[stride + j] = (int16_t)(narrow * (1 << hidden_shift));
    }
}

/* What the emitted block does, in plain C: all units of one step, two at a time. */
typedef struct {
    int32_t units;
    int32_t stride;
    int32_t x_quads; /* of four columns of the input part, and of the recurrent part */
    int32_t h_quads;
    bool x_half; /* two more columns */
    bool h_half;
    bool wide;            /* int16 weights instead of packed pairs */
    int32_t shift;        /* of the requantisation */
    int32_t hidden_shift; /* of the stored int8 copy */
} pg_gru_dsp_shape;

PG_INLINE void pg_gru_dsp_cells(const int16_t *operand, const uint32_t *stream, int16_t *hidden, int8_t *y,
                                const pg_gru_dsp_shape s) {
    const int16_t *recurrent = operand + 4 * s.x_quads + (s.x_half ? 2 : 0);
    for (int32_t j = 0; j < s.units; j += 2) {
        int32_t from_x[6]; /* r and z of both units, then n of both, input part */
        int32_t from_h[6];
        uint32_t starts[6] = {0, 0, 0, 0, 0, 0};
        const uint32_t *m = pg_rows_run(from_x, 6, stream, stream + 6, operand, s.x_quads, s.x_half, s.wide);
        starts[4] = m[0];
        starts[5] = m[1];
        m = pg_rows_run(from_h, 6, starts, m + 2, recurrent, s.h_quads, s.h_half, s.wide);
        for (int32_t i = 0; i < 2; ++i) {
            const int32_t v_r = pg_rq(from_x[2 * i] + from_h[2 * i], (int32_t)m[2 * i], s.shift);
            const int32_t v_z = pg_rq(from_x[2 * i + 1] + from_h[2 * i + 1], (int32_t)m[2 * i + 1], s.shift);
            const int32_t reset = pg_tanh_wide(v_r, PG_LOGISTIC_BIAS) >> 16;
            const int32_t keep = pg_tanh_wide(v_z, PG_LOGISTIC_BIAS) >> 16;
            const int32_t gated = (int32_t)(((int64_t)from_h[4 + i] * reset) >> 16);
            const int32_t v_n = pg_rq(from_x[4 + i] + 2 * gated, (int32_t)m[4 + i], s.shift);
            const int32_t candidate = pg_tanh_wide(v_n, PG_TANH_BIAS) >> 15;
            const int32_t old = hidden[j + i];
            const int32_t next = candidate + ((keep * (old - candidate) + 0x4000) >> 15);
            const int32_t narrow = pg_clamp((next + 128) >> 8, -128, 127);
            hidden[j + i] = (int16_t)next;
            hidden[s.stride + j + i] = (int16_t)(narrow * (1 << s.hidden_shift));
            if (j + i < s.units) {
                y[j + i] = (int8_t)narrow;
            }
        }
        stream = m + 6;
    }
}

#endif /* PG_GRU_DSP_H */
