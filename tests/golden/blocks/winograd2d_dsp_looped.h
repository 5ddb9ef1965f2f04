#ifndef PG_WINOGRAD2D_UPTO4_S8_H
#define PG_WINOGRAD2D_UPTO4_S8_H

/* All outputs of two tiles of 2x2 pixels, F(2x2, 3x3), of up to 4 channels: 16 products instead of 36 an input channel
 * and tile.
 *
 * Everything is an integer: V = B^T d B of the 4x4 inputs d, U = G g G^T of the 3x3 weights g with
 * G = (2 0 0, 1 1 1, 1 -1 1, 0 0 2), so the sums are exactly 4 times those of the direct convolution, and with a
 * quarter of the multiplier (a multiple of 4) the outputs are the same bytes.
 * With M(i, j) = sum_c U(i, j) V(i, j): P(i) = (M(i,0) + M(i,1) + M(i,2), M(i,1) - M(i,2) - M(i,3)) are the two
 * columns of row i, and the rows are P(0) + P(1) + P(2) and P(1) - P(2) - P(3).
 * V: [i][j][quads][2 tiles][4] int16, i and j in the order 1 2 0 3; U: [i][j][quads][2 outputs][4] int16 in the
 * same order, i = 3 and j = 3 negated. Stream, words: per two outputs 4 bA, 4 bB | U, with 4 fA, 4 fB, mA / 4, mB / 4 after each
 * of the four (i, j) with i and j 0 or 3. * Where p->residual is 1, y holds the residuals: an output's own place times f is added to its sum, then overwritten; else the
 * stream has no f. */
#if PG_HAS_DSP
PG_NAKED void pg_winograd2d_upto4_s8(PG_UNUSED const uint32_t *v, PG_UNUSED const uint32_t *stream,
    PG_UNUSED void *y, PG_UNUSED const pg_winograd_out *p) {
    /* r0 v, r1 stream, r2 r3 sums of output A (tiles 0, 1), r4 r5 of B, r6-r9 weights, r10-r12 lr operand.
     * Frame: 0 4 two pixels of row 0 of y, 8 12 of row 1, 16 end of the first, 20 zero point, 24 two pixels, 28 low, 32 high, 36 return,
     * 40 entry, 44 residual, 48 bytes of v, 56 m1 then m1 - m2, 72 88 P(1) then P(1) + P(2), 104 120 P(1) - P(2).
     * m1 - m2 is 2 m1 - (m1 + m2). Products of one (i, j): the subroutine 7, entered so far before 8 as there are channels. */
    __asm volatile("push {r4-r11, lr}\n"
                   "sub sp, sp, #136\n"
                   "ldm r3, {r4-r10}\n"
                   "add r11, r2, r8\n"
                   "strd r2, r11, [sp]\n"
                   "add r12, r2, r4\n"
                   "add lr, r12, r8\n"
                   "strd r12, lr, [sp, #8]\n"
                   "str r11, [sp, #16]\n"
                   "lsl r8, r8, #1\n"
                   "strd r5, r8, [sp, #20]\n"
                   "adr.w r6, 8f\n"
                   "movs r7, #40\n"
                   "mls r6, r9, r7, r6\n"
                   "orr r6, r6, #1\n"
                   "str r6, [sp, #40]\n"
                   "lsl r9, r9, #8\n"
                   "str r9, [sp, #48]\n"
                   "str r10, [sp, #44]\n"
                   "2: ldmia.w r1!, {r2, r4}\n"
                   "ldr r9, [sp, #44]\n"
                   "cmp r9, #1\n"
                   "mov r3, r2\n"
                   "mov r5, r4\n"
                   "bl 7f\n"
                   "add r12, sp, #56\n"
                   "stm r12, {r2-r5}\n"
                   "bl 7f\n"
                   "add r12, sp, #56\n"
                   "ldm r12, {r6-r9}\n"
                   "rsb r6, r2, r6, lsl #1\n"
                   "rsb r7, r3, r7, lsl #1\n"
                   "rsb r8, r4, r8, lsl #1\n"
                   "rsb r9, r5, r9, lsl #1\n"
                   "stm r12, {r6-r9}\n"
                   "bl 7f\n"
                   "add r12, sp, #72\n"
                   "stm r12, {r2-r5}\n"
                   "add r12, sp, #56\n"
                   "ldm r12, {r2-r5}\n"
                   "bl 7f\n"
                   "add r12, sp, #88\n"
                   "stm r12, {r2-r5}\n"
                   "movs r2, #0\n"
                   "movs r3, #0\n"
                   "movs r4, #0\n"
                   "movs r5, #0\n"
                   "bl 7f\n"
                   "add r12, sp, #56\n"
                   "stm r12, {r2-r5}\n"
                   "bl 7f\n"
                   "add r12, sp, #56\n"
                   "ldm r12, {r6-r9}\n"
                   "rsb r6, r2, r6, lsl #1\n"
                   "rsb r7, r3, r7, lsl #1\n"
                   "rsb r8, r4, r8, lsl #1\n"
                   "rsb r9, r5, r9, lsl #1\n"
                   "stm r12, {r6-r9}\n"
                   "bl 7f\n"
                   "add r12, sp, #72\n"
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
                   "strd r10, r11, [sp, #104]\n"
                   "strd r6, r7, [sp, #112]\n"
                   "add r12, sp, #56\n"
                   "ldm r12, {r2-r5}\n"
                   "bl 7f\n"
                   "add r12, sp, #88\n"
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
                   "strd r10, r11, [sp, #120]\n"
                   "strd r6, r7, [sp, #128]\n"
                   "movs r2, #0\n"
                   "movs r3, #0\n"
                   "movs r4, #0\n"
                   "movs r5, #0\n"
                   "bl 7f\n"
                   "add r12, sp, #56\n"
                   "stm r12, {r2-r5}\n"
                   "bl 7f\n"
                   "add r12, sp, #56\n"
                   "ldm r12, {r6-r9}\n"
                   "rsb r6, r2, r6, lsl #1\n"
                   "rsb r7, r3, r7, lsl #1\n");
    __asm volatile("rsb r8, r4, r8, lsl #1\n"
                   "rsb r9, r5, r9, lsl #1\n"
                   "add r12, sp, #88\n"
                   "ldm r12, {r10-r12, lr}\n"
                   "add r6, r6, r10\n"
                   "add r7, r7, r11\n"
                   "add r8, r8, r12\n"
                   "add r9, r9, lr\n"
                   "add r12, sp, #56\n"
                   "stm r12, {r6-r9}\n"
                   "add r12, sp, #72\n"
                   "ldm r12, {r6-r9}\n"
                   "add r2, r2, r6\n"
                   "add r3, r3, r7\n"
                   "add r4, r4, r8\n"
                   "add r5, r5, r9\n"
                   "bl 7f\n"
                   "ldr r7, [sp, #0]\n"
                   "ldrd r10, r6, [sp, #20]\n"
                   "add r6, r6, r7\n"
                   "bcc 6f\n"
                   "ldmia.w r1!, {r8, r9}\n"
                   "ldrsb r11, [r7]\n"
                   "ldrsb r12, [r7, #1]\n"
                   "mla r2, r11, r8, r2\n"
                   "mla r4, r12, r9, r4\n"
                   "ldrsb r11, [r6]\n"
                   "ldrsb r12, [r6, #1]\n"
                   "mla r3, r11, r8, r3\n"
                   "mla r5, r12, r9, r5\n"
                   "6:\n"
                   "ldmia.w r1!, {r8, r9}\n"
                   "smmlar r5, r5, r9, r10\n"
                   "ssat r5, #8, r5\n"
                   "strb r5, [r6, #1]\n"
                   "smmlar r3, r3, r8, r10\n"
                   "ssat r3, #8, r3\n"
                   "strb r3, [r6, #0]\n"
                   "smmlar r4, r4, r9, r10\n"
                   "ssat r4, #8, r4\n"
                   "strb r4, [r7, #1]\n"
                   "smmlar r2, r2, r8, r10\n"
                   "ssat r2, #8, r2\n"
                   "strb r2, [r7, #0]\n"
                   "add r12, sp, #56\n"
                   "ldm r12, {r2-r5}\n"
                   "bl 7f\n"
                   "ldr r7, [sp, #4]\n"
                   "ldrd r10, r6, [sp, #20]\n"
                   "add r6, r6, r7\n"
                   "bcc 6f\n"
                   "ldmia.w r1!, {r8, r9}\n"
                   "ldrsb r11, [r7]\n"
                   "ldrsb r12, [r7, #1]\n"
                   "mla r2, r11, r8, r2\n"
                   "mla r4, r12, r9, r4\n"
                   "ldrsb r11, [r6]\n"
                   "ldrsb r12, [r6, #1]\n"
                   "mla r3, r11, r8, r3\n"
                   "mla r5, r12, r9, r5\n"
                   "6:\n"
                   "ldmia.w r1!, {r8, r9}\n"
                   "smmlar r5, r5, r9, r10\n"
                   "ssat r5, #8, r5\n"
                   "strb r5, [r6, #1]\n"
                   "smmlar r3, r3, r8, r10\n"
                   "ssat r3, #8, r3\n"
                   "strb r3, [r6, #0]\n"
                   "smmlar r4, r4, r9, r10\n"
                   "ssat r4, #8, r4\n"
                   "strb r4, [r7, #1]\n"
                   "smmlar r2, r2, r8, r10\n"
                   "ssat r2, #8, r2\n"
                   "strb r2, [r7, #0]\n"
                   "movs r2, #0\n"
                   "movs r3, #0\n"
                   "movs r4, #0\n"
                   "movs r5, #0\n"
                   "bl 7f\n"
                   "add r12, sp, #56\n"
                   "stm r12, {r2-r5}\n"
                   "bl 7f\n"
                   "add r12, sp, #56\n"
                   "ldm r12, {r6-r9}\n"
                   "rsb r6, r2, r6, lsl #1\n"
                   "rsb r7, r3, r7, lsl #1\n"
                   "rsb r8, r4, r8, lsl #1\n"
                   "rsb r9, r5, r9, lsl #1\n"
                   "add r12, sp, #120\n"
                   "ldm r12, {r10-r12, lr}\n"
                   "add r6, r6, r10\n"
                   "add r7, r7, r11\n"
                   "add r8, r8, r12\n"
                   "add r9, r9, lr\n"
                   "add r12, sp, #56\n"
                   "stm r12, {r6-r9}\n"
                   "add r12, sp, #104\n"
                   "ldm r12, {r6-r9}\n"
                   "add r2, r2, r6\n"
                   "add r3, r3, r7\n");
    __asm volatile("add r4, r4, r8\n"
                   "add r5, r5, r9\n"
                   "bl 7f\n"
                   "ldr r7, [sp, #8]\n"
                   "ldrd r10, r6, [sp, #20]\n"
                   "add r6, r6, r7\n"
                   "bcc 6f\n"
                   "ldmia.w r1!, {r8, r9}\n"
                   "ldrsb r11, [r7]\n"
                   "ldrsb r12, [r7, #1]\n"
                   "mla r2, r11, r8, r2\n"
                   "mla r4, r12, r9, r4\n"
                   "ldrsb r11, [r6]\n"
                   "ldrsb r12, [r6, #1]\n"
                   "mla r3, r11, r8, r3\n"
                   "mla r5, r12, r9, r5\n"
                   "6:\n"
                   "ldmia.w r1!, {r8, r9}\n"
                   "smmlar r5, r5, r9, r10\n"
                   "ssat r5, #8, r5\n"
                   "strb r5, [r6, #1]\n"
                   "smmlar r3, r3, r8, r10\n"
                   "ssat r3, #8, r3\n"
                   "strb r3, [r6, #0]\n"
                   "smmlar r4, r4, r9, r10\n"
                   "ssat r4, #8, r4\n"
                   "strb r4, [r7, #1]\n"
                   "smmlar r2, r2, r8, r10\n"
                   "ssat r2, #8, r2\n"
                   "strb r2, [r7, #0]\n"
                   "add r12, sp, #56\n"
                   "ldm r12, {r2-r5}\n"
                   "bl 7f\n"
                   "ldr r7, [sp, #12]\n"
                   "ldrd r10, r6, [sp, #20]\n"
                   "add r6, r6, r7\n"
                   "bcc 6f\n"
                   "ldmia.w r1!, {r8, r9}\n"
                   "ldrsb r11, [r7]\n"
                   "ldrsb r12, [r7, #1]\n"
                   "mla r2, r11, r8, r2\n"
                   "mla r4, r12, r9, r4\n"
                   "ldrsb r11, [r6]\n"
                   "ldrsb r12, [r6, #1]\n"
                   "mla r3, r11, r8, r3\n"
                   "mla r5, r12, r9, r5\n"
                   "6:\n"
                   "ldmia.w r1!, {r8, r9}\n"
                   "smmlar r5, r5, r9, r10\n"
                   "ssat r5, #8, r5\n"
                   "strb r5, [r6, #1]\n"
                   "smmlar r3, r3, r8, r10\n"
                   "ssat r3, #8, r3\n"
                   "strb r3, [r6, #0]\n"
                   "smmlar r4, r4, r9, r10\n"
                   "ssat r4, #8, r4\n"
                   "strb r4, [r7, #1]\n"
                   "smmlar r2, r2, r8, r10\n"
                   "ssat r2, #8, r2\n"
                   "strb r2, [r7, #0]\n"
                   "ldm sp, {r7-r11}\n"
                   "adds r7, r7, #2\n"
                   "add r8, r8, #2\n"
                   "add r9, r9, #2\n"
                   "add r10, r10, #2\n"
                   "stm sp, {r7-r10}\n"
                   "ldr r6, [sp, #48]\n"
                   "sub r0, r0, r6\n"
                   "cmp r7, r11\n"
                   "bne.w 2b\n"
                   "add sp, sp, #136\n"
                   "pop {r4-r11, pc}\n"
                   ".p2align 2\n"
                   "7: str lr, [sp, #36]\n"
                   "ldr.w pc, [sp, #40]\n"
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
                   "8: ldr.w pc, [sp, #36]\n");
}
#else
PG_KERNEL void pg_winograd2d_upto4_s8(const uint32_t *v, const uint32_t *stream, void *y, const pg_winograd_out *p) {
    const pg_requant out = { 0, p->zero_point, INT8_MIN, INT8_MAX};
    const int32_t pixel = p->pixel;
    const int32_t outputs = pixel;
    for (int32_t n = 0; n < outputs; n += 2) {
        uint32_t m[4][4][4]; /* i, j in processing order; 2 * output + tile */
        const uint32_t *u = stream + 2;
        const uint32_t *multipliers = u;
        for (int32_t i = 0; i < 4; ++i) {
            for (int32_t j = 0; j < 4; ++j) {
                for (int32_t k = 0; k < 4; ++k) {
                    m[i][j][k] = i == 0 && j == 0 ? stream[k / 2] : 0u;
                    m[i][j][k] += pg_winograd_dot(v + 4 * (4 * i + j) * p->quads + 2 * (k % 2), u + 2 * (k / 2), p->quads);
                }
                u += 4 * p->quads;
                if (i >= 2 && j >= 2) {
                    multipliers = u + 2 * p->residual;
                    u += 2 + 2 * p->residual;
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
                int8_t *to = (int8_t *)y + (2 * (k % 2) + px) * pixel + n + k / 2;
                uint32_t upper = column[0] + column[1] + column[2];
                uint32_t lower = column[0] - column[1] + column[3];
                if (p->residual) {
                    upper += (uint32_t)to[0] * multipliers[k / 2 - 2];
                    lower += (uint32_t)to[p->row] * multipliers[k / 2 - 2];
                }
                to[0] = (int8_t)pg_requantise((int32_t)upper, multiplier, &out);
                to[p->row / 1] = (int8_t)pg_requantise((int32_t)lower, multiplier, &out);
            }
        }
        stream = u;
    }
}
#endif

#endif /* PG_WINOGRAD2D_UPTO4_S8_H */

#ifndef PG_WINOGRAD2D_INPUT_S8_H
#define PG_WINOGRAD2D_INPUT_S8_H

/* Input transform of F(2x2, 3x3), down `columns` columns (at least 1): four int8 rows [column][channels] to
 * t[quads][columns of a plane][4 i][4] int16: t(1) = d1 + d2, t(2) = d2 - d1, t(0) = d0 - d2, t(3) = d1 - d3, in the order
 * in which i is processed; channels of a quad in the order 0 2 1 3. */
#if PG_HAS_DSP
PG_NAKED void pg_winograd2d_input_s8_rows(PG_UNUSED const void *const *rows, PG_UNUSED uint32_t *t, PG_UNUSED int32_t columns,
    PG_UNUSED const pg_winograd_planes *p) {
    /* r0 r2 r3 r4 rows, r1 t, r5-r12 four pixels, lr bytes of a plane. Frame: 0 end of the column, 4 bytes from the
     * plane after the last to the first one's next column, 8 bytes of a pixel, 12 end of the columns. */
    __asm volatile("push {r4-r11, lr}\n"
                   "sub sp, sp, #16\n"
                   "ldm r3, {r4, lr}\n"
                   "mul r5, r4, lr\n"
                   "subs r5, r5, #32\n"
                   "lsls r6, r4, #2\n"
                   "strd r5, r6, [sp, #4]\n"
                   "ldm r0, {r0, r3, r4, r5}\n"
                   "mla r7, r2, r6, r0\n"
                   "str r7, [sp, #12]\n"
                   "mov r2, r3\n"
                   "mov r3, r4\n"
                   "mov r4, r5\n"
                   "1: ldr r5, [sp, #8]\n"
                   "add r5, r5, r0\n"
                   "str r5, [sp]\n"
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
                   "strd r5, r6, [r1, #16]\n"
                   "ssub16 r11, r7, r11\n"
                   "ssub16 r12, r8, r12\n"
                   "strd r11, r12, [r1, #24]\n"
                   "sadd16 r5, r7, r9\n"
                   "sadd16 r6, r8, r10\n"
                   "strd r5, r6, [r1, #0]\n"
                   "ssub16 r11, r9, r7\n"
                   "ssub16 r12, r10, r8\n"
                   "strd r11, r12, [r1, #8]\n"
                   "ldr r5, [sp]\n"
                   "add r1, r1, lr\n"
                   "cmp r0, r5\n"
                   "bne.w 2b\n"
                   "ldr r6, [sp, #4]\n"
                   "ldr r7, [sp, #12]\n"
                   "sub r1, r1, r6\n"
                   "cmp r0, r7\n"
                   "bne.w 1b\n"
                   "add sp, sp, #16\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_winograd2d_input_s8_rows(const void *const *rows, uint32_t *t, int32_t columns, const pg_winograd_planes *p) {
    for (int32_t column = 0; column < columns; ++column) {
        for (int32_t q = 0; q < p->quads; ++q) {
            uint32_t *to = t + q * (p->bytes / 4) + 8 * column;
            for (int32_t h = 0; h < 2; ++h) {
                int32_t v[4][2];
                for (int32_t c = 0; c < 2; ++c) {
                    int32_t d[4];
                    for (int32_t row = 0; row < 4; ++row) {
                        d[row] = ((const int8_t *)rows[row])[4 * (column * p->quads + q) + h + 2 * c];
                    }
                    v[0][c] = d[1] + d[2];
                    v[1][c] = d[2] - d[1];
                    v[2][c] = d[0] - d[2];
                    v[3][c] = d[1] - d[3];
                }
                for (int32_t i = 0; i < 4; ++i) {
                    to[2 * i + h] = pg_conv_dsp_word(v[i][0], v[i][1]);
                }
            }
        }
    }
}
#endif

/* The same along the rows, for two tiles from column t on: v[i][j][quads][2 tiles][4] int16, i and j in the order
 * 1 2 0 3. */
#if PG_HAS_DSP
PG_NAKED void pg_winograd2d_input_s8_tiles(PG_UNUSED const uint32_t *t, PG_UNUSED uint32_t *v, PG_UNUSED const pg_winograd_planes *p) {
    /* r0 t, r1 r2 r3 r12 v of j = 1 2 0 3, r4-r11 four columns, lr bytes of a plane of t. Frame: 0 end of j = 1,
     * 4 bytes from the plane after the last to the first one's next i, 8 bytes of one (i, j), 12 three times that, 16 end
     * of v. */
    __asm volatile("push {r4-r11, lr}\n"
                   "sub sp, sp, #20\n"
                   "ldm r2, {r3, lr}\n"
                   "mul r4, r3, lr\n"
                   "subs r4, r4, #8\n"
                   "lsls r5, r3, #4\n"
                   "add r6, r5, r5, lsl #1\n"
                   "strd r4, r5, [sp, #4]\n"
                   "add r7, r1, r5, lsl #4\n"
                   "strd r6, r7, [sp, #12]\n"
                   "add r2, r1, r5\n"
                   "add r3, r2, r5\n"
                   "add r12, r3, r5\n"
                   "1: ldr r4, [sp, #8]\n"
                   "add r4, r4, r1\n"
                   "str r4, [sp]\n"
                   "2:\n"
                   "ldrd r4, r5, [r0, #0]\n"
                   "ldrd r6, r7, [r0, #32]\n"
                   "ldrd r8, r9, [r0, #64]\n"
                   "ldrd r10, r11, [r0, #96]\n"
                   "ssub16 r4, r4, r8\n"
                   "ssub16 r5, r5, r9\n"
                   "strd r4, r5, [r3], #8\n"
                   "sadd16 r4, r6, r8\n"
                   "sadd16 r5, r7, r9\n"
                   "strd r4, r5, [r1], #8\n"
                   "ssub16 r4, r8, r6\n"
                   "ssub16 r5, r9, r7\n"
                   "strd r4, r5, [r2], #8\n"
                   "ssub16 r6, r6, r10\n"
                   "ssub16 r7, r7, r11\n"
                   "strd r6, r7, [r12], #8\n"
                   "ldrd r4, r5, [r0, #128]\n"
                   "ldrd r6, r7, [r0, #160]\n"
                   "ssub16 r8, r8, r4\n"
                   "ssub16 r9, r9, r5\n"
                   "strd r8, r9, [r3], #8\n"
                   "sadd16 r8, r10, r4\n"
                   "sadd16 r9, r11, r5\n"
                   "strd r8, r9, [r1], #8\n"
                   "ssub16 r8, r4, r10\n"
                   "ssub16 r9, r5, r11\n"
                   "strd r8, r9, [r2], #8\n"
                   "ssub16 r10, r10, r6\n"
                   "ssub16 r11, r11, r7\n"
                   "strd r10, r11, [r12], #8\n"
                   "ldr r4, [sp]\n"
                   "add r0, r0, lr\n"
                   "cmp r1, r4\n"
                   "bne.w 2b\n"
                   "ldrd r4, r5, [sp, #12]\n"
                   "add r1, r1, r4\n"
                   "add r2, r2, r4\n"
                   "add r3, r3, r4\n"
                   "add r12, r12, r4\n"
                   "ldr r4, [sp, #4]\n"
                   "sub r0, r0, r4\n"
                   "cmp r1, r5\n"
                   "bne.w 1b\n"
                   "add sp, sp, #20\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_winograd2d_input_s8_tiles(const uint32_t *t, uint32_t *v, const pg_winograd_planes *p) {
    const int32_t part = 4 * p->quads;
    for (int32_t q = 0; q < p->quads; ++q) {
        for (int32_t k = 0; k < 8; ++k) { /* i in processing order, tile */
            for (int32_t h = 0; h < 2; ++h) {
                uint32_t d[4];
                for (int32_t column = 0; column < 4; ++column) {
                    d[column] = t[q * (p->bytes / 4) + (2 * (k % 2) + column) * 8 + 2 * (k / 2) + h];
                }
                uint32_t *to = v + k / 2 * 4 * part + 4 * q + 2 * (k % 2) + h;
                to[0] = pg_winograd_add(d[1], d[2]);
                to[part] = pg_winograd_subtract(d[2], d[1]);
                to[2 * part] = pg_winograd_subtract(d[0], d[2]);
                to[3 * part] = pg_winograd_subtract(d[1], d[3]);
            }
        }
    }
}
#endif

#endif /* PG_WINOGRAD2D_INPUT_S8_H */

#ifndef PG_WINOGRAD2D_UPTO4_S8_S8_MAP_H
#define PG_WINOGRAD2D_UPTO4_S8_S8_MAP_H

PG_KERNEL void pg_winograd2d_upto4_s8_s8_map(const pg_winograd_params *p, const int8_t *x, int8_t *y, void *scratch) {
    pg_winograd2d_map(p, x, y, scratch, pg_winograd2d_upto4_s8, pg_winograd2d_input_s8_rows, pg_winograd2d_input_s8_tiles);
}

PG_KERNEL void pg_winograd2d_upto4_s8_s8_map_row(const pg_winograd_params *p, const int8_t *const *rows, int8_t *y, void *scratch) {
    pg_winograd2d_map_row(p, rows, y, scratch, pg_winograd2d_upto4_s8, pg_winograd2d_input_s8_rows, pg_winograd2d_input_s8_tiles);
}

#endif /* PG_WINOGRAD2D_UPTO4_S8_S8_MAP_H */
