//! Addresses and values that are worth trying.

use runtime::machine;
use runtime::machine::{GicRegisters, MAX_CPUS, Region};
use runtime::random::Random;
use runtime::trial;
use spin::Once;

/// The VM's devices, and what lies about them.
struct Places {
    devices: [Region; MAX_DEVICES],
    count: usize,
}

const MAX_DEVICES: usize = 24;
const PAGE: u64 = 4 << 10;

static PLACES: Once<Places> = Once::new();

/// Looks where the devices are.
pub fn find() {
    PLACES.call_once(|| {
        let mut places = Places { devices: [Region::default(); MAX_DEVICES], count: 0 };
        let machine = machine();
        match machine.gic {
            GicRegisters::V2 { distributor, cpu_interface } => {
                places.add(distributor.base, PAGE);
                places.add(cpu_interface.base, 2 * PAGE);
                places.add(cpu_interface.base, PAGE);
            }
            GicRegisters::V3 { distributor, redistributors } => {
                places.add(distributor.base, 0x1000);
                places.add(distributor.base, 0x1_0000);
                let cpus = machine.cpus().len().min(MAX_CPUS - 1) as u64;
                for cpu in 0..cpus {
                    let frame = redistributors[0].base + (cpu << 17);
                    places.add(frame, 0x100);
                    places.add(frame + 0x1_0000, 0x1000);
                }
                // One more than there are.
                places.add(redistributors[0].base, (cpus + 1) << 17);
            }
        }
        places.add(machine.uart.registers.base, 0x48);
        places.add(machine.uart.registers.base, PAGE);
        if let Some(rtc) = machine.rtc {
            places.add(rtc.registers.base, 0x20);
            places.add(rtc.registers.base, PAGE);
        }
        // The record of stolen time, flash, and where QEMU's `virt` has other devices.
        for base in [0x090a_0000, 0, 0x0400_0000, 0x0902_0000, 0x0903_0000, 0x0a00_0000, 0x1000_0000] {
            places.add(base, PAGE);
        }
        places
    });
}

impl Places {
    fn add(&mut self, base: u64, size: u64) {
        if let Some(place) = self.devices.get_mut(self.count) {
            *place = Region { base, size };
            self.count += 1;
        }
    }
}

/// An address in a device: mostly one of a register's, and mostly aligned.
pub fn device(random: &mut Random) -> u64 {
    let places = PLACES.get().expect("the devices have been found");
    let Region { base, size } = random.one_of(&places.devices[..places.count]);
    match random.below(16) {
        // Across its end, or before its beginning.
        0 => base + size - random.below(16),
        1 => (base + random.below(16)).saturating_sub(16),
        2 => base + random.below(size),
        3..6 => base + random.below(size) / 8 * 8,
        _ => base + random.below(size) / 4 * 4,
    }
}

/// An address where this VM has nothing, or may have nothing: others' memory, EL2's, the board's devices, beyond any.
pub fn nowhere(random: &mut Random) -> u64 {
    let end = machine().ram_end();
    match random.below(8) {
        0 => end + random.below(1 << 20) / 4 * 4,
        1 => 0x3000_0000 + random.below(1 << 28) / 4 * 4,
        2 => 0x8000_0000 + random.below(1 << 30) / 4 * 4,
        3 => random.below(1 << 39),
        4 => 1 << random.below(64),
        5 => trial::code() + 0x1000 + random.below(0x1000),
        6 => trial::data_end() + random.below(0x1000),
        _ => random.word(),
    }
}

/// An address of the trial's own data, mostly aligned.
pub fn data(random: &mut Random) -> u64 {
    let size = trial::data_end() - trial::data();
    let offset = random.below(size);
    trial::data() + if random.below(8) == 0 { offset } else { offset / 16 * 16 }
}

/// A number at the edge of something.
pub fn extreme(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << random.below(64),
        3 => (1 << random.below(64)) - 1,
        4 => u64::MAX << random.below(64),
        5 => u64::MAX - random.below(16),
        6 => random.below(16),
        _ => random.word() & random.word(),
    }
}

/// Any of these, or any number at all. What it doesn't have are addresses of the program's own memory.
pub fn value(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => random.word(),
        1 => device(random),
        2 => nowhere(random),
        3 | 4 => data(random),
        5 => data(random) | trial::UPPER_HALF,
        _ => extreme(random),
    }
}

/// X0 to X30: a few values, each in some of them.
pub fn registers(random: &mut Random) -> [u64; 31] {
    let few = [(); 8].map(|()| value(random));
    let (first, second) = (random.word(), random.word());
    core::array::from_fn(|n| few[((if n < 16 { first } else { second }) >> (4 * (n % 16)) & 7) as usize])
}
