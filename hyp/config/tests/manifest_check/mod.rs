//! What must hold of whatever is read from a bundle, a good one or not.

use std::collections::BTreeSet;

use config::manifest::{
    Bundle, BundleError, DeviceConfig, LayoutKind, MAX_BOOTARGS, MAX_CHANNEL, MAX_CPUS, MAX_NAME, MAX_PERIOD,
    MAX_RESTART_LIMIT, MAX_WEIGHT, MEMORY_UNIT, MIN_BUDGET, MIN_CHANNEL, MIN_PERIOD, ManifestError, Payload,
    Sharing, VmConfig,
};
use vmm::life::{LONGEST_DELAY_MS, LONGEST_TIMEOUT, OnCrash};

fn is_inside(part: &[u8], whole: &[u8]) -> bool {
    let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
    part.start >= whole.start && part.end <= whole.end
}

fn check_cpus(config: &VmConfig<'_>) {
    match config.sharing {
        Sharing::Pinned => {}
        Sharing::Weight(weight) => assert!((1..=MAX_WEIGHT).contains(&weight)),
        Sharing::Reserved { budget, period } => {
            assert!((MIN_PERIOD..=MAX_PERIOD).contains(&period));
            assert!((MIN_BUDGET..=period).contains(&budget));
        }
    }
    let Some(list) = &config.cpu_affinity else { return };
    if config.sharing == Sharing::Pinned {
        assert_eq!(list.len(), config.cpus as usize);
    } else {
        assert!(!list.is_empty());
        assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len(), "{list:?}");
    }
}

/// Everything that the documentation of [`VmConfig`] promises.
fn check_config(config: &VmConfig<'_>, blob: &[u8]) {
    let name = config.name;
    assert!((1..=MAX_NAME).contains(&name.len()), "{name:?}");
    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b",._+-".contains(&byte)), "{name:?}");
    assert!((1..=MAX_CPUS).contains(&config.cpus));
    assert!(config.memory >= MEMORY_UNIT && config.memory.is_multiple_of(MEMORY_UNIT));
    check_cpus(config);
    if let OnCrash::Restart { limit, delay } = config.on_crash {
        assert!((1..=MAX_RESTART_LIMIT).contains(&limit) && (1..=LONGEST_DELAY_MS).contains(&delay));
    }
    assert!(config.watchdog.is_none_or(|timeout| (1..=LONGEST_TIMEOUT).contains(&timeout)));
    check_devices(config);
    let bootargs = config.bootargs.unwrap_or_default();
    assert!(bootargs.len() <= MAX_BOOTARGS && !bootargs.contains('\0'));
    let parts = match config.payload {
        Payload::Linux { image, initrd } => [Some(image), initrd],
        Payload::Elf(bytes) | Payload::Binary { bytes, .. } => [Some(bytes), None],
        Payload::Firmware { image, variables } => {
            assert!(variables.is_none_or(|bytes| bytes.is_empty() || is_inside(bytes, blob)));
            [Some(image), None]
        }
    };
    assert!(parts.into_iter().flatten().all(|part| !part.is_empty() && is_inside(part, blob)));
}

/// The same of [`ChannelConfig`](config::manifest::ChannelConfig), in a bundle with these VMs.
fn check_channels(bundle: &Bundle<'_>, vms: &BTreeSet<&str>) {
    let mut names = vms.clone();
    for channel in bundle.channels.iter().flatten() {
        assert!(names.insert(channel.name));
        assert!(channel.vms[0] != channel.vms[1] && channel.vms.iter().all(|vm| vms.contains(vm)));
        assert!(channel.size.is_power_of_two() && (MIN_CHANNEL..=MAX_CHANNEL).contains(&channel.size));
    }
    bundle.channels.iter().filter_map(|channel| channel.as_ref().err()).for_each(check_message);
}

fn check_devices(config: &VmConfig<'_>) {
    let on_board = config.layout == LayoutKind::Board;
    assert!(!on_board || !matches!(config.payload, Payload::Firmware { .. }));
    assert!(config.memory_address.is_none_or(|address| on_board && address.is_multiple_of(MEMORY_UNIT)));
    let devices = &config.devices;
    assert!(devices.nodes.iter().all(|name| !name.is_empty() && !name.contains('\0')));
    assert!(devices.clock_rates.iter().all(|rate| *rate != 0));
    assert!(on_board || !devices.unprotected_dma);
    assert!(!devices.nodes.is_empty() || *devices == DeviceConfig::default());
}

fn check_message(error: &ManifestError) {
    let text = error.to_string();
    assert!(text.starts_with('/') && text.contains(": "), "{text:?}");
    assert!(text.chars().all(|character| !character.is_control()), "{text:?}");
}

/// Reads a bundle, and sees that whatever is read keeps what is promised.
pub fn check(blob: &[u8]) {
    match Bundle::parse(blob) {
        Ok(bundle) => {
            let mut names = BTreeSet::new();
            for config in bundle.vms.iter().flatten() {
                check_config(config, blob);
                assert!(names.insert(config.name));
            }
            bundle.vms.iter().filter_map(|vm| vm.as_ref().err()).for_each(check_message);
            check_channels(&bundle, &names);
            assert!(!bundle.vms.is_empty());
        }
        Err(BundleError::Root(error)) => check_message(&error),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
