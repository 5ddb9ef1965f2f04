/* SPDX-License-Identifier: MIT-0
 *
 * Element-wise sum and product of a map and one number for every channel, on cores with DSP instructions:
 * what the blocks read instead of the numbers.
 */
#ifndef PG_AFFINE_DSP_CHANNELS_H
#define PG_AFFINE_DSP_CHANNELS_H

#include "pg_affine_dsp.h"

/* f and s of every channel as the blocks load them. Four channels: s0 s1 s2 s3, then f0 below f2 and f1 below
 * f3 as halfwords; the channels left over: s f each. */
PG_KERNEL void pg_affine_dsp_prepare(const pg_affine_dsp_numbers *p, const int8_t *b, int32_t channels,
                                     int32_t *work) {
    const int32_t factor = p->factor;
    const int32_t factor_step = p->factor_step;
    const int32_t start = p->start;
    const int32_t start_step = p->start_step;
    const int32_t whole = channels / 4 * 4;
    for (int32_t c = 0; c < whole; c += 4) {
        for (int32_t i = 0; i < 4; ++i) {
            work[i] = start + start_step * b[i];
        }
        for (int32_t i = 0; i < 2; ++i) {
            const uint32_t low = (uint32_t)(factor + factor_step * b[i]) & 0xffffu;
            const uint32_t high = (uint32_t)(factor + factor_step * b[i + 2]) << 16;
            work[4 + i] = (int32_t)(low | high);
        }
        work += 6;
        b += 4;
    }
    for (int32_t c = whole; c < channels; ++c) {
        *work++ = start + start_step * *b;
        *work++ = factor + factor_step * *b++;
    }
}

#endif /* PG_AFFINE_DSP_CHANNELS_H */
