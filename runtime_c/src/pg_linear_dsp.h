/* SPDX-License-Identifier: MIT-0
 *
 * What the fully connected kernels for cores with DSP instructions share: parameters, and the operand: int16
 * in quads of four values, the last one filled up with zeros.
 */
#ifndef PG_LINEAR_DSP_H
#define PG_LINEAR_DSP_H

#include "projgen_runtime.h"

typedef struct {
    const uint32_t *stream; /* start values, weights and multipliers in reading order */
    int32_t rows;
    int32_t inputs;
    int32_t quads; /* (inputs + 3) / 4 */
    int32_t outputs;
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
} pg_linear_dsp_params;

/* Widens count int8 values to int16, in quads (c0, c2), (c1, c3) as SXTB16 yields them; x may be unaligned,
 * to is a multiple of 4 bytes. */
#if PG_HAS_DSP
PG_NAKED void pg_linear_dsp_widen(PG_UNUSED const int8_t *x, PG_UNUSED int16_t *to, PG_UNUSED int32_t count) {
    /* r0 x, r1 to, r2 values left; r3-r10 two words a quad. 15 instructions per 16 values. */
    __asm volatile("push {r4-r10, lr}\n"
                   "subs r2, r2, #16\n"
                   "blt 2f\n"
                   "1: ldr r4, [r0], #4\n"
                   "ldr r6, [r0], #4\n"
                   "ldr r8, [r0], #4\n"
                   "ldr r10, [r0], #4\n"
                   "sxtb16 r3, r4\n"
                   "sxtb16 r4, r4, ror #8\n"
                   "sxtb16 r5, r6\n"
                   "sxtb16 r6, r6, ror #8\n"
                   "sxtb16 r7, r8\n"
                   "sxtb16 r8, r8, ror #8\n"
                   "sxtb16 r9, r10\n"
                   "sxtb16 r10, r10, ror #8\n"
                   "stmia r1!, {r3-r10}\n"
                   "subs r2, r2, #16\n"
                   "bge 1b\n"
                   "2: adds r2, r2, #12\n" /* whole quads */
                   "blt 4f\n"
                   "3: ldr r4, [r0], #4\n"
                   "sxtb16 r3, r4\n"
                   "sxtb16 r4, r4, ror #8\n"
                   "stmia r1!, {r3, r4}\n"
                   "subs r2, r2, #4\n"
                   "bge 3b\n"
                   "4: adds r2, r2, #4\n" /* one to three single values */
                   "beq 5f\n"
                   "movs r4, #0\n"
                   "movs r5, #0\n"
                   "ldrsb r3, [r0]\n"
                   "cmp r2, #2\n"
                   "it ge\n"
                   "ldrsbge r4, [r0, #1]\n"
                   "it gt\n"
                   "ldrsbgt r5, [r0, #2]\n"
                   "pkhbt r3, r3, r5, lsl #16\n"
                   "uxth r4, r4\n"
                   "stmia r1!, {r3, r4}\n"
                   "5: pop {r4-r10, pc}\n");
}
#else
PG_KERNEL void pg_linear_dsp_widen(const int8_t *x, int16_t *to, int32_t count) {
    static const int32_t place[4] = {0, 2, 1, 3};
    const int32_t padded = (count + 3) / 4 * 4;
    for (int32_t k = 0; k < padded; ++k) {
        to[k / 4 * 4 + place[k % 4]] = k < count ? x[k] : (int16_t)0;
    }
}
#endif

/* Copies count int16 values and fills the last quad up with zeros. */
PG_KERNEL void pg_linear_dsp_copy(const int16_t *x, int16_t *to, int32_t count) {
    memcpy(to, x, (size_t)count * sizeof(int16_t));
    for (int32_t k = count; k % 4 != 0; ++k) {
        to[k] = 0;
    }
}

#endif /* PG_LINEAR_DSP_H */
