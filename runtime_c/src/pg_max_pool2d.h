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

/* Taps of one window: the first one's element, and the steps to the next row and column. */
typedef struct {
    int32_t at;
    int32_t rows, columns;
    int32_t row_step, column_step;
} pg_max_pool2d_taps;

PG_INLINE int32_t pg_max_pool2d_larger(int32_t a, int32_t b) {
    return b > a ? b : a;
}

/* The maximum of one channel: x is its first element. */
PG_INLINE void pg_max_pool2d_one(const void *x, pg_max_pool2d_taps t, void *y, bool wide) {
    int32_t best = pg_get(x, t.at, wide);
    for (int32_t i = 0; i < t.rows; ++i) {
        int32_t tap = t.at + i * t.row_step;
        for (int32_t j = 0; j < t.columns; ++j) {
            best = pg_max_pool2d_larger(best, pg_get(x, tap, wide));
            tap += t.column_step;
        }
    }
    pg_put(y, 0, best, wide);
}

/* Four neighbouring channels at once. */
PG_INLINE void pg_max_pool2d_quad(const void *x, pg_max_pool2d_taps t, void *y, bool wide) {
    const void *first = pg_at(x, t.at, wide);
    int32_t best0 = pg_get(first, 0, wide);
    int32_t best1 = pg_get(first, 1, wide);
    int32_t best2 = pg_get(first, 2, wide);
    int32_t best3 = pg_get(first, 3, wide);
    for (int32_t i = 0; i < t.rows; ++i) {
        int32_t tap = t.at + i * t.row_step;
        for (int32_t j = 0; j < t.columns; ++j) {
            const void *v = pg_at(x, tap, wide);
            best0 = pg_max_pool2d_larger(best0, pg_get(v, 0, wide));
            best1 = pg_max_pool2d_larger(best1, pg_get(v, 1, wide));
            best2 = pg_max_pool2d_larger(best2, pg_get(v, 2, wide));
            best3 = pg_max_pool2d_larger(best3, pg_get(v, 3, wide));
            tap += t.column_step;
        }
    }
    pg_put(y, 0, best0, wide);
    pg_put(y, 1, best1, wide);
    pg_put(y, 2, best2, wide);
    pg_put(y, 3, best3, wide);
}

/* Output pixels are step elements apart. */
PG_INLINE void pg_max_pool2d(const pg_max_pool2d_params *p, const void *x, void *y, bool wide, int32_t step) {
    const pg_pool2d_window *g = &p->window;
    const int32_t channels = g->channels;
    pg_max_pool2d_taps t = {0, 0, 0, g->in_w * channels, channels};
    for (int32_t oy = 0; oy < g->out_h; ++oy) {
        const pg_pool2d_span rows = pg_pool2d_taps(oy, g->stride_h, g->pad_top, g->kernel_h, g->in_h);
        for (int32_t ox = 0; ox < g->out_w; ++ox) {
            const pg_pool2d_span columns = pg_pool2d_taps(ox, g->stride_w, g->pad_left, g->kernel_w, g->in_w);
            int32_t c = 0;
            t.rows = rows.count;
            t.columns = columns.count;
            t.at = rows.first * t.row_step + columns.first * channels;
            for (; c + 4 <= channels; c += 4, t.at += 4) {
                pg_max_pool2d_quad(x, t, pg_at_mutable(y, c, wide), wide);
            }
            for (; c < channels; ++c, ++t.at) {
                pg_max_pool2d_one(x, t, pg_at_mutable(y, c, wide), wide);
            }
            y = pg_at_mutable(y, step, wide);
        }
    }
}

PG_KERNEL void pg_max_pool2d_s8(const pg_max_pool2d_params *p, const int8_t *x, int8_t *y) {
    pg_max_pool2d(p, x, y, false, p->window.channels);
}

PG_KERNEL void pg_max_pool2d_s16(const pg_max_pool2d_params *p, const int16_t *x, int16_t *y) {
    pg_max_pool2d(p, x, y, true, p->window.channels);
}

#endif /* PG_MAX_POOL2D_H */
