#ifndef PG_LINEAR_DSP_ROWS_S8_H
#define PG_LINEAR_DSP_ROWS_S8_H

/* y[n] = requantise(bias[n] + sum_k w[n][k] x[k]) of one vector, with packed weight pairs: the halfword
 * h = 256 w[A] + w[B] serves two outputs. A product with h adds 256 A + B, SXTB16 of the same word leaves
 * w[B] alone: acc1 = 256 A + B, acc2 = B, and at the end A = (acc1 - acc2) >> 8, exact while |A| < 2^23
 * (checked per row).
 *
 * Stream, words: per four outputs 256 bA + bB, bB, 256 bC + bD, bD | per quad of inputs AB01 AB23 CD01 CD23
 * (two halfwords each) | mA mB mC mD; then one or two pairs: 256 bA + bB, bB | per quad AB01 AB23 | mA mB.
 *
 * Four outputs cost 14 instructions per quad (.875 per product), 2 more per 8 quads and 23 around them. */
#if PG_HAS_DSP
PG_NAKED void pg_linear_dsp_rows_s8(PG_UNUSED const int16_t *x, PG_UNUSED const uint32_t *stream,
    PG_UNUSED int8_t *y, PG_UNUSED const pg_linear_dsp_params *p) {
    /* r0 x, r1 stream, r2-r5 accumulators A', B, C', D, r6 r7 operand, r8-r11 weights and multipliers, r12 y,
     * lr loop. Frame: 0 x, 4 loops, 8 entry, 12 zero point, 16 end of y, 20 outputs left, 24 quads, 28 low,
     * 32 high. The loop over quads is unrolled by 8 and entered in the middle. */
    __asm volatile("push {r4-r11, lr}\n"
                   "sub sp, sp, #36\n"
                   "mov r12, r2\n"
                   "ldrd r4, r5, [r3, #12]\n"
                   "ldr r6, [r3, #20]\n"
                   "bic r7, r5, #3\n"
                   "add r7, r2, r7\n"
                   "and r8, r5, #3\n"
                   "strd r6, r7, [sp, #12]\n"
                   "strd r8, r4, [sp, #20]\n"
                   "add r6, r4, #7\n"
                   "lsr r6, r6, #3\n"
                   "strd r0, r6, [sp]\n"
                   "rsb r6, r4, r6, lsl #3\n"
                   "adr.w r7, 2f\n"
                   "movs r4, #56\n"
                   "mla r6, r6, r4, r7\n"
                   "orr r6, r6, #1\n"
                   "str r6, [sp, #8]\n"
                   "lsrs r5, r5, #2\n"
                   "beq.w 3f\n"
                   "1: ldmia r1!, {r2-r5}\n"
                   "ldrd r0, lr, [sp]\n"
                   "ldr pc, [sp, #8]\n"
                   ".p2align 2\n"
                   "2:\n"
                   "ldrd r6, r7, [r0], #8\n"
                   "ldmia.w r1!, {r8-r11}\n"
                   "smlad r2, r6, r8, r2\n"
                   "sxtb16 r8, r8\n"
                   "smlad r3, r6, r8, r3\n"
                   "smlad r2, r7, r9, r2\n"
                   "sxtb16 r9, r9\n"
                   "smlad r3, r7, r9, r3\n"
                   "smlad r4, r6, r10, r4\n"
                   "sxtb16 r10, r10\n"
                   "smlad r5, r6, r10, r5\n"
                   "smlad r4, r7, r11, r4\n"
                   "sxtb16 r11, r11\n"
                   "smlad r5, r7, r11, r5\n"
                   "ldrd r6, r7, [r0], #8\n"
                   "ldmia.w r1!, {r8-r11}\n"
                   "smlad r2, r6, r8, r2\n"
                   "sxtb16 r8, r8\n"
                   "smlad r3, r6, r8, r3\n"
                   "smlad r2, r7, r9, r2\n"
                   "sxtb16 r9, r9\n"
                   "smlad r3, r7, r9, r3\n"
                   "smlad r4, r6, r10, r4\n"
                   "sxtb16 r10, r10\n"
                   "smlad r5, r6, r10, r5\n"
                   "smlad r4, r7, r11, r4\n"
                   "sxtb16 r11, r11\n"
                   "smlad r5, r7, r11, r5\n"
                   "ldrd r6, r7, [r0], #8\n"
                   "ldmia.w r1!, {r8-r11}\n"
                   "smlad r2, r6, r8, r2\n"
                   "sxtb16 r8, r8\n"
                   "smlad r3, r6, r8, r3\n"
                   "smlad r2, r7, r9, r2\n"
                   "sxtb16 r9, r9\n"
                   "smlad r3, r7, r9, r3\n"
                   "smlad r4, r6, r10, r4\n"
                   "sxtb16 r10, r10\n"
                   "smlad r5, r6, r10, r5\n"
                   "smlad r4, r7, r11, r4\n"
                   "sxtb16 r11, r11\n"
                   "smlad r5, r7, r11, r5\n"
                   "ldrd r6, r7, [r0], #8\n"
                   "ldmia.w r1!, {r8-r11}\n"
                   "smlad r2, r6, r8, r2\n"
                   "sxtb16 r8, r8\n"
                   "smlad r3, r6, r8, r3\n"
                   "smlad r2, r7, r9, r2\n"
                   "sxtb16 r9, r9\n"
                   "smlad r3, r7, r9, r3\n"
                   "smlad r4, r6, r10, r4\n"
                   "sxtb16 r10, r10\n"
                   "smlad r5, r6, r10, r5\n"
                   "smlad r4, r7, r11, r4\n"
                   "sxtb16 r11, r11\n"
                   "smlad r5, r7, r11, r5\n"
                   "ldrd r6, r7, [r0], #8\n"
                   "ldmia.w r1!, {r8-r11}\n"
                   "smlad r2, r6, r8, r2\n"
                   "sxtb16 r8, r8\n"
                   "smlad r3, r6, r8, r3\n"
                   "smlad r2, r7, r9, r2\n"
                   "sxtb16 r9, r9\n"
                   "smlad r3, r7, r9, r3\n"
                   "smlad r4, r6, r10, r4\n"
                   "sxtb16 r10, r10\n"
                   "smlad r5, r6, r10, r5\n"
                   "smlad r4, r7, r11, r4\n"
                   "sxtb16 r11, r11\n"
                   "smlad r5, r7, r11, r5\n"
                   "ldrd r6, r7, [r0], #8\n"
                   "ldmia.w r1!, {r8-r11}\n"
                   "smlad r2, r6, r8, r2\n"
                   "sxtb16 r8, r8\n");
    __asm volatile("smlad r3, r6, r8, r3\n"
                   "smlad r2, r7, r9, r2\n"
                   "sxtb16 r9, r9\n"
                   "smlad r3, r7, r9, r3\n"
                   "smlad r4, r6, r10, r4\n"
                   "sxtb16 r10, r10\n"
                   "smlad r5, r6, r10, r5\n"
                   "smlad r4, r7, r11, r4\n"
                   "sxtb16 r11, r11\n"
                   "smlad r5, r7, r11, r5\n"
                   "ldrd r6, r7, [r0], #8\n"
                   "ldmia.w r1!, {r8-r11}\n"
                   "smlad r2, r6, r8, r2\n"
                   "sxtb16 r8, r8\n"
                   "smlad r3, r6, r8, r3\n"
                   "smlad r2, r7, r9, r2\n"
                   "sxtb16 r9, r9\n"
                   "smlad r3, r7, r9, r3\n"
                   "smlad r4, r6, r10, r4\n"
                   "sxtb16 r10, r10\n"
                   "smlad r5, r6, r10, r5\n"
                   "smlad r4, r7, r11, r4\n"
                   "sxtb16 r11, r11\n"
                   "smlad r5, r7, r11, r5\n"
                   "ldrd r6, r7, [r0], #8\n"
                   "ldmia.w r1!, {r8-r11}\n"
                   "smlad r2, r6, r8, r2\n"
                   "sxtb16 r8, r8\n"
                   "smlad r3, r6, r8, r3\n"
                   "smlad r2, r7, r9, r2\n"
                   "sxtb16 r9, r9\n"
                   "smlad r3, r7, r9, r3\n"
                   "smlad r4, r6, r10, r4\n"
                   "sxtb16 r10, r10\n"
                   "smlad r5, r6, r10, r5\n"
                   "smlad r4, r7, r11, r4\n"
                   "sxtb16 r11, r11\n"
                   "smlad r5, r7, r11, r5\n"
                   "subs lr, lr, #1\n"
                   "bne.w 2b\n"
                   "ldmia.w r1!, {r8-r11}\n"
                   "ldrd r6, r7, [sp, #12]\n"
                   "sub r2, r2, r3\n"
                   "asr r2, r2, #8\n"
                   "sub r4, r4, r5\n"
                   "asr r4, r4, #8\n"
                   "smmlar r2, r2, r8, r6\n"
                   "ssat r2, #8, r2\n"
                   "smmlar r3, r3, r9, r6\n"
                   "ssat r3, #8, r3\n"
                   "smmlar r4, r4, r10, r6\n"
                   "ssat r4, #8, r4\n"
                   "smmlar r5, r5, r11, r6\n"
                   "ssat r5, #8, r5\n"
                   "strb r3, [r12, #1]\n"
                   "strb r4, [r12, #2]\n"
                   "strb r5, [r12, #3]\n"
                   "strb r2, [r12], #4\n"
                   "cmp r12, r7\n"
                   "bne.w 1b\n"
                   "3: ldr r7, [sp, #20]\n"
                   "cmp r7, #0\n"
                   "beq.w 6f\n"
                   "4: ldmia r1!, {r2, r3}\n"
                   "ldr r0, [sp]\n"
                   "ldr lr, [sp, #24]\n"
                   "5: ldrd r4, r5, [r0], #8\n"
                   "ldmia.w r1!, {r8, r9}\n"
                   "smlad r2, r4, r8, r2\n"
                   "sxtb16 r8, r8\n"
                   "smlad r3, r4, r8, r3\n"
                   "smlad r2, r5, r9, r2\n"
                   "sxtb16 r9, r9\n"
                   "smlad r3, r5, r9, r3\n"
                   "subs lr, lr, #1\n"
                   "bne 5b\n"
                   "ldmia.w r1!, {r8, r9}\n"
                   "ldr r6, [sp, #12]\n"
                   "sub r2, r2, r3\n"
                   "asr r2, r2, #8\n"
                   "smmlar r2, r2, r8, r6\n"
                   "ssat r2, #8, r2\n"
                   "smmlar r3, r3, r9, r6\n"
                   "ssat r3, #8, r3\n"
                   "strb r2, [r12], #1\n"
                   "subs r7, r7, #1\n"
                   "beq 6f\n"
                   "strb r3, [r12], #1\n"
                   "subs r7, r7, #1\n"
                   "bne 4b\n"
                   "6: add sp, sp, #36\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_linear_dsp_rows_s8(const int16_t *x, const uint32_t *stream, int8_t *y,
    const pg_linear_dsp_params *p) {
    const pg_requant out = {
        0, p->zero_point, INT8_MIN, INT8_MAX};
    for (int32_t n = 0; n < p->outputs;) {
        const int32_t pairs = n + 4 <= p->outputs ? 2 : 1;
        const uint32_t *multipliers = stream + 2 * pairs * (1 + p->quads);
        for (int32_t pair = 0; pair < pairs; ++pair) {
            uint32_t packed = stream[2 * pair];
            uint32_t second = stream[2 * pair + 1];
            for (int32_t k = 0; k < 4 * p->quads; ++k) {
                const uint32_t word = stream[2 * pairs * (1 + k / 4) + 2 * pair + k % 4 / 2];
                const int16_t half = (int16_t)(k % 2 != 0 ? word >> 16 : word & 0xffffu);
                packed += (uint32_t)(x[k] * half);
                second += (uint32_t)(x[k] * (int8_t)((uint16_t)half & 0xffu));
            }
            const int32_t first = (int32_t)(packed - second) >> 8;
            y[n] = (int8_t)pg_requantise(first, (int32_t)multipliers[2 * pair], &out);
            ++n;
            if (n < p->outputs) {
                y[n] = (int8_t)pg_requantise((int32_t)second, (int32_t)multipliers[2 * pair + 1], &out);
                ++n;
            }
        }
        stream = multipliers + 2 * pairs;
    }
}
#endif

#endif /* PG_LINEAR_DSP_ROWS_S8_H */

#ifndef PG_LINEAR_DSP_S8_S8_H
#define PG_LINEAR_DSP_S8_S8_H

/* Fully connected, packed weight pairs. Scratch: 8 quads bytes. */
PG_KERNEL void pg_linear_dsp_s8_s8(const pg_linear_dsp_params *p, const int8_t *x, int8_t *y, void *scratch) {
    for (int32_t row = 0; row < p->rows; ++row) {
        pg_linear_dsp_widen(x, (int16_t *)scratch, p->inputs);
        pg_linear_dsp_rows_s8((const int16_t *)scratch, p->stream, y, p);
        x += p->inputs;
        y += p->outputs;
    }
}

#endif /* PG_LINEAR_DSP_S8_S8_H */
