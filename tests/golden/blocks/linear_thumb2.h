#ifndef PG_LINEAR_THUMB2_ROWS_S8_H
#define PG_LINEAR_THUMB2_ROWS_S8_H

/* y[n] = requantise(bias[n] + sum_k w[n][k] x[k]) of one vector, four outputs A, B, C, D at a time.
 *
 * Stream, words: per four outputs bA + 2^24 bB and bC + 2^24 bD, low and high word | per input its weights as bytes
 * A + 128, D, C + 128, B | mA mB mC mD. The word and one mask give the pair A, B, the word rotated C, D (see
 * pg_linear_thumb2.h).
 *
 * 19 instructions per quad of inputs for 16 products, 3 more per 8 quads. */
#if PG_HAS_THUMB2
PG_NAKED void pg_linear_thumb2_rows_s8(PG_UNUSED const int32_t *x, PG_UNUSED const uint32_t *stream,
    PG_UNUSED void *y, PG_UNUSED const pg_linear_thumb2_params *p) {
    /* r0 x, r1 stream, r2 pair of weights, r3 mask, r4 r5 sums A, B, r6 r7 sums C, D, r8 r9 operand,
     * r10-r12 lr weights, then multipliers. Then r8 r4 r9 r6 the four sums, r2 y, r3 outputs left, r5 zero point.
     * Frame: 0 x, 4 end of x, 8 entry, 12 y, 16 outputs left, 20 zero point, 24 low, 28 high, 32 mask. The loop over
     * quads is unrolled by 8 and entered in the middle. */
    __asm volatile("push {r4-r11, lr}\n"
                   "sub sp, sp, #36\n"
                   "ldrd r4, r5, [r3, #12]\n"
                   "strd r2, r5, [sp, #12]\n"
                   "ldr r6, [r3, #20]\n"
                   "str r6, [sp, #20]\n"
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
                   "smlal r6, r7, r2, r9\n");
    __asm volatile("ldmia.w r1!, {r10-r12, lr}\n"
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
                   "ldmia.w r1!, {r10-r12, lr}\n"
                   "ldr r5, [sp, #20]\n"
                   "smull r7, r8, r8, r10\n"
                   "lsls.w r7, r7, #1\n"
                   "adc r8, r8, r5\n"
                   "ssat r8, #8, r8\n"
                   "smull r7, r4, r4, r11\n"
                   "lsls.w r7, r7, #1\n"
                   "adc r4, r4, r5\n"
                   "ssat r4, #8, r4\n"
                   "smull r7, r9, r9, r12\n"
                   "lsls.w r7, r7, #1\n"
                   "adc r9, r9, r5\n"
                   "ssat r9, #8, r9\n");
    __asm volatile("smull r7, r6, r6, lr\n"
                   "lsls.w r7, r7, #1\n"
                   "adc r6, r6, r5\n"
                   "ssat r6, #8, r6\n"
                   "subs r3, r3, #4\n"
                   "blt 3f\n"
                   "strb r4, [r2, #1]\n"
                   "strb r9, [r2, #2]\n"
                   "strb r6, [r2, #3]\n"
                   "strb r8, [r2], #4\n"
                   "strd r2, r3, [sp, #12]\n"
                   "cmp r3, #0\n"
                   "bne.w 1b\n"
                   "b 4f\n"
                   "3: strb r8, [r2]\n"
                   "adds r3, r3, #2\n"
                   "blt 4f\n"
                   "strb r4, [r2, #1]\n"
                   "beq 4f\n"
                   "strb r9, [r2, #2]\n"
                   "4: add sp, sp, #36\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_linear_thumb2_rows_s8(const int32_t *x, const uint32_t *stream, void *y,
    const pg_linear_thumb2_params *p) {
    int8_t *to = (int8_t *)y;
    const pg_requant out = {
        0, p->zero_point, INT8_MIN, INT8_MAX};
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
            to[n + i] = (int8_t)pg_requantise(acc[i], (int32_t)after[i], &out);
        }
        stream = after + 4;
    }
}
#endif

#endif /* PG_LINEAR_THUMB2_ROWS_S8_H */

#ifndef PG_LINEAR_THUMB2_S8_S8_H
#define PG_LINEAR_THUMB2_S8_S8_H

PG_KERNEL void pg_linear_thumb2_s8_s8(const pg_linear_thumb2_params *p, const int8_t *x, int8_t *y, void *scratch) {
    pg_linear_thumb2(p, x, false, y, false, scratch, pg_linear_thumb2_rows_s8);
}

#endif /* PG_LINEAR_THUMB2_S8_S8_H */
