#ifndef PG_WINOGRAD2D_4X8_S8_LOOPED_H
#define PG_WINOGRAD2D_4X8_S8_LOOPED_H

/* All 8 outputs of two tiles of 2x2 pixels, F(2x2, 3x3): 16 products instead of 36 an input channel and tile.
 *
 * Everything is an integer: V = B^T d B of the 4x4 inputs d, U = G g G^T of the 3x3 weights g with
 * G = (2 0 0, 1 1 1, 1 -1 1, 0 0 2), so the sums are exactly 4 times those of the direct convolution, and with a
 * quarter of the multiplier (a multiple of 4) the outputs are the same bytes.
 * With M(i, j) = sum_c U(i, j) V(i, j): P(i) = (M(i,0) + M(i,1) + M(i,2), M(i,1) - M(i,2) - M(i,3)) are the two
 * columns of row i, and the rows are P(0) + P(1) + P(2) and P(1) - P(2) - P(3).
 * V: [i][j][quads][2 tiles][4] int16, i and j in the order 1 2 0 3; U: [i][j][quads][2 outputs][4] int16 in the
 * same order, i = 3 and j = 3 negated. Stream, words: per two outputs 4 bA, 4 bB | U, with mA / 4, mB / 4 after each
 * of the four (i, j) with i and j 0 or 3. */
#if PG_HAS_DSP
PG_NAKED void pg_winograd2d_4x8_s8_looped(PG_UNUSED const uint32_t *v, PG_UNUSED const uint32_t *stream,
    PG_UNUSED void *y, PG_UNUSED const pg_winograd_out *p) {
    /* r0 v, r1 stream, r2 r3 sums of output A (tiles 0, 1), r4 r5 of B, r6-r9 weights, r10-r12 lr operand.
     * Frame: 0 row 0 of y, 4 row 1, 8 end of row 0, 12 zero point, 16 low, 20 high, 24 return,
     * 32 m1 then m1 - m2, 48 64 P(1) then P(1) + P(2), 80 96 P(1) - P(2). */
    __asm volatile("push {r4-r11, lr}\n"
                   "sub sp, sp, #112\n"
                   "ldm r3, {r4-r7}\n"
                   "add r4, r2, r4\n"
                   "movw r8, #8\n"
                   "add r8, r2, r8\n"
                   "strd r2, r4, [sp]\n"
                   "strd r8, r5, [sp, #8]\n"
                   "2: ldmia.w r1!, {r2, r4}\n"
                   "mov r3, r2\n"
                   "mov r5, r4\n"
                   "bl 7f\n"
                   "add r12, sp, #32\n"
                   "stm r12, {r2-r5}\n"
                   "movs r2, #0\n"
                   "movs r3, #0\n"
                   "movs r4, #0\n"
                   "movs r5, #0\n"
                   "bl 7f\n"
                   "add r12, sp, #32\n"
                   "ldm r12, {r6-r9}\n"
                   "sub r10, r6, r2\n"
                   "sub r11, r7, r3\n"
                   "sub lr, r8, r4\n"
                   "sub r9, r9, r5\n"
                   "add r2, r2, r6\n"
                   "add r3, r3, r7\n"
                   "add r4, r4, r8\n"
                   "add r5, r9, r5, lsl #1\n"
                   "strd r10, r11, [sp, #32]\n"
                   "strd lr, r9, [sp, #40]\n"
                   "bl 7f\n"
                   "add r12, sp, #48\n"
                   "stm r12, {r2-r5}\n"
                   "add r12, sp, #32\n"
                   "ldm r12, {r2-r5}\n"
                   "bl 7f\n"
                   "add r12, sp, #64\n"
                   "stm r12, {r2-r5}\n"
                   "movs r2, #0\n"
                   "movs r3, #0\n"
                   "movs r4, #0\n"
                   "movs r5, #0\n"
                   "bl 7f\n"
                   "add r12, sp, #32\n"
                   "stm r12, {r2-r5}\n"
                   "movs r2, #0\n"
                   "movs r3, #0\n"
                   "movs r4, #0\n"
                   "movs r5, #0\n"
                   "bl 7f\n"
                   "add r12, sp, #32\n"
                   "ldm r12, {r6-r9}\n"
                   "sub r10, r6, r2\n"
                   "sub r11, r7, r3\n"
                   "sub lr, r8, r4\n"
                   "sub r9, r9, r5\n"
                   "add r2, r2, r6\n"
                   "add r3, r3, r7\n"
                   "add r4, r4, r8\n"
                   "add r5, r9, r5, lsl #1\n"
                   "strd r10, r11, [sp, #32]\n"
                   "strd lr, r9, [sp, #40]\n"
                   "bl 7f\n"
                   "add r12, sp, #48\n"
                   "ldm r12, {r6-r9}\n"
                   "sub r10, r6, r2\n"
                   "sub r11, r7, r3\n"
                   "add r2, r2, r6\n"
                   "add r3, r3, r7\n"
                   "sub r6, r8, r4\n"
                   "sub r7, r9, r5\n"
                   "add r4, r4, r8\n"
                   "add r5, r5, r9\n"
                   "stm r12, {r2-r5}\n"
                   "strd r10, r11, [sp, #80]\n"
                   "strd r6, r7, [sp, #88]\n"
                   "add r12, sp, #32\n"
                   "ldm r12, {r2-r5}\n"
                   "bl 7f\n"
                   "add r12, sp, #64\n"
                   "ldm r12, {r6-r9}\n"
                   "sub r10, r6, r2\n"
                   "sub r11, r7, r3\n"
                   "add r2, r2, r6\n"
                   "add r3, r3, r7\n"
                   "sub r6, r8, r4\n"
                   "sub r7, r9, r5\n"
                   "add r4, r4, r8\n"
                   "add r5, r5, r9\n"
                   "stm r12, {r2-r5}\n"
                   "strd r10, r11, [sp, #96]\n"
                   "strd r6, r7, [sp, #104]\n"
                   "movs r2, #0\n"
                   "movs r3, #0\n"
                   "movs r4, #0\n"
                   "movs r5, #0\n"
                   "bl 7f\n"
                   "add r12, sp, #32\n"
                   "stm r12, {r2-r5}\n");
    __asm volatile("movs r2, #0\n"
                   "movs r3, #0\n"
                   "movs r4, #0\n"
                   "movs r5, #0\n"
                   "bl 7f\n"
                   "add r12, sp, #32\n"
                   "ldm r12, {r6-r9}\n"
                   "sub r10, r6, r2\n"
                   "sub r11, r7, r3\n"
                   "sub lr, r8, r4\n"
                   "sub r9, r9, r5\n"
                   "add r2, r2, r6\n"
                   "add r3, r3, r7\n"
                   "add r4, r4, r8\n"
                   "add r5, r9, r5, lsl #1\n"
                   "add r12, sp, #64\n"
                   "ldm r12, {r6-r8, r12}\n"
                   "add r10, r10, r6\n"
                   "add r11, r11, r7\n"
                   "add lr, lr, r8\n"
                   "add r9, r9, r12\n"
                   "strd r10, r11, [sp, #32]\n"
                   "strd lr, r9, [sp, #40]\n"
                   "add r12, sp, #48\n"
                   "ldm r12, {r6-r9}\n"
                   "add r2, r2, r6\n"
                   "add r3, r3, r7\n"
                   "add r4, r4, r8\n"
                   "add r5, r5, r9\n"
                   "bl 7f\n"
                   "ldr r7, [sp, #0]\n"
                   "ldmia.w r1!, {r8, r9}\n"
                   "ldr r10, [sp, #12]\n"
                   "smmlar r5, r5, r9, r10\n"
                   "ssat r5, #8, r5\n"
                   "strb r5, [r7, #17]\n"
                   "smmlar r3, r3, r8, r10\n"
                   "ssat r3, #8, r3\n"
                   "strb r3, [r7, #16]\n"
                   "smmlar r4, r4, r9, r10\n"
                   "ssat r4, #8, r4\n"
                   "strb r4, [r7, #1]\n"
                   "smmlar r2, r2, r8, r10\n"
                   "ssat r2, #8, r2\n"
                   "strb r2, [r7, #0]\n"
                   "add r12, sp, #32\n"
                   "ldm r12, {r2-r5}\n"
                   "bl 7f\n"
                   "ldr r7, [sp, #0]\n"
                   "ldmia.w r1!, {r8, r9}\n"
                   "ldr r10, [sp, #12]\n"
                   "smmlar r5, r5, r9, r10\n"
                   "ssat r5, #8, r5\n"
                   "strb r5, [r7, #25]\n"
                   "smmlar r3, r3, r8, r10\n"
                   "ssat r3, #8, r3\n"
                   "strb r3, [r7, #24]\n"
                   "smmlar r4, r4, r9, r10\n"
                   "ssat r4, #8, r4\n"
                   "strb r4, [r7, #9]\n"
                   "smmlar r2, r2, r8, r10\n"
                   "ssat r2, #8, r2\n"
                   "strb r2, [r7, #8]\n"
                   "movs r2, #0\n"
                   "movs r3, #0\n"
                   "movs r4, #0\n"
                   "movs r5, #0\n"
                   "bl 7f\n"
                   "add r12, sp, #32\n"
                   "stm r12, {r2-r5}\n"
                   "movs r2, #0\n"
                   "movs r3, #0\n"
                   "movs r4, #0\n"
                   "movs r5, #0\n"
                   "bl 7f\n"
                   "add r12, sp, #32\n"
                   "ldm r12, {r6-r9}\n"
                   "sub r10, r6, r2\n"
                   "sub r11, r7, r3\n"
                   "sub lr, r8, r4\n"
                   "sub r9, r9, r5\n"
                   "add r2, r2, r6\n"
                   "add r3, r3, r7\n"
                   "add r4, r4, r8\n"
                   "add r5, r9, r5, lsl #1\n"
                   "add r12, sp, #96\n"
                   "ldm r12, {r6-r8, r12}\n"
                   "add r10, r10, r6\n"
                   "add r11, r11, r7\n"
                   "add lr, lr, r8\n"
                   "add r9, r9, r12\n"
                   "strd r10, r11, [sp, #32]\n"
                   "strd lr, r9, [sp, #40]\n"
                   "add r12, sp, #80\n"
                   "ldm r12, {r6-r9}\n"
                   "add r2, r2, r6\n"
                   "add r3, r3, r7\n"
                   "add r4, r4, r8\n"
                   "add r5, r5, r9\n"
                   "bl 7f\n");
    __asm volatile("ldr r7, [sp, #4]\n"
                   "ldmia.w r1!, {r8, r9}\n"
                   "ldr r10, [sp, #12]\n"
                   "smmlar r5, r5, r9, r10\n"
                   "ssat r5, #8, r5\n"
                   "strb r5, [r7, #17]\n"
                   "smmlar r3, r3, r8, r10\n"
                   "ssat r3, #8, r3\n"
                   "strb r3, [r7, #16]\n"
                   "smmlar r4, r4, r9, r10\n"
                   "ssat r4, #8, r4\n"
                   "strb r4, [r7, #1]\n"
                   "smmlar r2, r2, r8, r10\n"
                   "ssat r2, #8, r2\n"
                   "strb r2, [r7, #0]\n"
                   "add r12, sp, #32\n"
                   "ldm r12, {r2-r5}\n"
                   "bl 7f\n"
                   "ldr r7, [sp, #4]\n"
                   "ldmia.w r1!, {r8, r9}\n"
                   "ldr r10, [sp, #12]\n"
                   "smmlar r5, r5, r9, r10\n"
                   "ssat r5, #8, r5\n"
                   "strb r5, [r7, #25]\n"
                   "smmlar r3, r3, r8, r10\n"
                   "ssat r3, #8, r3\n"
                   "strb r3, [r7, #24]\n"
                   "smmlar r4, r4, r9, r10\n"
                   "ssat r4, #8, r4\n"
                   "strb r4, [r7, #9]\n"
                   "smmlar r2, r2, r8, r10\n"
                   "ssat r2, #8, r2\n"
                   "strb r2, [r7, #8]\n"
                   "ldrd r7, r8, [sp]\n"
                   "adds r7, r7, #2\n"
                   "add r8, r8, #2\n"
                   "strd r7, r8, [sp]\n"
                   "ldr r9, [sp, #8]\n"
                   "subw r0, r0, #256\n"
                   "cmp r7, r9\n"
                   "bne.w 2b\n"
                   "add sp, sp, #112\n"
                   "pop {r4-r11, pc}\n"
                   ".p2align 2\n"
                   "7: str lr, [sp, #24]\n"
                   "ldmia.w r1!, {r6-r9}\n"
                   "ldmia.w r0!, {r10-r12, lr}\n"
                   "smlad r3, r12, r6, r3\n"
                   "smlad r5, r12, r8, r5\n"
                   "smlad r3, lr, r7, r3\n"
                   "smlad r5, lr, r9, r5\n"
                   "smlad r2, r10, r6, r2\n"
                   "smlad r4, r10, r8, r4\n"
                   "smlad r2, r11, r7, r2\n"
                   "smlad r4, r11, r9, r4\n"
                   "ldr.w pc, [sp, #24]\n");
}
#else
PG_KERNEL void pg_winograd2d_4x8_s8_looped(const uint32_t *v, const uint32_t *stream, void *y, const pg_winograd_out *p) {
    const pg_requant out = { 0, p->zero_point, INT8_MIN, INT8_MAX};
    for (int32_t n = 0; n < 8; n += 2) {
        uint32_t m[4][4][4]; /* i, j in processing order; 2 * output + tile */
        const uint32_t *u = stream + 2;
        const uint32_t *multipliers = u;
        for (int32_t i = 0; i < 4; ++i) {
            for (int32_t j = 0; j < 4; ++j) {
                for (int32_t k = 0; k < 4; ++k) {
                    m[i][j][k] = i == 0 && j == 0 ? stream[k / 2] : 0u;
                    m[i][j][k] += pg_winograd_dot(v + (4 * i + j) * 4 + 2 * (k % 2), u + 2 * (k / 2), 1);
                }
                u += 4;
                if (i >= 2 && j >= 2) {
                    multipliers = u;
                    u += 2;
                }
            }
        }
        for (int32_t k = 0; k < 4; ++k) {
            const int32_t multiplier = (int32_t)multipliers[k / 2];
            for (int32_t px = 0; px < 2; ++px) {
                uint32_t column[4];
                for (int32_t i = 0; i < 4; ++i) {
                    column[i] = px == 0 ? m[i][0][k] + m[i][1][k] + m[i][2][k] : m[i][0][k] - m[i][1][k] + m[i][3][k];
                }
                int8_t *to = (int8_t *)y + (2 * (k % 2) + px) * 8 + n + k / 2;
                uint32_t upper = column[0] + column[1] + column[2];
                uint32_t lower = column[0] - column[1] + column[3];
                to[0] = (int8_t)pg_requantise((int32_t)upper, multiplier, &out);
                to[p->row / 1] = (int8_t)pg_requantise((int32_t)lower, multiplier, &out);
            }
        }
        stream = u;
    }
}
#endif

#endif /* PG_WINOGRAD2D_4X8_S8_LOOPED_H */

#ifndef PG_WINOGRAD2D_INPUT_S8_4X10_H
#define PG_WINOGRAD2D_INPUT_S8_4X10_H

/* Input transform of F(2x2, 3x3), down `columns` columns: four int8 rows [column][4] to
 * t[1 quads][10][4 i][4] int16, skip bytes from a quad's last column to the next one's first:
 * t(0) = d0 - d2, t(1) = d1 + d2, t(2) = d2 - d1, t(3) = d1 - d3; channels of a quad in the order 0 2 1 3. */
#if PG_HAS_DSP
PG_NAKED void pg_winograd2d_input_s8_4x10_rows(PG_UNUSED const void *const *rows, PG_UNUSED uint32_t *t, PG_UNUSED int32_t columns,
    PG_UNUSED int32_t skip) {
    /* r0 r2 r3 r4 rows, r1 t, r5-r12 four pixels, lr columns left. Frame: 0-12 rows, 16 quads left, 20 columns,
     * 24 skip. */
    __asm volatile("push {r4-r11, lr}\n"
                   "sub sp, sp, #28\n"
                   "strd r2, r3, [sp, #20]\n"
                   "ldm r0, {r2-r5}\n"
                   "stm sp, {r2-r5}\n"
                   "movs r6, #1\n"
                   "1: str r6, [sp, #16]\n"
                   "ldr lr, [sp, #20]\n"
                   "ldm sp, {r0, r2, r3, r4}\n"
                   "2:\n"
                   "ldr r6, [r0], #4\n"
                   "sxtb16 r5, r6\n"
                   "sxtb16 r6, r6, ror #8\n"
                   "ldr r8, [r2], #4\n"
                   "sxtb16 r7, r8\n"
                   "sxtb16 r8, r8, ror #8\n"
                   "ldr r10, [r3], #4\n"
                   "sxtb16 r9, r10\n"
                   "sxtb16 r10, r10, ror #8\n"
                   "ldr r12, [r4], #4\n"
                   "sxtb16 r11, r12\n"
                   "sxtb16 r12, r12, ror #8\n"
                   "ssub16 r5, r5, r9\n"
                   "ssub16 r6, r6, r10\n"
                   "strd r5, r6, [r1, #0]\n"
                   "ssub16 r11, r7, r11\n"
                   "ssub16 r12, r8, r12\n"
                   "strd r11, r12, [r1, #24]\n"
                   "sadd16 r5, r7, r9\n"
                   "sadd16 r6, r8, r10\n"
                   "strd r5, r6, [r1, #8]\n"
                   "ssub16 r11, r9, r7\n"
                   "ssub16 r12, r10, r8\n"
                   "strd r11, r12, [r1, #16]\n"
                   "add r1, r1, #32\n"
                   "subs lr, lr, #1\n"
                   "bne 2b\n"
                   "ldm sp, {r2-r5}\n"
                   "add r2, r2, #4\n"
                   "add r3, r3, #4\n"
                   "add r4, r4, #4\n"
                   "add r5, r5, #4\n"
                   "stm sp, {r2-r5}\n"
                   "ldr r8, [sp, #24]\n"
                   "add r1, r1, r8\n"
                   "ldr r6, [sp, #16]\n"
                   "subs r6, r6, #1\n"
                   "bne 1b\n"
                   "add sp, sp, #28\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_winograd2d_input_s8_4x10_rows(const void *const *rows, uint32_t *t, int32_t columns, int32_t skip) {
    for (int32_t q = 0; q < 1; ++q) {
        for (int32_t column = 0; column < columns; ++column) {
            for (int32_t h = 0; h < 2; ++h) {
                int32_t v[4][2];
                for (int32_t c = 0; c < 2; ++c) {
                    int32_t d[4];
                    for (int32_t row = 0; row < 4; ++row) {
                        d[row] = ((const int8_t *)rows[row])[column * 4 + 4 * q + h + 2 * c];
                    }
                    v[0][c] = d[0] - d[2];
                    v[1][c] = d[1] + d[2];
                    v[2][c] = d[2] - d[1];
                    v[3][c] = d[1] - d[3];
                }
                for (int32_t i = 0; i < 4; ++i) {
                    t[2 * i + h] = pg_conv_dsp_word(v[i][0], v[i][1]);
                }
            }
            t += 8;
        }
        t += skip / 4;
    }
}
#endif

/* The same along the rows, for two tiles from column t on: v[i][j][1 quads][2 tiles][4] int16, i and j in the order
 * 1 2 0 3. */
#if PG_HAS_DSP
PG_NAKED void pg_winograd2d_input_s8_4x10_tiles(PG_UNUSED const uint32_t *t, PG_UNUSED uint32_t *v) {
    /* r0 t, r1 v, r2-r9 four columns, r10 r12 results, r11 quads left, lr bytes of a plane of t. */
    __asm volatile("push {r4-r11, lr}\n"
                   "movs r11, #1\n"
                   "movw lr, #320\n"
                   "addw r1, r1, #32\n"
                   "1:\n"
                   "ldrd r2, r3, [r0, #8]\n"
                   "ldrd r4, r5, [r0, #40]\n"
                   "ldrd r6, r7, [r0, #72]\n"
                   "ldrd r8, r9, [r0, #104]\n"
                   "sadd16 r10, r4, r6\n"
                   "sadd16 r12, r5, r7\n"
                   "strd r10, r12, [r1, #-32]\n"
                   "ssub16 r10, r6, r4\n"
                   "ssub16 r12, r7, r5\n"
                   "strd r10, r12, [r1, #-16]\n"
                   "ssub16 r10, r2, r6\n"
                   "ssub16 r12, r3, r7\n"
                   "strd r10, r12, [r1, #0]\n"
                   "ssub16 r10, r4, r8\n"
                   "ssub16 r12, r5, r9\n"
                   "strd r10, r12, [r1, #16]\n"
                   "ldrd r2, r3, [r0, #136]\n"
                   "ldrd r4, r5, [r0, #168]\n"
                   "sadd16 r10, r8, r2\n"
                   "sadd16 r12, r9, r3\n"
                   "strd r10, r12, [r1, #-24]\n"
                   "ssub16 r10, r2, r8\n"
                   "ssub16 r12, r3, r9\n"
                   "strd r10, r12, [r1, #-8]\n"
                   "ssub16 r10, r6, r2\n"
                   "ssub16 r12, r7, r3\n"
                   "strd r10, r12, [r1, #8]\n"
                   "ssub16 r10, r8, r4\n"
                   "ssub16 r12, r9, r5\n"
                   "strd r10, r12, [r1, #24]\n"
                   "addw r1, r1, #64\n"
                   "ldrd r2, r3, [r0, #16]\n"
                   "ldrd r4, r5, [r0, #48]\n"
                   "ldrd r6, r7, [r0, #80]\n"
                   "ldrd r8, r9, [r0, #112]\n"
                   "sadd16 r10, r4, r6\n"
                   "sadd16 r12, r5, r7\n"
                   "strd r10, r12, [r1, #-32]\n"
                   "ssub16 r10, r6, r4\n"
                   "ssub16 r12, r7, r5\n"
                   "strd r10, r12, [r1, #-16]\n"
                   "ssub16 r10, r2, r6\n"
                   "ssub16 r12, r3, r7\n"
                   "strd r10, r12, [r1, #0]\n"
                   "ssub16 r10, r4, r8\n"
                   "ssub16 r12, r5, r9\n"
                   "strd r10, r12, [r1, #16]\n"
                   "ldrd r2, r3, [r0, #144]\n"
                   "ldrd r4, r5, [r0, #176]\n"
                   "sadd16 r10, r8, r2\n"
                   "sadd16 r12, r9, r3\n"
                   "strd r10, r12, [r1, #-24]\n"
                   "ssub16 r10, r2, r8\n"
                   "ssub16 r12, r3, r9\n"
                   "strd r10, r12, [r1, #-8]\n"
                   "ssub16 r10, r6, r2\n"
                   "ssub16 r12, r7, r3\n"
                   "strd r10, r12, [r1, #8]\n"
                   "ssub16 r10, r8, r4\n"
                   "ssub16 r12, r9, r5\n"
                   "strd r10, r12, [r1, #24]\n"
                   "addw r1, r1, #64\n"
                   "ldrd r2, r3, [r0, #0]\n"
                   "ldrd r4, r5, [r0, #32]\n"
                   "ldrd r6, r7, [r0, #64]\n"
                   "ldrd r8, r9, [r0, #96]\n"
                   "sadd16 r10, r4, r6\n"
                   "sadd16 r12, r5, r7\n"
                   "strd r10, r12, [r1, #-32]\n"
                   "ssub16 r10, r6, r4\n"
                   "ssub16 r12, r7, r5\n"
                   "strd r10, r12, [r1, #-16]\n"
                   "ssub16 r10, r2, r6\n"
                   "ssub16 r12, r3, r7\n"
                   "strd r10, r12, [r1, #0]\n"
                   "ssub16 r10, r4, r8\n"
                   "ssub16 r12, r5, r9\n"
                   "strd r10, r12, [r1, #16]\n"
                   "ldrd r2, r3, [r0, #128]\n"
                   "ldrd r4, r5, [r0, #160]\n"
                   "sadd16 r10, r8, r2\n"
                   "sadd16 r12, r9, r3\n"
                   "strd r10, r12, [r1, #-24]\n"
                   "ssub16 r10, r2, r8\n"
                   "ssub16 r12, r3, r9\n"
                   "strd r10, r12, [r1, #-8]\n"
                   "ssub16 r10, r6, r2\n"
                   "ssub16 r12, r7, r3\n"
                   "strd r10, r12, [r1, #8]\n"
                   "ssub16 r10, r8, r4\n"
                   "ssub16 r12, r9, r5\n"
                   "strd r10, r12, [r1, #24]\n"
                   "addw r1, r1, #64\n"
                   "ldrd r2, r3, [r0, #24]\n"
                   "ldrd r4, r5, [r0, #56]\n");
    __asm volatile("ldrd r6, r7, [r0, #88]\n"
                   "ldrd r8, r9, [r0, #120]\n"
                   "sadd16 r10, r4, r6\n"
                   "sadd16 r12, r5, r7\n"
                   "strd r10, r12, [r1, #-32]\n"
                   "ssub16 r10, r6, r4\n"
                   "ssub16 r12, r7, r5\n"
                   "strd r10, r12, [r1, #-16]\n"
                   "ssub16 r10, r2, r6\n"
                   "ssub16 r12, r3, r7\n"
                   "strd r10, r12, [r1, #0]\n"
                   "ssub16 r10, r4, r8\n"
                   "ssub16 r12, r5, r9\n"
                   "strd r10, r12, [r1, #16]\n"
                   "ldrd r2, r3, [r0, #152]\n"
                   "ldrd r4, r5, [r0, #184]\n"
                   "sadd16 r10, r8, r2\n"
                   "sadd16 r12, r9, r3\n"
                   "strd r10, r12, [r1, #-24]\n"
                   "ssub16 r10, r2, r8\n"
                   "ssub16 r12, r3, r9\n"
                   "strd r10, r12, [r1, #-8]\n"
                   "ssub16 r10, r6, r2\n"
                   "ssub16 r12, r7, r3\n"
                   "strd r10, r12, [r1, #8]\n"
                   "ssub16 r10, r8, r4\n"
                   "ssub16 r12, r9, r5\n"
                   "strd r10, r12, [r1, #24]\n"
                   "subw r1, r1, #176\n"
                   "add r0, r0, lr\n"
                   "subs r11, r11, #1\n"
                   "bne.w 1b\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_winograd2d_input_s8_4x10_tiles(const uint32_t *t, uint32_t *v) {
    static const int32_t order[4] = {1, 2, 0, 3};
    for (int32_t q = 0; q < 1; ++q) {
        for (int32_t k = 0; k < 8; ++k) { /* i in processing order, tile */
            for (int32_t h = 0; h < 2; ++h) {
                uint32_t d[4];
                for (int32_t column = 0; column < 4; ++column) {
                    d[column] = t[(q * 10 + 2 * (k % 2) + column) * 8 + 2 * order[k / 2] + h];
                }
                uint32_t *to = v + k / 2 * 16 + 4 * q + 2 * (k % 2) + h;
                to[0] = pg_winograd_add(d[1], d[2]);
                to[4] = pg_winograd_subtract(d[2], d[1]);
                to[8] = pg_winograd_subtract(d[0], d[2]);
                to[12] = pg_winograd_subtract(d[1], d[3]);
            }
        }
    }
}
#endif

#endif /* PG_WINOGRAD2D_INPUT_S8_4X10_H */

#ifndef PG_WINOGRAD2D_4X8_S8_LOOPED_S8_8_MAP_H
#define PG_WINOGRAD2D_4X8_S8_LOOPED_S8_8_MAP_H

PG_KERNEL void pg_winograd2d_4x8_s8_looped_s8_8_map(const pg_winograd_params *p, const int8_t *x, int8_t *y, void *scratch) {
    pg_winograd2d_map(p, x, y, scratch, pg_winograd2d_4x8_s8_looped, pg_winograd2d_input_s8_4x10_rows, pg_winograd2d_input_s8_4x10_tiles);
}

PG_KERNEL void pg_winograd2d_4x8_s8_looped_s8_8_map_row(const pg_winograd_params *p, const int8_t *const *rows, int8_t *y, void *scratch) {
    pg_winograd2d_map_row(p, rows, y, scratch, pg_winograd2d_4x8_s8_looped, pg_winograd2d_input_s8_4x10_rows, pg_winograd2d_input_s8_4x10_tiles);
}

#endif /* PG_WINOGRAD2D_4X8_S8_LOOPED_S8_8_MAP_H */
