/* SPDX-License-Identifier: MIT-0
 *
 * The rows under the windows of one output row, copied with their padding, so that windows are gathered
 * without border checks; and what gathers them.
 */
#ifndef PG_WINDOW_ROWS_H
#define PG_WINDOW_ROWS_H

#include "pg_copy.h"
#include "pg_window.h"

/* A block: copies a window whose rows lie step bytes apart to one place. */
typedef void pg_window_gather(const void *from, void *to, int32_t step);

/* Whether row oy's windows lie inside the map as far as its height is concerned. */
PG_INLINE bool pg_window_row_inside(const pg_window *g, int32_t oy) {
    const int32_t iy = oy * g->stride_h - g->pad_top;
    return iy >= 0 && iy + (g->kernel_h - 1) * g->dilation_h < g->in_h;
}

/* The rows under the windows of output row oy in ring, pitch elements apart, from the map x or, where rows is
 * given, from kernel_h pointers. The padding beside them is filled already. shared: ring holds the rows under
 * the last output row, and those that both have in common are moved up. */
PG_INLINE void pg_window_rows(const pg_window *g, int32_t pitch, const void *rows, const void *x, bool wide,
                              int32_t oy, bool shared, void *ring) {
    const int32_t length = g->in_w * g->in_c;
    const int32_t bytes = wide ? 2 : 1;
    int32_t row = 0;
    if (shared && g->kernel_h > g->stride_h) {
        row = g->kernel_h - g->stride_h;
        pg_copy(ring, pg_at(ring, g->stride_h * pitch, wide), row * pitch * bytes);
    }
    void *to = pg_at_mutable(ring, row * pitch + g->pad_left * g->in_c, wide);
    for (; row < g->kernel_h; ++row) {
        const void *from = pg_window_source(g, rows, x, oy, row, wide);
        if (from != NULL) {
            pg_copy(to, from, length * bytes);
        } else {
            pg_fill(to, g->zero_point, length, wide);
        }
        to = pg_at_mutable(to, pitch, wide);
    }
}

#endif /* PG_WINDOW_ROWS_H */
