#ifndef PG_CONV_THUMB2_PAIRS_S8_Q1_H
#define PG_CONV_THUMB2_PAIRS_S8_Q1_H

/* y[i][n] = requantise(bias[n] + sum_k w[n][k] x[i][k]) of six pixels i, 4 inputs.
 *
 * Operand, words: per input those of pixels 0 and 1, 2 and 3, 4 and 5, two values each (see pg_conv_thumb2.h).
 * Stream, words: per output the start value of both sums, low and high word | inputs / 4 words of weights | m.
 *
 * 5 instructions per input for 6 products. */
#if PG_HAS_THUMB2
PG_NAKED void pg_conv_thumb2_pairs_s8_q1(PG_UNUSED const uint32_t *x, PG_UNUSED const uint32_t *stream,
    PG_UNUSED void *y, PG_UNUSED const pg_conv_thumb2_matrix *p) {
    /* r0 x, r1 stream, r2 y, r4 r5, r6 r7, r8 r9 sums of two pixels each, r10-r12 operand, lr weight. Then r10 r4, r11
     * r6, r12 r8 the six sums, lr multiplier, r9 zero point, r3 pixel, r7 pixel 3 of y.
     * Frame: 0 x, 4 end of x, 8 entry, 12 zero point, 16 pixel, 20 end of y, 24 low, 28 high. */
    __asm volatile("push {r4-r11, lr}\n"
                   "sub sp, sp, #36\n"
                   "ldm r3, {r4-r7}\n"
                   "add r8, r2, r5\n"
                   "strd r7, r6, [sp, #12]\n"
                   "str r8, [sp, #20]\n"
                   "str r0, [sp]\n"
                   "1: ldmia.w r1!, {r4, r5}\n"
                   "mov r6, r4\n"
                   "mov r7, r5\n"
                   "mov r8, r4\n"
                   "mov r9, r5\n"
                   "ldmia.w r0!, {r10-r12}\n"
                   "ldrsb lr, [r1], #1\n"
                   "smlal r4, r5, r10, lr\n"
                   "smlal r6, r7, r11, lr\n"
                   "smlal r8, r9, r12, lr\n"
                   "ldmia.w r0!, {r10-r12}\n"
                   "ldrsb lr, [r1], #1\n"
                   "smlal r4, r5, r10, lr\n"
                   "smlal r6, r7, r11, lr\n"
                   "smlal r8, r9, r12, lr\n"
                   "ldmia.w r0!, {r10-r12}\n"
                   "ldrsb lr, [r1], #1\n"
                   "smlal r4, r5, r10, lr\n"
                   "smlal r6, r7, r11, lr\n"
                   "smlal r8, r9, r12, lr\n"
                   "ldmia.w r0!, {r10-r12}\n"
                   "ldrsb lr, [r1], #1\n"
                   "smlal r4, r5, r10, lr\n"
                   "smlal r6, r7, r11, lr\n"
                   "smlal r8, r9, r12, lr\n"
                   "sbfx r10, r4, #0, #24\n"
                   "lsrs.w r4, r4, #24\n"
                   "adc r4, r4, r5, lsl #8\n"
                   "sbfx r11, r6, #0, #24\n"
                   "lsrs.w r6, r6, #24\n"
                   "adc r6, r6, r7, lsl #8\n"
                   "sbfx r12, r8, #0, #24\n"
                   "lsrs.w r8, r8, #24\n"
                   "adc r8, r8, r9, lsl #8\n"
                   "ldrd r9, r3, [sp, #12]\n"
                   "add r7, r2, r3, lsl #1\n"
                   "add r7, r7, r3\n"
                   "ldr lr, [r1], #4\n"
                   "smull r5, r10, r10, lr\n"
                   "lsls.w r5, r5, #1\n"
                   "adc r10, r10, r9\n"
                   "ssat r10, #8, r10\n"
                   "smull r5, r4, r4, lr\n"
                   "lsls.w r5, r5, #1\n"
                   "adc r4, r4, r9\n"
                   "ssat r4, #8, r4\n"
                   "smull r5, r11, r11, lr\n"
                   "lsls.w r5, r5, #1\n"
                   "adc r11, r11, r9\n"
                   "ssat r11, #8, r11\n"
                   "smull r5, r6, r6, lr\n"
                   "lsls.w r5, r5, #1\n"
                   "adc r6, r6, r9\n"
                   "ssat r6, #8, r6\n"
                   "smull r5, r12, r12, lr\n"
                   "lsls.w r5, r5, #1\n"
                   "adc r12, r12, r9\n"
                   "ssat r12, #8, r12\n"
                   "smull r5, r8, r8, lr\n"
                   "lsls.w r5, r5, #1\n"
                   "adc r8, r8, r9\n"
                   "ssat r8, #8, r8\n"
                   "ldr r5, [sp, #20]\n"
                   "ldr r0, [sp]\n"
                   "strb r4, [r2, r3]\n"
                   "strb r11, [r2, r3, lsl #1]\n"
                   "strb r6, [r7]\n"
                   "strb r12, [r7, r3]\n"
                   "strb r8, [r7, r3, lsl #1]\n"
                   "strb r10, [r2], #1\n"
                   "cmp r2, r5\n"
                   "bne.w 1b\n"
                   "add sp, sp, #36\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_conv_thumb2_pairs_s8_q1(const uint32_t *x, const uint32_t *stream, void *y, const pg_conv_thumb2_matrix *p) {
    int8_t *to = (int8_t *)y;
    const pg_requant out = {
        0, p->zero_point, INT8_MIN, INT8_MAX};
    const int32_t pixel = p->pixel / (int32_t)sizeof(int8_t);
    for (int32_t n = 0; n < p->outputs; ++n) {
        const int64_t start = (int64_t)((uint64_t)stream[1] << 32 | stream[0]);
        const uint32_t *weights = stream + 2;
        stream = weights + p->quads;
        for (int32_t pair = 0; pair < 3; ++pair) {
            int64_t sums = start;
            for (int32_t k = 0; k < 4 * p->quads; ++k) {
                const int8_t w = (int8_t)(weights[k / 4] >> (k % 4 * 8) & 0xffu);
                sums += (int64_t)(int32_t)x[3 * k + pair] * w;
            }
            uint32_t acc[2] = {(uint32_t)pg_conv_thumb2_first(sums), (uint32_t)pg_conv_thumb2_second(sums)};
            for (int32_t i = 0; i < 2; ++i) {
                int8_t *place = to + (2 * pair + i) * pixel + n;
                *place = (int8_t)pg_requantise((int32_t)acc[i], (int32_t)stream[0], &out);
            }
        }
        stream += 1;
    }
}
#endif

#endif /* PG_CONV_THUMB2_PAIRS_S8_Q1_H */

#ifndef PG_POINTWISE_THUMB2_PAIRS_S8_Q1_H
#define PG_POINTWISE_THUMB2_PAIRS_S8_Q1_H

PG_KERNEL void pg_pointwise_thumb2_pairs_s8_q1(const pg_pointwise_thumb2_params *p, const int8_t *x, int8_t *y, void *scratch) {
    pg_pointwise_thumb2_s8(p, x, y, scratch, pg_conv_thumb2_pairs_s8_q1);
}

PG_KERNEL void pg_pointwise_thumb2_pairs_s8_q1_row(const pg_pointwise_thumb2_params *p, const int8_t *const *rows, int8_t *y, void *scratch) {
    pg_pointwise_thumb2_s8_row(p, rows, y, scratch, pg_conv_thumb2_pairs_s8_q1);
}

#endif /* PG_POINTWISE_THUMB2_PAIRS_S8_Q1_H */
