/* SPDX-License-Identifier: MIT-0
 *
 * Convolutions of any geometry for cores with MVE (Helium): blocks that read padded lines in scratch, or
 * windows gathered from them. Row r of the padded map lies in line r % count. Sizes are bytes, so that int8
 * and int16 maps take the same way.
 */
#ifndef PG_CONV2D_MVE_H
#define PG_CONV2D_MVE_H

#include "pg_conv_mve.h"

#define PG_CONV2D_MVE_ROWS 16 /* of the largest kernel */

typedef struct {
    const uint32_t *stream; /* weights, start values and multipliers in reading order, group by group */
    pg_conv_mve_block block;
    uint32_t padding;    /* a word of zero points */
    int32_t row;         /* bytes of a row of the map */
    int32_t line;        /* bytes of a line */
    int32_t group_words; /* of the stream */
    int32_t out_w;       /* columns of the outputs */
    int32_t columns;     /* pixels of a row of the map that lie under windows */
    uint16_t in_h;       /* rows of the map, and of the outputs */
    uint16_t out_h;
    uint16_t kernel_h;
    uint16_t stride_h;
    uint16_t dilation_h;
    uint16_t pad_top;
    uint16_t count;   /* lines: rows under a window, those between its taps included */
    uint16_t left;    /* bytes of a line before the map's pixels */
    uint16_t pitch;   /* bytes of a pixel of a line */
    uint16_t step;    /* bytes of a line from one window to the next */
    uint16_t pixel;   /* bytes of a pixel of the map */
    uint16_t inputs;  /* those of a group */
    uint16_t out;     /* bytes from one output pixel to the next */
    uint16_t outputs; /* those of a group */
    uint16_t groups;
    uint16_t together; /* pixels of a block */
    uint16_t operand;  /* windows that are gathered at once, a multiple of the block's; 0: none are */
    uint16_t window;   /* bytes of a gathered window */
} pg_conv2d_mve_params;

/* A row of the map (NULL: padding), from the first channel of a group on, to a line. */
PG_KERNEL void pg_conv2d_mve_load(const pg_conv2d_mve_params *p, int8_t *line, const int8_t *row) {
    if (row == NULL || p->columns == 0) {
        pg_conv_mve_fill(line, p->padding, p->line);
    } else {
        const int32_t right = p->left + p->columns * p->pitch;
        pg_conv_mve_fill(line, p->padding, p->left);
        pg_conv_mve_fill(line + right, p->padding, p->line - right);
        pg_conv_mve_pixels(line + p->left, row, p->columns, p->inputs, p->pitch, p->pixel);
    }
}

/* Loads the lines under the windows of output row oy, where those up to row next of the padded map are there,
 * and finds those under the kernel's rows: returns the next one to load. x starts at a group's channels. */
PG_KERNEL int32_t pg_conv2d_mve_advance(const pg_conv2d_mve_params *p, int8_t *memory, const int8_t *x,
                                        int32_t oy, int32_t next, const void **lines) {
    const int32_t count = p->count;
    int32_t top = oy * p->stride_h;
    int32_t row = next > top ? next : top;
    for (; row < top + count; ++row) {
        const int32_t iy = row - p->pad_top;
        pg_conv2d_mve_load(p, memory + row % count * p->line,
                           iy >= 0 && iy < p->in_h ? x + iy * p->row : NULL);
    }
    for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
        lines[ky] = memory + top % count * p->line;
        top += p->dilation_h;
    }
    return row;
}

/* Loads the lines under one row of a streamed segment, the channels from byte first on. */
PG_INLINE void pg_conv2d_mve_streamed(const pg_conv2d_mve_params *p, int8_t *memory, const void *rows,
                                      int32_t first, const void **lines) {
    for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
        const int8_t *row = pg_conv_mve_streamed_row(rows, ky);
        pg_conv2d_mve_load(p, memory, row == NULL ? NULL : row + first);
        lines[ky] = memory;
        memory += p->line;
    }
}

/* One output row from its lines. The last block overlaps the one before it where blocks don't fill the row.
 */
PG_KERNEL void pg_conv2d_mve_blocks(const pg_conv2d_mve_params *p, pg_conv_mve_run *run, const void **lines,
                                    int32_t group, const int8_t *residual, int8_t *y) {
    const uint32_t *stream = p->stream + group * p->group_words;
    const int32_t together = p->together;
    const int32_t before = p->out_w - together;
    residual += group * p->outputs;
    y += group * p->outputs;
    run(lines, stream, y, &p->block, p->out_w / together, residual);
    if (p->out_w % together > 0) {
        for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
            lines[ky] = (const int8_t *)lines[ky] + before * p->step;
        }
        run(lines, stream, y + before * p->out, &p->block, 1, residual + before * p->out);
    }
}

/* Scratch: the lines, and 16 bytes that may be read. */
PG_KERNEL void pg_conv2d_mve(const pg_conv2d_mve_params *p, pg_conv_mve_run *run, const void *x,
                             const int8_t *residual, void *y, void *scratch) {
    const int32_t row = p->out_w * p->out;
    const void *lines[PG_CONV2D_MVE_ROWS];
    for (int32_t group = 0; group < p->groups; ++group) {
        int32_t next = 0;
        for (int32_t oy = 0; oy < p->out_h; ++oy) {
            next = pg_conv2d_mve_advance(p, (int8_t *)scratch, (const int8_t *)x + group * p->inputs, oy,
                                         next, lines);
            pg_conv2d_mve_blocks(p, run, lines, group, residual + oy * row, (int8_t *)y + oy * row);
        }
    }
}

/* One row of a streamed segment. */
PG_KERNEL void pg_conv2d_mve_row(const pg_conv2d_mve_params *p, pg_conv_mve_run *run, const void *rows,
                                 const int8_t *residual, void *y, void *scratch) {
    const void *lines[PG_CONV2D_MVE_ROWS];
    for (int32_t group = 0; group < p->groups; ++group) {
        pg_conv2d_mve_streamed(p, (int8_t *)scratch, rows, group * p->inputs, lines);
        pg_conv2d_mve_blocks(p, run, lines, group, residual, (int8_t *)y);
    }
}

/* Copies count windows from the lines, from byte at on, to places p->window bytes apart. */
typedef void pg_conv_mve_gather(const void *const *lines, int32_t at, int8_t *to, int32_t count);

/* The windows of one output row, pending being gathered already: every full operand is computed, to *y on.
 * Returns the windows that are gathered and not computed. */
PG_INLINE int32_t pg_conv2d_mve_windows(const pg_conv2d_mve_params *p, pg_conv_mve_run *run,
                                        pg_conv_mve_gather *gather, const void *const *lines, int8_t *operand,
                                        int32_t pending, int8_t **y) {
    const void *windows[1] = {operand};
    int32_t left = p->out_w;
    int32_t at = 0;
    while (left > 0) {
        const int32_t room = p->operand - pending;
        const int32_t now = left < room ? left : room;
        gather(lines, at, operand + pending * p->window, now);
        at += now * p->step;
        left -= now;
        pending += now;
        if (pending == p->operand) {
            run(windows, p->stream, *y, &p->block, pending / p->together, *y);
            *y += pending * p->out;
            pending = 0;
        }
    }
    return pending;
}

/* The last windows. Those that don't fill a block are computed together with windows before them, which still
 * lie there or at the operand's end. */
PG_INLINE void pg_conv2d_mve_rest(const pg_conv2d_mve_params *p, pg_conv_mve_run *run, int8_t *operand,
                                  int32_t pending, int8_t *y) {
    const int32_t together = p->together;
    const int32_t rest = pending % together;
    const void *windows[1] = {operand};
    int8_t *end = operand + pending * p->window;
    if (pending >= together) {
        run(windows, p->stream, y, &p->block, pending / together, y);
    } else if (rest > 0) {
        end = operand + p->operand * p->window;
        pg_conv_mve_copy(end, operand, rest * p->window);
        end += rest * p->window;
    }
    if (rest > 0) {
        windows[0] = end - together * p->window;
        y += (pending - together) * p->out;
        run(windows, p->stream, y, &p->block, 1, y);
    }
}

/* The lines in scratch, after the windows, room for a block's less one, and 16 bytes that may be touched. */
PG_INLINE int8_t *pg_conv2d_mve_memory(const pg_conv2d_mve_params *p, void *scratch) {
    return (int8_t *)scratch + (p->operand + p->together - 1) * p->window + 16;
}

/* Scratch: windows, then lines and 16 bytes that may be read. No residual is read. */
PG_KERNEL void pg_conv2d_mve_gathered(const pg_conv2d_mve_params *p, pg_conv_mve_run *run,
                                      pg_conv_mve_gather *gather, const void *x, const int8_t *residual,
                                      void *y, void *scratch) {
    int8_t *operand = (int8_t *)scratch;
    int8_t *memory = pg_conv2d_mve_memory(p, scratch);
    int8_t *to = (int8_t *)y;
    const void *lines[PG_CONV2D_MVE_ROWS];
    int32_t next = 0;
    int32_t pending = 0;
    (void)residual;
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        next = pg_conv2d_mve_advance(p, memory, (const int8_t *)x, oy, next, lines);
        pending = pg_conv2d_mve_windows(p, run, gather, lines, operand, pending, &to);
    }
    pg_conv2d_mve_rest(p, run, operand, pending, to);
}

/* One row of a streamed segment. */
PG_KERNEL void pg_conv2d_mve_gathered_row(const pg_conv2d_mve_params *p, pg_conv_mve_run *run,
                                          pg_conv_mve_gather *gather, const void *rows,
                                          const int8_t *residual, void *y, void *scratch) {
    int8_t *operand = (int8_t *)scratch;
    int8_t *memory = pg_conv2d_mve_memory(p, scratch);
    int8_t *to = (int8_t *)y;
    const void *lines[PG_CONV2D_MVE_ROWS];
    (void)residual;
    pg_conv2d_mve_streamed(p, memory, rows, 0, lines);
    const int32_t pending = pg_conv2d_mve_windows(p, run, gather, lines, operand, 0, &to);
    pg_conv2d_mve_rest(p, run, operand, pending, to);
}

#endif /* PG_CONV2D_MVE_H */
