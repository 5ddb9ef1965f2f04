/* SPDX-License-Identifier: MIT-0
 *
 * Geometry of a sliding window, shared by the convolutions: which pixels a window covers, and a copy of them
 * with the padding filled in, so that the inner loops need no border checks.
 */
#ifndef PG_WINDOW_H
#define PG_WINDOW_H

#include "projgen_runtime.h"

typedef struct {
    int32_t in_h, in_w, in_c;
    int32_t out_h, out_w, out_c;
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t dilation_h, dilation_w;
    int32_t pad_top, pad_left;
    int32_t zero_point; /* of the input: what padding reads as */
} pg_window;

/* Input row ky of output row oy in a whole map, or NULL where the window hangs over the top or bottom. */
PG_INLINE const void *pg_window_row(const pg_window *g, const void *x, int32_t oy, int32_t ky, bool wide) {
    const int32_t iy = oy * g->stride_h - g->pad_top + ky * g->dilation_h;
    return iy >= 0 && iy < g->in_h ? pg_at(x, iy * g->in_w * g->in_c, wide) : NULL;
}

/* Input row ky of a streamed segment: rows is an array of kernel_h pointers to rows of x's type. */
PG_INLINE const void *pg_window_streamed_row(const void *rows, int32_t ky, bool wide) {
    if (wide) {
        return ((const int16_t *const *)rows)[ky];
    }
    return ((const int8_t *const *)rows)[ky];
}

/* Row ky of the window of output row oy: from rows where they are given, else from the whole map x. */
PG_INLINE const void *pg_window_source(const pg_window *g, const void *rows, const void *x, int32_t oy,
                                       int32_t ky, bool wide) {
    return rows != NULL ? pg_window_streamed_row(rows, ky, wide) : pg_window_row(g, x, oy, ky, wide);
}

/* Copies kernel_w pixels of one input row (NULL: padding), from column ix on, channels first .. first + count
 * - 1, to patch; returns the end of the copy. */
PG_INLINE void *pg_window_copy(const pg_window *g, const void *row, int32_t ix, int32_t first, int32_t count,
                               void *patch, bool wide) {
    const size_t bytes = (size_t)count * (wide ? 2u : 1u);
    if (row == NULL) {
        pg_fill(patch, g->zero_point, g->kernel_w * count, wide);
        return pg_at_mutable(patch, g->kernel_w * count, wide);
    }
    if (count == g->in_c && g->dilation_w == 1 && ix >= 0 && ix + g->kernel_w <= g->in_w) {
        /* Whole pixels side by side. */
        memcpy(patch, pg_at(row, ix * count, wide), (size_t)g->kernel_w * bytes);
        return pg_at_mutable(patch, g->kernel_w * count, wide);
    }
    for (int32_t kx = 0; kx < g->kernel_w; ++kx) {
        if (ix >= 0 && ix < g->in_w) {
            memcpy(patch, pg_at(row, ix * g->in_c + first, wide), bytes);
        } else {
            pg_fill(patch, g->zero_point, count, wide);
        }
        patch = pg_at_mutable(patch, count, wide);
        ix += g->dilation_w;
    }
    return patch;
}

#endif /* PG_WINDOW_H */
