/* SPDX-License-Identifier: MIT-0
 *
 * Linux, native or under a user-mode emulator: memory from malloc (so that AddressSanitizer sees every
 * buffer's ends), files through stdio.
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST_BUFFERS = 64, PAINTED_BYTES = 65536 };

static FILE *pgh_files[4];
static void *pgh_buffers[MOST_BUFFERS];
static int pgh_buffer_count;

int32_t pgh_open(const char *name, int writing) {
    for (int32_t i = 0; i < 4; i++) {
        if (pgh_files[i] == NULL) {
            pgh_files[i] = fopen(name, writing ? "wb" : "rb");
            return pgh_files[i] == NULL ? -1 : i;
        }
    }
    return -1;
}

int pgh_read(int32_t file, void *data, uint32_t bytes) {
    return bytes == 0U || fread(data, bytes, 1, pgh_files[file]) == 1U ? 0 : -1;
}

int pgh_write(int32_t file, const void *data, uint32_t bytes) {
    return bytes == 0U || fwrite(data, bytes, 1, pgh_files[file]) == 1U ? 0 : -1;
}

void pgh_close(int32_t file) {
    fclose(pgh_files[file]);
    pgh_files[file] = NULL;
}

void pgh_say(const char *text) {
    fputs(text, stderr);
}

_Noreturn void pgh_exit(int code) {
    exit(code);
}

void *pgh_allocate(uint32_t bytes) {
    void *buffer = NULL;
    if (pgh_buffer_count == MOST_BUFFERS || posix_memalign(&buffer, 64, bytes) != 0) {
        return NULL;
    }
    pgh_buffers[pgh_buffer_count++] = buffer;
    return buffer;
}

void pgh_release_all(void) {
    while (pgh_buffer_count > 0) {
        free(pgh_buffers[--pgh_buffer_count]);
    }
}

uintptr_t pgh_stack_limit(void) {
    const char here = 0;
    return ((uintptr_t)&here - PAINTED_BYTES) & ~(uintptr_t)15;
}

int main(void) {
    return pgh_main();
}
