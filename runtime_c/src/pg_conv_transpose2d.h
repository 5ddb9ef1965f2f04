/* SPDX-License-Identifier: MIT-0
 *
 * 2-D transposed convolution over channels-last maps, any stride, dilation, padding and groups, gathered: for
 * each output pixel the input pixels that its kernel taps meet. Which taps these are depends on the pixel's
 * phase alone, its row and column modulo the strides; the weights of a phase lie side by side. So each tap of
 * the kernel is multiplied where it meets a pixel, and nowhere else.
 *
 * Scratch: kernel_h * kernel_w * in_c / groups elements of x's type.
 */
#ifndef PG_CONV_TRANSPOSE2D_H
#define PG_CONV_TRANSPOSE2D_H

#include "pg_matrix.h"
#include "pg_window.h"

typedef struct {
    const int8_t *weights;      /* [phase_y][phase_x][out_c][taps of the phase][in_c / groups] */
    const int32_t *bias;        /* [phase_y][phase_x][out_c], input zero point folded in */
    const int32_t *multipliers; /* [out_c], multiples of 4 */
    const int32_t *starts;      /* [phase_y][phase_x]: where the phase's weights start */
    const int32_t *first_taps;  /* [stride_h] first kernel row of each phase, then [stride_w] first column */
    pg_window window;           /* strides and dilations between the places of the kernel in the output */
    int32_t tap_step_h, tap_step_w;     /* from one tap of a phase to the next */
    int32_t pixel_step_h, pixel_step_w; /* and from the pixel it meets to the next one's, backwards */
    int32_t groups;
    pg_requant out;
} pg_conv_transpose2d_params;

/* Gathers what output pixel (fy, fx), counted with the padding, sees of a group; returns the pixels. */
PG_INLINE int32_t pg_conv_transpose2d_gather(const pg_conv_transpose2d_params *p, const void *x, int32_t fy,
                                             int32_t fx, int32_t first, int32_t count, void *patch,
                                             bool wide) {
    const pg_window *g = &p->window;
    const size_t bytes = (size_t)count * (wide ? 2u : 1u);
    const int32_t first_y = p->first_taps[fy % g->stride_h];
    const int32_t first_x = p->first_taps[g->stride_h + fx % g->stride_w];
    /* Exact where the phase has a tap; the loops are empty where it has none. */
    const int32_t start_x = (fx - first_x * g->dilation_w) / g->stride_w;
    int32_t iy = (fy - first_y * g->dilation_h) / g->stride_h;
    int32_t pixels = 0;
    for (int32_t ky = first_y; ky < g->kernel_h; ky += p->tap_step_h) {
        int32_t ix = start_x;
        for (int32_t kx = first_x; kx < g->kernel_w; kx += p->tap_step_w) {
            if (iy >= 0 && iy < g->in_h && ix >= 0 && ix < g->in_w) {
                memcpy(patch, pg_at(x, (iy * g->in_w + ix) * g->in_c + first, wide), bytes);
            } else {
                pg_fill(patch, g->zero_point, count, wide);
            }
            patch = pg_at_mutable(patch, count, wide);
            ix -= p->pixel_step_w;
            ++pixels;
        }
        iy -= p->pixel_step_h;
    }
    return pixels;
}

PG_INLINE void pg_conv_transpose2d(const pg_conv_transpose2d_params *p, const void *x, bool x_wide, void *y,
                                   bool y_wide, void *scratch) {
    const pg_window *g = &p->window;
    const pg_requant out = p->out;
    const int32_t inputs = g->in_c / p->groups;
    const int32_t outputs = g->out_c / p->groups;
    for (int32_t fy = g->pad_top; fy < g->pad_top + g->out_h; ++fy) {
        for (int32_t fx = g->pad_left; fx < g->pad_left + g->out_w; ++fx) {
            const int32_t phase = fy % g->stride_h * g->stride_w + fx % g->stride_w;
            pg_matrix a = {p->weights + p->starts[phase], p->bias + phase * g->out_c, p->multipliers};
            for (int32_t group = 0; group < p->groups; ++group) {
                const int32_t taps = inputs * pg_conv_transpose2d_gather(p, x, fy, fx, group * inputs, inputs,
                                                                         scratch, x_wide);
                pg_matrix_vector(a, taps, outputs, &out, scratch, x_wide, y, y_wide);
                y = pg_at_mutable(y, outputs, y_wide);
                a.weights += outputs * taps;
                a.bias += outputs;
                a.multipliers += outputs;
            }
        }
    }
}

PG_KERNEL void pg_conv_transpose2d_s8_s8(const pg_conv_transpose2d_params *p, const int8_t *x, int8_t *y,
                                         void *scratch) {
    pg_conv_transpose2d(p, x, false, y, false, scratch);
}

PG_KERNEL void pg_conv_transpose2d_s8_s16(const pg_conv_transpose2d_params *p, const int8_t *x, int16_t *y,
                                          void *scratch) {
    pg_conv_transpose2d(p, x, false, y, true, scratch);
}

PG_KERNEL void pg_conv_transpose2d_s16_s8(const pg_conv_transpose2d_params *p, const int16_t *x, int8_t *y,
                                          void *scratch) {
    pg_conv_transpose2d(p, x, true, y, false, scratch);
}

PG_KERNEL void pg_conv_transpose2d_s16_s16(const pg_conv_transpose2d_params *p, const int16_t *x, int16_t *y,
                                           void *scratch) {
    pg_conv_transpose2d(p, x, true, y, true, scratch);
}

#endif /* PG_CONV_TRANSPOSE2D_H */
