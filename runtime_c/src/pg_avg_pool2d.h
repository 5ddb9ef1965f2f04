/* SPDX-License-Identifier: MIT-0
 *
 * Mean over each window of a channels-last map: y = requantise(sum of (x - zero_point) over the taps on the
 * map), with 1 / divisor in the multiplier. The divisor is the number of those taps, or, with first_count 0,
 * always the same. Every window covers at least one pixel.
 */
#ifndef PG_AVG_POOL2D_H
#define PG_AVG_POOL2D_H

#include "pg_pool2d.h"

typedef struct {
    pg_pool2d_window window;
    const int32_t *multipliers; /* [divisor - first_count], or a single one */
    int32_t first_count;        /* smallest divisor; 0: one divisor for all windows */
    int32_t zero_point;         /* of the input */
    pg_requant out;
} pg_avg_pool2d_params;

/* Sums of four neighbouring channels over rows x columns pixels, added to acc. */
PG_INLINE void pg_avg_pool2d_quad(const int8_t *x, int32_t rows, int32_t columns, int32_t row_step,
                                  int32_t channels, int32_t acc[4]) {
    int32_t acc0 = acc[0];
    int32_t acc1 = acc[1];
    int32_t acc2 = acc[2];
    int32_t acc3 = acc[3];
    for (int32_t i = 0; i < rows; ++i) {
        int32_t tap = i * row_step;
        for (int32_t j = 0; j < columns; ++j) {
            acc0 += x[tap];
            acc1 += x[tap + 1];
            acc2 += x[tap + 2];
            acc3 += x[tap + 3];
            tap += channels;
        }
    }
    acc[0] = acc0;
    acc[1] = acc1;
    acc[2] = acc2;
    acc[3] = acc3;
}

PG_KERNEL void pg_avg_pool2d(const pg_avg_pool2d_params *p, const int8_t *x, int8_t *y) {
    const pg_pool2d_window *g = &p->window;
    const pg_requant out = p->out;
    const int32_t channels = g->channels;
    const int32_t row_step = g->in_w * channels;
    for (int32_t oy = 0; oy < g->out_h; ++oy) {
        const pg_pool2d_span rows = pg_pool2d_taps(oy, g->stride_h, g->pad_top, g->kernel_h, g->in_h);
        for (int32_t ox = 0; ox < g->out_w; ++ox) {
            const pg_pool2d_span columns = pg_pool2d_taps(ox, g->stride_w, g->pad_left, g->kernel_w, g->in_w);
            const int32_t taps = rows.count * columns.count;
            const int32_t start = -taps * p->zero_point;
            const int32_t m = p->multipliers[p->first_count > 0 ? taps - p->first_count : 0];
            const int8_t *corner = x + rows.first * row_step + columns.first * channels;
            int32_t c = 0;
            for (; c + 4 <= channels; c += 4) {
                int32_t acc[4] = {start, start, start, start};
                pg_avg_pool2d_quad(corner + c, rows.count, columns.count, row_step, channels, acc);
                for (int32_t i = 0; i < 4; ++i) {
                    *y++ = (int8_t)pg_requantise(acc[i], m, &out);
                }
            }
            for (; c < channels; ++c) {
                int32_t acc = start;
                for (int32_t i = 0; i < rows.count; ++i) {
                    int32_t tap = i * row_step + c;
                    for (int32_t j = 0; j < columns.count; ++j) {
                        acc += corner[tap];
                        tap += channels;
                    }
                }
                *y++ = (int8_t)pg_requantise(acc, m, &out);
            }
        }
    }
}

#endif /* PG_AVG_POOL2D_H */
