// EL2's exception vectors (Arm ARM D1.3.1.1), the way into the handlers and back to the guest.
//
// There are four tables, for what `vmm::mitigations` has to be done. What a guest has taught the branch predictor must not lead EL2's own
// branches (CVE-2017-5715, CVE-2022-23960): where the CPU needs it, its history of branches is replaced or cleared, or firmware
// drops all that it has learnt, before the first branch that a guest could have taught it. `percpu::set_vectors` chooses.
//
// While a guest runs, SP_EL2 is where this CPU's stack was when it was entered; an exit puts the guest's general-purpose
// registers there as a Frame (exit.rs). ELR_EL2 and SPSR_EL2 stay in their registers: EL2 runs with interrupts masked, so
// nothing overwrites them but a crash.
//
// Most exits are short: they go back to the guest where it was, and look at few of its registers. X20 to X27 stay where they are in
// these: by the procedure call standard (AAPCS64 6.1.1) every function leaves them as it found them. An exit that may need them, or end
// with another vCPU, puts them into the Frame before it goes on, and takes all from there.

.macro nothing
.endm

// Clears this CPU's history of branches, where it has CLRBHB (FEAT_CLRBHB; elsewhere it does nothing); and as many branches as
// replace it, each to the next instruction.
.macro new_history
    hint    #22                         // CLRBHB
    mrs     x0, tpidr_el2
    ldr     x0, [x0, #8]                // PerCpu::branches
2:  b       . + 4
    subs    x0, x0, #1
    b.ne    2b
    dsb     nsh
    isb
.endm

// It may change x0 to x3, which are saved.
.macro firmware function
    mov     w0, #(\function & 0xffff)
    movk    w0, #(\function >> 16), lsl #16
    smc     #0
.endm

.macro workaround_1
    firmware 0x80008000
.endm

.macro workaround_3
    firmware 0x80003fff
.endm

.macro exit_to way, mitigation
    .balign 0x80
    sub     sp, sp, #256
    stp     x0, x1, [sp, #0]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x28, x29, [sp, #224]
    stp     x30, xzr, [sp, #240]
    \mitigation
    b       \way
.endm

// Makes the frame a whole one: x20 to x27 are as the guest has them.
.macro save_rest
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
.endm

// An exception of EL2's own: there is no way back. The report runs on a stack of its own, for this one may be used up.
// SP_EL0 and TPIDR_EL0, which are the guest's, hold x0 and sp meanwhile.
.macro crash_with kind
    .balign 0x80
    msr     sp_el0, x0
    mov     x0, sp
    msr     tpidr_el0, x0
    mrs     x0, tpidr_el2
    ldr     x0, [x0]                    // PerCpu::crash_stack_top
    mov     sp, x0
    mov     x0, #\kind
    b       crash_entry
.endm

.macro vector_table name, mitigation
.balign 0x800
.global \name
\name:
    crash_with 0                        // synchronous, with SP_EL0
    crash_with 1                        // IRQ
    crash_with 2                        // FIQ
    crash_with 3                        // SError
    crash_with 0                        // synchronous, with SP_EL2
    crash_with 1
    crash_with 2
    crash_with 3
    exit_to sync, \mitigation           // a guest's EL1 in AArch64, and EL0 in either state
    exit_to irq, \mitigation
    exit_to irq, \mitigation
    exit_to serror, \mitigation
    exit_to sync, \mitigation           // a guest's EL1 in AArch32, which there isn't (HCR_EL2.RW)
    exit_to irq, \mitigation
    exit_to irq, \mitigation
    exit_to serror, \mitigation
.endm

.section .text.vectors, "ax"
vector_table vectors, nothing
vector_table vectors_new_history, new_history
vector_table vectors_workaround_1, workaround_1
vector_table vectors_workaround_3, workaround_3

// Handlers (exit.rs) get ESR_EL2 in x0, and the frame in x1. Stack traces end with the calls of them.

// Behind all that a handler may have asked this CPU for: on to what is to be looked at, if there is something (Own::look).
.macro look_or label
    mrs     x0, tpidr_el2
    ldrb    w0, [x0, #{look}]
    cbz     w0, \label
.endm

// By exception class. Not by a table of addresses: a guest could teach the predictor where its branch goes.
.balign 0x40
sync:
    mrs     x0, esr_el2
    mov     x1, sp
    mov     x29, xzr
    ubfx    x2, x0, #26, #6
    cmp     w2, #{data_abort}
    b.ne    1f
    mrs     x2, spsr_el2
    tbnz    x2, #4, aarch32             // M[4]
    tbz     x0, #24, any_data_abort     // ISV: the syndrome doesn't describe it
    tbnz    x0, #20, any_data_abort     // SRT is one of X16 to X31
    bl      handle_data_abort
    look_or return_short
    b       look
1:  cmp     w2, #{system_register}
    b.ne    2f
    tbnz    x0, #9, any_system_register // Rt, as above
    bl      handle_system_register
    look_or return_short
    b       look
2:  cmp     w2, #{hvc}
    b.ne    3f
    bl      handle_hvc
    cbz     x0, return_short

// A call that isn't answered yet, by what is left to do: below 0, others go first.
call:
    save_rest
    tbnz    x0, #63, give_way
    mov     x1, sp
    bl      answer_call
    b       look_and_return
give_way:
    mov     x0, sp
    mov     w1, #{passes}
    bl      schedule

3:  cmp     w2, #{smc}
    b.ne    other
    bl      handle_smc
    cbz     x0, return_short
    b       call

any_data_abort:
    save_rest
    bl      handle_any_data_abort
    b       look_and_return

any_system_register:
    save_rest
    bl      handle_system_register
    b       look_and_return

other:
    mrs     x2, spsr_el2
    tbnz    x2, #4, aarch32
    save_rest
    bl      handle_other
    b       look_and_return

// A 32-bit program's exit; it can make no calls.
aarch32:
    save_rest
    bl      handle_aarch32
    b       look_and_return

serror:
    save_rest
    mrs     x0, esr_el2
    mov     x1, sp
    mov     x29, xzr
    bl      handle_serror
    b       look_and_return

irq:
    mov     x29, xzr
    bl      handle_irq
    look_or return_short

look:
    save_rest
0:  mov     x0, sp
    mov     w1, #{nothing}
    bl      schedule

look_and_return:
    look_or return_to_guest
    b       0b

.balign 0x80
crash_entry:
    sub     sp, sp, #272
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x2, sp_el0
    stp     x2, x1, [sp, #0]
    mrs     x2, tpidr_el0
    stp     x30, x2, [sp, #240]
    mov     x1, sp
    bl      crash_report

.macro load_short frame
    ldp     x2, x3, [\frame, #16]
    ldp     x4, x5, [\frame, #32]
    ldp     x6, x7, [\frame, #48]
    ldp     x8, x9, [\frame, #64]
    ldp     x10, x11, [\frame, #80]
    ldp     x12, x13, [\frame, #96]
    ldp     x14, x15, [\frame, #112]
    ldp     x16, x17, [\frame, #128]
    ldp     x18, x19, [\frame, #144]
    ldp     x28, x29, [\frame, #224]
    ldr     x30, [\frame, #240]
    ldp     x0, x1, [\frame, #0]
.endm

.macro load_rest frame
    ldp     x20, x21, [\frame, #160]
    ldp     x22, x23, [\frame, #176]
    ldp     x24, x25, [\frame, #192]
    ldp     x26, x27, [\frame, #208]
.endm

// Nothing is executed behind an ERET, not even speculatively.
.macro go_to_guest
    eret
    dsb     nsh
    isb
.endm

// x0: the guest's registers, a Frame that may be anywhere; x1: the Frame on this CPU's stack, of which nothing is needed any more.
.global enter_guest
enter_guest:
    add     sp, x1, #256
    load_rest x0
    load_short x0
    go_to_guest

return_to_guest:
    load_rest sp
return_short:
    load_short sp
    add     sp, sp, #256
    go_to_guest
