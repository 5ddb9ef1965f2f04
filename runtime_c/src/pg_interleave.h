/* SPDX-License-Identifier: MIT-0
 *
 * The last step of a transposed convolution that was computed phase by phase: a map whose channels are
 * [phase_y][phase_x][channel] becomes one that is phases_y times as high and phases_x times as wide, its
 * borders cut off.
 */
#ifndef PG_INTERLEAVE_H
#define PG_INTERLEAVE_H

#include "projgen_runtime.h"

/* map: map_w pixels a row, each phases_y * phases_x * pixel bytes; y: out_h rows of out_w pixels of pixel
 * bytes, from row top and column left of the interleaved map on. */
PG_INLINE void pg_interleave(const int8_t *map, int8_t *y, int32_t map_w, int32_t phases_y, int32_t phases_x,
                             int32_t pixel, int32_t top, int32_t left, int32_t out_h, int32_t out_w) {
    const int32_t run = phases_x * pixel; /* bytes that stay side by side */
    const int32_t row = map_w * phases_y * run;
    for (int32_t fy = top; fy < top + out_h; ++fy) {
        const int8_t *from = map + fy / phases_y * row + fy % phases_y * run;
        int32_t skipped = left * pixel;
        int32_t rest = out_w * pixel;
        while (rest > 0) {
            const int32_t bytes = run - skipped < rest ? run - skipped : rest;
            memcpy(y, from + skipped, (size_t)bytes);
            y += bytes;
            rest -= bytes;
            skipped = 0;
            from += phases_y * run;
        }
    }
}

#endif /* PG_INTERLEAVE_H */
