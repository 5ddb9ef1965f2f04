/* SPDX-License-Identifier: MIT-0
 *
 * One input of a concatenation: its runs of bytes are spread over y with a stride. Emitted code calls it per
 * input.
 */
#ifndef PG_CONCAT_H
#define PG_CONCAT_H

#include "projgen_runtime.h"

/* Copies outer runs of run bytes from x to y + first, one every block bytes. */
PG_KERNEL void pg_concat_part(const void *x, void *y, int32_t outer, int32_t run, int32_t first,
                              int32_t block) {
    const uint8_t *from = (const uint8_t *)x;
    uint8_t *to = (uint8_t *)y;
    for (int32_t o = 0; o < outer; ++o) {
        memcpy(to + first, from, (size_t)run);
        from += run;
        to += block;
    }
}

#endif /* PG_CONCAT_H */
