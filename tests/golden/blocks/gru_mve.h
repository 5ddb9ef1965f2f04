#ifndef PG_GRU_MVE_BCF32570_H
#define PG_GRU_MVE_BCF32570_H

/* GRU step, 1 -> 1, gates r, z, n from the operand in the state.
 * Weights per eight units [vector][unit][lanes] of r, z, the input part of n, its recurrent part; table: starts and
 * multipliers of r, of z, both starts of n and its multipliers. Multipliers stand as units 0, 2, 4, 6, then
 * 1, 3, 5, 7; starts of n likewise where its products are shifted. */
#if PG_HAS_MVE
PG_NAKED void pg_gru_mve_bcf32570_cells(PG_UNUSED const int8_t *operand, PG_UNUSED const int8_t *weights,
                                   PG_UNUSED const int32_t *table, PG_UNUSED int8_t *y,
                                   PG_UNUSED int16_t *hidden, PG_UNUSED const int16_t *gather) {
    /* even registers and lr accumulators, r1 weights, r3 operand, r5 table, r7 loop, r9 gates left, r11 arguments;
     * for the activations r9 and r11 the tanh table and its differences; q4 reset gate, q7 32767. Frame: 0 operand,
     * 4 y, 8 hidden, 12 tanh table, 16 units left, 20 arguments of r and z, 52 input part of n. */
    __asm volatile("push {r4-r11, lr}\n"
                   "vpush {d8-d15}\n"
                   "sub sp, sp, #84\n"
                   "ldrd r4, r6, [sp, #184]\n"
                   "movw r7, #1\n"
                   "mov r5, r2\n"
                   "addw r0, r0, #0\n"
                   "strd r0, r3, [sp]\n"
                   "strd r4, r6, [sp, #8]\n"
                   "str r7, [sp, #16]\n"
                   "movw r0, #32767\n"
                   "vdup.16 q7, r0\n"
                   "1: add r11, sp, #20\n"
                   "movs r9, #2\n"
                   "2:\n"
                   "ldmia r5!, {r0, r2, r4, r6, r8, r10, r12, lr}\n"
                   "ldr r3, [sp]\n");
    __asm volatile(""
                   "vldrw.u32 q0, [r3], #16\n"
                   "vldrb.u8 q1, [r1], #16\n"
                   "vmladava.s8 r0, q0, q1\n"
                   "vldrb.u8 q2, [r1], #16\n"
                   "vmladava.s8 r2, q0, q2\n"
                   "vldrb.u8 q3, [r1], #16\n"
                   "vmladava.s8 r4, q0, q3\n"
                   "vldrb.u8 q1, [r1], #16\n"
                   "vmladava.s8 r6, q0, q1\n"
                   "vldrb.u8 q2, [r1], #16\n"
                   "vmladava.s8 r8, q0, q2\n"
                   "vldrb.u8 q3, [r1], #16\n"
                   "vmladava.s8 r10, q0, q3\n"
                   "vldrb.u8 q1, [r1], #16\n"
                   "vmladava.s8 r12, q0, q1\n"
                   "vldrb.u8 q2, [r1], #16\n"
                   "vmladava.s8 lr, q0, q2\n"
                   "vmov q0[2], q0[0], r0, r8\n"
                   "vmov q0[3], q0[1], r4, r12\n"
                   "vmov q1[2], q1[0], r2, r10\n"
                   "vmov q1[3], q1[1], r6, lr\n");
    __asm volatile(""
                   "vshl.i32 q0, q0, #1\n"
                   "vshl.i32 q1, q1, #1\n"
                   "vldrw.u32 q2, [r5], #16\n"
                   "vrmulh.s32 q0, q0, q2\n"
                   "vldrw.u32 q2, [r5], #16\n"
                   "vrmulh.s32 q1, q1, q2\n"
                   "vqmovnb.s32 q0, q0\n"
                   "vqmovnt.s32 q0, q1\n"
                   "vstrh.16 q0, [r11], #16\n"
                   "subs r9, r9, #1\n"
                   "bne.w 2b\n"
                   "ldmia r5!, {r0, r2, r4, r6, r8, r10, r12, lr}\n"
                   "ldr r3, [sp]\n");
    __asm volatile(""
                   "vldrw.u32 q0, [r3], #16\n"
                   "vldrb.u8 q1, [r1], #16\n"
                   "vmladava.s8 r0, q0, q1\n"
                   "vldrb.u8 q2, [r1], #16\n"
                   "vmladava.s8 r2, q0, q2\n"
                   "vldrb.u8 q3, [r1], #16\n"
                   "vmladava.s8 r4, q0, q3\n"
                   "vldrb.u8 q1, [r1], #16\n"
                   "vmladava.s8 r6, q0, q1\n"
                   "vldrb.u8 q2, [r1], #16\n"
                   "vmladava.s8 r8, q0, q2\n"
                   "vldrb.u8 q3, [r1], #16\n"
                   "vmladava.s8 r10, q0, q3\n"
                   "vldrb.u8 q1, [r1], #16\n"
                   "vmladava.s8 r12, q0, q1\n"
                   "vldrb.u8 q2, [r1], #16\n"
                   "vmladava.s8 lr, q0, q2\n"
                   "vmov q0[2], q0[0], r0, r8\n"
                   "vmov q0[3], q0[1], r4, r12\n"
                   "vmov q1[2], q1[0], r2, r10\n"
                   "vmov q1[3], q1[1], r6, lr\n"
                   "add r3, sp, #52\n"
                   "vstrw.32 q0, [r3]\n"
                   "vstrw.32 q1, [r3, #16]\n"
                   "ldmia r5!, {r0, r2, r4, r6, r8, r10, r12, lr}\n"
                   "ldr r3, [sp]\n");
    __asm volatile(""
                   "vldrw.u32 q0, [r3], #16\n"
                   "vldrb.u8 q1, [r1], #16\n"
                   "vmladava.s8 r0, q0, q1\n"
                   "vldrb.u8 q2, [r1], #16\n"
                   "vmladava.s8 r2, q0, q2\n"
                   "vldrb.u8 q3, [r1], #16\n"
                   "vmladava.s8 r4, q0, q3\n"
                   "vldrb.u8 q1, [r1], #16\n"
                   "vmladava.s8 r6, q0, q1\n"
                   "vldrb.u8 q2, [r1], #16\n"
                   "vmladava.s8 r8, q0, q2\n"
                   "vldrb.u8 q3, [r1], #16\n"
                   "vmladava.s8 r10, q0, q3\n"
                   "vldrb.u8 q1, [r1], #16\n"
                   "vmladava.s8 r12, q0, q1\n"
                   "vldrb.u8 q2, [r1], #16\n"
                   "vmladava.s8 lr, q0, q2\n"
                   "vmov q0[2], q0[0], r0, r8\n"
                   "vmov q0[3], q0[1], r4, r12\n"
                   "vmov q1[2], q1[0], r2, r10\n"
                   "vmov q1[3], q1[1], r6, lr\n"
                   "vmov q5, q0\n"
                   "vmov q6, q1\n"
                   "ldr r9, [sp, #12]\n"
                   "add.w r11, r9, #512\n"
                   "add r3, sp, #20\n"
                   "vldrh.u16 q0, [r3], #16\n"
                   "vshr.u16 q1, q0, #8\n"
                   "vldrh.u16 q4, [r9, q1, uxtw #1]\n"
                   "vldrh.u16 q2, [r11, q1, uxtw #1]\n"
                   "vshl.i16 q0, q0, #8\n"
                   "vrmulh.u16 q2, q2, q0\n"
                   "vadd.i16 q4, q4, q2\n"
                   "vhadd.s16 q4, q4, q7\n" /* r */
                   "vshllb.s16 q0, q4, #16\n"
                   "vshllt.s16 q1, q4, #16\n"
                   "vmulh.s32 q0, q5, q0\n" /* floor(recurrent part * r / 2^16) */
                   "vmulh.s32 q1, q6, q1\n"
                   "add r4, sp, #52\n"
                   "vldrw.u32 q5, [r4]\n"
                   "vldrw.u32 q6, [r4, #16]\n"
                   "vshl.i32 q0, q0, #1\n"
                   "vshl.i32 q1, q1, #1\n"
                   "vadd.i32 q0, q0, q5\n"
                   "vadd.i32 q1, q1, q6\n");
    __asm volatile(""
                   "vshl.i32 q0, q0, #1\n"
                   "vshl.i32 q1, q1, #1\n"
                   "vldrw.u32 q2, [r5], #16\n"
                   "vrmulh.s32 q0, q0, q2\n"
                   "vldrw.u32 q2, [r5], #16\n"
                   "vrmulh.s32 q1, q1, q2\n"
                   "vqmovnb.s32 q0, q0\n"
                   "vqmovnt.s32 q0, q1\n"
                   "vshr.u16 q1, q0, #8\n"
                   "vldrh.u16 q5, [r9, q1, uxtw #1]\n"
                   "vldrh.u16 q2, [r11, q1, uxtw #1]\n"
                   "vshl.i16 q0, q0, #8\n"
                   "vrmulh.u16 q2, q2, q0\n"
                   "vadd.i16 q5, q5, q2\n"
                   "vldrh.u16 q0, [r3]\n"
                   "vshr.u16 q1, q0, #8\n"
                   "vldrh.u16 q6, [r9, q1, uxtw #1]\n"
                   "vldrh.u16 q2, [r11, q1, uxtw #1]\n"
                   "vshl.i16 q0, q0, #8\n"
                   "vrmulh.u16 q2, q2, q0\n"
                   "vadd.i16 q6, q6, q2\n"
                   "ldr r4, [sp, #8]\n"
                   "vhadd.s16 q6, q6, q7\n" /* z */
                   "vldrh.u16 q3, [r4]\n"
                   "vmullb.s16 q0, q6, q3\n"
                   "vmullb.s16 q1, q6, q5\n"
                   "vsub.i32 q0, q0, q1\n" /* z (h - n) of the even units */
                   "vrshrnb.i32 q2, q0, #15\n"
                   "vmullt.s16 q0, q6, q3\n"
                   "vmullt.s16 q1, q6, q5\n"
                   "vsub.i32 q0, q0, q1\n"
                   "vrshrnt.i32 q2, q0, #15\n"
                   "vadd.i16 q5, q5, q2\n"
                   "vstrh.16 q5, [r4], #16\n"
                   "str r4, [sp, #8]\n"
                   "ldr r6, [sp, #16]\n"
                   "ldr r2, [sp, #4]\n"
                   "vctp.16 r6\n"
                   "vqrshrnb.s16 q5, q5, #8\n"
                   "vpst\n"
                   "vstrbt.16 q5, [r2], #8\n"
                   "str r2, [sp, #4]\n"
                   "subs r6, r6, #8\n"
                   "str r6, [sp, #16]\n"
                   "bgt.w 1b\n"
                   "add sp, sp, #84\n"
                   "vpop {d8-d15}\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_gru_mve_bcf32570_cells(const int8_t *operand, const int8_t *weights, const int32_t *table,
                                   int8_t *y, int16_t *hidden, PG_UNUSED const int16_t *gather) {
    for (int32_t unit = 0; unit < 1; unit += 8) {
        int32_t v[2][8];
        int32_t from_x[8];
        int32_t acc[8];
        for (int32_t gate = 0; gate < 2; ++gate) {
            for (int32_t j = 0; j < 8; ++j) {
                acc[j] = table[j];
            }
            weights = pg_eight_rows(acc, weights, operand + 0, 16, false);
            for (int32_t j = 0; j < 8; ++j) {
                v[gate][j] = pg_eight_gate(acc[j], table + 8, j, 1);
            }
            table += 16;
        }
        for (int32_t j = 0; j < 8; ++j) {
            acc[j] = table[j];
        }
        weights = pg_eight_rows(acc, weights, operand + 0, 16, false);
        memcpy(from_x, acc, sizeof from_x);
        table += 8;
        for (int32_t j = 0; j < 8; ++j) {
            acc[j] = table[j];
        }
        weights = pg_eight_rows(acc, weights, operand + 0, 16, false);
        pg_gru_mve_cells(v, from_x, acc, table + 8, 1, 1 - unit, hidden + unit, y + unit);
        table += 16;
    }
}
#endif

PG_KERNEL void pg_gru_mve_bcf32570_reset(const pg_gru_mve_params *p, void *state) {
    pg_gru_mve_start(p, state, 1, 1, 16, 32);
}

/* One step. */
PG_KERNEL void pg_gru_mve_bcf32570(const pg_gru_mve_params *p, void *state, const int8_t *x, int8_t *y) {
    int8_t *operand = (int8_t *)state;
    pg_copy_bytes(operand + 0, x, 1);
    pg_gru_mve_bcf32570_cells(operand, p->gates, p->gate_table, y,
        (int16_t *)(void *)(operand + 16), pg_tanh_gather);
    pg_copy_bytes(operand + 1, y, 1);
}

#endif /* PG_GRU_MVE_BCF32570_H */
