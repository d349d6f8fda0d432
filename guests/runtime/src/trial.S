// A trial's way into its code, and the way back out of any state that it leaves the CPU in (trial.rs).
//
// The way back takes nothing for granted but that its instructions can be fetched: it runs with the MMU on, by the low half
// of the addresses or the high one, or off; it loads nothing from memory, and stores nothing, before translation is as it should be.

    // A constant, without a load.
    .macro  constant register, value
    movz    \register, #(\value & 0xffff)
    movk    \register, #(\value >> 16 & 0xffff), lsl #16
    movk    \register, #(\value >> 32 & 0xffff), lsl #32
    .endm

    // The low address of a symbol, from whichever half the code runs in.
    .macro  low_address register, symbol
    adrp    \register, \symbol
    add     \register, \register, :lo12:\symbol
    and     \register, \register, #0x7fffffffff
    .endm

    .macro  trial_vector index
    .balign 0x80
    mov     x0, #\index
    b       .Ltrial_over
    .endm

    .section .text.trial, "ax"
    .balign 0x800
.Ltrial_vectors:
    .altmacro
    .set    index, 0
    .rept   16
    trial_vector %index
    .set    index, index + 1
    .endr
    .noaltmacro

    // Where a CPU begins: the boot CPU, and those that CPU_ON starts, with the MMU off.
    .global runtime_trial_entry
runtime_trial_entry:
    msr     daifset, #0xf
    mov     x0, #{fresh}

.Ltrial_over:
    constant x1, {sctlr}
    mrs     x2, sctlr_el1
    eor     x12, x1, x2
    constant x3, {tcr}
    mrs     x2, tcr_el1
    eor     x2, x2, x3
    orr     x12, x12, x2
    constant x4, {mair}
    mrs     x2, mair_el1
    eor     x2, x2, x4
    orr     x12, x12, x2
    low_address x5, {root}
    mrs     x2, ttbr1_el1
    eor     x2, x2, x5
    orr     x12, x12, x2
    mov     x6, x5
    mov     x2, #{asid}
    bfi     x6, x2, #48, #16
    mrs     x2, ttbr0_el1
    eor     x2, x2, x6
    orr     x12, x12, x2
    cbz     x12, 1f
    msr     tcr_el1, x3
    msr     mair_el1, x4
    msr     ttbr0_el1, x6
    msr     ttbr1_el1, x5
    isb
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el1, x1
    isb
1:  adr     x1, .Ltrial_vectors
    and     x1, x1, #0x7fffffffff
    msr     vbar_el1, x1
    low_address x2, 2f
    br      x2

2:  mrs     x3, mpidr_el1
    and     x3, x3, #{cpu_mask}
    low_address x4, {cells}
    add     x4, x4, x3, lsl #{cell_shift}
    mrs     x5, esr_el1
    stp     x0, x5, [x4, #{ended}]
    mrs     x5, elr_el1
    mrs     x6, far_el1
    stp     x5, x6, [x4, #({ended} + 16)]
    mrs     x5, spsr_el1
    str     x5, [x4, #({ended} + 32)]
    msr     tpidr_el1, x3
    msr     mdscr_el1, xzr
    msr     contextidr_el1, xzr
    mov     x5, #(3 << 16 | 3 << 20)    // FPEN and SMEN as well: EL1's own traps would hide those of EL2
    orr     x5, x5, #(3 << 24)
    msr     cpacr_el1, x5
    mov     x5, #{cell_size}
    add     x5, x4, x5
    mov     sp, x5
    // By ERET, so that all of PSTATE is as it should be.
    mov     x5, #0x3c5                  // EL1h, all masked
    msr     spsr_el1, x5
    low_address x5, {over}
    msr     elr_el1, x5
    mov     x0, x4
    mov     x29, xzr
    mov     x30, xzr
    isb
    eret

    // x0: the cell. From here on, nothing but the code's own end comes back.
    .global runtime_trial_launch
runtime_trial_launch:
    ldr     x1, [x0, #{half}]
    orr     x0, x0, x1
    adr     x2, 1f
    orr     x2, x2, x1
    br      x2
1:  adr     x2, .Ltrial_vectors
    msr     vbar_el1, x2
    ldp     x1, x2, [x0, #{pc}]
    msr     elr_el1, x1
    msr     spsr_el1, x2
    ldp     x1, x2, [x0, #{sp}]
    mov     sp, x1
    msr     sp_el0, x2
    ldp     x1, x2, [x0, #{ttbr0}]
    mrs     x3, ttbr0_el1
    mrs     x4, tcr_el1
    eor     x3, x3, x1
    eor     x4, x4, x2
    orr     x3, x3, x4
    cbz     x3, 2f
    msr     ttbr0_el1, x1
    msr     tcr_el1, x2
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
2:  ldr     x1, [x0, #{mdscr}]
    msr     mdscr_el1, x1
    isb
    ldp     x2, x3, [x0, #16]
    ldp     x4, x5, [x0, #32]
    ldp     x6, x7, [x0, #48]
    ldp     x8, x9, [x0, #64]
    ldp     x10, x11, [x0, #80]
    ldp     x12, x13, [x0, #96]
    ldp     x14, x15, [x0, #112]
    ldp     x16, x17, [x0, #128]
    ldp     x18, x19, [x0, #144]
    ldp     x20, x21, [x0, #160]
    ldp     x22, x23, [x0, #176]
    ldp     x24, x25, [x0, #192]
    ldp     x26, x27, [x0, #208]
    ldp     x28, x29, [x0, #224]
    ldr     x30, [x0, #240]
    ldp     x0, x1, [x0]
    eret
