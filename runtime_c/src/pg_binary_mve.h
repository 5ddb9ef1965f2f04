/* SPDX-License-Identifier: MIT-0
 *
 * Parameters of the element-wise sum and product for cores with MVE (Helium).
 */
#ifndef PG_BINARY_MVE_H
#define PG_BINARY_MVE_H

#include "projgen_runtime.h"

/* Read by the blocks in this order. */
typedef struct {
    int32_t a; /* sum: factors, which fit 16 bits; product: zero points */
    int32_t b;
    int32_t start; /* of the sum: what the zero points amount to */
    int32_t half_multiplier;
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
    int32_t count; /* elements of a row */
    int32_t rows;
    int32_t last; /* elements of one row more, 0 for none; read where rows share b */
} pg_binary_mve_numbers;

typedef struct {
    const int8_t *constant; /* an operand that is no input; NULL without one */
    int32_t copies;         /* of b that make a row, where there is a scratch */
    int32_t channels;       /* elements of b */
    pg_binary_mve_numbers numbers;
} pg_binary_mve_params;

/* b, copies > 0 times one behind the other. */
#if PG_HAS_MVE
PG_NAKED void pg_binary_mve_repeat(PG_UNUSED const int8_t *b, PG_UNUSED int8_t *row,
                                   PG_UNUSED int32_t channels, PG_UNUSED int32_t copies) {
    __asm volatile("push {r4, lr}\n"
                   "1: mov r12, r0\n"
                   "mov r4, r1\n"
                   "dlstp.8 lr, r2\n"
                   "2: vldrb.u8 q0, [r12], #16\n"
                   "vstrb.8 q0, [r4], #16\n"
                   "letp lr, 2b\n"
                   "add r1, r1, r2\n"
                   "subs r3, r3, #1\n"
                   "bne 1b\n"
                   "pop {r4, pc}\n");
}
#else
PG_KERNEL void pg_binary_mve_repeat(const int8_t *b, int8_t *row, int32_t channels, int32_t copies) {
    for (int32_t i = 0; i < copies; ++i) {
        memcpy(row + i * channels, b, (size_t)channels);
    }
}
#endif

#endif /* PG_BINARY_MVE_H */
