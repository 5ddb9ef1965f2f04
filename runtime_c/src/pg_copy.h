/* SPDX-License-Identifier: MIT-0
 *
 * Copies between rows of a map, which need not be aligned.
 */
#ifndef PG_COPY_H
#define PG_COPY_H

#include "projgen_runtime.h"

/* Copies count bytes between places that need not be aligned; to may lie in what is copied if it is below
 * from. */
#if PG_HAS_THUMB2
PG_NAKED void pg_copy(PG_UNUSED void *to, PG_UNUSED const void *from, PG_UNUSED int32_t count) {
    /* r0 to, r1 from, r2 bytes left. */
    __asm volatile("push {r4-r6, lr}\n"
                   "subs r2, r2, #16\n"
                   "blt 2f\n"
                   "1: ldr r3, [r1], #4\n"
                   "ldr r4, [r1], #4\n"
                   "ldr r5, [r1], #4\n"
                   "ldr r6, [r1], #4\n"
                   "str r3, [r0], #4\n"
                   "str r4, [r0], #4\n"
                   "str r5, [r0], #4\n"
                   "str r6, [r0], #4\n"
                   "subs r2, r2, #16\n"
                   "bge 1b\n"
                   "2: adds r2, r2, #12\n"
                   "blt 4f\n"
                   "3: ldr r3, [r1], #4\n"
                   "str r3, [r0], #4\n"
                   "subs r2, r2, #4\n"
                   "bge 3b\n"
                   "4: adds r2, r2, #4\n"
                   "beq 6f\n"
                   "5: ldrb r3, [r1], #1\n"
                   "strb r3, [r0], #1\n"
                   "subs r2, r2, #1\n"
                   "bne 5b\n"
                   "6: pop {r4-r6, pc}\n");
}
#else
PG_KERNEL void pg_copy(void *to, const void *from, int32_t count) {
    for (int32_t i = 0; i < count; ++i) {
        ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    }
}
#endif

#endif /* PG_COPY_H */
