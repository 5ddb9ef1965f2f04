/* SPDX-License-Identifier: MIT-0
 *
 * Convolution of one group without dilation for Armv6-M cores: four neighbours of a row at a time through a
 * block. The rows under the windows, padding included, lie in a ring: row r of the padded map in line r %
 * kernel_h.
 */
#ifndef PG_CONV2D_THUMB1_H
#define PG_CONV2D_THUMB1_H

#include "pg_conv_thumb1.h"
#include "pg_window.h"

typedef struct {
    const uint32_t *stream; /* start values, weights and multipliers in reading order */
    pg_conv_thumb1_matrix matrix;
    pg_window window;
    int32_t pitch; /* bytes of a line */
    int32_t ring;  /* bytes of scratch before the ring */
} pg_conv2d_thumb1_params;

/* Bytes of the outputs, and of one row of them. */
PG_INLINE int32_t pg_conv2d_thumb1_bytes(const pg_conv2d_thumb1_params *p) {
    return p->window.out_h * p->window.out_w * p->matrix.pixel;
}

PG_INLINE int32_t pg_conv2d_thumb1_row_bytes(const pg_conv2d_thumb1_params *p) {
    return p->window.out_w * p->matrix.pixel;
}

/* A row of the map (NULL: padding) to a line whose sides hold the zero point. */
PG_INLINE void pg_conv2d_thumb1_load(const pg_conv2d_thumb1_params *p, const void *row, int8_t *line) {
    const pg_window *g = &p->window;
    int8_t *to = line + g->pad_left * g->in_c;
    if (row != NULL) {
        memcpy(to, row, (size_t)(g->in_w * g->in_c));
    } else {
        memset(to, g->zero_point & 0xff, (size_t)(g->in_w * g->in_c));
    }
}

/* One output row; the first row under its windows lies in line first. */
PG_INLINE void pg_conv2d_thumb1_line(const pg_conv2d_thumb1_params *p, int32_t first, int8_t *y,
                                     bool residual, void *scratch, pg_conv_thumb1_block *block) {
    const pg_window *g = &p->window;
    int32_t *operand = (int32_t *)scratch;
    const int8_t *ring = (const int8_t *)scratch + p->ring;
    const int32_t step = g->stride_w * g->in_c;
    const int32_t count = g->kernel_w * g->in_c;
    for (int32_t ox = 0; ox < g->out_w; ox += 4) {
        int32_t line = first;
        for (int32_t ky = 0; ky < g->kernel_h; ++ky) {
            pg_conv_thumb1_pack(ring + line * p->pitch + ox * step, step, operand + 4 * ky * count, count);
            line = line + 1 < g->kernel_h ? line + 1 : 0;
        }
        if (ox + 4 <= g->out_w) {
            block(operand, p->stream, y + ox * g->out_c, &p->matrix);
        } else {
            pg_conv_thumb1_rest(&p->matrix, p->stream, g->out_w - ox, operand, y + ox * g->out_c, residual,
                                (int8_t *)(operand + 16 * p->matrix.quads), block);
        }
    }
}

/* residual: y holds what the block adds.
 * Scratch: operand (64 bytes a quad), outputs of four pixels, the ring, and what windows of three pixels more
 * read. */
PG_INLINE void pg_conv2d_thumb1(const pg_conv2d_thumb1_params *p, const int8_t *x, int8_t *y, bool residual,
                                void *scratch, pg_conv_thumb1_block *block) {
    const pg_window *g = &p->window;
    int8_t *ring = (int8_t *)scratch + p->ring;
    int32_t row = 0;   /* of the padded map, the next to load */
    int32_t line = 0;  /* row % kernel_h */
    int32_t first = 0; /* line of the first row under the windows */
    memset(ring, g->zero_point & 0xff, (size_t)(g->kernel_h * p->pitch));
    for (int32_t oy = 0; oy < g->out_h; ++oy) {
        for (; row < oy * g->stride_h + g->kernel_h; ++row) {
            const int32_t iy = row - g->pad_top;
            pg_conv2d_thumb1_load(p, iy >= 0 && iy < g->in_h ? x + iy * g->in_w * g->in_c : NULL,
                                  ring + line * p->pitch);
            line = line + 1 < g->kernel_h ? line + 1 : 0;
        }
        pg_conv2d_thumb1_line(p, first, y, residual, scratch, block);
        for (int32_t i = 0; i < g->stride_h; ++i) {
            first = first + 1 < g->kernel_h ? first + 1 : 0;
        }
        y += g->out_w * g->out_c;
    }
}

/* One row of a streamed segment. */
PG_INLINE void pg_conv2d_thumb1_row(const pg_conv2d_thumb1_params *p, const int8_t *const *rows, int8_t *y,
                                    bool residual, void *scratch, pg_conv_thumb1_block *block) {
    const pg_window *g = &p->window;
    int8_t *ring = (int8_t *)scratch + p->ring;
    pg_fill_sides(ring, g->zero_point, g->kernel_h, p->pitch, g->pad_left * g->in_c, g->in_w * g->in_c,
                  false);
    for (int32_t ky = 0; ky < g->kernel_h; ++ky) {
        pg_conv2d_thumb1_load(p, rows[ky], ring + ky * p->pitch);
    }
    pg_conv2d_thumb1_line(p, 0, y, residual, scratch, block);
}

PG_KERNEL void pg_conv2d_thumb1_s8(const pg_conv2d_thumb1_params *p, const int8_t *x, int8_t *y,
                                   void *scratch, pg_conv_thumb1_block *block) {
    pg_conv2d_thumb1(p, x, y, false, scratch, block);
}

PG_KERNEL void pg_conv2d_thumb1_residual(const pg_conv2d_thumb1_params *p, const int8_t *x, int8_t *y,
                                         void *scratch, pg_conv_thumb1_block *block) {
    pg_conv2d_thumb1(p, x, y, true, scratch, block);
}

PG_KERNEL void pg_conv2d_thumb1_s8_row(const pg_conv2d_thumb1_params *p, const int8_t *const *rows, int8_t *y,
                                       void *scratch, pg_conv_thumb1_block *block) {
    pg_conv2d_thumb1_row(p, rows, y, false, scratch, block);
}

PG_KERNEL void pg_conv2d_thumb1_residual_row(const pg_conv2d_thumb1_params *p, const int8_t *const *rows,
                                             int8_t *y, void *scratch, pg_conv_thumb1_block *block) {
    pg_conv2d_thumb1_row(p, rows, y, true, scratch, block);
}

#endif /* PG_CONV2D_THUMB1_H */
