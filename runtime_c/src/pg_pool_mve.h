/* SPDX-License-Identifier: MIT-0
 *
 * Poolings for cores with MVE (Helium): one window of all channels, and the maximum, 16 bytes of channels at
 * a time.
 */
#ifndef PG_POOL_MVE_H
#define PG_POOL_MVE_H

#include "pg_avg_pool2d.h"
#include "pg_max_pool2d.h"

/* One window; read by the blocks in this order. */
typedef struct {
    int32_t rows, columns; /* pixels of the window */
    int32_t pixel;         /* bytes from one pixel to the next */
    int32_t skip;          /* bytes from the end of a row of the window to the next one */
    int32_t start;         /* added to each sum */
    int32_t half_multiplier;
    int32_t zero_point; /* of the output */
    int32_t low;        /* smallest and largest output; read where they are not the type's */
    int32_t high;
    int32_t channels;
} pg_pool_mve_window;

/* Maxima of all channels over one window. */
#if PG_HAS_MVE
PG_NAKED void pg_max_pool_mve_s8_window(PG_UNUSED const int8_t *x, PG_UNUSED int8_t *y,
                                        PG_UNUSED const pg_pool_mve_window *w) {
    /* r0 x, r1 y, r3 rows left, r4 pixel, r8 channels left, r9 bytes of a pixel, r10 skip, r11 rows, r12
     * columns, lr columns left, q0 maxima. 5 instructions a pixel and 16 channels. */
    __asm volatile("push {r4, r8-r11, lr}\n"
                   "ldrd r11, r12, [r2]\n"
                   "ldrd r9, r10, [r2, #8]\n"
                   "ldr r8, [r2, #36]\n"
                   "1: vctp.8 r8\n"
                   "vmov.i8 q0, #128\n"
                   "mov r4, r0\n"
                   "mov r3, r11\n"
                   "2: dls lr, r12\n"
                   "3: vpst\n"
                   "vldrbt.u8 q1, [r4]\n"
                   "add r4, r4, r9\n"
                   "vmax.s8 q0, q0, q1\n"
                   "le lr, 3b\n"
                   "add r4, r4, r10\n"
                   "subs r3, r3, #1\n"
                   "bne 2b\n"
                   "vpst\n"
                   "vstrbt.8 q0, [r1], #16\n"
                   "add r0, r0, #16\n"
                   "subs r8, r8, #16\n"
                   "bgt 1b\n"
                   "pop {r4, r8-r11, pc}\n");
}

PG_NAKED void pg_max_pool_mve_s16_window(PG_UNUSED const int16_t *x, PG_UNUSED int16_t *y,
                                         PG_UNUSED const pg_pool_mve_window *w) {
    /* As for int8, 8 channels at a time. */
    __asm volatile("push {r4, r8-r11, lr}\n"
                   "ldrd r11, r12, [r2]\n"
                   "ldrd r9, r10, [r2, #8]\n"
                   "ldr r8, [r2, #36]\n"
                   "1: vctp.16 r8\n"
                   "vmov.i16 q0, #0x8000\n"
                   "mov r4, r0\n"
                   "mov r3, r11\n"
                   "2: dls lr, r12\n"
                   "3: vpst\n"
                   "vldrht.u16 q1, [r4]\n"
                   "add r4, r4, r9\n"
                   "vmax.s16 q0, q0, q1\n"
                   "le lr, 3b\n"
                   "add r4, r4, r10\n"
                   "subs r3, r3, #1\n"
                   "bne 2b\n"
                   "vpst\n"
                   "vstrht.16 q0, [r1], #16\n"
                   "add r0, r0, #16\n"
                   "subs r8, r8, #8\n"
                   "bgt 1b\n"
                   "pop {r4, r8-r11, pc}\n");
}
#else
PG_INLINE void pg_max_pool_mve_window(const void *x, void *y, const pg_pool_mve_window *w, bool wide) {
    const int32_t size = wide ? 2 : 1;
    const pg_max_pool2d_taps taps = {0, w->rows, w->columns, (w->columns * w->pixel + w->skip) / size,
                                     w->pixel / size};
    for (int32_t c = 0; c < w->channels; ++c) {
        pg_max_pool2d_one(pg_at(x, c, wide), taps, pg_at_mutable(y, c, wide), wide);
    }
}

PG_KERNEL void pg_max_pool_mve_s8_window(const int8_t *x, int8_t *y, const pg_pool_mve_window *w) {
    pg_max_pool_mve_window(x, y, w, false);
}

PG_KERNEL void pg_max_pool_mve_s16_window(const int16_t *x, int16_t *y, const pg_pool_mve_window *w) {
    pg_max_pool_mve_window(x, y, w, true);
}
#endif

/* Output pixels are step elements apart. */
PG_INLINE void pg_max_pool_mve(const pg_max_pool2d_params *p, const void *x, void *y, bool wide,
                               int32_t step) {
    const pg_pool2d_window *g = &p->window;
    const int32_t pixel = wide ? 2 * g->channels : g->channels;
    pg_pool_mve_window w = {0, 0, pixel, 0, 0, 0, 0, 0, 0, g->channels};
    for (int32_t oy = 0; oy < g->out_h; ++oy) {
        const pg_pool2d_span rows = pg_pool2d_taps(oy, g->stride_h, g->pad_top, g->kernel_h, g->in_h);
        for (int32_t ox = 0; ox < g->out_w; ++ox) {
            const pg_pool2d_span columns = pg_pool2d_taps(ox, g->stride_w, g->pad_left, g->kernel_w, g->in_w);
            const void *corner = pg_at(x, (rows.first * g->in_w + columns.first) * g->channels, wide);
            w.rows = rows.count;
            w.columns = columns.count;
            w.skip = (g->in_w - columns.count) * pixel;
            if (wide) {
                pg_max_pool_mve_s16_window((const int16_t *)corner, (int16_t *)y, &w);
            } else {
                pg_max_pool_mve_s8_window((const int8_t *)corner, (int8_t *)y, &w);
            }
            y = pg_at_mutable(y, step, wide);
        }
    }
}

PG_KERNEL void pg_max_pool_mve_s8(const pg_max_pool2d_params *p, const int8_t *x, int8_t *y) {
    pg_max_pool_mve(p, x, y, false, p->window.channels);
}

PG_KERNEL void pg_max_pool_mve_s16(const pg_max_pool2d_params *p, const int16_t *x, int16_t *y) {
    pg_max_pool_mve(p, x, y, true, p->window.channels);
}

#endif /* PG_POOL_MVE_H */
