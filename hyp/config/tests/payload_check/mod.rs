//! What must hold of any plan for loading a payload.

use config::manifest::VmConfig;
use config::payload::{LoadPlan, plan};
use vmm::layout::{Ipa, VIRT};

pub const RAM: u64 = 0x4000_0000;

/// What a plan occupies: the segments and the tree, in ascending order.
fn occupied(plan: &LoadPlan<'_>, dtb_size: u64) -> Vec<(u64, u64)> {
    let segments = plan.segments.iter().map(|segment| {
        let start = segment.ipa.as_u64();
        (
            start,
            start.checked_add(segment.bytes.len() as u64).unwrap().checked_add(segment.zero_after).unwrap(),
        )
    });
    let segments: Vec<_> = segments.collect();
    assert!(segments.is_sorted());
    let dtb = plan.dtb.as_u64();
    let mut all = segments;
    all.push((dtb, dtb.checked_add(dtb_size).unwrap()));
    all.sort_unstable();
    all
}

/// Everything that the documentation of [`LoadPlan`] promises; a message if there is no plan.
pub fn check(config: &VmConfig<'_>, dtb_size: u64) {
    let memory = config.memory;
    let plan = match plan(config, &VIRT, dtb_size) {
        Ok(plan) => plan,
        Err(error) => return assert!(error.to_string().contains(": ")),
    };
    let all = occupied(&plan, dtb_size);
    assert!(all.iter().all(|&(start, end)| start >= RAM && end <= RAM + memory), "{all:x?}");
    assert!(all.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{all:x?}");
    assert!(plan.dtb.as_u64().is_multiple_of(4096));
    let entry = plan.entry.as_u64();
    assert!(entry.is_multiple_of(4));
    let holds = |ipa: Ipa, length: usize| (ipa.as_u64()..ipa.as_u64() + length as u64).contains(&entry);
    let in_flash = plan.flash.is_some_and(|flash| holds(flash.banks[0].base, flash.banks[0].bytes.len()));
    assert!(in_flash || plan.segments.iter().any(|segment| holds(segment.ipa, segment.bytes.len())));
    if let Some(initrd) = &plan.initrd {
        let bytes = initrd.end.as_u64() - initrd.start.as_u64();
        let is_it = |segment: &config::payload::Segment<'_>| {
            segment.ipa == initrd.start && segment.bytes.len() as u64 == bytes && segment.zero_after == 0
        };
        assert!(plan.segments.iter().any(is_it));
    }
}
