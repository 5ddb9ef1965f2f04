/* SPDX-License-Identifier: MIT-0
 *
 * y = table[x + 128] for every element on cores with Thumb-2 instructions: any int8 -> int8 function. y may
 * be x.
 */
#ifndef PG_LUT_THUMB2_H
#define PG_LUT_THUMB2_H

#include "projgen_runtime.h"

typedef struct {
    const int8_t *table; /* [256] */
    int32_t count;
} pg_lut_thumb2_params;

#if PG_HAS_THUMB2
PG_NAKED void pg_lut_thumb2(PG_UNUSED const pg_lut_thumb2_params *p, PG_UNUSED const int8_t *x,
                            PG_UNUSED int8_t *y) {
    /* r0 middle of the table, r1 x, r2 y, r3 elements left. 15 instructions per 4 elements: a word of x is
     * four signed indices, and the four values are a word of y. */
    __asm volatile("push {r4-r7, lr}\n"
                   "ldrd r0, r3, [r0]\n"
                   "adds r0, r0, #128\n"
                   "subs r3, r3, #4\n"
                   "blt 2f\n"
                   "1: ldr r7, [r1], #4\n"
                   "sxtb r4, r7\n"
                   "sxtb r5, r7, ror #8\n"
                   "sxtb r6, r7, ror #16\n"
                   "asrs r7, r7, #24\n"
                   "ldrb r4, [r0, r4]\n"
                   "ldrb r5, [r0, r5]\n"
                   "ldrb r6, [r0, r6]\n"
                   "ldrb r7, [r0, r7]\n"
                   "orr r4, r4, r5, lsl #8\n"
                   "orr r6, r6, r7, lsl #8\n"
                   "orr r4, r4, r6, lsl #16\n"
                   "str r4, [r2], #4\n"
                   "subs r3, r3, #4\n"
                   "bge 1b\n"
                   "2: adds r3, r3, #4\n"
                   "beq 4f\n"
                   "3: ldrsb r4, [r1], #1\n"
                   "ldrb r4, [r0, r4]\n"
                   "strb r4, [r2], #1\n"
                   "subs r3, r3, #1\n"
                   "bne 3b\n"
                   "4: pop {r4-r7, pc}\n");
}
#else
PG_KERNEL void pg_lut_thumb2(const pg_lut_thumb2_params *p, const int8_t *x, int8_t *y) {
    for (int32_t i = 0; i < p->count; ++i) {
        y[i] = p->table[x[i] + 128];
    }
}
#endif

#endif /* PG_LUT_THUMB2_H */
