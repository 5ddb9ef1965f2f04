/* SPDX-License-Identifier: MIT-0
 *
 * The test driver: reads vectors.bin, runs each record's model, writes results.bin. The generated driver
 * gives the table of models; a board folder gives files, memory and the stack's limit.
 *
 * Everything the driver does itself is named pgh_...: the counting plugin counts only what runs between
 * the entry of a model's function and its return.
 */
#ifndef PGH_HARNESS_H
#define PGH_HARNESS_H

#include <stdint.h>

#define PGH_MOST_TENSORS 8

enum { PGH_EXIT_OK = 0, PGH_EXIT_FAULT = 99, PGH_EXIT_FILE = 98 };

/* What one call of a model gets. sp is written by the adapter: the stack pointer at the call. */
typedef struct {
    const void *input[PGH_MOST_TENSORS];
    void *output[PGH_MOST_TENSORS];
    void *arena;
    void *state;
    int32_t steps;
    uintptr_t stack_limit; /* paint from here up to the call; UINTPTR_MAX: don't paint */
    uintptr_t sp;
} pgh_call;

/* A model's sizes (bytes; of what runs over time: bytes per step) and adapters. */
typedef struct {
    uint32_t inputs, outputs;
    uint32_t input_bytes[PGH_MOST_TENSORS];
    uint32_t input_over_time[PGH_MOST_TENSORS]; /* whether there is one for each step */
    uint32_t output_bytes[PGH_MOST_TENSORS];
    uint32_t arena_bytes, arena_with_input_bytes, input_offset, arena_align, state_bytes;
    int sequence;        /* inputs have a time axis */
    int per_step_output; /* and so have outputs */
    int (*run)(pgh_call *call);
    int (*step)(pgh_call *call);
    void (*reset)(pgh_call *call);
} pgh_model;

extern const pgh_model pgh_models[];
extern const uint32_t pgh_model_count;

int pgh_main(void);

/* machine.S */
#define PGH_PAINT 0xC5A3C5A3U
uintptr_t pgh_paint(uintptr_t limit, uint32_t pattern);
void calibration_loop(uint32_t count);

/* board.c */
int32_t pgh_open(const char *name, int writing);
int pgh_read(int32_t file, void *data, uint32_t bytes);
int pgh_write(int32_t file, const void *data, uint32_t bytes);
void pgh_close(int32_t file);
void pgh_say(const char *text);
_Noreturn void pgh_exit(int code);
void *pgh_allocate(uint32_t bytes); /* 64-byte aligned; null when there is no room */
void pgh_release_all(void);
uintptr_t pgh_stack_limit(void);

#endif
