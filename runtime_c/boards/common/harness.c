/* SPDX-License-Identifier: MIT-0
 *
 * The record loop. Files are little-endian 32-bit words:
 *   vectors.bin  header {magic, flags, records}, then per record
 *                {model, mode, steps, misalign, bytes} and the inputs one after the other
 *   results.bin  per record {return code, faults, stack bytes, bytes} and the outputs one after the other
 */
#include "harness.h"

#include <stddef.h>

enum { MAGIC = 0x31564750, FLAG_PAINT = 1 };
enum { MODE_RUN = 0, MODE_STEP = 1, MODE_INPUT_IN_ARENA = 2 };
enum {
    FAULT_ARENA = 1,          /* bytes beside the arena were written */
    FAULT_STATE = 2,          /* bytes beside the state were written */
    FAULT_OUTPUT = 4,         /* bytes beside an output were written */
    FAULT_INPUT_GUARD = 8,    /* bytes beside an input were written */
    FAULT_INPUT_CHANGED = 16, /* an input outside the arena was written */
    FAULT_MEMORY = 32,        /* the buffers don't fit into the board's memory */
    FAULT_STACK = 64,         /* the stack grew over its limit */
    FAULT_RECORD = 128        /* the record doesn't match the model */
};

/* AddressSanitizer watches the ends of each buffer itself, reads included; guards would hide them from it. */
#if defined(PGH_SANITIZE)
static const uint32_t pgh_guard_bytes = 0;
#else
static const uint32_t pgh_guard_bytes = 64;
#endif
#define GUARD 0xC3U
#define FILL_SCRATCH 0xA5U
#define FILL_OUTPUT 0x5AU

typedef struct {
    uint32_t model, mode, steps, misalign, bytes;
} pgh_record;

typedef struct {
    int32_t code;
    uint32_t faults, stack, bytes;
} pgh_result;

typedef struct {
    uint8_t *base, *data;
    uint32_t before, bytes;
} pgh_block;

void pgh_mark(void);

/* The plugin closes a record each time this is entered. */
__attribute__((noinline)) void pgh_mark(void) {
    __asm__ volatile("" ::: "memory");
}

static void pgh_fill(uint8_t *data, uint8_t value, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i++) {
        data[i] = value;
    }
}

static uint32_t pgh_hash(const uint8_t *data, uint32_t bytes) {
    uint32_t hash = 2166136261U;
    for (uint32_t i = 0; i < bytes; i++) {
        hash = (hash ^ data[i]) * 16777619U;
    }
    return hash;
}

/* A buffer at 64 k + offset, so that it has the alignment asked for and no more. */
static int pgh_block_new(pgh_block *block, uint32_t bytes, uint32_t offset, uint8_t fill) {
    block->before = pgh_guard_bytes + offset;
    block->bytes = bytes;
    block->base = pgh_allocate(block->before + bytes + pgh_guard_bytes + (bytes == 0U));
    if (block->base == NULL) {
        return -1;
    }
    block->data = block->base + block->before;
    pgh_fill(block->base, GUARD, block->before);
    pgh_fill(block->data, fill, bytes);
    pgh_fill(block->data + bytes, GUARD, pgh_guard_bytes);
    return 0;
}

static uint32_t pgh_block_check(const pgh_block *block, uint32_t fault) {
    for (uint32_t i = 0; i < block->before; i++) {
        if (block->base[i] != GUARD) {
            return fault;
        }
    }
    for (uint32_t i = 0; i < pgh_guard_bytes; i++) {
        if (block->data[block->bytes + i] != GUARD) {
            return fault;
        }
    }
    return 0;
}

static void pgh_invoke(int (*function)(pgh_call *), pgh_call *call, pgh_result *result) {
    result->code = function(call);
    if (call->stack_limit == UINTPTR_MAX) {
        return;
    }
    const volatile uint32_t *lowest = (const volatile uint32_t *)call->stack_limit;
    if (*lowest != PGH_PAINT) {
        result->faults |= FAULT_STACK;
    }
    while ((uintptr_t)lowest < call->sp && *lowest == PGH_PAINT) {
        lowest++;
    }
    const uint32_t depth = (uint32_t)(call->sp - (uintptr_t)lowest);
    if (depth > result->stack) {
        result->stack = depth;
    }
}

/* Every step gets a freshly filled arena: what must outlive a step has to be in the state. */
static void pgh_step_all(const pgh_model *model, pgh_call *call, const pgh_block *arena, pgh_result *result) {
    const int32_t steps = call->steps;
    model->reset(call);
    for (int32_t t = 0; t < steps && result->code == 0; t++) {
        pgh_fill(arena->data, FILL_SCRATCH, arena->bytes);
        pgh_invoke(model->step, call, result);
        for (uint32_t i = 0; i < model->inputs; i++) {
            if (model->input_over_time[i] != 0U) {
                call->input[i] = (const uint8_t *)call->input[i] + model->input_bytes[i];
            }
        }
        for (uint32_t i = 0; model->per_step_output && i < model->outputs; i++) {
            call->output[i] = (uint8_t *)call->output[i] + model->output_bytes[i];
        }
    }
}

static int pgh_skip(int32_t file, uint32_t bytes) {
    uint8_t sink[64];
    while (bytes != 0U) {
        const uint32_t part = bytes < sizeof sink ? bytes : (uint32_t)sizeof sink;
        if (pgh_read(file, sink, part) != 0) {
            return -1;
        }
        bytes -= part;
    }
    return 0;
}

static int pgh_write_result(int32_t file, const pgh_result *result, const pgh_block *outputs,
                            uint32_t count) {
    if (pgh_write(file, result, (uint32_t)sizeof *result) != 0) {
        return -1;
    }
    for (uint32_t i = 0; i < count && result->bytes != 0U; i++) {
        if (pgh_write(file, outputs[i].data, outputs[i].bytes) != 0) {
            return -1;
        }
    }
    return 0;
}

static int pgh_refuse(int32_t vectors, int32_t results, uint32_t fault, uint32_t unread) {
    const pgh_result refused = {0, fault, 0, 0};
    pgh_mark();
    return pgh_skip(vectors, unread) != 0 ? -1 : pgh_write_result(results, &refused, NULL, 0);
}

/* Bytes of an input over all steps. */
static uint32_t pgh_input_bytes(const pgh_model *model, uint32_t i, uint32_t steps) {
    return model->input_bytes[i] * (model->input_over_time[i] != 0U ? steps : 1U);
}

static int pgh_run_record(int32_t vectors, int32_t results, uint32_t flags) {
    pgh_record record;
    pgh_block inputs[PGH_MOST_TENSORS], outputs[PGH_MOST_TENSORS], arena, state;
    uint32_t hashes[PGH_MOST_TENSORS] = {0};
    pgh_call call = {{NULL}, {NULL}, NULL, NULL, 0, UINTPTR_MAX, 0};
    pgh_result result = {0, 0, 0, 0};
    uint32_t expected = 0;
    int no_room = 0;

    pgh_release_all();
    if (pgh_read(vectors, &record, (uint32_t)sizeof record) != 0) {
        return -1;
    }
    if (record.model >= pgh_model_count) {
        return pgh_refuse(vectors, results, FAULT_RECORD, record.bytes);
    }
    const pgh_model *model = &pgh_models[record.model];
    const uint32_t steps = model->sequence ? record.steps : 1U;
    const int in_arena = record.mode == MODE_INPUT_IN_ARENA;
    for (uint32_t i = 0; i < model->inputs; i++) {
        expected += pgh_input_bytes(model, i, steps);
    }
    if (expected != record.bytes || (record.mode == MODE_STEP ? model->step == NULL : model->run == NULL)) {
        return pgh_refuse(vectors, results, FAULT_RECORD, record.bytes);
    }

    no_room |= pgh_block_new(&arena, in_arena ? model->arena_with_input_bytes : model->arena_bytes,
                             model->arena_align, FILL_SCRATCH);
    no_room |= pgh_block_new(&state, model->state_bytes, model->arena_align, FILL_SCRATCH);
    for (uint32_t i = 0; i < model->outputs; i++) {
        const uint32_t count = model->per_step_output ? steps : 1U;
        no_room |= pgh_block_new(&outputs[i], count * model->output_bytes[i], record.misalign, FILL_OUTPUT);
        call.output[i] = outputs[i].data;
        result.bytes += outputs[i].bytes;
    }
    for (uint32_t i = 0; i < model->inputs; i++) {
        no_room |=
            pgh_block_new(&inputs[i], in_arena ? 0U : pgh_input_bytes(model, i, steps), record.misalign, 0);
    }
    if (no_room) {
        return pgh_refuse(vectors, results, FAULT_MEMORY, record.bytes);
    }
    for (uint32_t i = 0; i < model->inputs; i++) {
        uint8_t *data = in_arena ? arena.data + model->input_offset : inputs[i].data;
        if (pgh_read(vectors, data, pgh_input_bytes(model, i, steps)) != 0) {
            return -1;
        }
        call.input[i] = data;
        hashes[i] = pgh_hash(inputs[i].data, inputs[i].bytes);
    }

    call.arena = arena.data;
    call.state = state.data;
    call.steps = (int32_t)steps;
    call.stack_limit = (flags & FLAG_PAINT) != 0U ? pgh_stack_limit() : UINTPTR_MAX;
    if (record.mode == MODE_STEP) {
        pgh_step_all(model, &call, &arena, &result);
    } else {
        pgh_invoke(model->run, &call, &result);
    }
    pgh_mark();

    result.faults |= pgh_block_check(&arena, FAULT_ARENA) | pgh_block_check(&state, FAULT_STATE);
    for (uint32_t i = 0; i < model->outputs; i++) {
        result.faults |= pgh_block_check(&outputs[i], FAULT_OUTPUT);
    }
    for (uint32_t i = 0; i < model->inputs; i++) {
        result.faults |= pgh_block_check(&inputs[i], FAULT_INPUT_GUARD);
        if (hashes[i] != pgh_hash(inputs[i].data, inputs[i].bytes)) {
            result.faults |= FAULT_INPUT_CHANGED;
        }
    }
    return pgh_write_result(results, &result, outputs, model->outputs);
}

int pgh_main(void) {
    uint32_t header[3] = {0, 0, 0};
    const int32_t vectors = pgh_open("vectors.bin", 0);
    const int32_t results = pgh_open("results.bin", 1);

    if (vectors < 0 || results < 0 || pgh_read(vectors, header, (uint32_t)sizeof header) != 0 ||
        header[0] != MAGIC) {
        pgh_say("harness: vectors.bin or results.bin can't be used\n");
        return PGH_EXIT_FILE;
    }
    calibration_loop(PGH_CALIBRATION_LOOPS);
    pgh_mark();
    for (uint32_t i = 0; i < header[2]; i++) {
        if (pgh_run_record(vectors, results, header[1]) != 0) {
            pgh_say("harness: a file ended early or can't be written\n");
            return PGH_EXIT_FILE;
        }
    }
    pgh_release_all();
    pgh_close(vectors);
    pgh_close(results);
    return PGH_EXIT_OK;
}
