/* SPDX-License-Identifier: MIT-0
 *
 * What the LSTM and GRU blocks for cores with DSP instructions share: the tanh table in the form they read,
 * operands as int16 pairs, and the plain C of a packed weight pair.
 *
 * Packed weight pair: the halfword h = 256 w[A] + w[B] serves two rows. A product with h adds 256 A + B;
 * SXTB16 of the same word leaves w[B] alone. At the end A = (packed - second) >> 8, exact while |A| < 2^23,
 * which the generator has proven for every row.
 */
#ifndef PG_RECURRENT_DSP_H
#define PG_RECURRENT_DSP_H

#include "pg_activation.h"

/* Word i + 128: low half -T[i], high half T[i + 1] - T[i], with T[i] = round(32767 tanh(i / 16)). One
 * multiply-accumulate of both halves with (-32768, fraction << 7) interpolates; the ends are flat, so an
 * index that is saturated to -128 .. 127 is exact for any argument. */
static const uint32_t pg_tanh_words[256] = {
    0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff,
    0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff,
    0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff,
    0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff, 0x00007fff,
    0x00007fff, 0x00017fff, 0x00007ffe, 0x00007ffe, 0x00007ffe, 0x00007ffe, 0x00007ffe, 0x00007ffe,
    0x00007ffe, 0x00007ffe, 0x00017ffe, 0x00007ffd, 0x00007ffd, 0x00007ffd, 0x00017ffd, 0x00007ffc,
    0x00007ffc, 0x00017ffc, 0x00007ffb, 0x00017ffb, 0x00017ffa, 0x00007ff9, 0x00017ff9, 0x00017ff8,
    0x00017ff7, 0x00017ff6, 0x00027ff5, 0x00017ff3, 0x00027ff2, 0x00027ff0, 0x00027fee, 0x00037fec,
    0x00037fe9, 0x00037fe6, 0x00047fe3, 0x00047fdf, 0x00057fdb, 0x00067fd6, 0x00067fd0, 0x00077fca,
    0x00087fc3, 0x00097fbb, 0x000a7fb2, 0x000b7fa8, 0x000d7f9d, 0x000f7f90, 0x00117f81, 0x00137f70,
    0x00167f5d, 0x00187f47, 0x001c7f2f, 0x001f7f13, 0x00237ef4, 0x00287ed1, 0x002d7ea9, 0x00347e7c,
    0x003a7e48, 0x00417e0e, 0x004a7dcd, 0x00547d83, 0x005f7d2f, 0x006b7cd0, 0x00787c65, 0x00897bed,
    0x00997b64, 0x00ae7acb, 0x00c37a1d, 0x00dc795a, 0x00f7787e, 0x01167787, 0x01387671, 0x015e7539,
    0x018873db, 0x01b67253, 0x01e9709d, 0x02206eb4, 0x025e6c94, 0x02a06a36, 0x02e76796, 0x033464af,
    0x0386617b, 0x03dc5df5, 0x04375a19, 0x049655e2, 0x04f7514c, 0x05584c55, 0x05bb46fd, 0x061c4142,
    0x06783b26, 0x06d034ae, 0x071f2dde, 0x076626bf, 0x07a01f59, 0x07ce17b9, 0x07ee0feb, 0x07fd07fd,
    0x07fd0000, 0x07eef803, 0x07cef015, 0x07a0e847, 0x0766e0a7, 0x071fd941, 0x06d0d222, 0x0678cb52,
    0x061cc4da, 0x05bbbebe, 0x0558b903, 0x04f7b3ab, 0x0496aeb4, 0x0437aa1e, 0x03dca5e7, 0x0386a20b,
    0x03349e85, 0x02e79b51, 0x02a0986a, 0x025e95ca, 0x0220936c, 0x01e9914c, 0x01b68f63, 0x01888dad,
    0x015e8c25, 0x01388ac7, 0x0116898f, 0x00f78879, 0x00dc8782, 0x00c386a6, 0x00ae85e3, 0x00998535,
    0x0089849c, 0x00788413, 0x006b839b, 0x005f8330, 0x005482d1, 0x004a827d, 0x00418233, 0x003a81f2,
    0x003481b8, 0x002d8184, 0x00288157, 0x0023812f, 0x001f810c, 0x001c80ed, 0x001880d1, 0x001680b9,
    0x001380a3, 0x00118090, 0x000f807f, 0x000d8070, 0x000b8063, 0x000a8058, 0x0009804e, 0x00088045,
    0x0007803d, 0x00068036, 0x00068030, 0x0005802a, 0x00048025, 0x00048021, 0x0003801d, 0x0003801a,
    0x00038017, 0x00028014, 0x00028012, 0x00028010, 0x0001800e, 0x0002800d, 0x0001800b, 0x0001800a,
    0x00018009, 0x00018008, 0x00008007, 0x00018007, 0x00018006, 0x00008005, 0x00018005, 0x00008004,
    0x00008004, 0x00018004, 0x00008003, 0x00008003, 0x00008003, 0x00018003, 0x00008002, 0x00008002,
    0x00008002, 0x00008002, 0x00008002, 0x00008002, 0x00008002, 0x00008002, 0x00018002, 0x00008001,
    0x00008001, 0x00008001, 0x00008001, 0x00008001, 0x00008001, 0x00008001, 0x00008001, 0x00008001,
    0x00008001, 0x00008001, 0x00008001, 0x00008001, 0x00008001, 0x00008001, 0x00008001, 0x00008001,
    0x00008001, 0x00008001, 0x00008001, 0x00008001, 0x00008001, 0x00008001, 0x00008001, 0x00008001,
    0x00008001, 0x00008001, 0x00008001, 0x00008001, 0x00008001, 0x00008001, 0x00008001, 0x00008001};

/* tanh of v / 4096 as pg_tanh, with 15 (in bits 15 ..) more fraction bits and bias added: what the blocks do
 * with SSAT, LDR, BFI, SMLAD. */
PG_INLINE int32_t pg_tanh_wide(int32_t v, int32_t bias) {
    const uint32_t word = pg_tanh_words[pg_clamp(v >> 8, -128, 127) + 128];
    const int32_t negated = (int16_t)(word & 0xffffu);
    const int32_t rise = (int32_t)(word >> 16);
    return negated * -32768 + rise * ((v & 255) << 7) + bias;
}

#define PG_TANH_BIAS 0x4000         /* pg_tanh(v) == pg_tanh_wide(v, PG_TANH_BIAS) >> 15 */
#define PG_LOGISTIC_BIAS 0x3fffc000 /* pg_logistic(v) == pg_tanh_wide(v, PG_LOGISTIC_BIAS) >> 16 */

/* Accumulators of two rows whose weights are packed. */
typedef struct {
    uint32_t packed; /* 256 A + B, modulo 2^32 */
    uint32_t second; /* B */
} pg_pair;

PG_INLINE pg_pair pg_pair_start(const uint32_t *words) {
    const pg_pair pair = {words[0], words[1]};
    return pair;
}

/* Adds the products of one weight word, two columns, with v[0] and v[1]. */
PG_INLINE void pg_pair_add(pg_pair *pair, uint32_t word, const int16_t *v) {
    for (int32_t i = 0; i < 2; ++i) {
        const int32_t half = (int16_t)(i == 0 ? word & 0xffffu : word >> 16);
        pair->packed += (uint32_t)(half * v[i]);
        pair->second += (uint32_t)((int8_t)((uint32_t)half & 0xffu) * v[i]);
    }
}

PG_INLINE int32_t pg_pair_first(pg_pair pair) {
    return (int32_t)(pair.packed - pair.second) >> 8;
}

PG_INLINE int32_t pg_pair_second(pg_pair pair) {
    return (int32_t)pair.second;
}

/* Adds all columns of `pairs` row pairs that share an operand: `quads` times four columns (per pair two
 * words), then two more where half is set (per pair one word). Returns the stream behind them. */
PG_INLINE const uint32_t *pg_pairs_run(pg_pair *pair, int32_t pairs, const uint32_t *stream, const int16_t *v,
                                       int32_t quads, bool half) {
    for (int32_t q = 0; q < quads; ++q) {
        for (int32_t j = 0; j < pairs; ++j) {
            pg_pair_add(&pair[j], *stream++, v);
            pg_pair_add(&pair[j], *stream++, v + 2);
        }
        v += 4;
    }
    for (int32_t j = 0; half && j < pairs; ++j) {
        pg_pair_add(&pair[j], *stream++, v);
    }
    return stream;
}

/* The accumulators of `rows` rows (at most 6) that share an operand, from their start values: packed pairs,
 * or int16 weights (wide), two columns of every row in turn. Returns the stream behind the weights. */
PG_INLINE const uint32_t *pg_rows_run(int32_t *acc, int32_t rows, const uint32_t *starts,
                                      const uint32_t *stream, const int16_t *v, int32_t quads, bool half,
                                      bool wide) {
    if (wide) {
        for (int32_t j = 0; j < rows; ++j) {
            acc[j] = (int32_t)starts[j];
        }
        for (int32_t k = 0; k < 2 * quads + (half ? 1 : 0); ++k) {
            for (int32_t j = 0; j < rows; ++j) {
                acc[j] += v[2 * k] * (int16_t)(*stream & 0xffffu) + v[2 * k + 1] * (int16_t)(*stream >> 16);
                ++stream;
            }
        }
    } else {
        pg_pair pair[3];
        for (int32_t j = 0; j < rows / 2; ++j) {
            pair[j] = pg_pair_start(starts + 2 * j);
        }
        stream = pg_pairs_run(pair, rows / 2, stream, v, quads, half);
        for (int32_t j = 0; j < rows / 2; ++j) {
            acc[2 * j] = pg_pair_first(pair[j]);
            acc[2 * j + 1] = pg_pair_second(pair[j]);
        }
    }
    return stream;
}

/* count int8 values to int16, shifted left; to[count ..] up to the next multiple of 4 becomes 0. */
PG_INLINE void pg_widen(const int8_t *x, int32_t count, int32_t shift, int16_t *to) {
    for (int32_t i = 0; i < count; ++i) {
        to[i] = (int16_t)(x[i] * (1 << shift));
    }
    for (int32_t i = count; i % 4 != 0; ++i) {
        to[i] = 0;
    }
}

/* Copies groups of 8 int16 values; both ends are multiples of 4 bytes. */
#if PG_HAS_DSP
PG_NAKED void pg_copy_eights(PG_UNUSED int16_t *to, PG_UNUSED const int16_t *from, PG_UNUSED int32_t groups) {
    __asm volatile("push {r4-r6, lr}\n"
                   "1: ldmia r1!, {r3-r6}\n"
                   "stmia r0!, {r3-r6}\n"
                   "subs r2, r2, #1\n"
                   "bne 1b\n"
                   "pop {r4-r6, pc}\n");
}
#else
PG_KERNEL void pg_copy_eights(int16_t *to, const int16_t *from, int32_t groups) {
    memcpy(to, from, (size_t)groups * 8 * sizeof(int16_t));
}
#endif

#endif /* PG_RECURRENT_DSP_H */
