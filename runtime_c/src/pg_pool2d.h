/* SPDX-License-Identifier: MIT-0
 *
 * Geometry of the poolings: the part of each window that lies on the map.
 */
#ifndef PG_POOL2D_H
#define PG_POOL2D_H

#include "projgen_runtime.h"

typedef struct {
    int32_t in_h, in_w;
    int32_t out_h, out_w;
    int32_t channels;
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t pad_top, pad_left;
} pg_pool2d_window;

/* Valid taps along one axis: first .. first + count - 1. */
typedef struct {
    int32_t first;
    int32_t count;
} pg_pool2d_span;

/* Taps of output position o along an axis of size in. */
PG_INLINE pg_pool2d_span pg_pool2d_taps(int32_t o, int32_t stride, int32_t pad, int32_t kernel, int32_t in) {
    const int32_t start = o * stride - pad;
    const int32_t first = start > 0 ? start : 0;
    const int32_t end = start + kernel < in ? start + kernel : in;
    const pg_pool2d_span span = {first, end - first};
    return span;
}

#endif /* PG_POOL2D_H */
