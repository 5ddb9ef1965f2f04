/* SPDX-License-Identifier: MIT-0
 *
 * Vector table and reset handler for every Cortex-M core. Code that carries the harness's own work is
 * named pgh_...: the counting plugin leaves it out of a model's count.
 */
        .syntax unified
        .thumb

        .section .vectors, "a", %progbits
        .globl  pgh_vectors
pgh_vectors:
        .word   __stack_top
        .word   pgh_reset
        .rept   14
        .word   pgh_fault
        .endr

        .section .text.pgh_reset, "ax", %progbits
        .globl  pgh_reset
        .type   pgh_reset, %function
        .thumb_func
pgh_reset:
#if __ARM_ARCH_ISA_THUMB >= 2
        ldr     r0, =0xE000ED08         /* VTOR */
        ldr     r1, =pgh_vectors
        str     r1, [r0]
        ldr     r0, =0xE000ED88         /* CPACR: full access to CP10 and CP11, the FPU and MVE */
        ldr     r1, [r0]
        orr     r1, r1, #0xF00000
        str     r1, [r0]
#endif
#if defined(__ARM_ARCH_8_1M_MAIN__)
        ldr     r0, =0xE000ED14         /* CCR.LOB: cache of low-overhead branches */
        ldr     r1, [r0]
        orr     r1, r1, #0x80000
        str     r1, [r0]
#endif
        dsb
        isb
        ldr     r0, =__stack_top
        mov     sp, r0
        bl      pgh_start
        .ltorg
        .size   pgh_reset, . - pgh_reset

        .section .text.pgh_fault, "ax", %progbits
        .globl  pgh_fault
        .type   pgh_fault, %function
        .thumb_func
pgh_fault:
        mov     r0, sp                  /* r0-r3, r12, lr, pc, xPSR as the core stacked them */
        bl      pgh_report_fault
        .size   pgh_fault, . - pgh_fault
