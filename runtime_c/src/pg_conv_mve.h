/* SPDX-License-Identifier: MIT-0
 *
 * What the convolution kernels for cores with MVE (Helium) share: arguments of their blocks, and copies from
 * maps, which need not be aligned, to lines in scratch, which are.
 */
#ifndef PG_CONV_MVE_H
#define PG_CONV_MVE_H

#include "projgen_runtime.h"

/* Arguments of the blocks of two outputs x up to four pixels. */
typedef struct {
    int32_t span;       /* bytes of one pixel's outputs that a block computes */
    int32_t zero_point; /* of the output */
    int16_t low;        /* smallest and largest output; read where they are not the type's */
    int16_t high;
    uint32_t pixel0; /* bytes from y to the first pixel's two outputs, the second one's in the high half */
    uint32_t pixel1; /* the same of the other pixels; those that a block does not have are its last one */
    uint32_t pixel2;
    uint32_t pixel3;
    int32_t line_step; /* bytes from one block's pixels to the next one's in a line */
    int32_t y_step;    /* bytes from the end of one block's outputs to the next one's */
} pg_conv_mve_block;

/* A block: two outputs of a few pixels after the other, blocks times as many pixels; see the blocks
 * themselves. lines are rows of the kernel; residual lies like y and may be y, as it is where none is read.
 */
typedef void pg_conv_mve_run(const void *const *lines, const uint32_t *stream, void *y,
                             const pg_conv_mve_block *p, int32_t blocks, const int8_t *residual);

/* Copies count bytes; neither place need be aligned. */
#if PG_HAS_MVE
PG_NAKED void pg_conv_mve_copy(PG_UNUSED void *to, PG_UNUSED const void *from, PG_UNUSED int32_t count) {
    /* r0 to, r1 from, r2 bytes left, r3 blocks of 64 bytes. 9 instructions per 64 bytes. */
    __asm volatile("push {r4, lr}\n"
                   "lsrs r3, r2, #6\n"
                   "and r2, r2, #63\n"
                   "wls lr, r3, 2f\n"
                   "1: vldrb.u8 q0, [r1], #16\n"
                   "vldrb.u8 q1, [r1], #16\n"
                   "vldrb.u8 q2, [r1], #16\n"
                   "vldrb.u8 q3, [r1], #16\n"
                   "vstrb.8 q0, [r0], #16\n"
                   "vstrb.8 q1, [r0], #16\n"
                   "vstrb.8 q2, [r0], #16\n"
                   "vstrb.8 q3, [r0], #16\n"
                   "le lr, 1b\n"
                   "2: wlstp.8 lr, r2, 4f\n"
                   "3: vldrb.u8 q0, [r1], #16\n"
                   "vstrb.8 q0, [r0], #16\n"
                   "letp lr, 3b\n"
                   "4: pop {r4, pc}\n");
}
#else
PG_KERNEL void pg_conv_mve_copy(void *to, const void *from, int32_t count) {
    for (int32_t i = 0; i < count; ++i) {
        ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    }
}
#endif

/* count bytes of a repeated word. */
#if PG_HAS_MVE
PG_NAKED void pg_conv_mve_fill(PG_UNUSED void *to, PG_UNUSED uint32_t word, PG_UNUSED int32_t count) {
    /* r0 to, r1 word, r2 bytes left. 2 instructions per 16 bytes. */
    __asm volatile("push {r4, lr}\n"
                   "vdup.32 q0, r1\n"
                   "wlstp.8 lr, r2, 2f\n"
                   "1: vstrb.8 q0, [r0], #16\n"
                   "letp lr, 1b\n"
                   "2: pop {r4, pc}\n");
}
#else
PG_KERNEL void pg_conv_mve_fill(void *to, uint32_t word, int32_t count) {
    for (int32_t i = 0; i < count; ++i) {
        ((uint8_t *)to)[i] = (uint8_t)(word >> (i % 4 * 8));
    }
}
#endif

/* Copies pixels of count bytes each from places step bytes apart to places pitch bytes apart. */
#if PG_HAS_MVE
PG_NAKED void pg_conv_mve_spread(PG_UNUSED void *to, PG_UNUSED const void *from, PG_UNUSED int32_t pixels,
                                 PG_UNUSED int32_t count, PG_UNUSED int32_t pitch, PG_UNUSED int32_t step) {
    /* r0 to, r1 from, r2 pixels left, r3 bytes of one, r4 pitch, r5 step, r6 r7 inside a pixel.
     * 6 instructions a pixel and 3 per 16 bytes. */
    __asm volatile("push {r4-r7, lr}\n"
                   "ldrd r4, r5, [sp, #20]\n"
                   "1: mov r6, r0\n"
                   "mov r7, r1\n"
                   "dlstp.8 lr, r3\n"
                   "2: vldrb.u8 q0, [r7], #16\n"
                   "vstrb.8 q0, [r6], #16\n"
                   "letp lr, 2b\n"
                   "add r0, r0, r4\n"
                   "add r1, r1, r5\n"
                   "subs r2, r2, #1\n"
                   "bne 1b\n"
                   "pop {r4-r7, pc}\n");
}
#else
PG_KERNEL void pg_conv_mve_spread(void *to, const void *from, int32_t pixels, int32_t count, int32_t pitch,
                                  int32_t step) {
    for (int32_t i = 0; i < pixels; ++i) {
        memcpy((uint8_t *)to + i * pitch, (const uint8_t *)from + i * step, (size_t)count);
    }
}
#endif

/* Row i of an array of pointers to rows, of whatever type. */
PG_INLINE const int8_t *pg_conv_mve_streamed_row(const void *rows, int32_t i) {
    const int8_t *row = NULL;
    memcpy(&row, (const int8_t *)rows + i * (int32_t)sizeof row, sizeof row);
    return row;
}

/* pixels of count bytes, step bytes apart, to pixels pitch bytes apart; count, pitch, pixels above 0. */
PG_KERNEL void pg_conv_mve_pixels(void *to, const void *from, int32_t pixels, int32_t count, int32_t pitch,
                                  int32_t step) {
    if (pitch == step && count == step) {
        pg_conv_mve_copy(to, from, pixels * count);
    } else {
        pg_conv_mve_spread(to, from, pixels, count, pitch, step);
    }
}

#endif /* PG_CONV_MVE_H */
