// Instructions of extensions that the target doesn't assume. Called only where the ID registers show them.
    .arch_extension lse
    .arch_extension crc
    .arch_extension fp
    .arch_extension simd

    .section .text, "ax"
    .balign 4
    .global runtime_ldadd
runtime_ldadd:                          // (address, addend) -> old value
    ldaddal x1, x2, [x0]
    mov     x0, x2
    ret

    .global runtime_casal
runtime_casal:                          // (address, expected, new) -> old value
    casal   x1, x2, [x0]
    mov     x0, x1
    ret

    .global runtime_crc32cx
runtime_crc32cx:                        // (accumulator, data) -> CRC-32C
    crc32cx w0, w0, x1
    ret

    .global runtime_pacia_autia
runtime_pacia_autia:                    // (pointer, modifier, xor, &signed) -> what AUTIA1716 makes of it
    mov     x17, x0
    mov     x16, x1
    hint    #8                          // pacia1716
    str     x17, [x3]
    eor     x17, x17, x2
    hint    #12                         // autia1716
    mov     x0, x17
    ret

    .global runtime_rndr
runtime_rndr:                           // (&value) -> 1 if there was one
    mrs     x1, s3_3_c2_c4_0
    cset    x2, ne
    str     x1, [x0]
    mov     x0, x2
    ret

    .global runtime_ldapr
runtime_ldapr:                          // (address) -> value
    .inst   0xf8bfc000                  // ldapr x0, [x0]
    ret

    .global runtime_fp_load
runtime_fp_load:                        // 512 bytes into q0 to q31
    ldp     q0, q1, [x0, #0]
    ldp     q2, q3, [x0, #32]
    ldp     q4, q5, [x0, #64]
    ldp     q6, q7, [x0, #96]
    ldp     q8, q9, [x0, #128]
    ldp     q10, q11, [x0, #160]
    ldp     q12, q13, [x0, #192]
    ldp     q14, q15, [x0, #224]
    ldp     q16, q17, [x0, #256]
    ldp     q18, q19, [x0, #288]
    ldp     q20, q21, [x0, #320]
    ldp     q22, q23, [x0, #352]
    ldp     q24, q25, [x0, #384]
    ldp     q26, q27, [x0, #416]
    ldp     q28, q29, [x0, #448]
    ldp     q30, q31, [x0, #480]
    ret

    .global runtime_fp_store
runtime_fp_store:                       // q0 to q31 into 512 bytes
    stp     q0, q1, [x0, #0]
    stp     q2, q3, [x0, #32]
    stp     q4, q5, [x0, #64]
    stp     q6, q7, [x0, #96]
    stp     q8, q9, [x0, #128]
    stp     q10, q11, [x0, #160]
    stp     q12, q13, [x0, #192]
    stp     q14, q15, [x0, #224]
    stp     q16, q17, [x0, #256]
    stp     q18, q19, [x0, #288]
    stp     q20, q21, [x0, #320]
    stp     q22, q23, [x0, #352]
    stp     q24, q25, [x0, #384]
    stp     q26, q27, [x0, #416]
    stp     q28, q29, [x0, #448]
    stp     q30, q31, [x0, #480]
    ret
