//! The board's console: EL2's log and the guests' output to one UART, and its input to the guest in focus.
//!
//! While guests run, only CPU 0 touches the UART. Output waits in rings (each VM's UART, each CPU's log) until CPU 0
//! fetches it, a bounded piece at a time; a full ring holds back the guest that fills it, as a slow line would. One VM has
//! the focus, the first one at the start: its output goes out as it comes, and it gets the input, but for the keys that
//! give the focus to another (`vmm::console`). Other VMs' output goes out line by line, with their names. No line is torn:
//! where something breaks into one that the VM in focus has begun, the beginning is said again, and a control sequence goes
//! out whole or not at all.

use alloc::vec::Vec;
use core::ops::DerefMut;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use abi::record::state;
use arrayvec::ArrayVec;
use platform::gic::Trigger;
use platform::power::End;
use platform::tree::Board;
use platform::uart::Uart;
use spin::Once;
use vmm::console::{self, Command, HELP, History, Key, Keys, Line, Progress, Return, SEQUENCE, colour};

use crate::lock::Mutex;
use crate::percpu::{self, request, this_cpu};
use crate::{gic, logging, power, timer, vm};

/// Bytes that one call of [`service`] sends at most.
const BUDGET: usize = 256;
/// Bytes of one piece that is staged, what is added to it apart.
const CHUNK: usize = logging::MESSAGE;
/// Bytes fetched from a VM at a time. There is often but one, so that the buffer's size counts.
const FETCHED: usize = 64;
/// Pieces of a line in progress that go out before the log does.
const CONTINUED: u32 = 32;
/// Longest line of a VM out of focus that stays whole.
const LINE: usize = 200;
/// Bytes of input that wait for a VM.
const WAITING: usize = 256;
/// Bytes that are kept of what each VM said last.
const KEPT: usize = 4096;
/// Bytes that colours take: a name's, and to end the line's own.
const COLOURS: usize = 13;

/// What a VM has said.
#[derive(Default)]
struct Output {
    /// Its line, as far as it has come.
    line: Line<LINE>,
    /// How that line ends, while it has the focus.
    returned: Return,
    /// What it said last.
    said: History<KEPT>,
}

/// What a VM said last, while it is shown again.
struct Replay {
    vm: usize,
    next: usize,
    end: usize,
}

struct Console {
    uart: Option<Uart>,
    /// Fetched, and not sent yet; from `sent` on.
    staged: ArrayVec<u8, { CHUNK + LINE + SEQUENCE + 8 }>,
    sent: usize,
    /// The last byte that was staged ended a line.
    at_line_start: bool,
    /// Pieces that went out since, before the log.
    continued: u32,
    /// The UART has no interrupt: sending waits for room.
    polled: bool,
    /// Came from the board, and the VM in focus has no room for it yet: it is kept here, so that a command that is typed
    /// behind it is found even if that VM takes nothing any more.
    input: ArrayVec<u8, WAITING>,
    /// Which VM has the focus.
    focus: usize,
    keys: Keys,
    /// By VM.
    outputs: Vec<Output>,
    /// What Hanok itself said last.
    log: History<KEPT>,
    /// What the VM in focus has begun isn't there any more, and has to be said again.
    broken: bool,
    replay: Option<Replay>,
    /// Names have colours.
    coloured: bool,
    next: usize,
}

static CONSOLE: Mutex<Console> = Mutex::new(Console {
    uart: None,
    staged: ArrayVec::new_const(),
    sent: 0,
    at_line_start: true,
    continued: 0,
    polled: false,
    input: ArrayVec::new_const(),
    focus: 0,
    keys: Keys::new(),
    outputs: Vec::new(),
    log: History::new(),
    broken: false,
    replay: None,
    coloured: true,
    next: 0,
});

/// What is to become of the board when everything has been sent.
static END: Once<End> = Once::new();

/// The INTID of the UART's line; 0: it has none.
static INTID: AtomicU32 = AtomicU32::new(0);

/// Gives the console its UART, or takes it away.
pub fn init(uart: Option<Uart>) {
    CONSOLE.lock().uart = uart;
}

/// Whether this is the UART's line.
pub fn has_line(intid: u32) -> bool {
    intid != 0 && INTID.load(Ordering::Relaxed) == intid
}

/// Sends at once, waiting for the UART: before guests run.
pub fn write_now(bytes: &[u8]) {
    let mut console = CONSOLE.lock();
    for byte in bytes {
        console.log.push(*byte);
        if let Some(uart) = &mut console.uart {
            uart.send(*byte);
        }
    }
}

/// Sends at once, whoever holds the console: in a crash.
pub fn write_in_crash(text: &str) {
    // Another CPU may hold the lock, and is being stopped; its own output may be torn.
    for _ in 0..1_000_000 {
        if let Some(mut console) = CONSOLE.try_lock() {
            if let Some(uart) = &mut console.uart {
                send_text(uart, text);
            }
            return;
        }
        core::hint::spin_loop();
    }
    // SAFETY: EL2 has crashed. The holder of the lock is halted or is this very CPU, and will never go on.
    unsafe { CONSOLE.force_unlock() };
    if let Some(mut console) = CONSOLE.try_lock()
        && let Some(uart) = &mut console.uart
    {
        send_text(uart, text);
    }
}

fn send_text(uart: &mut Uart, text: &str) {
    for byte in text.bytes() {
        if byte == b'\n' {
            uart.send(b'\r');
        }
        uart.send(byte);
    }
}

/// From now on guests run: the UART's interrupts come to CPU 0, and nobody waits for it any more.
pub fn start(board: &Board<'_>) {
    let interrupt = board.console().and_then(|uart| uart.interrupt);
    if interrupt.is_none() && board.console().is_some() {
        log::warn!(
            "the console's UART has no interrupt in the device tree: it takes no input, and sending waits for it"
        );
    }
    let mut console = CONSOLE.lock();
    console.polled = interrupt.is_none();
    console.coloured = !board.bootargs.split_whitespace().any(|argument| argument == "hanok.color=off");
    console.outputs.resize_with(vm::all().count(), Output::default);
    let Some(uart) = &mut console.uart else { return };
    uart.start_receiving();
    drop(console);
    if let Some(intid) = interrupt {
        INTID.store(intid, Ordering::Relaxed);
        gic::take_spi(intid, Trigger::Level);
    }
    logging::defer();
}

/// What VM number `by`, or Hanok itself, said from `position` on: how many bytes of it are in `out` now, and where to go on.
/// A position whose bytes aren't kept any more counts as that of the oldest. `None`: not now.
pub fn history(by: Option<usize>, position: u64, out: &mut [u8]) -> Option<(usize, u64)> {
    let console = CONSOLE.try_lock()?;
    let said = match by {
        Some(vm) => console.outputs.get(vm).map(|output| &output.said),
        None => Some(&console.log),
    };
    let result = said.map_or((0, position), |said| {
        let start = position as usize;
        let is_kept = start == said.end() || said.get(start).is_some();
        let mut next = if is_kept && start != 0 { start } else { said.start() };
        let mut count = 0;
        while let (Some(slot), Some(byte)) = (out.get_mut(count), said.get(next)) {
            *slot = byte;
            count = count.wrapping_add(1);
            next = next.wrapping_add(1);
        }
        (count, next as u64)
    });
    drop(console);
    catch_up();
    Some(result)
}

/// Gives the focus to VM number `vm`, which there is. False: not now.
pub fn try_focus(vm: usize) -> bool {
    let Some(mut console) = CONSOLE.try_lock() else { return false };
    if console.focus != vm {
        console.give_focus(vm);
    }
    drop(console);
    catch_up();
    true
}

/// CPU 0 has found the console in use while somebody else looked at it.
static MISSED: AtomicBool = AtomicBool::new(false);

/// If CPU 0 has found the console in use, it is to look again.
fn catch_up() {
    if MISSED.swap(false, Ordering::SeqCst)
        && let Some(cpu) = percpu::get(0)
    {
        cpu.request(request::CONSOLE);
    }
}

/// The console, for CPU 0; or whoever has it will call.
fn lock_or_miss() -> Option<impl DerefMut<Target = Console>> {
    CONSOLE.try_lock().or_else(|| {
        MISSED.store(true, Ordering::SeqCst);
        // It may have been let go before that could be seen.
        CONSOLE.try_lock()
    })
}

/// Something waits to go out, or there is room for input again: makes CPU 0 see to it.
pub fn wake() {
    if this_cpu().index == 0 {
        service();
    } else if let Some(cpu) = percpu::get(0) {
        cpu.request(request::CONSOLE);
    }
}

/// Turns the board off or over when everything has been sent.
pub fn request_end(how: End) {
    END.call_once(|| how);
    wake();
}

/// Takes input and sends output, as much as there is room for. On CPU 0.
pub fn service() {
    // This may be called where it is at work already: a byte that goes to a guest may make a message. What that says is
    // seen to by the call that is at work; and where another CPU looks at the console, that one calls when it has (`catch_up`).
    let Some(mut console) = lock_or_miss() else { return };
    let receiving = console.receive();
    let mut all_sent = console.send();
    let ending = END.get().copied();
    if all_sent && ending.is_some() && console.flush_lines() {
        all_sent = console.send();
    }
    let end = ending.filter(|_| all_sent);
    if end.is_some() {
        console.drain();
    }
    if let Some(uart) = &mut console.uart {
        uart.set_interrupts(receiving, !all_sent);
    }
    drop(console);
    if let Some(how) = end {
        power::end(how);
    }
}

/// Longer than a full UART takes at 9600 baud, in microseconds.
const DRAINING: u64 = 50_000;

impl Console {
    /// Waits until the UART's last byte has left. Not for ever: the other side may hold it back.
    fn drain(&mut self) {
        let start = timer::now();
        while self.uart.as_mut().is_some_and(|uart| !uart.is_idle())
            && timer::now().wrapping_sub(start) < timer::ticks(DRAINING)
        {}
    }

    /// Hands input to the VM in focus, and does what commands say. False: that VM has no room, so the board's UART keeps what
    /// else comes.
    fn receive(&mut self) -> bool {
        self.hand_over();
        for _ in 0..BUDGET {
            if self.input.is_full() {
                return false;
            }
            let Some(byte) = self.uart.as_mut().and_then(Uart::receive) else { break };
            match self.keys.take(byte) {
                Key::Input(byte) => {
                    let _ = self.input.try_push(byte);
                    self.hand_over();
                }
                Key::Begun => {}
                Key::Command(command) => self.command(command),
            }
        }
        true
    }

    /// Gives the VM in focus as much of the input as it has room for. One that doesn't run takes all, and has no use for it.
    fn hand_over(&mut self) {
        let Some(vm) = vm::all().nth(self.focus) else { return self.input.clear() };
        let takes = |byte: &u8| !vm.phase().may_listen() || vm.receive(*byte);
        let taken = self.input.iter().take_while(|byte| takes(byte)).count();
        drop(self.input.drain(..taken));
    }

    fn command(&mut self, command: Command) {
        let count = vm::all().count();
        let vm = |number: usize| vm::all().nth(number).map_or("no VM", |vm| vm.name.as_str());
        match command {
            Command::Next | Command::Previous | Command::Select(_) => {
                self.give_focus(command.focus(self.focus, count));
            }
            Command::List => {
                for (number, vm) in (1..=count).zip(vm::all()) {
                    let focus = if number == self.focus.saturating_add(1) { ", in focus" } else { "" };
                    logging::say(format_args!("{number} {}: {}{focus}", vm.name, state::name(vm.state())));
                }
            }
            Command::Replay => {
                let Some(output) = self.outputs.get(self.focus) else { return };
                let (next, end) = (output.said.start(), output.said.end());
                logging::say(format_args!("the last lines of {}:", vm(self.focus)));
                self.replay = Some(Replay { vm: self.focus, next, end });
            }
            Command::Help => logging::say(format_args!("{HELP}")),
        }
    }

    fn give_focus(&mut self, focus: usize) {
        if self.focus != focus {
            // What waits was typed for the other VM.
            self.input.clear();
            self.broken = true;
        }
        self.focus = focus;
        let (number, count) = (focus.saturating_add(1), vm::all().count());
        let name = vm::all().nth(focus).map_or("no VM", |vm| vm.name.as_str());
        logging::say(format_args!("console of {name} ({number} of {count})"));
    }

    /// Sends what waits. True: nothing is left.
    fn send(&mut self) -> bool {
        for _ in 0..BUDGET {
            if self.sent == self.staged.len() && !self.stage() {
                return true;
            }
            // Nothing is staged where the piece ended before a line of a VM out of focus did.
            let Some(byte) = self.staged.get(self.sent).copied() else { continue };
            let sent = match &mut self.uart {
                // Nobody would say when there is room again.
                Some(uart) if self.polled => {
                    uart.send(byte);
                    true
                }
                Some(uart) => uart.try_send(byte),
                // No console: what guests say is gone, and they need not wait.
                None => true,
            };
            if !sent {
                return false;
            }
            self.sent = self.sent.wrapping_add(1);
        }
        false
    }

    /// Fetches the next piece from whoever has one: first the log, then the VMs in turn. A line that the VM in focus has
    /// begun, though, goes on before the log breaks in, for a few pieces.
    fn stage(&mut self) -> bool {
        self.staged.clear();
        self.sent = 0;
        if !self.at_line_start && self.continued < CONTINUED && self.stage_focus() {
            self.continued = self.continued.saturating_add(1);
            return true;
        }
        self.continued = 0;
        if percpu::all().any(|cpu| cpu.log.waits() && self.stage_log(&cpu.log)) || self.stage_replay() {
            return true;
        }
        let vms = vm::all().count();
        for turn in 0..vms {
            let index = self.next.wrapping_add(turn).checked_rem(vms).unwrap_or(0);
            let Some(vm) = vm::all().nth(index) else { continue };
            if index == self.focus {
                if self.stage_focus() {
                    self.next = index.wrapping_add(1);
                    return true;
                }
                continue;
            }
            if !vm.has_output() {
                continue;
            }
            // Each byte may end a line, which a name, colours and a few characters are added to.
            let added = vm.name.len().saturating_add(6).saturating_add(COLOURS);
            let room = CHUNK.saturating_sub(LINE).checked_div(added).unwrap_or(1).clamp(1, FETCHED);
            let mut chunk = [0; FETCHED];
            let count = chunk.get_mut(..room).map_or(0, |chunk| vm.drain(chunk));
            self.next = index.wrapping_add(1);
            let said = chunk.get(..count).unwrap_or(&[]);
            self.keep(index, said);
            self.gather(index, &vm.name, said);
            return true;
        }
        // Nobody has anything to say, so what has been begun can stand there.
        core::mem::take(&mut self.broken) && self.say_again()
    }

    /// The next messages of a CPU's log. Whether there were any.
    #[inline(never)]
    fn stage_log(&mut self, log: &logging::Ring) -> bool {
        let mut chunk = [0; CHUNK];
        let count = log.take(&mut chunk);
        let said = chunk.get(..count).unwrap_or(&[]);
        if said.is_empty() {
            return false;
        }
        said.iter().for_each(|byte| self.log.push(*byte));
        self.begin_line();
        self.put(said);
        true
    }

    /// The next piece of the VM in focus, as it is.
    fn stage_focus(&mut self) -> bool {
        let Some(vm) = vm::all().nth(self.focus).filter(|vm| vm.has_output()) else { return false };
        let mut chunk = [0; FETCHED];
        let count = vm.drain(&mut chunk);
        if core::mem::take(&mut self.broken) {
            self.say_again();
        }
        let said = chunk.get(..count).unwrap_or(&[]);
        self.keep(self.focus, said);
        let mut shown: ArrayVec<u8, { FETCHED + SEQUENCE }> = ArrayVec::new();
        if let Some(Output { line, returned, .. }) = self.outputs.get_mut(self.focus) {
            console::show(line, returned, said, |part| {
                let _ = shown.try_extend_from_slice(part);
            });
        }
        self.put(&shown);
        true
    }

    /// What the VM in focus has begun. Whether that is anything.
    fn say_again(&mut self) -> bool {
        let mut text: ArrayVec<u8, LINE> = ArrayVec::new();
        if let Some(output) = self.outputs.get(self.focus) {
            let _ = text.try_extend_from_slice(output.line.text());
        }
        if text.is_empty() {
            return false;
        }
        self.begin_line();
        self.put(&text);
        self.broken = false;
        true
    }

    /// The next line of what is shown again. What has no end yet stands there anyway, or will be said again.
    fn stage_replay(&mut self) -> bool {
        let Some(Replay { vm, mut next, end }) = self.replay.take() else { return false };
        let Some(output) = self.outputs.get(vm) else { return false };
        let mut line: Line<LINE> = Line::new();
        // What was said meanwhile may have taken the place of what was to be shown: then this ends.
        while next != end
            && let Some(byte) = output.said.get(next)
        {
            next = next.wrapping_add(1);
            if line.push(byte) != Progress::Open {
                self.replay = Some(Replay { vm, next, end });
                self.begin_line();
                self.put(line.text());
                self.put(if line.is_coloured() { b"\x1b[0m\r\n" } else { b"\r\n" });
                return true;
            }
        }
        self.broken = true;
        false
    }

    fn keep(&mut self, index: usize, said: &[u8]) {
        if let Some(output) = self.outputs.get_mut(index) {
            said.iter().for_each(|byte| output.said.push(*byte));
        }
    }

    /// The last words of VMs out of focus, which no line's end will bring out any more. Whether there were any; they are
    /// short, so that all fit that are likely to be.
    fn flush_lines(&mut self) -> bool {
        self.staged.clear();
        self.sent = 0;
        let focus = self.focus;
        for (index, vm) in (0..vm::all().count()).zip(vm::all()).filter(|(index, _)| *index != focus) {
            if self.outputs.get(index).is_some_and(|output| !output.line.text().is_empty()) {
                self.gather(index, &vm.name, b"\n");
            }
        }
        !self.staged.is_empty()
    }

    /// What starts a line of its own must not be appended to somebody's half line.
    fn begin_line(&mut self) {
        if !self.at_line_start {
            let output = self.outputs.get_mut(self.focus);
            let is_whole = output.is_some_and(|output| output.returned.break_in());
            // A terminal that knows colours can take the half line away.
            self.put(if self.coloured && !is_whole { b"\r\x1b[K" } else { b"\r\n" });
            self.at_line_start = true;
            self.broken = true;
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        // Room was made sure of by whoever cut the piece.
        let room = self.staged.remaining_capacity().min(bytes.len());
        let _ = self.staged.try_extend_from_slice(bytes.get(..room).unwrap_or(&[]));
        if let Some(last) = bytes.last() {
            self.at_line_start = *last == b'\n';
        }
    }

    /// Adds to the line of a VM out of focus, and puts it out when it is whole.
    fn gather(&mut self, index: usize, name: &str, bytes: &[u8]) {
        for byte in bytes {
            let Some(Output { line, returned, .. }) = self.outputs.get_mut(index) else { return };
            *returned = Return::None;
            if line.push(*byte) == Progress::Open {
                continue;
            }
            let whole = core::mem::take(line);
            self.begin_line();
            if self.coloured {
                self.put(&[ESC, b'[', b'3', b'0'.wrapping_add(colour(index) % 10), b'm']);
            }
            self.put(b"[");
            self.put(name.as_bytes());
            self.put(if self.coloured { b"]\x1b[0m " } else { b"] " });
            self.put(whole.text());
            self.put(if whole.is_coloured() { b"\x1b[0m\r\n" } else { b"\r\n" });
        }
    }
}

/// Begins a control sequence.
const ESC: u8 = 0x1b;
