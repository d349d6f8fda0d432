//! Arm PrimeCell PL011 (DDI 0183), by the `arm-pl011-uart` driver. Where firmware left it on, its line settings stay as
//! they are: its own messages were readable. Where it is off, it is set to 115200 8N1.

use core::ptr::NonNull;

use arm_pl011_uart::UniqueMmioPointer;
use arm_pl011_uart::{DataBits, FifoLevel, Interrupts, LineConfig, PL011Registers, Parity, StopBits};

/// The control register, and its bit that turns the UART on (UARTCR.UARTEN, DDI 0183 3.3.8).
const UARTCR: usize = 0x30;
const UARTEN: u32 = 1;
const BAUD_RATE: u32 = 115_200;
/// The clock of a PL011 whose tree doesn't tell it, in Hz.
const DEFAULT_CLOCK: u32 = 24_000_000;

/// A PL011 that EL2 owns.
pub struct Pl011 {
    driver: arm_pl011_uart::Uart<'static>,
}

impl Pl011 {
    /// The UART at `base`, whose clock is `clock` Hz where that is known. Switched on if it isn't.
    ///
    /// # Safety
    /// `base` is the address of a PL011, mapped as device memory for ever, and nobody else drives it.
    pub unsafe fn new(base: NonNull<u8>, clock: Option<u32>) -> Self {
        // SAFETY: the caller says that the registers are there; reading this one has no effect.
        let control = unsafe { base.byte_add(UARTCR).cast::<u32>().read_volatile() };
        // SAFETY: the caller says that the registers are there and are ours alone.
        let registers = unsafe { UniqueMmioPointer::new(base.cast::<PL011Registers>()) };
        let mut driver = arm_pl011_uart::Uart::new(registers);
        if control & UARTEN == 0 {
            let line =
                LineConfig { data_bits: DataBits::Bits8, parity: Parity::None, stop_bits: StopBits::One };
            // A clock too slow for the rate leaves the UART off; on emulated ones it works all the same.
            let _ = driver.enable(line, BAUD_RATE, clock.unwrap_or(DEFAULT_CLOCK));
        }
        Self { driver }
    }

    /// Sends a byte if there is room for it.
    #[inline]
    pub fn try_send(&mut self, byte: u8) -> bool {
        let room = !self.driver.is_tx_fifo_full();
        if room {
            self.driver.write_word(byte);
        }
        room
    }

    /// Whether the last byte has left.
    #[inline]
    pub fn is_idle(&self) -> bool {
        !self.driver.is_busy()
    }

    /// A byte that has arrived, if one has. Bytes with line errors are dropped.
    #[inline]
    pub fn receive(&mut self) -> Option<u8> {
        loop {
            match self.driver.read_word() {
                Ok(byte) => return byte,
                Err(_) => continue,
            }
        }
    }

    /// Makes interrupts ready to be taken: forgets those that wait.
    pub fn prepare_interrupts(&mut self) {
        self.driver.set_interrupt_fifo_levels(FifoLevel::Bytes16, FifoLevel::Bytes16);
        self.driver.clear_interrupts(Interrupts::all());
    }

    /// Which interrupts to take: bytes have arrived; there is room to send.
    #[inline]
    pub fn set_interrupts(&mut self, receive: bool, send: bool) {
        let mut mask = Interrupts::empty();
        mask.set(Interrupts::RXI | Interrupts::RTI, receive);
        mask.set(Interrupts::TXI, send);
        self.driver.set_interrupt_masks(mask);
    }
}
