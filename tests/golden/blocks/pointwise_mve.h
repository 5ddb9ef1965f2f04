#ifndef PG_CONV_MVE_S8_S8_1X1_V1_P1_B4_H
#define PG_CONV_MVE_S8_S8_1X1_V1_P1_B4_H

/* Two outputs of 1 neighbouring pixels at a time, block after block:
 * y[p][n] = requantise(bias[n] + sum over 1 lines, 1 taps and 1 vectors of 16 channels).
 * Lines are word-aligned, with 4 bytes a pixel; bytes after the channels may hold anything, as their weights are 0.
 *
 * Stream per two outputs: per line, vector and tap the 16 weights of either output; their biases and
 * halved multipliers, in turn.
 *
 * A line and vector of pixels costs 5 instructions per 32 products (0.156); VQRDMULH with half the multiplier
 * rounds like the multiplier itself, which is even. */
#if PG_HAS_MVE
PG_NAKED void pg_conv_mve_s8_s8_1x1_v1_p1_b4(PG_UNUSED const void *const *lines, PG_UNUSED const uint32_t *stream,
    PG_UNUSED void *y, PG_UNUSED const pg_conv_mve_block *p, PG_UNUSED int32_t blocks, PG_UNUSED const int8_t *residual) {
    /* Accumulators in r0 r2, r4 r6, r8 r10, r12 lr (two outputs, pixel by pixel); r1 stream, r3 line, r11 a place
     * farther along it; q0-q4 pixels, q6 q7 weights, q5 offsets of the eight outputs; r7 y,
     * r5 zero point, r9 end of the outputs.
     * Frame: lines, 4 stream, 8 bytes of a pixel's outputs, 12 p; 120 blocks left. */
    __asm volatile("push {r4-r11, lr}\n"
                   "vpush {d8-d15}\n"
                   "sub sp, sp, #20\n"
                   "ldr r4, [r0, #0]\n"
                   "str r4, [sp, #0]\n"
                   "ldrd r4, r5, [r3]\n"
                   "strd r1, r4, [sp, #4]\n"
                   "str r3, [sp, #12]\n"
                   "vldrh.u16 q5, [r3, #12]\n"
                   "mov r7, r2\n"
                   "1: ldrd r1, r9, [sp, #4]\n"
                   "add r9, r9, r7\n"
                   "ldr r3, [sp]\n"
                   "2:\n"
                   "vldrw.u32 q0, [r3, #0]\n"
                   "vldrb.u8 q6, [r1], #16\n"
                   "vldrb.u8 q7, [r1], #16\n"
                   "vmladav.s8 r0, q0, q6\n"
                   "vmladav.s8 r2, q0, q7\n"
                   "vmov q0[2], q0[0], r0, r0\n"
                   "vmov q0[3], q0[1], r0, r0\n"
                   "vmov q1[2], q1[0], r2, r2\n"
                   "vmov q1[3], q1[1], r2, r2\n"
                   "ldm r1!, {r0, r2, r4, r6}\n"
                   "vadd.i32 q0, q0, r0\n"
                   "vadd.i32 q1, q1, r4\n"
                   "vqrdmulh.s32 q0, q0, r2\n"
                   "vqrdmulh.s32 q1, q1, r6\n"
                   "vqmovnb.s32 q0, q0\n"
                   "vqmovnt.s32 q0, q1\n"
                   "vqadd.s16 q0, q0, r5\n"
                   "vqmovnb.s16 q0, q0\n"
                   "vstrb.16 q0, [r7, q5]\n"
                   "adds r7, r7, #2\n"
                   "cmp r7, r9\n"
                   "bne.w 2b\n"
                   "ldr r9, [sp, #12]\n"
                   "ldrd r10, r11, [r9, #28]\n"
                   "ldr r0, [sp, #0]\n"
                   "add r0, r0, r10\n"
                   "str r0, [sp, #0]\n"
                   "add r7, r7, r11\n"
                   "ldr r0, [sp, #120]\n"
                   "subs r0, r0, #1\n"
                   "str r0, [sp, #120]\n"
                   "bne.w 1b\n"
                   "add sp, sp, #20\n"
                   "vpop {d8-d15}\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_conv_mve_s8_s8_1x1_v1_p1_b4(const void *const *lines, const uint32_t *stream, void *y,
    const pg_conv_mve_block *p, int32_t blocks, const int8_t *residual) {
    int8_t *to = (int8_t *)y;
    const uint32_t places[4] = {p->pixel0, p->pixel1, p->pixel2, p->pixel3};
    static const int32_t columns[] = {0};
    const pg_requant out = {
        0, p->zero_point, INT8_MIN, INT8_MAX};
    const int32_t outputs = p->span / 1;
    for (int32_t b = 0; b < blocks; ++b) {
        const uint32_t *w = stream;
        for (int32_t n = 0; n < outputs; n += 2) {
            const uint32_t *end = w + 8;
            
            for (int32_t i = 0; i < 2; ++i) {
                uint32_t acc = end[i % 2 * 2];
                const int8_t *weight = (const int8_t *)w + i % 2 * 16;
                for (int32_t line = 0; line < 1; ++line) {
                    for (int32_t v = 0; v < 1; ++v) {
                        for (int32_t tap = 0; tap < 1; ++tap) {
                            const int8_t *pixel = (const int8_t *)lines[line] + b * (p->line_step / 1) + v * 16
                                + columns[tap * 1 + i / 2] * 4;
                            for (int32_t k = 0; k < 16; ++k) {
                                acc += (uint32_t)(weight[k] * pixel[k]);
                            }
                            weight += 32;
                        }
                    }
                }
                const int32_t at = n + (int32_t)(places[i / 2] >> (i % 2 * 16) & 0xffffu) / 1;
                const int32_t value = pg_requantise((int32_t)acc, (int32_t)(2u * end[i % 2 * 2 + 1]), &out);
                to[at] = (int8_t)value;
            }
            w = end + 4;
        }
        to += (p->span + p->y_step) / 1;
    }
    (void)residual;
}
#endif

#endif /* PG_CONV_MVE_S8_S8_1X1_V1_P1_B4_H */

#ifndef PG_POINTWISE_MVE_S8_S8_V1_P1_B4_H
#define PG_POINTWISE_MVE_S8_S8_V1_P1_B4_H

PG_KERNEL void pg_pointwise_mve_s8_s8_v1_p1_b4(const pg_pointwise_mve_params *p, const int8_t *x, int8_t *y, void *scratch) {
    pg_pointwise_mve(p, pg_conv_mve_s8_s8_1x1_v1_p1_b4, x, (const int8_t *)y, y, scratch);
}

/* One row of a streamed segment. */
PG_KERNEL void pg_pointwise_mve_s8_s8_v1_p1_b4_row(const pg_pointwise_mve_params *p, const int8_t *const *rows, int8_t *y, void *scratch) {
    pg_pointwise_mve_row(p, pg_conv_mve_s8_s8_1x1_v1_p1_b4, rows, (const int8_t *)y, y, scratch);
}

#endif /* PG_POINTWISE_MVE_S8_S8_V1_P1_B4_H */
