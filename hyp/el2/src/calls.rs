//! Hanok's own calls, carried out. [`vmm::calls`] says what is asked.
//!
//! Other VMs' locks are only tried: where one is held, the caller is told to call again. A buffer is in the caller's RAM and is reached by
//! copying; however large it is, a call moves no more than [`BLOCK`] bytes.

use abi::hanok::{BUSY, DENIED, INVALID_PARAMETERS, SUCCESS, WRONG_STATE};
use abi::record::{self, BoardRecord};
use vgic::bounds;
use vmm::calls::{Buffer, Request, WatchdogRequest};
use vmm::layout::Ipa;
use vmm::life::{Event, LONGEST_TIMEOUT, Phase};

use crate::exit::Frame;
use crate::guest_memory::{self, Source};
use crate::vcpu::Vcpu;
use crate::vm::{self, Vm};
use crate::{console, memory, percpu, run, timer};

/// The most bytes of text that one call moves.
pub const BLOCK: usize = 256;

/// Carries out a call. What it answers is in the frame; whether the vCPU goes on is for its VM's phase to say.
pub fn answer(vcpu: &'static Vcpu, frame: &mut Frame, request: Request) {
    let right = request.right();
    if vcpu.vm.rights & right != right {
        vcpu.vm.note_denied(&request);
        frame.set(0, DENIED as u64);
        return;
    }
    match request {
        Request::Identity => {
            let number = vm::number_of(vcpu.vm).unwrap_or(0);
            for (n, value) in (0..4).zip([SUCCESS as u64, number, vcpu.id.0.into(), vcpu.vm.rights.into()]) {
                frame.set(n, value);
            }
        }
        Request::Watchdog(what) => {
            let (code, values) = watchdog(vcpu.vm, what);
            frame.set(0, code as u64);
            for (n, value) in (1..=2).zip(values.into_iter().flatten()) {
                frame.set(n, value);
            }
        }
        Request::Crash => {
            vcpu.vm.crash(vcpu, record::crash::SAID_SO);
            frame.set(0, SUCCESS as u64);
            run::leave_if_stopped(frame);
        }
        Request::Control(number, event) => {
            let done = control(vcpu.vm, number, event);
            frame.set(0, done.map_or_else(|code| code, |()| SUCCESS) as u64);
            // It may have been about the caller.
            run::leave_if_stopped(frame);
        }
        Request::History { by, position, buffer } => match history(vcpu.vm, by, position, buffer) {
            Ok((count, next)) => {
                frame.set(0, count);
                frame.set(1, next);
            }
            Err(code) => frame.set(0, code as u64),
        },
        Request::ConsoleWrite(buffer) => finish(frame, console_write(vcpu.vm, buffer)),
        Request::ConsoleRead(buffer) => finish(frame, console_read(vcpu.vm, buffer)),
        Request::Doorbell(channel) => {
            let rung = vcpu.vm.ring(channel);
            finish(frame, if rung { Ok(SUCCESS as u64) } else { Err(INVALID_PARAMETERS) });
        }
        Request::BoardInfo(buffer) => finish(frame, board_info(vcpu.vm, buffer)),
        Request::VmInfo(number, buffer) => finish(frame, vm_info(vcpu.vm, number, buffer)),
        Request::VcpuInfo(number, other, buffer) => {
            finish(frame, vcpu_info(vcpu.vm, (number, other), buffer))
        }
        Request::CrashReport(number, buffer) => finish(frame, crash_report(vcpu.vm, number, buffer)),
        Request::Focus(number) => finish(frame, focus(number)),
    }
}

fn finish(frame: &mut Frame, result: Result<u64, i64>) {
    frame.set(0, result.unwrap_or_else(|code| code as u64));
}

fn other(number: u32) -> Result<&'static Vm, i64> {
    vm::numbered(number as usize).ok_or(INVALID_PARAMETERS)
}

/// Something is to happen to a VM; it is said who wants it.
fn control(caller: &Vm, number: u32, event: Event) -> Result<(), i64> {
    let vm = other(number)?;
    let (done, what) = match event {
        Event::Pause => (vm.pause(), "paused"),
        Event::Resume => (vm.resume(), "resumed"),
        Event::Stop => (vm.change(event), "stopped"),
        Event::Start => (vm.change(event), "started"),
        _ => (vm.change(event), "restarted"),
    };
    if !done {
        // A crash is being told of or cleared up: it will be possible.
        let passes = matches!(vm.phase(), Phase::Crashing | Phase::Discarding);
        return Err(if passes { BUSY } else { WRONG_STATE });
    }
    if caller.may_log() {
        log::info!("{} is {what} by {}", vm.name, caller.name);
    }
    Ok(())
}

fn watchdog(vm: &Vm, what: WatchdogRequest) -> (i64, [Option<u64>; 2]) {
    let none = [None, None];
    match what {
        WatchdogRequest::Limits => (SUCCESS, [Some(1), Some(LONGEST_TIMEOUT.into())]),
        WatchdogRequest::SetTimeout(seconds) => match vm.set_watchdog(seconds) {
            true => (SUCCESS, none),
            false => (INVALID_PARAMETERS, none),
        },
        WatchdogRequest::Enable(on) => {
            vm.turn_watchdog(on);
            (SUCCESS, none)
        }
        WatchdogRequest::Feed => {
            vm.feed_watchdog();
            (SUCCESS, none)
        }
        WatchdogRequest::TimeLeft => (SUCCESS, [Some(vm.watchdog_left()), None]),
    }
}

/// Bytes that the caller has in a buffer go to its console.
fn console_write(vm: &Vm, buffer: Buffer) -> Result<u64, i64> {
    let mut bytes = [0; BLOCK];
    let bytes = bytes.get_mut(..block(buffer)).unwrap_or(&mut []);
    vm.check(buffer)?;
    if !vm.read(buffer.at, bytes) {
        return Err(INVALID_PARAMETERS);
    }
    Ok(vm.say(bytes) as u64)
}

/// Bytes that were typed for the caller go to its buffer.
fn console_read(vm: &Vm, buffer: Buffer) -> Result<u64, i64> {
    vm.check(buffer)?;
    let mut bytes = [0; BLOCK];
    let count = vm.hear(bytes.get_mut(..block(buffer)).unwrap_or(&mut []));
    put(vm, buffer, bytes.get(..count).unwrap_or(&[]))
}

fn history(vm: &Vm, by: Option<u32>, position: u64, buffer: Buffer) -> Result<(u64, u64), i64> {
    vm.check(buffer)?;
    if let Some(number) = by {
        other(number)?;
    }
    let mut bytes = [0; BLOCK];
    let bytes = bytes.get_mut(..block(buffer)).unwrap_or(&mut []);
    let (count, next) = console::history(by.map(|by| by as usize), position, bytes).ok_or(BUSY)?;
    Ok((put(vm, buffer, bytes.get(..count).unwrap_or(&[]))?, next))
}

fn focus(number: u32) -> Result<u64, i64> {
    other(number)?;
    if console::try_focus(number as usize) { Ok(SUCCESS as u64) } else { Err(BUSY) }
}

fn board_info(caller: &Vm, buffer: Buffer) -> Result<u64, i64> {
    let (memory, free) = memory::try_count().ok_or(BUSY)?;
    let record = BoardRecord {
        cpus: percpu::all().filter(|cpu| cpu.is_online()).fold(0, |cpus: u64, _| cpus.saturating_add(1)),
        vms: vm::all().count() as u64,
        memory,
        free,
        now: timer::now(),
        frequency: timer::frequency(),
    };
    put_words(caller, buffer, &record.to_words())
}

fn vm_info(caller: &Vm, number: u32, buffer: Buffer) -> Result<u64, i64> {
    let record = other(number)?.info().ok_or(BUSY)?;
    put_words(caller, buffer, &record.to_words())
}

fn vcpu_info(caller: &Vm, (number, vcpu): (u32, u32), buffer: Buffer) -> Result<u64, i64> {
    let vm = other(number)?;
    let vcpu = u8::try_from(vcpu).map_err(|_| INVALID_PARAMETERS)?;
    let vcpu = bounds::get(vm.vcpus(), usize::from(vcpu)).ok_or(INVALID_PARAMETERS)?;
    let record = vcpu.info().ok_or(BUSY)?;
    put_words(caller, buffer, &record.to_words())
}

fn crash_report(caller: &Vm, number: u32, buffer: Buffer) -> Result<u64, i64> {
    caller.check(buffer)?;
    let report = other(number)?.last_crash().ok_or(BUSY)?;
    match report {
        Some(report) => put_words(caller, buffer, &report.to_words()),
        None => Ok(0),
    }
}

/// Bytes that a call moves of a buffer.
fn block(buffer: Buffer) -> usize {
    buffer.size.min(BLOCK as u64) as usize
}

/// Writes a record, or as much of it as the buffer has room for.
fn put_words(vm: &Vm, buffer: Buffer, words: &[u64]) -> Result<u64, i64> {
    vm.check(buffer)?;
    let room = (buffer.size / 8) as usize;
    let mut written = 0u64;
    for words in words.get(..room.min(words.len())).unwrap_or(&[]).chunks(BLOCK / 8) {
        let mut bytes = [0; BLOCK];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        let bytes = bytes.get(..words.len().wrapping_mul(8)).unwrap_or(&[]);
        let at = Buffer { at: Ipa::new(buffer.at.as_u64().wrapping_add(written)), ..buffer };
        written = written.wrapping_add(put(vm, at, bytes)?);
    }
    Ok(written)
}

/// Writes all of these bytes, which fit, to where a buffer is.
fn put(vm: &Vm, buffer: Buffer, bytes: &[u8]) -> Result<u64, i64> {
    let mut space = vm.space.lock();
    let (size, mut done) = (bytes.len() as u64, 0u64);
    while done < size {
        let written = guest_memory::write(&mut space, buffer.at, Source::Bytes(bytes), done, size);
        done = done.wrapping_add(written.map_err(|_| INVALID_PARAMETERS)?);
    }
    Ok(size)
}

impl Vm {
    /// Whether a buffer is in its RAM.
    fn check(&self, buffer: Buffer) -> Result<(), i64> {
        let offset =
            buffer.at.as_u64().checked_sub(self.layout.ram.base.as_u64()).ok_or(INVALID_PARAMETERS)?;
        let fits = offset.checked_add(buffer.size).is_some_and(|end| end <= self.ram);
        if fits { Ok(()) } else { Err(INVALID_PARAMETERS) }
    }
}
