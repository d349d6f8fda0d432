//! The guest's console: an Arm PL011 UART (DDI 0183), identified as r1p1 with FIFOs of 16, as on QEMU's `virt`.
//!
//! What the guest sends goes to a ring of [`OUTPUT_CAPACITY`] bytes, the wire as it were, from which somebody else
//! fetches it at his own pace; with the ring full, FR.TXFF is set. What comes from outside goes to the receive FIFO
//! while there is room. The line has no speed, so the baud rate is only remembered, a byte that waits below the trigger
//! level times out at once, and as on other virtual PL011s, UARTEN and TXE needn't be set. There is no DMA and no IrDA.

use super::ring::{self, Ring};
use super::{Line, from_byte, primecell};

/// Bytes of output that wait at most.
pub const OUTPUT_CAPACITY: usize = ring::CAPACITY as usize;

/// Depth of either FIFO that the guest sees.
const FIFO_DEPTH: u32 = 16;

/// With no more output than this, the FIFO that the guest sees is empty.
const ROOM_FOR_FIFO: u32 = ring::CAPACITY - FIFO_DEPTH;

/// PeriphID0 to 3.
const PERIPHERAL_ID: u32 = 0x0014_1011;

/// Register offsets, section 3.2.
mod register {
    pub(super) const DR: u32 = 0x00;
    pub(super) const RSR: u32 = 0x04;
    pub(super) const FR: u32 = 0x18;
    pub(super) const ILPR: u32 = 0x20;
    pub(super) const IBRD: u32 = 0x24;
    pub(super) const FBRD: u32 = 0x28;
    pub(super) const LCR_H: u32 = 0x2c;
    pub(super) const CR: u32 = 0x30;
    pub(super) const IFLS: u32 = 0x34;
    pub(super) const IMSC: u32 = 0x38;
    pub(super) const RIS: u32 = 0x3c;
    pub(super) const MIS: u32 = 0x40;
    pub(super) const ICR: u32 = 0x44;
    pub(super) const DMACR: u32 = 0x48;
}

/// Flag register.
mod fr {
    pub(super) const CTS: u32 = 1 << 0;
    pub(super) const DSR: u32 = 1 << 1;
    pub(super) const DCD: u32 = 1 << 2;
    pub(super) const BUSY: u32 = 1 << 3;
    pub(super) const RXFE: u32 = 1 << 4;
    pub(super) const TXFF: u32 = 1 << 5;
    pub(super) const RXFF: u32 = 1 << 6;
    pub(super) const TXFE: u32 = 1 << 7;
    pub(super) const RI: u32 = 1 << 8;
}

/// Interrupt bits, the same in IMSC, RIS, MIS and ICR.
mod int {
    pub(super) const RI: u32 = 1 << 0;
    pub(super) const CTS: u32 = 1 << 1;
    pub(super) const DCD: u32 = 1 << 2;
    pub(super) const DSR: u32 = 1 << 3;
    pub(super) const RX: u32 = 1 << 4;
    pub(super) const TX: u32 = 1 << 5;
    pub(super) const RT: u32 = 1 << 6;
    pub(super) const BE: u32 = 1 << 9;
    pub(super) const OE: u32 = 1 << 10;
    pub(super) const ALL: u32 = 0x7ff;
}

/// Control register.
mod cr {
    pub(super) const UARTEN: u32 = 1 << 0;
    pub(super) const LBE: u32 = 1 << 7;
    pub(super) const RXE: u32 = 1 << 9;
    pub(super) const DTR: u32 = 1 << 10;
    pub(super) const RTS: u32 = 1 << 11;
    pub(super) const OUT1: u32 = 1 << 12;
    pub(super) const OUT2: u32 = 1 << 13;
    /// UARTEN to SIRLP, LBE to CTSEn; bits 6:3 are reserved.
    pub(super) const WRITABLE: u32 = 0xff87;
    pub(super) const RESET: u32 = 0x300;
}

const LCR_H_BRK: u32 = 1 << 0;
const LCR_H_FEN: u32 = 1 << 4;
const IFLS_RESET: u32 = 0x12;

/// Error bits of a received character, in DR and, eight bits lower, in RSR.
const DR_BE: u16 = 1 << 10;
const DR_OE: u32 = 1 << 11;
const RSR_OE: u32 = 1 << 3;
const RSR_CHARACTER: u32 = 0x7;

/// The registers and what goes with them; all that a reset resets, but for the receive FIFO.
#[derive(Clone, Copy, Debug)]
struct Registers {
    ris: u32,
    imsc: u32,
    cr: u32,
    lcr_h: u32,
    ifls: u32,
    rsr: u32,
    ilpr: u32,
    ibrd: u32,
    fbrd: u32,
    dmacr: u32,
    /// A character was lost, and none has found room since.
    overrun: bool,
    /// TXRIS is to be set when the output is next found at or below the transmit trigger level.
    awaits_trigger: bool,
}

impl Registers {
    const RESET: Self = Self {
        ris: 0,
        imsc: 0,
        cr: cr::RESET,
        lcr_h: 0,
        ifls: IFLS_RESET,
        rsr: 0,
        ilpr: 0,
        ibrd: 0,
        fbrd: 0,
        dmacr: 0,
        overrun: false,
        awaits_trigger: false,
    };
}

/// A virtual PL011.
#[derive(Debug)]
pub struct Pl011 {
    regs: Registers,
    input: Fifo,
    output: Ring,
}

impl Default for Pl011 {
    fn default() -> Self {
        Self::new()
    }
}

impl Pl011 {
    /// A UART as after reset, with no output. Allocates the ring; no other method allocates.
    pub fn new() -> Self {
        Self { regs: Registers::RESET, input: Fifo::EMPTY, output: Ring::new() }
    }

    /// Resets the registers and the receive FIFO. Output that waits stays: it has been sent.
    pub fn reset(&mut self) -> Line {
        let before = self.irq_level();
        self.regs = Registers::RESET;
        self.input = Fifo::EMPTY;
        // A ring that is still full must be heard of when it drains, as if the guest had filled it just now.
        self.settle_transmit();
        Line::change(before, self.irq_level())
    }

    /// The level of the interrupt line UARTINTR.
    #[inline]
    pub const fn irq_level(&self) -> bool {
        self.regs.ris & self.regs.imsc != 0
    }

    /// Reads the register at `offset`, 0 to 0xfff: its bits from that byte on, of which the caller cuts out the
    /// access's size. Zero where there is no register. Only reading DR has an effect.
    #[inline]
    pub fn read(&mut self, offset: u32) -> (u32, Line) {
        let (value, line) = match offset & !3 {
            register::DR => {
                let before = self.irq_level();
                let value = self.take_input();
                (value, Line::change(before, self.irq_level()))
            }
            register::FR => (self.flags(), Line::Unchanged),
            other => (self.plain_register(other), Line::Unchanged),
        };
        (from_byte(value, offset), line)
    }

    /// What [`read`](Self::read) gives of FR, which drivers read before each byte; `None` for other offsets.
    #[inline(always)]
    pub fn peek(&self, offset: u32) -> Option<u32> {
        if offset == register::FR { Some(self.flags()) } else { None }
    }

    /// Writes the register at `offset`, 0 to 0xfff. `value` is cut to the access's size: the bus has no byte strobes,
    /// so a narrow write at a register's first byte writes zeros above it; one above the first byte is ignored.
    #[inline]
    pub fn write(&mut self, offset: u32, value: u32) -> Line {
        let before = self.irq_level();
        match offset {
            register::DR => self.send(value as u8),
            other => self.write_control(other, value),
        }
        Line::change(before, self.irq_level())
    }

    /// Offers a character from outside. `None`: there is no room for it now (the FIFO is full, or the UART talks to
    /// itself); it is not lost, and may be offered again.
    pub fn receive(&mut self, byte: u8) -> Option<Line> {
        if !self.can_receive() {
            return None;
        }
        let before = self.irq_level();
        self.put_input(u16::from(byte));
        Some(Line::change(before, self.irq_level()))
    }

    /// Whether reading the register at `offset` takes a character, so that there may be room for another one.
    pub const fn takes_input(offset: u32) -> bool {
        offset & !3 == register::DR
    }

    /// Whether [`Self::receive`] would take a character. Worth asking after [such](Self::takes_input) a read, and after a write.
    pub const fn can_receive(&self) -> bool {
        self.input.len < self.input_depth() && self.regs.cr & cr::LBE == 0
    }

    /// Bytes of output that wait, 0 to [`OUTPUT_CAPACITY`].
    pub const fn pending_output(&self) -> usize {
        self.output.len() as usize
    }

    /// Fetches the oldest bytes of output into `out`. Returns how many, and what their leaving did to the line.
    pub fn drain(&mut self, out: &mut [u8]) -> (usize, Line) {
        let before = self.irq_level();
        let count = self.output.pop_into(out);
        self.settle_transmit();
        (count, Line::change(before, self.irq_level()))
    }

    /// Sends a block, as a driver would byte by byte that waits for nobody: whatever the registers say, as far as there is
    /// room. Returns how many bytes.
    pub fn send_block(&mut self, bytes: &[u8]) -> (usize, Line) {
        let before = self.irq_level();
        let count = bytes.iter().take_while(|byte| self.output.push(**byte)).count();
        self.settle_transmit();
        (count, Line::change(before, self.irq_level()))
    }

    /// Takes what has come in, as far as `out` has room; marks of errors are left out. Returns how many bytes.
    pub fn receive_block(&mut self, out: &mut [u8]) -> (usize, Line) {
        let before = self.irq_level();
        let characters = core::iter::from_fn(|| self.input.pop());
        let count = out.iter_mut().zip(characters).map(|(slot, character)| *slot = character as u8).count();
        self.settle_receive();
        (count, Line::change(before, self.irq_level()))
    }

    /// FR. The transmit FIFO is the last 16 places of the ring: what lies before them is on the wire, and no business
    /// of the guest's any more. So it waits for nobody (BUSY, TXFE) while there is that much room.
    #[inline(always)]
    fn flags(&self) -> u32 {
        let receives = match self.input.len {
            0 => fr::RXFE,
            len if len >= self.input_depth() => fr::RXFF,
            _ => 0,
        };
        let sends = match self.output.len() {
            ..=ROOM_FOR_FIFO => fr::TXFE,
            waits => {
                core::hint::cold_path();
                if waits < ring::CAPACITY { fr::BUSY } else { fr::BUSY | fr::TXFF }
            }
        };
        self.modem_inputs() | receives | sends
    }

    /// The modem's lines in FR: a peer that is there and ready, or in loopback the UART's own outputs.
    fn modem_inputs(&self) -> u32 {
        if self.regs.cr & cr::LBE == 0 {
            return fr::CTS | fr::DSR | fr::DCD;
        }
        let when = |output: u32, input: u32| if self.regs.cr & output != 0 { input } else { 0 };
        when(cr::RTS, fr::CTS) | when(cr::DTR, fr::DSR) | when(cr::OUT1, fr::DCD) | when(cr::OUT2, fr::RI)
    }

    /// The registers that a read doesn't change.
    fn plain_register(&self, register: u32) -> u32 {
        match register {
            register::RSR => self.regs.rsr,
            register::ILPR => self.regs.ilpr,
            register::IBRD => self.regs.ibrd,
            register::FBRD => self.regs.fbrd,
            register::LCR_H => self.regs.lcr_h,
            register::CR => self.regs.cr,
            register::IFLS => self.regs.ifls,
            register::IMSC => self.regs.imsc,
            register::RIS => self.regs.ris,
            register::MIS => self.regs.ris & self.regs.imsc,
            register::DMACR => self.regs.dmacr,
            id => primecell::read(id, PERIPHERAL_ID),
        }
    }

    fn write_control(&mut self, register: u32, value: u32) {
        match register {
            register::RSR => {
                self.regs.rsr = 0;
                self.regs.overrun = false;
            }
            register::ILPR => self.regs.ilpr = value & 0xff,
            register::IBRD => self.regs.ibrd = value & 0xffff,
            register::FBRD => self.regs.fbrd = value & 0x3f,
            register::LCR_H => self.write_lcr_h(value & 0xff),
            register::CR => self.write_cr(value & cr::WRITABLE),
            register::IFLS => {
                self.regs.ifls = value & 0x3f;
                self.settle_transmit();
                self.settle_receive();
            }
            register::IMSC => self.regs.imsc = value & int::ALL,
            register::ICR => self.regs.ris &= !value,
            register::DMACR => self.regs.dmacr = value & 0x7,
            _ => {}
        }
    }

    /// LCR_H. Turning the FIFOs on or off leaves their characters where they are.
    fn write_lcr_h(&mut self, value: u32) {
        let begins_break = value & !self.regs.lcr_h & LCR_H_BRK != 0;
        let toggles_fifos = (value ^ self.regs.lcr_h) & LCR_H_FEN != 0;
        self.regs.lcr_h = value;
        if toggles_fifos {
            self.settle_transmit();
            self.settle_receive();
        }
        if begins_break && self.regs.cr & cr::LBE != 0 {
            self.regs.ris |= int::BE;
            self.loop_back(DR_BE);
        }
    }

    /// CR. A modem input that changes, which only loopback can do, is an event of its own.
    fn write_cr(&mut self, value: u32) {
        let before = self.modem_inputs();
        self.regs.cr = value;
        let changed = before ^ self.modem_inputs();
        for (input, interrupt) in
            [(fr::CTS, int::CTS), (fr::DSR, int::DSR), (fr::DCD, int::DCD), (fr::RI, int::RI)]
        {
            if changed & input != 0 {
                self.regs.ris |= interrupt;
            }
        }
    }

    /// A character written to DR. With FR.TXFF set it is dropped, as on hardware.
    fn send(&mut self, byte: u8) {
        if self.regs.cr & cr::LBE != 0 {
            self.loop_back(u16::from(byte));
            self.regs.ris |= int::TX;
            return;
        }
        self.output.push(byte);
        // The character leaves the FIFO at once if it can, which is what drivers wait for, rather than for the level
        // to be passed downwards: it isn't while the ring has room.
        self.regs.awaits_trigger = true;
        self.settle_transmit();
    }

    /// Sets or clears TXRIS by the output's level: set when it is found at or below the trigger after it was above or
    /// something was written, cleared above it.
    fn settle_transmit(&mut self) {
        if self.output.len() > self.transmit_trigger() {
            self.regs.awaits_trigger = true;
            self.regs.ris &= !int::TX;
        } else if self.regs.awaits_trigger {
            self.regs.awaits_trigger = false;
            self.regs.ris |= int::TX;
        }
    }

    /// The transmit trigger level in bytes of the ring: the fraction of it that IFLS asks for, which always leaves the
    /// guest room for a whole FIFO; without FIFOs, room for one character.
    fn transmit_trigger(&self) -> u32 {
        if self.regs.lcr_h & LCR_H_FEN == 0 {
            return ring::CAPACITY - 1;
        }
        eighths(self.regs.ifls & 7).wrapping_mul(ring::CAPACITY / 8)
    }

    /// Receives what the UART sends itself, if its receiver is on.
    fn loop_back(&mut self, character: u16) {
        const RECEIVES: u32 = cr::UARTEN | cr::RXE;
        if self.regs.cr & RECEIVES == RECEIVES {
            self.put_input(character);
        }
    }

    /// A character arrives, with its error bits as in DR.
    fn put_input(&mut self, character: u16) {
        if self.input.len >= self.input_depth() {
            self.regs.overrun = true;
            self.regs.rsr |= RSR_OE;
            self.regs.ris |= int::OE;
            return;
        }
        self.regs.overrun = false;
        self.input.push(character);
        self.settle_receive();
    }

    /// A character read from DR; zero when there is none.
    fn take_input(&mut self) -> u32 {
        let overrun = if self.regs.overrun { DR_OE } else { 0 };
        let Some(character) = self.input.pop() else {
            return overrun;
        };
        let character = u32::from(character);
        self.regs.rsr = (self.regs.rsr & RSR_OE) | (character >> 8 & RSR_CHARACTER);
        self.settle_receive();
        character | overrun
    }

    /// Sets or clears RXRIS by the trigger level and RTRIS for characters that wait below it.
    fn settle_receive(&mut self) {
        let trigger = self.receive_trigger();
        if self.input.len >= trigger {
            self.regs.ris |= int::RX;
            return;
        }
        self.regs.ris &= !int::RX;
        if self.input.len > 0 {
            self.regs.ris |= int::RT;
        } else {
            self.regs.ris &= !int::RT;
        }
    }

    fn receive_trigger(&self) -> u32 {
        if self.regs.lcr_h & LCR_H_FEN == 0 {
            return 1;
        }
        eighths(self.regs.ifls >> 3 & 7).wrapping_mul(FIFO_DEPTH / 8)
    }

    const fn input_depth(&self) -> u32 {
        if self.regs.lcr_h & LCR_H_FEN == 0 { 1 } else { FIFO_DEPTH }
    }
}

/// A trigger level of IFLS in eighths of a FIFO. Reserved values are taken for the one that follows reset, a half.
const fn eighths(select: u32) -> u32 {
    match select {
        0 => 1,
        1 => 2,
        3 => 6,
        4 => 7,
        _ => 4,
    }
}

/// The receive FIFO: characters with their error bits.
#[derive(Clone, Copy, Debug)]
struct Fifo {
    characters: [u16; FIFO_DEPTH as usize],
    head: u32,
    len: u32,
}

impl Fifo {
    const EMPTY: Self = Self { characters: [0; FIFO_DEPTH as usize], head: 0, len: 0 };

    /// Puts a character behind the others. With 16 there already, it is not taken.
    fn push(&mut self, character: u16) {
        let at = self.head.wrapping_add(self.len) % FIFO_DEPTH;
        if self.len < FIFO_DEPTH
            && let Some(place) = self.characters.get_mut(at as usize)
        {
            *place = character;
            self.len = self.len.wrapping_add(1);
        }
    }

    fn pop(&mut self) -> Option<u16> {
        let character = self.characters.get(self.head as usize).copied()?;
        self.len = self.len.checked_sub(1)?;
        self.head = self.head.wrapping_add(1) % FIFO_DEPTH;
        Some(character)
    }
}
