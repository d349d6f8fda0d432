// An interrupt, from what causes it to its end, or a fault, with the virtual counter read at each step and nothing else in between.
//
// While one is measured, VBAR_EL1 has a table of its own. Its IRQ handlers belong to the function that waits for the
// interrupt and share its registers:
//   x8   the counter before the cause, or the deadline
//   x9   GICC, on GICv2
//   x10  the counter at the handler's first instruction
//   x11  the counter when the interrupt has been acknowledged
//   x12  the counter when the interrupt has been ended; 0 until then
//   x13  what was acknowledged
// All other exceptions go on to the runtime's own table.

// In front of the end, the handlers of timers and devices take the line down, which would be pending again otherwise.
    .set    SGI, 0
    .set    TIMER, 1
    .set    DEVICE, 2

    .macro  take_down source
    .if \source == TIMER
    msr     cntv_ctl_el0, xzr
    .endif
    .if \source == DEVICE
    str     wzr, [x1]
    dsb     sy
    .endif
    .endm

    .macro  irq_v3 source
    mrs     x10, cntvct_el0
    mrs     x13, icc_iar1_el1
    take_down \source
    isb
    mrs     x11, cntvct_el0
    msr     icc_eoir1_el1, x13
    isb
    mrs     x12, cntvct_el0
    eret
    .endm

    .macro  irq_v2 source
    mrs     x10, cntvct_el0
    ldr     w13, [x9, #{iar}]
    take_down \source
    isb
    mrs     x11, cntvct_el0
    str     w13, [x9, #{eoir}]
    isb
    mrs     x12, cntvct_el0
    eret
    .endm

    .macro  to_runtime first, count
    .set    entry, \first
    .rept   \count
    .balign 0x80
    b       {vectors} + entry * 0x80
    .set    entry, entry + 1
    .endr
    .endm

    .macro  table name, irq, source
    .balign 0x800
\name:
    to_runtime 0, 5
    .balign 0x80
    \irq    \source
    to_runtime 6, 10
    .endm

    .section .text.timed, "ax"
    table   sgi_vectors_v2, irq_v2, SGI
    table   sgi_vectors_v3, irq_v3, SGI
    table   timer_vectors_v2, irq_v2, TIMER
    table   timer_vectors_v3, irq_v3, TIMER
    table   device_vectors_v2, irq_v2, DEVICE
    table   device_vectors_v3, irq_v3, DEVICE

// A synchronous exception: x13 is its ESR_EL1, and the program goes on behind the instruction that caused it.
    .balign 0x800
fault_vectors:
    to_runtime 0, 4
    .balign 0x80
    mrs     x10, cntvct_el0
    mov     x11, x10
    mov     x12, x10
    mrs     x9, elr_el1
    add     x9, x9, #4
    msr     elr_el1, x9
    mrs     x13, esr_el1
    eret
    to_runtime 5, 11

// x0: five doublewords for x8, x10, x11, x12 and x13; x1 and x2: operands of the cause; x3: GICC. IRQs are masked before and
// afterwards. Clobbers x4 and x8 to x13.
    .macro  measured name, table, cause:vararg
    .section .text.timed, "ax"
    .balign 4
    .global \name
\name:
    mrs     x4, vbar_el1
    adrp    x8, \table
    add     x8, x8, :lo12:\table
    msr     vbar_el1, x8
    mov     x9, x3
    mov     x12, xzr
    isb
    \cause
    msr     daifset, #2
    msr     vbar_el1, x4
    isb
    stp     x8, x10, [x0]
    stp     x11, x12, [x0, #16]
    str     x13, [x0, #32]
    ret
    .endm

    .macro  spin
0:  cbz     x12, 0b
    .endm

// With IRQs masked, so that the interrupt can't come between the look and the sleep.
    .macro  sleep
1:  wfi
    msr     daifclr, #2
    isb
    msr     daifset, #2
    cbz     x12, 1b
    .endm

    .macro  store
    msr     daifclr, #2
    isb
    mrs     x8, cntvct_el0
    str     w2, [x1]
    spin
    .endm

    .macro  sgi_v3
    msr     daifclr, #2
    isb
    mrs     x8, cntvct_el0
    msr     icc_sgi1r_el1, x2
    isb
    spin
    .endm

    .macro  timer
    mrs     x8, cntvct_el0
    add     x8, x8, x2
    msr     cntv_cval_el0, x8
    mov     x10, #1
    msr     cntv_ctl_el0, x10
    isb
    .endm

    .macro  timer_spinning
    timer
    msr     daifclr, #2
    spin
    .endm

    .macro  timer_sleeping
    timer
    sleep
    .endm

    .macro  load
    mrs     x8, cntvct_el0
    ldr     w10, [x1]
    .endm

    measured runtime_timed_sgi_v2, sgi_vectors_v2, store
    measured runtime_timed_sgi_v3, sgi_vectors_v3, sgi_v3
    measured runtime_timed_device_v2, device_vectors_v2, store
    measured runtime_timed_device_v3, device_vectors_v3, store
    measured runtime_timed_load, fault_vectors, load
    measured runtime_timed_timer_spinning_v2, timer_vectors_v2, timer_spinning
    measured runtime_timed_timer_spinning_v3, timer_vectors_v3, timer_spinning
    measured runtime_timed_timer_sleeping_v2, timer_vectors_v2, timer_sleeping
    measured runtime_timed_timer_sleeping_v3, timer_vectors_v3, timer_sleeping
