/* SPDX-License-Identifier: MIT-0
 *
 * Compares the product from 16-bit halves with the 64-bit one.
 */
#include "projgen_runtime.h"

int64_t count_differences(uint32_t seed, int64_t count);

/* Over extremes of both factors and count pseudo-random pairs. */
int64_t count_differences(uint32_t seed, int64_t count) {
    static const int32_t edges[] = {INT32_MIN, INT32_MIN + 1, -65537, -65536,    -65535,    -32769,
                                    -32768,    -32767,        -1,     0,         1,         32767,
                                    32768,     65535,         65536,  INT32_MAX, 2147418112};
    const size_t n = sizeof edges / sizeof edges[0];
    int64_t different = 0;
    for (size_t i = 0; i < n; ++i) {
        for (size_t j = 0; j < n; ++j) {
            const int32_t m = edges[j] < 0 ? ~edges[j] : edges[j];
            different += pg_multiply_high_halves(edges[i], m) != pg_multiply_high(edges[i], m);
        }
    }
    for (int64_t i = 0; i < count; ++i) {
        seed = seed * 1664525u + 1013904223u;
        const int32_t a = (int32_t)(seed ^ (seed >> 15));
        seed = seed * 1664525u + 1013904223u;
        const int32_t m = (int32_t)((seed ^ (seed >> 13)) & 0x7fffffffu);
        different += pg_multiply_high_halves(a, m) != pg_multiply_high(a, m);
    }
    return different;
}
