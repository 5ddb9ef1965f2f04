/* SPDX-License-Identifier: MIT-0
 *
 * Fully connected layers for Armv7-M cores without DSP instructions: y[r][n] = requantise(bias[n] + sum_k
 * w[n][k] x[r][k]), two outputs in a 64-bit sum.
 *
 * A word of weights p = (a + 128) + 2^24 b holds those of one input to two outputs; x times p adds x (a +
 * 128) and 2^24 x b. The operand ends in an entry that makes its own sum zero, so that what is added to every
 * a changes nothing: the low 24 bits are the first sum as a signed number, exact while |sum| < 2^23 (checked
 * per row), and what is above, after the borrow, the second.
 */
#ifndef PG_LINEAR_THUMB2_H
#define PG_LINEAR_THUMB2_H

#include "projgen_runtime.h"

typedef struct {
    const uint32_t *stream; /* bias, weights and multipliers in reading order */
    int32_t rows;
    int32_t inputs;
    int32_t quads; /* of the operand: inputs / 4 + 1 or, where sums are single, (inputs + 3) / 4 */
    int32_t outputs;
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
} pg_linear_thumb2_params;

/* A block: one vector through the weights. */
typedef void pg_linear_thumb2_block(const int32_t *x, const uint32_t *stream, void *y,
                                    const pg_linear_thumb2_params *p);

/* count int8 values as words; returns their sum. x may be unaligned. */
#if PG_HAS_THUMB2
PG_NAKED int32_t pg_linear_thumb2_widen(PG_UNUSED const int8_t *x, PG_UNUSED int32_t *to,
                                        PG_UNUSED int32_t count) {
    /* r0 x, r1 to, r2 values left, r3 sum, r4-r7 values. 12 instructions per 4 values. */
    __asm volatile("push {r4-r7, lr}\n"
                   "movs r3, #0\n"
                   "subs r2, r2, #4\n"
                   "blt 2f\n"
                   "1: ldr r7, [r0], #4\n"
                   "sxtb r4, r7\n"
                   "sxtb r5, r7, ror #8\n"
                   "sxtb r6, r7, ror #16\n"
                   "asrs r7, r7, #24\n"
                   "add r3, r3, r4\n"
                   "add r3, r3, r5\n"
                   "add r3, r3, r6\n"
                   "add r3, r3, r7\n"
                   "stmia r1!, {r4-r7}\n"
                   "subs r2, r2, #4\n"
                   "bge 1b\n"
                   "2: adds r2, r2, #4\n" /* one to three values */
                   "beq 4f\n"
                   "3: ldrsb r4, [r0], #1\n"
                   "add r3, r3, r4\n"
                   "str r4, [r1], #4\n"
                   "subs r2, r2, #1\n"
                   "bne 3b\n"
                   "4: mov r0, r3\n"
                   "pop {r4-r7, pc}\n");
}
#else
PG_KERNEL int32_t pg_linear_thumb2_widen(const int8_t *x, int32_t *to, int32_t count) {
    int32_t sum = 0;
    for (int32_t k = 0; k < count; ++k) {
        to[k] = x[k];
        sum += x[k];
    }
    return sum;
}
#endif

PG_KERNEL int32_t pg_linear_thumb2_widen_s16(const int16_t *x, int32_t *to, int32_t count) {
    int32_t sum = 0;
    for (int32_t k = 0; k < count; ++k) {
        to[k] = x[k];
        sum += x[k];
    }
    return sum;
}

/* The two sums in 64 bits. */
PG_INLINE int32_t pg_linear_thumb2_first(int64_t sums) {
    return (int32_t)((uint32_t)((uint64_t)sums & 0xffffffu) << 8) >> 8;
}

PG_INLINE int32_t pg_linear_thumb2_second(int64_t sums) {
    return (int32_t)((sums - pg_linear_thumb2_first(sums)) >> 24);
}

/* The rest of an operand whose first inputs entries are there: what makes their sum zero, then zeros. */
PG_INLINE void pg_linear_thumb2_complete(const pg_linear_thumb2_params *p, int32_t *operand, int32_t sum) {
    int32_t k = p->inputs;
    if (k < 4 * p->quads) {
        operand[k++] = -sum;
    }
    for (; k < 4 * p->quads; ++k) {
        operand[k] = 0;
    }
}

/* Scratch: the operand, 16 bytes a quad. */
PG_INLINE void pg_linear_thumb2(const pg_linear_thumb2_params *p, const void *x, bool x_wide, void *y,
                                bool y_wide, void *scratch, pg_linear_thumb2_block *block) {
    int32_t *operand = (int32_t *)scratch;
    for (int32_t row = 0; row < p->rows; ++row) {
        const int32_t sum = x_wide ? pg_linear_thumb2_widen_s16((const int16_t *)x, operand, p->inputs)
                                   : pg_linear_thumb2_widen((const int8_t *)x, operand, p->inputs);
        pg_linear_thumb2_complete(p, operand, sum);
        block(operand, p->stream, y, p);
        x = pg_at(x, p->inputs, x_wide);
        y = pg_at_mutable(y, p->outputs, y_wide);
    }
}

#endif /* PG_LINEAR_THUMB2_H */
