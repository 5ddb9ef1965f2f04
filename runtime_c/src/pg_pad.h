/* SPDX-License-Identifier: MIT-0
 *
 * Constant padding of up to four axes.
 */
#ifndef PG_PAD_H
#define PG_PAD_H

#include "projgen_runtime.h"

typedef struct {
    int32_t in[4];     /* shape of x */
    int32_t before[4]; /* elements added before, per axis */
    int32_t out[4];    /* shape of y */
    int32_t value;
} pg_pad_params;

PG_INLINE bool pg_pad_inside(const pg_pad_params *p, int32_t axis, int32_t i) {
    return i >= p->before[axis] && i < p->before[axis] + p->in[axis];
}

PG_INLINE void pg_pad(const pg_pad_params *p, const void *x, void *y, bool wide) {
    const int32_t run = p->in[3];
    const int32_t after = p->out[3] - p->before[3] - run;
    for (int32_t i = 0; i < p->out[0]; ++i) {
        for (int32_t j = 0; j < p->out[1]; ++j) {
            for (int32_t k = 0; k < p->out[2]; ++k) {
                if (pg_pad_inside(p, 0, i) && pg_pad_inside(p, 1, j) && pg_pad_inside(p, 2, k)) {
                    pg_fill(y, p->value, p->before[3], wide);
                    y = pg_at_mutable(y, p->before[3], wide);
                    memcpy(y, x, (size_t)run * (wide ? 2u : 1u));
                    x = pg_at(x, run, wide);
                    y = pg_at_mutable(y, run, wide);
                    pg_fill(y, p->value, after, wide);
                    y = pg_at_mutable(y, after, wide);
                } else {
                    pg_fill(y, p->value, p->out[3], wide);
                    y = pg_at_mutable(y, p->out[3], wide);
                }
            }
        }
    }
}

PG_KERNEL void pg_pad_s8(const pg_pad_params *p, const int8_t *x, int8_t *y) {
    pg_pad(p, x, y, false);
}

PG_KERNEL void pg_pad_s16(const pg_pad_params *p, const int16_t *x, int16_t *y) {
    pg_pad(p, x, y, true);
}

#endif /* PG_PAD_H */
