/* SPDX-License-Identifier: MIT-0
 *
 * What the kernels that call CMSIS-NN share. The library is compiled with CMSIS_NN_USE_SINGLE_ROUNDING; its
 * functions refuse only arguments that a generator never passes, so their results are not looked at.
 */
#ifndef PG_CMSIS_NN_H
#define PG_CMSIS_NN_H

#include <arm_nnfunctions.h>

#include "projgen_runtime.h"

/* Channels' multipliers, then their shifts. The library only reads them, but takes pointers to int32_t. */
PG_INLINE cmsis_nn_per_channel_quant_params pg_cmsis_nn_channels(const int32_t *multipliers, int32_t count) {
    cmsis_nn_per_channel_quant_params channels;
    channels.multiplier = (int32_t *)(uintptr_t)multipliers;
    channels.shift = (int32_t *)(uintptr_t)(multipliers + count);
    return channels;
}

PG_INLINE cmsis_nn_context pg_cmsis_nn_scratch(void *scratch, int32_t bytes) {
    cmsis_nn_context context;
    context.buf = scratch;
    context.size = bytes;
    return context;
}

#endif /* PG_CMSIS_NN_H */
