#ifndef PG_CONV_DSP_PACKED_S8_ODD_Q1_H
#define PG_CONV_DSP_PACKED_S8_ODD_Q1_H

/* y[p][n] = requantise(bias[n] + sum_k w[n][k] x[p][k]) of three pixels p, two outputs at a time.
 *
 * Operand x: per two inputs k one word (halfwords k, k') of each of the three pixels, (k, k') = (0, 2), (1, 3)
 * in every quad of int8 inputs, (0, 1), (2, 3) of int16 inputs.
 * Packed weight pairs: the halfword h = 256 w[A] + w[B] serves two outputs. A product with h adds 256 A + B,
 * SXTB16 of the same word leaves w[B] alone: acc1 = 256 A + B, acc2 = B, and at the end
 * A = (acc1 - acc2) >> 8, exact while |A| < 2^23 (checked per row).
 * Stream, words: per two outputs 256 bA + bB, bB | per quad of inputs two words (two halfwords h each) | mA mB.
 *
 * 17 instructions per quad of inputs for 24 products. */
#if PG_HAS_DSP
PG_NAKED void pg_conv_dsp_packed_s8_odd_q1(PG_UNUSED const uint32_t *x, PG_UNUSED const uint32_t *stream,
    PG_UNUSED void *y, PG_UNUSED const pg_conv_dsp_matrix *p) {
    /* r0 x, r1 stream, r2-r4 accumulators of A, r5-r7 of B, r8 r9 weights and multipliers, r10-r12 operand, lr
     * unpacked weights. Frame: 0 x, 4 end of x, 8 entry, 12 zero point, 16 y, 20 end of y, 24 pixel, 28 low,
     * 32 high. */
    __asm volatile("push {r4-r11, lr}\n"
                   "sub sp, sp, #36\n"
                   "ldm r3, {r4-r7}\n"
                   "add r8, r2, r5\n"
                   "strd r7, r2, [sp, #12]\n"
                   "strd r8, r6, [sp, #20]\n"
                   "1: ldmia.w r1!, {r2, r5}\n"
                   "ldmia.w r1!, {r8, r9}\n"
                   "sxtb16 lr, r8\n"
                   "ldmia.w r0!, {r10-r12}\n"
                   "smlad r4, r12, r8, r2\n"
                   "smlad r3, r11, r8, r2\n"
                   "smlad r2, r10, r8, r2\n"
                   "smlad r7, r12, lr, r5\n"
                   "smlad r6, r11, lr, r5\n"
                   "smlad r5, r10, lr, r5\n"
                   "sxtb16 lr, r9\n"
                   "ldmia.w r0!, {r10-r12}\n"
                   "smlad r4, r12, r9, r4\n"
                   "smlad r3, r11, r9, r3\n"
                   "smlad r2, r10, r9, r2\n"
                   "smlad r7, r12, lr, r7\n"
                   "smlad r6, r11, lr, r6\n"
                   "smlad r5, r10, lr, r5\n"
                   "subw r0, r0, #24\n"
                   "sub r2, r2, r5\n"
                   "asr r2, r2, #8\n"
                   "sub r3, r3, r6\n"
                   "asr r3, r3, #8\n"
                   "sub r4, r4, r7\n"
                   "asr r4, r4, #8\n"
                   "ldmia.w r1!, {r8, r9}\n"
                   "ldrd r10, r11, [sp, #12]\n"
                   "smmlar r2, r2, r8, r10\n"
                   "ssat r2, #8, r2\n"
                   "smmlar r5, r5, r9, r10\n"
                   "ssat r5, #8, r5\n"
                   "smmlar r3, r3, r8, r10\n"
                   "ssat r3, #8, r3\n"
                   "smmlar r6, r6, r9, r10\n"
                   "ssat r6, #8, r6\n"
                   "smmlar r4, r4, r8, r10\n"
                   "ssat r4, #8, r4\n"
                   "smmlar r7, r7, r9, r10\n"
                   "ssat r7, #8, r7\n"
                   "ldrd r9, r12, [sp, #20]\n"
                   "strb r3, [r11, r12]\n"
                   "strb r4, [r11, r12, lsl #1]\n"
                   "strb r2, [r11], #1\n"
                   "cmp r11, r9\n"
                   "beq 5f\n"
                   "strb r6, [r11, r12]\n"
                   "strb r7, [r11, r12, lsl #1]\n"
                   "strb r5, [r11], #1\n"
                   "str r11, [sp, #16]\n"
                   "b.w 1b\n"
                   "5: add sp, sp, #36\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_conv_dsp_packed_s8_odd_q1(const uint32_t *x, const uint32_t *stream, void *y, const pg_conv_dsp_matrix *p) {
    int8_t *to = (int8_t *)y;
    const pg_requant out = {
        0, p->zero_point, INT8_MIN, INT8_MAX};
    const int32_t pixel = p->pixel / (int32_t)sizeof(int8_t);
    for (int32_t n = 0; n < p->outputs; n += 2) {
        const uint32_t *weights = stream + 2;
        const uint32_t *multipliers = weights + 2 * p->quads;
        for (int32_t i = 0; i < 3; ++i) {
            uint32_t acc[2] = {stream[0], stream[1]};
            for (int32_t k = 0; k < 4 * p->quads; ++k) {
                const int32_t v = pg_conv_dsp_half(x[3 * (k / 2) + i], k % 2);
                const int32_t h = pg_conv_dsp_half(weights[k / 2], k % 2);
                acc[0] += (uint32_t)(v * h);
                acc[1] += (uint32_t)(v * (int8_t)((uint32_t)h & 0xffu));
            }
            acc[0] = (uint32_t)((int32_t)(acc[0] - acc[1]) >> 8);
            for (int32_t row = 0; row < 2 && n + row < p->outputs; ++row) {
                to[i * pixel + n + row] = (int8_t)pg_requantise((int32_t)acc[row], (int32_t)multipliers[row], &out);
            }
        }
        stream = multipliers + 2;
    }
}
#endif

#endif /* PG_CONV_DSP_PACKED_S8_ODD_Q1_H */

#ifndef PG_POINTWISE_DSP_S8_PACKED_S8_ODD_Q1_H
#define PG_POINTWISE_DSP_S8_PACKED_S8_ODD_Q1_H

PG_KERNEL void pg_pointwise_dsp_s8_packed_s8_odd_q1(const pg_pointwise_dsp_params *p, const int8_t *x, int8_t *y, void *scratch) {
    pg_pointwise_dsp_s8_s8(p, x, y, scratch, pg_conv_dsp_packed_s8_odd_q1);
}

PG_KERNEL void pg_pointwise_dsp_s8_packed_s8_odd_q1_row(const pg_pointwise_dsp_params *p, const int8_t *const *rows, int8_t *y, void *scratch) {
    pg_pointwise_dsp_s8_s8_row(p, rows, y, scratch, pg_conv_dsp_packed_s8_odd_q1);
}

#endif /* PG_POINTWISE_DSP_S8_PACKED_S8_ODD_Q1_H */
