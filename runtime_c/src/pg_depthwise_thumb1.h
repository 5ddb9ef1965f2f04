/* SPDX-License-Identifier: MIT-0
 *
 * Depthwise convolution for Armv6-M cores: one channel at a time becomes a plane of words, column by column
 * with the padding in it, and then outputs.
 */
#ifndef PG_DEPTHWISE_THUMB1_H
#define PG_DEPTHWISE_THUMB1_H

#include "projgen_runtime.h"

/* What a block knows of its layer; it reads the fields in this order. */
typedef struct {
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
    int32_t rows; /* of the output */
    int32_t columns;
    int32_t column; /* bytes of the plane from one output column to the next */
    int32_t tap;    /* bytes of the plane from where one column of the kernel leaves off to the next */
    int32_t row;    /* bytes from one output row to the next */
    int32_t pixel;  /* bytes from one output pixel to the next */
} pg_depthwise_thumb1_shape;

/* How a channel of the map is copied. */
typedef struct {
    int32_t row;     /* bytes from one row of the map to the next */
    int32_t rows;    /* copied, one at least */
    int32_t pixel;   /* bytes from one pixel to the next */
    int32_t columns; /* copied */
    int32_t pitch;   /* bytes of a column of the plane */
} pg_depthwise_thumb1_plane;

typedef struct {
    const int32_t *table; /* per output channel: bias, weights and multiplier in reading order */
    pg_depthwise_thumb1_shape shape;
    pg_depthwise_thumb1_plane plane;
    int32_t channels;    /* of the input */
    int32_t multiplier;  /* output channels an input channel */
    int32_t table_words; /* an output channel */
    int32_t plane_words;
    int32_t first; /* words from the start of the plane to its first value from the map */
    int32_t input_zero_point;
} pg_depthwise_thumb1_params;

/* A block: one output channel, y its first element. */
typedef void pg_depthwise_thumb1_channel(const int32_t *plane, const int32_t *table, int8_t *y,
                                         const pg_depthwise_thumb1_shape *p);

/* One channel of the map; to is the first word. */
#if PG_HAS_THUMB1
PG_NAKED void pg_depthwise_thumb1_copy(PG_UNUSED const int8_t *x, PG_UNUSED int32_t *to,
                                       PG_UNUSED const pg_depthwise_thumb1_plane *p) {
    /* r0 column of the map, r1 to, r2 p, then row, r3-r6 values, r7 place in the column, r8 p, r9 rows left,
     * r10 columns left, r12 column of the plane. 15 instructions per 4 values. */
    __asm volatile(".syntax unified\n"
                   "push {r4-r7, lr}\n"
                   "mov r4, r8\n"
                   "mov r5, r9\n"
                   "mov r6, r10\n"
                   "push {r4-r6}\n"
                   "mov r8, r2\n"
                   "ldr r3, [r2, #12]\n"
                   "mov r10, r3\n"
                   "1: mov r12, r1\n"
                   "mov r2, r8\n"
                   "ldr r3, [r2, #4]\n"
                   "ldr r2, [r2]\n"
                   "movs r7, #0\n"
                   "subs r3, r3, #4\n"
                   "mov r9, r3\n"
                   "blt 3f\n"
                   "2: ldrsb r3, [r0, r7]\n"
                   "adds r7, r7, r2\n"
                   "ldrsb r4, [r0, r7]\n"
                   "adds r7, r7, r2\n"
                   "ldrsb r5, [r0, r7]\n"
                   "adds r7, r7, r2\n"
                   "ldrsb r6, [r0, r7]\n"
                   "adds r7, r7, r2\n"
                   "stmia r1!, {r3-r6}\n"
                   "mov r3, r9\n"
                   "subs r3, r3, #4\n"
                   "mov r9, r3\n"
                   "bge 2b\n"
                   "3: mov r4, r9\n"
                   "adds r4, r4, #4\n" /* one to three values */
                   "beq 5f\n"
                   "4: ldrsb r3, [r0, r7]\n"
                   "adds r7, r7, r2\n"
                   "stmia r1!, {r3}\n"
                   "subs r4, r4, #1\n"
                   "bne 4b\n"
                   "5: mov r2, r8\n"
                   "ldr r3, [r2, #8]\n"
                   "adds r0, r0, r3\n"
                   "ldr r1, [r2, #16]\n"
                   "add r1, r12\n"
                   "mov r3, r10\n"
                   "subs r3, r3, #1\n"
                   "mov r10, r3\n"
                   "bne 1b\n"
                   "pop {r4-r6}\n"
                   "mov r8, r4\n"
                   "mov r9, r5\n"
                   "mov r10, r6\n"
                   "pop {r4-r7, pc}\n");
}
#else
PG_KERNEL void pg_depthwise_thumb1_copy(const int8_t *x, int32_t *to, const pg_depthwise_thumb1_plane *p) {
    for (int32_t column = 0; column < p->columns; ++column) {
        for (int32_t i = 0; i < p->rows; ++i) {
            to[column * (p->pitch / 4) + i] = x[column * p->pixel + i * p->row];
        }
    }
}
#endif

/* A channel is read before any of its outputs is written, so y may be x where both maps have the same shape.
 * Scratch: the plane. */
PG_KERNEL void pg_depthwise_thumb1_map(const pg_depthwise_thumb1_params *p, const int8_t *x, int8_t *y,
                                       void *scratch, pg_depthwise_thumb1_channel *channel) {
    const int32_t *table = p->table;
    int32_t *words = (int32_t *)scratch;
    for (int32_t i = 0; i < p->plane_words; ++i) {
        words[i] = p->input_zero_point;
    }
    for (int32_t c = 0; c < p->channels; ++c) {
        pg_depthwise_thumb1_copy(x + c, words + p->first, &p->plane);
        for (int32_t i = 0; i < p->multiplier; ++i) {
            channel(words, table, y++, &p->shape);
            table += p->table_words;
        }
    }
}

#endif /* PG_DEPTHWISE_THUMB1_H */
