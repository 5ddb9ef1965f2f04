/* SPDX-License-Identifier: MIT-0
 *
 * 1x1 convolution with stride 1 for Armv7-M cores without DSP instructions: six pixels at a time through a
 * block. The operand of six pixels is made before their outputs are written, so y may begin where x begins if
 * it is no longer.
 */
#ifndef PG_POINTWISE_THUMB2_H
#define PG_POINTWISE_THUMB2_H

#include "pg_conv_thumb2.h"

typedef struct {
    const uint32_t *stream; /* start values, weights and multipliers in reading order */
    pg_conv_thumb2_matrix matrix;
    int32_t pixels;     /* of the whole map */
    int32_t row_pixels; /* of one row */
    int32_t inputs;     /* channels of a pixel */
} pg_pointwise_thumb2_params;

/* Bytes of the outputs, and of those of one call for rows. */
PG_INLINE int32_t pg_pointwise_thumb2_bytes(const pg_pointwise_thumb2_params *p) {
    return p->pixels * p->matrix.pixel;
}

PG_INLINE int32_t pg_pointwise_thumb2_row_bytes(const pg_pointwise_thumb2_params *p) {
    return p->row_pixels * p->matrix.pixel;
}

/* residual: y holds what the block adds.
 * Scratch: operand (48 bytes a quad), outputs of the last one to five pixels, those pixels. */
PG_INLINE void pg_pointwise_thumb2(const pg_pointwise_thumb2_params *p, int32_t left, const int8_t *x,
                                   void *y, bool y_wide, bool residual, void *scratch,
                                   pg_conv_thumb2_block *block) {
    const pg_conv_thumb2_matrix *matrix = &p->matrix;
    const int32_t inputs = p->inputs;
    const int32_t outputs = matrix->outputs;
    uint32_t *operand = (uint32_t *)scratch;
    for (; left >= 6; left -= 6) {
        pg_conv_thumb2_pack(x, inputs, operand, inputs);
        block(operand, p->stream, y, matrix);
        x += 6 * inputs;
        y = pg_at_mutable(y, 6 * outputs, y_wide);
    }
    if (left > 0) {
        void *results = operand + 12 * matrix->quads;
        int8_t *pixels = (int8_t *)pg_at_mutable(results, 6 * outputs, y_wide);
        pg_copy(pixels, x, left * inputs); /* what the others hold has no effect */
        pg_conv_thumb2_pack(pixels, inputs, operand, inputs);
        if (residual) {
            pg_copy(results, y, left * outputs);
        }
        block(operand, p->stream, results, matrix);
        pg_copy(y, results, left * outputs * (y_wide ? 2 : 1));
    }
}

PG_KERNEL void pg_pointwise_thumb2_s8(const pg_pointwise_thumb2_params *p, const int8_t *x, int8_t *y,
                                      void *scratch, pg_conv_thumb2_block *block) {
    pg_pointwise_thumb2(p, p->pixels, x, y, false, false, scratch, block);
}

PG_KERNEL void pg_pointwise_thumb2_s16(const pg_pointwise_thumb2_params *p, const int8_t *x, int16_t *y,
                                       void *scratch, pg_conv_thumb2_block *block) {
    pg_pointwise_thumb2(p, p->pixels, x, y, true, false, scratch, block);
}

PG_KERNEL void pg_pointwise_thumb2_residual(const pg_pointwise_thumb2_params *p, const int8_t *x, int8_t *y,
                                            void *scratch, pg_conv_thumb2_block *block) {
    pg_pointwise_thumb2(p, p->pixels, x, y, false, true, scratch, block);
}

PG_KERNEL void pg_pointwise_thumb2_s8_row(const pg_pointwise_thumb2_params *p, const int8_t *const *rows,
                                          int8_t *y, void *scratch, pg_conv_thumb2_block *block) {
    pg_pointwise_thumb2(p, p->row_pixels, rows[0], y, false, false, scratch, block);
}

PG_KERNEL void pg_pointwise_thumb2_s16_row(const pg_pointwise_thumb2_params *p, const int8_t *const *rows,
                                           int16_t *y, void *scratch, pg_conv_thumb2_block *block) {
    pg_pointwise_thumb2(p, p->row_pixels, rows[0], y, true, false, scratch, block);
}

PG_KERNEL void pg_pointwise_thumb2_residual_row(const pg_pointwise_thumb2_params *p,
                                                const int8_t *const *rows, int8_t *y, void *scratch,
                                                pg_conv_thumb2_block *block) {
    pg_pointwise_thumb2(p, p->row_pixels, rows[0], y, false, true, scratch, block);
}

#endif /* PG_POINTWISE_THUMB2_H */
