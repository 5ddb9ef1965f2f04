/* SPDX-License-Identifier: MIT-0
 *
 * Depthwise 2-D convolution over channels-last maps: output o reads input channel o / (out_c / in_c) alone.
 * Where a window lies inside the map it is read in place; windows over the border, and the rows of a streamed
 * segment, are gathered into the scratch buffer first. Four channels go together when there is one output a
 * channel.
 *
 * Scratch: kernel_h * kernel_w * in_c elements of x's type.
 */
#ifndef PG_DEPTHWISE_H
#define PG_DEPTHWISE_H

#include "pg_window.h"

typedef struct {
    const int8_t *weights;      /* [kernel_h][kernel_w][out_c] */
    const int32_t *bias;        /* [out_c], input zero point folded in */
    const int32_t *multipliers; /* [out_c], multiples of 4 */
    pg_window window;
    pg_requant out;
} pg_depthwise_params;

/* Outputs o .. o + 3 of one pixel, each from its own channel. */
PG_INLINE void pg_depthwise_quad(const pg_depthwise_params *p, int32_t o, const void *x, int32_t row_step,
                                 int32_t column_step, bool x_wide, void *y, bool y_wide) {
    const pg_requant out = p->out;
    const int32_t kernel_h = p->window.kernel_h;
    const int32_t kernel_w = p->window.kernel_w;
    const int32_t out_c = p->window.out_c;
    const int32_t *bias = p->bias + o;
    const int32_t *multipliers = p->multipliers + o;
    const int8_t *w = p->weights + o;
    int32_t acc0 = bias[0];
    int32_t acc1 = bias[1];
    int32_t acc2 = bias[2];
    int32_t acc3 = bias[3];
    int32_t weight = 0;
    for (int32_t ky = 0; ky < kernel_h; ++ky) {
        int32_t tap = ky * row_step + o;
        for (int32_t kx = 0; kx < kernel_w; ++kx) {
            const void *v = pg_at(x, tap, x_wide);
            acc0 += pg_get(v, 0, x_wide) * w[weight];
            acc1 += pg_get(v, 1, x_wide) * w[weight + 1];
            acc2 += pg_get(v, 2, x_wide) * w[weight + 2];
            acc3 += pg_get(v, 3, x_wide) * w[weight + 3];
            tap += column_step;
            weight += out_c;
        }
    }
    pg_put(y, o, pg_requantise(acc0, multipliers[0], &out), y_wide);
    pg_put(y, o + 1, pg_requantise(acc1, multipliers[1], &out), y_wide);
    pg_put(y, o + 2, pg_requantise(acc2, multipliers[2], &out), y_wide);
    pg_put(y, o + 3, pg_requantise(acc3, multipliers[3], &out), y_wide);
}

/* Output o of one pixel, from channel c. */
PG_INLINE void pg_depthwise_one(const pg_depthwise_params *p, int32_t o, int32_t c, const void *x,
                                int32_t row_step, int32_t column_step, bool x_wide, void *y, bool y_wide) {
    const pg_window *g = &p->window;
    int32_t weight = o;
    int32_t acc = p->bias[o];
    for (int32_t ky = 0; ky < g->kernel_h; ++ky) {
        int32_t tap = ky * row_step + c;
        for (int32_t kx = 0; kx < g->kernel_w; ++kx) {
            acc += pg_get(x, tap, x_wide) * p->weights[weight];
            tap += column_step;
            weight += g->out_c;
        }
    }
    pg_put(y, o, pg_requantise(acc, p->multipliers[o], &p->out), y_wide);
}

/* All outputs of one pixel; x is the first pixel under the window, its rows and columns the given elements
 * apart. */
PG_INLINE void pg_depthwise_pixel(const pg_depthwise_params *p, const void *x, int32_t row_step,
                                  int32_t column_step, bool x_wide, void *y, bool y_wide) {
    const pg_window *g = &p->window;
    int32_t o = 0;
    if (g->out_c == g->in_c) {
#if defined(PG_HAS_NEON)
        while (g->out_c >= 8 && o < g->out_c) { /* the last eight overlap those before */
            o = o + 8 <= g->out_c ? o : g->out_c - 8;
            pg_neon_depthwise_eight(p->weights, p->bias, p->multipliers, g->kernel_h, g->kernel_w, g->out_c,
                                    &p->out, x, row_step, column_step, x_wide, y, o, y_wide);
            o += 8;
        }
#endif
        for (; o + 4 <= g->out_c; o += 4) {
            pg_depthwise_quad(p, o, x, row_step, column_step, x_wide, y, y_wide);
        }
    }
    const int32_t per_channel = g->out_c / g->in_c;
    for (int32_t c = o; c < g->in_c; ++c) {
        for (int32_t j = 0; j < per_channel; ++j, ++o) {
            pg_depthwise_one(p, o, c, x, row_step, column_step, x_wide, y, y_wide);
        }
    }
}

/* One output row, from kernel_h row pointers, or (rows NULL) from the whole map x. Output pixels are step
 * elements apart. */
PG_INLINE void pg_depthwise_line(const pg_depthwise_params *p, const void *rows, const void *x, int32_t oy,
                                 bool x_wide, void *y, bool y_wide, void *scratch, int32_t step) {
    const pg_window *g = &p->window;
    const int32_t reach_h = (g->kernel_h - 1) * g->dilation_h;
    const int32_t reach_w = (g->kernel_w - 1) * g->dilation_w;
    const int32_t iy = oy * g->stride_h - g->pad_top;
    const bool inside = rows == NULL && iy >= 0 && iy + reach_h < g->in_h;
    int32_t ix = -g->pad_left;
    for (int32_t ox = 0; ox < g->out_w; ++ox) {
        const void *first = scratch;
        int32_t row_step = g->kernel_w * g->in_c;
        int32_t column_step = g->in_c;
        if (inside && ix >= 0 && ix + reach_w < g->in_w) {
            first = pg_at(x, (iy * g->in_w + ix) * g->in_c, x_wide);
            row_step = g->dilation_h * g->in_w * g->in_c;
            column_step = g->dilation_w * g->in_c;
        } else {
            void *patch = scratch;
            for (int32_t ky = 0; ky < g->kernel_h; ++ky) {
                const void *row = pg_window_source(g, rows, x, oy, ky, x_wide);
                patch = pg_window_copy(g, row, ix, 0, g->in_c, patch, x_wide);
            }
        }
        pg_depthwise_pixel(p, first, row_step, column_step, x_wide, y, y_wide);
        y = pg_at_mutable(y, step, y_wide);
        ix += g->stride_w;
    }
}

PG_INLINE void pg_depthwise(const pg_depthwise_params *p, const void *x, bool x_wide, void *y, bool y_wide,
                            void *scratch, int32_t step) {
    for (int32_t oy = 0; oy < p->window.out_h; ++oy) {
        pg_depthwise_line(p, NULL, x, oy, x_wide, y, y_wide, scratch, step);
        y = pg_at_mutable(y, p->window.out_w * step, y_wide);
    }
}

PG_KERNEL void pg_depthwise_s8_s8(const pg_depthwise_params *p, const int8_t *x, int8_t *y, void *scratch) {
    pg_depthwise(p, x, false, y, false, scratch, p->window.out_c);
}

PG_KERNEL void pg_depthwise_s8_s16(const pg_depthwise_params *p, const int8_t *x, int16_t *y, void *scratch) {
    pg_depthwise(p, x, false, y, true, scratch, p->window.out_c);
}

PG_KERNEL void pg_depthwise_s16_s8(const pg_depthwise_params *p, const int16_t *x, int8_t *y, void *scratch) {
    pg_depthwise(p, x, true, y, false, scratch, p->window.out_c);
}

PG_KERNEL void pg_depthwise_s16_s16(const pg_depthwise_params *p, const int16_t *x, int16_t *y,
                                    void *scratch) {
    pg_depthwise(p, x, true, y, true, scratch, p->window.out_c);
}

PG_KERNEL void pg_depthwise_row_s8_s8(const pg_depthwise_params *p, const int8_t *const *rows, int8_t *y,
                                      void *scratch) {
    pg_depthwise_line(p, rows, NULL, 0, false, y, false, scratch, p->window.out_c);
}

PG_KERNEL void pg_depthwise_row_s8_s16(const pg_depthwise_params *p, const int8_t *const *rows, int16_t *y,
                                       void *scratch) {
    pg_depthwise_line(p, rows, NULL, 0, false, y, true, scratch, p->window.out_c);
}

PG_KERNEL void pg_depthwise_row_s16_s8(const pg_depthwise_params *p, const int16_t *const *rows, int8_t *y,
                                       void *scratch) {
    pg_depthwise_line(p, rows, NULL, 0, true, y, false, scratch, p->window.out_c);
}

PG_KERNEL void pg_depthwise_row_s16_s16(const pg_depthwise_params *p, const int16_t *const *rows, int16_t *y,
                                        void *scratch) {
    pg_depthwise_line(p, rows, NULL, 0, true, y, true, scratch, p->window.out_c);
}

#endif /* PG_DEPTHWISE_H */
