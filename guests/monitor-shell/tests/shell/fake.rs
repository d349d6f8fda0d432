//! The made-up machine.

use std::collections::VecDeque;
use std::fmt;

use abi::hanok::right;
use abi::record::{BoardRecord, CrashRecord, VcpuRecord, VmRecord, crash, state};
use abi::{Control, Error, Identity, Speaker};
use monitor_shell::{Host, Shell};

/// Ticks in a second.
const FREQUENCY: u64 = 1_000_000;

/// What comes from the keyboard.
#[derive(Clone, Copy, Debug)]
pub enum Typed {
    Key(u8),
    /// Nothing, for as long as somebody waits.
    Silence,
}

/// This text, key by key.
pub fn typed(text: &str) -> Vec<Typed> {
    text.bytes().map(Typed::Key).collect()
}

/// What Hanok was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Control(Control, u32),
    /// And what was on the terminal by then.
    Focus(u32, String),
}

pub struct FakeVm {
    pub record: VmRecord,
    /// Of its vCPUs.
    pub power: u64,
    /// Seconds after which they are on.
    pub on_after: u64,
    pub crash: Option<CrashRecord>,
    pub said: Vec<u8>,
}

impl FakeVm {
    /// It runs, pinned.
    pub fn new(name: &str, vcpus: u64) -> Self {
        let record = VmRecord {
            name: VmRecord::words_of_name(name),
            state: state::RUNNING,
            vcpus,
            memory: 64 << 20,
            held: 65 << 20,
            starts: 1,
            frequency: FREQUENCY,
            ..VmRecord::from_words(&[])
        };
        Self { record, power: 2, on_after: 0, crash: None, said: Vec::new() }
    }

    /// As [`VmRecord`] has it; times in microseconds, which are ticks here.
    pub fn sharing(mut self, sharing: u64, share: u64, period: u64) -> Self {
        self.record = VmRecord { sharing, share, period, ..self.record };
        self
    }
}

pub struct Fake {
    pub vms: Vec<FakeVm>,
    /// Hanok's own.
    pub log: Vec<u8>,
    pub asked: Vec<Asked>,
    /// Control is refused with BUSY.
    pub busy: bool,
    own: u32,
    rights: u32,
    is_hanok: bool,
    now: u64,
    keys: VecDeque<Typed>,
    terminal: String,
}

impl Fake {
    /// With all rights.
    pub fn new(vms: Vec<FakeVm>, own: u32) -> Self {
        Self {
            vms,
            log: Vec::new(),
            asked: Vec::new(),
            busy: false,
            own,
            rights: right::CONTROL | right::STATISTICS | right::CONSOLE,
            is_hanok: true,
            now: START,
            keys: VecDeque::new(),
            terminal: String::new(),
        }
    }

    pub fn rights(mut self, rights: u32) -> Self {
        self.rights &= rights;
        self
    }

    /// Under another hypervisor.
    pub fn elsewhere(mut self) -> Self {
        self.is_hanok = false;
        self
    }

    /// This VM has crashed two seconds ago.
    pub fn crashed(mut self, vm: usize) -> Self {
        let report = CrashRecord {
            why: crash::SERROR,
            at: self.now - 2 * FREQUENCY,
            esr: 0xbe00_0000,
            pc: 0xffff_8000_1008_0000,
            pstate: 0x3c5,
            instruction: 1 << 32 | 0xd503_207f,
            x: std::array::from_fn(|n| 0x100 + n as u64),
            exits: 2,
            exit: std::array::from_fn(|n| match n {
                0 => 0,
                1 => 0xffff_8000_1008_0004,
                2 => 0x5a00_0000,
                3 => 0x4008_0008,
                // Behind the last one, and not to be told.
                _ => 0x5a00_0000,
            }),
            ..CrashRecord::from_words(&[])
        };
        self.vms[vm].crash = Some(report);
        self.vms[vm].record.crashes = 1;
        self
    }

    /// Runs the shell until all of this is typed; what it has printed.
    pub fn run(mut self, keys: Vec<Typed>) -> (Self, String) {
        self.keys = keys.into();
        let mut shell = Box::new(Shell::new(self));
        shell.run();
        let mut fake = std::mem::replace(shell.host(), Self::new(Vec::new(), 0));
        let said = std::mem::take(&mut fake.terminal);
        (fake, said)
    }

    /// How long it took.
    pub fn seconds(&self) -> u64 {
        (self.now - START) / FREQUENCY
    }

    fn allowed(&self, right: u32) -> Result<(), Error> {
        match (self.is_hanok, self.rights & right) {
            (false, _) => Err(Error::NotSupported),
            (true, 0) => Err(Error::Denied),
            (true, _) => Ok(()),
        }
    }

    fn find(&self, vm: u32) -> Result<&FakeVm, Error> {
        self.vms.get(vm as usize).ok_or(Error::InvalidParameters)
    }
}

/// The counter when all begins.
const START: u64 = 100 * FREQUENCY;

impl fmt::Write for Fake {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.terminal.push_str(text);
        if let Some(own) = self.vms.get_mut(self.own as usize) {
            own.said.extend(text.replace('\n', "\r\n").bytes());
        }
        Ok(())
    }
}

impl Host for Fake {
    fn revision(&mut self) -> Result<(u32, u32), Error> {
        if self.is_hanok { Ok((1, 0)) } else { Err(Error::NotSupported) }
    }

    fn identity(&mut self) -> Result<Identity, Error> {
        self.revision()?;
        Ok(Identity { vm: self.own, vcpu: 0, rights: self.rights })
    }

    fn board(&mut self) -> Result<BoardRecord, Error> {
        self.allowed(right::STATISTICS)?;
        Ok(BoardRecord { free: 1800 << 20, now: self.now, ..BoardRecord::from_words(&[]) })
    }

    fn vm(&mut self, vm: u32) -> Result<VmRecord, Error> {
        self.allowed(right::STATISTICS)?;
        Ok(VmRecord { now: self.now, ..self.find(vm)?.record })
    }

    /// In each second of a VM that runs: half of it, a quarter of it, 100 interrupts, and 10, 20 and so on exits.
    fn vcpu(&mut self, vm: u32, vcpu: u32) -> Result<VcpuRecord, Error> {
        self.allowed(right::STATISTICS)?;
        let FakeVm { record, power, on_after, .. } = self.find(vm)?;
        if u64::from(vcpu) >= record.vcpus {
            return Err(Error::InvalidParameters);
        }
        let ticks = if record.state == state::RUNNING { self.now } else { START };
        Ok(VcpuRecord {
            cpu: vcpu.into(),
            power: if self.seconds() < *on_after { 0 } else { *power },
            ran: ticks / 2,
            waited: ticks / 4,
            exits: std::array::from_fn(|n| (n as u64 + 1) * 10 * ticks / FREQUENCY),
            interrupts: 100 * ticks / FREQUENCY,
            now: self.now,
        })
    }

    fn crash(&mut self, vm: u32) -> Result<Option<CrashRecord>, Error> {
        self.allowed(right::STATISTICS)?;
        Ok(self.find(vm)?.crash)
    }

    fn history(&mut self, whose: Speaker, position: u64, buffer: &mut [u8]) -> Result<(usize, u64), Error> {
        let said = match whose {
            Speaker::Hanok => {
                self.allowed(right::STATISTICS)?;
                &self.log
            }
            Speaker::Vm(vm) => {
                self.allowed(right::CONSOLE)?;
                &self.find(vm)?.said
            }
        };
        let rest = &said[(position as usize).min(said.len())..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok((count, position + count as u64))
    }

    fn control(&mut self, what: Control, vm: u32) -> Result<(), Error> {
        self.allowed(right::CONTROL)?;
        self.find(vm)?;
        if self.busy {
            return Err(Error::Busy);
        }
        let record = &mut self.vms[vm as usize].record;
        record.state = match (what, record.state) {
            (Control::Start, state::STOPPED) | (Control::Resume, state::PAUSED) => state::RUNNING,
            (Control::Pause, state::RUNNING) => state::PAUSED,
            (Control::Stop, state::RUNNING | state::PAUSED) => state::STOPPING,
            (Control::Restart, _) => state::STARTING,
            _ => return Err(Error::WrongState),
        };
        self.asked.push(Asked::Control(what, vm));
        Ok(())
    }

    fn focus(&mut self, vm: u32) -> Result<(), Error> {
        self.allowed(right::CONSOLE)?;
        self.find(vm)?;
        self.asked.push(Asked::Focus(vm, self.terminal.clone()));
        Ok(())
    }

    fn now(&mut self) -> u64 {
        self.now
    }

    fn frequency(&mut self) -> u64 {
        FREQUENCY
    }

    fn key(&mut self, until: Option<u64>) -> Option<u8> {
        match (self.keys.pop_front(), until) {
            (Some(Typed::Key(byte)), _) => Some(byte),
            (Some(Typed::Silence), Some(until)) => {
                self.now = until;
                None
            }
            (None, None) => None,
            (typed, until) => panic!("{typed:?} is no answer for who waits until {until:?}"),
        }
    }
}
