#ifndef PG_DEPTHWISE_DSP_3_1_6_5_16_16_40_8_3_0_0_H
#define PG_DEPTHWISE_DSP_3_1_6_5_16_16_40_8_3_0_0_H

/* One channel, 6x5 outputs, kernel 3x3, stride 1 down, over a plane of int16 columns: word i of a column
 * holds padded rows 2 i and 2 i + 1.
 * Words a = (r0, r1) and b = (r2, r3) and the weights (w0, w1), (w1, w2) give two outputs of one column tap:
 * r0 w0 + r1 w1 + r2 w2 = a.(w0, w1) + b.low w2 and r1 w0 + r2 w1 + r3 w2 = a.high w0 + b.(w1, w2).
 * Table, words: per column tap (w0, w1), (w1, w2); bias; multiplier. */
#if PG_HAS_DSP
PG_NAKED void pg_depthwise_dsp_3_1_6_5_16_16_40_8_3_0_0(PG_UNUSED const uint32_t *plane, PG_UNUSED const uint32_t *table,
    PG_UNUSED int8_t *y, PG_UNUSED const pg_depthwise_dsp_out *p) {
    /* r0 plane, r1 r9 accumulators, r2 y, r3-r8 weights, r10 multiplier, r11 zero point, r12 lr operand.
     * Frame: 0 bias, 4 columns left, 8 end of the column, 12 low, 16 high. */
    __asm volatile("push {r4-r11, lr}\n"
                   "sub sp, sp, #20\n"
                   "ldr r11, [r3]\n"
                   "ldmia.w r1!, {r3-r8}\n"
                   "ldrd r9, r10, [r1]\n"
                   "str r9, [sp]\n"
                   "movw r9, #5\n"
                   "1: str r9, [sp, #4]\n"
                   "ldr r1, [sp]\n"
                   "ldrd r12, lr, [r0, #0]\n"
                   "smlad r9, lr, r4, r1\n"
                   "smlad r1, r12, r3, r1\n"
                   "smlatb r9, r12, r3, r9\n"
                   "smlabt r1, lr, r4, r1\n"
                   "ldrd r12, lr, [r0, #16]\n"
                   "smlad r9, lr, r6, r9\n"
                   "smlad r1, r12, r5, r1\n"
                   "smlatb r9, r12, r5, r9\n"
                   "smlabt r1, lr, r6, r1\n"
                   "ldrd r12, lr, [r0, #32]\n"
                   "smlad r9, lr, r8, r9\n"
                   "smlad r1, r12, r7, r1\n"
                   "smlatb r9, r12, r7, r9\n"
                   "smlabt r1, lr, r8, r1\n"
                   "smmlar r1, r1, r10, r11\n"
                   "ssat r1, #8, r1\n"
                   "smmlar r9, r9, r10, r11\n"
                   "ssat r9, #8, r9\n"
                   "strb r1, [r2, #0]\n"
                   "strb r9, [r2, #40]\n"
                   "ldr r1, [sp]\n"
                   "ldrd r12, lr, [r0, #4]\n"
                   "smlad r9, lr, r4, r1\n"
                   "smlad r1, r12, r3, r1\n"
                   "smlatb r9, r12, r3, r9\n"
                   "smlabt r1, lr, r4, r1\n"
                   "ldrd r12, lr, [r0, #20]\n"
                   "smlad r9, lr, r6, r9\n"
                   "smlad r1, r12, r5, r1\n"
                   "smlatb r9, r12, r5, r9\n"
                   "smlabt r1, lr, r6, r1\n"
                   "ldrd r12, lr, [r0, #36]\n"
                   "smlad r9, lr, r8, r9\n"
                   "smlad r1, r12, r7, r1\n"
                   "smlatb r9, r12, r7, r9\n"
                   "smlabt r1, lr, r8, r1\n"
                   "smmlar r1, r1, r10, r11\n"
                   "ssat r1, #8, r1\n"
                   "smmlar r9, r9, r10, r11\n"
                   "ssat r9, #8, r9\n"
                   "strb r1, [r2, #80]\n"
                   "strb r9, [r2, #120]\n"
                   "ldr r1, [sp]\n"
                   "ldrd r12, lr, [r0, #8]\n"
                   "smlad r9, lr, r4, r1\n"
                   "smlad r1, r12, r3, r1\n"
                   "smlatb r9, r12, r3, r9\n"
                   "smlabt r1, lr, r4, r1\n"
                   "ldrd r12, lr, [r0, #24]\n"
                   "smlad r9, lr, r6, r9\n"
                   "smlad r1, r12, r5, r1\n"
                   "smlatb r9, r12, r5, r9\n"
                   "smlabt r1, lr, r6, r1\n"
                   "ldrd r12, lr, [r0, #40]\n"
                   "smlad r9, lr, r8, r9\n"
                   "smlad r1, r12, r7, r1\n"
                   "smlatb r9, r12, r7, r9\n"
                   "smlabt r1, lr, r8, r1\n"
                   "smmlar r1, r1, r10, r11\n"
                   "ssat r1, #8, r1\n"
                   "smmlar r9, r9, r10, r11\n"
                   "ssat r9, #8, r9\n"
                   "strb r1, [r2, #160]\n"
                   "strb r9, [r2, #200]\n"
                   "addw r2, r2, #240\n"
                   "addw r0, r0, #12\n"
                   "subw r2, r2, #232\n"
                   "addw r0, r0, #4\n"
                   "ldr r9, [sp, #4]\n"
                   "subs r9, r9, #1\n"
                   "bne.w 1b\n"
                   "add sp, sp, #20\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_depthwise_dsp_3_1_6_5_16_16_40_8_3_0_0(const uint32_t *plane, const uint32_t *table, int8_t *y, const pg_depthwise_dsp_out *p) {
    const pg_requant out = { 0, p->zero_point, INT8_MIN, INT8_MAX};
    for (int32_t column = 0; column < 5; ++column) {
        for (int32_t row = 0; row < 6; ++row) {
            int32_t acc = (int32_t)table[6];
            for (int32_t kx = 0; kx < 3; ++kx) {
                const int16_t *x = (const int16_t *)plane + column * 8 + kx * 8 + 1 * row;
                const int16_t *w = (const int16_t *)(table + 2 * kx);
                acc += x[0] * w[0] + x[1] * w[1] + x[2] * w[3];
            }
            y[row * 40 + column * 8] = (int8_t)pg_requantise(acc, (int32_t)table[7], &out);
        }
    }
}
#endif

#endif /* PG_DEPTHWISE_DSP_3_1_6_5_16_16_40_8_3_0_0_H */

#ifndef PG_DEPTHWISE_DSP_3_1_6_5_16_16_40_8_3_0_0_MAP_H
#define PG_DEPTHWISE_DSP_3_1_6_5_16_16_40_8_3_0_0_MAP_H

PG_KERNEL void pg_depthwise_dsp_3_1_6_5_16_16_40_8_3_0_0_map(const pg_depthwise_dsp_params *p, const int8_t *x, int8_t *y, void *scratch) {
    pg_depthwise_dsp_map(p, x, y, scratch, pg_depthwise_dsp_3_1_6_5_16_16_40_8_3_0_0);
}

#endif /* PG_DEPTHWISE_DSP_3_1_6_5_16_16_40_8_3_0_0_MAP_H */
