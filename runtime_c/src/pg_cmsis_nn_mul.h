/* SPDX-License-Identifier: MIT-0
 *
 * Element-wise product of equal shapes by CMSIS-NN. Either operand may be a constant of the parameters; y may
 * be a or b.
 */
#ifndef PG_CMSIS_NN_MUL_H
#define PG_CMSIS_NN_MUL_H

#include "pg_cmsis_nn.h"

typedef struct {
    const int8_t *constant; /* an operand that is no input; NULL without one */
    int32_t count;
    int32_t offset_a, offset_b, output_offset; /* minus the inputs' zero points, the output's zero point */
    int32_t multiplier, shift;
    cmsis_nn_activation limits;
} pg_cmsis_nn_mul_layer;

PG_KERNEL void pg_cmsis_nn_mul(const pg_cmsis_nn_mul_layer *p, const int8_t *a, const int8_t *b, int8_t *y) {
    (void)arm_elementwise_mul_s8(a, b, p->offset_a, p->offset_b, y, p->output_offset, p->multiplier, p->shift,
                                 p->limits.min, p->limits.max, p->count);
}

PG_KERNEL void pg_cmsis_nn_mul_constant_a(const pg_cmsis_nn_mul_layer *p, const int8_t *b, int8_t *y) {
    pg_cmsis_nn_mul(p, p->constant, b, y);
}

PG_KERNEL void pg_cmsis_nn_mul_constant_b(const pg_cmsis_nn_mul_layer *p, const int8_t *a, int8_t *y) {
    pg_cmsis_nn_mul(p, a, p->constant, y);
}

#endif /* PG_CMSIS_NN_MUL_H */
