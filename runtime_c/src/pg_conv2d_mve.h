/* SPDX-License-Identifier: MIT-0
 *
 * Convolutions of any geometry for cores with MVE (Helium): blocks that read padded lines in scratch, or
 * windows gathered from them. Row r of the padded map lies in line r % lines.
 */
#ifndef PG_CONV2D_MVE_H
#define PG_CONV2D_MVE_H

#include "pg_conv_mve.h"
#include "pg_window.h"

#define PG_CONV2D_MVE_ROWS 16 /* of the largest kernel */

typedef struct {
    int32_t pitch;   /* bytes of a pixel */
    int32_t bytes;   /* of a line */
    int32_t count;   /* rows under a window, those between its taps included */
    int32_t columns; /* pixels of a row of the map that lie under windows */
} pg_conv_mve_lines;

typedef struct {
    const uint32_t *stream; /* weights, start values and multipliers in reading order, group by group */
    pg_conv_mve_block block;
    pg_window window; /* out_c: elements from one output pixel to the next where there are no groups */
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

/* The sides of the first kernel_h lines hold the zero point. */
PG_INLINE void pg_conv2d_mve_sides(const pg_conv2d_mve_params *p, void *lines, bool wide) {
    const uint32_t word = pg_conv_mve_word(p->window.zero_point, wide);
    const int32_t left = p->window.pad_left * p->lines.pitch;
    const int32_t inside = p->lines.columns * p->lines.pitch;
    int8_t *line = (int8_t *)lines;
    for (int32_t ky = 0; ky < p->window.kernel_h; ++ky) {
        pg_conv_mve_fill(line, word, left);
        pg_conv_mve_fill(line + left + inside, word, p->lines.bytes - left - inside);
        line += p->lines.bytes;
    }
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
PG_KERNEL int32_t pg_conv2d_mve_advance(const pg_conv2d_mve_params *p, void *lines, const void *x, int32_t oy,
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

/* The lines under the rows of the windows of output row oy. */
PG_INLINE void pg_conv2d_mve_taps(const pg_conv2d_mve_params *p, const void *memory, int32_t oy,
                                  const void **lines) {
    int32_t row = oy * p->window.stride_h;
    for (int32_t ky = 0; ky < p->window.kernel_h; ++ky) {
        lines[ky] = (const int8_t *)memory + row % p->lines.count * p->lines.bytes;
        row += p->window.dilation_h;
    }
}

/* The lines under the windows of one row of a streamed segment. */
PG_INLINE void pg_conv2d_mve_streamed(const pg_conv2d_mve_params *p, void *memory, const void *rows,
                                      int32_t first, int32_t count, const void **lines) {
    const bool wide = p->block.x_wide;
    int8_t *line = (int8_t *)memory;
    for (int32_t ky = 0; ky < p->window.kernel_h; ++ky) {
        pg_conv2d_mve_load(p, line, pg_window_streamed_row(rows, ky, wide), first, count, wide);
        lines[ky] = line;
        line += p->lines.bytes;
    }
}

/* One output row from its lines. The last block overlaps the one before it where blocks don't fill the row.
 */
PG_KERNEL void pg_conv2d_mve_blocks(const pg_conv2d_mve_params *p, pg_conv_mve_run *run, const void **lines,
                                    int32_t group, const int8_t *residual, void *y) {
    const uint32_t *stream = p->stream + group * p->group_words;
    const int32_t pixels = p->block.pixels;
    const int32_t width = p->window.out_w;
    const int32_t first = group * (p->window.out_c / p->groups);
    const bool wide = p->block.y_wide;
    run(lines, stream, pg_at_mutable(y, first, wide), &p->block, width / pixels,
        pg_conv_mve_residual(residual, first));
    if (width % pixels > 0) {
        const int32_t step = (width - pixels) * p->window.stride_w * p->lines.pitch;
        const int32_t at = (width - pixels) * p->window.out_c + first;
        for (int32_t ky = 0; ky < p->window.kernel_h; ++ky) {
            lines[ky] = (const int8_t *)lines[ky] + step;
        }
        run(lines, stream, pg_at_mutable(y, at, wide), &p->block, 1, pg_conv_mve_residual(residual, at));
    }
}

/* Scratch: the lines, and 16 bytes that may be read. */
PG_KERNEL void pg_conv2d_mve(const pg_conv2d_mve_params *p, pg_conv_mve_run *run, const void *x,
                             const int8_t *residual, void *y, void *scratch) {
    const pg_window *g = &p->window;
    const int32_t inputs = g->in_c / p->groups;
    const int32_t row = g->out_w * g->out_c;
    const bool wide = p->block.x_wide;
    const void *lines[PG_CONV2D_MVE_ROWS];
    pg_conv2d_mve_clear(p, scratch, wide);
    for (int32_t group = 0; group < p->groups; ++group) {
        int32_t next = 0;
        for (int32_t oy = 0; oy < g->out_h; ++oy) {
            next = pg_conv2d_mve_advance(p, scratch, x, oy, next, group * inputs, inputs, wide);
            pg_conv2d_mve_taps(p, scratch, oy, lines);
            pg_conv2d_mve_blocks(p, run, lines, group, pg_conv_mve_residual(residual, oy * row),
                                 pg_at_mutable(y, oy * row, p->block.y_wide));
        }
    }
}

/* One row of a streamed segment. */
PG_KERNEL void pg_conv2d_mve_row(const pg_conv2d_mve_params *p, pg_conv_mve_run *run, const void *rows,
                                 const int8_t *residual, void *y, void *scratch) {
    const int32_t inputs = p->window.in_c / p->groups;
    const void *lines[PG_CONV2D_MVE_ROWS];
    pg_conv2d_mve_sides(p, scratch, p->block.x_wide);
    for (int32_t group = 0; group < p->groups; ++group) {
        pg_conv2d_mve_streamed(p, scratch, rows, group * inputs, inputs, lines);
        pg_conv2d_mve_blocks(p, run, lines, group, residual, y);
    }
}

/* Copies count windows from the lines, from byte at on, to places p->pitch bytes apart. */
typedef void pg_conv_mve_gather(const void *const *lines, int32_t at, int8_t *to, int32_t count);

/* The windows of one output row, pending being gathered already: every full operand is computed, to *y on.
 * Returns the windows that are gathered and not computed. */
PG_INLINE int32_t pg_conv2d_mve_windows(const pg_conv2d_mve_params *p, pg_conv_mve_run *run,
                                        pg_conv_mve_gather *gather, const void *const *lines, int8_t *operand,
                                        int32_t pending, void **y) {
    const void *windows[1] = {operand};
    const int32_t step = p->window.stride_w * p->lines.pitch;
    int32_t left = p->window.out_w;
    int32_t at = 0;
    while (left > 0) {
        const int32_t room = p->operand - pending;
        const int32_t now = left < room ? left : room;
        gather(lines, at, operand + pending * p->pitch, now);
        at += now * step;
        left -= now;
        pending += now;
        if (pending == p->operand) {
            run(windows, p->stream, *y, &p->block, pending / p->block.pixels, NULL);
            *y = pg_at_mutable(*y, pending * p->window.out_c, p->block.y_wide);
            pending = 0;
        }
    }
    return pending;
}

/* The last windows. Those that don't fill a block are computed together with windows before them, which still
 * lie there or at the operand's end. */
PG_INLINE void pg_conv2d_mve_rest(const pg_conv2d_mve_params *p, pg_conv_mve_run *run, int8_t *operand,
                                  int32_t pending, void *y) {
    const int32_t pixels = p->block.pixels;
    const int32_t rest = pending % pixels;
    const void *windows[1] = {operand};
    int8_t *end = operand + pending * p->pitch;
    if (pending >= pixels) {
        run(windows, p->stream, y, &p->block, pending / pixels, NULL);
    } else if (rest > 0) {
        end = operand + p->operand * p->pitch;
        pg_conv_mve_copy(end, operand, rest * p->pitch);
        end += rest * p->pitch;
    }
    if (rest > 0) {
        windows[0] = end - pixels * p->pitch;
        run(windows, p->stream, pg_at_mutable(y, (pending - pixels) * p->window.out_c, p->block.y_wide),
            &p->block, 1, NULL);
    }
}

/* The lines in scratch, after the windows, room for a block's less one, and 16 bytes that may be touched. */
PG_INLINE int8_t *pg_conv2d_mve_memory(const pg_conv2d_mve_params *p, void *scratch) {
    return (int8_t *)scratch + (p->operand + p->block.pixels - 1) * p->pitch + 16;
}

/* Scratch: windows, then lines and 16 bytes that may be read. residual is NULL. */
PG_KERNEL void pg_conv2d_mve_gathered(const pg_conv2d_mve_params *p, pg_conv_mve_run *run,
                                      pg_conv_mve_gather *gather, const void *x, const int8_t *residual,
                                      void *y, void *scratch) {
    const pg_window *g = &p->window;
    const bool wide = p->block.x_wide;
    int8_t *operand = (int8_t *)scratch;
    int8_t *memory = pg_conv2d_mve_memory(p, scratch);
    const void *lines[PG_CONV2D_MVE_ROWS];
    int32_t next = 0;
    int32_t pending = 0;
    (void)residual;
    pg_conv2d_mve_clear(p, memory, wide);
    for (int32_t oy = 0; oy < g->out_h; ++oy) {
        next = pg_conv2d_mve_advance(p, memory, x, oy, next, 0, g->in_c, wide);
        pg_conv2d_mve_taps(p, memory, oy, lines);
        pending = pg_conv2d_mve_windows(p, run, gather, lines, operand, pending, &y);
    }
    pg_conv2d_mve_rest(p, run, operand, pending, y);
}

/* One row of a streamed segment. */
PG_KERNEL void pg_conv2d_mve_gathered_row(const pg_conv2d_mve_params *p, pg_conv_mve_run *run,
                                          pg_conv_mve_gather *gather, const void *rows,
                                          const int8_t *residual, void *y, void *scratch) {
    int8_t *operand = (int8_t *)scratch;
    int8_t *memory = pg_conv2d_mve_memory(p, scratch);
    const void *lines[PG_CONV2D_MVE_ROWS];
    (void)residual;
    pg_conv2d_mve_sides(p, memory, p->block.x_wide);
    pg_conv2d_mve_streamed(p, memory, rows, 0, p->window.in_c, lines);
    const int32_t pending = pg_conv2d_mve_windows(p, run, gather, lines, operand, 0, &y);
    pg_conv2d_mve_rest(p, run, operand, pending, y);
}

#endif /* PG_CONV2D_MVE_H */
