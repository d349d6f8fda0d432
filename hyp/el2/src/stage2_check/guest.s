// Into EL1 and back, for the check of stage 2 alone. `vectors` are EL2's own, which stay in charge of everything but
// synchronous exceptions from EL1.

.section .text.stage2_check, "ax"

.balign 2048
stage2_check_vectors:
.set slot, 0
.rept 8
    b vectors + slot
    .balign 128
    .set slot, slot + 128
.endr
    b stage2_check_back
    .balign 128
    .set slot, slot + 128
.rept 7
    b vectors + slot
    .balign 128
    .set slot, slot + 128
.endr
.global stage2_check_vectors

// x0, x1: the guest's; x2: where it starts, at EL1h with all interrupts masked.
.global stage2_check_enter
stage2_check_enter:
    stp x29, x30, [sp, #-96]!
    stp x27, x28, [sp, #16]
    stp x25, x26, [sp, #32]
    stp x23, x24, [sp, #48]
    stp x21, x22, [sp, #64]
    stp x19, x20, [sp, #80]
    mov x3, #0x3c5
    msr spsr_el2, x3
    msr elr_el2, x2
    eret
    dsb nsh
    isb

// The stack is as it was left. Returns the guest's x1.
stage2_check_back:
    mov x0, x1
    ldp x27, x28, [sp, #16]
    ldp x25, x26, [sp, #32]
    ldp x23, x24, [sp, #48]
    ldp x21, x22, [sp, #64]
    ldp x19, x20, [sp, #80]
    ldp x29, x30, [sp], #96
    ret
