//! `crash`: the report of a VM's last crash, for people.

use abi::esr::Esr;
use abi::record::{CrashRecord, VmRecord, crash};

use crate::host::{Host, Stop};
use crate::text::{Age, Name};

/// Prints it.
pub(crate) fn print(
    host: &mut impl Host,
    name: &Name,
    vm: &VmRecord,
    report: &CrashRecord,
) -> Result<(), Stop> {
    let CrashRecord {
        why,
        vcpu,
        at,
        esr,
        pc,
        pstate,
        far,
        hpfar,
        instruction,
        x,
        sp,
        el1,
        system,
        exits,
        exit,
    } = report;
    let age = Age { ticks: vm.now.saturating_sub(*at), frequency: vm.frequency };
    writeln!(host, "{name} crashed {age} ago: {}", crash::name(*why))?;
    writeln!(host, "  crashes in all  {}", vm.crashes)?;
    writeln!(host, "  vCPU            {vcpu}")?;
    // Without a syndrome nothing of the kind brought it to Hanok, and 0 would read as one.
    if *esr != 0 {
        writeln!(host, "  esr_el2         {:#x}: {}", esr, Esr(*esr))?;
        writeln!(host, "  far_el2         {far:#x}")?;
        writeln!(host, "  hpfar_el2       {hpfar:#x}")?;
    }
    write!(host, "  pc              {pc:#x}")?;
    match instruction >> 32 & 1 {
        0 => writeln!(host, ", instruction not known")?,
        _ => writeln!(host, ", instruction {:08x}", *instruction as u32)?,
    }
    writeln!(host, "  pstate          {pstate:#x}: {}", level(*pstate))?;
    writeln!(host, "  sp_el0, sp_el1  {:#x}, {:#x}", sp[0], sp[1])?;
    for (row, values) in x.chunks(4).enumerate() {
        write!(host, " ")?;
        for (place, value) in values.iter().enumerate() {
            write!(
                host,
                " {:>3} {value:016x}",
                crate::text::short::<4>(format_args!("x{}", 4 * row + place))
            )?;
        }
        writeln!(host)?;
    }
    let [elr, spsr, esr, far] = el1;
    writeln!(host, "the last exception that it took itself:")?;
    writeln!(host, "  esr_el1         {esr:#x}: {}", Esr(*esr))?;
    writeln!(host, "  far_el1         {far:#x}")?;
    writeln!(host, "  elr, spsr_el1   {elr:#x}, {spsr:#x}")?;
    let [sctlr, vbar, ttbr0, ttbr1] = system;
    writeln!(host, "its system registers:")?;
    writeln!(host, "  sctlr, vbar_el1 {sctlr:#x}, {vbar:#x}")?;
    writeln!(host, "  ttbr0, 1_el1    {ttbr0:#x}, {ttbr1:#x}")?;
    let count = usize::try_from(*exits).unwrap_or(usize::MAX);
    let mut exits = exit.chunks_exact(2).take(count).peekable();
    if exits.peek().is_some() {
        writeln!(host, "its last exits to Hanok, the latest first:")?;
    }
    for exit in exits {
        match exit[0] {
            0 => writeln!(host, "  {:#18x}  interrupt", exit[1])?,
            esr => writeln!(host, "  {:#18x}  {}", exit[1], Esr(esr))?,
        }
    }
    Ok(())
}

/// The exception level of a PSTATE, by the names of SPSR_EL2.M.
fn level(pstate: u64) -> &'static str {
    match pstate & 0x1f {
        0b0_0000 => "EL0",
        0b0_0100 => "EL1, on sp_el0",
        0b0_0101 => "EL1",
        0b1_0000..=0b1_1111 => "AArch32",
        _ => "no level of a guest",
    }
}
