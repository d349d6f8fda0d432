//! Performance monitors, on every CPU.

use runtime::machine::Conduit;
use runtime::pmu::{self, CYCLES, EL2_TOO, INST_RETIRED, NOT_EL1, SW_INCR};
use runtime::{cpu, gic, machine, timer};

use crate::framework::{Outcome, Stop, check, check_eq, expect_soon, is_hanok, on_every_cpu, tests};
use crate::recorder;

tests! {
    "pmu.counters" => counters,
    "pmu.cycles" => cycles,
    "pmu.increments" => increments,
    "pmu.filter" => filter,
    "pmu.no-filter-for-el2" => no_filter_for_el2,
    "pmu.calls-not-counted" => calls_not_counted,
    "pmu.selection" => selection,
    "pmu.overflow" => overflow,
    "pmu.interrupt" => interrupt,
    "pmu.interrupt-by-register" => interrupt_by_register,
    "pmu.off-after-start" => off_after_start,
}

/// The first event counter's bit.
const COUNTER_0: u64 = 1;

fn with_counters(body: fn() -> Outcome) -> Outcome {
    if !pmu::is_there() {
        return Err(Stop::Skipped("not shown by this CPU"));
    }
    on_every_cpu(body)
}

/// Counter 0 counts what [`pmu::increment`] does, with these filters.
fn count_increments(filters: u64) {
    pmu::reset();
    pmu::set_type_0(SW_INCR | filters);
    pmu::enable(COUNTER_0);
}

fn counters() -> Outcome {
    with_counters(|| {
        let count = pmu::counters();
        check!((1..=31).contains(&count), "PMCR_EL0.N of 1 to 31, got {count}");
        pmu::reset();
        for set in [COUNTER_0, CYCLES, COUNTER_0 | CYCLES] {
            pmu::enable(set);
            check_eq!(pmu::enabled(), set, "PMCNTENSET_EL0");
            pmu::disable(set);
            check_eq!(pmu::enabled_too(), 0, "PMCNTENCLR_EL0");
        }
        pmu::stop();
        Ok(())
    })
}

fn cycles() -> Outcome {
    with_counters(|| {
        pmu::reset();
        pmu::enable(CYCLES);
        let first = pmu::cycles();
        expect_soon(|| pmu::cycles() > first, format_args!("PMCCNTR_EL0 should advance"))?;
        pmu::disable(CYCLES);
        let stopped = pmu::cycles();
        timer::wait_until(1, || false);
        check_eq!(pmu::cycles(), stopped, "PMCCNTR_EL0 while it is off");
        pmu::set_cycles(0x1234_5678_9abc);
        check_eq!(pmu::cycles(), 0x1234_5678_9abc, "PMCCNTR_EL0, written");
        pmu::stop();
        Ok(())
    })
}

fn increments() -> Outcome {
    with_counters(|| {
        count_increments(0);
        pmu::increment(COUNTER_0, 5);
        check_eq!(pmu::counter_0(), 5, "writes to PMSWINC_EL0");
        pmu::disable(COUNTER_0);
        pmu::increment(COUNTER_0, 5);
        check_eq!(pmu::counter_0(), 5, "writes while the counter is off");
        pmu::enable(COUNTER_0);
        pmu::increment(!COUNTER_0, 5);
        check_eq!(pmu::counter_0(), 5, "writes for other counters");
        pmu::stop();
        Ok(())
    })
}

fn filter() -> Outcome {
    with_counters(|| {
        count_increments(NOT_EL1);
        pmu::increment(COUNTER_0, 5);
        check_eq!(pmu::counter_0(), 0, "what EL1 does, with P set");
        pmu::stop();
        Ok(())
    })
}

/// Where there is no EL2, the bit that has it counted is RES0 (Arm ARM, `PMEVTYPER<n>_EL0`.NSH). A CPU that leaves EL2 out by itself
/// may hold it.
fn no_filter_for_el2() -> Outcome {
    if !is_hanok() {
        return Err(Stop::Skipped("holds under Hanok only"));
    }
    with_counters(|| {
        const PMUV3P5: u64 = 6;
        let version =
            runtime::sysreg::read(runtime::sysreg::SysReg::new(3, 0, 0, 5, 0)).unwrap_or(0) >> 8 & 0xf;
        if version >= PMUV3P5 {
            return Err(Stop::Skipped("this CPU leaves EL2 out by itself"));
        }
        count_increments(EL2_TOO);
        check_eq!(pmu::type_0() & EL2_TOO, 0, "PMEVTYPER0_EL0.NSH");
        pmu::stop();
        Ok(())
    })
}

/// What a hypervisor executes for the guest isn't counted, even where the guest asks for it. `counted` in the command line: here an
/// instruction takes a cycle.
fn calls_not_counted() -> Outcome {
    const CALLS: u64 = 1000;
    if machine().conduit != Conduit::Hvc {
        return Err(Stop::Skipped("needs PSCI by HVC"));
    }
    with_counters(|| {
        if !pmu::counts(INST_RETIRED) {
            return Err(Stop::Skipped("this CPU doesn't count instructions"));
        }
        pmu::reset();
        pmu::set_type_0(INST_RETIRED | EL2_TOO);
        pmu::set_cycle_filter(EL2_TOO);
        pmu::enable(COUNTER_0 | CYCLES);
        let before = [pmu::counter_0(), pmu::cycles()];
        pmu::call_by_hvc(CALLS);
        let [instructions, cycles] = [pmu::counter_0() - before[0], pmu::cycles() - before[1]];
        pmu::set_cycle_filter(0);
        pmu::stop();
        // And some for the readings.
        let expected = CALLS * pmu::CALL..CALLS * (pmu::CALL + 1);
        check!(
            expected.contains(&instructions),
            "{expected:?} instructions for {CALLS} calls, got {instructions}"
        );
        if machine().argument("counted").is_some() {
            check!(expected.contains(&cycles), "{expected:?} cycles for {CALLS} calls, got {cycles}");
        }
        Ok(())
    })
}

fn selection() -> Outcome {
    with_counters(|| {
        if pmu::counters() < 2 {
            return Err(Stop::Skipped("needs two counters"));
        }
        pmu::reset();
        pmu::set_counter_0(0x100);
        pmu::set_counter_1(0x101);
        for n in [1, 0] {
            pmu::select(n);
            check_eq!(pmu::selection(), n, "PMSELR_EL0");
            check_eq!(pmu::selected_counter(), 0x100 + n, "PMXEVCNTR_EL0");
        }
        pmu::set_selected_counter(0x200);
        check_eq!((pmu::counter_0(), pmu::counter_1()), (0x200, 0x101), "counters, the first one written");
        check_eq!(pmu::selection(), 0, "PMSELR_EL0 behind accesses by number");
        pmu::stop();
        Ok(())
    })
}

fn overflow() -> Outcome {
    with_counters(|| {
        count_increments(0);
        pmu::set_counter_0(0xffff_fffe);
        pmu::increment(COUNTER_0, 1);
        check_eq!(pmu::overflows(), 0, "overflows before there is one");
        pmu::increment(COUNTER_0, 1);
        check_eq!(pmu::overflows(), COUNTER_0, "PMOVSCLR_EL0 behind an overflow");
        // With PMUv3p5 it has 64 bits, of which 32 overflow while PMCR_EL0.LP is clear.
        check_eq!(pmu::counter_0() & 0xffff_ffff, 0, "the counter behind it");
        pmu::clear_overflows(COUNTER_0);
        check_eq!(pmu::overflows(), 0, "PMOVSCLR_EL0, cleared");
        pmu::stop();
        Ok(())
    })
}

/// The overflow's interrupt comes, and once its cause is gone, for the next one again.
fn interrupt() -> Outcome {
    if machine().counters.is_none() {
        return Err(Stop::Skipped("the tree has no interrupt of counters"));
    }
    with_counters(|| {
        let intid = machine().counters.unwrap_or(0);
        recorder::set_hook(|intid| {
            if Some(intid) == machine().counters {
                pmu::clear_overflows(u64::MAX);
            }
        });
        gic::enable(intid);
        cpu::unmask_irqs();
        let me = cpu::index();
        let before = recorder::count(me);
        for round in 1..=3 {
            count_increments(0);
            pmu::enable_interrupts(COUNTER_0);
            pmu::set_counter_0(0xffff_ffff);
            pmu::increment(COUNTER_0, 1);
            expect_soon(
                || recorder::count(me) == before + round,
                format_args!("interrupt {round} should come"),
            )?;
        }
        cpu::mask_irqs();
        gic::disable(intid);
        pmu::stop();
        check!(recorder::intids(me).iter().all(|other| *other == intid), "no other interrupt");
        Ok(())
    })
}

/// Made pending by register, the interrupt comes once each time; while it is disabled, it waits.
fn interrupt_by_register() -> Outcome {
    if machine().counters.is_none() {
        return Err(Stop::Skipped("the tree has no interrupt of counters"));
    }
    on_every_cpu(|| {
        let intid = machine().counters.unwrap_or(0);
        let me = cpu::index();
        let before = recorder::count(me);
        cpu::unmask_irqs();
        for round in 1..=3 {
            gic::set_pending(intid);
            check!(gic::is_pending(intid), "round {round}: GICD_ISPENDR while it is disabled");
            check_eq!(recorder::count(me), before + round - 1, "interrupts while it is disabled");
            gic::enable(intid);
            expect_soon(
                || recorder::count(me) == before + round,
                format_args!("interrupt {round} should come"),
            )?;
            check!(!gic::is_pending(intid) && !gic::is_active(intid), "round {round}: it is over");
            gic::disable(intid);
        }
        gic::set_pending(intid);
        gic::clear_pending(intid);
        gic::enable(intid);
        cpu::mask_irqs();
        gic::disable(intid);
        check_eq!(recorder::count(me), before + 3, "interrupts, with one that was taken back");
        check!(recorder::intids(me).iter().all(|other| *other == intid), "no other interrupt");
        Ok(())
    })
}

/// A CPU that starts counts nothing of what was counted before.
fn off_after_start() -> Outcome {
    for round in 0..2 {
        with_counters(|| {
            check_eq!(pmu::control() & 1, 0, "PMCR_EL0.E");
            check_eq!(pmu::for_users(), 0, "PMUSERENR_EL0");
            Ok(())
        })?;
        if round == 0 {
            with_counters(|| {
                count_increments(0);
                // Left on, but for the CPU that runs the cases.
                if cpu::index() == 0 {
                    pmu::stop();
                }
                Ok(())
            })?;
        }
    }
    Ok(())
}
