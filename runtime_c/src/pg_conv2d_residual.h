/* SPDX-License-Identifier: MIT-0
 *
 * 2-D convolution over channels-last maps that adds a residual of the output's shape to its sums: any stride,
 * dilation, padding and groups. Each pixel's start values, bias + factor * residual, are made before its
 * outputs are written, so y may be the residual's own memory.
 *
 * Scratch: out_c start values of 32 bits, then kernel_h * kernel_w * in_c / groups elements of x's type.
 */
#ifndef PG_CONV2D_RESIDUAL_H
#define PG_CONV2D_RESIDUAL_H

#include "pg_matrix.h"
#include "pg_window.h"

typedef struct {
    const int8_t *weights;      /* [out_c][kernel_h][kernel_w][in_c / groups] */
    const int32_t *bias;        /* [out_c], zero points of x and the residual folded in */
    const int32_t *multipliers; /* [out_c], multiples of 4 */
    const int32_t *factors;     /* [out_c], of the residual */
    pg_window window;
    int32_t groups;
    pg_requant out;
} pg_conv2d_residual_params;

/* Output rows 0 .. count - 1 of the whole map x, or (rows not NULL) one row from kernel_h row pointers. */
PG_INLINE void pg_conv2d_residual(const pg_conv2d_residual_params *p, const void *rows, const void *x,
                                  bool x_wide, int32_t count, const int8_t *residual, int8_t *y,
                                  void *scratch) {
    const pg_window *g = &p->window;
    const pg_requant out = p->out;
    const int32_t inputs = g->in_c / p->groups;
    const int32_t outputs = g->out_c / p->groups;
    const int32_t taps = g->kernel_h * g->kernel_w * inputs;
    int32_t *start = (int32_t *)scratch;
    for (int32_t oy = 0; oy < count; ++oy) {
        for (int32_t ox = 0; ox < g->out_w; ++ox) {
            pg_matrix a = {p->weights, start, p->multipliers};
            for (int32_t n = 0; n < g->out_c; ++n) {
                start[n] = p->bias[n] + p->factors[n] * *residual++;
            }
            for (int32_t group = 0; group < p->groups; ++group) {
                void *patch = start + g->out_c;
                for (int32_t ky = 0; ky < g->kernel_h; ++ky) {
                    const void *row = pg_window_source(g, rows, x, oy, ky, x_wide);
                    patch = pg_window_copy(g, row, ox * g->stride_w - g->pad_left, group * inputs, inputs,
                                           patch, x_wide);
                }
                pg_matrix_vector(a, taps, outputs, &out, start + g->out_c, x_wide, y, false);
                y += outputs;
                a.weights += outputs * taps;
                a.bias += outputs;
                a.multipliers += outputs;
            }
        }
    }
}

PG_KERNEL void pg_conv2d_residual_s8(const pg_conv2d_residual_params *p, const int8_t *x,
                                     const int8_t *residual, int8_t *y, void *scratch) {
    pg_conv2d_residual(p, NULL, x, false, p->window.out_h, residual, y, scratch);
}

PG_KERNEL void pg_conv2d_residual_s16(const pg_conv2d_residual_params *p, const int16_t *x,
                                      const int8_t *residual, int8_t *y, void *scratch) {
    pg_conv2d_residual(p, NULL, x, true, p->window.out_h, residual, y, scratch);
}

/* One row of a streamed segment. */
PG_KERNEL void pg_conv2d_residual_row_s8(const pg_conv2d_residual_params *p, const int8_t *const *rows,
                                         const int8_t *residual, int8_t *y, void *scratch) {
    pg_conv2d_residual(p, rows, NULL, false, 1, residual, y, scratch);
}

PG_KERNEL void pg_conv2d_residual_row_s16(const pg_conv2d_residual_params *p, const int16_t *const *rows,
                                          const int8_t *residual, int8_t *y, void *scratch) {
    pg_conv2d_residual(p, rows, NULL, true, 1, residual, y, scratch);
}

#endif /* PG_CONV2D_RESIDUAL_H */
