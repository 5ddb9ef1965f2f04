/* SPDX-License-Identifier: MIT-0
 *
 * Fully connected layer by CMSIS-NN 7, with a multiplier for each output. With vector instructions the
 * library reads bias - input_zero_point * sum(weights) from its scratch buffer: the folded bias, a table.
 */
#ifndef PG_CMSIS_NN_LINEAR_H
#define PG_CMSIS_NN_LINEAR_H

#include "pg_cmsis_nn.h"

typedef struct {
    const int8_t *weights;      /* [outputs][inputs] */
    const int32_t *bias;        /* [outputs], the input zero point folded in for vector instructions alone */
    const int32_t *multipliers; /* [outputs], 2^30 or more, then [outputs] shifts */
    int32_t rows, inputs, outputs;
    int32_t input_offset, output_offset;
    cmsis_nn_activation limits;
} pg_cmsis_nn_linear_layer;

PG_KERNEL void pg_cmsis_nn_linear(const pg_cmsis_nn_linear_layer *p, const int8_t *x, int8_t *y) {
    const cmsis_nn_context context = pg_cmsis_nn_scratch((void *)(uintptr_t)p->bias, 4 * p->outputs);
    const cmsis_nn_per_channel_quant_params channels = pg_cmsis_nn_channels(p->multipliers, p->outputs);
    const cmsis_nn_fc_params how = {p->input_offset, 0, p->output_offset, p->limits};
    const cmsis_nn_dims input = {p->rows, 1, 1, p->inputs};
    const cmsis_nn_dims filter = {p->inputs, 1, 1, p->outputs};
    const cmsis_nn_dims bias = {1, 1, 1, p->outputs};
    const cmsis_nn_dims output = {p->rows, 1, 1, p->outputs};
    (void)arm_fully_connected_per_channel_s8(&context, &how, &channels, &input, x, &filter, p->weights, &bias,
                                             p->bias, &output, y);
}

#endif /* PG_CMSIS_NN_LINEAR_H */
