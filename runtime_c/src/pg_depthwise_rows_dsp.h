/* SPDX-License-Identifier: MIT-0
 *
 * Depthwise convolution row by row for cores with DSP instructions: the rows under an output row are copied
 * with their padding, then four channels of a pixel are computed together. Scratch: kernel_h rows of pitch
 * bytes.
 */
#ifndef PG_DEPTHWISE_ROWS_DSP_H
#define PG_DEPTHWISE_ROWS_DSP_H

#include "pg_conv_dsp.h"
#include "pg_window_rows.h"

typedef struct {
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
    int32_t pixels; /* of an output row */
} pg_depthwise_rows_dsp_out;

typedef struct {
    const uint32_t *stream; /* per four channels: bias, weights and multipliers in reading order */
    pg_window window;
    int32_t pitch; /* bytes of a padded row */
    pg_depthwise_rows_dsp_out out;
} pg_depthwise_rows_dsp_params;

/* A block: one output row from padded rows. */
typedef void pg_depthwise_rows_dsp_block(const int8_t *rows, const uint32_t *stream, int8_t *y,
                                         const pg_depthwise_rows_dsp_out *p);

/* Output row oy, from kernel_h row pointers or (rows NULL) from the map x, where the rows that the last
 * output row shares are moved up; the borders of scratch are filled. */
PG_INLINE void pg_depthwise_rows_dsp_line(const pg_depthwise_rows_dsp_params *p, const void *rows,
                                          const int8_t *x, int32_t oy, int8_t *y, int8_t *scratch,
                                          pg_depthwise_rows_dsp_block *block) {
    const pg_window *g = &p->window;
    pg_window_rows(g, p->pitch, rows, x, false, oy, rows == NULL && oy > 0 && g->dilation_h == 1, scratch);
    block(scratch, p->stream, y, &p->out);
}

PG_KERNEL void pg_depthwise_rows_dsp(const pg_depthwise_rows_dsp_params *p, const int8_t *x, int8_t *y,
                                     void *scratch, pg_depthwise_rows_dsp_block *block) {
    const pg_window *g = &p->window;
    pg_fill(scratch, g->zero_point, g->kernel_h * p->pitch, false);
    for (int32_t oy = 0; oy < g->out_h; ++oy) {
        pg_depthwise_rows_dsp_line(p, NULL, x, oy, y, (int8_t *)scratch, block);
        y += g->out_w * g->out_c;
    }
}

/* One row of a streamed segment. */
PG_KERNEL void pg_depthwise_rows_dsp_row(const pg_depthwise_rows_dsp_params *p, const int8_t *const *rows,
                                         int8_t *y, void *scratch, pg_depthwise_rows_dsp_block *block) {
    const pg_window *g = &p->window;
    pg_fill_sides(scratch, g->zero_point, g->kernel_h, p->pitch, g->pad_left * g->in_c, g->in_w * g->in_c,
                  false);
    pg_depthwise_rows_dsp_line(p, rows, NULL, 0, y, (int8_t *)scratch, block);
}

#endif /* PG_DEPTHWISE_ROWS_DSP_H */
