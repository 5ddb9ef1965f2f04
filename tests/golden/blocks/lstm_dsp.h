#ifndef PG_LSTM_DSP_9C963C66_H
#define PG_LSTM_DSP_9C963C66_H

/* LSTM step, 1 -> 1, all units of gates i, f, g, o from the int16 operand.
 * Stream, words, per unit: 256 bi + bf, bf, 256 bg + bo, bo | per quad of columns IF01 IF23 GO01 GO23
 * | mi mf mg mo.
 * A unit costs 14 instructions per quad and about 46 around them:
 * starts and multipliers 2, separating the pairs 4, requantisation 4, constants 2, five table activations 22,
 * cell 7, output 5. */
#if PG_HAS_DSP
PG_NAKED void pg_lstm_dsp_9c963c66_cells(PG_UNUSED const int16_t *operand, PG_UNUSED const uint32_t *stream,
                                   PG_UNUSED int16_t *hidden, PG_UNUSED int8_t *y,
                                   PG_UNUSED const uint32_t *table) {
    /* r0 operand, r1 stream, r2-r5 accumulators i', f, g', o, r6 r7 operand, r8-r11 weights and multipliers,
     * r12 middle of the table, lr hidden (cells lie 16 bytes behind).
     * After the products: r6 last hidden, then scratch, r7 0x8000 with the fraction above, r8 to r11 the rounding
     * constants of tanh, logistic, cell and output. Frame: 0 last hidden and constants, 24 y.
     * table, the fifth argument, is the middle of pg_tanh_words. */
    __asm volatile("push {r4-r11, lr}\n"
                   "sub sp, sp, #28\n"
                   "mov lr, r2\n"
                   "ldr r12, [sp, #64]\n"
                   "movw r6, #0\n"
                   "add r6, r6, lr\n"
                   "movw r7, #0x8000\n"
                   "movw r8, #0x4000\n"
                   "movw r9, #0xc000\n"
                   "movt r9, #0x3fff\n"
                   "movw r10, #16384\n"
                   "movt r10, #2\n"
                   "movw r11, #0x4000\n"
                   "movt r11, #0x40\n"
                   "stm sp, {r6-r11}\n"
                   "str r3, [sp, #24]\n"
                   "1: ldmia r1!, {r2-r5}\n");
    __asm volatile(""
                   "ldrd r6, r7, [r0, #0]\n"
                   "ldmia r1!, {r8-r11}\n"
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
                   "ldrd r6, r7, [r0, #8]\n"
                   "ldmia r1!, {r8-r11}\n"
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
                   "smlad r5, r7, r11, r5\n");
    __asm volatile(""
                   "ldmia r1!, {r8-r11}\n"
                   "sub r2, r2, r3\n"
                   "asr r2, r2, #7\n"
                   "lsl r3, r3, #1\n"
                   "sub r4, r4, r5\n"
                   "asr r4, r4, #7\n"
                   "lsl r5, r5, #1\n"
                   "smmulr r2, r2, r8\n"
                   "smmulr r3, r3, r9\n"
                   "smmulr r4, r4, r10\n"
                   "smmulr r5, r5, r11\n"
                   "ldm sp, {r6-r11}\n"
                   "cmp lr, r6\n"
                   "ssat r6, #8, r2, asr #8\n"
                   "ldr r6, [r12, r6, lsl #2]\n"
                   "bfi r7, r2, #23, #8\n"
                   "smlad r2, r6, r7, r9\n"
                   "ssat r6, #8, r3, asr #8\n"
                   "ldr r6, [r12, r6, lsl #2]\n"
                   "bfi r7, r3, #23, #8\n"
                   "smlad r3, r6, r7, r9\n"
                   "ssat r6, #8, r4, asr #8\n"
                   "ldr r6, [r12, r6, lsl #2]\n"
                   "bfi r7, r4, #23, #8\n"
                   "smlad r4, r6, r7, r8\n"
                   "ssat r6, #8, r5, asr #8\n"
                   "ldr r6, [r12, r6, lsl #2]\n"
                   "bfi r7, r5, #23, #8\n"
                   "smlad r5, r6, r7, r9\n"

                   "asr r4, r4, #15\n" /* g; i, f, o are the top halves of r2, r3, r5 */
                   "ldrsh r6, [lr, #16]\n"
                   "smlatb r4, r2, r4, r10\n" /* i g */
                   "smlabt r6, r6, r3, r8\n" /* c f */
                   "asr r6, r6, #15\n"
                   "add r6, r6, r4, asr #18\n"
                   "ssat r6, #16, r6\n"
                   "strh r6, [lr, #16]\n"
                   "asr r2, r6, #8\n"
                   "bfi r7, r6, #23, #8\n"
                   "ldr r2, [r12, r2, lsl #2]\n"
                   "smlad r6, r2, r7, r8\n"
                   "asr r6, r6, #15\n" /* tanh c */
                   "smlatb r6, r5, r6, r11\n"
                   "ssat r6, #8, r6, asr #23\n"
                   "ldr r2, [sp, #24]\n"
                   "strb r6, [r2], #1\n"
                   "str r2, [sp, #24]\n"
                   "strh r6, [lr], #2\n"
                   "bne.w 1b\n"
                   "add sp, sp, #28\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_lstm_dsp_9c963c66_cells(const int16_t *operand, const uint32_t *stream,
                                   int16_t *hidden, int8_t *y,
                                   PG_UNUSED const uint32_t *table) {
    const pg_lstm_dsp_shape shape = {1, 8, 2,
                                     0, 0, 1, 12, 0};
    pg_lstm_dsp_cells(operand, stream, hidden, y, shape);
}
#endif

/* 1 int8 values as int16, zeros up to the next multiple of 4; x may be unaligned. */
#if PG_HAS_DSP
PG_NAKED void pg_lstm_dsp_9c963c66_widen(PG_UNUSED const int8_t *x, PG_UNUSED int16_t *to) {
    /* r0 x, r1 to, r2 r3 r12 values. */
    __asm volatile(""
                   "movs r12, #0\n"
                   "ldrsb r2, [r0]\n"
                   "uxth r2, r2\n"
                   "strd r2, r12, [r1]\n"
                   "bx lr\n");
}
#else
PG_KERNEL void pg_lstm_dsp_9c963c66_widen(const int8_t *x, int16_t *to) {
    pg_widen(x, 1, 0, to);
}
#endif

PG_KERNEL void pg_lstm_dsp_9c963c66_reset(const pg_lstm_dsp_params *p, void *state) {
    pg_lstm_dsp_start(p, state, 1, 8, 0);
}

/* One step. Scratch: the operand. */
PG_KERNEL void pg_lstm_dsp_9c963c66(const pg_lstm_dsp_params *p, void *state, const int8_t *x, int8_t *y,
                              void *scratch) {
    int16_t *hidden = (int16_t *)state;
    int16_t *operand = (int16_t *)scratch;
    pg_lstm_dsp_9c963c66_widen(x, operand);
    pg_copy_eights(operand + 4, hidden, 1);
    pg_lstm_dsp_9c963c66_cells(operand, p->gates, hidden, y, pg_tanh_words + 128);
}

#endif /* PG_LSTM_DSP_9C963C66_H */
