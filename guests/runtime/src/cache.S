// Turns MMU and data cache off, reads the word at x0 and writes x1 there, and turns them on again. The code is
// mapped one to one, and uses neither stack nor other memory.
    .section .text, "ax"
    .balign 64
    .global runtime_exchange_uncached
runtime_exchange_uncached:
    mrs     x2, sctlr_el1
    bic     x3, x2, #(1 << 2)           // C
    bic     x3, x3, #1                  // M
    dsb     sy
    msr     sctlr_el1, x3
    isb
    ldr     x4, [x0]
    str     x1, [x0]
    dsb     sy
    msr     sctlr_el1, x2
    isb
    mov     x0, x4
    ret
