//! The virtual PL011: what drivers rely on, register by register, and random accesses against a model.

use proptest::prelude::*;
use std::collections::VecDeque;
use vmm::devices::Line;
use vmm::devices::pl011::{OUTPUT_CAPACITY, Pl011};

const DR: u32 = 0x00;
const RSR: u32 = 0x04;
const FR: u32 = 0x18;
const LCR_H: u32 = 0x2c;
const CR: u32 = 0x30;
const IFLS: u32 = 0x34;
const IMSC: u32 = 0x38;
const RIS: u32 = 0x3c;
const MIS: u32 = 0x40;
const ICR: u32 = 0x44;

const BUSY: u32 = 1 << 3;
const RXFE: u32 = 1 << 4;
const TXFF: u32 = 1 << 5;
const RXFF: u32 = 1 << 6;
const TXFE: u32 = 1 << 7;
const CONNECTED: u32 = 0x7;

const RX: u32 = 1 << 4;
const TX: u32 = 1 << 5;
const RT: u32 = 1 << 6;
const BE: u32 = 1 << 9;
const OE: u32 = 1 << 10;

const FEN: u32 = 1 << 4;
const BRK: u32 = 1 << 0;
const EIGHT_BITS: u32 = 3 << 5;
const ENABLED: u32 = 0x301;
const LOOPBACK: u32 = ENABLED | 1 << 7;

fn read(uart: &mut Pl011, register: u32) -> u32 {
    let peeked = uart.peek(register);
    let value = uart.read(register).0;
    assert_eq!(peeked, (register == FR).then_some(value), "what is told at once of {register:#x}");
    value
}

fn write(uart: &mut Pl011, register: u32, value: u32) {
    let before = uart.irq_level();
    let line = uart.write(register, value);
    assert_eq!(uart.irq_level(), line.level().unwrap_or(before));
}

/// A UART with its FIFOs on, as Linux's driver sets it up.
fn uart() -> Pl011 {
    let mut uart = Pl011::new();
    write(&mut uart, LCR_H, EIGHT_BITS | FEN);
    write(&mut uart, CR, ENABLED);
    uart
}

fn fetch(uart: &mut Pl011) -> Vec<u8> {
    let mut out = vec![0; OUTPUT_CAPACITY];
    let (count, _) = uart.drain(&mut out);
    out.truncate(count);
    out
}

#[test]
fn registers_after_reset() {
    let mut uart = Pl011::new();
    let expected = [
        (DR, 0),
        (RSR, 0),
        (FR, RXFE | TXFE | CONNECTED),
        (0x20, 0),
        (0x24, 0),
        (0x28, 0),
        (LCR_H, 0),
        (CR, 0x300),
        (IFLS, 0x12),
        (IMSC, 0),
        (RIS, 0),
        (MIS, 0),
        (0x48, 0),
        (0xfe0, 0x11),
        (0xfe4, 0x10),
        (0xfe8, 0x14),
        (0xfec, 0x00),
        (0xff0, 0x0d),
        (0xff4, 0xf0),
        (0xff8, 0x05),
        (0xffc, 0xb1),
        (0x4c, 0),
        (0xfdc, 0),
    ];
    for (register, value) in expected {
        assert_eq!(uart.read(register), (value, Line::Unchanged), "{register:#x}");
    }
}

#[test]
fn plain_registers_keep_the_bits_that_they_have() {
    let mut uart = Pl011::new();
    let widths =
        [(0x20, 0xff), (0x24, 0xffff), (0x28, 0x3f), (LCR_H, 0xff), (CR, 0xff87), (IFLS, 0x3f), (0x48, 0x7)];
    for (register, mask) in widths {
        write(&mut uart, register, u32::MAX);
        assert_eq!(read(&mut uart, register), mask, "{register:#x}");
        write(&mut uart, register, 0);
        assert_eq!(read(&mut uart, register), 0, "{register:#x}");
    }
    write(&mut uart, IMSC, u32::MAX);
    assert_eq!(read(&mut uart, IMSC), 0x7ff);
    for read_only in [FR, RIS, MIS, 0xfe0] {
        let before = read(&mut uart, read_only);
        write(&mut uart, read_only, !before);
        assert_eq!(read(&mut uart, read_only), before);
    }
}

#[test]
fn narrow_accesses_have_lanes() {
    let mut uart = Pl011::new();
    assert_eq!(read(&mut uart, CR + 1), 0x03);
    write(&mut uart, CR + 1, 0xff);
    assert_eq!(read(&mut uart, CR), 0x300, "a write above the first byte does nothing");
    write(&mut uart, DR + 1, b'x'.into());
    assert_eq!(uart.pending_output(), 0);
    assert!(uart.receive(b'y').is_some());
    assert_eq!(read(&mut uart, DR + 1), 0, "the error bits");
    assert_eq!(read(&mut uart, FR) & RXFE, RXFE, "and yet the character has been read");
}

#[test]
fn output_needs_no_setting_up() {
    let mut uart = Pl011::new();
    write(&mut uart, CR, 0);
    for byte in b"hello\n" {
        write(&mut uart, DR, u32::from(*byte) | 0xffff_ff00);
    }
    assert_eq!(uart.pending_output(), 6);
    assert_eq!(fetch(&mut uart), b"hello\n");
    assert_eq!((uart.pending_output(), fetch(&mut uart)), (0, vec![]));
}

#[test]
fn flags_follow_the_ring_to_its_end() {
    let mut uart = uart();
    let flags = |uart: &mut Pl011| read(uart, FR) & (BUSY | TXFF | TXFE);
    for sent in 0..OUTPUT_CAPACITY {
        let expected = if sent <= OUTPUT_CAPACITY - 16 { TXFE } else { BUSY };
        assert_eq!(flags(&mut uart), expected, "{sent} bytes");
        write(&mut uart, DR, sent as u32 & 0xff);
    }
    assert_eq!(flags(&mut uart), BUSY | TXFF);
    write(&mut uart, DR, 0xee);
    assert_eq!(uart.pending_output(), OUTPUT_CAPACITY, "written against TXFF: dropped");
    assert!(uart.drain(&mut [0]).0 == 1);
    assert_eq!(flags(&mut uart), BUSY);
    let rest = fetch(&mut uart);
    assert!(
        rest.iter().enumerate().all(|(n, byte)| *byte == (n + 1) as u8) && rest.len() == OUTPUT_CAPACITY - 1
    );
    assert_eq!(flags(&mut uart), TXFE);
}

#[test]
fn blocks_go_where_single_bytes_go() {
    let mut uart = uart();
    write(&mut uart, IMSC, RX | RT);
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(uart.send_block(&bytes).0, 256);
    write(&mut uart, DR, 0x55);
    assert_eq!(fetch(&mut uart), [&bytes[..], &[0x55]].concat());
    let mut sent = 0;
    while uart.pending_output() < OUTPUT_CAPACITY {
        sent += uart.send_block(&bytes[..100]).0;
    }
    assert_eq!(
        (sent, uart.send_block(&bytes).0),
        (OUTPUT_CAPACITY, 0),
        "full: the rest is left to the caller"
    );
    fetch(&mut uart);

    for byte in *b"typed" {
        assert!(uart.receive(byte).is_some());
    }
    assert!(uart.irq_level());
    let mut out = [0; 3];
    assert_eq!((uart.receive_block(&mut out).0, &out), (3, b"typ"));
    assert_eq!(read(&mut uart, DR), u32::from(b'e'), "what is left is there for whoever reads DR");
    let mut out = [0; 8];
    assert_eq!((uart.receive_block(&mut out), out[0]), ((1, Line::Lowered), b'd'));
    assert_eq!(uart.receive_block(&mut out).0, 0);
}

#[test]
fn transmit_interrupt_is_back_when_the_ring_has_drained_to_the_trigger() {
    for (select, eighths) in [(0, 1), (1, 2), (2, 4), (3, 6), (4, 7), (5, 4), (6, 4), (7, 4)] {
        let trigger = OUTPUT_CAPACITY / 8 * eighths;
        let mut uart = uart();
        write(&mut uart, IFLS, select);
        write(&mut uart, IMSC, TX);
        assert!(!uart.irq_level(), "nothing has been sent");
        write(&mut uart, DR, 0);
        assert!(uart.irq_level(), "it has left the FIFO");
        while read(&mut uart, FR) & TXFF == 0 {
            write(&mut uart, DR, 0);
            assert_eq!(uart.irq_level(), uart.pending_output() <= trigger);
        }
        let mut most = vec![0; OUTPUT_CAPACITY - trigger - 1];
        assert_eq!(uart.drain(&mut most), (most.len(), Line::Unchanged));
        assert_eq!(uart.drain(&mut [0]), (1, Line::Raised), "select {select}");
        write(&mut uart, ICR, TX);
        assert_eq!(uart.drain(&mut [0]), (1, Line::Unchanged), "cleared, and not passed again");
    }
}

#[test]
fn transmit_interrupt_isnt_lost_when_the_trigger_moves() {
    let mut uart = uart();
    write(&mut uart, IMSC, TX);
    for _ in 0..3000 {
        write(&mut uart, DR, 0);
    }
    assert!(!uart.irq_level());
    assert_eq!(uart.write(IFLS, 4), Line::Raised);
    assert_eq!(uart.write(IFLS, 2), Line::Lowered);
    assert_eq!(uart.write(LCR_H, 0), Line::Raised, "without FIFOs, room for one character is enough");
}

#[test]
fn without_fifos_each_character_interrupts() {
    let mut uart = Pl011::new();
    write(&mut uart, IMSC, TX | RX | RT);
    for _ in 0..OUTPUT_CAPACITY - 1 {
        assert_eq!(
            uart.write(ICR, TX),
            if uart.pending_output() > 0 { Line::Lowered } else { Line::Unchanged }
        );
        assert_eq!(uart.write(DR, 0), Line::Raised);
    }
    assert_eq!(uart.write(DR, 0), Line::Lowered, "full");
    assert_eq!(uart.drain(&mut [0]), (1, Line::Raised));
    write(&mut uart, ICR, TX);

    assert_eq!(uart.receive(b'a'), Some(Line::Raised));
    assert_eq!(read(&mut uart, FR) & (RXFE | RXFF), RXFF);
    assert_eq!(read(&mut uart, RIS) & (RX | RT), RX);
    assert_eq!(uart.receive(b'b'), None);
    assert_eq!(uart.read(DR), (b'a'.into(), Line::Lowered));
    assert_eq!(uart.receive(b'b'), Some(Line::Raised));
}

#[test]
fn receive_interrupts_at_the_level_and_by_timeout_below_it() {
    for (select, trigger) in [(0, 2), (1, 4), (2, 8), (3, 12), (4, 14), (5, 8), (6, 8), (7, 8)] {
        let mut uart = uart();
        write(&mut uart, IFLS, select << 3);
        write(&mut uart, IMSC, RX);
        for n in 1..=16 {
            let line = uart.receive(n).unwrap();
            assert_eq!(line, if n == trigger { Line::Raised } else { Line::Unchanged }, "select {select}");
            assert_eq!(read(&mut uart, RIS) & RT, RT, "characters waited below the level");
        }
        assert_eq!((uart.receive(17), uart.can_receive()), (None, false));
        assert_eq!(read(&mut uart, FR) & (RXFE | RXFF), RXFF);
        for left in (0..16).rev() {
            let (value, line) = uart.read(DR);
            assert_eq!(value, 16 - left);
            assert_eq!(line, if left + 1 == u32::from(trigger) { Line::Lowered } else { Line::Unchanged });
            assert_eq!(read(&mut uart, RIS) & RT, if left > 0 { RT } else { 0 });
        }
        assert_eq!(read(&mut uart, FR) & (RXFE | RXFF), RXFE);
        assert_eq!(uart.read(DR), (0, Line::Unchanged), "empty");
    }
}

#[test]
fn a_single_key_interrupts_at_once() {
    let mut uart = uart();
    write(&mut uart, IMSC, RX | RT);
    assert_eq!(uart.receive(b'l'), Some(Line::Raised));
    assert_eq!(read(&mut uart, MIS), RT);
    assert_eq!(uart.receive(b's'), Some(Line::Unchanged));
    assert_eq!(uart.read(DR), (b'l'.into(), Line::Unchanged));
    assert_eq!(uart.read(DR), (b's'.into(), Line::Lowered));
}

/// Of all reads, those that have the next character out of a full FIFO, and so make room for one more.
#[test]
fn reading_characters_makes_room() {
    for offset in 0..0x1000 {
        let mut uart = uart();
        while uart.receive(b'x').is_some() {}
        assert!(!uart.can_receive());
        read(&mut uart, offset);
        assert_eq!(uart.can_receive(), Pl011::takes_input(offset), "{offset:#x}");
    }
}

#[test]
fn a_cleared_timeout_comes_back_with_the_next_character_or_read() {
    let mut uart = uart();
    write(&mut uart, IMSC, RX | RT);
    for byte in [1, 2, 3] {
        assert!(uart.receive(byte).is_some());
    }
    assert_eq!(uart.write(ICR, RT), Line::Lowered);
    assert_eq!(uart.receive(4), Some(Line::Raised));
    assert_eq!(uart.write(ICR, RT), Line::Lowered);
    assert_eq!(uart.read(DR), (1, Line::Raised));
}

#[test]
fn characters_survive_the_fifo_being_turned_off() {
    let mut uart = uart();
    for byte in 0..5 {
        assert!(uart.receive(byte).is_some());
    }
    write(&mut uart, LCR_H, 0);
    assert_eq!(read(&mut uart, FR) & RXFF, RXFF);
    assert_eq!(read(&mut uart, RIS) & RX, RX);
    assert_eq!([0; 5].map(|_| read(&mut uart, DR)), [0, 1, 2, 3, 4]);
}

#[test]
fn unmasking_raises_and_masking_lowers() {
    let mut uart = uart();
    assert_eq!(uart.receive(b'x'), Some(Line::Unchanged));
    assert_eq!((read(&mut uart, RIS), read(&mut uart, MIS)), (RT, 0));
    assert_eq!(uart.write(IMSC, RT), Line::Raised);
    assert_eq!(uart.write(IMSC, RX), Line::Lowered);
    assert_eq!(uart.write(IMSC, RT | RX), Line::Raised);
    assert_eq!(uart.write(ICR, 0x7ff), Line::Lowered);
    assert_eq!(read(&mut uart, RIS), 0);
}

#[test]
fn loopback_returns_what_is_sent_and_nothing_goes_out() {
    let mut uart = uart();
    write(&mut uart, CR, LOOPBACK);
    assert!(!uart.can_receive() && uart.receive(b'x').is_none());
    for byte in b'a'..b'a' + 16 {
        write(&mut uart, DR, byte.into());
    }
    assert_eq!(uart.pending_output(), 0);
    assert_eq!(read(&mut uart, RIS) & (TX | OE), TX);
    write(&mut uart, DR, b'!'.into());
    assert_eq!((read(&mut uart, RIS) & OE, read(&mut uart, RSR)), (OE, 1 << 3));
    assert_eq!(
        read(&mut uart, DR),
        1 << 11 | u32::from(b'a'),
        "overrun shows until there has been room again"
    );
    write(&mut uart, DR, b'?'.into());
    assert_eq!(read(&mut uart, DR), b'b'.into());
    assert_eq!(read(&mut uart, RSR), 1 << 3, "sticks until it is cleared");
    write(&mut uart, RSR, 0);
    assert_eq!(read(&mut uart, RSR), 0);
}

#[test]
fn loopback_without_a_receiver_receives_nothing() {
    let mut uart = uart();
    write(&mut uart, CR, LOOPBACK & !(1 << 9));
    write(&mut uart, DR, b'a'.into());
    assert_eq!(read(&mut uart, FR) & (RXFE | BUSY), RXFE);
    assert_eq!(read(&mut uart, RIS) & (RX | RT | TX), TX, "sent, and heard by nobody");
}

#[test]
fn loopback_returns_a_break_once() {
    let mut uart = uart();
    write(&mut uart, LCR_H, FEN | BRK);
    assert_eq!(read(&mut uart, RIS) & BE, 0, "a break goes nowhere without loopback");
    write(&mut uart, LCR_H, FEN);
    write(&mut uart, CR, LOOPBACK);
    write(&mut uart, LCR_H, FEN | BRK);
    write(&mut uart, LCR_H, FEN | BRK);
    assert_eq!(read(&mut uart, RIS) & BE, BE);
    assert_eq!((read(&mut uart, DR), read(&mut uart, RSR)), (1 << 10, 1 << 2));
    assert_eq!(read(&mut uart, FR) & RXFE, RXFE);
}

#[test]
fn loopback_returns_the_modem_lines() {
    let mut uart = uart();
    write(&mut uart, CR, LOOPBACK);
    assert_eq!((read(&mut uart, FR) & 0x107, read(&mut uart, RIS)), (0, 0xe), "CTS, DCD and DSR have gone");
    for (output, input, interrupt) in [(11, 0, 1), (10, 1, 3), (12, 2, 2), (13, 8, 0)] {
        write(&mut uart, ICR, 0x7ff);
        write(&mut uart, CR, LOOPBACK | 1 << output);
        assert_eq!((read(&mut uart, FR) & 0x107, read(&mut uart, RIS)), (1 << input, 1 << interrupt));
        write(&mut uart, CR, LOOPBACK);
    }
}

#[test]
fn reset_lowers_the_line_and_keeps_the_output() {
    let mut uart = uart();
    write(&mut uart, IMSC, TX | RT);
    write(&mut uart, DR, b'!'.into());
    assert!(uart.receive(b'x').is_some());
    assert_eq!(uart.reset(), Line::Lowered);
    assert_eq!(
        (read(&mut uart, FR), read(&mut uart, RIS), read(&mut uart, IMSC)),
        (RXFE | TXFE | CONNECTED, 0, 0)
    );
    assert_eq!(read(&mut uart, LCR_H), 0);
    assert_eq!(fetch(&mut uart), b"!");
    assert_eq!(uart.reset(), Line::Unchanged);
}

#[test]
fn a_ring_that_is_full_at_reset_is_heard_of_when_it_drains() {
    let mut uart = uart();
    for _ in 0..OUTPUT_CAPACITY {
        write(&mut uart, DR, 0);
    }
    assert_eq!(uart.reset(), Line::Unchanged);
    write(&mut uart, IMSC, TX);
    assert_eq!(uart.drain(&mut [0; 1000]), (1000, Line::Raised));
}

/// Sends as Linux's driver does: from its interrupt handler up to half a FIFO blindly, as long as TXMIS is set.
#[test]
fn a_driver_that_trusts_the_transmit_interrupt_loses_nothing() {
    let mut uart = uart();
    let message: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
    let mut to_send: VecDeque<u8> = message.iter().copied().collect();
    let mut received = vec![];
    while let Some(byte) = to_send.front().filter(|_| read(&mut uart, FR) & TXFF == 0) {
        write(&mut uart, DR, u32::from(*byte));
        to_send.pop_front();
    }
    write(&mut uart, IMSC, TX);
    while !to_send.is_empty() {
        while read(&mut uart, MIS) & TX != 0 && !to_send.is_empty() {
            for byte in to_send.drain(..to_send.len().min(8)) {
                write(&mut uart, DR, u32::from(byte));
            }
        }
        let mut some = [0; 100];
        let (count, _) = uart.drain(&mut some);
        assert!(count > 0, "neither the driver nor the drain makes progress");
        received.extend_from_slice(&some[..count]);
    }
    received.extend(fetch(&mut uart));
    assert!(received == message);
}

#[derive(Clone, Debug)]
enum Step {
    Read(u32),
    Write(u32, u32),
    Send { bytes: Vec<u8>, times: usize },
    Receive(u8),
    Drain(usize),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let offset = || prop_oneof![4 => (0_u32..0x13).prop_map(|n| n * 4), 1 => 0_u32..0x1000];
    let value = prop_oneof![any::<u32>(), 0_u32..0x800];
    let control = prop_oneof![
        Just(Step::Write(LCR_H, FEN)),
        Just(Step::Write(CR, ENABLED)),
        Just(Step::Write(CR, LOOPBACK)),
        Just(Step::Write(IMSC, 0x7ff)),
    ];
    prop_oneof![
        6 => offset().prop_map(Step::Read),
        6 => (offset(), value).prop_map(|(offset, value)| Step::Write(offset, value)),
        4 => control,
        3 => (proptest::collection::vec(any::<u8>(), 1..40), 1_usize..120)
            .prop_map(|(bytes, times)| Step::Send { bytes, times }),
        8 => any::<u8>().prop_map(Step::Receive),
        3 => (0_usize..6000).prop_map(Step::Drain),
        1 => Just(Step::Reset),
    ]
}

/// What went in and has not come out, kept beside the device.
#[derive(Default)]
struct Model {
    output: VecDeque<u8>,
    input: VecDeque<u32>,
    level: bool,
}

impl Model {
    fn follow(&mut self, line: Line) -> Result<(), TestCaseError> {
        if let Some(level) = line.level() {
            prop_assert_ne!(level, self.level, "a change to the level that it had");
            self.level = level;
        }
        Ok(())
    }

    /// A character written to DR goes out, or comes back, if there is room.
    fn sent(&mut self, byte: u8, cr: u32, depth: usize) {
        if cr & 1 << 7 == 0 {
            if self.output.len() < OUTPUT_CAPACITY {
                self.output.push_back(byte);
            }
        } else {
            self.looped_back(byte.into(), cr, depth);
        }
    }

    fn looped_back(&mut self, character: u32, cr: u32, depth: usize) {
        if cr & 0x201 == 0x201 && self.input.len() < depth {
            self.input.push_back(character);
        }
    }

    fn step(&mut self, uart: &mut Pl011, step: &Step) -> Result<(), TestCaseError> {
        let cr = read(uart, CR);
        let lcr_h = read(uart, LCR_H);
        let depth = if lcr_h & FEN != 0 { 16 } else { 1 };
        match step {
            Step::Read(offset) => {
                let (value, line) = uart.read(*offset);
                self.follow(line)?;
                if offset & !3 == DR {
                    let expected = self.input.pop_front().unwrap_or(0);
                    prop_assert_eq!(value & (0x7ff >> (8 * (offset & 3))), expected >> (8 * (offset & 3)));
                }
            }
            Step::Write(offset, value) => {
                self.follow(uart.write(*offset, *value))?;
                if *offset == DR {
                    self.sent(*value as u8, cr, depth);
                } else if *offset == LCR_H && value & !lcr_h & BRK != 0 && cr & 1 << 7 != 0 {
                    let depth = if value & FEN != 0 { 16 } else { 1 };
                    self.looped_back(1 << 10, cr, depth);
                }
            }
            Step::Send { bytes, times } => {
                for byte in bytes.iter().cycle().take(bytes.len() * times) {
                    self.follow(uart.write(DR, (*byte).into()))?;
                    self.sent(*byte, cr, depth);
                }
            }
            Step::Receive(byte) => {
                let room = self.input.len() < depth && cr & 1 << 7 == 0;
                prop_assert_eq!(uart.can_receive(), room);
                let line = uart.receive(*byte);
                prop_assert_eq!(line.is_some(), room);
                if let Some(line) = line {
                    self.follow(line)?;
                    self.input.push_back((*byte).into());
                    prop_assert_ne!(read(uart, RIS) & (RX | RT), 0, "a character nobody is told of");
                }
            }
            Step::Drain(room) => {
                let was_full = self.output.len() == OUTPUT_CAPACITY;
                let mut out = vec![0; *room];
                let (count, line) = uart.drain(&mut out);
                self.follow(line)?;
                let expected: Vec<_> = self.output.drain(..self.output.len().min(*room)).collect();
                prop_assert!(out[..count] == expected);
                if was_full && self.output.is_empty() {
                    prop_assert_eq!(read(uart, RIS) & TX, TX, "room nobody is told of");
                }
            }
            Step::Reset => {
                self.follow(uart.reset())?;
                self.input.clear();
            }
        }
        Ok(())
    }

    fn check(&self, uart: &mut Pl011) -> Result<(), TestCaseError> {
        let (ris, imsc, flags) = (read(uart, RIS), read(uart, IMSC), read(uart, FR));
        prop_assert_eq!(read(uart, MIS), ris & imsc);
        prop_assert_eq!(uart.irq_level(), ris & imsc != 0);
        prop_assert_eq!(uart.irq_level(), self.level);
        prop_assert_eq!(uart.pending_output(), self.output.len());
        let depth = if read(uart, LCR_H) & FEN != 0 { 16 } else { 1 };
        let mut expected = if self.input.is_empty() { RXFE } else { 0 };
        expected |= if self.input.len() >= depth { RXFF } else { 0 };
        expected |= if self.output.len() >= OUTPUT_CAPACITY { TXFF } else { 0 };
        expected |= if self.output.len() <= OUTPUT_CAPACITY - 16 { TXFE } else { BUSY };
        prop_assert_eq!(flags & 0xf8, expected);
        if self.input.is_empty() {
            prop_assert_eq!(ris & (RX | RT), 0, "an interrupt for nothing");
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn random_accesses_lose_nothing_and_keep_the_line_right(steps in proptest::collection::vec(step(), 0..150)) {
        let mut uart = Pl011::new();
        let mut model = Model::default();
        for step in &steps {
            model.step(&mut uart, step)?;
            model.check(&mut uart)?;
        }
        let rest: Vec<_> = model.output.into_iter().collect();
        prop_assert!(fetch(&mut uart) == rest);
    }
}
