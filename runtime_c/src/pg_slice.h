/* SPDX-License-Identifier: MIT-0
 *
 * Every step-th part along one axis: from each of outer blocks, count runs of bytes. Also select and plain
 * copies.
 */
#ifndef PG_SLICE_H
#define PG_SLICE_H

#include "projgen_runtime.h"

typedef struct {
    int32_t outer; /* blocks */
    int32_t block; /* bytes of a block of x */
    int32_t first; /* byte of the first run in its block */
    int32_t step;  /* bytes from one run to the next */
    int32_t count; /* runs taken from a block */
    int32_t run;   /* bytes of a run */
} pg_slice_params;

PG_KERNEL void pg_slice(const pg_slice_params *p, const void *x, void *y) {
    const uint8_t *from = (const uint8_t *)x;
    uint8_t *to = (uint8_t *)y;
    for (int32_t o = 0; o < p->outer; ++o) {
        int32_t at = o * p->block + p->first;
        for (int32_t i = 0; i < p->count; ++i) {
            memcpy(to, from + at, (size_t)p->run);
            to += p->run;
            at += p->step;
        }
    }
}

#endif /* PG_SLICE_H */
