/* SPDX-License-Identifier: MIT-0
 *
 * Cortex-M boards under an emulator: memory from the linker script, files through semihosting.
 */
#include "harness.h"

#include <stddef.h>

enum {
    SYS_OPEN = 0x01,
    SYS_CLOSE = 0x02,
    SYS_WRITE0 = 0x04,
    SYS_WRITE = 0x05,
    SYS_READ = 0x06,
    SYS_EXIT = 0x20
};
enum { OPEN_READ_BINARY = 1, OPEN_WRITE_BINARY = 5, STOPPED_APPLICATION_EXIT = 0x20026 };

extern uint32_t __data_load[], __data_start[], __data_end[], __bss_start[], __bss_end[];
extern uint8_t __heap_start[], __heap_end[], __stack_limit[];

_Noreturn void pgh_start(void);
_Noreturn void pgh_report_fault(const uint32_t *frame);

static uint8_t *pgh_free;

static uint32_t pgh_semihosting(uint32_t operation, const void *argument) {
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

int32_t pgh_open(const char *name, int writing) {
    uint32_t length = 0;
    while (name[length] != '\0') {
        length++;
    }
    const uintptr_t arguments[3] = {(uintptr_t)name, writing ? OPEN_WRITE_BINARY : OPEN_READ_BINARY, length};
    return (int32_t)pgh_semihosting(SYS_OPEN, arguments);
}

int pgh_read(int32_t file, void *data, uint32_t bytes) {
    const uintptr_t arguments[3] = {(uintptr_t)file, (uintptr_t)data, bytes};
    return bytes == 0U || pgh_semihosting(SYS_READ, arguments) == 0U ? 0 : -1;
}

int pgh_write(int32_t file, const void *data, uint32_t bytes) {
    const uintptr_t arguments[3] = {(uintptr_t)file, (uintptr_t)data, bytes};
    return bytes == 0U || pgh_semihosting(SYS_WRITE, arguments) == 0U ? 0 : -1;
}

void pgh_close(int32_t file) {
    const uintptr_t arguments[1] = {(uintptr_t)file};
    (void)pgh_semihosting(SYS_CLOSE, arguments);
}

void pgh_say(const char *text) {
    (void)pgh_semihosting(SYS_WRITE0, text);
}

_Noreturn void pgh_exit(int code) {
    const uintptr_t arguments[2] = {STOPPED_APPLICATION_EXIT, (uintptr_t)code};
    (void)pgh_semihosting(SYS_EXIT, arguments);
    for (;;) {
    }
}

void *pgh_allocate(uint32_t bytes) {
    const uintptr_t start = ((uintptr_t)pgh_free + 63U) & ~(uintptr_t)63U;
    const uintptr_t end = (uintptr_t)__heap_end;
    if (start > end || bytes > end - start) {
        return NULL;
    }
    pgh_free = (uint8_t *)(start + bytes);
    return (void *)start;
}

void pgh_release_all(void) {
    pgh_free = __heap_start;
}

uintptr_t pgh_stack_limit(void) {
    return (uintptr_t)__stack_limit;
}

_Noreturn void pgh_report_fault(const uint32_t *frame) {
    char text[] = "harness: the core took a fault at 0x00000000\n";
    for (uint32_t i = 0; i < 8U; i++) {
        text[sizeof text - 3U - i] = "0123456789abcdef"[frame[6] >> (4U * i) & 15U];
    }
    pgh_say(text);
    pgh_exit(PGH_EXIT_FAULT);
}

_Noreturn void pgh_start(void) {
    const uint32_t *from = __data_load;
    for (uint32_t *to = __data_start; to < __data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = __bss_start; to < __bss_end;) {
        *to++ = 0;
    }
    pgh_exit(pgh_main());
}
