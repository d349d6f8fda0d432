//! The mini-UART of the BCM283x and BCM2711, in their block of auxiliary peripherals (BCM2711 ARM Peripherals, 2.2; for
//! BCM2835's manual there are errata, which have the right order of the bits of IER). Its registers are laid out as a
//! 16550's, four bytes apart.
//!
//! The divisor is never touched: the clock that it divides is the graphics processor's, whose frequency only firmware
//! knows. What comes in while the FIFO of 8 is full is lost in the hardware, and nothing more need be dropped; parity and
//! framing errors, it doesn't know.

use core::mem::offset_of;
use core::ptr::NonNull;

use safe_mmio::fields::{ReadOnly, ReadPureWrite, ReadWrite, WriteOnly};
use safe_mmio::{UniqueMmioPointer, field};

use crate::tree::MINI_UART_IN_PAGE;

/// The page of the auxiliary peripherals, as far as the mini-UART is concerned.
#[repr(C)]
struct AuxRegisters {
    irq: ReadOnly<u32>,
    /// AUX_ENABLES, which the two SPI masters behind the UART have bits in as well.
    enables: ReadPureWrite<u32>,
    reserved: [u32; 14],
    /// Reading takes a byte out of the FIFO.
    io: ReadWrite<u32>,
    ier: ReadPureWrite<u32>,
    /// Written, it is a 16550's FCR.
    iir: WriteOnly<u32>,
    lcr: ReadPureWrite<u32>,
    mcr: ReadPureWrite<u32>,
    /// Reading forgets an overrun.
    lsr: ReadOnly<u32>,
    msr: ReadOnly<u32>,
    scratch: ReadPureWrite<u32>,
    cntl: ReadPureWrite<u32>,
}

const _: () = assert!(offset_of!(AuxRegisters, io) as u64 == MINI_UART_IN_PAGE);
const _: () = assert!(offset_of!(AuxRegisters, cntl) as u64 == MINI_UART_IN_PAGE + 0x20);

/// AUX_ENABLES: the mini-UART is on. While it is off, none of its registers can be accessed.
const ENABLE_MINI_UART: u32 = 1;
/// AUX_MU_IER: there are bytes to read.
const IER_RECEIVE: u32 = 1;
/// AUX_MU_IER: the transmit FIFO is empty.
const IER_SEND: u32 = 1 << 1;
/// AUX_MU_IER: an overrun. By the errata, without it there are no interrupts for bytes either; Linux sets both.
const IER_LINE_STATUS: u32 = 1 << 2;
/// AUX_MU_IIR, written: both FIFOs are emptied.
const CLEAR_FIFOS: u32 = 0b110;
/// AUX_MU_LCR: 8 bits. By the errata this takes both bits; and with DLAB 0, the first registers are what they are here.
const EIGHT_BITS: u32 = 0b11;
/// AUX_MU_LSR: there is a byte to read.
const LSR_DATA: u32 = 1;
/// AUX_MU_LSR: the transmit FIFO has room for a byte.
const LSR_ROOM: u32 = 1 << 5;
/// AUX_MU_LSR: the transmit FIFO is empty, and nothing is being sent.
const LSR_IDLE: u32 = 1 << 6;
/// AUX_MU_CNTL: receiver and transmitter are on, and there is no flow control.
const RECEIVER_AND_TRANSMITTER: u32 = 0b11;

/// A mini-UART that EL2 owns.
pub struct MiniUart {
    registers: UniqueMmioPointer<'static, AuxRegisters>,
}

impl MiniUart {
    /// The mini-UART at `base`, switched on if it isn't.
    ///
    /// # Safety
    /// `base` is the address of AUX_MU_IO of a block of auxiliary peripherals, [`MINI_UART_IN_PAGE`] bytes into a page
    /// that is mapped as device memory for ever. Nobody else drives the mini-UART or writes AUX_ENABLES.
    pub unsafe fn new(base: NonNull<u8>) -> Self {
        // SAFETY: the caller says that the block's first register is so many bytes before this one, in the same page, and
        // that what the structure has of the block is ours alone.
        let registers = unsafe {
            UniqueMmioPointer::new(base.byte_sub(offset_of!(AuxRegisters, io)).cast::<AuxRegisters>())
        };
        let mut uart = Self { registers };
        uart.switch_on();
        uart
    }

    fn switch_on(&mut self) {
        let enables = field!(self.registers, enables).read();
        let was_on = enables & ENABLE_MINI_UART != 0;
        if !was_on {
            field!(self.registers, enables).write(enables | ENABLE_MINI_UART);
        }
        // Out of reset, both are on in CNTL but bytes have 7 bits: that says nothing of what firmware wanted.
        let on = field!(self.registers, cntl).read() & RECEIVER_AND_TRANSMITTER == RECEIVER_AND_TRANSMITTER;
        if was_on && on {
            return;
        }
        field!(self.registers, cntl).write(0);
        field!(self.registers, lcr).write(EIGHT_BITS);
        field!(self.registers, ier).write(0);
        field!(self.registers, iir).write(CLEAR_FIFOS);
        field!(self.registers, cntl).write(RECEIVER_AND_TRANSMITTER);
    }

    /// Sends a byte if there is room for it.
    #[inline]
    pub fn try_send(&mut self, byte: u8) -> bool {
        let room = field!(self.registers, lsr).read() & LSR_ROOM != 0;
        if room {
            field!(self.registers, io).write(byte.into());
        }
        room
    }

    /// Whether the last byte has left.
    #[inline]
    pub fn is_idle(&mut self) -> bool {
        field!(self.registers, lsr).read() & LSR_IDLE != 0
    }

    /// A byte that has arrived, if one has.
    #[inline]
    pub fn receive(&mut self) -> Option<u8> {
        let there = field!(self.registers, lsr).read() & LSR_DATA != 0;
        there.then(|| field!(self.registers, io).read() as u8)
    }

    /// Which interrupts to take: bytes have arrived; all have been sent, so that there is room for more. Both are levels,
    /// and no register has to be read to end them.
    #[inline]
    pub fn set_interrupts(&mut self, receive: bool, send: bool) {
        // An overrun is an interrupt only as long as somebody reads LSR, where it ends.
        let receive = if receive { IER_RECEIVE | IER_LINE_STATUS } else { 0 };
        let send = if send { IER_SEND } else { 0 };
        field!(self.registers, ier).write(receive | send);
    }
}

#[cfg(test)]
mod tests {
    use core::cell::UnsafeCell;

    use super::*;

    const ENABLES: usize = 0x04;
    const IO: usize = 0x40;
    const IER: usize = 0x44;
    const IIR: usize = 0x48;
    const LCR: usize = 0x4c;
    const LSR: usize = 0x54;
    const CNTL: usize = 0x60;
    const BAUD: usize = 0x68;

    /// Memory in the place of the block, by offset. It shows what the driver writes, and does nothing of its own accord.
    struct Aux(UnsafeCell<[u32; 32]>);

    impl Aux {
        fn new(registers: &[(usize, u32)]) -> Self {
            let mut all = [0; 32];
            registers.iter().for_each(|(offset, value)| all[offset / 4] = *value);
            Self(UnsafeCell::new(all))
        }

        fn drive(&self) -> MiniUart {
            let base = NonNull::from(&self.0).cast::<u8>();
            // SAFETY: the memory is as large as the registers, and outlives the driver in every test, where nothing else
            // accesses it but by `get` and `set`, between the driver's accesses.
            unsafe { MiniUart::new(base.byte_add(IO)) }
        }

        fn get(&self, offset: usize) -> u32 {
            // SAFETY: nobody holds a reference to the memory, and there is one thread.
            unsafe { (*self.0.get())[offset / 4] }
        }

        fn set(&self, offset: usize, value: u32) {
            // SAFETY: as above.
            unsafe { (*self.0.get())[offset / 4] = value }
        }

        fn all(&self) -> [u32; 32] {
            core::array::from_fn(|index| self.get(index * 4))
        }
    }

    #[test]
    fn what_firmware_left_on_stays_as_it_is() {
        let aux = Aux::new(&[(ENABLES, 0b011), (LCR, 0x43), (IER, 0xf), (CNTL, 0b1111), (BAUD, 541)]);
        let before = aux.all();
        aux.drive();
        assert_eq!(aux.all(), before);
    }

    #[test]
    fn what_firmware_left_off_is_switched_on_at_the_same_speed() {
        // The whole UART, whose registers are as out of reset, beside an SPI master that is on; its transmitter; its receiver.
        for (enables, cntl) in [(0b100, 0b11), (0b101, 0b01), (0b101, 0b1110)] {
            let aux = Aux::new(&[(ENABLES, enables), (LCR, 0x80), (IER, 0xf), (CNTL, cntl), (BAUD, 541)]);
            aux.drive();
            let expected =
                [(ENABLES, 0b101), (LCR, 0b11), (IER, 0), (IIR, CLEAR_FIFOS), (CNTL, 0b11), (BAUD, 541)];
            assert_eq!(aux.all(), Aux::new(&expected).all(), "{enables:#b} {cntl:#b}");
        }
    }

    #[test]
    fn bytes_go_where_there_is_room_and_come_where_there_are_some() {
        let aux = Aux::new(&[(ENABLES, 1), (CNTL, 0b11)]);
        let mut uart = aux.drive();
        assert!(!uart.try_send(b'x'));
        assert_eq!((aux.get(IO), uart.receive()), (0, None));
        aux.set(LSR, 1 << 5);
        assert!(uart.try_send(b'x'));
        assert_eq!((aux.get(IO), uart.receive()), (u32::from(b'x'), None));
        // Bytes behind this one were lost; it is good.
        aux.set(LSR, 0b11);
        aux.set(IO, u32::from(b'y'));
        assert!(!uart.try_send(b'z'));
        assert_eq!(uart.receive(), Some(b'y'));
    }

    #[test]
    fn it_is_idle_when_nothing_is_left_to_send() {
        let aux = Aux::new(&[(ENABLES, 1), (CNTL, 0b11)]);
        let mut uart = aux.drive();
        // Room there is before all has been sent.
        for (lsr, idle) in [(0, false), (1 << 5, false), (0b11 << 5, true)] {
            aux.set(LSR, lsr);
            assert_eq!(uart.is_idle(), idle, "{lsr:#b}");
        }
    }

    #[test]
    fn interrupts_are_in_the_order_of_a_16550() {
        let aux = Aux::new(&[(ENABLES, 1), (CNTL, 0b11)]);
        let mut uart = aux.drive();
        for (receive, send, ier) in
            [(true, false, 0b101), (false, true, 0b010), (true, true, 0b111), (false, false, 0)]
        {
            uart.set_interrupts(receive, send);
            assert_eq!(aux.get(IER), ier);
        }
    }
}
