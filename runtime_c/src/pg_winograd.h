/* SPDX-License-Identifier: MIT-0
 *
 * What the exact Winograd convolutions for cores with DSP instructions share: parameters, padded copies of
 * input rows, and the plain C meaning of the instructions on pairs of halfwords.
 */
#ifndef PG_WINOGRAD_H
#define PG_WINOGRAD_H

#include "pg_conv_dsp.h"
#include "pg_window.h"

typedef struct {
    int32_t row;        /* bytes from an output row to the one below */
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
    int32_t pixel;    /* bytes from one output pixel to the next */
    int32_t quads;    /* of input channels */
    int32_t residual; /* 1: y holds what is to be added; else 0, or, where pixels lie apart, bytes of one */
} pg_winograd_out;

typedef struct {
    int32_t quads; /* of input channels */
    int32_t bytes; /* of a plane of transformed columns, one quad of each */
} pg_winograd_planes;

typedef struct {
    int32_t height, width, channels; /* of the input */
    int32_t wide;                    /* channels in a padded copy: a multiple of 4 */
    int32_t top, left;               /* padding */
    int32_t zero_point;              /* of the input */
    int32_t bytes;                   /* of an element: 1 or 2 */
} pg_winograd_rows;

typedef struct {
    const uint32_t *stream; /* start values, transformed weights and multipliers in reading order */
    pg_winograd_rows row;
    int32_t columns;            /* of a padded copy of a row; 0: rows are read where they lie */
    int32_t kernel_h, stride_h; /* where rows are transformed one by one */
    int32_t parts;              /* of a transformed row, each as many words as channels */
    int32_t chunk;              /* of two dimensions: output columns whose inputs are transformed at once */
    pg_winograd_planes planes;
    int32_t out_h, out_w;
    pg_winograd_out out;
} pg_winograd_params;

/* Bytes of the outputs, and of those of one call for rows. */
PG_INLINE int32_t pg_winograd_bytes(const pg_winograd_params *p) {
    return p->out_h * p->out.row;
}

PG_INLINE int32_t pg_winograd_row_bytes(const pg_winograd_params *p) {
    return 2 * p->out.row;
}

/* Blocks: two tiles through all outputs, from their operand or from one pointer a row; the input transforms,
 * of some columns of four rows, of two tiles from those, and of one padded row. */
typedef void pg_winograd_tiles(const uint32_t *v, const uint32_t *stream, void *y, const pg_winograd_out *p);
typedef void pg_winograd_rows_tiles(const uint32_t *const *rows, const uint32_t *stream, void *y,
                                    const pg_winograd_out *p);
typedef void pg_winograd_down(const void *const *rows, uint32_t *t, int32_t columns,
                              const pg_winograd_planes *p);
typedef void pg_winograd_across(const uint32_t *t, uint32_t *v, const pg_winograd_planes *p);
typedef void pg_winograd_along(const void *row, uint32_t *v);

/* Pixels of `count` bytes to places of whole words; what fills a word up is of no account. Reads up to
 * three bytes after the last pixel. */
#if PG_HAS_DSP
PG_NAKED void pg_winograd_spread(PG_UNUSED int8_t *to, PG_UNUSED const int8_t *from, PG_UNUSED int32_t pixels,
                                 PG_UNUSED int32_t count) {
    /* r0 to, r1 from, r2 pixels left, r3 count, r4 words left, r5 from, r6 word, r12 words of a pixel. */
    __asm volatile("push {r4-r6, lr}\n"
                   "adds r4, r3, #3\n"
                   "lsr r12, r4, #2\n"
                   "1: mov r5, r1\n"
                   "mov r4, r12\n"
                   "2: ldr r6, [r5], #4\n"
                   "str r6, [r0], #4\n"
                   "subs r4, r4, #1\n"
                   "bne 2b\n"
                   "add r1, r1, r3\n"
                   "subs r2, r2, #1\n"
                   "bne 1b\n"
                   "pop {r4-r6, pc}\n");
}
#else
PG_KERNEL void pg_winograd_spread(int8_t *to, const int8_t *from, int32_t pixels, int32_t count) {
    for (int32_t i = 0; i < pixels; ++i) {
        memcpy(to + i * ((count + 3) / 4 * 4), from + i * count, (size_t)count);
    }
}
#endif

/* One row of the map into to, whose borders hold the zero point already. */
PG_KERNEL void pg_winograd_copy(const pg_winograd_rows *p, const int8_t *x, int8_t *to) {
    const int32_t pixel = p->channels * p->bytes;
    const int32_t place = p->wide * p->bytes;
    to += p->left * place;
    if (place == pixel) {
        pg_copy(to, x, p->width * pixel);
        return;
    }
    const int32_t spread = (pixel + 3) / 4 * 4 == place ? p->width - 1 : 0;
    if (spread > 0) {
        pg_winograd_spread(to, x, spread, pixel);
    }
    for (int32_t i = spread; i < p->width; ++i) {
        pg_copy(to + i * place, x + i * pixel, pixel);
    }
}

/* Row r of the padded map. */
PG_KERNEL void pg_winograd_row(const pg_winograd_rows *p, const int8_t *x, int32_t r, int8_t *to) {
    const int32_t y = r - p->top;
    if (y < 0 || y >= p->height) {
        pg_fill(to + p->left * p->wide * p->bytes, p->zero_point, p->width * p->wide, p->bytes == 2);
    } else {
        pg_winograd_copy(p, x + y * p->width * p->channels * p->bytes, to);
    }
}

/* The sides of padded copies of rows. */
PG_INLINE void pg_winograd_sides(const pg_winograd_params *p, int8_t *to, int32_t rows) {
    const pg_winograd_rows *row = &p->row;
    pg_fill_sides(to, row->zero_point, rows, p->columns * row->wide, row->left * row->wide,
                  row->width * row->wide, row->bytes == 2);
}

/* Halfword by halfword. */
PG_INLINE uint32_t pg_winograd_add(uint32_t a, uint32_t b) {
    return pg_conv_dsp_word(pg_conv_dsp_half(a, 0) + pg_conv_dsp_half(b, 0),
                            pg_conv_dsp_half(a, 1) + pg_conv_dsp_half(b, 1));
}

PG_INLINE uint32_t pg_winograd_subtract(uint32_t a, uint32_t b) {
    return pg_conv_dsp_word(pg_conv_dsp_half(a, 0) - pg_conv_dsp_half(b, 0),
                            pg_conv_dsp_half(a, 1) - pg_conv_dsp_half(b, 1));
}

/* Sum of the products of 4 quads halfwords: two words of every four, at a and at b. */
PG_INLINE uint32_t pg_winograd_dot(const uint32_t *a, const uint32_t *b, int32_t quads) {
    uint32_t sum = 0;
    for (int32_t q = 0; q < quads; ++q) {
        for (int32_t i = 0; i < 4; ++i) {
            sum += (uint32_t)(pg_conv_dsp_half(a[4 * q + i / 2], i % 2) *
                              pg_conv_dsp_half(b[4 * q + i / 2], i % 2));
        }
    }
    return sum;
}

/* The transform of columns that hold the zero point alone. */
PG_KERNEL void pg_winograd2d_border(const pg_winograd_params *p, uint32_t *t, int32_t columns) {
    const uint32_t twice = ((uint32_t)(2 * p->row.zero_point) & 0xffffu) * 0x10001u;
    for (int32_t q = 0; q < p->planes.quads && columns > 0; ++q) {
        for (int32_t i = 0; i < 8 * columns; i += 8) {
            t[i] = twice;
            t[i + 1] = twice;
            t[i + 2] = 0;
            t[i + 3] = 0;
            t[i + 4] = 0;
            t[i + 5] = 0;
            t[i + 6] = 0;
            t[i + 7] = 0;
        }
        t += p->planes.bytes / 4;
    }
}

/* 3x3 convolution, stride 1, F(2x2, 3x3): two output rows, or (both false) the first, from the four rows
 * under them, each of `width` pixels from column `left` of the windows on. Columns are transformed chunk by
 * chunk; a chunk keeps the last two of the one before. Where y lies over the rows, `saved` takes the columns
 * of rows 2 and up that the next call reads, before they are overwritten: a row of the map for each row of
 * padding above. Scratch: transformed columns, 8 * (chunk + 2) * wide
 * bytes; operand, 64 * wide bytes; outputs of two tiles where rows or columns don't fill the last. */
PG_KERNEL void pg_winograd2d_pair(const pg_winograd_params *p, const int8_t *const *rows, int32_t width,
                                  int32_t left, int8_t *saved, int8_t *y, bool both, void *scratch,
                                  pg_winograd_tiles *block, pg_winograd_down *down,
                                  pg_winograd_across *across) {
    const int32_t chunk = p->chunk;
    const int32_t plane = p->planes.bytes / 4;
    const int32_t place = p->row.wide * p->row.bytes;
    const int32_t pixel = p->out.pixel;
    uint32_t *t = (uint32_t *)scratch;
    uint32_t *operand = t + plane * p->planes.quads;
    int8_t *spill = (int8_t *)(operand + 16 * p->row.wide);
    for (int32_t ox = 0; ox < p->out_w; ox += chunk) {
        const int32_t kept = ox > 0 ? 2 : 0;
        const int32_t begin = ox - left + kept; /* columns of the map, from the first that is not there yet */
        const int32_t end = ox - left + chunk + 2;
        const int32_t first = begin >= 0 ? begin : end < 0 ? end : 0;
        const int32_t last = end < width ? end : width > first ? width : first;
        for (int32_t q = 0; q < p->planes.quads && kept > 0; ++q) {
            pg_copy(t + q * plane, t + q * plane + 8 * chunk, 64);
        }
        pg_winograd2d_border(p, t + 8 * kept, first - begin);
        pg_winograd2d_border(p, t + 8 * (kept + last - begin), end - last);
        if (last > first) {
            const void *at[4];
            for (int32_t i = 0; i < 4; ++i) {
                at[i] = rows[i] + first * place;
            }
            down(at, t + 8 * (kept + first - begin), last - first, &p->planes);
        }
        for (int32_t i = 0; i < p->row.top && saved != NULL; ++i) {
            pg_copy(saved + (i * width + first) * place, rows[i + 2] + first * place, (last - first) * place);
        }
        for (int32_t tile = 0; tile < chunk && ox + tile < p->out_w; tile += 4) {
            const int32_t pixels = p->out_w - ox - tile;
            int8_t *to = y + (ox + tile) * pixel;
            across(t + 8 * tile, operand, &p->planes);
            if (pixels >= 4 && both) {
                block(operand, p->stream, to, &p->out);
            } else {
                const int32_t bytes = (pixels < 4 ? pixels : 4) * pixel;
                pg_winograd_out beside = p->out;
                beside.row = 4 * pixel;
                for (int32_t i = 0; i < (both ? 2 : 1) && p->out.residual; ++i) {
                    pg_copy(spill + i * beside.row, to + i * p->out.row, bytes);
                }
                block(operand, p->stream, spill, &beside);
                for (int32_t i = 0; i < (both ? 2 : 1); ++i) {
                    pg_copy(to + i * p->out.row, spill + i * beside.row, bytes);
                }
            }
        }
    }
}

/* The scratch after what a pair of rows needs. */
PG_INLINE int8_t *pg_winograd2d_rows(const pg_winograd_params *p, void *scratch) {
    const bool spills = p->out_w % 4 > 0 || p->out_h % 2 > 0;
    const int32_t spill = spills ? 8 * p->out.pixel : 0;
    return (int8_t *)scratch + p->planes.quads * (p->planes.bytes + 256) + (spill + 3) / 4 * 4;
}

/* A whole map. Scratch, after what a pair needs: four padded copies of rows, two of them kept from the pair
 * before; or, where rows are read where they lie, a row of padding and, for y over x, p->row.top rows. */
PG_KERNEL void pg_winograd2d_map(const pg_winograd_params *p, const void *x, void *to, void *scratch,
                                 pg_winograd_tiles *block, pg_winograd_down *down,
                                 pg_winograd_across *across) {
    const pg_winograd_rows *row = &p->row;
    const int32_t pitch = (p->columns > 0 ? p->columns : row->width) * row->wide * row->bytes;
    int8_t *memory = pg_winograd2d_rows(p, scratch);
    int8_t *saved = p->columns == 0 && !p->out.residual && x == to ? memory + pitch : NULL;
    int8_t *y = (int8_t *)to;
    int32_t next = 0;
    pg_fill(memory, row->zero_point, (p->columns > 0 ? 4 : 1) * pitch / row->bytes, row->bytes == 2);
    for (int32_t oy = 0; oy < p->out_h; oy += 2) {
        const int8_t *rows[4];
        for (; next < oy + 4 && p->columns > 0; ++next) {
            pg_winograd_row(row, (const int8_t *)x, next, memory + next % 4 * pitch);
        }
        for (int32_t i = 0; i < 4; ++i) {
            const int32_t r = oy + i - row->top;
            if (p->columns > 0) {
                rows[i] = memory + (oy + i) % 4 * pitch;
            } else if (r < 0 || r >= row->height) {
                rows[i] = memory;
            } else if (saved != NULL && i < row->top) {
                rows[i] = saved + i * pitch;
            } else {
                rows[i] = (const int8_t *)x + r * pitch;
            }
        }
        pg_winograd2d_pair(p, rows, p->columns > 0 ? p->columns : row->width, p->columns > 0 ? 0 : row->left,
                           saved, y, oy + 1 < p->out_h, scratch, block, down, across);
        y += 2 * p->out.row;
    }
}

/* Two rows of a streamed segment: rows is an array of four pointers to rows of x's type. */
PG_KERNEL void pg_winograd2d_map_row(const pg_winograd_params *p, const void *rows, void *y, void *scratch,
                                     pg_winograd_tiles *block, pg_winograd_down *down,
                                     pg_winograd_across *across) {
    const bool wide = p->row.bytes == 2;
    const int32_t area = p->columns * p->row.wide;
    int8_t *memory = pg_winograd2d_rows(p, scratch);
    const int8_t *window[4];
    if (area > 0) {
        pg_winograd_sides(p, memory, 4);
    }
    for (int32_t i = 0; i < 4; ++i) {
        window[i] = (const int8_t *)pg_window_streamed_row(rows, i, wide);
        if (area > 0) {
            int8_t *copy = memory + i * area * p->row.bytes;
            pg_winograd_copy(&p->row, window[i], copy);
            window[i] = copy;
        }
    }
    pg_winograd2d_pair(p, window, area > 0 ? p->columns : p->row.width, area > 0 ? 0 : p->row.left, NULL,
                       (int8_t *)y, true, scratch, block, down, across);
}

/* One output row from the transformed rows under it; spill holds the outputs of two tiles. */
PG_KERNEL void pg_winograd_line(const pg_winograd_params *p, const uint32_t **window, int8_t *y,
                                int8_t *spill, pg_winograd_rows_tiles *block) {
    const int32_t pixel = p->out.pixel;
    for (int32_t left = p->out_w; left > 0; left -= 4) {
        if (left >= 4) {
            block(window, p->stream, y, &p->out);
            y += 4 * pixel;
        } else {
            block(window, p->stream, spill, &p->out);
            memcpy(y, spill, (size_t)(left * pixel));
        }
        for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
            window[ky] += p->parts * p->row.wide;
        }
    }
}

/* A convolution of kernel height up to 3 whose rows are transformed one by one. Transformed rows are kept in
 * a ring of kernel_h: an input row is read once, before the output row under it is written, so y may lie over
 * x where its rows are no longer. Scratch: a padded row, the ring, outputs of two tiles. */
PG_KERNEL void pg_winograd_rows_map(const pg_winograd_params *p, const void *x, void *to, void *scratch,
                                    pg_winograd_rows_tiles *block, pg_winograd_along *along) {
    const int32_t kernel = p->kernel_h;
    const int32_t words = (p->out_w + 3) / 4 * p->parts * p->row.wide;
    int8_t *padded = (int8_t *)scratch;
    uint32_t *ring = (uint32_t *)scratch + p->columns * p->row.wide * p->row.bytes / 4;
    int8_t *y = (int8_t *)to;
    int32_t next = 0;
    pg_fill(padded, p->row.zero_point, p->columns * p->row.wide, p->row.bytes == 2);
    for (int32_t oy = 0; oy < p->out_h; ++oy) {
        const uint32_t *window[3];
        for (; next < oy * p->stride_h + kernel; ++next) {
            pg_winograd_row(&p->row, (const int8_t *)x, next, padded);
            along(padded, ring + next % kernel * words);
        }
        for (int32_t ky = 0; ky < kernel; ++ky) {
            window[ky] = ring + (oy * p->stride_h + ky) % kernel * words;
        }
        pg_winograd_line(p, window, y, (int8_t *)(ring + kernel * words), block);
        y += p->out.row;
    }
}

/* One row of a streamed segment: rows is an array of kernel_h pointers to rows of x's type. */
PG_KERNEL void pg_winograd_rows_map_row(const pg_winograd_params *p, const void *rows, void *y, void *scratch,
                                        pg_winograd_rows_tiles *block, pg_winograd_along *along) {
    const int32_t words = (p->out_w + 3) / 4 * p->parts * p->row.wide;
    int8_t *padded = (int8_t *)scratch;
    uint32_t *ring = (uint32_t *)scratch + p->columns * p->row.wide * p->row.bytes / 4;
    const bool wide = p->row.bytes == 2;
    const uint32_t *window[3];
    pg_winograd_sides(p, padded, 1);
    for (int32_t ky = 0; ky < p->kernel_h; ++ky) {
        window[ky] = ring + ky * words;
        pg_winograd_copy(&p->row, (const int8_t *)pg_window_streamed_row(rows, ky, wide), padded);
        along(padded, ring + ky * words);
    }
    pg_winograd_line(p, window, (int8_t *)y, (int8_t *)(ring + p->kernel_h * words), block);
}

#endif /* PG_WINOGRAD_H */
