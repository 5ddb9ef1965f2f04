/* SPDX-License-Identifier: MIT-0
 *
 * Depthwise 2-D convolution by CMSIS-NN.
 */
#ifndef PG_CMSIS_NN_DEPTHWISE_H
#define PG_CMSIS_NN_DEPTHWISE_H

#include "pg_cmsis_nn.h"

typedef struct {
    const int8_t *weights;      /* [kernel_h][kernel_w][out_c] */
    const int32_t *bias;        /* [out_c], the input zero point not folded in */
    const int32_t *multipliers; /* [out_c], 2^30 or more, then [out_c] shifts */
    cmsis_nn_dims input, filter, output;
    cmsis_nn_tile stride, padding, dilation;
    int32_t input_offset, output_offset; /* minus the input's zero point, the output's zero point */
    cmsis_nn_activation limits;
    int32_t per_input; /* outputs of one input channel */
    int32_t scratch_bytes;
} pg_cmsis_nn_depthwise_layer;

PG_KERNEL void pg_cmsis_nn_depthwise_scratch(const pg_cmsis_nn_depthwise_layer *p, const int8_t *x, int8_t *y,
                                             void *scratch) {
    const cmsis_nn_context context = pg_cmsis_nn_scratch(scratch, p->scratch_bytes);
    const cmsis_nn_per_channel_quant_params channels = pg_cmsis_nn_channels(p->multipliers, p->output.c);
    const cmsis_nn_dims bias = {1, 1, 1, p->output.c};
    const cmsis_nn_dw_conv_params how = {p->input_offset, p->output_offset, p->per_input, p->stride,
                                         p->padding,      p->dilation,      p->limits};
    (void)arm_depthwise_conv_wrapper_s8(&context, &how, &channels, &p->input, x, &p->filter, p->weights,
                                        &bias, p->bias, &p->output, y);
}

PG_KERNEL void pg_cmsis_nn_depthwise(const pg_cmsis_nn_depthwise_layer *p, const int8_t *x, int8_t *y) {
    pg_cmsis_nn_depthwise_scratch(p, x, y, NULL);
}

#endif /* PG_CMSIS_NN_DEPTHWISE_H */
