//! The Raspberry Pi's mini-UART (BCM2711 ARM Peripherals, chapter 2). Its speed stays as firmware has set it.

use core::fmt;

use runtime::mmio::Mmio;

/// In the AUX block: which of its three devices are on; bit 0 is the mini-UART.
const AUX_ENABLES: usize = 0x04;

const IO: usize = 0x00;
const IER: usize = 0x04;
const IIR: usize = 0x08;
const LCR: usize = 0x0c;
const LSR: usize = 0x14;
const CNTL: usize = 0x20;

/// Interrupts when something has come in, which need bit 2 as well.
const RECEIVE: u32 = 0b101;
const CLEAR_FIFOS: u32 = 0b110;
const EIGHT_BITS: u32 = 0b11;
const DATA_READY: u32 = 1;
const ROOM_TO_SEND: u32 = 1 << 5;
const RECEIVER_AND_TRANSMITTER: u32 = 0b11;

#[derive(Clone, Copy)]
pub struct MiniUart(Mmio);

impl MiniUart {
    /// Switches it on, with interrupts for what comes in.
    pub fn start(aux: Mmio, uart: Mmio) -> Self {
        aux.write32(AUX_ENABLES, aux.read32(AUX_ENABLES) | 1);
        uart.write32(LCR, EIGHT_BITS);
        uart.write32(IIR, CLEAR_FIFOS);
        uart.write32(IER, RECEIVE);
        uart.write32(CNTL, RECEIVER_AND_TRANSMITTER);
        Self(uart)
    }

    pub fn read(self) -> Option<u8> {
        (self.0.read32(LSR) & DATA_READY != 0).then(|| self.0.read32(IO) as u8)
    }

    fn send(self, byte: u8) {
        while self.0.read32(LSR) & ROOM_TO_SEND == 0 {}
        self.0.write32(IO, byte.into());
    }
}

impl fmt::Write for MiniUart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.send(b'\r');
            }
            self.send(byte);
        }
        Ok(())
    }
}
