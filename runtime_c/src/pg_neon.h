/* SPDX-License-Identifier: MIT-0
 *
 * The inner products of the matrix, depthwise and recurrent kernels for cores with NEON. Included before
 * them, it takes the place of their plain loops; on any other core it is empty and the plain loops remain.
 *
 * With the dot product extension sixteen products take one SDOT. Without it they take SMULL, SMLAL and
 * SADALP: two products are added in 16 bits first, which is exact because weights lie in -127 .. 127 (2 * 127
 * * 128 = 32512).
 */
#ifndef PG_NEON_H
#define PG_NEON_H

#include "projgen_runtime.h"

#if defined(__ARM_NEON)
#define PG_HAS_NEON 1

#include <arm_neon.h>

/* acc plus the products of sixteen int8 pairs, spread over the four lanes. */
PG_INLINE int32x4_t pg_neon_sixteen(int32x4_t acc, int8x16_t w, int8x16_t x) {
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(acc, w, x);
#else
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    return vpadalq_s16(acc, vmlal_s8(low, vget_high_s8(w), vget_high_s8(x)));
#endif
}

/* acc plus the products of eight int8 pairs. */
PG_INLINE int32x4_t pg_neon_eight(int32x4_t acc, int8x8_t w, int8x8_t x) {
    return vpadalq_s16(acc, vmull_s8(w, x));
}

/* acc plus the products of eight weights and eight int16 values. */
PG_INLINE int32x4_t pg_neon_eight_wide(int32x4_t acc, int8x8_t w, int16x8_t x) {
    const int16x8_t v = vmovl_s8(w);
    acc = vmlal_s16(acc, vget_low_s16(v), vget_low_s16(x));
    return vmlal_s16(acc, vget_high_s16(v), vget_high_s16(x));
}

/* The four sums of lanes. */
PG_INLINE int32x4_t pg_neon_sums(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d) {
    const int32x2_t a2 = vadd_s32(vget_low_s32(a), vget_high_s32(a));
    const int32x2_t b2 = vadd_s32(vget_low_s32(b), vget_high_s32(b));
    const int32x2_t c2 = vadd_s32(vget_low_s32(c), vget_high_s32(c));
    const int32x2_t d2 = vadd_s32(vget_low_s32(d), vget_high_s32(d));
    return vcombine_s32(vpadd_s32(a2, b2), vpadd_s32(c2, d2));
}

/* Four accumulators requantised: clamp(zero point + ((acc << shift) * m + 2^31) >> 32). */
PG_INLINE int32x4_t pg_neon_requantise(int32x4_t acc, int32x4_t m, const pg_requant *out) {
    acc = vshlq_s32(acc, vdupq_n_s32(out->shift));
    const int64x2_t low = vmull_s32(vget_low_s32(acc), vget_low_s32(m));
    const int64x2_t high = vmull_s32(vget_high_s32(acc), vget_high_s32(m));
    int32x4_t y = vcombine_s32(vrshrn_n_s64(low, 32), vrshrn_n_s64(high, 32));
    y = vaddq_s32(y, vdupq_n_s32(out->zero_point));
    return vminq_s32(vmaxq_s32(y, vdupq_n_s32(out->low)), vdupq_n_s32(out->high));
}

/* Stores four values that fit the type as elements i .. i + 3 of an int16 (wide) or int8 array. */
PG_INLINE void pg_neon_put(void *y, int32_t i, int32x4_t values, bool wide) {
    const int16x4_t halves = vmovn_s32(values);
    if (wide) {
        vst1_s16((int16_t *)y + i, halves);
    } else {
        const int8x8_t bytes = vmovn_s16(vcombine_s16(halves, halves));
        const uint32_t word = vget_lane_u32(vreinterpret_u32_s8(bytes), 0);
        __builtin_memcpy((int8_t *)y + i, &word, sizeof word); /* a call where memcpy is no builtin */
    }
}

/* The same of eight values. */
PG_INLINE void pg_neon_put_eight(void *y, int32_t i, int32x4_t low, int32x4_t high, bool wide) {
    const int16x8_t halves = vcombine_s16(vmovn_s32(low), vmovn_s32(high));
    if (wide) {
        vst1q_s16((int16_t *)y + i, halves);
    } else {
        vst1_s8((int8_t *)y + i, vmovn_s16(halves));
    }
}

/* Of eight lanes the last count (1 to 7): -1, the others 0. */
PG_INLINE int8x8_t pg_neon_last(int32_t count) {
    static const int8_t lanes[16] = {0, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1, -1, -1, -1, -1, -1};
    return vld1_s8(lanes + count);
}

/* sum of w[k] v[k] over int8 or int16 (wide) values. */
PG_INLINE int32_t pg_neon_dot(const int8_t *w, const void *v, int32_t count, bool wide) {
    int32x4_t acc = vdupq_n_s32(0);
    int32_t k = 0;
    if (!wide) {
        for (; k + 16 <= count; k += 16) {
            acc = pg_neon_sixteen(acc, vld1q_s8(w + k), vld1q_s8((const int8_t *)v + k));
        }
    }
    for (; k + 8 <= count; k += 8) {
        acc = wide ? pg_neon_eight_wide(acc, vld1_s8(w + k), vld1q_s16((const int16_t *)v + k))
                   : pg_neon_eight(acc, vld1_s8(w + k), vld1_s8((const int8_t *)v + k));
    }
    if (k < count && count >= 8) { /* the last eight, without those that have been */
        const int8x8_t mask = pg_neon_last(count - k);
        const int8x8_t last = vand_s8(vld1_s8(w + count - 8), mask);
        acc = wide ? pg_neon_eight_wide(acc, last, vld1q_s16((const int16_t *)v + count - 8))
                   : pg_neon_eight(acc, last, vld1_s8((const int8_t *)v + count - 8));
        k = count;
    }
    int32_t sum = vgetq_lane_s32(pg_neon_sums(acc, acc, acc, acc), 0);
    for (; k < count; ++k) {
        sum += w[k] * pg_get(v, k, wide);
    }
    return sum;
}

/* Sums of four rows of weights, inputs apart, with x. */
PG_INLINE int32x4_t pg_neon_four_rows(const int8_t *w, int32_t inputs, const void *x, bool wide) {
    const int8_t *w1 = w + inputs;
    const int8_t *w2 = w1 + inputs;
    const int8_t *w3 = w2 + inputs;
    int32x4_t a = vdupq_n_s32(0);
    int32x4_t b = a;
    int32x4_t c = a;
    int32x4_t d = a;
    int32_t k = 0;
    if (!wide) {
        for (; k + 16 <= inputs; k += 16) {
            const int8x16_t v = vld1q_s8((const int8_t *)x + k);
            a = pg_neon_sixteen(a, vld1q_s8(w + k), v);
            b = pg_neon_sixteen(b, vld1q_s8(w1 + k), v);
            c = pg_neon_sixteen(c, vld1q_s8(w2 + k), v);
            d = pg_neon_sixteen(d, vld1q_s8(w3 + k), v);
        }
        for (; k + 8 <= inputs; k += 8) {
            const int8x8_t v = vld1_s8((const int8_t *)x + k);
            a = pg_neon_eight(a, vld1_s8(w + k), v);
            b = pg_neon_eight(b, vld1_s8(w1 + k), v);
            c = pg_neon_eight(c, vld1_s8(w2 + k), v);
            d = pg_neon_eight(d, vld1_s8(w3 + k), v);
        }
    } else {
        for (; k + 8 <= inputs; k += 8) {
            const int16x8_t v = vld1q_s16((const int16_t *)x + k);
            a = pg_neon_eight_wide(a, vld1_s8(w + k), v);
            b = pg_neon_eight_wide(b, vld1_s8(w1 + k), v);
            c = pg_neon_eight_wide(c, vld1_s8(w2 + k), v);
            d = pg_neon_eight_wide(d, vld1_s8(w3 + k), v);
        }
    }
    if (k < inputs && inputs >= 8) { /* the last eight, without those that have been */
        const int8x8_t mask = pg_neon_last(inputs - k);
        k = inputs - 8;
        if (wide) {
            const int16x8_t v = vandq_s16(vld1q_s16((const int16_t *)x + k), vmovl_s8(mask));
            a = pg_neon_eight_wide(a, vld1_s8(w + k), v);
            b = pg_neon_eight_wide(b, vld1_s8(w1 + k), v);
            c = pg_neon_eight_wide(c, vld1_s8(w2 + k), v);
            d = pg_neon_eight_wide(d, vld1_s8(w3 + k), v);
        } else {
            const int8x8_t v = vand_s8(vld1_s8((const int8_t *)x + k), mask);
            a = pg_neon_eight(a, vld1_s8(w + k), v);
            b = pg_neon_eight(b, vld1_s8(w1 + k), v);
            c = pg_neon_eight(c, vld1_s8(w2 + k), v);
            d = pg_neon_eight(d, vld1_s8(w3 + k), v);
        }
        k = inputs;
    }
    int32x4_t sums = pg_neon_sums(a, b, c, d);
    for (; k < inputs; ++k) {
        const int32_t v = pg_get(x, k, wide);
        const int32_t last[4] = {w[k], w1[k], w2[k], w3[k]};
        sums = vmlaq_n_s32(sums, vld1q_s32(last), v);
    }
    return sums;
}

/* y[n] = requantise(bias[n] + sum_k w[n][k] x[k]) of one input vector. */
PG_INLINE void pg_neon_matrix_vector(const int8_t *weights, const int32_t *bias, const int32_t *multipliers,
                                     int32_t inputs, int32_t outputs, const pg_requant *out, const void *x,
                                     bool x_wide, void *y, bool y_wide) {
    int32_t n = 0;
    for (; n + 4 <= outputs; n += 4) {
        const int32x4_t acc = vaddq_s32(pg_neon_four_rows(weights, inputs, x, x_wide), vld1q_s32(bias + n));
        pg_neon_put(y, n, pg_neon_requantise(acc, vld1q_s32(multipliers + n), out), y_wide);
        weights += 4 * inputs;
    }
    for (; n < outputs; ++n) {
        const int32_t acc = bias[n] + pg_neon_dot(weights, x, inputs, x_wide);
        pg_put(y, n, pg_requantise(acc, multipliers[n], out), y_wide);
        weights += inputs;
    }
}

/* Adds eight sums of two products. */
PG_INLINE void pg_neon_add_eight(int32x4_t *low, int32x4_t *high, int16x8_t products) {
    *low = vaddw_s16(*low, vget_low_s16(products));
    *high = vaddw_s16(*high, vget_high_s16(products));
}

/* Eight channels of count int8 pixels, column_step elements apart, times weights channels apart. */
PG_INLINE void pg_neon_taps(int32x4_t *low, int32x4_t *high, const int8_t *w, int32_t channels,
                            const int8_t *x, int32_t column_step, int32_t count) {
    for (; count >= 2; count -= 2) {
        const int16x8_t products = vmull_s8(vld1_s8(w), vld1_s8(x));
        pg_neon_add_eight(low, high, vmlal_s8(products, vld1_s8(w + channels), vld1_s8(x + column_step)));
        w += 2 * channels;
        x += 2 * column_step;
    }
    if (count > 0) {
        pg_neon_add_eight(low, high, vmull_s8(vld1_s8(w), vld1_s8(x)));
    }
}

/* Outputs o .. o + 7 of one pixel of a depthwise convolution: taps of one row column_step elements apart,
 * rows row_step; weights [kernel_h][kernel_w][channels]. */
PG_INLINE void pg_neon_depthwise_eight(const int8_t *weights, const int32_t *bias, const int32_t *multipliers,
                                       int32_t kernel_h, int32_t kernel_w, int32_t channels,
                                       const pg_requant *out, const void *x, int32_t row_step,
                                       int32_t column_step, bool x_wide, void *y, int32_t o, bool y_wide) {
    int32x4_t low = vld1q_s32(bias + o);
    int32x4_t high = vld1q_s32(bias + o + 4);
    const int8_t *w = weights + o;
    for (int32_t ky = 0; ky < kernel_h; ++ky) {
        const void *v = pg_at(x, ky * row_step + o, x_wide);
        if (!x_wide && kernel_w == 3) { /* the usual one, unrolled */
            pg_neon_taps(&low, &high, w, channels, (const int8_t *)v, column_step, 3);
        } else if (!x_wide) {
            pg_neon_taps(&low, &high, w, channels, (const int8_t *)v, column_step, kernel_w);
        } else {
            for (int32_t kx = 0; kx < kernel_w; ++kx) {
                const int16x8_t values = vld1q_s16((const int16_t *)v);
                const int16x8_t wide = vmovl_s8(vld1_s8(w + kx * channels));
                low = vmlal_s16(low, vget_low_s16(wide), vget_low_s16(values));
                high = vmlal_s16(high, vget_high_s16(wide), vget_high_s16(values));
                v = pg_at(v, column_step, true);
            }
        }
        w += kernel_w * channels;
    }
    pg_neon_put_eight(y, o, pg_neon_requantise(low, vld1q_s32(multipliers + o), out),
                      pg_neon_requantise(high, vld1q_s32(multipliers + o + 4), out), y_wide);
}

#endif /* __ARM_NEON */

#endif /* PG_NEON_H */
