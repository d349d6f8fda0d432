//! What must hold of devices that are handed out, of whatever tree: they keep VMs apart.

use std::collections::BTreeSet;

use config::manifest::{LayoutKind, VmConfig};
use config::passthrough::{Given, Own, Span};
use vmm::layout::VIRT;

use crate::board::{ONE_TO_ONE, find, trusted, vm, with_rates};

/// What all VMs together have.
#[derive(Default)]
struct Owned {
    pages: Vec<Span>,
    lines: BTreeSet<u16>,
    names: BTreeSet<String>,
}

fn span(given: &(vmm::layout::Ipa, stage2::PaRange)) -> Span {
    Span::new(given.1.start().as_u64(), given.1.size())
}

/// Sees that a VM got nothing that is another one's, Hanok's, or memory.
fn check_apart(owned: &mut Owned, given: &Given, config: &VmConfig<'_>, own: &[Own], memory: &[Span]) {
    let spans: Vec<Span> = given.registers.iter().map(span).collect();
    for (number, pages) in spans.iter().enumerate() {
        assert!(pages.start < pages.end && *pages == pages.pages(), "{pages:x?}");
        let others = owned.pages.iter().chain(&spans[..number]).chain(memory);
        let hanoks = own.iter().map(|own| own.registers.pages());
        assert!(
            !others.copied().chain(hanoks).any(|other| other.meets(*pages)),
            "{pages:x?} of {}",
            config.name
        );
    }
    for line in &given.lines {
        let intid = line.physical.intid;
        assert!((32..1020).contains(&intid) && own.iter().all(|own| own.line != Some(intid)));
        assert!(owned.lines.insert(intid), "interrupt {intid} of {}", config.name);
    }
    for (at, pages) in &given.registers {
        if config.layout == LayoutKind::Board {
            assert_eq!(at.as_u64(), pages.start().as_u64());
        } else {
            let end = at.as_u64() + pages.size();
            let room = VIRT.devices.registers;
            assert!(
                at.as_u64() >= room.base.as_u64()
                    && end <= room.end().as_u64()
                    && at.as_u64() % 0x1_0000 == 0
            );
        }
    }
    let mut places: Vec<(u64, u64)> =
        given.registers.iter().map(|(at, pages)| (at.as_u64(), at.as_u64() + pages.size())).collect();
    places.sort_unstable();
    assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{places:x?}");
    let spis: BTreeSet<u32> = given.lines.iter().map(|line| line.spi).collect();
    assert_eq!(spis.len(), given.lines.len());
    owned.pages.extend(spans);
    owned.names.insert(config.name.to_owned());
}

/// Hands out to each VM in turn.
pub fn hand_out(
    blob: &[u8],
    gicd: u64,
    configs: &[VmConfig<'_>],
    own: &[Own],
    memory: &[Span],
) -> (usize, Vec<Given>) {
    let Some(mut devices) = find(blob, gicd) else { return (0, Vec::new()) };
    let pages = devices.pages();
    assert!(pages.windows(2).all(|pair| pair[0].end < pair[1].start), "{pages:x?}");
    let _ = devices.is_wanted("/soc/serial@7e201000", configs.iter());
    let mut owned = Owned::default();
    let mut all = Vec::new();
    for config in configs {
        let room = if config.layout == LayoutKind::Board { ONE_TO_ONE } else { VIRT.devices };
        match devices.give(config, &room, own) {
            Ok(given) => {
                check_apart(&mut owned, &given, config, own, memory);
                // EL2 takes the pages out of those that it knows to be devices'.
                for run in given.registers.iter().map(span) {
                    assert!(
                        pages.iter().any(|known| known.start <= run.start && run.end <= known.end),
                        "{run:x?}"
                    );
                }
                all.push(given);
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(": ") && !text.contains('\n'), "{text:?}");
            }
        }
    }
    assert_eq!(devices.pages(), pages);
    (owned.names.len(), all)
}

/// VMs that want most of the Pi, some the same as others.
pub fn configs() -> Vec<VmConfig<'static>> {
    let mut pins = with_rates(vm("pins", &["/soc/gpio@7e200000", "/soc/rng@7e104000"]), &[]);
    pins.devices.pin_control = true;
    vec![
        with_rates(vm("uart", &["serial1", "/soc/aux@7e215000"]), &[500_000_000]),
        pins,
        with_rates(trusted("mmc", &["/emmc2bus/mmc@7e340000", "/soc/dma@7e007000"]), &[200_000_000]),
        with_rates(vm("i2c", &["/soc/i2c@7e804000"]), &[1000]),
        trusted("again", &["/soc/rng@7e104000", "/soc/spi@7e215080"]),
        with_rates(trusted("console", &["serial0", "/soc/serial@7e201400", "/soc/serial@7e201600"]), &[1, 2]),
        with_rates(trusted("spi", &["/soc/spi@7e204000", "/soc/power@7e00b000"]), &[1; 5]),
        trusted("odd", &["/cpus", "/memory@0", "/timer", "/soc", "/scb/pcie@7d500000"]),
    ]
}
