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

typedef struct {
    int32_t zero_point;
    int32_t low; /* smallest and largest output; read where they are not the type's */
    int32_t high;
} pg_depthwise_mve_out;

/* Arguments of the blocks; read in this order. */
typedef struct {
    uint32_t eight[4]; /* bytes from y to eight outputs, two in a word */
    int32_t four[4];   /* bytes from y to four outputs */
    pg_depthwise_mve_out out;
    int32_t fours;       /* whole fours of positions */
    int32_t next;        /* bytes from the last patch of a channel to before the first one of the next */
    int32_t y_fours;     /* bytes of y from four positions to the next four */
    int32_t y_tail;      /* bytes of y from the last four to the positions after them */
    int32_t y_channel;   /* bytes of y from there to the next channel */
    int32_t position[4]; /* bytes from the words to a patch's positions, less one step */
    int32_t rest[4];     /* bytes from y to the outputs after the fours, one column at a time */
    int32_t y_column;    /* bytes of y from one column to the next */
} pg_depthwise_mve_block;

/* One axis of the convolution. */
typedef struct {
    int32_t inputs, outputs; /* sizes of the maps */
    int32_t x_step, y_step;  /* elements from one input or output to the next */
    int32_t stride, dilation;
    int32_t pad; /* before the map */
} pg_depthwise_mve_axis;

typedef struct {
    const uint32_t *stream;      /* weights, bias and halved multiplier of each channel */
    pg_depthwise_mve_axis along; /* positions */
    pg_depthwise_mve_axis aside; /* columns */
    int32_t channels;
    int32_t loaded;   /* positions of the map that lie under windows */
    int32_t words;    /* bytes of one strip's words */
    int32_t strip;    /* columns of outputs of a strip: 1 or 2 */
    int32_t together; /* positions that a patch gives: 1 or 2 */
    int32_t input_zero_point;
    pg_depthwise_mve_out out;
    bool ahead;    /* words are made one strip ahead */
    int32_t taken; /* columns under a strip */
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
        const int32_t ix = ox * p->aside.stride - p->aside.pad + j * p->aside.dilation;
        const bool inside = ix >= 0 && ix < p->aside.inputs;
        columns.from[j] = inside ? x + ix * p->aside.x_step + first : pad;
        columns.step[j] = inside ? p->along.x_step : 0;
    }
    pg_depthwise_mve_interleave(&columns, words + p->along.pad * 64, p->loaded, count);
}

/* What a block of one or two columns is told. Positions come in fours; the tail after them is computed alone,
 * or, two columns at a time, in pairs: those of an odd tail overlap the positions before. */
PG_KERNEL void pg_depthwise_mve_describe(const pg_depthwise_mve_params *p, int32_t columns,
                                         pg_depthwise_mve_block *b) {
    const int32_t a = p->along.y_step;
    const int32_t c = p->aside.y_step;
    const int32_t outputs = p->along.outputs;
    const int32_t fours = outputs / 4;
    const int32_t tail = outputs % 4;
    const int32_t step = 64 * p->along.stride * p->together;
    const int32_t lane = 64 * p->along.dilation;
    const int32_t patches = (outputs + p->together - 1) / p->together;
    const bool pairs = columns == 2;
    const bool overlaps = pairs && (tail == 3 || (tail == 1 && fours > 0));
    const int32_t back = overlaps && fours > 0 ? a : 0;
    /* After narrowing, the first patch's outputs lie in the bottom halves, the second one's in the top. */
    const uint32_t second = (uint32_t)(outputs == 3 ? a : 2 * a) << 16;
    const int32_t next = pairs ? c : a;
    const int32_t other = !pairs ? 2 * a : outputs > 1 ? a : 0;
    b->eight[0] = second;
    b->eight[1] = second + (uint32_t)c * 0x10001u;
    b->eight[2] = second + (uint32_t)a * 0x10001u;
    b->eight[3] = second + (uint32_t)(a + c) * 0x10001u;
    b->four[0] = 0;
    b->four[1] = next;
    b->four[2] = other;
    b->four[3] = other + next;
    b->position[0] = -step;
    b->position[1] = lane - step;
    b->position[2] = 2 * lane - step;
    b->position[3] = 3 * lane - step;
    b->rest[0] = 0;
    b->rest[1] = tail > 1 ? a : 0;
    b->rest[2] = tail > 2 ? 2 * a : b->rest[1];
    b->rest[3] = b->rest[2];
    b->out = p->out;
    b->fours = fours;
    b->next = 4 - patches * step + (overlaps ? 64 : 0);
    b->y_fours = 4 * a;
    b->y_tail = -back;
    b->y_channel = 1 - 4 * fours * a + back;
    b->y_column = c;
}

/* A block: the outputs of a strip, channel by channel; see the blocks themselves. */
typedef void pg_depthwise_mve_run(const int8_t *words, const uint32_t *stream, int8_t *y,
                                  const pg_depthwise_mve_block *p, int32_t channels);

/* Strip by strip; last computes the last strip where it has one column and the others two. With p->ahead a
 * strip's words are made before the strip before it is computed, so that y may be x. Scratch: 16 zero points,
 * then the words of one or (ahead) two strips. residual is NULL. */
PG_KERNEL void pg_depthwise_mve(const pg_depthwise_mve_params *p, pg_depthwise_mve_run *run,
                                pg_depthwise_mve_run *last, const int8_t *x, const int8_t *residual,
                                int8_t *y, void *scratch) {
    const int32_t outputs = p->aside.outputs;
    const int32_t ahead = p->ahead ? p->strip : 0;
    const uint32_t *stream = p->stream;
    int8_t *pad = (int8_t *)scratch;
    int8_t *words = pad + 16;
    int8_t *next = words + (p->ahead ? p->words : 0);
    pg_depthwise_mve_block block;
    pg_depthwise_mve_block single;
    (void)residual;
    pg_depthwise_mve_describe(p, p->strip, &block);
    if (outputs % p->strip != 0) {
        pg_depthwise_mve_describe(p, 1, &single);
    }
    pg_conv_mve_fill(pad, ((uint32_t)p->input_zero_point & 0xffu) * 0x01010101u,
                     16 + (p->ahead ? 2 : 1) * p->words);
    for (int32_t first = 0; first < p->channels; first += 16) {
        const int32_t count = p->channels - first < 16 ? p->channels - first : 16;
        if (p->ahead) {
            pg_depthwise_mve_strip(p, x, 0, first, count, pad, next);
        }
        for (int32_t ox = 0; ox < outputs; ox += p->strip) {
            int8_t *made = next;
            next = words;
            words = made;
            if (ox + ahead < outputs) {
                pg_depthwise_mve_strip(p, x, ox + ahead, first, count, pad, next);
            }
            if (ox + p->strip > outputs) {
                last(made, stream, y + ox * p->aside.y_step + first, &single, count);
            } else {
                run(made, stream, y + ox * p->aside.y_step + first, &block, count);
            }
        }
        stream += 6 * 16;
    }
}

/* One strip whose columns are rows: from pointers to them. Scratch: 16 zero points, then the words of a
 * strip. residual is NULL. */
PG_KERNEL void pg_depthwise_mve_row(const pg_depthwise_mve_params *p, pg_depthwise_mve_run *run,
                                    pg_depthwise_mve_run *last, const int8_t *const *rows,
                                    const int8_t *residual, int8_t *y, void *scratch) {
    const uint32_t zeros = ((uint32_t)p->input_zero_point & 0xffu) * 0x01010101u;
    const uint32_t *stream = p->stream;
    int8_t *pad = (int8_t *)scratch;
    int8_t *words = pad + 16;
    const int32_t inside = p->along.pad * 64;
    const int32_t end = inside + p->loaded * 64;
    pg_depthwise_mve_block block;
    pg_depthwise_mve_columns columns;
    (void)last;
    (void)residual;
    pg_depthwise_mve_describe(p, p->strip, &block);
    pg_conv_mve_fill(pad, zeros, 16 + inside);
    pg_conv_mve_fill(words + end, zeros, p->words - end);
    for (int32_t first = 0; first < p->channels; first += 16) {
        const int32_t count = p->channels - first < 16 ? p->channels - first : 16;
        for (int32_t j = 0; j < 4; ++j) {
            columns.from[j] = j < p->taken ? rows[j] + first : pad;
            columns.step[j] = j < p->taken ? p->along.x_step : 0;
        }
        pg_depthwise_mve_interleave(&columns, words + inside, p->loaded, count);
        run(words, stream, y + first, &block, count);
        stream += 6 * 16;
    }
}

#endif /* PG_DEPTHWISE_MVE_H */
