/* SPDX-License-Identifier: MIT-0
 *
 * Convolutions of any geometry for cores with MVE (Helium): parameters, and the padded lines in scratch that
 * the blocks read. Row r of the padded map lies in line r % lines.
 */
#ifndef PG_CONV2D_MVE_H
#define PG_CONV2D_MVE_H

#include "pg_conv_mve.h"
#include "pg_window.h"

typedef struct {
    int32_t pitch;   /* bytes of a pixel */
    int32_t bytes;   /* of a line */
    int32_t count;   /* rows under a window, those between its taps included */
    int32_t columns; /* pixels of a row of the map that lie under windows */
} pg_conv_mve_lines;

typedef struct {
    const uint32_t *stream; /* weights, start values and multipliers in reading order, group by group */
    pg_conv_mve_block block;
    pg_window window;
    pg_conv_mve_lines lines;
    int32_t groups;
    int32_t group_words; /* of the stream */
    int32_t operand;     /* windows that are gathered at once, a multiple of the block's; 0: none are */
    int32_t pitch;       /* bytes of a gathered window */
} pg_conv2d_mve_params;

/* All lines hold the zero point. */
PG_INLINE void pg_conv2d_mve_clear(const pg_conv2d_mve_params *p, void *lines, bool wide) {
    pg_conv_mve_fill(lines, pg_conv_mve_word(p->window.zero_point, wide), p->lines.count * p->lines.bytes);
}

/* Channels first .. first + count - 1 of a row of the map (NULL: padding) to a line. */
PG_INLINE void pg_conv2d_mve_load(const pg_conv2d_mve_params *p, void *line, const void *row, int32_t first,
                                  int32_t count, bool wide) {
    const pg_conv_mve_lines lines = p->lines;
    const int32_t size = wide ? 2 : 1;
    int8_t *to = (int8_t *)line + p->window.pad_left * lines.pitch;
    if (lines.columns == 0) {
        return;
    }
    if (row == NULL) {
        pg_conv_mve_fill(to, pg_conv_mve_word(p->window.zero_point, wide), lines.columns * lines.pitch);
    } else {
        pg_conv_mve_pixels(to, pg_at(row, first, wide), lines.columns, count * size, lines.pitch,
                           p->window.in_c * size);
    }
}

/* The lines under the windows of output row oy, where those up to row next of the padded map are loaded:
 * returns the next one to load. */
PG_INLINE int32_t pg_conv2d_mve_advance(const pg_conv2d_mve_params *p, void *lines, const void *x, int32_t oy,
                                        int32_t next, int32_t first, int32_t count, bool wide) {
    const pg_window *g = &p->window;
    const int32_t top = oy * g->stride_h;
    int32_t row = next > top ? next : top;
    for (; row < top + p->lines.count; ++row) {
        const int32_t iy = row - g->pad_top;
        const void *from = iy >= 0 && iy < g->in_h ? pg_at(x, iy * g->in_w * g->in_c, wide) : NULL;
        void *line = (int8_t *)lines + row % p->lines.count * p->lines.bytes;
        pg_conv2d_mve_load(p, line, from, first, count, wide);
    }
    return row;
}

/* The line under row ky of the windows of output row oy. */
PG_INLINE const void *pg_conv2d_mve_tap(const pg_conv2d_mve_params *p, const void *lines, int32_t oy,
                                        int32_t ky) {
    const int32_t row = oy * p->window.stride_h + ky * p->window.dilation_h;
    return (const int8_t *)lines + row % p->lines.count * p->lines.bytes;
}

#endif /* PG_CONV2D_MVE_H */
