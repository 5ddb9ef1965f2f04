#ifndef PG_LINEAR_THUMB2_ROWS_INT32_H
#define PG_LINEAR_THUMB2_ROWS_INT32_H

/* y[n] = bias[n] + sum_k w[n][k] x[k] of one vector, four outputs A, B, C, D at a time.
 *
 * Stream, words: per four outputs bA + 2^24 bB and bC + 2^24 bD, low and high word | per input its weights as bytes
 * A + 128, D, C + 128, B. The word and one mask give the pair A, B, the word rotated C, D (see
 * pg_linear_thumb2.h).
 *
 * 19 instructions per quad of inputs for 16 products, 3 more per 8 quads. */
#if PG_HAS_THUMB2
PG_NAKED void pg_linear_thumb2_rows_int32(PG_UNUSED const int32_t *x, PG_UNUSED const uint32_t *stream,
    PG_UNUSED void *y, PG_UNUSED const pg_linear_thumb2_params *p) {
    /* r0 x, r1 stream, r2 pair of weights, r3 mask, r4 r5 sums A, B, r6 r7 sums C, D, r8 r9 operand,
     * r10-r12 lr weights. Then r8 r4 r9 r6 the four sums, r2 y, r3 outputs left.
     * Frame: 0 x, 4 end of x, 8 entry, 12 y, 16 outputs left, 20 zero point, 24 low, 28 high, 32 mask. The loop over
     * quads is unrolled by 8 and entered in the middle. */
    __asm volatile("push {r4-r11, lr}\n"
                   "sub sp, sp, #36\n"
                   "ldrd r4, r5, [r3, #12]\n"
                   "strd r2, r5, [sp, #12]\n"
                   "mov r3, #0xff\n"
                   "orr r3, r3, #0xff000000\n"
                   "str r3, [sp, #32]\n"
                   "add r6, r0, r4, lsl #4\n"
                   "strd r0, r6, [sp]\n"
                   "rsb r4, r4, #0\n"
                   "and r4, r4, #7\n"
                   "adr.w r6, 2f\n"
                   "movs r7, #76\n"
                   "mla r4, r4, r7, r6\n"
                   "orr r4, r4, #1\n"
                   "str r4, [sp, #8]\n"
                   "1: ldmia.w r1!, {r4-r7}\n"
                   "ldr r0, [sp]\n"
                   "ldr r3, [sp, #32]\n"
                   "ldr.w pc, [sp, #8]\n"
                   ".p2align 2\n"
                   "2:\n"
                   "ldmia.w r1!, {r10-r12, lr}\n"
                   "ldmia.w r0!, {r8, r9}\n"
                   "and r2, r3, r10\n"
                   "smlal r4, r5, r2, r8\n"
                   "and r2, r3, r10, ror #16\n"
                   "smlal r6, r7, r2, r8\n"
                   "and r2, r3, r11\n"
                   "smlal r4, r5, r2, r9\n"
                   "and r2, r3, r11, ror #16\n"
                   "smlal r6, r7, r2, r9\n"
                   "ldmia.w r0!, {r8, r9}\n"
                   "and r2, r3, r12\n"
                   "smlal r4, r5, r2, r8\n"
                   "and r2, r3, r12, ror #16\n"
                   "smlal r6, r7, r2, r8\n"
                   "and r2, r3, lr\n"
                   "smlal r4, r5, r2, r9\n"
                   "and r2, r3, lr, ror #16\n"
                   "smlal r6, r7, r2, r9\n"
                   "ldmia.w r1!, {r10-r12, lr}\n"
                   "ldmia.w r0!, {r8, r9}\n"
                   "and r2, r3, r10\n"
                   "smlal r4, r5, r2, r8\n"
                   "and r2, r3, r10, ror #16\n"
                   "smlal r6, r7, r2, r8\n"
                   "and r2, r3, r11\n"
                   "smlal r4, r5, r2, r9\n"
                   "and r2, r3, r11, ror #16\n"
                   "smlal r6, r7, r2, r9\n"
                   "ldmia.w r0!, {r8, r9}\n"
                   "and r2, r3, r12\n"
                   "smlal r4, r5, r2, r8\n"
                   "and r2, r3, r12, ror #16\n"
                   "smlal r6, r7, r2, r8\n"
                   "and r2, r3, lr\n"
                   "smlal r4, r5, r2, r9\n"
                   "and r2, r3, lr, ror #16\n"
                   "smlal r6, r7, r2, r9\n"
                   "ldmia.w r1!, {r10-r12, lr}\n"
                   "ldmia.w r0!, {r8, r9}\n"
                   "and r2, r3, r10\n"
                   "smlal r4, r5, r2, r8\n"
                   "and r2, r3, r10, ror #16\n"
                   "smlal r6, r7, r2, r8\n"
                   "and r2, r3, r11\n"
                   "smlal r4, r5, r2, r9\n"
                   "and r2, r3, r11, ror #16\n"
                   "smlal r6, r7, r2, r9\n"
                   "ldmia.w r0!, {r8, r9}\n"
                   "and r2, r3, r12\n"
                   "smlal r4, r5, r2, r8\n"
                   "and r2, r3, r12, ror #16\n"
                   "smlal r6, r7, r2, r8\n"
                   "and r2, r3, lr\n"
                   "smlal r4, r5, r2, r9\n"
                   "and r2, r3, lr, ror #16\n"
                   "smlal r6, r7, r2, r9\n"
                   "ldmia.w r1!, {r10-r12, lr}\n"
                   "ldmia.w r0!, {r8, r9}\n"
                   "and r2, r3, r10\n"
                   "smlal r4, r5, r2, r8\n"
                   "and r2, r3, r10, ror #16\n"
                   "smlal r6, r7, r2, r8\n"
                   "and r2, r3, r11\n"
                   "smlal r4, r5, r2, r9\n"
                   "and r2, r3, r11, ror #16\n"
                   "smlal r6, r7, r2, r9\n"
                   "ldmia.w r0!, {r8, r9}\n"
                   "and r2, r3, r12\n"
                   "smlal r4, r5, r2, r8\n"
                   "and r2, r3, r12, ror #16\n"
                   "smlal r6, r7, r2, r8\n"
                   "and r2, r3, lr\n"
                   "smlal r4, r5, r2, r9\n"
                   "and r2, r3, lr, ror #16\n"
                   "smlal r6, r7, r2, r9\n"
                   "ldmia.w r1!, {r10-r12, lr}\n"
                   "ldmia.w r0!, {r8, r9}\n");
    __asm volatile("and r2, r3, r10\n"
                   "smlal r4, r5, r2, r8\n"
                   "and r2, r3, r10, ror #16\n"
                   "smlal r6, r7, r2, r8\n"
                   "and r2, r3, r11\n"
                   "smlal r4, r5, r2, r9\n"
                   "and r2, r3, r11, ror #16\n"
                   "smlal r6, r7, r2, r9\n"
                   "ldmia.w r0!, {r8, r9}\n"
                   "and r2, r3, r12\n"
                   "smlal r4, r5, r2, r8\n"
                   "and r2, r3, r12, ror #16\n"
                   "smlal r6, r7, r2, r8\n"
                   "and r2, r3, lr\n"
                   "smlal r4, r5, r2, r9\n"
                   "and r2, r3, lr, ror #16\n"
                   "smlal r6, r7, r2, r9\n"
                   "ldmia.w r1!, {r10-r12, lr}\n"
                   "ldmia.w r0!, {r8, r9}\n"
                   "and r2, r3, r10\n"
                   "smlal r4, r5, r2, r8\n"
                   "and r2, r3, r10, ror #16\n"
                   "smlal r6, r7, r2, r8\n"
                   "and r2, r3, r11\n"
                   "smlal r4, r5, r2, r9\n"
                   "and r2, r3, r11, ror #16\n"
                   "smlal r6, r7, r2, r9\n"
                   "ldmia.w r0!, {r8, r9}\n"
                   "and r2, r3, r12\n"
                   "smlal r4, r5, r2, r8\n"
                   "and r2, r3, r12, ror #16\n"
                   "smlal r6, r7, r2, r8\n"
                   "and r2, r3, lr\n"
                   "smlal r4, r5, r2, r9\n"
                   "and r2, r3, lr, ror #16\n"
                   "smlal r6, r7, r2, r9\n"
                   "ldmia.w r1!, {r10-r12, lr}\n"
                   "ldmia.w r0!, {r8, r9}\n"
                   "and r2, r3, r10\n"
                   "smlal r4, r5, r2, r8\n"
                   "and r2, r3, r10, ror #16\n"
                   "smlal r6, r7, r2, r8\n"
                   "and r2, r3, r11\n"
                   "smlal r4, r5, r2, r9\n"
                   "and r2, r3, r11, ror #16\n"
                   "smlal r6, r7, r2, r9\n"
                   "ldmia.w r0!, {r8, r9}\n"
                   "and r2, r3, r12\n"
                   "smlal r4, r5, r2, r8\n"
                   "and r2, r3, r12, ror #16\n"
                   "smlal r6, r7, r2, r8\n"
                   "and r2, r3, lr\n"
                   "smlal r4, r5, r2, r9\n"
                   "and r2, r3, lr, ror #16\n"
                   "smlal r6, r7, r2, r9\n"
                   "ldmia.w r1!, {r10-r12, lr}\n"
                   "ldmia.w r0!, {r8, r9}\n"
                   "and r2, r3, r10\n"
                   "smlal r4, r5, r2, r8\n"
                   "and r2, r3, r10, ror #16\n"
                   "smlal r6, r7, r2, r8\n"
                   "and r2, r3, r11\n"
                   "smlal r4, r5, r2, r9\n"
                   "and r2, r3, r11, ror #16\n"
                   "smlal r6, r7, r2, r9\n"
                   "ldmia.w r0!, {r8, r9}\n"
                   "and r2, r3, r12\n"
                   "smlal r4, r5, r2, r8\n"
                   "and r2, r3, r12, ror #16\n"
                   "smlal r6, r7, r2, r8\n"
                   "and r2, r3, lr\n"
                   "smlal r4, r5, r2, r9\n"
                   "and r2, r3, lr, ror #16\n"
                   "smlal r6, r7, r2, r9\n"
                   "ldr r2, [sp, #4]\n"
                   "cmp r0, r2\n"
                   "bne.w 2b\n"
                   "ldrd r2, r3, [sp, #12]\n"
                   "sbfx r8, r4, #0, #24\n"
                   "lsrs.w r4, r4, #24\n"
                   "adc r4, r4, r5, lsl #8\n"
                   "sbfx r9, r6, #0, #24\n"
                   "lsrs.w r6, r6, #24\n"
                   "adc r6, r6, r7, lsl #8\n"
                   "subs r3, r3, #4\n"
                   "blt 3f\n"
                   "str r4, [r2, #4]\n"
                   "str r9, [r2, #8]\n"
                   "str r6, [r2, #12]\n"
                   "str r8, [r2], #16\n"
                   "strd r2, r3, [sp, #12]\n"
                   "cmp r3, #0\n"
                   "bne.w 1b\n"
                   "b 4f\n"
                   "3: str r8, [r2]\n"
                   "adds r3, r3, #2\n"
                   "blt 4f\n"
                   "str r4, [r2, #4]\n"
                   "beq 4f\n"
                   "str r9, [r2, #8]\n");
    __asm volatile("4: add sp, sp, #36\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_linear_thumb2_rows_int32(const int32_t *x, const uint32_t *stream, void *y,
    const pg_linear_thumb2_params *p) {
    int32_t *to = (int32_t *)y;
    for (int32_t n = 0; n < p->outputs; n += 4) {
        const uint32_t *weights = stream + 4;
        const uint32_t *after = weights + 4 * p->quads;
        int32_t acc[4];
        for (int32_t pair = 0; pair < 2; ++pair) {
            int64_t sums = (int64_t)((uint64_t)stream[2 * pair + 1] << 32 | stream[2 * pair]);
            for (int32_t k = 0; k < 4 * p->quads; ++k) {
                const uint32_t word = pair == 0 ? weights[k] : (weights[k] >> 16 | weights[k] << 16);
                sums += (int64_t)(int32_t)(word & 0xff0000ffu) * x[k];
            }
            acc[2 * pair] = pg_linear_thumb2_first(sums);
            acc[2 * pair + 1] = pg_linear_thumb2_second(sums);
        }
        for (int32_t i = 0; i < 4 && n + i < p->outputs; ++i) {
            to[n + i] = acc[i];
        }
        stream = after;
    }
}
#endif

#endif /* PG_LINEAR_THUMB2_ROWS_INT32_H */

#ifndef PG_LSTM_THUMB2_PAIRS_NONE_NONE_H
#define PG_LSTM_THUMB2_PAIRS_NONE_NONE_H

/* LSTM with the blocks of its products and factors. */
PG_KERNEL void pg_lstm_thumb2_pairs_none_none_reset(const pg_lstm_thumb2_params *p, void *state) {
    pg_lstm_thumb2_start(p, state);
}

PG_KERNEL void pg_lstm_thumb2_pairs_none_none(const pg_lstm_thumb2_params *p, void *state, const int8_t *x, int8_t *y,
    void *scratch) {
    pg_lstm_thumb2_step(p, state, x, y, scratch, pg_linear_thumb2_rows_int32,
        NULL,
        NULL);
}

#endif /* PG_LSTM_THUMB2_PAIRS_NONE_NONE_H */
