/* SPDX-License-Identifier: MIT-0
 *
 * The few things C can't say, for every instruction set the harness runs on:
 *
 *   uintptr_t pgh_paint(uintptr_t limit, uint32_t pattern);
 *       writes pattern from limit up to the caller's stack pointer and returns that stack pointer.
 *       It needs no stack of its own, so that nothing below the caller's frame stays unpainted.
 *
 *   void calibration_loop(uint32_t n);
 *       executes exactly 2 n + 1 instructions.
 */
#if defined(__x86_64__)

        .text
        .globl  pgh_paint
        .type   pgh_paint, @function
pgh_paint:
1:      cmpq    %rsp, %rdi
        jae     2f
        movl    %esi, (%rdi)
        addq    $4, %rdi
        jmp     1b
2:      leaq    8(%rsp), %rax
        ret
        .size   pgh_paint, . - pgh_paint

        .globl  calibration_loop
        .type   calibration_loop, @function
calibration_loop:
1:      subl    $1, %edi
        jne     1b
        ret
        .size   calibration_loop, . - calibration_loop

#elif defined(__aarch64__)

        .text
        .globl  pgh_paint
        .type   pgh_paint, %function
pgh_paint:
        mov     x2, sp
1:      cmp     x0, x2
        b.hs    2f
        str     w1, [x0], #4
        b       1b
2:      mov     x0, x2
        ret
        .size   pgh_paint, . - pgh_paint

        .globl  calibration_loop
        .type   calibration_loop, %function
calibration_loop:
1:      subs    w0, w0, #1
        b.ne    1b
        ret
        .size   calibration_loop, . - calibration_loop

#else /* 32-bit Arm, in the instruction set the rest of the image uses */

        .syntax unified
#if defined(__thumb__)
        .thumb
#define FUNCTION .thumb_func
#else
        .arm
#define FUNCTION
#endif
        .section .text.pgh_paint, "ax", %progbits
        .globl  pgh_paint
        .type   pgh_paint, %function
        FUNCTION
pgh_paint:
        mov     r2, sp
1:      cmp     r0, r2
        bhs     2f
        str     r1, [r0]
        adds    r0, r0, #4
        b       1b
2:      mov     r0, r2
        bx      lr
        .size   pgh_paint, . - pgh_paint

        .section .text.calibration_loop, "ax", %progbits
        .globl  calibration_loop
        .type   calibration_loop, %function
        FUNCTION
calibration_loop:
1:      subs    r0, r0, #1
        bne     1b
        bx      lr
        .size   calibration_loop, . - calibration_loop

#endif

#if defined(__linux__)
        .section .note.GNU-stack, "", %progbits
#endif
