/* SPDX-License-Identifier: MIT
 *
 * QEMU TCG plugin: exact instruction counts per record and layer, and how often each block ran.
 *
 * Arguments: map=FILE out=FILE
 *   map, one line each (addresses in hex, end exclusive):
 *     off START END          blocks that start here are the harness's own: not counted
 *     on SLOT START END      blocks that start here belong to SLOT (0 is control, then the layers)
 *     mark ADDRESS           a block that starts here closes the current record
 *     align START END        accesses made by instructions in here must be naturally aligned
 *   A block elsewhere (a kernel, memcpy) belongs to whoever called it: the current slot stays.
 *   out:
 *     record N0 N1 ...       instructions per slot, by one counter that every instruction increments
 *     block N S2 S4 A0 A1 .. runs of a translated block, how often the next block started 2 or 4 bytes
 *                            after its last instruction, and its instructions' addresses
 *     unaligned PC ADDRESS SIZE
 * The two kinds of count are taken independently; the reader checks that their sums agree.
 *
 * QEMU's packages ship no plugin header, so the functions used are declared here (plugin API 1). The size
 * of an instruction is never asked for: QEMU 7.2 says 4 for a 2-byte one just before a page's end.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
typedef void (*user_callback)(unsigned cpu, void *user);
typedef void (*memory_callback)(unsigned cpu, uint32_t info, uint64_t address, void *user);
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct plugin_info {
    const char *target_name;
    struct {
        int min, cur;
    } version;
};
enum { NO_REGISTERS = 0, ADD_U64 = 0, READ_OR_WRITE = 3 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, user_callback, int, void *);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, memory_callback, int, int, void *);
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
unsigned qemu_plugin_mem_size_shift(uint32_t info);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;
__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id, const struct plugin_info *, int,
                                                               char **);

enum { OFF = -1, INHERIT = -2, MOST_UNALIGNED = 16 };

struct range {
    uint64_t start, end;
    int slot;
};

struct block {
    struct block *next;
    uint64_t runs, followed_by_2, followed_by_4;
    size_t instructions;
    bool mark;
    int slot;
    uint64_t address[];
};

static struct range *ranges, *align_ranges;
static size_t range_count, align_count;
static uint64_t mark_address = UINT64_MAX;
static int slots = 1;
static FILE *out;

static struct block *blocks, *previous;
static int current = OFF;
static uint64_t executed, since; /* executed: all instructions so far; since: its value at the last switch */
static uint64_t *counts;
static int unaligned;

static void *allocate(void *old, size_t bytes) {
    void *memory = realloc(old, bytes);
    if (memory == NULL) {
        fputs("count plugin: out of memory\n", stderr);
        abort();
    }
    return memory;
}

static void switch_to(int slot) {
    if (current != OFF) {
        counts[current] += executed - since;
    }
    since = executed;
    current = slot;
}

static void close_record(void) {
    switch_to(OFF);
    fputs("record", out);
    for (int i = 0; i < slots; i++) {
        fprintf(out, " %" PRIu64, counts[i]);
        counts[i] = 0;
    }
    fputc('\n', out);
}

/* Runs before the block's first instruction increments the counter. */
static void on_block(unsigned cpu, void *user) {
    struct block *block = user;
    (void)cpu;
    if (previous != NULL) {
        const uint64_t distance = block->address[0] - previous->address[previous->instructions - 1];
        previous->followed_by_2 += distance == 2;
        previous->followed_by_4 += distance == 4;
    }
    if (block->mark) {
        close_record();
    } else if (block->slot != INHERIT && block->slot != current) {
        switch_to(block->slot);
    }
    previous = NULL;
    if (current != OFF) {
        block->runs++;
        previous = block;
    }
}

static void on_access(unsigned cpu, uint32_t info, uint64_t address, void *user) {
    const uint64_t size = UINT64_C(1) << qemu_plugin_mem_size_shift(info);
    (void)cpu;
    if (current != OFF && (address & (size - 1)) != 0 && unaligned < MOST_UNALIGNED) {
        fprintf(out, "unaligned %" PRIx64 " %" PRIx64 " %" PRIu64 "\n", *(uint64_t *)user, address, size);
        unaligned++;
    }
}

static int slot_of(uint64_t address) {
    for (size_t i = 0; i < range_count; i++) {
        if (address >= ranges[i].start && address < ranges[i].end) {
            return ranges[i].slot;
        }
    }
    return INHERIT;
}

static bool must_be_aligned(uint64_t address) {
    for (size_t i = 0; i < align_count; i++) {
        if (address >= align_ranges[i].start && address < align_ranges[i].end) {
            return true;
        }
    }
    return false;
}

static void on_translate(plugin_id id, struct qemu_plugin_tb *tb) {
    const size_t count = qemu_plugin_tb_n_insns(tb);
    struct block *block = allocate(NULL, sizeof *block + count * sizeof block->address[0]);
    (void)id;
    memset(block, 0, sizeof *block);
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        block->address[i] = qemu_plugin_insn_vaddr(insn);
        qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD_U64, &executed, 1);
        if (must_be_aligned(block->address[i])) {
            qemu_plugin_register_vcpu_mem_cb(insn, on_access, NO_REGISTERS, READ_OR_WRITE,
                                             &block->address[i]);
        }
    }
    block->instructions = count;
    block->slot = slot_of(block->address[0]);
    block->mark = block->address[0] == mark_address;
    block->next = blocks;
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, NO_REGISTERS, block);
}

static void on_exit(plugin_id id, void *user) {
    (void)id;
    (void)user;
    for (const struct block *block = blocks; block != NULL; block = block->next) {
        if (block->runs != 0) {
            fprintf(out, "block %" PRIu64 " %" PRIu64 " %" PRIu64, block->runs, block->followed_by_2,
                    block->followed_by_4);
            for (size_t i = 0; i < block->instructions; i++) {
                fprintf(out, " %" PRIx64, block->address[i]);
            }
            fputc('\n', out);
        }
    }
    fputs("end\n", out);
    fclose(out);
}

static bool read_map(const char *path) {
    FILE *map = fopen(path, "r");
    char word[16];
    if (map == NULL) {
        return false;
    }
    while (fscanf(map, "%15s", word) == 1) {
        struct range range = {0, 0, OFF};
        bool read = false;
        if (strcmp(word, "mark") == 0) {
            read = fscanf(map, "%" SCNx64, &mark_address) == 1;
        } else if (strcmp(word, "align") == 0) {
            read = fscanf(map, "%" SCNx64 "%" SCNx64, &range.start, &range.end) == 2;
            align_ranges = allocate(align_ranges, (align_count + 1) * sizeof *align_ranges);
            align_ranges[align_count++] = range;
        } else {
            read = strcmp(word, "off") == 0 || fscanf(map, "%d", &range.slot) == 1;
            read = read && fscanf(map, "%" SCNx64 "%" SCNx64, &range.start, &range.end) == 2;
            ranges = allocate(ranges, (range_count + 1) * sizeof *ranges);
            ranges[range_count++] = range;
            slots = range.slot >= slots ? range.slot + 1 : slots;
        }
        if (!read) {
            fclose(map);
            return false;
        }
    }
    fclose(map);
    return true;
}

int qemu_plugin_install(plugin_id id, const struct plugin_info *info, int argc, char **argv) {
    if (info->version.min > 1 || info->version.cur < 1) {
        fputs("count plugin: this QEMU has no plugin API 1\n", stderr);
        return -1;
    }
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "map=", 4) == 0 && !read_map(argv[i] + 4)) {
            fputs("count plugin: the map can't be read\n", stderr);
            return -1;
        }
        if (strncmp(argv[i], "out=", 4) == 0) {
            out = fopen(argv[i] + 4, "w");
        }
    }
    if (out == NULL) {
        fputs("count plugin: the output can't be written\n", stderr);
        return -1;
    }
    counts = allocate(NULL, (size_t)slots * sizeof *counts);
    memset(counts, 0, (size_t)slots * sizeof *counts);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_atexit_cb(id, on_exit, NULL);
    return 0;
}
