/* SPDX-License-Identifier: MIT-0
 *
 * The library functions that compilers call on their own, for images without a C library: two of C, and the
 * names that the Arm ABI has for them (clang, in code that isn't compiled as freestanding).
 */
#include <stddef.h>
#include <stdint.h>

typedef uint32_t __attribute__((may_alias)) word;

void *memcpy(void *restrict destination, const void *restrict source, size_t count);
void *memset(void *destination, int value, size_t count);
void __aeabi_memcpy(void *destination, const void *source, size_t count);
void __aeabi_memcpy4(void *destination, const void *source, size_t count)
    __attribute__((alias("__aeabi_memcpy")));
void __aeabi_memcpy8(void *destination, const void *source, size_t count)
    __attribute__((alias("__aeabi_memcpy")));
void __aeabi_memset(void *destination, size_t count, int value);
void __aeabi_memset4(void *destination, size_t count, int value) __attribute__((alias("__aeabi_memset")));
void __aeabi_memset8(void *destination, size_t count, int value) __attribute__((alias("__aeabi_memset")));
void __aeabi_memclr(void *destination, size_t count);
void __aeabi_memclr4(void *destination, size_t count) __attribute__((alias("__aeabi_memclr")));
void __aeabi_memclr8(void *destination, size_t count) __attribute__((alias("__aeabi_memclr")));

void *memcpy(void *restrict destination, const void *restrict source, size_t count) {
    uint8_t *to = destination;
    const uint8_t *from = source;

    if ((((uintptr_t)to ^ (uintptr_t)from) & 3U) == 0U) {
        for (; count != 0U && ((uintptr_t)to & 3U) != 0U; count--) {
            *to++ = *from++;
        }
        for (; count >= 4U; count -= 4U, to += 4, from += 4) {
            *(word *)(void *)to = *(const word *)(const void *)from;
        }
    }
    for (; count != 0U; count--) {
        *to++ = *from++;
    }
    return destination;
}

void *memset(void *destination, int value, size_t count) {
    uint8_t *to = destination;
    const uint8_t byte = (uint8_t)value;

    for (; count != 0U && ((uintptr_t)to & 3U) != 0U; count--) {
        *to++ = byte;
    }
    for (; count >= 4U; count -= 4U, to += 4) {
        *(word *)(void *)to = 0x01010101U * byte;
    }
    for (; count != 0U; count--) {
        *to++ = byte;
    }
    return destination;
}

void __aeabi_memcpy(void *destination, const void *source, size_t count) {
    (void)memcpy(destination, source, count);
}

void __aeabi_memset(void *destination, size_t count, int value) {
    (void)memset(destination, value, count);
}

void __aeabi_memclr(void *destination, size_t count) {
    (void)memset(destination, 0, count);
}
