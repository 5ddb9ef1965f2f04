#ifndef PG_LINEAR_MVE_S8_S8_K1_PARTIAL_H
#define PG_LINEAR_MVE_S8_S8_K1_PARTIAL_H

/* y[n] = requantise(bias[n] + sum_k w[n][k] x[k]) of one vector, eight outputs at a time; x may be unaligned.
 *
 * Stream per eight outputs: 8 biases | per 16 inputs 8 rows of 16 weights | multipliers of rows 0, 2, 4, 6,
 * 1, 3, 5, 7. Rows and inputs beyond the matrix have weight 0; x is not read beyond its end, y not written.
 *
 * A vector of inputs costs 17 instructions per 128 products (0.133). */
#if PG_HAS_MVE
PG_NAKED void pg_linear_mve_s8_s8_k1_partial_row(PG_UNUSED const int8_t *x, PG_UNUSED const uint32_t *stream,
    PG_UNUSED int8_t *y, PG_UNUSED const pg_linear_mve_params *p) {
    /* Accumulators of rows 0..7 in r0 r2 r4 r6 r8 r10 r12 lr; r1 stream, r3 inputs of the partial vector,
     * r5 x, r7 y, r9 outputs left, q0 x, q1-q3 weights, r11 zero point.
     * Frame: 12 low, 16 high.
     */
    __asm volatile("push {r4-r11, lr}\n"
                   "sub sp, sp, #20\n"
                   "mov r7, r2\n"
                   "ldrd r9, r11, [r3, #12]\n"
                   "mov r5, r0\n"
                   "movs r3, #1\n"
                   "1: ldm r1!, {r0, r2, r4, r6, r8, r10, r12, lr}\n"
                   "vctp.8 r3\n"
                   "vpst\n"
                   "vldrbt.u8 q0, [r5, #0]\n"
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
                   "vldrw.u32 q2, [r1], #16\n"
                   "vldrw.u32 q3, [r1], #16\n"
                   "vrmulh.s32 q0, q0, q2\n"
                   "vrmulh.s32 q1, q1, q3\n"
                   "vqmovnb.s32 q0, q0\n"
                   "vqmovnt.s32 q0, q1\n"
                   "vqadd.s16 q0, q0, r11\n"
                   "vqmovnb.s16 q0, q0\n"
                   "vctp.16 r9\n"
                   "vpst\n"
                   "vstrbt.16 q0, [r7], #8\n"
                   "subs r9, r9, #8\n"
                   "bgt.w 1b\n"
                   "add sp, sp, #20\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_linear_mve_s8_s8_k1_partial_row(const int8_t *x, const uint32_t *stream, int8_t *y,
    const pg_linear_mve_params *p) {
    const pg_requant out = {
        0, p->zero_point, INT8_MIN, INT8_MAX};
    const int32_t words = 32;
    for (int32_t n = 0; n < p->outputs; ++n) {
        const int32_t row = n % 8;
        const uint32_t *block = stream + n / 8 * (16 + words);
        const uint32_t *weights = block + 8;
        uint32_t acc = block[row];
        for (int32_t k = 0; k < p->inputs; ++k) {
            const int32_t byte = (k / 16 * 8 + row) * 16 + k % 16;
            acc += (uint32_t)(x[k] * (int8_t)(weights[byte / 4] >> (8 * (byte % 4)) & 0xffu));
        }
        const uint32_t multiplier = weights[words + row % 2 * 4 + row / 2];
        y[n] = (int8_t)pg_requantise((int32_t)acc, (int32_t)multiplier, &out);
    }
}
#endif

PG_KERNEL void pg_linear_mve_s8_s8_k1_partial(const pg_linear_mve_params *p, const int8_t *x, int8_t *y) {
    for (int32_t row = 0; row < p->rows; ++row) {
        pg_linear_mve_s8_s8_k1_partial_row(x, p->stream, y, p);
        x += p->inputs;
        y += p->outputs;
    }
}

#endif /* PG_LINEAR_MVE_S8_S8_K1_PARTIAL_H */
