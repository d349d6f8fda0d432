//! A VM for tests of payloads.

use config::manifest::{DeviceConfig, LayoutKind, Payload, Sharing, VmConfig};
use vmm::life::OnCrash;

/// With nothing but a payload and so many bytes of memory.
pub fn config(payload: Payload<'_>, memory: u64) -> VmConfig<'_> {
    VmConfig {
        name: "test",
        cpus: 1,
        memory,
        cpu_affinity: None,
        sharing: Sharing::Pinned,
        bootargs: None,
        payload,
        starts: true,
        on_crash: OnCrash::Stop,
        watchdog: None,
        rights: 0,
        layout: LayoutKind::Virt,
        memory_address: None,
        devices: DeviceConfig::default(),
    }
}
