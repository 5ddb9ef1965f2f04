/* SPDX-License-Identifier: MIT-0
 *
 * Parameters of the means over windows and over a whole map for cores with DSP instructions.
 */
#ifndef PG_POOL_DSP_H
#define PG_POOL_DSP_H

#include "projgen_runtime.h"

/* One window of eight channels. */
typedef struct {
    int32_t rows, columns; /* pixels of the window */
    int32_t skip;          /* bytes from the end of a row of the window to the next one */
    int32_t start;         /* added to each sum */
    int32_t multiplier;
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
    int32_t halves; /* both halves of a word: where sums start; less than 2^15 */
} pg_avg_pool_dsp_window;

/* A whole map. */
typedef struct {
    int32_t start; /* added to each sum */
    int32_t multiplier;
    int32_t zero_point; /* of the output */
    int32_t halves;     /* both halves of a word: where sums start; less than 2^15 */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
} pg_avg_pool_dsp_map;

#endif /* PG_POOL_DSP_H */
