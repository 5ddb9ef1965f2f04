/* SPDX-License-Identifier: MIT-0
 *
 * Pointwise (1x1) convolution without padding, any stride: each output pixel is a matrix times one input
 * pixel.
 */
#ifndef PG_POINTWISE_H
#define PG_POINTWISE_H

#include "pg_matrix.h"

typedef struct {
    const int8_t *weights;      /* [out_c][in_c] */
    const int32_t *bias;        /* [out_c], input zero point folded in */
    const int32_t *multipliers; /* [out_c], multiples of 4 */
    int32_t out_h, out_w;
    int32_t in_c, out_c;
    int32_t row_step;    /* elements from one used input row to the next */
    int32_t column_step; /* elements from one used input pixel to the next */
    pg_requant out;
} pg_pointwise_params;

/* One output row; output pixels are step elements apart. */
PG_INLINE void pg_pointwise_line(const pg_pointwise_params *p, const void *x, bool x_wide, void *y,
                                 bool y_wide, int32_t step) {
    const pg_matrix a = {p->weights, p->bias, p->multipliers};
    const pg_requant out = p->out;
    for (int32_t ox = 0; ox < p->out_w; ++ox) {
        const void *pixel = pg_at(x, ox * p->column_step, x_wide);
        pg_matrix_vector(a, p->in_c, p->out_c, &out, pixel, x_wide, y, y_wide);
        y = pg_at_mutable(y, step, y_wide);
    }
}

PG_INLINE void pg_pointwise(const pg_pointwise_params *p, const void *x, bool x_wide, void *y, bool y_wide,
                            int32_t step) {
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        pg_pointwise_line(p, pg_at(x, oy * p->row_step, x_wide), x_wide, y, y_wide, step);
        y = pg_at_mutable(y, p->out_w * step, y_wide);
    }
}

PG_KERNEL void pg_pointwise_s8_s8(const pg_pointwise_params *p, const int8_t *x, int8_t *y) {
    pg_pointwise(p, x, false, y, false, p->out_c);
}

PG_KERNEL void pg_pointwise_s8_s16(const pg_pointwise_params *p, const int8_t *x, int16_t *y) {
    pg_pointwise(p, x, false, y, true, p->out_c);
}

PG_KERNEL void pg_pointwise_s16_s8(const pg_pointwise_params *p, const int16_t *x, int8_t *y) {
    pg_pointwise(p, x, true, y, false, p->out_c);
}

PG_KERNEL void pg_pointwise_s16_s16(const pg_pointwise_params *p, const int16_t *x, int16_t *y) {
    pg_pointwise(p, x, true, y, true, p->out_c);
}

PG_KERNEL void pg_pointwise_row_s8_s8(const pg_pointwise_params *p, const int8_t *const *rows, int8_t *y) {
    pg_pointwise_line(p, rows[0], false, y, false, p->out_c);
}

PG_KERNEL void pg_pointwise_row_s8_s16(const pg_pointwise_params *p, const int8_t *const *rows, int16_t *y) {
    pg_pointwise_line(p, rows[0], false, y, true, p->out_c);
}

PG_KERNEL void pg_pointwise_row_s16_s8(const pg_pointwise_params *p, const int16_t *const *rows, int8_t *y) {
    pg_pointwise_line(p, rows[0], true, y, false, p->out_c);
}

PG_KERNEL void pg_pointwise_row_s16_s16(const pg_pointwise_params *p, const int16_t *const *rows,
                                        int16_t *y) {
    pg_pointwise_line(p, rows[0], true, y, true, p->out_c);
}

#endif /* PG_POINTWISE_H */
