//! The Raspberry Pi 4's GPIO (BCM2711 ARM Peripherals, chapter 5).

use runtime::mmio::Mmio;

/// Function select, three bits for each of ten pins.
const GPFSEL0: usize = 0x00;
/// Sets outputs, a bit for each of 32 pins; then clears them; then their levels.
const GPSET0: usize = 0x1c;
const GPCLR0: usize = 0x28;
const GPLEV0: usize = 0x34;

/// Pins on the header: 0 to 27.
pub const PINS: usize = 28;

/// What a pin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Output = 0b001,
    /// The mini-UART, on 14 and 15.
    Alternate5 = 0b010,
}

#[derive(Clone, Copy)]
pub struct Gpio(pub Mmio);

impl Gpio {
    /// `pin` is below [`PINS`].
    pub fn select(self, pin: usize, function: Function) {
        let (register, shift) = (GPFSEL0 + pin / 10 * 4, pin % 10 * 3);
        let others = self.0.read32(register) & !(0b111 << shift);
        self.0.write32(register, others | (function as u32) << shift);
    }

    pub fn set(self, pin: usize, level: bool) {
        self.0.write32(if level { GPSET0 } else { GPCLR0 }, 1 << pin);
    }

    pub fn level(self, pin: usize) -> bool {
        self.0.read32(GPLEV0) & 1 << pin != 0
    }
}
