//! One VM's node: its properties collected, then read and checked one by one.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use abi::hanok::right;
use dtoolkit::fdt::FdtNode;
use dtoolkit::{Node, Property};

use super::devices;
use super::value::{first_string, has_string, read_cells, read_string, read_strings, read_u32, read_u64};
use super::{
    CHANNEL_COMPATIBLE, DEFAULT_MEMORY, MAX_BOOTARGS, MAX_CPUS, MAX_PERIOD, MAX_RESTART_LIMIT, MAX_WEIGHT,
    MEMORY_UNIT, MIN_BUDGET, MIN_PERIOD, ManifestError, Payload, RESTART_DELAY, RESTART_LIMIT, Reason,
    Sharing, VM_COMPATIBLE, VmConfig, no_unit_address,
};
use vmm::layout::{Ipa, VIRT};
use vmm::life::{LONGEST_DELAY_MS, LONGEST_TIMEOUT, OnCrash};

/// The properties that a VM's node may have, for the message about one that it may not.
pub(super) const KNOWN: &str = "compatible, cpus, cpu-affinity, weight, budget, period, memory, bootargs, kernel, initrd, elf, binary, load-address, entry-address, firmware, firmware-variables, start, on-crash, restart-limit, restart-delay, watchdog, rights, layout, passthrough, allow-unprotected-dma, allow-pin-control, clock-rates, memory-address";

/// What a node is called in messages.
const WHAT: &str = "a VM";

/// Bytes in the unit in which `memory` counts.
const KIB: u64 = 1024;

/// The raw values of a VM's properties.
#[derive(Default)]
pub(super) struct Properties<'a> {
    compatible: Option<&'a [u8]>,
    cpus: Option<&'a [u8]>,
    cpu_affinity: Option<&'a [u8]>,
    weight: Option<&'a [u8]>,
    budget: Option<&'a [u8]>,
    period: Option<&'a [u8]>,
    memory: Option<&'a [u8]>,
    bootargs: Option<&'a [u8]>,
    kernel: Option<&'a [u8]>,
    initrd: Option<&'a [u8]>,
    elf: Option<&'a [u8]>,
    binary: Option<&'a [u8]>,
    load_address: Option<&'a [u8]>,
    entry_address: Option<&'a [u8]>,
    pub(super) firmware: Option<&'a [u8]>,
    firmware_variables: Option<&'a [u8]>,
    start: Option<&'a [u8]>,
    on_crash: Option<&'a [u8]>,
    restart_limit: Option<&'a [u8]>,
    restart_delay: Option<&'a [u8]>,
    watchdog: Option<&'a [u8]>,
    rights: Option<&'a [u8]>,
    pub(super) layout: Option<&'a [u8]>,
    pub(super) memory_address: Option<&'a [u8]>,
    pub(super) passthrough: Option<&'a [u8]>,
    pub(super) allow_unprotected_dma: Option<&'a [u8]>,
    pub(super) allow_pin_control: Option<&'a [u8]>,
    pub(super) clock_rates: Option<&'a [u8]>,
}

impl<'a> Properties<'a> {
    /// The place for the property called `name`.
    fn slot(&mut self, name: &str) -> Option<&mut Option<&'a [u8]>> {
        Some(match name {
            "compatible" => &mut self.compatible,
            "cpus" => &mut self.cpus,
            "cpu-affinity" => &mut self.cpu_affinity,
            "weight" => &mut self.weight,
            "budget" => &mut self.budget,
            "period" => &mut self.period,
            "memory" => &mut self.memory,
            "bootargs" => &mut self.bootargs,
            "kernel" => &mut self.kernel,
            "initrd" => &mut self.initrd,
            "elf" => &mut self.elf,
            "binary" => &mut self.binary,
            "load-address" => &mut self.load_address,
            "entry-address" => &mut self.entry_address,
            "firmware" => &mut self.firmware,
            "firmware-variables" => &mut self.firmware_variables,
            "start" => &mut self.start,
            "on-crash" => &mut self.on_crash,
            "restart-limit" => &mut self.restart_limit,
            "restart-delay" => &mut self.restart_delay,
            "watchdog" => &mut self.watchdog,
            "rights" => &mut self.rights,
            "layout" => &mut self.layout,
            "memory-address" => &mut self.memory_address,
            "passthrough" => &mut self.passthrough,
            "allow-unprotected-dma" => &mut self.allow_unprotected_dma,
            "allow-pin-control" => &mut self.allow_pin_control,
            "clock-rates" => &mut self.clock_rates,
            _ => return None,
        })
    }
}

/// Whether a property belongs to the tree itself and says nothing of the VM: dtc adds a phandle to every node that a reference
/// names.
pub(super) fn is_structural(name: &str) -> bool {
    matches!(name, "phandle" | "linux,phandle" | "#address-cells" | "#size-cells")
}

/// What is wrong, and with which property if it is about one.
pub(super) type Wrong = (Option<String>, Reason);

/// Marks an error as being about a property.
pub(super) fn of(property: &'static str) -> impl Fn(Reason) -> Wrong {
    move |reason| (Some(property.to_owned()), reason)
}

/// Reads a node of the root's, which is called `what` in messages: by `read`, which is given its name too. Nodes in it mean nothing.
pub(super) fn parse_node<'a, T>(
    node: &FdtNode<'a>,
    what: &'static str,
    read: impl FnOnce(&'a str, &FdtNode<'a>) -> Result<T, Wrong>,
) -> Result<T, ManifestError> {
    let name = node.name();
    let config = read(name, node).map_err(|(property, reason)| ManifestError {
        node: format!("/{name}"),
        property,
        reason,
    })?;
    match node.children().next() {
        Some(child) => Err(ManifestError {
            node: format!("/{name}/{}", child.name()),
            property: None,
            reason: Reason::UnknownNode { parent: what },
        }),
        None => Ok(config),
    }
}

/// Reads a VM's node.
pub(super) fn parse<'a>(node: &FdtNode<'a>) -> Result<VmConfig<'a>, ManifestError> {
    parse_node(node, WHAT, read)
}

fn read<'a>(name: &'a str, node: &FdtNode<'a>) -> Result<VmConfig<'a>, Wrong> {
    check_compatible(node)?;
    no_unit_address(name, WHAT).map_err(|reason| (None, reason))?;
    let properties = collect(node)?;
    let cpus = cpus(&properties)?;
    let sharing = sharing(&properties)?;
    Ok(VmConfig {
        name,
        cpus,
        memory: memory(&properties)?,
        cpu_affinity: cpu_affinity(&properties, cpus, sharing)?,
        sharing,
        bootargs: bootargs(&properties)?,
        payload: payload(&properties)?,
        starts: starts(&properties)?,
        on_crash: on_crash(&properties)?,
        watchdog: watchdog(&properties)?,
        rights: rights(&properties)?,
        layout: devices::layout(&properties)?,
        memory_address: devices::memory_address(&properties)?,
        devices: devices::devices(&properties)?,
    })
}

/// Comes before everything else: without it the node isn't meant to be a VM, and its other properties mean nothing.
fn check_compatible(node: &FdtNode<'_>) -> Result<(), Wrong> {
    compatible_is(node, &[VM_COMPATIBLE, CHANNEL_COMPATIBLE]).map_err(of("compatible"))
}

/// Checks that `compatible` of a node names one of those in `wanted`.
pub(super) fn compatible_is(node: &FdtNode<'_>, wanted: &'static [&'static str]) -> Result<(), Reason> {
    let Some(property) = node.property("compatible") else {
        return Err(Reason::NotCompatible { wanted });
    };
    if !property.value().ends_with(&[0]) {
        return Err(Reason::NotAString);
    }
    if !wanted.iter().any(|wanted| has_string(property.value(), wanted)) {
        return Err(Reason::Incompatible { found: first_string(property.value()), wanted });
    }
    Ok(())
}

fn collect<'a>(node: &FdtNode<'a>) -> Result<Properties<'a>, Wrong> {
    let mut properties = Properties::default();
    for property in node.properties() {
        let name = property.name();
        if is_structural(name) {
            continue;
        }
        let wrong = |reason| (Some(name.to_owned()), reason);
        let slot = properties.slot(name).ok_or_else(|| wrong(Reason::UnknownProperty { known: KNOWN }))?;
        // The conversion of a value to bytes can't fail.
        let value = property.value_as::<&'a [u8]>().map_err(|_| wrong(Reason::Empty))?;
        if slot.replace(value).is_some() {
            return Err(wrong(Reason::Twice));
        }
    }
    Ok(properties)
}

fn cpus(properties: &Properties<'_>) -> Result<u32, Wrong> {
    let Some(value) = properties.cpus else { return Ok(1) };
    number("cpus", value, 1, MAX_CPUS, "")
}

fn memory(properties: &Properties<'_>) -> Result<u64, Wrong> {
    let Some(value) = properties.memory else { return Ok(DEFAULT_MEMORY) };
    memory_size(value).map_err(of("memory"))
}

fn memory_size(value: &[u8]) -> Result<u64, Reason> {
    let kib = read_u64(value)?;
    let unit = MEMORY_UNIT / KIB;
    in_range(kib, unit, VIRT.ram.size / KIB, " KiB")?;
    if !kib.is_multiple_of(unit) {
        return Err(Reason::NotMultiple { value: kib, of: unit, unit: " KiB" });
    }
    // Can't saturate: the range was checked.
    Ok(kib.saturating_mul(KIB))
}

/// Checks that a number is from `least` to `most`.
pub(super) fn in_range(value: u64, least: u64, most: u64, unit: &'static str) -> Result<(), Reason> {
    if value < least {
        return Err(Reason::Below { value, least, unit });
    }
    if value > most {
        return Err(Reason::Above { value, most, unit });
    }
    Ok(())
}

/// Pinned, unless there is a weight or a reservation.
fn sharing(properties: &Properties<'_>) -> Result<Sharing, Wrong> {
    let Some(weight) = properties.weight else { return reservation(properties) };
    for (first, value) in [("budget", properties.budget), ("period", properties.period)] {
        if value.is_some() {
            return Err(of("weight")(Reason::SecondSharing { first }));
        }
    }
    Ok(Sharing::Weight(number("weight", weight, 1, MAX_WEIGHT, "")?))
}

fn reservation(properties: &Properties<'_>) -> Result<Sharing, Wrong> {
    let (budget, period) = match (properties.budget, properties.period) {
        (None, None) => return Ok(Sharing::Pinned),
        (Some(_), None) => return Err(of("period")(Reason::Needed { by: "budget" })),
        (None, Some(_)) => return Err(of("budget")(Reason::Needed { by: "period" })),
        (Some(budget), Some(period)) => (budget, period),
    };
    let period = number("period", period, MIN_PERIOD, MAX_PERIOD, " us")?;
    let budget = number("budget", budget, MIN_BUDGET, u32::MAX, " us")?;
    if budget > period {
        return Err(of("budget")(Reason::OverPeriod { budget, period }));
    }
    Ok(Sharing::Reserved { budget, period })
}

/// One cell, from `least` to `most`.
fn number(
    property: &'static str,
    value: &[u8],
    least: u32,
    most: u32,
    unit: &'static str,
) -> Result<u32, Wrong> {
    let number = read_u32(value).map_err(of(property))?;
    in_range(number.into(), least.into(), most.into(), unit).map_err(of(property))?;
    Ok(number)
}

fn cpu_affinity(properties: &Properties<'_>, cpus: u32, sharing: Sharing) -> Result<Option<Vec<u32>>, Wrong> {
    let Some(value) = properties.cpu_affinity else { return Ok(None) };
    let list = read_cells(value).map_err(of("cpu-affinity"))?;
    let checked = match sharing {
        Sharing::Pinned => one_for_each(&list, cpus),
        Sharing::Weight(_) | Sharing::Reserved { .. } => some_once(&list),
    };
    checked.map_err(of("cpu-affinity"))?;
    Ok(Some(list))
}

fn one_for_each(list: &[u32], cpus: u32) -> Result<(), Reason> {
    match u32::try_from(list.len()) {
        Ok(listed) if listed == cpus => Ok(()),
        _ => Err(Reason::AffinityCount { listed: list.len(), cpus }),
    }
}

fn some_once(list: &[u32]) -> Result<(), Reason> {
    if list.is_empty() {
        return Err(Reason::Empty);
    }
    let is_repeated = |(index, cpu): &(usize, &u32)| list.iter().take(*index).any(|before| before == *cpu);
    match list.iter().enumerate().find(is_repeated) {
        Some((_, &cpu)) => Err(Reason::CpuTwice { cpu }),
        None => Ok(()),
    }
}

/// Whether it starts with the board.
fn starts(properties: &Properties<'_>) -> Result<bool, Wrong> {
    let Some(value) = properties.start else { return Ok(true) };
    Ok(one_of("start", value, "auto, manual")? == "auto")
}

fn on_crash(properties: &Properties<'_>) -> Result<OnCrash, Wrong> {
    let policy = match properties.on_crash {
        Some(value) => one_of("on-crash", value, "stop, preserve, restart")?,
        None => "stop",
    };
    if policy == "restart" {
        let number = |property, value: Option<&[u8]>, default, most, unit| match value {
            Some(value) => number(property, value, 1, most, unit),
            None => Ok(default),
        };
        let limit = number("restart-limit", properties.restart_limit, RESTART_LIMIT, MAX_RESTART_LIMIT, "")?;
        let delay =
            number("restart-delay", properties.restart_delay, RESTART_DELAY, LONGEST_DELAY_MS, " ms")?;
        return Ok(OnCrash::Restart { limit, delay });
    }
    for (name, value) in
        [("restart-limit", properties.restart_limit), ("restart-delay", properties.restart_delay)]
    {
        if value.is_some() {
            return Err(of(name)(Reason::Without { other: "on-crash = \"restart\"" }));
        }
    }
    Ok(if policy == "stop" { OnCrash::Stop } else { OnCrash::Preserve })
}

fn watchdog(properties: &Properties<'_>) -> Result<Option<u32>, Wrong> {
    properties.watchdog.map(|value| number("watchdog", value, 1, LONGEST_TIMEOUT, " s")).transpose()
}

/// Bits of [`right`].
fn rights(properties: &Properties<'_>) -> Result<u32, Wrong> {
    let Some(value) = properties.rights else { return Ok(0) };
    let mut rights = 0;
    for name in read_strings(value).map_err(of("rights"))? {
        rights |= match name {
            "control" => right::CONTROL,
            "statistics" => right::STATISTICS,
            "console" => right::CONSOLE,
            _ => {
                let known = "control, statistics, console";
                return Err(of("rights")(Reason::NotOneOf { found: name.to_owned(), known }));
            }
        };
    }
    Ok(rights)
}

/// Whether a property is there, whose value is nothing.
pub(super) fn is_set(property: &'static str, value: Option<&[u8]>) -> Result<bool, Wrong> {
    match value {
        None => Ok(false),
        Some([]) => Ok(true),
        Some(value) => {
            let wanted = "nothing: it is there, or it isn't";
            Err(of(property)(Reason::Length { bytes: value.len(), wanted }))
        }
    }
}

/// A string that is one of those that `known` lists, with ", " between.
pub(super) fn one_of(
    property: &'static str,
    value: &[u8],
    known: &'static str,
) -> Result<&'static str, Wrong> {
    let text = read_string(value).map_err(of(property))?;
    let found = known.split(", ").find(|name| *name == text);
    found.ok_or_else(|| of(property)(Reason::NotOneOf { found: text.to_owned(), known }))
}

fn bootargs<'a>(properties: &Properties<'a>) -> Result<Option<&'a str>, Wrong> {
    let Some(value) = properties.bootargs else { return Ok(None) };
    let text = read_string(value).map_err(of("bootargs"))?;
    if text.len() > MAX_BOOTARGS {
        return Err(of("bootargs")(Reason::TooLong { bytes: text.len(), most: MAX_BOOTARGS }));
    }
    Ok(Some(text))
}

/// The one payload, with what goes with it and nothing that goes with another.
fn payload<'a>(properties: &Properties<'a>) -> Result<Payload<'a>, Wrong> {
    let kinds = [
        ("kernel", properties.kernel),
        ("elf", properties.elf),
        ("binary", properties.binary),
        ("firmware", properties.firmware),
    ];
    let mut given = kinds.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let (kind, bytes) = given.next().ok_or((None, Reason::NoPayload))?;
    if let Some((second, _)) = given.next() {
        return Err(of(second)(Reason::SecondPayload { first: kind }));
    }
    let companions = [
        ("initrd", properties.initrd, "kernel"),
        ("load-address", properties.load_address, "binary"),
        ("entry-address", properties.entry_address, "binary"),
        ("firmware-variables", properties.firmware_variables, "firmware"),
    ];
    for (name, value, other) in companions {
        if value.is_some() && kind != other {
            return Err(of(name)(Reason::Without { other }));
        }
    }
    let bytes = not_empty(kind, bytes)?;
    match kind {
        "kernel" => {
            let initrd = properties.initrd.map(|bytes| not_empty("initrd", bytes)).transpose()?;
            Ok(Payload::Linux { image: bytes, initrd })
        }
        "elf" => Ok(Payload::Elf(bytes)),
        "firmware" => Ok(Payload::Firmware { image: bytes, variables: properties.firmware_variables }),
        _ => binary(properties, bytes),
    }
}

fn binary<'a>(properties: &Properties<'a>, bytes: &'a [u8]) -> Result<Payload<'a>, Wrong> {
    let load = properties.load_address.ok_or_else(|| of("load-address")(Reason::Needed { by: "binary" }))?;
    let load = read_u64(load).map_err(of("load-address"))?;
    let entry = match properties.entry_address {
        Some(value) => read_u64(value).map_err(of("entry-address"))?,
        None => load,
    };
    Ok(Payload::Binary { bytes, load_address: Ipa::new(load), entry: Ipa::new(entry) })
}

fn not_empty<'a>(property: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], Wrong> {
    if bytes.is_empty() { Err(of(property)(Reason::Empty)) } else { Ok(bytes) }
}
