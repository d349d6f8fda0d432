// Entry of the boot CPU and of those that PSCI starts: MMU and caches on, a stack, then Rust.
//
// The MMU goes on before the first store, so that nothing is ever written with caches off and no cache line can
// be stale. The first table is part of the image's data, which the loader has cleaned to the point of coherency.

    .section .text.boot, "ax"
    .global _start
_start:                                 // x0: device tree, or 0
    mrs     x20, cntvct_el0             // before all else: for how long it took to come here
    msr     daifset, #0xf
    mrs     x1, currentel
    cmp     x1, #(1 << 2)
    b.ne    .Lpark                      // only EL1 is served; no console is known yet to say so on
    mov     x19, x0
    adrp    x0, {boot_table}
    add     x0, x0, :lo12:{boot_table}
    bl      .Lenable_mmu

    adrp    x1, __bss_start
    add     x1, x1, :lo12:__bss_start
    adrp    x2, __bss_end
    add     x2, x2, :lo12:__bss_end
0:  cmp     x1, x2
    b.hs    1f
    stp     xzr, xzr, [x1], #16         // the linker script aligns both ends to a page
    b       0b

1:  adrp    x1, {stacks}
    add     x1, x1, :lo12:{stacks}
    mov     x2, #{stack_size}
    add     sp, x1, x2                  // CPU 0 has the first stack
    adrp    x1, {vectors}
    add     x1, x1, :lo12:{vectors}
    msr     vbar_el1, x1
    isb
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x19
    mov     x1, x20
    b       {start}

// A CPU started by CPU_ON: x0 is the context id, which is the address of its arguments (smp::Arguments). What the
// CPU came up with is kept for whoever wants to check it.
    .global runtime_secondary_entry
runtime_secondary_entry:
    mrs     x20, sctlr_el1
    mrs     x21, daif
    mrs     x22, currentel
    mrs     x23, spsel
    msr     daifset, #0xf
    msr     spsel, #1
    mov     x19, x0
    ldr     x0, [x19, #{args_table}]
    bl      .Lenable_mmu
    ldr     x1, [x19, #{args_stack}]
    mov     sp, x1
    adrp    x1, {vectors}
    add     x1, x1, :lo12:{vectors}
    msr     vbar_el1, x1
    isb
    stp     x20, x21, [x19, #{args_seen}]
    stp     x22, x23, [x19, #({args_seen} + 16)]
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x19
    b       {start_secondary}

.Lpark:
    wfi
    b       .Lpark

// x0: TTBR0_EL1, with its ASID. Clobbers x1 and x2.
.Lenable_mmu:
    ldr     x1, ={mair}
    msr     mair_el1, x1
    ldr     x1, ={tcr}
    mrs     x2, id_aa64mmfr0_el1
    and     x2, x2, #0xf                // PARange; 6 (52 bits) needs another table format
    cmp     x2, #5
    b.ls    2f
    mov     x2, #5
2:  bfi     x1, x2, #32, #3             // TCR_EL1.IPS
    msr     tcr_el1, x1
    msr     ttbr0_el1, x0
    isb
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    ldr     x1, ={sctlr}
    msr     sctlr_el1, x1
    isb
    ret
    .ltorg
