/* SPDX-License-Identifier: MIT-0
 *
 * Depthwise convolution for Armv7-M cores without DSP instructions: one channel at a time becomes a plane,
 * column by column with the padding in it, and then outputs, two in a 64-bit sum.
 *
 * A word of the plane p = a + 2^23 b holds the values a and b that one tap has under two vertical neighbours
 * of the output. A weight times p adds w a and 2^23 w b: the low 23 bits of the sum are the first output's as
 * a signed number, exact while |sum| < 2^22 (checked per channel), and what is above, after the borrow, the
 * second's.
 */
#ifndef PG_DEPTHWISE_THUMB2_H
#define PG_DEPTHWISE_THUMB2_H

#include "projgen_runtime.h"

typedef struct {
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
} pg_depthwise_thumb2_out;

typedef struct {
    const uint32_t *table; /* per output channel: start values, weights and multiplier in reading order */
    pg_depthwise_thumb2_out out;
    int32_t channels;    /* of the input */
    int32_t multiplier;  /* output channels an input channel */
    int32_t table_words; /* an output channel */
    int32_t plane_words;
    int32_t first; /* words from the start of the plane to its first column that comes from the map */
    int32_t input_zero_point;
} pg_depthwise_thumb2_params;

/* A block: the columns of one channel of the map as words of the plane. */
typedef void pg_depthwise_thumb2_plane(const int8_t *x, uint32_t *to);

/* A block: one output channel, y its first element. */
typedef void pg_depthwise_thumb2_channel(const uint32_t *plane, const uint32_t *table, int8_t *y,
                                         const pg_depthwise_thumb2_out *p);

/* Two values as a word. */
PG_INLINE uint32_t pg_depthwise_thumb2_word(int32_t first, int32_t second) {
    return (uint32_t)first + ((uint32_t)second << 23);
}

/* The two sums in 64 bits. */
PG_INLINE int32_t pg_depthwise_thumb2_first(int64_t sums) {
    return (int32_t)((uint32_t)((uint64_t)sums & 0x7fffffu) << 9) >> 9;
}

PG_INLINE int32_t pg_depthwise_thumb2_second(int64_t sums) {
    return (int32_t)((sums - pg_depthwise_thumb2_first(sums)) >> 23);
}

/* A channel is read before any of its outputs is written, so y may be x where both maps have the same shape.
 * Scratch: the plane. */
PG_INLINE void pg_depthwise_thumb2_map(const pg_depthwise_thumb2_params *p, const int8_t *x, int8_t *y,
                                       void *scratch, pg_depthwise_thumb2_plane *plane,
                                       pg_depthwise_thumb2_channel *channel) {
    const uint32_t pad = pg_depthwise_thumb2_word(p->input_zero_point, p->input_zero_point);
    const uint32_t *table = p->table;
    uint32_t *words = (uint32_t *)scratch;
    for (int32_t i = 0; i < p->plane_words; ++i) {
        words[i] = pad;
    }
    for (int32_t c = 0; c < p->channels; ++c) {
        plane(x + c, words + p->first);
        for (int32_t i = 0; i < p->multiplier; ++i) {
            channel(words, table, y++, &p->out);
            table += p->table_words;
        }
    }
}

#endif /* PG_DEPTHWISE_THUMB2_H */
