/* SPDX-License-Identifier: MIT-0
 *
 * Parameters of the GRU step for cores with MVE; the step itself is emitted for its shape.
 *
 * State: the operand's bytes (x, the int8 copy of the hidden state, low-rank intermediates, each at a place
 * the emitted code knows), then int16 hidden[units rounded up to 8], Q15. It is aligned to 4 bytes.
 */
#ifndef PG_GRU_MVE_H
#define PG_GRU_MVE_H

#include "pg_recurrent_mve.h"

typedef struct {
    const int8_t *gates;               /* per eight units: r, z, n of the input, n of the recurrent part */
    const int32_t *gate_table;         /* per eight units and gate: start values, multipliers */
    const int8_t *input_factor;        /* NULL where the matrix is dense */
    const int32_t *input_factor_table; /* per eight rows: start values, multipliers */
    const int8_t *recurrent_factor;    /* NULL where the matrix is dense */
    const int32_t *recurrent_factor_table; /* per eight rows: start values, multipliers */
    const int16_t *initial_hidden;         /* [units], or NULL for zeros */
} pg_gru_mve_params;

PG_INLINE int8_t pg_gru_mve_narrow(int32_t hidden) {
    return (int8_t)pg_clamp((hidden + 128) >> 8, -128, 127);
}

PG_INLINE void pg_gru_mve_start(const pg_gru_mve_params *p, void *state, int32_t units, int32_t narrow,
                                int32_t hidden, int32_t bytes) {
    memset(state, 0, (size_t)bytes);
    if (p->initial_hidden != NULL) {
        memcpy((int8_t *)state + hidden, p->initial_hidden, 2 * (size_t)units);
        for (int32_t j = 0; j < units; ++j) {
            ((int8_t *)state)[narrow + j] = pg_gru_mve_narrow(p->initial_hidden[j]);
        }
    }
}

/* Eight units in plain C: v holds the table arguments of r and z, from_x and from_h both parts of n. */
PG_INLINE void pg_gru_mve_cells(int32_t v[2][8], const int32_t *from_x, const int32_t *from_h,
                                const int32_t *multipliers, int32_t shift, int32_t count, int16_t *hidden,
                                int8_t *y) {
    for (int32_t j = 0; j < 8; ++j) {
        const int32_t gated = (int32_t)(((int64_t)from_h[j] * pg_logistic(v[0][j])) >> 16);
        const int32_t candidate = pg_tanh(pg_eight_gate(from_x[j] + 2 * gated, multipliers, j, shift));
        const int32_t keep = pg_logistic(v[1][j]);
        const int32_t next = candidate + ((keep * (hidden[j] - candidate) + (1 << 14)) >> 15);
        hidden[j] = (int16_t)next;
        if (j < count) {
            y[j] = pg_gru_mve_narrow(next);
        }
    }
}

#endif /* PG_GRU_MVE_H */
