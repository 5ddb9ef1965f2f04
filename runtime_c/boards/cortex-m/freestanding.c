/* SPDX-License-Identifier: MIT-0
 *
 * The two library functions that compilers call on their own, for images without a C library.
 */
#include <stddef.h>
#include <stdint.h>

typedef uint32_t __attribute__((may_alias)) word;

void *memcpy(void *restrict destination, const void *restrict source, size_t count);
void *memset(void *destination, int value, size_t count);

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
