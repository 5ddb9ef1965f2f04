/* SPDX-License-Identifier: MIT-0
 *
 * y = table[x as an unsigned byte] for every element on cores with MVE (Helium): any int8 -> int8 function.
 * y may be x.
 */
#ifndef PG_LUT_MVE_H
#define PG_LUT_MVE_H

#include "projgen_runtime.h"

typedef struct {
    const int8_t *table; /* [256]: of 0 .. 127, then of -128 .. -1 */
    int32_t count;
} pg_lut_mve_params;

#if PG_HAS_MVE
PG_NAKED void pg_lut_mve(PG_UNUSED const pg_lut_mve_params *p, PG_UNUSED const int8_t *x,
                         PG_UNUSED int8_t *y) {
    /* r0 table, r1 x, r2 y, r3 elements left. 4 instructions per 16 elements. */
    __asm volatile("push {r4, lr}\n"
                   "ldrd r0, r3, [r0]\n"
                   "wlstp.8 lr, r3, 2f\n"
                   "1: vldrb.u8 q0, [r1], #16\n"
                   "vldrb.u8 q1, [r0, q0]\n"
                   "vstrb.8 q1, [r2], #16\n"
                   "letp lr, 1b\n"
                   "2: pop {r4, pc}\n");
}
#else
PG_KERNEL void pg_lut_mve(const pg_lut_mve_params *p, const int8_t *x, int8_t *y) {
    for (int32_t i = 0; i < p->count; ++i) {
        y[i] = p->table[(uint8_t)x[i]];
    }
}
#endif

#endif /* PG_LUT_MVE_H */
