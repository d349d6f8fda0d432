//! The PL011: identification, access of every width and shape, registers, interrupts, loopback.

use runtime::console::{self, RECEIVE_TIMEOUT, RX, RXFE, TX, register};
use runtime::gic;
use runtime::machine;
use runtime::probe::{self, Load, Store, UNTOUCHED};
use runtime::timer::{self, wait_until};

use crate::framework::{GRACE_MS, Outcome, Stop, check, check_eq, expect_soon, tests, wait};
use crate::recorder;

tests! {
    "uart.identification" => identification,
    "uart.load-widths" => load_widths,
    "uart.store-widths" => store_widths,
    "uart.zero-register" => zero_register,
    "uart.sign-extension" => sign_extension,
    "uart.registers" => registers,
    "uart.flags" => flags,
    "uart.transmit-interrupt" => transmit_interrupt,
    "uart.loopback" => loopback,
    "uart.receive-interrupt" => receive_interrupt,
}

/// Offset of PrimeCell id 3, the constant 0xb1: a byte with its top bit set.
const PCELL_ID3: usize = 0xffc;

fn base() -> u64 {
    machine().uart.registers.base
}

fn at(register: usize) -> u64 {
    base() + register as u64
}

fn load(kind: Load, register: usize) -> Result<u64, Stop> {
    probe::load(kind, at(register)).map_err(|fault| {
        crate::framework::failed(format_args!("{kind:?} at {register:#x}: a fault, {fault}"))
    })
}

fn store(kind: Store, register: usize, value: u64) -> Outcome {
    probe::store(kind, at(register), value).map_err(|fault| {
        crate::framework::failed(format_args!("{kind:?} at {register:#x}: a fault, {fault}"))
    })
}

fn identification() -> Outcome {
    let ids = |from: usize| [0, 4, 8, 12].map(|n| console::uart().read32(from + n));
    let [part0, part1, revision, configuration] = ids(0xfe0);
    check_eq!((part0, part1), (0x11, 0x10), "peripheral id 0 and 1: part 0x011 of designer 0x41");
    check_eq!(revision & 0xf, 4, "peripheral id 2: designer");
    check_eq!(configuration, 0, "peripheral id 3");
    check_eq!(ids(0xff0), [0x0d, 0xf0, 0x05, 0xb1], "PrimeCell id");
    Ok(())
}

fn load_widths() -> Outcome {
    for kind in [Load::Byte, Load::Half, Load::Word, Load::Acquire] {
        check_eq!(load(kind, PCELL_ID3)?, 0xb1, "{kind:?} of PrimeCell id 3");
    }
    Ok(())
}

/// Runs `body`, and puts the baud rate divisor back afterwards.
fn with_divisor(body: fn() -> Outcome) -> Outcome {
    let uart = console::uart();
    let saved = uart.read32(register::IBRD);
    let outcome = body();
    uart.write32(register::IBRD, saved);
    outcome
}

fn store_widths() -> Outcome {
    // The divisor's 16 bits may be written while the UART runs; they take effect later, or never.
    with_divisor(|| {
        for kind in [Store::Half, Store::Word, Store::Release] {
            store(kind, register::IBRD, 0xffff_0000_dead_4321)?;
            check_eq!(load(Load::Word, register::IBRD)?, 0x4321, "IBRD after {kind:?} with bits above");
            store(Store::Word, register::IBRD, 0)?;
        }
        store(Store::Byte, register::IMSC, 0xffff_ff00)?;
        check_eq!(load(Load::Word, register::IMSC)?, 0, "IMSC after a byte of zero");
        Ok(())
    })
}

fn zero_register() -> Outcome {
    with_divisor(|| {
        store(Store::Word, register::IBRD, 0x1234)?;
        store(Store::Zero, register::IBRD, UNTOUCHED)?;
        check_eq!(load(Load::Word, register::IBRD)?, 0, "IBRD after `str wzr`");
        check_eq!(load(Load::ToZero, PCELL_ID3)?, UNTOUCHED, "another register after `ldr wzr`");
        Ok(())
    })
}

fn sign_extension() -> Outcome {
    check_eq!(load(Load::SignedByteX, PCELL_ID3)?, 0xffff_ffff_ffff_ffb1, "`ldrsb x` of 0xb1");
    check_eq!(load(Load::SignedByteW, PCELL_ID3)?, 0xffff_ffb1, "`ldrsb w` of 0xb1");
    check_eq!(load(Load::SignedHalfX, PCELL_ID3)?, 0xb1, "`ldrsh x` of 0x00b1");
    with_divisor(|| {
        store(Store::Half, register::IBRD, 0x8765)?;
        check_eq!(load(Load::SignedHalfX, register::IBRD)?, 0xffff_ffff_ffff_8765, "`ldrsh x` of 0x8765");
        check_eq!(load(Load::SignedHalfW, register::IBRD)?, 0xffff_8765, "`ldrsh w` of 0x8765");
        check_eq!(load(Load::SignedWordX, register::IBRD)?, 0x8765, "`ldrsw x` of 0x00008765");
        check_eq!(load(Load::Half, register::IBRD)?, 0x8765, "`ldrh w` of 0x8765");
        Ok(())
    })?;
    // The PL011 has no register with bit 31; the SGIs' configuration is 0xaaaaaaaa.
    let word = gic::bank(0).base() as u64 + gic::register::ICFGR as u64;
    check_eq!(probe::load(Load::SignedWordX, word), Ok(0xffff_ffff_aaaa_aaaa), "`ldrsw x` of 0xaaaaaaaa");
    check_eq!(probe::load(Load::Word, word), Ok(0xaaaa_aaaa), "`ldr w` of 0xaaaaaaaa");
    Ok(())
}

fn registers() -> Outcome {
    let uart = console::uart();
    let cases = [
        (register::IBRD, 0xabcd, "IBRD"),
        (register::FBRD, 0x2a, "FBRD"),
        (register::LCR_H, 0x70, "LCR_H"),
        (register::IFLS, 0x24, "IFLS"),
        (register::IMSC, 0x7e0, "IMSC"),
        (register::CR, 0x301, "CR"),
    ];
    for (register, value, name) in cases {
        let saved = uart.read32(register);
        uart.write32(register, value);
        let read = uart.read32(register);
        uart.write32(register, saved);
        check_eq!(read, value, "{name} as written");
    }
    Ok(())
}

fn flags() -> Outcome {
    const BUSY: u32 = 1 << 3;
    const TXFE: u32 = 1 << 7;
    let uart = console::uart();
    expect_soon(
        || uart.read32(register::FR) & (TXFE | BUSY) == TXFE,
        format_args!("everything should have been sent: TXFE set, BUSY clear"),
    )?;
    check!(uart.read32(register::FR) & console::TXFF == 0, "TXFF should be clear when all is sent");
    Ok(())
}

fn transmit_interrupt() -> Outcome {
    let uart = console::uart();
    let intid = machine().uart.intid;
    gic::enable(intid);
    uart.write32(register::ICR, TX);
    // The interrupt comes when the FIFO drains past its level: more characters than the FIFO holds, here at the line's
    // beginning, where they don't show.
    for _ in 0..32 {
        console::write_byte(b'\r');
    }
    expect_soon(|| uart.read32(register::RIS) & TX != 0, format_args!("RIS.TX after characters were sent"))?;
    check_eq!(uart.read32(register::MIS), 0, "MIS while everything is masked");
    check!(!wait_until(GRACE_MS, runtime::cpu::irq_waits), "no interrupt while everything is masked");
    uart.write32(register::IMSC, TX);
    check_eq!(uart.read32(register::MIS), TX, "MIS with TX let through");
    runtime::cpu::unmask_irqs();
    let came = wait(|| recorder::count(0) > 0);
    runtime::cpu::mask_irqs();
    check!(came, "INTID {intid} should come");
    check_eq!(recorder::intids(0).as_slice(), &[intid][..], "interrupts");
    uart.write32(register::ICR, TX);
    check_eq!(uart.read32(register::RIS) & TX, 0, "RIS.TX after ICR");
    uart.write32(register::IMSC, TX);
    check!(!wait_until(GRACE_MS, runtime::cpu::irq_waits), "no interrupt after ICR");
    uart.write32(register::IMSC, 0);
    Ok(())
}

/// With the transmitter's end wired to the receiver's (CR.LBE), and nothing left from before.
fn with_loopback(body: fn() -> Outcome) -> Outcome {
    const LBE: u32 = 1 << 7;
    let uart = console::uart();
    let control = uart.read32(register::CR);
    while console::read_byte().is_some() {}
    uart.write32(register::ICR, 0x7ff);
    uart.write32(register::CR, control | LBE);
    let outcome = body();
    timer::delay_microseconds(1000);
    uart.write32(register::CR, control);
    while console::read_byte().is_some() {}
    uart.write32(register::ICR, 0x7ff);
    outcome
}

fn loopback() -> Outcome {
    with_loopback(|| {
        for byte in *b"loop" {
            console::write_byte(byte);
        }
        for byte in *b"loop" {
            let mut got = None;
            wait_until(1000, || {
                got = console::read_byte();
                got.is_some()
            });
            check_eq!(got, Some(byte), "byte that comes back");
        }
        check!(console::uart().read32(register::FR) & RXFE != 0, "the receive FIFO should be empty");
        Ok(())
    })
}

fn receive_interrupt() -> Outcome {
    with_loopback(|| {
        let uart = console::uart();
        let intid = machine().uart.intid;
        gic::enable(intid);
        uart.write32(register::IMSC, RX | RECEIVE_TIMEOUT);
        check!(!wait_until(GRACE_MS, runtime::cpu::irq_waits), "no interrupt while nothing has come");
        console::write_byte(b'x');
        runtime::cpu::unmask_irqs();
        let came = wait_until(2000, || recorder::count(0) > 0);
        runtime::cpu::mask_irqs();
        check!(came, "INTID {intid} should come for one byte");
        check_eq!(console::read_byte(), Some(b'x'), "the byte");
        uart.write32(register::IMSC, RX | RECEIVE_TIMEOUT);
        // Reading the last byte takes the interrupt back, without ICR.
        check!(!wait_until(GRACE_MS, runtime::cpu::irq_waits), "no interrupt after the byte was read");
        uart.write32(register::IMSC, 0);
        Ok(())
    })
}
