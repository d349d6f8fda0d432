//! `vms`: which VMs there are, and how they are.

use core::fmt::{self, Display};

use abi::record::{VmRecord, state};

use crate::host::{Host, Stop, for_each_vcpu, for_each_vm};
use crate::text::{Name, Size, name, number, short};

/// A VM's numbers of its physical CPUs, as long as eight vCPUs need it where CPUs have two digits.
type Cpus = arrayvec::ArrayString<24>;
type Share = arrayvec::ArrayString<32>;

/// The widths of the columns that have no fixed one.
#[derive(Clone, Copy)]
struct Widths {
    name: usize,
    cpus: usize,
    share: usize,
}

/// Prints the table. `own` is the number of this VM, where it is known.
pub(crate) fn print(host: &mut impl Host, own: Option<u32>) -> Result<(), Stop> {
    let mut widths = Widths { name: "name".len(), cpus: "cpus".len(), share: "share".len() };
    for_each_vm(host, |host, vm, record| {
        widths.name = widths.name.max(name(record).len());
        widths.cpus = widths.cpus.max(cpus(host, vm, record)?.len());
        widths.share = widths.share.max(share(record).len());
        Ok(())
    })?;
    let Widths { name: n, cpus: c, share: s } = widths;
    writeln!(
        host,
        "  nr {:n$} {:8} {:c$} {:s$} {:>6} {:>6} {:>6} {:>7} {:>6}",
        "name", "state", "cpus", "share", "ram", "held", "starts", "crashes", "denied"
    )?;
    for_each_vm(host, |host, vm, record| {
        let own = if own == Some(vm) { '*' } else { ' ' };
        let cpus = cpus(host, vm, record)?;
        writeln!(
            host,
            "{own} {:2} {:n$} {:8} {cpus:c$} {:s$} {:>6} {:>6} {:>6} {:>7} {:>6}",
            number(vm),
            name(record),
            state::name(record.state),
            share(record),
            Size(record.memory),
            Size(record.held),
            record.starts,
            record.crashes,
            record.denied,
        )?;
        Ok(())
    })
}

/// The physical CPUs of its vCPUs, in the order of these.
fn cpus(host: &mut impl Host, vm: u32, record: &VmRecord) -> Result<Cpus, Stop> {
    let mut cpus = Cpus::new();
    for_each_vcpu(host, vm, record, |_, vcpu, record| {
        let comma = if vcpu == 0 { "" } else { "," };
        let more = short::<8>(format_args!("{comma}{}", record.cpu));
        // Eight of them have room.
        let _ = cpus.try_push_str(&more);
    })?;
    Ok(cpus)
}

/// How its vCPUs come by their time.
fn share(record: &VmRecord) -> Share {
    let us = |ticks| Microseconds { ticks, frequency: record.frequency };
    match record.sharing {
        0 => short("pinned"),
        1 => short(format_args!("weight {}", record.share)),
        2 => short(format_args!("{}/{} us", us(record.share), us(record.period))),
        other => short(format_args!("? ({other})")),
    }
}

struct Microseconds {
    ticks: u64,
    frequency: u64,
}

impl Display for Microseconds {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let us = u128::from(self.ticks) * 1_000_000;
        let frequency = u128::from(self.frequency.max(1));
        // To the nearest one: ticks that stand for whole microseconds needn't be whole themselves.
        write!(f, "{}", (us + frequency / 2) / frequency)
    }
}

/// The VM that `operand` names: by its name, or else by its number.
pub(crate) fn find(host: &mut impl Host, operand: &str) -> Result<Option<(u32, Name)>, Stop> {
    let mut found = None;
    let searched = for_each_vm(host, |_, vm, record| {
        let name = name(record);
        if found.is_none() && name.as_str() == operand {
            found = Some((vm, name));
        }
        Ok(())
    });
    let by_number = || operand.parse().ok().and_then(|number: u32| number.checked_sub(1));
    match (found, by_number()) {
        (Some(found), _) => Ok(Some(found)),
        // Who may not see names may still say numbers.
        (None, Some(vm)) => {
            Ok(Some((vm, vm_name(host, vm).unwrap_or_else(|| short(format_args!("VM {}", number(vm)))))))
        }
        (None, None) => searched.map(|()| None),
    }
}

fn vm_name(host: &mut impl Host, vm: u32) -> Option<Name> {
    host.vm(vm).ok().map(|record| name(&record))
}
