/* SPDX-License-Identifier: MIT-0
 *
 * Maximum over each window of a channels-last map; padding never wins. Every window covers at least one
 * pixel.
 */
#ifndef PG_MAX_POOL2D_H
#define PG_MAX_POOL2D_H

#include "pg_pool2d.h"

typedef struct {
    pg_pool2d_window window;
} pg_max_pool2d_params;

PG_INLINE int32_t pg_max_pool2d_one(const void *x, int32_t at, int32_t rows, int32_t columns,
                                    int32_t row_step, int32_t column_step, bool wide) {
    int32_t best = pg_get(x, at, wide);
    for (int32_t i = 0; i < rows; ++i) {
        int32_t tap = at;
        for (int32_t j = 0; j < columns; ++j) {
            const int32_t v = pg_get(x, tap, wide);
            best = v > best ? v : best;
            tap += column_step;
        }
        at += row_step;
    }
    return best;
}

PG_INLINE void pg_max_pool2d(const pg_max_pool2d_params *p, const void *x, void *y, bool wide) {
    const pg_pool2d_window *g = &p->window;
    const int32_t row_step = g->in_w * g->channels;
    int32_t n = 0;
    for (int32_t oy = 0; oy < g->out_h; ++oy) {
        const pg_pool2d_span rows = pg_pool2d_taps(oy, g->stride_h, g->pad_top, g->kernel_h, g->in_h);
        for (int32_t ox = 0; ox < g->out_w; ++ox) {
            const pg_pool2d_span columns = pg_pool2d_taps(ox, g->stride_w, g->pad_left, g->kernel_w, g->in_w);
            const int32_t at = rows.first * row_step + columns.first * g->channels;
            for (int32_t c = 0; c < g->channels; ++c) {
                pg_put(y, n++,
                       pg_max_pool2d_one(x, at + c, rows.count, columns.count, row_step, g->channels, wide),
                       wide);
            }
        }
    }
}

PG_KERNEL void pg_max_pool2d_s8(const pg_max_pool2d_params *p, const int8_t *x, int8_t *y) {
    pg_max_pool2d(p, x, y, false);
}

PG_KERNEL void pg_max_pool2d_s16(const pg_max_pool2d_params *p, const int16_t *x, int16_t *y) {
    pg_max_pool2d(p, x, y, true);
}

#endif /* PG_MAX_POOL2D_H */
