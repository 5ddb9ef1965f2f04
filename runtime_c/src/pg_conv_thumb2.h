/* SPDX-License-Identifier: MIT-0
 *
 * What the convolution kernels for Armv7-M cores without DSP instructions share: the operand of six pixels.
 *
 * Two pixels in a word: p = (a + 128) + 2^24 b holds the values a and b of one channel. A weight times p,
 * added to 64 bits, adds w (a + 128) and 2^24 w b: one product for two. The start value takes 128 times the
 * sum of the weights off again, so that the low 24 bits are the first sum as a signed number, exact while
 * |sum| < 2^23 (checked per row), and what is above, after the borrow, the second.
 */
#ifndef PG_CONV_THUMB2_H
#define PG_CONV_THUMB2_H

#include "pg_copy.h"

/* Arguments of the blocks that take six pixels through a matrix. */
typedef struct {
    int32_t quads;      /* of inputs: (inputs + 3) / 4 */
    int32_t outputs;    /* computed by one call */
    int32_t pixel;      /* bytes from one output pixel to the next */
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
} pg_conv_thumb2_matrix;

/* A block: six pixels through a matrix. */
typedef void pg_conv_thumb2_block(const uint32_t *x, const uint32_t *stream, void *y,
                                  const pg_conv_thumb2_matrix *p);

/* Two values of one channel as a word. */
PG_INLINE uint32_t pg_conv_thumb2_word(int32_t first, int32_t second) {
    return (uint32_t)(first + 128) | (uint32_t)second << 24;
}

/* The two sums in 64 bits. */
PG_INLINE int32_t pg_conv_thumb2_first(int64_t sums) {
    return (int32_t)((uint32_t)((uint64_t)sums & 0xffffffu) << 8) >> 8;
}

PG_INLINE int32_t pg_conv_thumb2_second(int64_t sums) {
    return (int32_t)((sums - pg_conv_thumb2_first(sums)) >> 24);
}

/* The operand of six pixels, step bytes apart, count channels each: per channel the words of pixels 0 and 1,
 * 2 and 3, 4 and 5. x may be unaligned. */
#if PG_HAS_THUMB2
PG_NAKED void pg_conv_thumb2_pack(PG_UNUSED const int8_t *x, PG_UNUSED int32_t step, PG_UNUSED uint32_t *to,
                                  PG_UNUSED int32_t count) {
    /* r0 pixels 0 to 2, r12 pixels 3 to 5, r1 step, r2 to, r3 channels left, r4-r9 four channels of each
     * pixel, r10 r11 lr words. 48 instructions per 24 values. */
    __asm volatile("push {r4-r11, lr}\n"
                   "add r12, r0, r1\n"
                   "add r12, r12, r1, lsl #1\n"
                   "subs r3, r3, #4\n"
                   "blt 2f\n"
                   "1: ldr r5, [r0, r1]\n"
                   "ldr r6, [r0, r1, lsl #1]\n"
                   "ldr r4, [r0], #4\n"
                   "ldr r8, [r12, r1]\n"
                   "ldr r9, [r12, r1, lsl #1]\n"
                   "ldr r7, [r12], #4\n"
                   "eor r4, r4, #0x80808080\n" /* bytes plus 128 */
                   "eor r6, r6, #0x80808080\n"
                   "eor r8, r8, #0x80808080\n"
                   "and r10, r5, #0xff000000\n" /* the last of the four channels */
                   "and r11, r7, #0xff000000\n"
                   "and lr, r9, #0xff000000\n"
                   "orr r10, r10, r4, lsr #24\n"
                   "orr r11, r11, r6, lsr #24\n"
                   "orr lr, lr, r8, lsr #24\n"
                   "str r10, [r2, #36]\n"
                   "str r11, [r2, #40]\n"
                   "str lr, [r2, #44]\n"
                   "uxtb r10, r4\n"
                   "uxtb r11, r6\n"
                   "uxtb lr, r8\n"
                   "orr r10, r10, r5, lsl #24\n"
                   "orr r11, r11, r7, lsl #24\n"
                   "orr lr, lr, r9, lsl #24\n"
                   "stmia r2!, {r10, r11, lr}\n"
                   "uxtb r10, r4, ror #8\n"
                   "uxtb r11, r6, ror #8\n"
                   "uxtb lr, r8, ror #8\n"
                   "lsr r5, r5, #8\n"
                   "lsr r7, r7, #8\n"
                   "lsr r9, r9, #8\n"
                   "orr r10, r10, r5, lsl #24\n"
                   "orr r11, r11, r7, lsl #24\n"
                   "orr lr, lr, r9, lsl #24\n"
                   "stmia r2!, {r10, r11, lr}\n"
                   "uxtb r10, r4, ror #16\n"
                   "uxtb r11, r6, ror #16\n"
                   "uxtb lr, r8, ror #16\n"
                   "lsr r5, r5, #8\n"
                   "lsr r7, r7, #8\n"
                   "lsr r9, r9, #8\n"
                   "orr r10, r10, r5, lsl #24\n"
                   "orr r11, r11, r7, lsl #24\n"
                   "orr lr, lr, r9, lsl #24\n"
                   "stmia r2!, {r10, r11, lr}\n"
                   "add r2, r2, #12\n"
                   "subs r3, r3, #4\n"
                   "bge 1b\n"
                   "2: adds r3, r3, #4\n" /* one to three channels */
                   "beq 4f\n"
                   "3: ldrsb r5, [r0, r1]\n"
                   "ldrsb r6, [r0, r1, lsl #1]\n"
                   "ldrsb r4, [r0], #1\n"
                   "ldrsb r8, [r12, r1]\n"
                   "ldrsb r9, [r12, r1, lsl #1]\n"
                   "ldrsb r7, [r12], #1\n"
                   "add r4, r4, #128\n"
                   "add r6, r6, #128\n"
                   "add r8, r8, #128\n"
                   "orr r4, r4, r5, lsl #24\n"
                   "orr r6, r6, r7, lsl #24\n"
                   "orr r8, r8, r9, lsl #24\n"
                   "stmia r2!, {r4, r6, r8}\n"
                   "subs r3, r3, #1\n"
                   "bne 3b\n"
                   "4: pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_conv_thumb2_pack(const int8_t *x, int32_t step, uint32_t *to, int32_t count) {
    for (int32_t k = 0; k < count; ++k) {
        for (int32_t i = 0; i < 6; i += 2) {
            *to++ = pg_conv_thumb2_word(x[i * step + k], x[(i + 1) * step + k]);
        }
    }
}
#endif

#endif /* PG_CONV_THUMB2_H */
