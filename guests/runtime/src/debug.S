// Code to be debugged.

    .section .text.debug, "ax"

// A function that does nothing, for breakpoints: the one at its first instruction.
    .global runtime_debug_target
    .balign 4
runtime_debug_target:
    nop
    ret

// Instructions to be stepped through, between two that make exceptions of their own: a plain one, one that a hypervisor
// may trap and answer, one that may call one (x0: PSCI_VERSION's number), and one that jumps.
    .global runtime_debug_steps
    .balign 4
runtime_debug_steps:
    mov     x9, x0
    brk     #0x57
    nop
    mrs     x10, id_aa64pfr0_el1
    mov     x0, x9
    cbnz    x1, 1f
    b       2f
1:  hvc     #0
2:  nop
    brk     #0x58
    ret
