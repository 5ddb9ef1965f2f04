/* SPDX-License-Identifier: MIT-0
 *
 * Depthwise convolution for cores with DSP instructions: four channels at a time become int16 planes with the
 * padding in them, column by column, so that one word holds two vertical neighbours.
 */
#ifndef PG_DEPTHWISE_DSP_H
#define PG_DEPTHWISE_DSP_H

#include "projgen_runtime.h"

/* How the map is copied to planes. Word i of a column holds its padded rows 2 i and 2 i + 1. */
typedef struct {
    int32_t row;     /* bytes from one row of the map to the next */
    int32_t pixel;   /* bytes from one pixel to the next */
    int32_t columns; /* copied */
    int32_t pairs;   /* rows copied two by two */
    int32_t pitch;   /* bytes from one column of a plane to the next */
    int32_t plane;   /* bytes from one plane to the next */
    uint32_t pad;    /* the zero point of the input, twice */
    int32_t lead;    /* 1: one row more, before the pairs, shares its word with padding */
    int32_t tail;    /* 1: one row more, after the pairs, shares its word with padding */
} pg_depthwise_dsp_plane;

typedef struct {
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
    int32_t pixel; /* bytes of an output pixel */
} pg_depthwise_dsp_out;

typedef struct {
    const uint32_t *table; /* per output channel: weights, bias and multiplier in reading order */
    pg_depthwise_dsp_plane plane;
    pg_depthwise_dsp_out out;
    int32_t channels;    /* of the input */
    int32_t multiplier;  /* output channels an input channel */
    int32_t table_words; /* an output channel */
    int32_t first;       /* words from the start of a plane to its first copied word */
} pg_depthwise_dsp_params;

/* A block: one output channel, y its first element. */
typedef void pg_depthwise_dsp_channel(const uint32_t *plane, const uint32_t *table, int8_t *y,
                                      const pg_depthwise_dsp_out *p);

/* Copies count channels from x on to planes; to is the first copied word of the first plane. */
PG_KERNEL void pg_depthwise_dsp_any(const int8_t *x, uint32_t *to, const pg_depthwise_dsp_plane *p,
                                    int32_t count) {
    for (int32_t c = 0; c < count; ++c) {
        for (int32_t column = 0; column < p->columns; ++column) {
            const int8_t *from = x + column * p->pixel + c;
            uint32_t *word = to + (c * p->plane + column * p->pitch) / 4;
            if (p->lead != 0) {
                *word++ = (p->pad & 0xffffu) | (uint32_t)*from << 16;
                from += p->row;
            }
            for (int32_t i = 0; i < p->pairs; ++i) {
                *word++ = ((uint32_t)from[0] & 0xffffu) | (uint32_t)from[p->row] << 16;
                from += 2 * p->row;
            }
            if (p->tail != 0) {
                *word = ((uint32_t)*from & 0xffffu) | (p->pad & 0xffff0000u);
            }
        }
    }
}

/* Copies four channels, x may be unaligned. */
#if PG_HAS_DSP
PG_NAKED void pg_depthwise_dsp_planes(PG_UNUSED const int8_t *x, PG_UNUSED uint32_t *to,
                                      PG_UNUSED const pg_depthwise_dsp_plane *p) {
    /* r0 pairs left, r1 plane, r2 p, r3 from, r4-r7 rows as (c0, c2), (c1, c3), r8 r9 lr words, r10 row, r11
     * planes 2 and 3, r12 planes 0 and 1. Frame: 0 x, 4 to, 8 columns left. 2.1 instructions a value. */
    __asm volatile("push {r4-r11, lr}\n"
                   "sub sp, sp, #12\n"
                   "strd r0, r1, [sp]\n"
                   "ldr r4, [r2, #8]\n"
                   "ldr r10, [r2]\n"
                   "ldr r1, [r2, #20]\n"
                   "1: str r4, [sp, #8]\n"
                   "ldrd r3, r12, [sp]\n"
                   "add r11, r12, r1, lsl #1\n"
                   "ldrd r4, lr, [r2, #24]\n" /* lead; the pad word becomes lr */
                   "cmp lr, #0\n"
                   "mov lr, r4\n"
                   "beq 2f\n"
                   "ldr r4, [r3]\n"
                   "add r3, r3, r10\n"
                   "sxtb16 r5, r4\n"
                   "sxtb16 r4, r4, ror #8\n"
                   "pkhbt r8, lr, r4, lsl #16\n"
                   "pkhbt r9, lr, r4\n"
                   "str r8, [r12, r1]\n"
                   "str r9, [r11, r1]\n"
                   "pkhbt r8, lr, r5, lsl #16\n"
                   "pkhbt r9, lr, r5\n"
                   "str r8, [r12], #4\n"
                   "str r9, [r11], #4\n"
                   "2: ldr r0, [r2, #12]\n"
                   "cmp r0, #0\n"
                   "beq 4f\n"
                   "3: ldr r4, [r3]\n"
                   "ldr r6, [r3, r10]\n"
                   "add r3, r3, r10, lsl #1\n"
                   "sxtb16 r5, r4\n"
                   "sxtb16 r4, r4, ror #8\n"
                   "sxtb16 r7, r6\n"
                   "sxtb16 r6, r6, ror #8\n"
                   "pkhbt r8, r4, r6, lsl #16\n"
                   "pkhtb r9, r6, r4, asr #16\n"
                   "pkhbt r4, r5, r7, lsl #16\n"
                   "pkhtb r5, r7, r5, asr #16\n"
                   "str r8, [r12, r1]\n"
                   "str r9, [r11, r1]\n"
                   "str r4, [r12], #4\n"
                   "str r5, [r11], #4\n"
                   "subs r0, r0, #1\n"
                   "bne 3b\n"
                   "4: ldr r0, [r2, #32]\n" /* tail */
                   "cmp r0, #0\n"
                   "beq 5f\n"
                   "ldr r4, [r3]\n"
                   "sxtb16 r5, r4\n"
                   "sxtb16 r4, r4, ror #8\n"
                   "pkhbt r8, r4, lr\n"
                   "pkhtb r9, lr, r4, asr #16\n"
                   "str r8, [r12, r1]\n"
                   "str r9, [r11, r1]\n"
                   "pkhbt r8, r5, lr\n"
                   "pkhtb r9, lr, r5, asr #16\n"
                   "str r8, [r12]\n"
                   "str r9, [r11]\n"
                   "5: ldrd r3, r12, [sp]\n"
                   "ldr r4, [r2, #4]\n"  /* pixel */
                   "ldr r5, [r2, #16]\n" /* pitch */
                   "add r3, r3, r4\n"
                   "add r12, r12, r5\n"
                   "strd r3, r12, [sp]\n"
                   "ldr r4, [sp, #8]\n"
                   "subs r4, r4, #1\n"
                   "bne 1b\n"
                   "add sp, sp, #12\n"
                   "pop {r4-r11, pc}\n");
}
#else
PG_KERNEL void pg_depthwise_dsp_planes(const int8_t *x, uint32_t *to, const pg_depthwise_dsp_plane *p) {
    pg_depthwise_dsp_any(x, to, p, 4);
}
#endif

/* Four channels become planes, then each channel is computed. A channel is read before any of its outputs is
 * written, so y may be x where both maps have the same shape. The last channels share their planes with
 * channels that are done. Scratch: four planes. */
PG_KERNEL void pg_depthwise_dsp_map(const pg_depthwise_dsp_params *p, const int8_t *x, int8_t *y,
                                    void *scratch, pg_depthwise_dsp_channel *channel) {
    uint32_t *planes = (uint32_t *)scratch;
    const int32_t plane = p->plane.plane / 4;
    const uint32_t *table = p->table;
    const uint32_t pad = p->plane.pad;
    for (int32_t i = 0; i < 4 * plane; i += 4) {
        planes[i] = pad;
        planes[i + 1] = pad;
        planes[i + 2] = pad;
        planes[i + 3] = pad;
    }
    for (int32_t c = 0; c < p->channels;) {
        const int32_t first = c + 4 <= p->channels || p->channels < 4 ? c : p->channels - 4;
        const int32_t end = first + 4 < p->channels ? first + 4 : p->channels;
        if (end - first < 4) {
            pg_depthwise_dsp_any(x + first, planes + p->first, &p->plane, end - first);
        } else if (p->plane.columns > 0) {
            pg_depthwise_dsp_planes(x + first, planes + p->first, &p->plane);
        }
        for (; c < end; ++c) {
            for (int32_t i = 0; i < p->multiplier; ++i) {
                channel(planes + (c - first) * plane, table, y, &p->out);
                table += p->table_words;
                ++y;
            }
        }
    }
}

#endif /* PG_DEPTHWISE_DSP_H */
