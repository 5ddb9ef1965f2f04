/* SPDX-License-Identifier: MIT-0
 *
 * Maximum over each window of a channels-last map by CMSIS-NN.
 */
#ifndef PG_CMSIS_NN_MAX_POOL_H
#define PG_CMSIS_NN_MAX_POOL_H

#include "pg_cmsis_nn.h"

typedef struct {
    cmsis_nn_dims input, filter, output;
    cmsis_nn_tile stride, padding;
} pg_cmsis_nn_max_pool_layer;

PG_KERNEL void pg_cmsis_nn_max_pool(const pg_cmsis_nn_max_pool_layer *p, const int8_t *x, int8_t *y) {
    const cmsis_nn_context context = pg_cmsis_nn_scratch(NULL, 0);
    const cmsis_nn_activation limits = {-128, 127};
    const cmsis_nn_pool_params how = {p->stride, p->padding, limits};
    (void)arm_max_pool_s8(&context, &how, &p->input, x, &p->filter, &p->output, y);
}

#endif /* PG_CMSIS_NN_MAX_POOL_H */
