//! Why a VM can't be given a device, in words for the person who wrote the manifest.

use alloc::string::String;

use thiserror::Error;

use super::Span;

/// What is wrong with what a manifest asks for. Nodes are paths in the board's tree.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum PassthroughError {
    #[error("passthrough: the board's device tree is too large to find devices in, or damaged")]
    NoTree,
    #[error("passthrough: the board's device tree has no node or alias {name:?}")]
    NoSuchNode { name: String },
    #[error("passthrough: {node} is named twice")]
    Twice { node: String },
    #[error("passthrough: {node} is inside of another node that is named: the outer one is enough")]
    Nested { node: String },
    #[error("passthrough: {node} belongs to {owner}")]
    Taken { node: String, owner: String },
    #[error("passthrough: {node} has no `compatible`: it is no device")]
    NoDevice { node: String },
    #[error("passthrough: {node} is a bus: name the devices behind it")]
    Bus { node: String },
    #[error("passthrough: {node} has no registers in physical memory, or in a form that can't be read")]
    Unreachable { node: String },
    #[error("passthrough: {node} has a line to each CPU (a PPI), which can't be handed out")]
    PrivateLine { node: String },
    #[error("passthrough: {node} is Hanok's own, or shares a page or a line with it: {what}")]
    Own { node: String, what: &'static str },
    #[error("passthrough: {node} lies in RAM, at {address:#x}")]
    Memory { node: String, address: u64 },
    #[error("passthrough: {node} is RAM, and no device")]
    MemoryNode { node: String },
    #[error(
        "passthrough: {node} controls pins, and could take any of them from another device, from Hanok's console too: \
         it needs `allow-pin-control`"
    )]
    PinControl { node: String },
    #[error(
        "passthrough: {node} isn't known to do no DMA, and the board has no IOMMU: it needs `layout = \"board\"`, where \
         the VM's memory has its physical addresses, and `allow-unprotected-dma`"
    )]
    DmaNeedsLayout { node: String },
    #[error(
        "passthrough: {node} isn't known to do no DMA, and the board has no IOMMU: with it, the VM can reach all \
         memory. It needs `allow-unprotected-dma`"
    )]
    UnprotectedDma { node: String },
    #[error("passthrough: {node} shares the page {page:#x} with {neighbour}{}: they can only go together", of(.owner))]
    SharedPage { node: String, page: u64, neighbour: String, owner: Option<String> },
    #[error("passthrough: {node} shares interrupt {intid} with {neighbour}{}: they can only go together", of(.owner))]
    SharedLine { node: String, intid: u16, neighbour: String, owner: Option<String> },
    #[error("passthrough: registers at {address:#x} are beyond what stage 2 can map")]
    TooFar { address: u64 },
    #[error("passthrough: the devices' registers take more than the {} MiB that the layout has for them", .room >> 20)]
    NoRoom { room: u64 },
    #[error("passthrough: the devices have more interrupts than the {room} that the layout has for them")]
    TooManyLines { room: u32 },
    #[error(
        "clock-rates: {given} rate{} given, and {} clock{} without a fixed rate in the board's tree{}",
        if *.given == 1 { " is" } else { "s are" }, .clocks.len(), if .clocks.len() == 1 { "" } else { "s" },
        list(.clocks)
    )]
    ClockRates { given: usize, clocks: alloc::vec::Vec<String> },
    #[error("passthrough: {node} reaches no memory by DMA, as its bus has it")]
    NoReach { node: String },
    #[error(
        "memory-address: the VM's RAM would be from {:#x} to {:#x}, and its devices reach {:#x} to {:#x} by DMA",
        .ram.start, .ram.end.saturating_sub(1), .reach.start, .reach.end.saturating_sub(1)
    )]
    OutOfReach { ram: Span, reach: Span },
}

/// Names behind a colon, if there are any.
fn list(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { alloc::format!(": {}", names.join(", ")) }
}

/// Whose a neighbour is.
fn of(owner: &Option<String>) -> String {
    owner.as_ref().map_or_else(String::new, |owner| alloc::format!(" of {owner}"))
}
