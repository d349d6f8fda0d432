// Calls with every general register given and taken back: x0 points to 31 doublewords for x0 to x30.
    .macro  call name, instruction
    .section .text, "ax"
    .balign 4
    .global \name
\name:
    stp     x29, x30, [sp, #-112]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    stp     x0, x18, [sp, #96]
    ldp     x1, x2, [x0, #8]
    ldp     x3, x4, [x0, #24]
    ldp     x5, x6, [x0, #40]
    ldp     x7, x8, [x0, #56]
    ldp     x9, x10, [x0, #72]
    ldp     x11, x12, [x0, #88]
    ldp     x13, x14, [x0, #104]
    ldp     x15, x16, [x0, #120]
    ldp     x17, x18, [x0, #136]
    ldp     x19, x20, [x0, #152]
    ldp     x21, x22, [x0, #168]
    ldp     x23, x24, [x0, #184]
    ldp     x25, x26, [x0, #200]
    ldp     x27, x28, [x0, #216]
    ldp     x29, x30, [x0, #232]
    ldr     x0, [x0]
    \instruction
    str     x0, [sp, #-16]!
    ldr     x0, [sp, #112]
    stp     x1, x2, [x0, #8]
    stp     x3, x4, [x0, #24]
    stp     x5, x6, [x0, #40]
    stp     x7, x8, [x0, #56]
    stp     x9, x10, [x0, #72]
    stp     x11, x12, [x0, #88]
    stp     x13, x14, [x0, #104]
    stp     x15, x16, [x0, #120]
    stp     x17, x18, [x0, #136]
    stp     x19, x20, [x0, #152]
    stp     x21, x22, [x0, #168]
    stp     x23, x24, [x0, #184]
    stp     x25, x26, [x0, #200]
    stp     x27, x28, [x0, #216]
    stp     x29, x30, [x0, #232]
    ldr     x1, [sp], #16
    str     x1, [x0]
    ldr     x18, [sp, #104]
    ldp     x27, x28, [sp, #80]
    ldp     x25, x26, [sp, #64]
    ldp     x23, x24, [sp, #48]
    ldp     x21, x22, [sp, #32]
    ldp     x19, x20, [sp, #16]
    ldp     x29, x30, [sp], #112
    ret
    .endm

    call    runtime_hvc_0, "hvc #0"
    call    runtime_smc_0, "smc #0"
    call    runtime_hvc_1, "hvc #1"
    call    runtime_smc_1, "smc #1"
    call    runtime_hvc_ffff, "hvc #0xffff"
    call    runtime_smc_ffff, "smc #0xffff"

// The same, with a loop in place of the call: counts x0 down while NZCV (from x30's bits) and all else stay as they are.
// x0 is NZCV afterwards.
    call    runtime_hold, "msr nzcv, x30; 0: sub x0, x0, #1; cbnz x0, 0b; mrs x0, nzcv"

// The same for an instruction of the table below, whose address is in ELR_EL1, and PSTATE in SPSR_EL1.
    call    runtime_single, "eret; .Lsingle_end:"

    .macro  singles instruction, rest
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29
    \instruction\n \rest
    b       .Lsingle_end
    .endr
    .endm

// One for each of x0 to x30; an access to memory is at x30, and that of x30 at x29.
    .balign 4
    .global runtime_singles
runtime_singles:
    singles "ldr w", ", [x30]"
    ldr     w30, [x29]
    b       .Lsingle_end
    singles "str w", ", [x30]"
    str     w30, [x29]
    b       .Lsingle_end
    singles "mrs x", ", id_aa64isar0_el1"
    mrs     x30, id_aa64isar0_el1
    b       .Lsingle_end
