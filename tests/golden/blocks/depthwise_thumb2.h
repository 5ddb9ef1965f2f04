#ifndef PG_DEPTHWISE_THUMB2_PLANE_6_40_5_8_28_1_1_4_H
#define PG_DEPTHWISE_THUMB2_PLANE_6_40_5_8_28_1_1_4_H

/* One channel of a map of 6 rows as words: 5 columns, each of words (row i, row i + 1), the first one's first
 * value being padding; after the last row comes padding again. */
#if PG_HAS_THUMB2
PG_NAKED void pg_depthwise_thumb2_plane_6_40_5_8_28_1_1_4(PG_UNUSED const int8_t *x, PG_UNUSED uint32_t *to) {
    /* r0 x, r1 to, r4-r11 values, then words, r12 values that the next word begins with. Frame: 0 columns left, 4 loops. */
    __asm volatile("push {r4-r11, lr}\n"
                   "sub sp, sp, #12\n"
                   "movw r2, #5\n"
                   "str r2, [sp]\n"
                   "1:\n"
                   "mov r12, #4\n"
                   "ldrsb r4, [r0, #0]\n"
                   "ldrsb r5, [r0, #40]\n"
                   "ldrsb r6, [r0, #80]\n"
                   "ldrsb r7, [r0, #120]\n"
                   "ldrsb r8, [r0, #160]\n"
                   "ldrsb r9, [r0, #200]\n"
                   "addw r0, r0, #240\n"
                   "mov r2, r9\n"
                   "add r9, r8, r9, lsl #23\n"
                   "add r8, r7, r8, lsl #23\n"
                   "add r7, r6, r7, lsl #23\n"
                   "add r6, r5, r6, lsl #23\n"
                   "add r5, r4, r5, lsl #23\n"
                   "add r4, r12, r4, lsl #23\n"
                   "stmia.w r1!, {r4-r9}\n"
                   "mov r12, r2\n"
                   "mov r2, #4\n"
                   "add r12, r12, r2, lsl #23\n"
                   "str r12, [r1], #4\n"
                   "ldr r2, [sp]\n"
                   "subw r0, r0, #232\n"
                   "subs r2, r2, #1\n"
                   "str r2, [sp]\n"
                   "bne.w 1b\n"
                   "add sp, sp, #12\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_depthwise_thumb2_plane_6_40_5_8_28_1_1_4(const int8_t *x, uint32_t *to) {
    for (int32_t column = 0; column < 5; ++column) {
        for (int32_t i = -1; i < 6; ++i) {
            const int32_t second = i + 1;
            to[i + 1] = pg_depthwise_thumb2_word(i < 0 ? 4 : x[(i < 0 ? 0 : i) * 40],
                second >= 6 ? 4 : x[(second >= 6 ? 0 : second) * 40]);
        }
        x += 8;
        to += 7;
    }
}
#endif

#endif /* PG_DEPTHWISE_THUMB2_PLANE_6_40_5_8_28_1_1_4_H */

#ifndef PG_DEPTHWISE_THUMB2_3_1_6_5_28_28_40_8_0_0_H
#define PG_DEPTHWISE_THUMB2_3_1_6_5_28_28_40_8_0_0_H

/* 6x5 outputs of one channel, kernel 3x3, stride 1: four vertical neighbours at a time, two in a sum.
 *
 * Table, words: start value of both sums, low and high word | per column of the kernel its three weights | m.
 *
 * 8 instructions per column of the kernel for 12 products. */
#if PG_HAS_THUMB2
PG_NAKED void pg_depthwise_thumb2_3_1_6_5_28_28_40_8_0_0(PG_UNUSED const uint32_t *plane, PG_UNUSED const uint32_t *table,
    PG_UNUSED int8_t *y, PG_UNUSED const pg_depthwise_thumb2_out *p) {
    /* r0 plane, r1 table, r4 r5 and r6 r7 sums, r8-r10 weights, r2 r3 r11 r12 lr words of the plane. Then r10 r4 r11 r6
     * the four sums, r2 y, r8 multiplier, r9 zero point.
     * Frame: 0 y, 4 blocks left, 8 zero point, 12 columns left, 16 low, 20 high. */
    __asm volatile("push {r4-r11, lr}\n"
                   "sub sp, sp, #28\n"
                   "movw r5, #5\n"
                   "ldr r4, [r3]\n"
                   "strd r4, r5, [sp, #8]\n"
                   "str r2, [sp]\n"
                   "1:\n"
                   "ldmia.w r1!, {r4, r5}\n"
                   "mov r6, r4\n"
                   "mov r7, r5\n"
                   "ldmia.w r1!, {r8-r10}\n"
                   "ldmia.w r0, {r2, r3, r11, r12, lr}\n"
                   "smlal r4, r5, r2, r8\n"
                   "smlal r4, r5, r3, r9\n"
                   "smlal r4, r5, r11, r10\n"
                   "smlal r6, r7, r11, r8\n"
                   "smlal r6, r7, r12, r9\n"
                   "smlal r6, r7, lr, r10\n"
                   "addw r0, r0, #28\n"
                   "ldmia.w r1!, {r8-r10}\n"
                   "ldmia.w r0, {r2, r3, r11, r12, lr}\n"
                   "smlal r4, r5, r2, r8\n"
                   "smlal r4, r5, r3, r9\n"
                   "smlal r4, r5, r11, r10\n"
                   "smlal r6, r7, r11, r8\n"
                   "smlal r6, r7, r12, r9\n"
                   "smlal r6, r7, lr, r10\n"
                   "addw r0, r0, #28\n"
                   "ldmia.w r1!, {r8-r10}\n"
                   "ldmia.w r0, {r2, r3, r11, r12, lr}\n"
                   "smlal r4, r5, r2, r8\n"
                   "smlal r4, r5, r3, r9\n"
                   "smlal r4, r5, r11, r10\n"
                   "smlal r6, r7, r11, r8\n"
                   "smlal r6, r7, r12, r9\n"
                   "smlal r6, r7, lr, r10\n"
                   "subw r0, r0, #40\n"
                   "ldr r8, [r1], #-44\n"
                   "sbfx r10, r4, #0, #23\n"
                   "lsrs.w r4, r4, #23\n"
                   "adc r4, r4, r5, lsl #9\n"
                   "sbfx r11, r6, #0, #23\n"
                   "lsrs.w r6, r6, #23\n"
                   "adc r6, r6, r7, lsl #9\n"
                   "ldrd r2, r3, [sp]\n"
                   "ldr r9, [sp, #8]\n"
                   "smull r5, r10, r10, r8\n"
                   "lsls.w r5, r5, #1\n"
                   "adc r10, r10, r9\n"
                   "ssat r10, #8, r10\n"
                   "strb r10, [r2, #0]\n"
                   "smull r5, r4, r4, r8\n"
                   "lsls.w r5, r5, #1\n"
                   "adc r4, r4, r9\n"
                   "ssat r4, #8, r4\n"
                   "strb r4, [r2, #40]\n"
                   "smull r5, r11, r11, r8\n"
                   "lsls.w r5, r5, #1\n"
                   "adc r11, r11, r9\n"
                   "ssat r11, #8, r11\n"
                   "strb r11, [r2, #80]\n"
                   "smull r5, r6, r6, r8\n"
                   "lsls.w r5, r5, #1\n"
                   "adc r6, r6, r9\n"
                   "ssat r6, #8, r6\n"
                   "strb r6, [r2, #120]\n"
                   "addw r2, r2, #160\n"
                   "str r2, [sp]\n"
                   "ldmia.w r1!, {r4, r5}\n"
                   "ldmia.w r1!, {r8-r10}\n"
                   "ldmia.w r0, {r2, r3, r11}\n"
                   "smlal r4, r5, r2, r8\n"
                   "smlal r4, r5, r3, r9\n"
                   "smlal r4, r5, r11, r10\n"
                   "addw r0, r0, #28\n"
                   "ldmia.w r1!, {r8-r10}\n"
                   "ldmia.w r0, {r2, r3, r11}\n"
                   "smlal r4, r5, r2, r8\n"
                   "smlal r4, r5, r3, r9\n"
                   "smlal r4, r5, r11, r10\n"
                   "addw r0, r0, #28\n"
                   "ldmia.w r1!, {r8-r10}\n"
                   "ldmia.w r0, {r2, r3, r11}\n"
                   "smlal r4, r5, r2, r8\n"
                   "smlal r4, r5, r3, r9\n"
                   "smlal r4, r5, r11, r10\n"
                   "subw r0, r0, #48\n"
                   "ldr r8, [r1], #-44\n"
                   "sbfx r10, r4, #0, #23\n"
                   "lsrs.w r4, r4, #23\n"
                   "adc r4, r4, r5, lsl #9\n"
                   "ldr r2, [sp]\n"
                   "ldr r9, [sp, #8]\n"
                   "smull r5, r10, r10, r8\n"
                   "lsls.w r5, r5, #1\n"
                   "adc r10, r10, r9\n"
                   "ssat r10, #8, r10\n"
                   "strb r10, [r2, #0]\n"
                   "smull r5, r4, r4, r8\n"
                   "lsls.w r5, r5, #1\n");
    __asm volatile("adc r4, r4, r9\n"
                   "ssat r4, #8, r4\n"
                   "strb r4, [r2, #40]\n"
                   "addw r2, r2, #80\n"
                   "subw r2, r2, #232\n"
                   "addw r0, r0, #4\n"
                   "ldr r3, [sp, #12]\n"
                   "subs r3, r3, #1\n"
                   "str r3, [sp, #12]\n"
                   "str r2, [sp]\n"
                   "bne.w 1b\n"
                   "add sp, sp, #28\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_depthwise_thumb2_3_1_6_5_28_28_40_8_0_0(const uint32_t *plane, const uint32_t *table, int8_t *y,
    const pg_depthwise_thumb2_out *p) {
    const pg_requant out = {0, p->zero_point, INT8_MIN, INT8_MAX};
    const int64_t start = (int64_t)((uint64_t)table[1] << 32 | table[0]);
    for (int32_t column = 0; column < 5; ++column) {
        for (int32_t oy = 0; oy < 6; oy += 2) {
            const uint32_t *words = plane + column * 7 + oy * 1;
            int64_t sums = start;
            for (int32_t kx = 0; kx < 3; ++kx) {
                for (int32_t ky = 0; ky < 3; ++ky) {
                    sums += (int64_t)(int32_t)words[kx * 7 + ky] * (int32_t)table[2 + 3 * kx + ky];
                }
            }
            int8_t *to = y + oy * 40 + column * 8;
            const int32_t m = (int32_t)table[11];
            to[0] = (int8_t)pg_requantise(pg_depthwise_thumb2_first(sums), m, &out);
            if (oy + 1 < 6) {
                to[40] = (int8_t)pg_requantise(pg_depthwise_thumb2_second(sums), m, &out);
            }
        }
    }
}
#endif

#endif /* PG_DEPTHWISE_THUMB2_3_1_6_5_28_28_40_8_0_0_H */

#ifndef PG_DEPTHWISE_THUMB2_3_1_6_5_28_28_40_8_0_0_OF_6_40_5_8_28_1_1_4_H
#define PG_DEPTHWISE_THUMB2_3_1_6_5_28_28_40_8_0_0_OF_6_40_5_8_28_1_1_4_H

PG_KERNEL void pg_depthwise_thumb2_3_1_6_5_28_28_40_8_0_0_of_6_40_5_8_28_1_1_4(const pg_depthwise_thumb2_params *p, const int8_t *x, int8_t *y, void *scratch) {
    pg_depthwise_thumb2_map(p, x, y, scratch, pg_depthwise_thumb2_plane_6_40_5_8_28_1_1_4, pg_depthwise_thumb2_3_1_6_5_28_28_40_8_0_0);
}

#endif /* PG_DEPTHWISE_THUMB2_3_1_6_5_28_28_40_8_0_0_OF_6_40_5_8_28_1_1_4_H */
