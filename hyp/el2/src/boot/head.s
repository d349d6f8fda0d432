// The image's first bytes: the arm64 Linux Image header (Documentation/arch/arm64/booting.rst in the kernel), and the
// way from there to Rust. Entered with the MMU off and x0 = the board's device tree, or nothing of use.

.section .head, "ax"
.global _start
_start:
    b       boot_cpu_start              // code0
    .long   0                           // code1
    .quad   0                           // text_offset: anywhere
    .quad   __image_size                // with everything that isn't in the file
    .quad   0b1010                      // flags: little-endian, 4 KiB pages, anywhere in memory
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0

.section .text.boot, "ax"
boot_cpu_start:
    msr     daifset, #0xf
    msr     spsel, #1
    mov     x19, x0
    mrs     x21, CurrentEL
    cmp     x21, #(2 << 2)
    b.ne    0f

    // At EL2, nothing of what firmware left in these two decides how the first instructions run: the MMU and caches are
    // off, accesses little-endian, and EL2 has a translation regime of its own (E2H 0: the other registers' layouts
    // depend on it), with EL1 in AArch64. The rest of HCR_EL2 is set when a guest is built.
    ldr     x1, =0x30c50830             // the bits that are RES1
    msr     sctlr_el2, x1
    mov     x1, #(1 << 31)
    msr     hcr_el2, x1
    isb

    // Lines of this memory that a loader left dirty must not come down on what is written past the caches now. The heap is
    // written through the caches alone.
0:  adrp    x0, __bss_start
    add     x0, x0, :lo12:__bss_start
    adrp    x1, __heap_start
    bl      invalidate_to_poc

    adrp    x1, __bss_start
    add     x1, x1, :lo12:__bss_start
    adrp    x2, __bss_end
    add     x2, x2, :lo12:__bss_end
0:  cmp     x1, x2
    b.hs    1f
    stp     xzr, xzr, [x1, #16]         // 64 bytes, of which it is a multiple
    stp     xzr, xzr, [x1, #32]
    stp     xzr, xzr, [x1, #48]
    stp     xzr, xzr, [x1], #64
    b       0b

    // Relocate, which is to add the base to words (ELF gABI, SHT_RELR; the image's maker checks that there is nothing else). An
    // even entry is the offset of one word. An odd one is about the 63 words behind the last that an entry was about, in its bits 1 to 63.
1:  adrp    x20, __image_start
    adrp    x1, __relr_start
    add     x1, x1, :lo12:__relr_start
    adrp    x2, __relr_end
    add     x2, x2, :lo12:__relr_end
2:  cmp     x1, x2
    b.hs    3f
    ldr     x3, [x1], #8
    tbnz    x3, #0, 0f
    add     x4, x20, x3
    ldr     x5, [x4]
    add     x5, x5, x20
    str     x5, [x4], #8                // x4: the next word
    b       2b
0:  mov     x6, x4
    add     x4, x4, #(63 * 8)
1:  lsr     x3, x3, #1
    cbz     x3, 2b
    tbz     x3, #0, 0f
    ldr     x5, [x6]
    add     x5, x5, x20
    str     x5, [x6]
0:  add     x6, x6, #8
    b       1b

3:  adrp    x1, __boot_stack_top
    mov     sp, x1
    mov     x29, xzr
    mov     x30, xzr
    mov     x1, #0                      // WRONG_EXCEPTION_LEVEL
    cmp     x21, #(2 << 2)
    b.ne    4f
    mov     x1, #1                      // ONLY_VHE: E2H cannot be cleared
    mrs     x2, hcr_el2
    tbnz    x2, #34, 4f

    // The first map is made with the MMU off: it and the relocations are in memory, and no stale line may hide them.
    mov     x0, x19
    bl      make_early_map
    mov     x20, x0                     // the root table, or 0 where the tree is of no use
    mov     x1, #2                      // NO_DEVICE_TREE
    cbz     x0, 4f
    adrp    x0, __image_start
    adrp    x1, __heap_start
    bl      invalidate_to_poc
    mov     x0, x20
    bl      enable_mmu
    mov     x0, x19
    b       boot_main
4:  mov     x0, x19
    b       unbootable

// Turns MMU and caches on (or changes the map: it is turned off in between, so that no address is ever translated
// by two maps at once). x0: the root table, which translates the running code to where it is.
.global enable_mmu
enable_mmu:
    mrs     x1, sctlr_el2
    bic     x1, x1, #1                  // M
    msr     sctlr_el2, x1
    isb
    tlbi    alle2
    dsb     nsh
    adrp    x2, EL2_TRANSLATION
    add     x2, x2, :lo12:EL2_TRANSLATION
    ldp     x3, x4, [x2]
    ldr     x5, [x2, #16]
    msr     mair_el2, x3
    msr     tcr_el2, x4
    msr     ttbr0_el2, x0
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el2, x5
    isb
    ret

// Invalidates data cache lines by address to the point of coherency. x0: start, x1: end; a line that straddles either
// is cleaned too, so that a neighbour loses nothing.
.global invalidate_to_poc
invalidate_to_poc:
    // Stores with the MMU off are to Device memory, which cache maintenance is ordered with by a barrier alone.
    dmb     sy
    mrs     x3, ctr_el0
    ubfx    x3, x3, #16, #4
    mov     x4, #4
    lsl     x4, x4, x3                  // bytes in the smallest line
    sub     x5, x4, #1
    tst     x0, x5
    bic     x0, x0, x5
    b.eq    0f
    dc      civac, x0
    add     x0, x0, x4
0:  cmp     x0, x1
    b.hs    1f
    dc      ivac, x0
    add     x0, x0, x4
    b       0b
1:  dsb     sy
    ret

// Where a secondary CPU enters that waited in a spin table, with the MMU off. Nobody has told it anything, so it looks for
// what is meant for it: the SecondaryStart with its affinity. One that there is none for waits: its word in the table may be
// another CPU's too.
.global spin_table_start
spin_table_start:
    msr     daifset, #0xf
    mrs     x1, mpidr_el1
    ldr     x2, =0xff00ffffff           // Aff3, Aff2, Aff1, Aff0
    and     x1, x1, x2
0:  adrp    x0, secondary_starts
    add     x0, x0, :lo12:secondary_starts
    mov     x3, #64                     // platform::tree::MAX_CPUS
1:  ldr     x2, [x0, #24]
    cmp     x1, x2
    b.eq    secondary_start
    add     x0, x0, #64                 // size_of::<SecondaryStart>()
    subs    x3, x3, #1
    b.ne    1b
    wfe
    b       0b

// Where a secondary CPU enters, by PSCI's CPU_ON, with the MMU off. x0: its SecondaryStart.
.global secondary_start
secondary_start:
    msr     daifset, #0xf
    msr     spsel, #1
    mov     x19, x0
    // As on the boot CPU; one that can't clear E2H stays here, and is reported as not having come up.
    ldr     x1, =0x30c50830
    msr     sctlr_el2, x1
    mov     x1, #(1 << 31)
    msr     hcr_el2, x1
    isb
    mrs     x1, hcr_el2
0:  tbz     x1, #34, 1f
    wfi
    b       0b
1:
    ldp     x0, x20, [x19]              // root table; stack
    bl      enable_mmu
    mov     sp, x20
    mov     x29, xzr
    mov     x30, xzr
    ldr     x0, [x19, #16]
    b       secondary_main
