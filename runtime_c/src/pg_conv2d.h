/* SPDX-License-Identifier: MIT-0
 *
 * 2-D convolution over channels-last maps, any stride, dilation, padding and groups. The pixels under one
 * window are gathered into the scratch buffer; from there it is a matrix times a vector.
 *
 * Scratch: kernel_h * kernel_w * in_c / groups elements of x's type.
 */
#ifndef PG_CONV2D_H
#define PG_CONV2D_H

#include "pg_matrix.h"
#include "pg_window.h"

typedef struct {
    const int8_t *weights;      /* [out_c][kernel_h][kernel_w][in_c / groups] */
    const int32_t *bias;        /* [out_c], input zero point folded in */
    const int32_t *multipliers; /* [out_c], multiples of 4 */
    pg_window window;
    int32_t groups;
    pg_requant out;
} pg_conv2d_params;

/* One output row, from kernel_h row pointers, or (rows NULL) from the whole map x. Output pixels are step
 * elements apart. */
PG_INLINE void pg_conv2d_line(const pg_conv2d_params *p, const void *rows, const void *x, int32_t oy,
                              bool x_wide, void *y, bool y_wide, void *scratch, int32_t step) {
    const pg_window *g = &p->window;
    const pg_requant out = p->out;
    const int32_t inputs = g->in_c / p->groups;
    const int32_t outputs = g->out_c / p->groups;
    const int32_t taps = g->kernel_h * g->kernel_w * inputs;
    for (int32_t ox = 0; ox < g->out_w; ++ox) {
        pg_matrix a = {p->weights, p->bias, p->multipliers};
        void *pixel = y;
        for (int32_t group = 0; group < p->groups; ++group) {
            void *patch = scratch;
            for (int32_t ky = 0; ky < g->kernel_h; ++ky) {
                const void *row = pg_window_source(g, rows, x, oy, ky, x_wide);
                patch = pg_window_copy(g, row, ox * g->stride_w - g->pad_left, group * inputs, inputs, patch,
                                       x_wide);
            }
            pg_matrix_vector(a, taps, outputs, &out, scratch, x_wide, pixel, y_wide);
            pixel = pg_at_mutable(pixel, outputs, y_wide);
            a.weights += outputs * taps;
            a.bias += outputs;
            a.multipliers += outputs;
        }
        y = pg_at_mutable(y, step, y_wide);
    }
}

PG_INLINE void pg_conv2d(const pg_conv2d_params *p, const void *x, bool x_wide, void *y, bool y_wide,
                         void *scratch, int32_t step) {
    for (int32_t oy = 0; oy < p->window.out_h; ++oy) {
        pg_conv2d_line(p, NULL, x, oy, x_wide, y, y_wide, scratch, step);
        y = pg_at_mutable(y, p->window.out_w * step, y_wide);
    }
}

PG_KERNEL void pg_conv2d_s8_s8(const pg_conv2d_params *p, const int8_t *x, int8_t *y, void *scratch) {
    pg_conv2d(p, x, false, y, false, scratch, p->window.out_c);
}

PG_KERNEL void pg_conv2d_s8_s16(const pg_conv2d_params *p, const int8_t *x, int16_t *y, void *scratch) {
    pg_conv2d(p, x, false, y, true, scratch, p->window.out_c);
}

PG_KERNEL void pg_conv2d_s16_s8(const pg_conv2d_params *p, const int16_t *x, int8_t *y, void *scratch) {
    pg_conv2d(p, x, true, y, false, scratch, p->window.out_c);
}

PG_KERNEL void pg_conv2d_s16_s16(const pg_conv2d_params *p, const int16_t *x, int16_t *y, void *scratch) {
    pg_conv2d(p, x, true, y, true, scratch, p->window.out_c);
}

PG_KERNEL void pg_conv2d_row_s8_s8(const pg_conv2d_params *p, const int8_t *const *rows, int8_t *y,
                                   void *scratch) {
    pg_conv2d_line(p, rows, NULL, 0, false, y, false, scratch, p->window.out_c);
}

PG_KERNEL void pg_conv2d_row_s8_s16(const pg_conv2d_params *p, const int8_t *const *rows, int16_t *y,
                                    void *scratch) {
    pg_conv2d_line(p, rows, NULL, 0, false, y, true, scratch, p->window.out_c);
}

PG_KERNEL void pg_conv2d_row_s16_s8(const pg_conv2d_params *p, const int16_t *const *rows, int8_t *y,
                                    void *scratch) {
    pg_conv2d_line(p, rows, NULL, 0, true, y, false, scratch, p->window.out_c);
}

PG_KERNEL void pg_conv2d_row_s16_s16(const pg_conv2d_params *p, const int16_t *const *rows, int16_t *y,
                                     void *scratch) {
    pg_conv2d_line(p, rows, NULL, 0, true, y, true, scratch, p->window.out_c);
}

#endif /* PG_CONV2D_H */
