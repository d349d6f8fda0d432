//! What a manifest says of the board's devices that a VM is given.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;

use super::value::{read_cells, read_strings, read_u64};
use super::vm::{Properties, Wrong, is_set, of, one_of};
use super::{DeviceConfig, LayoutKind, MEMORY_UNIT, Reason};

/// The least rate of a clock, in Hz.
const LEAST_RATE: u32 = 1;

/// Whether the VM's addresses are those of QEMU's `virt` or of the board, where firmware has no flash.
pub(super) fn layout(properties: &Properties<'_>) -> Result<LayoutKind, Wrong> {
    let Some(value) = properties.layout else { return Ok(LayoutKind::Virt) };
    match one_of("layout", value, "virt, board")? {
        "board" if properties.firmware.is_some() => {
            Err(of("layout")(Reason::NotWith { other: "firmware", why: "it starts in flash, at 0" }))
        }
        "board" => Ok(LayoutKind::Board),
        _ => Ok(LayoutKind::Virt),
    }
}

/// Where the VM's RAM is, if it has the board's addresses.
pub(super) fn memory_address(properties: &Properties<'_>) -> Result<Option<u64>, Wrong> {
    let Some(value) = properties.memory_address else { return Ok(None) };
    if layout(properties)? != LayoutKind::Board {
        return Err(of("memory-address")(Reason::Without { other: "layout = \"board\"" }));
    }
    let address = read_u64(value).map_err(of("memory-address"))?;
    if !address.is_multiple_of(MEMORY_UNIT) {
        return Err(of("memory-address")(Reason::NotMultiple { value: address, of: MEMORY_UNIT, unit: "" }));
    }
    Ok(Some(address))
}

/// The devices that the VM is given.
pub(super) fn devices<'a>(properties: &Properties<'a>) -> Result<DeviceConfig<'a>, Wrong> {
    let unprotected_dma = is_set("allow-unprotected-dma", properties.allow_unprotected_dma)?;
    let pin_control = is_set("allow-pin-control", properties.allow_pin_control)?;
    let Some(value) = properties.passthrough else {
        for (name, value) in [
            ("allow-unprotected-dma", properties.allow_unprotected_dma),
            ("allow-pin-control", properties.allow_pin_control),
            ("clock-rates", properties.clock_rates),
        ] {
            if value.is_some() {
                return Err(of(name)(Reason::Without { other: "passthrough" }));
            }
        }
        return Ok(DeviceConfig::default());
    };
    if layout(properties)? == LayoutKind::Virt && unprotected_dma {
        return Err(of("allow-unprotected-dma")(Reason::Without { other: "layout = \"board\"" }));
    }
    let nodes = read_strings(value).map_err(of("passthrough"))?;
    if nodes.iter().any(|name| name.is_empty()) {
        return Err(of("passthrough")(Reason::Empty));
    }
    let clock_rates = match properties.clock_rates {
        Some(value) => rates(value).map_err(of("clock-rates"))?,
        None => Vec::new(),
    };
    Ok(DeviceConfig { nodes, unprotected_dma, pin_control, clock_rates })
}

fn rates(value: &[u8]) -> Result<Vec<u32>, Reason> {
    let rates = read_cells(value)?;
    match rates.iter().find(|rate| **rate < LEAST_RATE) {
        Some(&rate) => Err(Reason::Below { value: rate.into(), least: LEAST_RATE.into(), unit: " Hz" }),
        None => Ok(rates.to_owned()),
    }
}
