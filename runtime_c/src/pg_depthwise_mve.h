/* SPDX-License-Identifier: MIT-0
 *
 * Depthwise convolution for cores with MVE (Helium): strips of one or two columns of outputs. The columns
 * under a strip are interleaved for 16 channels at a time, so that a word holds four columns of one position
 * of one channel. Positions run along the height of the map, or along its width; columns along the other
 * axis.
 */
#ifndef PG_DEPTHWISE_MVE_H
#define PG_DEPTHWISE_MVE_H

#include "pg_conv_mve.h"

/* Arguments of the blocks. */
typedef struct {
    uint32_t eight0; /* bytes from y to eight outputs, two in a word */
    uint32_t eight1;
    uint32_t eight2;
    uint32_t eight3;
    uint32_t four0; /* bytes from y to four outputs */
    uint32_t four1;
    uint32_t four2;
    uint32_t four3;
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
    int32_t fours;      /* whole fours of positions */
    int32_t next;       /* bytes from the last patch of a channel to before the first one of the next */
    int32_t y_fours;    /* bytes of y from four positions to the next four */
    int32_t y_tail;     /* bytes of y from the last four to the positions after them */
    int32_t y_channel;  /* bytes of y from there to the next channel */
    uint32_t position0; /* bytes from the words to a patch's positions, less one step */
    uint32_t position1;
    uint32_t position2;
    uint32_t position3;
    int32_t y_column; /* bytes of y from one column to the next */
} pg_depthwise_mve_block;

typedef struct {
    const uint32_t *stream; /* weights, bias and halved multiplier of each channel */
    pg_depthwise_mve_block block;
    pg_depthwise_mve_block last; /* of the last strip, where it has one column and the others two */
    int32_t channels;
    int32_t positions;       /* of the map that lie under windows */
    int32_t columns;         /* of the map */
    int32_t position_step;   /* elements from one position of the map to the next */
    int32_t column_step;     /* and from one column to the next */
    int32_t position_pad;    /* positions before the map */
    int32_t column_pad;      /* columns before it */
    int32_t column_stride;   /* between columns of outputs */
    int32_t column_dilation; /* between columns under a window */
    int32_t outputs;         /* columns of outputs */
    int32_t y_column;        /* elements from one of them to the next */
    int32_t words;           /* bytes of one strip's words */
    int32_t zero_point;      /* of the input */
} pg_depthwise_mve_params;

/* Four columns of 16 channels. */
typedef struct {
    const int8_t *from[4];
    int32_t step[4]; /* from one position to the next; 0 in the padding */
} pg_depthwise_mve_columns;

/* Words of four columns, position by position: 64 bytes for 16 channels, of which the first ones are read. */
#if PG_HAS_MVE
PG_NAKED void pg_depthwise_mve_interleave(PG_UNUSED const pg_depthwise_mve_columns *columns,
                                          PG_UNUSED int8_t *to, PG_UNUSED int32_t positions,
                                          PG_UNUSED int32_t channels) {
    /* r0 r4 r5 r6 columns, r7-r10 their steps, r1 to, r2 positions, r3 channels. 13 instructions a position,
     * 14 where not all channels are read. */
    __asm volatile("push {r4-r10, lr}\n"
                   "ldrd r7, r8, [r0, #16]\n"
                   "ldrd r9, r10, [r0, #24]\n"
                   "ldm r0, {r0, r4, r5, r6}\n"
                   "vctp.8 r3\n"
                   "cmp r3, #16\n"
                   "dls lr, r2\n"
                   "bne 2f\n"
                   "1: vldrb.u8 q0, [r0]\n"
                   "vldrb.u8 q1, [r4]\n"
                   "vldrb.u8 q2, [r5]\n"
                   "vldrb.u8 q3, [r6]\n"
                   "add r0, r0, r7\n"
                   "add r4, r4, r8\n"
                   "add r5, r5, r9\n"
                   "add r6, r6, r10\n"
                   "vst40.8 {q0, q1, q2, q3}, [r1]\n"
                   "vst41.8 {q0, q1, q2, q3}, [r1]\n"
                   "vst42.8 {q0, q1, q2, q3}, [r1]\n"
                   "vst43.8 {q0, q1, q2, q3}, [r1]!\n"
                   "le lr, 1b\n"
                   "pop {r4-r10, pc}\n"
                   "2: vpstttt\n"
                   "vldrbt.u8 q0, [r0]\n"
                   "vldrbt.u8 q1, [r4]\n"
                   "vldrbt.u8 q2, [r5]\n"
                   "vldrbt.u8 q3, [r6]\n"
                   "add r0, r0, r7\n"
                   "add r4, r4, r8\n"
                   "add r5, r5, r9\n"
                   "add r6, r6, r10\n"
                   "vst40.8 {q0, q1, q2, q3}, [r1]\n"
                   "vst41.8 {q0, q1, q2, q3}, [r1]\n"
                   "vst42.8 {q0, q1, q2, q3}, [r1]\n"
                   "vst43.8 {q0, q1, q2, q3}, [r1]!\n"
                   "le lr, 2b\n"
                   "pop {r4-r10, pc}\n");
}
#else
PG_KERNEL void pg_depthwise_mve_interleave(const pg_depthwise_mve_columns *columns, int8_t *to,
                                           int32_t positions, int32_t channels) {
    for (int32_t i = 0; i < positions * channels; ++i) {
        for (int32_t j = 0; j < 4; ++j) {
            to[i / channels * 64 + i % channels * 4 + j] =
                columns->from[j][i / channels * columns->step[j] + i % channels];
        }
    }
}
#endif

/* The words under column ox of the outputs, channels first .. first + count - 1; pad holds 16 zero points. */
PG_INLINE void pg_depthwise_mve_strip(const pg_depthwise_mve_params *p, const int8_t *x, int32_t ox,
                                      int32_t first, int32_t count, const int8_t *pad, int8_t *words) {
    pg_depthwise_mve_columns columns;
    for (int32_t j = 0; j < 4; ++j) {
        const int32_t ix = ox * p->column_stride - p->column_pad + j * p->column_dilation;
        const bool inside = ix >= 0 && ix < p->columns;
        columns.from[j] = inside ? x + ix * p->column_step + first : pad;
        columns.step[j] = inside ? p->position_step : 0;
    }
    pg_depthwise_mve_interleave(&columns, words + p->position_pad * 64, p->positions, count);
}

#endif /* PG_DEPTHWISE_MVE_H */
