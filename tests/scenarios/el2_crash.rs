//! EL2 itself crashes: its report says what happened and where, line by line, and all CPUs stop. EL2 has no way in for
//! that, so QEMU's gdb stub puts a CPU, while it is at EL2, before something that it can't do.

use std::time::{Duration, Instant};

use regex_lite::{Captures, Regex};
use tests::{
    Board, Code, Failure, Gdb, IMAGE, Machine, Outcome, Register, Registers, Scenario, Stop, Vm, ensure,
    ensure_equal,
};

use crate::case::{Case, GICS};

const PAGE: u64 = 4096;
/// Pages of an EL2 stack, at most.
const STACK_PAGES: u64 = 16;
/// The board's PL011, which EL2 maps where it is.
const UART_DATA: u64 = 0x0900_0000;

const WFI: u32 = 0xd503_207f;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for gic in GICS {
        for cpu in [0, 1] {
            for (name, provoke) in FAULTS {
                let name = format!("el2-crash/{name}/cpu{cpu}/gicv{gic}");
                cases.push(Case::new(name, move |scenario| crashes(scenario, gic, cpu, provoke)));
            }
            let name = format!("el2-crash/panic/cpu{cpu}/gicv{gic}");
            cases.push(Case::new(name, move |scenario| panics(scenario, gic, cpu)));
        }
        // CPU 0 alone writes to the console while guests run.
        let name = format!("el2-crash/in-console/gicv{gic}");
        cases.push(Case::new(name, move |scenario| crashes(scenario, gic, 0, in_console)));
    }
    cases
}

/// Puts a CPU that is at EL2 before something that it can't do, and says what its report must tell.
type Provoke = fn(&mut Victim<'_>) -> Outcome<Report>;

const FAULTS: [(&str, Provoke); 7] = [
    ("jump-to-nowhere", jump_to_nowhere),
    ("jump-into-stack", jump_into_stack),
    ("stack-overflow", stack_overflow),
    ("write-to-code", write_to_code),
    ("misaligned-pc", misaligned_pc),
    ("undefined-instruction", undefined_instruction),
    ("irq", irq),
];

/// What a report says beside registers and stack.
struct Report {
    kind: &'static str,
    syndrome: Option<Syndrome>,
}

struct Syndrome {
    /// ESR_EL2.EC.
    class: u64,
    /// The syndrome in words, as a pattern.
    words: &'static str,
    far: Option<u64>,
}

impl Report {
    fn synchronous(class: u64, words: &'static str, far: Option<u64>) -> Self {
        Self { kind: "synchronous exception", syndrome: Some(Syndrome { class, words, far }) }
    }
}

/// The CPU that is to crash; it is stopped.
struct Victim<'a> {
    gdb: &'a mut Gdb,
    code: &'a Code,
    cpu: usize,
}

impl Victim<'_> {
    fn registers(&mut self) -> Outcome<Registers> {
        self.gdb.registers(self.cpu)
    }

    fn set(&mut self, register: Register, value: u64) -> Outcome {
        self.gdb.set(self.cpu, register, value)
    }

    /// Runs to a function of EL2's, on this CPU.
    fn run_to(&mut self, function: &str) -> Outcome {
        let address = IMAGE + self.code.address(function)?;
        let registers = self.gdb.run_to(Stop::At(address), self.cpu)?;
        ensure_equal("where the CPU stopped", registers.pc, address)
    }

    /// Runs to where a guest's exit is handled, and on until a function is called there that has its own frame on the
    /// stack.
    fn run_into_an_exit(&mut self) -> Outcome {
        for _ in 0..100 {
            self.run_to("handle_data_abort")?;
            // On the way back X29 is the guest's again.
            while !matches!(self.function()?, Some("return_to_guest" | "return_short")) {
                if self.calls()?.len() > 1 {
                    return Ok(());
                }
                self.gdb.step(self.cpu)?;
            }
        }
        Err(Failure::Wrong("handling exits calls no function".to_owned()))
    }

    /// The function that it is in.
    fn function(&mut self) -> Outcome<Option<&str>> {
        let pc = self.registers()?.pc;
        Ok(self.code.function(pc.wrapping_sub(IMAGE)))
    }

    /// The calls that the stack's frame records tell of, the last one first, as offsets into the image.
    fn calls(&mut self) -> Outcome<Vec<u64>> {
        let mut calls = Vec::new();
        let mut frame = self.registers()?.x[29];
        while frame != 0 {
            let unmapped = || Failure::Wrong(format!("no stack is at {frame:#x}"));
            let record = self.gdb.read(self.cpu, frame)?.ok_or_else(unmapped)?;
            let [next, return_address] = words(record);
            calls.push(return_address.wrapping_sub(4 + IMAGE));
            ensure(next == 0 || next > frame, || {
                format!("the stack goes down from {frame:#x} to {next:#x}")
            })?;
            frame = next;
        }
        Ok(calls)
    }

    /// Puts the CPU before the beginning of a function: `stp x29, x30, [sp, #-n]!`. Returns where that stores, for this
    /// stack pointer.
    fn push_to(&mut self, sp: u64) -> Outcome<u64> {
        let push = self.code.instructions().find(|(_, word)| word & 0xffc0_7fff == 0xa980_7bfd);
        let (offset, word) = push.ok_or(Failure::Wrong("no function begins as usual".to_owned()))?;
        // Seven bits, negative, in units of 8.
        let size = (0x80 - u64::from(word >> 15 & 0x7f)) * 8;
        self.set(Register::Pc, IMAGE + offset)?;
        self.set(Register::Sp, sp)?;
        Ok(sp - size)
    }
}

/// Two words, as they lie in memory.
fn words(bytes: [u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(bytes);
    [both as u64, (both >> 64) as u64]
}

fn jump_to_nowhere(victim: &mut Victim<'_>) -> Outcome<Report> {
    const NOWHERE: u64 = 0x1000_0000;
    victim.run_into_an_exit()?;
    victim.set(Register::Pc, NOWHERE)?;
    Ok(Report::synchronous(0x21, r"instruction abort, translation fault, level (?<level>\d)", Some(NOWHERE)))
}

fn jump_into_stack(victim: &mut Victim<'_>) -> Outcome<Report> {
    victim.run_into_an_exit()?;
    let sp = victim.registers()?.sp;
    victim.set(Register::Pc, sp)?;
    Ok(Report::synchronous(0x21, r"instruction abort, permission fault, level (?<level>\d)", Some(sp)))
}

/// A guard page lies below the stack, whose report is on another one.
fn stack_overflow(victim: &mut Victim<'_>) -> Outcome<Report> {
    victim.run_into_an_exit()?;
    let mut page = victim.registers()?.sp / PAGE * PAGE;
    let limit = page - STACK_PAGES * PAGE;
    while victim.gdb.read::<8>(victim.cpu, page)?.is_some() {
        page -= PAGE;
        ensure(page > limit, || format!("no page down to {page:#x} is a guard"))?;
    }
    let far = victim.push_to(page + PAGE)?;
    Ok(Report::synchronous(0x25, r"data abort on a write, translation fault, level (?<level>\d)", Some(far)))
}

fn write_to_code(victim: &mut Victim<'_>) -> Outcome<Report> {
    victim.run_into_an_exit()?;
    let far = victim.push_to(IMAGE + PAGE)?;
    Ok(Report::synchronous(0x25, r"data abort on a write, permission fault, level (?<level>\d)", Some(far)))
}

fn misaligned_pc(victim: &mut Victim<'_>) -> Outcome<Report> {
    victim.run_into_an_exit()?;
    misalign_pc(victim)
}

fn misalign_pc(victim: &mut Victim<'_>) -> Outcome<Report> {
    let pc = victim.registers()?.pc + 2;
    victim.set(Register::Pc, pc)?;
    Ok(Report::synchronous(0x22, "misaligned PC", Some(pc)))
}

/// The image's header has words of 0, which is UDF.
fn undefined_instruction(victim: &mut Victim<'_>) -> Outcome<Report> {
    const RESERVED: u64 = 0x20;
    victim.run_into_an_exit()?;
    ensure_equal("the header's reserved word", victim.code.instruction(RESERVED), Some(0))?;
    victim.set(Register::Pc, IMAGE + RESERVED)?;
    Ok(Report::synchronous(0x00, "undefined instruction", None))
}

/// EL2 runs with interrupts masked. Where they aren't, the one that made a guest exit comes again.
fn irq(victim: &mut Victim<'_>) -> Outcome<Report> {
    const MASKED: u32 = 1 << 7;
    victim.run_to("handle_irq")?;
    let pstate = victim.registers()?.pstate;
    ensure(pstate & MASKED != 0, || format!("interrupts are not masked at EL2: {pstate:#x}"))?;
    victim.set(Register::Pstate, u64::from(pstate & !MASKED))?;
    Ok(Report { kind: "IRQ", syndrome: None })
}

/// While this CPU holds the console, which the report needs.
fn in_console(victim: &mut Victim<'_>) -> Outcome<Report> {
    victim.run_into_an_exit()?;
    victim.gdb.run_to(Stop::AtWrite(UART_DATA), victim.cpu)?;
    misalign_pc(victim)
}

const STACK: &str = "  stack, as offsets into the image (addr2line -e hanok.elf):\n";
const END: &str = "hanok: all CPUs are stopped; reset the board\n";

fn crashes(scenario: &Scenario, gic: u8, cpu: usize, provoke: Provoke) -> Outcome {
    let code = Code::read(&scenario.inputs().elf)?;
    let mut board = boot(scenario, gic)?;
    let mut gdb = board.gdb()?;
    let mut victim = Victim { gdb: &mut gdb, code: &code, cpu };
    let report = provoke(&mut victim)?;
    let (registers, calls) = (victim.registers()?, victim.calls()?);

    let said = runs_into_it(&mut board, victim.gdb)?;
    let mut wanted = format!("crashed on CPU {cpu}: {}\n", report.kind);
    if let Some(Syndrome { words, far, .. }) = report.syndrome {
        check_calls(&code, &calls)?;
        let far = far.map_or(String::new(), |far| format!(", far {far:#018x}"));
        wanted += &format!(r"  0x(?<esr>[0-9a-f]+) \({words}\){far}\n");
    }
    wanted += &regex_lite::escape(&shown(&registers, &code));
    wanted += &regex_lite::escape(STACK);
    wanted.extend(calls.iter().map(|call| format!("    {call:#x}\n")));
    let found = matched(&said, &wanted)?;
    if let Some(Syndrome { class, .. }) = report.syndrome {
        let esr = hexadecimal(&found["esr"])?;
        ensure_equal("ESR_EL2.EC", esr >> 26, class)?;
        if let Some(level) = found.name("level") {
            ensure_equal("the fault's level", level.as_str(), (esr & 3).to_string())?;
        }
    }
    all_stop(victim.gdb, &code)
}

/// A check of the compiler's that fails.
fn panics(scenario: &Scenario, gic: u8, cpu: usize) -> Outcome {
    let code = Code::read(&scenario.inputs().elf)?;
    let mut board = boot(scenario, gic)?;
    let mut gdb = board.gdb()?;
    let mut victim = Victim { gdb: &mut gdb, code: &code, cpu };
    victim.run_into_an_exit()?;
    let callers = victim.calls()?;
    let (start, call) = overflow(&code)?;
    victim.set(Register::Pc, IMAGE + start)?;

    let said = runs_into_it(&mut board, victim.gdb)?;
    let wanted = format!(
        r"panicked at \S+\.rs:\d+:\d+:\nattempt to [a-z ]+ with overflow\n{}(?<calls>(?:    0x[0-9a-f]+\n)+)",
        regex_lite::escape(STACK)
    );
    let found = matched(&said, &wanted)?;
    let calls: Outcome<Vec<u64>> = found["calls"].lines().map(|line| hexadecimal(&line[6..])).collect();
    let calls = calls?;
    check_calls(&code, &calls)?;
    // Above the functions that make a panic of it.
    let expected = [&[call], &callers[..]].concat();
    ensure(calls.ends_with(&expected), || format!("{calls:x?} should end with {expected:x?}"))?;
    all_stop(victim.gdb, &code)
}

/// Where code calls what tells of an overflow, with its place in the source as the argument: `adr x0, place; bl`. Returns
/// both instructions' addresses.
fn overflow(code: &Code) -> Outcome<(u64, u64)> {
    const ADR_X0: (u32, u32) = (0x9f00_001f, 0x1000_0000);
    let tells = |call: u64, word: u32| {
        // 26 bits, signed, in units of 4.
        let distance = i64::from((word << 6) as i32 >> 4);
        let function = code.function(call.wrapping_add_signed(distance));
        function.is_some_and(|name| name.contains("panic_const_") && name.contains("_overflow"))
    };
    let found = code.instructions().find(|(call, word)| {
        is(code, *call, BL) && tells(*call, *word) && is(code, call.wrapping_sub(4), ADR_X0)
    });
    let (call, _) = found.ok_or(Failure::Wrong("no overflow is looked for".to_owned()))?;
    Ok((call - 4, call))
}

/// Instructions' fixed bits: which, and their values.
const BL: (u32, u32) = (0xfc00_0000, 0x9400_0000);
const BLR: (u32, u32) = (0xffff_fc1f, 0xd63f_0000);

fn is(code: &Code, address: u64, (mask, value): (u32, u32)) -> bool {
    code.instruction(address).is_some_and(|word| word & mask == value)
}

/// Two virtual machines, so that both CPUs run guests. Nothing runs yet.
fn boot(scenario: &Scenario, gic: u8) -> Outcome<Board> {
    // They access their interrupt controllers for ever, however late the debugger comes, and say so now and then.
    let guest = |name| Vm::attacker(1, "attack=gic rounds=0 size=10").named(name);
    let bundle = scenario.bundle(&["first", "second"].map(guest))?;
    scenario.boot(&Machine::new(gic, 2).bundle(bundle).with_gdb())
}

/// They are calls of functions of EL2's, the first of all from its vectors.
fn check_calls(code: &Code, calls: &[u64]) -> Outcome {
    for call in calls {
        ensure(is(code, *call, BL) || is(code, *call, BLR), || format!("{call:#x} is no call"))?;
    }
    let functions: Vec<&str> = calls.iter().map(|call| code.function(*call).unwrap_or("?")).collect();
    let from_a_guest = matches!(functions[..], [.., "sync" | "irq"]);
    ensure(from_a_guest, || format!("the stack tells of {functions:?}"))
}

/// The report's lines of registers.
fn shown(registers: &Registers, code: &Code) -> String {
    let Registers { x, sp, pc, pstate } = registers;
    let place = |address: u64| {
        let offset = address.wrapping_sub(IMAGE);
        match code.instruction(offset / 4 * 4) {
            Some(_) => format!("image + {offset:#x}"),
            None => "not in the image".to_owned(),
        }
    };
    let mut text = format!("  pc {pc:#018x} ({}), lr {:#018x} ({})\n", place(*pc), x[30], place(x[30]));
    text += &format!("  sp {sp:#018x}, spsr {pstate:#010x}\n");
    for (row, values) in x.chunks(4).enumerate() {
        let values = values.iter().enumerate();
        let row: Vec<_> = values.map(|(n, value)| format!("x{:<2} {value:016x}", row * 4 + n)).collect();
        text += &format!("  {}\n", row.join(" "));
    }
    text
}

/// All CPUs come to rest at EL2.
fn all_stop(gdb: &mut Gdb, code: &Code) -> Outcome {
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        gdb.interrupt()?;
        let all: Outcome<Vec<Registers>> = (0..2).map(|cpu| gdb.registers(cpu)).collect();
        let all = all?;
        // QEMU shows the PC behind the WFI in which a CPU sleeps.
        let rests = |cpu: &Registers| {
            let offset = cpu.pc.wrapping_sub(IMAGE);
            cpu.level() == 2
                && [offset, offset.wrapping_sub(4)].map(|at| code.instruction(at)).contains(&Some(WFI))
        };
        if all.iter().all(rests) {
            return Ok(());
        }
        ensure(Instant::now() < limit, || format!("not all CPUs stop: {all:x?}"))?;
        gdb.run()?;
    }
}

/// Lets the machine run until EL2 has told of its crash. Returns the report.
fn runs_into_it(board: &mut Board, gdb: &mut Gdb) -> Outcome<String> {
    board.want_crash();
    gdb.run()?;
    let report = board.expect(&format!(r"(?ms)^hanok: EL2 (.*?)^{END}"))?;
    Ok(report.group(1).to_owned())
}

fn matched<'a>(said: &'a str, wanted: &str) -> Outcome<Captures<'a>> {
    let pattern = Regex::new(&format!("^{wanted}$")).map_err(|error| Failure::Wrong(error.to_string()))?;
    pattern.captures(said).ok_or_else(|| Failure::Wrong(format!("the report should be\n{wanted}")))
}

fn hexadecimal(digits: &str) -> Outcome<u64> {
    u64::from_str_radix(digits, 16).map_err(|_| Failure::Wrong(format!("{digits:?} should be hexadecimal")))
}
