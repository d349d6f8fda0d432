//! The registers of distributor, redistributors and CPU interface, as a driver reads and writes them.

use runtime::gic::{self, Version, bank, cpu_register, distributor, register};
use runtime::{cpu, machine};

use crate::framework::{Outcome, Stop, check, check_eq, needs_cpus, needs_gic, on_every_cpu, tests};

tests! {
    "gic.typer" => typer,
    "gic.identification" => identification,
    "gic.ctlr" => ctlr,
    "gic.enable-words" => enable_words,
    "gic.pending-words" => pending_words,
    "gic.active-words" => active_words,
    "gic.private-words" => private_words,
    "gic.priority-bytes" => priority_bytes,
    "gic.config" => config,
    "gic.group" => group,
    "gic.targets" => targets,
    "gic.router" => router,
    "gic.reserved" => reserved,
    "gic.redistributors" => redistributors,
    "gic.cpu-interface" => cpu_interface,
}

/// Two shared interrupts in one word: those of the UART and of the clock.
pub fn two_spis() -> Result<(u32, u32), Stop> {
    let rtc = machine().rtc.ok_or(Stop::Skipped("there is no PL031"))?;
    let (first, second) = (machine().uart.intid, rtc.intid);
    if first / 32 != second / 32 || first == second {
        return Err(Stop::Skipped("the two interrupts are in different words"));
    }
    Ok((first, second))
}

fn bit(intid: u32) -> u32 {
    1 << (intid % 32)
}

fn typer() -> Outcome {
    let typer = distributor().read32(register::TYPER);
    let lines = 32 * ((typer & 0x1f) + 1);
    check!(
        lines > machine().uart.intid,
        "TYPER.ITLinesNumber: more than {}, got {lines}",
        machine().uart.intid
    );
    if gic::version() == Version::V2 {
        let cpus = (typer >> 5 & 7) as usize + 1;
        check!(
            cpus >= machine().cpus().len(),
            "TYPER.CPUNumber: {} at least, got {cpus}",
            machine().cpus().len()
        );
    } else {
        let bits = (typer >> 19 & 0x1f) + 1;
        check!(bits >= 10, "TYPER.IDbits: 10 at least, got {bits}");
    }
    check_eq!(distributor().read32(register::TYPER), typer, "TYPER, read again");
    distributor().write32(register::TYPER, !typer);
    check_eq!(distributor().read32(register::TYPER), typer, "TYPER, after a write");
    Ok(())
}

fn identification() -> Outcome {
    let (offset, revision) = match gic::version() {
        Version::V2 => (register::ICPIDR2, 2..=2),
        Version::V3 => (register::PIDR2, 3..=4),
    };
    let pidr2 = distributor().read32(offset);
    check!(
        revision.contains(&(pidr2 >> 4 & 0xf)),
        "architecture revision {revision:?} in PIDR2, got {pidr2:#x}"
    );
    let iidr = distributor().read32(register::IIDR);
    check_eq!(distributor().read32(register::IIDR), iidr, "IIDR, read again");
    if let Some(frame) = gic::redistributor(0) {
        let pidr2 = frame.read32(register::PIDR2);
        check!(revision.contains(&(pidr2 >> 4 & 0xf)), "revision {revision:?} in GICR_PIDR2, got {pidr2:#x}");
    }
    Ok(())
}

fn ctlr() -> Outcome {
    let on = distributor().read32(register::CTLR);
    check!(on & 3 != 0, "CTLR should show a group enabled, got {on:#x}");
    gic::enable_distributor(false);
    let off = distributor().read32(register::CTLR);
    check_eq!(off & 3, 0, "groups in CTLR after disabling them");
    gic::enable_distributor(true);
    check_eq!(distributor().read32(register::CTLR), on, "CTLR after enabling them again");
    if gic::version() == Version::V3 {
        check!(on & 1 << 4 != 0, "CTLR.ARE should be set, got {on:#x}");
    }
    Ok(())
}

/// Sets and clears bits of two interrupts by a pair of registers, and looks at both after each step.
fn set_and_clear(set: usize, clear: usize, name: &str) -> Outcome {
    let (first, second) = two_spis()?;
    let (gicd, at) = (distributor(), first as usize / 32 * 4);
    let (one, two) = (bit(first), bit(second));
    let steps = [
        (set, one, one),
        (set, two, one | two),
        (set, 0, one | two),
        (clear, one, two),
        (set, one | two, one | two),
        (clear, 0, one | two),
        (clear, u32::MAX, 0),
    ];
    for (step, (register, write, expected)) in steps.into_iter().enumerate() {
        gicd.write32(register + at, write);
        cpu::synchronize();
        for read in [set, clear] {
            check_eq!(gicd.read32(read + at), expected, "{name}: word at {read:#x} after step {step}");
        }
    }
    Ok(())
}

fn enable_words() -> Outcome {
    set_and_clear(register::ISENABLER, register::ICENABLER, "enables")
}

fn pending_words() -> Outcome {
    set_and_clear(register::ISPENDR, register::ICPENDR, "pending")
}

fn active_words() -> Outcome {
    set_and_clear(register::ISACTIVER, register::ICACTIVER, "active")
}

fn private_words() -> Outcome {
    // Each CPU has its own: what one sets, the other doesn't see.
    on_every_cpu(|| {
        let intid = runtime::timer::Timer::Virtual.intid();
        let words = || [register::ISENABLER, register::ICENABLER].map(|at| bank(0).read32(at) & bit(intid));
        check_eq!(words(), [0; 2], "enable of PPI {intid} on CPU {} at first", cpu::index());
        gic::enable(intid);
        check_eq!(words(), [bit(intid); 2], "enable of PPI {intid} after setting it");
        // The boot CPU leaves it on, for the others to see theirs.
        Ok(())
    })
}

fn priority_bytes() -> Outcome {
    // The upper four bits are there on every implementation.
    const MASK: u32 = 0xf0f0_f0f0;
    let at = register::IPRIORITYR;
    for (n, priority) in [0x10, 0x50, 0x90, 0xe0].into_iter().enumerate() {
        bank(0).write8(at + n, priority);
    }
    check_eq!(bank(0).read32(at) & MASK, 0xe090_5010, "four bytes, read as a word");
    bank(0).write32(at, 0x2040_80c0);
    let bytes = [0, 1, 2, 3].map(|n| bank(0).read8(at + n) & 0xf0);
    check_eq!(bytes, [0xc0, 0x80, 0x40, 0x20], "a word, read as bytes");
    bank(0).write8(at + 2, 0xf0);
    check_eq!(bank(0).read32(at) & MASK, 0x20f0_80c0, "the word after a write of one byte");
    let (first, second) = two_spis()?;
    gic::set_priority(first, 0x30);
    gic::set_priority(second, 0xd0);
    check_eq!(gic::priority(first) & 0xf0, 0x30, "priority of INTID {first}");
    check_eq!(gic::priority(second) & 0xf0, 0xd0, "priority of INTID {second}");
    Ok(())
}

fn config() -> Outcome {
    let (first, second) = two_spis()?;
    let edges =
        |intid: u32| distributor().read32(register::ICFGR + intid as usize / 16 * 4) >> (intid % 16 * 2) & 3;
    gic::set_trigger(first, gic::Trigger::Edge);
    check_eq!((edges(first) & 2, edges(second) & 2), (2, 0), "edge bits after setting the first");
    gic::set_trigger(first, gic::Trigger::Level);
    gic::set_trigger(second, gic::Trigger::Edge);
    check_eq!((edges(first) & 2, edges(second) & 2), (0, 2), "edge bits after setting the second");
    gic::set_trigger(second, gic::Trigger::Level);
    // SGIs are edge-triggered, for good.
    let sgis = || bank(0).read32(register::ICFGR) & 0xaaaa_aaaa;
    check_eq!(sgis(), 0xaaaa_aaaa, "edge bits of the SGIs");
    bank(0).write32(register::ICFGR, 0);
    check_eq!(sgis(), 0xaaaa_aaaa, "edge bits of the SGIs after a write");
    Ok(())
}

fn group() -> Outcome {
    let (first, second) = two_spis()?;
    let at = register::IGROUPR + first as usize / 32 * 4;
    let both = bit(first) | bit(second);
    for groups in [bit(first), bit(second), 0, both] {
        distributor().write32(at, groups);
        check_eq!(distributor().read32(at) & both, groups, "groups of the two interrupts");
    }
    Ok(())
}

fn targets() -> Outcome {
    needs_gic(Version::V2)?;
    needs_cpus(2)?;
    let (first, second) = two_spis()?;
    let target = |intid: u32| distributor().read8(register::ITARGETSR + intid as usize);
    gic::route(first, 1);
    check_eq!((target(first), target(second)), (2, 1), "targets after routing the first to CPU 1");
    distributor().write8(register::ITARGETSR + first as usize, 3);
    check_eq!(target(first), 3, "targets of two CPUs");
    on_every_cpu(|| {
        // Private interrupts have their own CPU as the target, read-only: this is how a driver learns its number.
        let own = 0x0101_0101 << (cpu::affinity() & 7);
        for at in [0, 4, 12] {
            check_eq!(
                distributor().read32(register::ITARGETSR + at),
                own,
                "ITARGETSR word at {at} on its own CPU"
            );
        }
        Ok(())
    })
}

fn router() -> Outcome {
    needs_gic(Version::V3)?;
    let (first, _) = two_spis()?;
    let at = register::IROUTER + 8 * first as usize;
    for affinity in machine().cpus() {
        distributor().write64(at, *affinity);
        check_eq!(distributor().read64(at), *affinity, "IROUTER of INTID {first}");
        let halves = [0, 4].map(|half| u64::from(distributor().read32(at + half)));
        check_eq!(halves[0] | halves[1] << 32, *affinity, "IROUTER by words");
    }
    distributor().write32(at, machine().cpus()[0] as u32);
    distributor().write32(at + 4, 0);
    check_eq!(distributor().read64(at), machine().cpus()[0], "IROUTER written by words");
    Ok(())
}

fn reserved() -> Outcome {
    // Read as zero, ignore writes; nothing faults.
    let offsets: &[usize] = match gic::version() {
        Version::V2 => &[0x00c, 0x03c, 0xd7c, 0xf04, 0xf40],
        // Under affinity routing the private words, the targets and SGIR are reserved, too.
        Version::V3 => &[0x00c, 0x03c, 0x080, 0x100, 0x200, 0x400, 0x820, 0xf00, 0xf10, 0x6000, 0x60f8],
    };
    for offset in offsets {
        check_eq!(distributor().read32(*offset), 0, "reserved word at {offset:#x}");
        distributor().write32(*offset, u32::MAX);
        check_eq!(distributor().read32(*offset), 0, "reserved word at {offset:#x} after a write");
    }
    check_eq!(gic::acknowledge(), None, "acknowledge after all that");
    Ok(())
}

fn redistributors() -> Outcome {
    const TYPER: usize = 0x008;
    const LAST: u64 = 1 << 4;
    needs_gic(Version::V3)?;
    let count = machine().cpus().len();
    let mut lasts = 0;
    for (cpu, affinity) in machine().cpus().iter().enumerate() {
        let Some(frame) = gic::redistributor(cpu) else {
            check!(false, "a redistributor for CPU {cpu}");
            continue;
        };
        let typer = frame.read64(TYPER);
        let found = typer >> 32 & 0xff_ffff | (typer >> 56) << 32;
        check_eq!(found, *affinity, "affinity in GICR_TYPER of CPU {cpu}");
        let halves = [0, 4].map(|half| u64::from(frame.read32(TYPER + half)));
        check_eq!(halves[0] | halves[1] << 32, typer, "GICR_TYPER by words");
        check_eq!(typer >> 8 & 0xffff, cpu as u64, "processor number in GICR_TYPER of CPU {cpu}");
        lasts += u64::from(typer & LAST != 0);
    }
    check_eq!(lasts, 1, "redistributors among {count} that say they are the last");
    Ok(())
}

fn cpu_interface() -> Outcome {
    on_every_cpu(|| {
        check!(gic::running_priority() >= 0xf8, "idle priority, got {:#x}", gic::running_priority());
        for mask in [0x00, 0x50, 0xf0] {
            gic::set_priority_mask(mask);
            check_eq!(gic::priority_mask() & 0xf0, mask, "priority mask");
        }
        gic::set_priority_mask(gic::MASK_NONE);
        check!(gic::highest_pending() >= 1020, "nothing pending, got {}", gic::highest_pending());
        let Some(gicc) = gic::cpu_interface() else { return Ok(()) };
        check_eq!(gicc.read32(cpu_register::IIDR) >> 16 & 0xf, 2, "architecture version in GICC_IIDR");
        check_eq!(gicc.read32(cpu_register::CTLR) & 1, 1, "GICC_CTLR.EnableGrp0");
        Ok(())
    })
}
