//! `docs/sysregs.md`: the tables of `vmm::sysreg` and `vmm::idregs` to be read.

use std::fmt::Write as _;

use vmm::idregs::{FIELDS, Rule};
use vmm::sysreg::{Given, REGISTERS, Register, Step};

const INTRODUCTION: &str = "\
# System registers

What a guest has of every system register that EL1 and EL0 can name (op0 2 and 3, op1 0 to 3). Made by `make sysregs` from
`hyp/vmm/src/sysreg/table.rs`, by which trapped accesses are answered too, and against which the list of what is switched
(`hyp/el2/src/context.rs`) is checked when Hanok is compiled; `make test` checks that this page is up to date.

- **direct**: the CPU's own, without an exit; it is the same for all guests, or nothing of it lasts.
- **switched**: the CPU's own, without an exit, kept for each vCPU.
- **when used**: the same for a vCPU that uses it; until it does, and where something has to be kept from it, it traps.
- **emulated**: EL2 answers.
- **UNDEFINED**: no guest has it: the feature isn't shown.

Registers of EL2 and EL3 (op1 4 to 7), IMPLEMENTATION DEFINED ones (CRn 11 and 15: HCR_EL2.TIDCP) and encodings without a register are
UNDEFINED. General-purpose, SIMD and floating-point registers, PC, PSTATE and SP_EL1 are switched. AArch32 has system registers at EL0
alone, where they are the same by other names.

| Register | Encoding | Guests have it | By |
|---|---|---|---|
";

const FIELDS_INTRODUCTION: &str = "
## Identification registers

Of each ID register, only these fields are shown, as the CPU has them or with what is said; all others, and all other registers of
S3_0_C0_C1_0 to S3_0_C0_C7_7, read as zero. So a CPU newer than this table shows its guests nothing that EL2 doesn't know of. Where EL0 has
no AArch32, that state's registers read as zero.

| Register | Fields |
|---|---|
";

/// The page.
pub fn document() -> String {
    let mut page = INTRODUCTION.to_owned();
    for row in REGISTERS {
        let given = match row.given {
            Given::Direct => "direct",
            Given::Switched => "switched",
            Given::WhenUsed => "when used",
            Given::Emulated => "emulated",
            Given::Undefined => "UNDEFINED",
        };
        let _ =
            writeln!(page, "| {} | {} | {given} | {} |", escape(row.name), encodings(row), escape(row.why));
    }
    page.push_str(FIELDS_INTRODUCTION);
    for (_, register, fields) in FIELDS {
        let fields: Vec<String> = fields.iter().map(|(name, _, rule, why)| field(name, *rule, why)).collect();
        let _ = writeln!(page, "| {register} | {} |", fields.join(", "));
    }
    page
}

/// The first encoding, and the last one of a family.
fn encodings(row: &Register) -> String {
    let (op0, op1, crn, crm, op2) = row.first.fields();
    let first = format!("S{op0}_{op1}_C{crn}_C{crm}_{op2}");
    let further = row.count - 1;
    let last = match row.step {
        _ if further == 0 => return first,
        Step::Crm => format!("S{op0}_{op1}_C{crn}_C{}_{op2}", u16::from(crm) + further),
        Step::Op2 => {
            let along = (u16::from(crn) << 7 | u16::from(crm) << 3 | u16::from(op2)) + further;
            format!("S{op0}_{op1}_C{}_C{}_{}", along >> 7, along >> 3 & 15, along & 7)
        }
    };
    format!("{first} to {last}")
}

fn field(name: &str, rule: Rule, why: &str) -> String {
    let limit = match rule {
        Rule::Keep | Rule::Gic | Rule::Counters => String::new(),
        Rule::AtMost(most) | Rule::SignedAtMost(most) => format!("at most {most}"),
        Rule::Is(value) => format!("{value:#x}"),
    };
    match (limit.as_str(), why) {
        ("", "") => name.to_owned(),
        (limit, "") => format!("{name} ({limit})"),
        ("", why) => format!("{name} ({why})"),
        (limit, why) => format!("{name} ({limit}: {why})"),
    }
}

/// Angle brackets are Markdown's, and stars too.
fn escape(text: &str) -> String {
    text.replace('<', "\\<").replace('*', "\\*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_up_to_date() {
        let page = include_str!("../../docs/sysregs.md");
        let new = document();
        let stale = page.lines().zip(new.lines()).find(|(old, new)| old != new);
        assert!(page == new, "docs/sysregs.md is not what `make sysregs` writes: {stale:?}");
    }

    #[test]
    fn families_say_where_they_end() {
        let of = |name: &str| encodings(REGISTERS.iter().find(|row| row.name == name).unwrap());
        assert_eq!(of("SCTLR_EL1"), "S3_0_C1_C0_0");
        assert_eq!(of("DBGBVR<n>_EL1"), "S2_0_C0_C0_4 to S2_0_C0_C15_4");
        assert_eq!(of("PMEVCNTR<n>_EL0"), "S3_3_C14_C8_0 to S3_3_C14_C11_6");
        assert_eq!(of("ID_*_EL1, MVFR<n>_EL1"), "S3_0_C0_C1_0 to S3_0_C0_C7_7");
    }
}
