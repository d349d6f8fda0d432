//! The power manager of the BCM2835 and its successors, the Raspberry Pi 4's BCM2711 among them. Of what it has only the
//! watchdog is used, which resets the whole board: the power domains and clocks in the same page stay as firmware left them.
//!
//! The firmware that runs after a reset boots from the partition whose number it finds in the reset status, 0 being the
//! usual one. Number 63 is none: then it doesn't boot, and the board stays off but for its supply. The registers are
//! described by the driver that Linux has for them (`drivers/watchdog/bcm2835_wdt.c`).

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;
use tock_registers::registers::ReadWrite;

use super::End;

register_structs! {
    /// The registers that are used.
    Registers {
        (0x00 => _others),
        /// What a reset is to be.
        (0x1c => rstc: ReadWrite<u32>),
        /// Why there was a reset, and the partition.
        (0x20 => rsts: ReadWrite<u32>),
        /// How long the watchdog waits, in units of 1/65536 s.
        (0x24 => wdog: ReadWrite<u32>),
        (0x28 => @END),
    }
}

/// In the top byte of whatever is written; without it nothing happens.
const PASSWORD: u32 = 0x5a << 24;
const VALUE: u32 = 0x00ff_ffff;
/// RSTC: what happens when the watchdog's time is up, and that everything is reset then.
const WRCFG: u32 = 0b11 << 4;
const WRCFG_FULL_RESET: u32 = 0b10 << 4;
/// RSTS: the six bits of the partition's number, every other one.
const PARTITION: u32 = 0x555;
const PARTITION_HALT: u32 = PARTITION;
const PARTITION_DEFAULT: u32 = 0;
/// 0.15 ms: long enough for both registers to be written.
const SOON: u32 = 10;

/// A power manager that EL2 owns.
pub struct PowerManager {
    registers: &'static Registers,
}

impl PowerManager {
    /// The power manager at `base`.
    ///
    /// # Safety
    /// `base` is the address of a BCM2835's power manager, mapped as device memory for ever, and nobody else drives it.
    pub unsafe fn new(base: usize) -> Self {
        // SAFETY: the caller says that the registers are there and are ours alone.
        Self { registers: unsafe { &*(base as *const Registers) } }
    }

    /// Turns the board off or over, in less than a millisecond from now.
    pub fn end(&self, how: End) {
        let Registers { rstc, rsts, wdog, .. } = self.registers;
        let partition = match how {
            End::Off => PARTITION_HALT,
            End::Reset => PARTITION_DEFAULT,
        };
        rsts.set(PASSWORD | rsts.get() & VALUE & !PARTITION | partition);
        wdog.set(PASSWORD | SOON);
        rstc.set(PASSWORD | rstc.get() & VALUE & !WRCFG | WRCFG_FULL_RESET);
    }
}
