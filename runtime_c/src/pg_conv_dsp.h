/* SPDX-License-Identifier: MIT-0
 *
 * What the convolution kernels for cores with DSP instructions share: the operand of three pixels.
 */
#ifndef PG_CONV_DSP_H
#define PG_CONV_DSP_H

#include "pg_copy.h"

/* Arguments of the blocks that take three pixels through a matrix. */
typedef struct {
    int32_t quads;      /* of inputs: (inputs + 3) / 4 */
    int32_t outputs;    /* computed by one call */
    int32_t pixel;      /* bytes from one output pixel to the next */
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
    int32_t residual; /* 1: y holds what is to be added; else 0 */
} pg_conv_dsp_matrix;

/* A block: three pixels through a matrix. */
typedef void pg_conv_dsp_block(const uint32_t *x, const uint32_t *stream, void *y,
                               const pg_conv_dsp_matrix *p);

/* Halfword i of a word, as a signed number. */
PG_INLINE int32_t pg_conv_dsp_half(uint32_t word, int32_t i) {
    return (int16_t)(uint16_t)(word >> (16 * i) & 0xffffu);
}

/* Two halfwords as a word. */
PG_INLINE uint32_t pg_conv_dsp_word(int32_t low, int32_t high) {
    return ((uint32_t)low & 0xffffu) | (uint32_t)high << 16;
}

/* The operand of three int8 pixels, step bytes apart, count channels each: per quad of channels the words
 * (c0, c2) of the three pixels, then (c1, c3). Channels up to a whole quad read as 0. x may be unaligned. */
#if PG_HAS_DSP
PG_NAKED void pg_conv_dsp_widen(PG_UNUSED const int8_t *x, PG_UNUSED int32_t step, PG_UNUSED uint32_t *to,
                                PG_UNUSED int32_t count) {
    /* r0 x, r1 step, r2 to, r3 channels left, r4-r6 words (c0, c2), r7-r9 (c1, c3), r12 one pixel.
     * 10 instructions per 12 values. */
    __asm volatile("push {r4-r9, lr}\n"
                   "subs r3, r3, #8\n"
                   "blt 2f\n"
                   "1: ldr r6, [r0, r1, lsl #1]\n"
                   "ldr r5, [r0, r1]\n"
                   "ldr r4, [r0], #4\n"
                   "sxtb16 r7, r4, ror #8\n"
                   "sxtb16 r8, r5, ror #8\n"
                   "sxtb16 r9, r6, ror #8\n"
                   "sxtb16 r4, r4\n"
                   "sxtb16 r5, r5\n"
                   "sxtb16 r6, r6\n"
                   "stmia r2!, {r4-r9}\n"
                   "ldr r6, [r0, r1, lsl #1]\n"
                   "ldr r5, [r0, r1]\n"
                   "ldr r4, [r0], #4\n"
                   "sxtb16 r7, r4, ror #8\n"
                   "sxtb16 r8, r5, ror #8\n"
                   "sxtb16 r9, r6, ror #8\n"
                   "sxtb16 r4, r4\n"
                   "sxtb16 r5, r5\n"
                   "sxtb16 r6, r6\n"
                   "stmia r2!, {r4-r9}\n"
                   "subs r3, r3, #8\n"
                   "bge 1b\n"
                   "2: adds r3, r3, #4\n" /* one more whole quad */
                   "blt 3f\n"
                   "ldr r6, [r0, r1, lsl #1]\n"
                   "ldr r5, [r0, r1]\n"
                   "ldr r4, [r0], #4\n"
                   "sxtb16 r7, r4, ror #8\n"
                   "sxtb16 r8, r5, ror #8\n"
                   "sxtb16 r9, r6, ror #8\n"
                   "sxtb16 r4, r4\n"
                   "sxtb16 r5, r5\n"
                   "sxtb16 r6, r6\n"
                   "stmia r2!, {r4-r9}\n"
                   "subs r3, r3, #4\n"
                   "3: adds r3, r3, #4\n" /* one to three channels */
                   "beq 5f\n"
                   "movs r7, #3\n"
                   "4: ldrsb r4, [r0]\n"
                   "movs r5, #0\n"
                   "movs r6, #0\n"
                   "cmp r3, #2\n"
                   "it ge\n"
                   "ldrsbge r5, [r0, #1]\n"
                   "it gt\n"
                   "ldrsbgt r6, [r0, #2]\n"
                   "pkhbt r4, r4, r6, lsl #16\n"
                   "uxth r5, r5\n"
                   "str r5, [r2, #12]\n"
                   "str r4, [r2], #4\n"
                   "add r0, r0, r1\n"
                   "subs r7, r7, #1\n"
                   "bne 4b\n"
                   "5: pop {r4-r9, pc}\n");
}
#else
PG_KERNEL void pg_conv_dsp_widen(const int8_t *x, int32_t step, uint32_t *to, int32_t count) {
    for (int32_t k = 0; k < count; k += 4) {
        for (int32_t i = 0; i < 3; ++i) {
            int32_t v[4] = {0, 0, 0, 0};
            for (int32_t j = 0; j < 4 && k + j < count; ++j) {
                v[j] = x[i * step + k + j];
            }
            to[i] = pg_conv_dsp_word(v[0], v[2]);
            to[3 + i] = pg_conv_dsp_word(v[1], v[3]);
        }
        to += 6;
    }
}
#endif

/* The operand of three int16 pixels, step elements apart: words (c0, c1) of the three, then (c2, c3). */
#if PG_HAS_DSP
PG_NAKED void pg_conv_dsp_pack(PG_UNUSED const int16_t *x, PG_UNUSED int32_t step, PG_UNUSED uint32_t *to,
                               PG_UNUSED int32_t count) {
    /* r0 x, r1 step in bytes, r2 to, r3 channels left, r4-r6 words (c0, c1), r7-r9 (c2, c3). */
    __asm volatile("push {r4-r9, lr}\n"
                   "lsls r1, r1, #1\n"
                   "subs r3, r3, #4\n"
                   "blt 2f\n"
                   "1: ldr r6, [r0, r1, lsl #1]\n"
                   "ldr r5, [r0, r1]\n"
                   "ldr r4, [r0], #4\n"
                   "ldr r9, [r0, r1, lsl #1]\n"
                   "ldr r8, [r0, r1]\n"
                   "ldr r7, [r0], #4\n"
                   "stmia r2!, {r4-r9}\n"
                   "subs r3, r3, #4\n"
                   "bge 1b\n"
                   "2: adds r3, r3, #4\n" /* one to three channels */
                   "beq 4f\n"
                   "movs r7, #3\n"
                   "3: ldrh r4, [r0]\n"
                   "movs r5, #0\n"
                   "cmp r3, #2\n"
                   "it ge\n"
                   "ldrge r4, [r0]\n"
                   "it gt\n"
                   "ldrhgt r5, [r0, #4]\n"
                   "str r5, [r2, #12]\n"
                   "str r4, [r2], #4\n"
                   "add r0, r0, r1\n"
                   "subs r7, r7, #1\n"
                   "bne 3b\n"
                   "4: pop {r4-r9, pc}\n");
}
#else
PG_KERNEL void pg_conv_dsp_pack(const int16_t *x, int32_t step, uint32_t *to, int32_t count) {
    for (int32_t k = 0; k < count; k += 4) {
        for (int32_t i = 0; i < 3; ++i) {
            int32_t v[4] = {0, 0, 0, 0};
            for (int32_t j = 0; j < 4 && k + j < count; ++j) {
                v[j] = x[i * step + k + j];
            }
            to[i] = pg_conv_dsp_word(v[0], v[1]);
            to[3 + i] = pg_conv_dsp_word(v[2], v[3]);
        }
        to += 6;
    }
}
#endif

/* The operand of three pixels of either type, step elements apart. */
PG_INLINE void pg_conv_dsp_operand(const void *x, bool wide, int32_t step, uint32_t *to, int32_t count) {
    if (wide) {
        pg_conv_dsp_pack((const int16_t *)x, step, to, count);
    } else {
        pg_conv_dsp_widen((const int8_t *)x, step, to, count);
    }
}

/* The last one or two pixels, left, of outputs with other maps' pixels between them: computed in results,
 * side by side, bytes each, and copied one by one. */
PG_KERNEL void pg_conv_dsp_apart(const pg_conv_dsp_matrix *p, const uint32_t *operand, const uint32_t *stream,
                                 int32_t left, int32_t bytes, void *results, void *y,
                                 pg_conv_dsp_block *block) {
    pg_conv_dsp_matrix matrix = *p;
    matrix.pixel = bytes;
    block(operand, stream, results, &matrix);
    for (int32_t i = 0; i < left; ++i) {
        pg_copy((int8_t *)y + i * p->pixel, (const int8_t *)results + i * bytes, bytes);
    }
}

#endif /* PG_CONV_DSP_H */
