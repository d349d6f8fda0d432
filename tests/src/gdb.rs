//! QEMU's gdb stub: stopping the board's CPUs, looking at them and changing them. Of gdb's remote protocol it speaks just
//! the packets that this takes (gdb's manual, appendix "Remote Serial Protocol").

use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::{Failure, Outcome};

/// For an answer that comes at once, and for a CPU to get to where it should stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a running machine is sent to stop it.
const INTERRUPT: u8 = 0x03;

/// A register, by the stub's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// A general-purpose register, 0 to 30.
    X(u8),
    /// The stack pointer of the exception level that runs.
    Sp,
    /// The program counter.
    Pc,
    /// PSTATE, laid out as in SPSR_EL2; 32 bits.
    Pstate,
}

impl Register {
    /// Its number in the protocol.
    fn number(self) -> u8 {
        match self {
            Self::X(n) => n,
            Self::Sp => 31,
            Self::Pc => 32,
            Self::Pstate => 33,
        }
    }
}

/// The registers of a CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    /// X0 to X30.
    pub x: [u64; 31],
    /// The stack pointer.
    pub sp: u64,
    /// The program counter.
    pub pc: u64,
    /// PSTATE.
    pub pstate: u32,
}

impl Registers {
    /// The exception level.
    pub fn level(&self) -> u32 {
        self.pstate >> 2 & 3
    }

    /// Of the stub's answer: all registers one after the other, as they lie in memory.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut words = bytes.chunks_exact(8).map(|word| word.try_into().map(u64::from_le_bytes));
        let mut next = || words.next()?.ok();
        let mut x = [0; 31];
        for register in &mut x {
            *register = next()?;
        }
        let (sp, pc) = (next()?, next()?);
        let pstate = u32::from_le_bytes(*bytes.get(33 * 8..)?.first_chunk()?);
        Some(Self { x, sp, pc, pstate })
    }
}

/// Where a CPU is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Before it executes what is at this address, whichever exception level it is at.
    At(u64),
    /// Before it writes to these four bytes.
    AtWrite(u64),
}

impl Stop {
    fn packet(self, what: char) -> String {
        match self {
            Self::At(address) => format!("{what}0,{address:x},4"),
            Self::AtWrite(address) => format!("{what}2,{address:x},4"),
        }
    }
}

/// A connection to QEMU's gdb stub. The machine stands still from [`Machine::with_gdb`](crate::Machine::with_gdb) on; all
/// of its CPUs run and stop together.
pub struct Gdb {
    stream: BufReader<UnixStream>,
    /// The document that lists the system registers, once it was asked for.
    system_registers: Option<String>,
}

impl Gdb {
    pub(crate) fn new(stream: UnixStream) -> Outcome<Self> {
        stream.set_read_timeout(Some(PATIENCE)).map_err(Failure::io("set a time limit"))?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(Failure::io("set a time limit"))?;
        let mut gdb = Self { stream: BufReader::new(stream), system_registers: None };
        stopped_cpu(&gdb.ask("?")?)?;
        Ok(gdb)
    }

    /// Lets the machine run.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub fn run(&mut self) -> Outcome {
        self.send("c")
    }

    /// Stops the machine, which runs.
    ///
    /// # Errors
    /// When QEMU doesn't answer.
    pub fn interrupt(&mut self) -> Outcome {
        self.write(&[INTERRUPT])?;
        stopped_cpu(&self.receive()?).map(drop)
    }

    /// Lets the machine run until this CPU is at EL2 and stops there. What stops other CPUs, and what stops this one at
    /// a guest's level, is passed over. Returns the CPU's registers.
    ///
    /// # Errors
    /// When it doesn't happen in time.
    pub fn run_to(&mut self, stop: Stop, cpu: usize) -> Outcome<Registers> {
        let limit = Instant::now() + PATIENCE;
        while Instant::now() < limit {
            self.accept(&stop.packet('Z'))?;
            self.run()?;
            let stopped = stopped_cpu(&self.receive()?)?;
            self.accept(&stop.packet('z'))?;
            let registers = self.registers(stopped)?;
            if stopped == cpu && registers.level() == 2 {
                return Ok(registers);
            }
            self.step(stopped)?;
        }
        Err(Failure::Gdb(format!("CPU {cpu} didn't come to {stop:x?} in {} s", PATIENCE.as_secs())))
    }

    /// Lets the machine run until some CPU comes to this address, whichever exception level it is at. It stands before the
    /// instruction.
    ///
    /// # Errors
    /// When it doesn't happen in time.
    pub fn run_to_address(&mut self, address: u64) -> Outcome {
        self.accept(&Stop::At(address).packet('Z'))?;
        self.run()?;
        stopped_cpu(&self.receive()?)?;
        self.accept(&Stop::At(address).packet('z'))
    }

    /// How long to wait for an answer from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn set_patience(&mut self, limit: Duration) -> Outcome {
        self.stream.get_ref().set_read_timeout(Some(limit)).map_err(Failure::io("set a time limit"))
    }

    /// Executes a command of QEMU's human monitor that has nothing to say.
    ///
    /// # Errors
    /// When it has something to say, or QEMU doesn't answer.
    pub fn monitor(&mut self, command: &str) -> Outcome {
        self.accept(&format!("qRcmd,{}", hex(command.as_bytes())))
    }

    /// Has QEMU execute the instructions of all pages of `code` one by one, so that each of them is in its log of `exec`; all else runs as fast as
    /// ever. A page with a breakpoint is executed so, and these are where no instruction is: the machine doesn't stop at any.
    ///
    /// # Errors
    /// When QEMU doesn't answer.
    pub fn one_by_one(&mut self, code: Range<u64>) -> Outcome {
        const PAGE: usize = 4096;
        code.step_by(PAGE).try_for_each(|page| self.accept(&Stop::At(page + 2).packet('Z')))
    }

    /// Lets the machine run until some CPU is at EL2 and comes to one of these addresses. Returns the CPU. It stands before the
    /// instruction; [`step`](Self::step) it before the machine runs on.
    ///
    /// # Errors
    /// When it doesn't happen in time.
    pub fn run_to_any(&mut self, addresses: &[u64]) -> Outcome<usize> {
        let limit = Instant::now() + PATIENCE;
        while Instant::now() < limit {
            for address in addresses {
                self.accept(&Stop::At(*address).packet('Z'))?;
            }
            self.run()?;
            let stopped = stopped_cpu(&self.receive()?)?;
            for address in addresses {
                self.accept(&Stop::At(*address).packet('z'))?;
            }
            let registers = self.registers(stopped)?;
            if registers.level() == 2 && addresses.contains(&registers.pc) {
                return Ok(stopped);
            }
            // A guest has code at the same address.
            self.step(stopped)?;
        }
        Err(Failure::Gdb(format!("no CPU came to any of {addresses:x?} in {} s", PATIENCE.as_secs())))
    }

    /// Lets this CPU execute one instruction.
    ///
    /// # Errors
    /// When QEMU doesn't answer.
    pub fn step(&mut self, cpu: usize) -> Outcome {
        self.accept(&format!("Hc{:x}", cpu + 1))?;
        stopped_cpu(&self.ask("s")?).map(drop)
    }

    /// The registers of a CPU.
    ///
    /// # Errors
    /// When QEMU doesn't tell.
    pub fn registers(&mut self, cpu: usize) -> Outcome<Registers> {
        self.select(cpu)?;
        let answer = self.ask("g")?;
        let registers = bytes(&answer).and_then(|bytes| Registers::parse(&bytes));
        registers.ok_or(Failure::Gdb(format!("these are no registers: {answer}")))
    }

    /// Sets a register of a CPU.
    ///
    /// # Errors
    /// When QEMU doesn't.
    pub fn set(&mut self, cpu: usize, register: Register, value: u64) -> Outcome {
        self.select(cpu)?;
        let size = if register == Register::Pstate { 4 } else { 8 };
        self.accept(&format!("P{:x}={}", register.number(), hex(&value.to_le_bytes()[..size])))
    }

    /// Reads memory as the program on this CPU would; `None` where nothing is mapped for it.
    ///
    /// # Errors
    /// When QEMU doesn't answer.
    pub fn read<const N: usize>(&mut self, cpu: usize, address: u64) -> Outcome<Option<[u8; N]>> {
        self.select(cpu)?;
        let answer = self.ask(&format!("m{address:x},{N:x}"))?;
        if answer.starts_with('E') {
            return Ok(None);
        }
        let read = bytes(&answer).and_then(|bytes| bytes.try_into().ok());
        read.map(Some).ok_or(Failure::Gdb(format!("{answer} is not what lies at {address:#x}")))
    }

    /// Reads physical memory.
    ///
    /// # Errors
    /// When there is none, or QEMU doesn't answer.
    pub fn read_physical<const N: usize>(&mut self, address: u64) -> Outcome<[u8; N]> {
        // A packet of the stub's holds 4096 digits at most.
        const PIECE: usize = 1024;
        let mut memory = [0; N];
        self.accept("Qqemu.PhyMemMode:1")?;
        for (piece, at) in memory.chunks_mut(PIECE).zip((address..).step_by(PIECE)) {
            let answer = self.ask(&format!("m{at:x},{:x}", piece.len()))?;
            let read = bytes(&answer).filter(|read| read.len() == piece.len());
            let read =
                read.ok_or_else(|| Failure::Gdb(format!("memory at {at:#x} is answered by {answer}")))?;
            piece.copy_from_slice(&read);
        }
        self.accept("Qqemu.PhyMemMode:0")?;
        Ok(memory)
    }

    /// Values of a CPU's system registers.
    ///
    /// # Errors
    /// When QEMU knows one of them not, or doesn't tell.
    pub fn system_registers<const N: usize>(&mut self, cpu: usize, names: [&str; N]) -> Outcome<[u64; N]> {
        self.select(cpu)?;
        let document = match self.system_registers.take() {
            Some(document) => document,
            None => {
                // QEMU tells of others than the general registers only who has asked which there are.
                self.document("target.xml")?;
                self.document("system-registers.xml")?
            }
        };
        let mut values = [0; N];
        for (value, name) in values.iter_mut().zip(names) {
            let number = register_number(&document, name);
            let number = number.ok_or_else(|| Failure::Gdb(format!("QEMU tells of no register {name}")))?;
            let answer = self.ask(&format!("p{number:x}"))?;
            let bytes = bytes(&answer).and_then(|bytes| bytes.try_into().ok());
            *value = bytes
                .map(u64::from_le_bytes)
                .ok_or_else(|| Failure::Gdb(format!("{answer} is not the value of {name}")))?;
        }
        self.system_registers = Some(document);
        Ok(values)
    }

    /// A document of those that describe the machine to a debugger.
    fn document(&mut self, name: &str) -> Outcome<String> {
        let mut document = String::new();
        loop {
            let part = self.ask(&format!("qXfer:features:read:{name}:{:x},800", document.len()))?;
            if let Some(last) = part.strip_prefix('l') {
                return Ok(document + last);
            }
            match part.strip_prefix('m') {
                Some(more) if !more.is_empty() => document += more,
                _ => return Err(Failure::Gdb(format!("{name} is answered by \"{part}\""))),
            }
        }
    }

    /// Makes a CPU the one that registers and memory are asked of. Threads count from 1.
    fn select(&mut self, cpu: usize) -> Outcome {
        self.accept(&format!("Hg{:x}", cpu + 1))
    }

    /// Sends a packet that is answered by OK.
    fn accept(&mut self, packet: &str) -> Outcome {
        match self.ask(packet)?.as_str() {
            "OK" => Ok(()),
            answer => Err(Failure::Gdb(format!("{packet} is answered by \"{answer}\""))),
        }
    }

    fn ask(&mut self, packet: &str) -> Outcome<String> {
        self.send(packet)?;
        self.receive()
    }

    fn send(&mut self, packet: &str) -> Outcome {
        self.write(format!("${packet}#{:02x}", checksum(packet.as_bytes())).as_bytes())?;
        match self.byte()? {
            b'+' => Ok(()),
            other => Err(Failure::Gdb(format!("{packet} is not acknowledged but answered by {other:#x}"))),
        }
    }

    fn receive(&mut self) -> Outcome<String> {
        let mut frame = Vec::new();
        let read = self.stream.read_until(b'#', &mut frame);
        read.map_err(Failure::io("read from QEMU's gdb stub"))?;
        let sum = [self.byte()?, self.byte()?];
        let wrong = || Failure::Gdb(format!("no packet: {}", frame.escape_ascii()));
        let packet = frame.strip_prefix(b"$").and_then(|rest| rest.strip_suffix(b"#")).ok_or_else(wrong)?;
        if format!("{:02x}", checksum(packet)).as_bytes() != sum {
            return Err(wrong());
        }
        self.write(b"+")?;
        String::from_utf8(packet.to_vec()).map_err(|_| wrong())
    }

    fn byte(&mut self) -> Outcome<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).map_err(Failure::io("read from QEMU's gdb stub"))?;
        Ok(byte[0])
    }

    fn write(&mut self, bytes: &[u8]) -> Outcome {
        self.stream.get_mut().write_all(bytes).map_err(Failure::io("write to QEMU's gdb stub"))
    }
}

/// The CPU that a stop reply names: `T05thread:02;`, in hexadecimal and from 1.
fn stopped_cpu(reply: &str) -> Outcome<usize> {
    let thread = reply.strip_prefix('T').and_then(|rest| rest.split_once("thread:"));
    let number = thread.and_then(|(_, rest)| rest.split(';').next());
    let number = number.and_then(|number| usize::from_str_radix(number, 16).ok());
    let cpu = number.and_then(|number| number.checked_sub(1));
    cpu.ok_or_else(|| Failure::Gdb(format!("the machine hasn't stopped: {reply}")))
}

/// The stub's number of a register, by the document that lists those of its kind.
fn register_number(document: &str, name: &str) -> Option<usize> {
    let entry = document.split('<').find(|entry| entry.contains(&format!("name=\"{name}\"")))?;
    let (_, number) = entry.split_once("regnum=\"")?;
    number.split('"').next()?.parse().ok()
}

fn checksum(packet: &[u8]) -> u8 {
    packet.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_names_a_cpu() {
        assert_eq!(stopped_cpu("T05thread:01;").expect("a CPU"), 0);
        assert_eq!(stopped_cpu("T05thread:0a;watch:9000000;").expect("a CPU"), 9);
        for other in ["OK", "S05", "T05thread:00;", "T05thread:;"] {
            assert!(stopped_cpu(other).is_err(), "{other}");
        }
    }

    #[test]
    fn registers_have_numbers() {
        let document =
            r#"<reg name="TTBR0_EL1" regnum="90"/><reg name="TTBR0_EL2" bitsize="64" regnum="137"/>"#;
        assert_eq!(register_number(document, "TTBR0_EL2"), Some(137));
        assert_eq!(register_number(document, "TTBR0"), None);
    }

    #[test]
    fn bytes_are_two_digits_each() {
        assert_eq!(bytes("00c903"), Some(vec![0x00, 0xc9, 0x03]));
        assert_eq!(hex(&[0x00, 0xc9, 0x03]), "00c903");
        assert_eq!(bytes("c90"), None);
        assert_eq!(bytes("xx"), None);
    }

    #[test]
    fn registers_lie_one_after_the_other() {
        let mut answer: Vec<u8> = (0..33u64).flat_map(|n| (n << 32 | n).to_le_bytes()).collect();
        assert_eq!(Registers::parse(&answer), None);
        answer.extend(0x3c9u32.to_le_bytes());
        let registers = Registers::parse(&answer).expect("registers");
        assert_eq!(
            (registers.x[30], registers.sp, registers.pc),
            (30 << 32 | 30, 31 << 32 | 31, 32 << 32 | 32)
        );
        assert_eq!((registers.pstate, registers.level()), (0x3c9, 2));
    }
}
