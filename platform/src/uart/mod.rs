//! The UART that is the board's console: one type for every kind that EL2 drives. Only here a kind is told from another.
//!
//! Its speed is firmware's business, which knows clocks and pins; a driver sets up no more than what it finds turned off.

use core::ptr::{NonNull, with_exposed_provenance_mut};

use crate::tree::{self, UartKind};

mod mini;
mod pl011;

enum Driver {
    Pl011(pl011::Pl011),
    Mini(mini::MiniUart),
}

/// A UART that EL2 owns.
pub struct Uart {
    driver: Driver,
}

impl Uart {
    /// The UART that the tree describes, switched on if it isn't. `None` where its registers can't be: at address 0.
    ///
    /// # Safety
    /// What the tree says of it is so; the pages that its registers lie in are mapped as device memory at their physical
    /// addresses for ever; and nobody else drives it.
    pub unsafe fn new(uart: &tree::Uart) -> Option<Self> {
        let base = NonNull::new(with_exposed_provenance_mut(uart.registers.start.as_u64() as usize))?;
        let driver = match uart.kind {
            // SAFETY: the caller says that this is a PL011, mapped and ours.
            UartKind::Pl011 => Driver::Pl011(unsafe { pl011::Pl011::new(base, uart.clock) }),
            // SAFETY: the same of a mini-UART; that it stands where it has to in its page, the tree's reader has seen to.
            UartKind::MiniUart => Driver::Mini(unsafe { mini::MiniUart::new(base) }),
        };
        Some(Self { driver })
    }

    /// Sends a byte if there is room for it.
    #[inline]
    pub fn try_send(&mut self, byte: u8) -> bool {
        match &mut self.driver {
            Driver::Pl011(uart) => uart.try_send(byte),
            Driver::Mini(uart) => uart.try_send(byte),
        }
    }

    /// Sends a byte, waiting for room: for boot and crash reports alone.
    #[inline]
    pub fn send(&mut self, byte: u8) {
        while !self.try_send(byte) {}
    }

    /// Whether the last byte has left: one that is still on its way may be lost when the board is reset.
    #[inline]
    pub fn is_idle(&mut self) -> bool {
        match &mut self.driver {
            Driver::Pl011(uart) => uart.is_idle(),
            Driver::Mini(uart) => uart.is_idle(),
        }
    }

    /// A byte that has arrived, if one has. Bytes with line errors are dropped.
    #[inline]
    pub fn receive(&mut self) -> Option<u8> {
        match &mut self.driver {
            Driver::Pl011(uart) => uart.receive(),
            Driver::Mini(uart) => uart.receive(),
        }
    }

    /// Turns interrupts on for bytes that arrive.
    pub fn start_receiving(&mut self) {
        if let Driver::Pl011(uart) = &mut self.driver {
            uart.prepare_interrupts();
        }
        self.set_interrupts(true, false);
    }

    /// Which interrupts to take: bytes have arrived; there is room to send.
    #[inline]
    pub fn set_interrupts(&mut self, receive: bool, send: bool) {
        match &mut self.driver {
            Driver::Pl011(uart) => uart.set_interrupts(receive, send),
            Driver::Mini(uart) => uart.set_interrupts(receive, send),
        }
    }
}
