/* SPDX-License-Identifier: MIT-0
 *
 * What the LSTM and GRU blocks for cores with MVE share: the tanh table in the form they gather from, and the
 * plain C of eight rows at a time.
 *
 * Eight accumulators belong to eight units of one gate. Two vectors hold them as units 0, 2, 4, 6 and
 * 1, 3, 5, 7, so that narrowing into bottom and top halves restores their order.
 */
#ifndef PG_RECURRENT_MVE_H
#define PG_RECURRENT_MVE_H

#include "pg_activation.h"

/* T[i] = round(32767 tanh(i / 16)) at place i & 255, then T[i + 1] - T[i] at 256 + (i & 255), i = -128 ..
 * 127: the top byte of an argument is the place. */
PG_USED static const int16_t pg_tanh_gather[512] = {
    0,      2045,   4075,   6073,   8025,   9919,   11742,  13486,  15142,  16706,  18173,  19541,  20812,
    21986,  23065,  24053,  24955,  25775,  26518,  27190,  27796,  28340,  28829,  29267,  29659,  30009,
    30321,  30599,  30846,  31066,  31261,  31435,  31588,  31725,  31845,  31952,  32047,  32131,  32205,
    32270,  32328,  32380,  32425,  32465,  32500,  32531,  32559,  32583,  32605,  32624,  32641,  32656,
    32669,  32680,  32690,  32699,  32707,  32714,  32720,  32726,  32731,  32735,  32739,  32742,  32745,
    32748,  32750,  32752,  32754,  32755,  32757,  32758,  32759,  32760,  32761,  32761,  32762,  32763,
    32763,  32764,  32764,  32764,  32765,  32765,  32765,  32765,  32766,  32766,  32766,  32766,  32766,
    32766,  32766,  32766,  32766,  32767,  32767,  32767,  32767,  32767,  32767,  32767,  32767,  32767,
    32767,  32767,  32767,  32767,  32767,  32767,  32767,  32767,  32767,  32767,  32767,  32767,  32767,
    32767,  32767,  32767,  32767,  32767,  32767,  32767,  32767,  32767,  32767,  32767,  -32767, -32767,
    -32767, -32767, -32767, -32767, -32767, -32767, -32767, -32767, -32767, -32767, -32767, -32767, -32767,
    -32767, -32767, -32767, -32767, -32767, -32767, -32767, -32767, -32767, -32767, -32767, -32767, -32767,
    -32767, -32767, -32767, -32767, -32767, -32767, -32766, -32766, -32766, -32766, -32766, -32766, -32766,
    -32766, -32766, -32765, -32765, -32765, -32765, -32764, -32764, -32764, -32763, -32763, -32762, -32761,
    -32761, -32760, -32759, -32758, -32757, -32755, -32754, -32752, -32750, -32748, -32745, -32742, -32739,
    -32735, -32731, -32726, -32720, -32714, -32707, -32699, -32690, -32680, -32669, -32656, -32641, -32624,
    -32605, -32583, -32559, -32531, -32500, -32465, -32425, -32380, -32328, -32270, -32205, -32131, -32047,
    -31952, -31845, -31725, -31588, -31435, -31261, -31066, -30846, -30599, -30321, -30009, -29659, -29267,
    -28829, -28340, -27796, -27190, -26518, -25775, -24955, -24053, -23065, -21986, -20812, -19541, -18173,
    -16706, -15142, -13486, -11742, -9919,  -8025,  -6073,  -4075,  -2045,  2045,   2030,   1998,   1952,
    1894,   1823,   1744,   1656,   1564,   1467,   1368,   1271,   1174,   1079,   988,    902,    820,
    743,    672,    606,    544,    489,    438,    392,    350,    312,    278,    247,    220,    195,
    174,    153,    137,    120,    107,    95,     84,     74,     65,     58,     52,     45,     40,
    35,     31,     28,     24,     22,     19,     17,     15,     13,     11,     10,     9,      8,
    7,      6,      6,      5,      4,      4,      3,      3,      3,      2,      2,      2,      1,
    2,      1,      1,      1,      1,      0,      1,      1,      0,      1,      0,      0,      1,
    0,      0,      0,      1,      0,      0,      0,      0,      0,      0,      0,      0,      1,
    0,      0,      0,      0,      0,      0,      0,      0,      0,      0,      0,      0,      0,
    0,      0,      0,      0,      0,      0,      0,      0,      0,      0,      0,      0,      0,
    0,      0,      0,      0,      0,      0,      0,      0,      0,      0,      0,      0,      0,
    0,      0,      0,      0,      0,      0,      0,      0,      0,      0,      0,      0,      0,
    0,      0,      0,      0,      0,      0,      0,      0,      0,      0,      0,      0,      0,
    0,      1,      0,      0,      0,      0,      0,      0,      0,      0,      1,      0,      0,
    0,      1,      0,      0,      1,      0,      1,      1,      0,      1,      1,      1,      1,
    2,      1,      2,      2,      2,      3,      3,      3,      4,      4,      5,      6,      6,
    7,      8,      9,      10,     11,     13,     15,     17,     19,     22,     24,     28,     31,
    35,     40,     45,     52,     58,     65,     74,     84,     95,     107,    120,    137,    153,
    174,    195,    220,    247,    278,    312,    350,    392,    438,    489,    544,    606,    672,
    743,    820,    902,    988,    1079,   1174,   1271,   1368,   1467,   1564,   1656,   1744,   1823,
    1894,   1952,   1998,   2030,   2045};

/* Adds eight rows of count products. Weights lie [vector][8 rows][lanes], 16 lanes of an int8 operand or 8 of
 * an int16 one (wide). Returns the weights behind them. */
PG_INLINE const int8_t *pg_eight_rows(int32_t *acc, const int8_t *weights, const void *operand, int32_t count,
                                      bool wide) {
    const int32_t lanes = wide ? 8 : 16;
    for (int32_t k = 0; k < count; k += lanes) {
        for (int32_t j = 0; j < 8; ++j) {
            for (int32_t i = 0; i < lanes; ++i) {
                acc[j] += *weights++ * pg_get(operand, k + i, wide);
            }
        }
    }
    return weights;
}

/* Unit j of eight in the order of two vectors (0, 2, 4, 6 and 1, 3, 5, 7). */
PG_INLINE int32_t pg_eight_place(int32_t j) {
    return j % 2 * 4 + j / 2;
}

/* Table argument of unit j: its multiplier stands in the order of two vectors. */
PG_INLINE int32_t pg_eight_gate(int32_t acc, const int32_t *multipliers, int32_t j, int32_t shift) {
    return pg_clamp(pg_rq(acc, multipliers[pg_eight_place(j)], shift), -32768, 32767);
}

/* Copies count bytes, at least 1, any alignment. */
#if PG_HAS_MVE
PG_NAKED void pg_copy_bytes(PG_UNUSED int8_t *to, PG_UNUSED const int8_t *from, PG_UNUSED int32_t count) {
    __asm volatile("push {r4, lr}\n"
                   "dlstp.8 lr, r2\n"
                   "1: vldrb.8 q0, [r1], #16\n"
                   "vstrb.8 q0, [r0], #16\n"
                   "letp lr, 1b\n"
                   "pop {r4, pc}\n");
}
#else
PG_KERNEL void pg_copy_bytes(int8_t *to, const int8_t *from, int32_t count) {
    memcpy(to, from, (size_t)count);
}
#endif

#endif /* PG_RECURRENT_MVE_H */
