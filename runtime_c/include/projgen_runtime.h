/* SPDX-License-Identifier: MIT-0
 *
 * projgen runtime: what every kernel shares.
 *
 * C99, freestanding apart from memcpy and memset. Nothing here allocates, keeps state or uses floating point.
 * All kernels are static, so that any number of models link into one image. A kernel reads its constants from
 * a const parameter struct; pointers in the struct point at const tables. Buffers belong to the caller.
 *
 * Kernels copy what they need often from the struct: a store to an int8_t may alias anything.
 *
 * Numbers: activations are int8 (with a zero point) or int16, weights int8, accumulators int32. A generator
 * has proven from the weights that no accumulator overflows, so the kernels do not saturate while
 * accumulating.
 */
#ifndef PROJGEN_RUNTIME_H
#define PROJGEN_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A model's layer: never inlined or cloned, so that profilers and debuggers see each layer by its name. */
#if defined(__GNUC__) && !defined(__clang__)
#define PG_NOINLINE __attribute__((noinline, noclone))
#elif defined(__clang__)
#define PG_NOINLINE __attribute__((noinline))
#else
#define PG_NOINLINE
#endif

#if defined(__GNUC__)
#define PG_KERNEL static PG_NOINLINE __attribute__((unused)) /* one copy, visible to profilers */
#define PG_INLINE static inline __attribute__((always_inline, unused))
#define PG_ALIGNED(bytes) __attribute__((aligned(bytes)))
/* A function that is one block of assembly with the usual calling convention; arguments arrive in r0 .. r3.
 * GCC must not draw conclusions from its empty looking body (noipa). */
#if defined(__clang__)
#define PG_NAKED static __attribute__((naked, noinline, unused))
#else
#define PG_NAKED static __attribute__((naked, noinline, noipa, unused))
#endif
#define PG_UNUSED __attribute__((unused))
#define PG_USED __attribute__((used)) /* named in assembly, which the compiler does not read */
#else
#define PG_KERNEL static
#define PG_INLINE static inline
#define PG_ALIGNED(bytes)
#define PG_UNUSED
#define PG_USED
#endif

/* Cores whose assembly blocks are used; elsewhere the same functions are plain C. */
#if defined(__GNUC__) && defined(__thumb2__) && defined(__ARM_FEATURE_DSP)
#define PG_HAS_DSP 1
#else
#define PG_HAS_DSP 0
#endif
#if defined(__GNUC__) && defined(__thumb2__)
#define PG_HAS_THUMB2 1
#else
#define PG_HAS_THUMB2 0
#endif
#if defined(__GNUC__) && defined(__thumb__) && !defined(__thumb2__)
#define PG_HAS_THUMB1 1
#else
#define PG_HAS_THUMB1 0
#endif
#if PG_HAS_DSP && defined(__ARM_FEATURE_MVE)
#define PG_HAS_MVE 1
#else
#define PG_HAS_MVE 0
#endif

/* What C99 leaves to the compiler and the kernels rely on: arithmetic right shifts, two's complement casts.
 */
typedef char pg_assert_arithmetic_shift[(-5 >> 1) == -3 ? 1 : -1];
typedef char pg_assert_arithmetic_shift_64[(-(((int64_t)5) << 32) >> 33) == -3 ? 1 : -1];
typedef char pg_assert_twos_complement[(int32_t)0x80000001u == -2147483647 ? 1 : -1];

/* How an accumulator becomes an output: clamp(zero_point + RQ(acc, m, shift), low, high). */
typedef struct {
    int32_t shift;      /* 0 ..; acc << shift fits int32 */
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest output: the type's, or an activation's */
    int32_t high;       /* largest output */
} pg_requant;

/* value limited to low .. high; low <= high. */
PG_INLINE int32_t pg_clamp(int32_t value, int32_t low, int32_t high) {
    value = value < low ? low : value;
    return value > high ? high : value;
}

/* (a * m + 2^31) >> 32 from 16-bit halves, exact for 0 <= m < 2^31: for cores whose only product has 32 bits.
 * With a = ah 2^16 + al and m = mh 2^16 + ml, the sum of the middle products is halved again, so nothing
 * overflows. */
PG_INLINE int32_t pg_multiply_high_halves(int32_t a, int32_t m) {
    const int32_t ah = a >> 16;
    const int32_t mh = m >> 16;
    const uint32_t al = (uint32_t)a & 0xffffu;
    const uint32_t ml = (uint32_t)m & 0xffffu;
    const int32_t u = ah * (int32_t)ml + (int32_t)((al * ml) >> 16);
    const uint32_t v = al * (uint32_t)mh;
    const uint32_t carry = (((uint32_t)u & 0xffffu) + (v & 0xffffu) + 0x8000u) >> 16;
    return ah * mh + (u >> 16) + (int32_t)(v >> 16) + (int32_t)carry;
}

/* (a * m + 2^31) >> 32, exact; 0 <= m < 2^31. */
PG_INLINE int32_t pg_multiply_high(int32_t a, int32_t m) {
#if defined(__ARM_ARCH_6M__)
    return pg_multiply_high_halves(a, m);
#else
    return (int32_t)(((int64_t)a * m + ((int64_t)1 << 31)) >> 32);
#endif
}

/* RQ(acc, m, shift) = ((acc << shift) * m + 2^31) >> 32, exact; 0 <= m < 2^31, acc << shift fits int32. */
PG_INLINE int32_t pg_rq(int32_t acc, int32_t m, int32_t shift) {
    return pg_multiply_high((int32_t)((uint32_t)acc << shift), m);
}

/* The whole requantisation of one accumulator with multiplier m. */
PG_INLINE int32_t pg_requantise(int32_t acc, int32_t m, const pg_requant *out) {
    return pg_clamp(pg_rq(acc, m, out->shift) + out->zero_point, out->low, out->high);
}

/* Element i of an int16 (wide) or int8 array: kernels are written once and instantiated per type. */
PG_INLINE int32_t pg_get(const void *x, int32_t i, bool wide) {
    return wide ? ((const int16_t *)x)[i] : ((const int8_t *)x)[i];
}

/* Stores value as element i of an int16 (wide) or int8 array; value fits the type. */
PG_INLINE void pg_put(void *y, int32_t i, int32_t value, bool wide) {
    if (wide) {
        ((int16_t *)y)[i] = (int16_t)value;
    } else {
        ((int8_t *)y)[i] = (int8_t)value;
    }
}

/* Address of element i of an int16 (wide) or int8 array. */
PG_INLINE const void *pg_at(const void *x, int32_t i, bool wide) {
    return (const int8_t *)x + (wide ? 2 * i : i);
}

PG_INLINE void *pg_at_mutable(void *y, int32_t i, bool wide) {
    return (int8_t *)y + (wide ? 2 * i : i);
}

/* count elements of y set to value. */
PG_INLINE void pg_fill(void *y, int32_t value, int32_t count, bool wide) {
    if (wide) {
        for (int32_t i = 0; i < count; ++i) {
            ((int16_t *)y)[i] = (int16_t)value;
        }
    } else {
        memset(y, value & 0xff, (size_t)count);
    }
}

/* The elements of `rows` rows of pitch elements that lie outside columns left .. left + inside - 1, set to
 * value. */
PG_INLINE void pg_fill_sides(void *to, int32_t value, int32_t rows, int32_t pitch, int32_t left,
                             int32_t inside, bool wide) {
    for (int32_t i = 0; i < rows; ++i) {
        pg_fill(to, value, left, wide);
        pg_fill(pg_at_mutable(to, left + inside, wide), value, pitch - left - inside, wide);
        to = pg_at_mutable(to, pitch, wide);
    }
}

#endif /* PROJGEN_RUNTIME_H */
