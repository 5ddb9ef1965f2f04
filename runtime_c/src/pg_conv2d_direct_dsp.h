/* SPDX-License-Identifier: MIT-0
 *
 * Convolution for cores with DSP instructions whose windows have rows of whole quads of values: the operands
 * of three pixels are widened straight from padded copies of the rows under them, and go through a block.
 */
#ifndef PG_CONV2D_DIRECT_DSP_H
#define PG_CONV2D_DIRECT_DSP_H

#include "pg_conv2d_dsp.h"

/* One output row: from kernel_h row pointers, or (rows NULL) from the map x. The last three pixels may hang
 * over the row. Scratch: operand (24 bytes a quad), outputs of three pixels, padded rows. apart: others lie
 * between the pixels of y. */
PG_INLINE void pg_conv2d_direct_dsp_line(const pg_conv2d_dsp_params *p, const void *rows, const void *x,
                                         bool x_wide, int32_t oy, void *y, bool y_wide, void *scratch,
                                         pg_conv_dsp_block *block, bool apart) {
    const pg_window *g = &p->window;
    const pg_conv_dsp_matrix *matrix = &p->matrix;
    const int32_t run = g->kernel_w * g->in_c; /* values of one row of a window */
    const int32_t step = g->stride_w * g->in_c;
    uint32_t *operand = (uint32_t *)scratch;
    void *results = operand + 6 * matrix->quads;
    const void *corner = pg_at(scratch, p->ring, x_wide);
    pg_conv2d_dsp_rows(p, rows, x, x_wide, oy, pg_at_mutable(scratch, p->ring, x_wide));
    for (int32_t left = g->out_w; left > 0; left -= 3) {
        const void *from = corner;
        uint32_t *to = operand;
        for (int32_t ky = 0; ky < g->kernel_h; ++ky) {
            pg_conv_dsp_operand(from, x_wide, step, to, run);
            from = pg_at(from, p->pitch, x_wide);
            to += 6 * run / 4;
        }
        corner = pg_at(corner, 3 * step, x_wide);
        if (left >= 3) {
            block(operand, p->stream, y, matrix);
            y = apart ? (int8_t *)y + 3 * matrix->pixel : pg_at_mutable(y, 3 * matrix->outputs, y_wide);
        } else if (apart) {
            pg_conv_dsp_apart(matrix, operand, p->stream, left,
                              y_wide ? 2 * matrix->outputs : matrix->outputs, results, y, block);
        } else {
            if (matrix->residual) {
                pg_copy(results, y, left * matrix->pixel);
            }
            block(operand, p->stream, results, matrix);
            pg_copy(y, results, left * matrix->pixel);
        }
    }
}

PG_KERNEL void pg_conv2d_direct_dsp_s8_s8_line(const pg_conv2d_dsp_params *p, const void *rows, const void *x,
                                               int32_t oy, void *y, void *scratch, pg_conv_dsp_block *block) {
    pg_conv2d_direct_dsp_line(p, rows, x, false, oy, y, false, scratch, block, false);
}

PG_KERNEL void pg_conv2d_direct_dsp_s8_s8(const pg_conv2d_dsp_params *p, const int8_t *x, int8_t *y,
                                          void *scratch, pg_conv_dsp_block *block) {
    pg_fill((int8_t *)scratch + p->ring, p->window.zero_point, p->window.kernel_h * p->pitch, false);
    for (int32_t oy = 0; oy < p->window.out_h; ++oy) {
        pg_conv2d_direct_dsp_s8_s8_line(p, NULL, x, oy, y, scratch, block);
        y += p->window.out_w * p->window.out_c;
    }
}

PG_KERNEL void pg_conv2d_direct_dsp_s8_s8_row(const pg_conv2d_dsp_params *p, const int8_t *const *rows,
                                              int8_t *y, void *scratch, pg_conv_dsp_block *block) {
    const pg_window *g = &p->window;
    pg_fill_sides((int8_t *)scratch + p->ring, g->zero_point, g->kernel_h, p->pitch, g->pad_left * g->in_c,
                  g->in_w * g->in_c, false);
    pg_conv2d_direct_dsp_s8_s8_line(p, rows, NULL, 0, y, scratch, block);
}

PG_KERNEL void pg_conv2d_direct_dsp_s8_s16_line(const pg_conv2d_dsp_params *p, const void *rows,
                                                const void *x, int32_t oy, void *y, void *scratch,
                                                pg_conv_dsp_block *block) {
    pg_conv2d_direct_dsp_line(p, rows, x, false, oy, y, true, scratch, block, false);
}

PG_KERNEL void pg_conv2d_direct_dsp_s8_s16(const pg_conv2d_dsp_params *p, const int8_t *x, int16_t *y,
                                           void *scratch, pg_conv_dsp_block *block) {
    pg_fill((int8_t *)scratch + p->ring, p->window.zero_point, p->window.kernel_h * p->pitch, false);
    for (int32_t oy = 0; oy < p->window.out_h; ++oy) {
        pg_conv2d_direct_dsp_s8_s16_line(p, NULL, x, oy, y, scratch, block);
        y += p->window.out_w * p->window.out_c;
    }
}

PG_KERNEL void pg_conv2d_direct_dsp_s8_s16_row(const pg_conv2d_dsp_params *p, const int8_t *const *rows,
                                               int16_t *y, void *scratch, pg_conv_dsp_block *block) {
    const pg_window *g = &p->window;
    pg_fill_sides((int8_t *)scratch + p->ring, g->zero_point, g->kernel_h, p->pitch, g->pad_left * g->in_c,
                  g->in_w * g->in_c, false);
    pg_conv2d_direct_dsp_s8_s16_line(p, rows, NULL, 0, y, scratch, block);
}

PG_KERNEL void pg_conv2d_direct_dsp_s16_s8_line(const pg_conv2d_dsp_params *p, const void *rows,
                                                const void *x, int32_t oy, void *y, void *scratch,
                                                pg_conv_dsp_block *block) {
    pg_conv2d_direct_dsp_line(p, rows, x, true, oy, y, false, scratch, block, false);
}

PG_KERNEL void pg_conv2d_direct_dsp_s16_s8(const pg_conv2d_dsp_params *p, const int16_t *x, int8_t *y,
                                           void *scratch, pg_conv_dsp_block *block) {
    pg_fill((int16_t *)scratch + p->ring, p->window.zero_point, p->window.kernel_h * p->pitch, true);
    for (int32_t oy = 0; oy < p->window.out_h; ++oy) {
        pg_conv2d_direct_dsp_s16_s8_line(p, NULL, x, oy, y, scratch, block);
        y += p->window.out_w * p->window.out_c;
    }
}

PG_KERNEL void pg_conv2d_direct_dsp_s16_s8_row(const pg_conv2d_dsp_params *p, const int16_t *const *rows,
                                               int8_t *y, void *scratch, pg_conv_dsp_block *block) {
    const pg_window *g = &p->window;
    pg_fill_sides((int16_t *)scratch + p->ring, g->zero_point, g->kernel_h, p->pitch, g->pad_left * g->in_c,
                  g->in_w * g->in_c, true);
    pg_conv2d_direct_dsp_s16_s8_line(p, rows, NULL, 0, y, scratch, block);
}

PG_KERNEL void pg_conv2d_direct_dsp_s16_s16_line(const pg_conv2d_dsp_params *p, const void *rows,
                                                 const void *x, int32_t oy, void *y, void *scratch,
                                                 pg_conv_dsp_block *block) {
    pg_conv2d_direct_dsp_line(p, rows, x, true, oy, y, true, scratch, block, false);
}

PG_KERNEL void pg_conv2d_direct_dsp_s16_s16(const pg_conv2d_dsp_params *p, const int16_t *x, int16_t *y,
                                            void *scratch, pg_conv_dsp_block *block) {
    pg_fill((int16_t *)scratch + p->ring, p->window.zero_point, p->window.kernel_h * p->pitch, true);
    for (int32_t oy = 0; oy < p->window.out_h; ++oy) {
        pg_conv2d_direct_dsp_s16_s16_line(p, NULL, x, oy, y, scratch, block);
        y += p->window.out_w * p->window.out_c;
    }
}

PG_KERNEL void pg_conv2d_direct_dsp_s16_s16_row(const pg_conv2d_dsp_params *p, const int16_t *const *rows,
                                                int16_t *y, void *scratch, pg_conv_dsp_block *block) {
    const pg_window *g = &p->window;
    pg_fill_sides((int16_t *)scratch + p->ring, g->zero_point, g->kernel_h, p->pitch, g->pad_left * g->in_c,
                  g->in_w * g->in_c, true);
    pg_conv2d_direct_dsp_s16_s16_line(p, rows, NULL, 0, y, scratch, block);
}

/* Of either type, apart. */
PG_KERNEL void pg_conv2d_direct_dsp_apart_line(const pg_conv2d_dsp_params *p, const void *rows, const void *x,
                                               bool x_wide, int32_t oy, void *y, bool y_wide, void *scratch,
                                               pg_conv_dsp_block *block) {
    pg_conv2d_direct_dsp_line(p, rows, x, x_wide, oy, y, y_wide, scratch, block, true);
}

PG_KERNEL void pg_conv2d_direct_dsp_apart(const pg_conv2d_dsp_params *p, const void *x, bool x_wide, void *y,
                                          bool y_wide, void *scratch, pg_conv_dsp_block *block) {
    const int32_t bytes = p->window.out_w * p->matrix.pixel;
    void *ring = pg_at_mutable(scratch, p->ring, x_wide);
    pg_fill(ring, p->window.zero_point, p->window.kernel_h * p->pitch, x_wide);
    for (int32_t oy = 0; oy < p->window.out_h; ++oy) {
        pg_conv2d_direct_dsp_apart_line(p, NULL, x, x_wide, oy, y, y_wide, scratch, block);
        y = (int8_t *)y + bytes;
    }
}

PG_KERNEL void pg_conv2d_direct_dsp_apart_row(const pg_conv2d_dsp_params *p, const void *rows, bool x_wide,
                                              void *y, bool y_wide, void *scratch, pg_conv_dsp_block *block) {
    const pg_window *g = &p->window;
    pg_fill_sides(pg_at_mutable(scratch, p->ring, x_wide), g->zero_point, g->kernel_h, p->pitch,
                  g->pad_left * g->in_c, g->in_w * g->in_c, x_wide);
    pg_conv2d_direct_dsp_apart_line(p, rows, NULL, x_wide, 0, y, y_wide, scratch, block);
}

#endif /* PG_CONV2D_DIRECT_DSP_H */
