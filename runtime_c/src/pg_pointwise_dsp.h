/* SPDX-License-Identifier: MIT-0
 *
 * 1x1 convolution with stride 1 for cores with DSP instructions: three pixels at a time through a block. The
 * operand of three pixels is copied before their outputs are written, so y may begin where x begins if it is
 * no longer.
 */
#ifndef PG_POINTWISE_DSP_H
#define PG_POINTWISE_DSP_H

#include "pg_conv_dsp.h"

typedef struct {
    const uint32_t *stream; /* start values, weights and multipliers in reading order */
    pg_conv_dsp_matrix matrix;
    int32_t pixels;     /* of the whole map */
    int32_t row_pixels; /* of one row */
    int32_t inputs;     /* channels of a pixel */
} pg_pointwise_dsp_params;

/* Bytes of the outputs, and of those of one call for rows. */
PG_INLINE int32_t pg_pointwise_dsp_bytes(const pg_pointwise_dsp_params *p) {
    return p->pixels * p->matrix.pixel;
}

PG_INLINE int32_t pg_pointwise_dsp_row_bytes(const pg_pointwise_dsp_params *p) {
    return p->row_pixels * p->matrix.pixel;
}

/* Scratch: operand (24 bytes a quad), outputs of the one or two last pixels, those pixels. apart: others lie
 * between the pixels of y. */
PG_INLINE void pg_pointwise_dsp(const pg_pointwise_dsp_params *p, int32_t left, const void *x, bool x_wide,
                                void *y, bool y_wide, void *scratch, pg_conv_dsp_block *block, bool apart) {
    const pg_conv_dsp_matrix *matrix = &p->matrix;
    const int32_t inputs = p->inputs;
    const int32_t outputs = matrix->outputs;
    uint32_t *operand = (uint32_t *)scratch;
    for (; left >= 3; left -= 3) {
        pg_conv_dsp_operand(x, x_wide, inputs, operand, inputs);
        block(operand, p->stream, y, matrix);
        x = pg_at(x, 3 * inputs, x_wide);
        y = apart ? (int8_t *)y + 3 * matrix->pixel : pg_at_mutable(y, 3 * outputs, y_wide);
    }
    if (left > 0) {
        void *results = operand + 6 * matrix->quads;
        void *pixels = pg_at_mutable(results, (3 * outputs + 3) / 4 * 4, y_wide);
        memcpy(pixels, x, (size_t)(left * inputs) * (x_wide ? 2u : 1u));
        pg_fill(pg_at_mutable(pixels, left * inputs, x_wide), 0, (3 - left) * inputs, x_wide);
        pg_conv_dsp_operand(pixels, x_wide, inputs, operand, inputs);
        if (apart) {
            pg_conv_dsp_apart(matrix, operand, p->stream, left, y_wide ? 2 * outputs : outputs, results, y,
                              block);
            return;
        }
        if (matrix->residual) {
            memcpy(results, y, (size_t)(left * outputs));
        }
        block(operand, p->stream, results, matrix);
        memcpy(y, results, (size_t)(left * outputs) * (y_wide ? 2u : 1u));
    }
}

PG_KERNEL void pg_pointwise_dsp_s8_s8(const pg_pointwise_dsp_params *p, const int8_t *x, int8_t *y,
                                      void *scratch, pg_conv_dsp_block *block) {
    pg_pointwise_dsp(p, p->pixels, x, false, y, false, scratch, block, false);
}

PG_KERNEL void pg_pointwise_dsp_s8_s16(const pg_pointwise_dsp_params *p, const int8_t *x, int16_t *y,
                                       void *scratch, pg_conv_dsp_block *block) {
    pg_pointwise_dsp(p, p->pixels, x, false, y, true, scratch, block, false);
}

PG_KERNEL void pg_pointwise_dsp_s16_s8(const pg_pointwise_dsp_params *p, const int16_t *x, int8_t *y,
                                       void *scratch, pg_conv_dsp_block *block) {
    pg_pointwise_dsp(p, p->pixels, x, true, y, false, scratch, block, false);
}

PG_KERNEL void pg_pointwise_dsp_s16_s16(const pg_pointwise_dsp_params *p, const int16_t *x, int16_t *y,
                                        void *scratch, pg_conv_dsp_block *block) {
    pg_pointwise_dsp(p, p->pixels, x, true, y, true, scratch, block, false);
}

PG_KERNEL void pg_pointwise_dsp_s8_s8_row(const pg_pointwise_dsp_params *p, const int8_t *const *rows,
                                          int8_t *y, void *scratch, pg_conv_dsp_block *block) {
    pg_pointwise_dsp(p, p->row_pixels, rows[0], false, y, false, scratch, block, false);
}

PG_KERNEL void pg_pointwise_dsp_s8_s16_row(const pg_pointwise_dsp_params *p, const int8_t *const *rows,
                                           int16_t *y, void *scratch, pg_conv_dsp_block *block) {
    pg_pointwise_dsp(p, p->row_pixels, rows[0], false, y, true, scratch, block, false);
}

PG_KERNEL void pg_pointwise_dsp_s16_s8_row(const pg_pointwise_dsp_params *p, const int16_t *const *rows,
                                           int8_t *y, void *scratch, pg_conv_dsp_block *block) {
    pg_pointwise_dsp(p, p->row_pixels, rows[0], true, y, false, scratch, block, false);
}

PG_KERNEL void pg_pointwise_dsp_s16_s16_row(const pg_pointwise_dsp_params *p, const int16_t *const *rows,
                                            int16_t *y, void *scratch, pg_conv_dsp_block *block) {
    pg_pointwise_dsp(p, p->row_pixels, rows[0], true, y, true, scratch, block, false);
}

/* Of either type, apart. */
PG_KERNEL void pg_pointwise_dsp_apart(const pg_pointwise_dsp_params *p, const void *x, bool x_wide, void *y,
                                      bool y_wide, void *scratch, pg_conv_dsp_block *block) {
    pg_pointwise_dsp(p, p->pixels, x, x_wide, y, y_wide, scratch, block, true);
}

PG_KERNEL void pg_pointwise_dsp_apart_row(const pg_pointwise_dsp_params *p, const void *rows, bool x_wide,
                                          void *y, bool y_wide, void *scratch, pg_conv_dsp_block *block) {
    const void *row = x_wide ? (const void *)*(const int16_t *const *)rows : *(const int8_t *const *)rows;
    pg_pointwise_dsp(p, p->row_pixels, row, x_wide, y, y_wide, scratch, block, true);
}

#endif /* PG_POINTWISE_DSP_H */
