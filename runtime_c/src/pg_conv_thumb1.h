/* SPDX-License-Identifier: MIT-0
 *
 * What the convolution kernels for Armv6-M cores share: arguments of the blocks and the operand of four
 * pixels.
 */
#ifndef PG_CONV_THUMB1_H
#define PG_CONV_THUMB1_H

#include "projgen_runtime.h"

/* Arguments of the blocks that take four pixels through a matrix. */
typedef struct {
    int32_t quads;      /* of inputs: (inputs + 3) / 4 */
    int32_t outputs;    /* computed by one call */
    int32_t pixel;      /* bytes from one output pixel to the next */
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
} pg_conv_thumb1_matrix;

/* A block: four pixels through a matrix. */
typedef void pg_conv_thumb1_block(const int32_t *x, const uint32_t *stream, int8_t *y,
                                  const pg_conv_thumb1_matrix *p);

/* The operand of four pixels, step bytes apart: count channels, one at least, a word each, of all pixels in
 * turn. */
#if PG_HAS_THUMB1
PG_NAKED void pg_conv_thumb1_pack(PG_UNUSED const int8_t *x, PG_UNUSED int32_t step, PG_UNUSED int32_t *to,
                                  PG_UNUSED int32_t count) {
    /* r0-r3 pixels, r4 channel, r5 r7 values, r6 to, r12 count. 9 instructions per 4 values. */
    __asm volatile(".syntax unified\n"
                   "push {r4-r7, lr}\n"
                   "mov r12, r3\n"
                   "movs r6, r2\n"
                   "adds r2, r1, r1\n"
                   "adds r3, r2, r1\n"
                   "adds r1, r0, r1\n"
                   "adds r2, r0, r2\n"
                   "adds r3, r0, r3\n"
                   "movs r4, #0\n"
                   "1: ldrsb r5, [r0, r4]\n"
                   "ldrsb r7, [r1, r4]\n"
                   "stmia r6!, {r5, r7}\n"
                   "ldrsb r5, [r2, r4]\n"
                   "ldrsb r7, [r3, r4]\n"
                   "stmia r6!, {r5, r7}\n"
                   "adds r4, r4, #1\n"
                   "cmp r4, r12\n"
                   "bne 1b\n"
                   "pop {r4-r7, pc}\n");
}
#else
PG_KERNEL void pg_conv_thumb1_pack(const int8_t *x, int32_t step, int32_t *to, int32_t count) {
    for (int32_t k = 0; k < count; ++k) {
        for (int32_t i = 0; i < 4; ++i) {
            *to++ = x[i * step + k];
        }
    }
}
#endif

/* The outputs of one to three pixels too few for a block, left: computed in results (4 pixels) and copied to
 * y. */
PG_INLINE void pg_conv_thumb1_rest(const pg_conv_thumb1_matrix *p, const uint32_t *stream, int32_t left,
                                   const int32_t *operand, int8_t *y, bool residual, int8_t *results,
                                   pg_conv_thumb1_block *block) {
    pg_conv_thumb1_matrix matrix = *p;
    matrix.pixel = matrix.outputs;
    if (residual) {
        memcpy(results, y, (size_t)(left * matrix.outputs));
    }
    block(operand, stream, results, &matrix);
    memcpy(y, results, (size_t)(left * matrix.outputs));
}

#endif /* PG_CONV_THUMB1_H */
