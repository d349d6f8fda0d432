//! The monitor: a guest that watches and controls the others, and is a guest like them.

use tests::{Board, Failure, Found, Gdb, Machine, Outcome, Register, Scenario, Vm, ensure, ensure_equal};

use crate::case::{Case, Named, on_both_gics};

/// Ctrl-T, which begins a command to Hanok's console.
const ESCAPE: &str = "\x14";

/// A VM is asked for its state so often, at most, until it is what it should become.
const LOOKS: usize = 2000;

pub fn cases() -> Vec<Case> {
    let all: [Named; 9] = [
        ("manifest", manifest),
        ("life", life),
        ("top", top),
        ("moves", moves),
        ("console", console),
        ("keys", keys),
        ("rights", rights),
        ("crash", crash),
        ("crashes-itself", crashes_itself),
    ];
    let with_linux: [Named; 1] = [("make-run", make_run)];
    let with_linux = on_both_gics("monitor/", &with_linux).map(Case::needs_linux);
    with_linux.chain(on_both_gics("monitor/", &all)).collect()
}

fn monitor() -> Vm {
    monitor_with("\"control\", \"statistics\", \"console\"")
}

fn monitor_with(rights: &str) -> Vm {
    Vm::new("monitor").memory(16).payload("elf", "monitor.elf").weight(256).property("rights", rights)
}

/// Always busy, and says nothing.
fn busy(name: &str, weight: u32) -> Vm {
    Vm::busy(1, "every=1000000000").named(name).weight(weight)
}

/// The prompt, which may have been read already.
const PROMPT: &str = "(?:monitor> )?";

/// The monitor's shell. Between its own lines, there may be those of others: they begin with `[`.
struct Shell {
    board: Board,
}

impl Shell {
    /// Waits until the monitor can be asked.
    fn boot(scenario: &Scenario, machine: &Machine, vms: &[Vm]) -> Outcome<Self> {
        let mut board = scenario.boot(&machine.clone().bundle(scenario.bundle(vms)?))?;
        greeted(&mut board)?;
        Ok(Self { board })
    }

    /// Runs a command; what it says.
    fn run(&mut self, command: &str) -> Outcome<String> {
        self.board.send_line(command)?;
        self.board.expect(&format!(r"(?m)^{PROMPT}{command}\n"))?;
        let end = self.board.expect(r"(?m)^monitor> $")?;
        Ok(own_lines(&end.before))
    }

    /// Runs a command that must say just this.
    fn check(&mut self, command: &str, wanted: &str) -> Outcome {
        let said = self.run(command)?;
        ensure_equal(&format!("`{command}`"), said.as_str(), wanted)
    }

    /// The row of a VM in `vms`.
    fn row(&mut self, name: &str) -> Outcome<Row> {
        let said = self.run("vms")?;
        let mut rows = said.lines().map(|line| Row(line.split_whitespace().map(str::to_owned).collect()));
        let row = rows.find(|row| row.0.iter().any(|word| word == name));
        row.ok_or_else(|| Failure::Wrong(format!("{name} has no row: {said}")))
    }

    /// Asks until the VM is in this state.
    fn wait_for(&mut self, name: &str, state: &str) -> Outcome<Row> {
        let mut last = None;
        for _ in 0..LOOKS {
            let row = self.row(name)?;
            if row.state() == state {
                return Ok(row);
            }
            last = Some(row);
        }
        Err(Failure::Wrong(format!("{name} doesn't become {state}: {last:?}")))
    }

    /// Pauses a VM. It is only about to pause as long as one of its vCPUs is still on a CPU.
    fn pause(&mut self, name: &str) -> Outcome {
        let said = self.run(&format!("pause {name}"))?;
        ensure([": pausing\n", ": paused\n"].iter().any(|state| said == format!("{name}{state}")), || {
            format!("`pause {name}` says {said:?}")
        })?;
        self.wait_for(name, "paused").map(drop)
    }

    /// Looks until this is so.
    fn wait(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> Outcome<bool>) -> Outcome {
        for _ in 0..LOOKS {
            if is_so(self)? {
                return Ok(());
            }
        }
        Err(Failure::Wrong(format!("it never is so: {what}")))
    }

    /// The picture that `top` draws last.
    fn top(&mut self, seconds: u32) -> Outcome<Picture> {
        let said = self.run(&format!("top {seconds}"))?;
        let last = said.rsplit("VMs run,").next().unwrap_or("");
        let row = |line: &str| {
            let mut words = line.split_whitespace();
            let name = words.next().filter(|name| name.contains('.'))?;
            Some((name.to_owned(), words.filter_map(number).collect()))
        };
        Ok(Picture(last.lines().filter_map(row).collect()))
    }
}

/// What one VM said, the one in focus: without others' lines. A line that one of those broke into was begun again behind it.
fn own_lines(text: &str) -> String {
    let mut own: Vec<&str> = Vec::new();
    let mut broken = false;
    for line in text.lines() {
        let is_own = !line.starts_with('[');
        if is_own {
            if broken && own.last().is_some_and(|last| line.starts_with(last)) {
                own.pop();
            }
            own.push(line);
        }
        broken = !is_own;
    }
    own.iter().map(|line| format!("{line}\n")).collect()
}

/// The words of a row of `vms`.
#[derive(Debug)]
struct Row(Vec<String>);

impl Row {
    fn state(&self) -> &str {
        let own = usize::from(self.0.first().is_some_and(|word| word == "*"));
        self.0.get(2 + own).map_or("", String::as_str)
    }

    /// The physical CPU of its only vCPU.
    fn cpu(&self) -> &str {
        let own = usize::from(self.0.first().is_some_and(|word| word == "*"));
        self.0.get(3 + own).map_or("", String::as_str)
    }

    /// The last columns are counted from the row's end: one before them may have a space in it.
    fn nth_last(&self, n: usize) -> &str {
        self.0.iter().rev().nth(n).map_or("", String::as_str)
    }

    fn denied(&self) -> &str {
        self.nth_last(0)
    }

    fn crashes(&self) -> &str {
        self.nth_last(1)
    }

    fn starts(&self) -> &str {
        self.nth_last(2)
    }

    fn held(&self) -> &str {
        self.nth_last(3)
    }
}

/// What `top` says of each vCPU: the numbers behind its name.
#[derive(Debug)]
struct Picture(Vec<(String, Vec<f64>)>);

/// Columns behind the name: the CPU, run%, wait%, memory, interrupts, and exits by reason.
const RUN: usize = 1;
const WAIT: usize = 2;
const HVC: usize = 6;

impl Picture {
    fn of(&self, name: &str, column: usize) -> Outcome<f64> {
        let row = self.0.iter().find(|row| row.0 == name);
        let value = row.and_then(|row| row.1.get(column).copied());
        value.ok_or_else(|| Failure::Wrong(format!("{name} has no column {column}: {self:?}")))
    }
}

/// `12.3`, `123k` or `16M`.
fn number(word: &str) -> Option<f64> {
    let (digits, unit) = match word.split_at_checked(word.len() - 1)? {
        (digits, "k") => (digits, 1e3),
        (digits, "M") => (digits, 1e6),
        _ => (word, 1.0),
    };
    digits.parse::<f64>().ok().map(|value| value * unit)
}

/// The monitor is up, and has prompted.
fn greeted(board: &mut Board) -> Outcome<Found> {
    board.expect(r"(?m)^monitor: Hanok, calls \d+\.\d+; type `help`\n")?;
    board.expect(r"(?m)^monitor> ")
}

/// The manifest in guests/: what there is, one more VM, and what was said.
fn manifest(scenario: &Scenario, gic: u8) -> Outcome {
    let bundle = scenario.built_bundle("monitor")?;
    let mut board = scenario.boot(&Machine::new(gic, 2).bundle(bundle))?;
    greeted(&mut board)?;
    let mut shell = Shell { board };
    let states = [("monitor", "running"), ("pulse", "running"), ("busy", "running"), ("spare", "created")];
    for (name, state) in states {
        ensure_equal(name, shell.row(name)?.state(), state)?;
    }
    ensure_equal("what is held by a VM that was never started", shell.row("spare")?.held(), "0")?;
    let said = shell.run("vms")?;
    ensure(said.contains("weight 256") && said.contains("200/1000 us"), || said.clone())?;
    let said = shell.run("start spare")?;
    ensure(["spare: starting\n", "spare: running\n"].contains(&said.as_str()), || said.clone())?;
    shell.board.expect_ever(r"(?m)^\[spare\] hello: tick 10 of 10\n")?;
    ensure_equal("the state", shell.row("spare")?.state(), "running")?;
    let said = shell.run("log spare")?;
    let whole =
        ["hello: a small guest under Hanok", "hello: tick 10 of 10\n"].map(|part| said.contains(part));
    ensure(whole == [true; 2], || said.clone())?;
    shell.board.send_line("log")?;
    shell.board.expect(&format!(r"(?m)^{PROMPT}log\n"))?;
    shell.board.expect_log("spare is started by monitor")?;
    shell.board.expect(r"(?m)^monitor> $")?;
    let said = shell.run("help")?;
    ensure(said.lines().count() == 11, || said.clone())
}

/// What `make run` starts: Linux, which has the console, the monitor, and a real-time guest. Linux is paused for a while, which
/// its shell doesn't notice, and restarted.
fn make_run(scenario: &Scenario, gic: u8) -> Outcome {
    let bundle = scenario.built_bundle("default")?;
    let mut board = scenario.boot(&Machine::new(gic, 2).bundle(bundle))?;
    let mut linux = tests::Shell::login(&mut board)?;
    linux.check("nproc", "2")?;
    linux.type_line("sleep 1; echo awake $((6 * 7))")?;
    board.expect(r"echo awake [^\n]*\n")?;
    board.send(&format!("{ESCAPE}2"))?;
    board.expect_log("console of monitor (2 of 3)")?;
    // Its prompt, which it has said before.
    board.expect(r"(?m)^monitor> $")?;
    let mut shell = Shell { board };
    for name in ["linux", "monitor", "pulse"] {
        ensure_equal(name, shell.row(name)?.state(), "running")?;
    }
    shell.pause("linux")?;
    shell.run("resume linux")?;
    shell.board.expect_ever(r"(?m)^\[linux\] awake 42\n")?;
    shell.run("restart linux")?;
    let mut board = shell.board;
    board.send(&format!("{ESCAPE}1"))?;
    // Not the prompt of its last life, which may still stand there.
    board.expect(r"Hanok's Linux guest: \S+, 2 CPUs, \d+ MiB\.\n")?;
    let mut linux = tests::Shell::login(&mut board)?;
    linux.check("echo $((6 * 9))", "54")
}

/// A vCPU that may be on two CPUs, each of which has somebody else to run too, goes to the one that has nothing to do any more, and
/// back again. What it computes stays right.
fn moves(scenario: &Scenario, gic: u8) -> Outcome {
    let stays = |name: &str, cpu: &str| busy(name, 256).property("cpu-affinity", cpu);
    let mover = busy("mover", 256).property("cpu-affinity", "<1 2>");
    let monitor = monitor().property("cpu-affinity", "<0>");
    let vms = [monitor, stays("one", "<1>"), stays("two", "<2>"), mover];
    let mut shell = Shell::boot(scenario, &Machine::new(gic, 3), &vms)?;
    let mut cpu = shell.row("mover")?.cpu().to_owned();
    for _ in 0..5 {
        let (other, name) = if cpu == "1" { ("2", "two") } else { ("1", "one") };
        shell.run(&format!("stop {name}"))?;
        shell.wait_for(name, "stopped")?;
        shell.wait(&format!("mover is on CPU {other}"), |shell| Ok(shell.row("mover")?.cpu() == other))?;
        shell.run(&format!("start {name}"))?;
        shell.wait_for(name, "running")?;
        cpu = other.to_owned();
    }
    let row = shell.row("mover")?;
    ensure_equal("state, starts, crashes", [row.state(), row.starts(), row.crashes()], ["running", "1", "0"])
}

/// Paused, resumed, stopped, started, restarted: one VM, while another notices nothing.
fn life(scenario: &Scenario, gic: u8) -> Outcome {
    let pulse = Vm::pulse("ticks=500").reserved(200, 1000);
    let hello = Vm::hello("hello").weight(64);
    let vms = [monitor(), pulse, busy("busy", 64), hello];
    let mut shell = Shell::boot(scenario, &Machine::new(gic, 2), &vms)?;
    shell.board.expect_ever(r"(?m)^\[hello\] hello: tick 10 of 10\n")?;

    shell.pause("hello")?;
    shell.check("pause hello", "pause: hello is paused, which doesn't allow that (WRONG_STATE)\n")?;
    shell.check("resume hello", "hello: running\n")?;

    // What it held is given back, and it has as much again when it is started.
    let before = shell.row("busy")?.held().to_owned();
    shell.run("stop busy")?;
    let row = shell.wait_for("busy", "stopped")?;
    ensure_equal("what is held", row.held(), "0")?;
    shell.check("resume busy", "resume: busy is stopped, which doesn't allow that (WRONG_STATE)\n")?;
    shell.run("start busy")?;
    let row = shell.wait_for("busy", "running")?;
    ensure_equal("how often it was started", row.starts(), "2")?;
    ensure_equal("what is held", row.held(), before.as_str())?;

    shell.run("restart hello")?;
    shell
        .board
        .expect_ever(r"(?s)hello: tick 10 of 10\n.*\[hello\] (?:> )?hello: a small guest under Hanok")?;
    let row = shell.wait_for("hello", "running")?;
    ensure_equal("starts and crashes", [row.starts(), row.crashes()], ["2", "0"])?;

    shell.check("stop monitor", "stop: this is monitor itself, which couldn't bring itself back\n")?;
    shell.board.send_line("restart monitor")?;
    greeted(&mut shell.board)?;
    ensure_equal("how often it was started", shell.row("monitor")?.starts(), "2")?;
    ensure_equal("how often pulse was started", shell.row("pulse")?.starts(), "1")?;
    reports_follow_each_other(&mut shell.board)
}

/// Pulse's next report is the one behind the last before it.
fn reports_follow_each_other(board: &mut Board) -> Outcome {
    const REPORT: &str = "[pulse] pulse: report ";
    board.expect(r"(?m)^\[pulse\] pulse: report \d+: \d+ ticks, ")?;
    let text = board.text();
    let number = |line: &str| line.strip_prefix(REPORT)?.split(':').next()?.parse::<usize>().ok();
    let told: Vec<usize> = text.lines().filter_map(number).collect();
    ensure(told.iter().copied().eq(1..=told.len()), || format!("pulse's reports are {told:?}"))
}

/// What `top` says of two VMs that are always busy is in proportion to their weights, and of one that is paused is nothing.
fn top(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [monitor(), busy("small", 100), busy("large", 300)];
    let mut shell = Shell::boot(scenario, &Machine::new(gic, 1).paced(), &vms)?;
    let picture = shell.top(3)?;
    let (small, large) = (picture.of("small.0", RUN)?, picture.of("large.0", RUN)?);
    let part = large / (small + large);
    ensure(small + large > 80.0 && (0.7..0.8).contains(&part), || format!("{small} % and {large} %"))?;
    // Whoever is busy and hasn't the CPU waits for it.
    let waited = picture.of("small.0", WAIT)?;
    ensure((small + waited - 100.0).abs() < 5.0, || format!("it ran {small} % and waited {waited} %"))?;
    // It asks for three VMs and their vCPUs each second, and sleeps.
    let (own, calls) = (picture.of("monitor.0", RUN)?, picture.of("monitor.0", HVC)?);
    ensure(own < 20.0 && calls >= 6.0, || format!("the monitor: {own} %, {calls} calls in a second"))?;
    shell.pause("large")?;
    let picture = shell.top(2)?;
    let (small, large) = (picture.of("small.0", RUN)?, picture.of("large.0", RUN)?);
    ensure(large == 0.0 && small > 80.0, || format!("large is paused and ran {large} %, small {small} %"))?;
    // Without a number, a key ends it, and isn't typed at the prompt.
    shell.board.send_line("top")?;
    shell.board.expect(r"of 3 VMs run, ")?;
    shell.board.send("q")?;
    shell.board.expect(r"(?m)^monitor> $")?;
    shell.check("crash large", "large has not crashed\n")
}

/// The console goes to another VM and comes back.
fn console(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [monitor(), Vm::hello("hello").weight(64)];
    let mut shell = Shell::boot(scenario, &Machine::new(gic, 1), &vms)?;
    shell.board.expect_ever(r"(?m)^\[hello\] hello: type `help`\n")?;
    shell.board.send_line("console hello")?;
    shell.board.expect(r"(?m)^console of hello; Ctrl-T 1 comes back\n")?;
    shell.board.expect_log("console of hello (2 of 2)")?;
    shell.board.send_line("ahoy")?;
    shell.board.expect(r"(?m)^> ahoy\nahoy\n")?;
    shell.board.send(&format!("{ESCAPE}1"))?;
    shell.board.expect_log("console of monitor (1 of 2)")?;
    let said = shell.run("log hello")?;
    ensure(said.contains("> ahoy\nahoy\n"), || said.clone())
}

/// The line is edited and completed; many lines typed at once are all obeyed.
fn keys(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [monitor(), busy("busy", 64)];
    let mut shell = Shell::boot(scenario, &Machine::new(gic, 1), &vms)?;
    const DONE: &str = r"(?m)^busy has not crashed\n";
    // A letter too many in the middle; then the line before once more.
    shell.board.send("crashh busy\x1b[H\x1b[C\x1b[C\x1b[C\x1b[C\x1b[C\x04\r")?;
    shell.board.expect(DONE)?;
    shell.board.send("\x1b[A\r")?;
    shell.board.expect(DONE)?;
    shell.board.send("cr\tb\t\r")?;
    shell.board.expect(DONE)?;
    shell.board.send("nonsense\x03help vms\r")?;
    shell.board.expect(r"(?m)^vms: which VMs there are, and how they are\n")?;
    shell.board.expect(r"(?m)^monitor> $")?;
    let script: String = (0..60).map(|n| format!("word{n}\n")).collect();
    shell.board.send(&script)?;
    for n in 0..60 {
        shell.board.expect(&format!(r"(?m)^word{n}: no such command; `help` lists them\n"))?;
    }
    Ok(())
}

/// What the manifest gives no right to is refused, and counted.
fn rights(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [monitor_with("\"statistics\""), busy("busy", 64)];
    let mut shell = Shell::boot(scenario, &Machine::new(gic, 1), &vms)?;
    let greeting = shell.board.text();
    let knows = greeting.contains("\nmonitor: without these rights: control, console\n");
    ensure(knows, || "it doesn't know its rights".to_owned())?;
    for (command, right) in [("stop busy", "control"), ("console busy", "console"), ("log busy", "console")] {
        let said = shell.run(command)?;
        let told = said.contains(&format!("give it rights = \"{right}\" in the manifest (DENIED)\n"));
        ensure(told, || said.clone())?;
    }
    ensure_equal("what the monitor was denied", shell.row("monitor")?.denied(), "3")?;
    let row = shell.row("busy")?;
    ensure_equal("the other one", [row.state(), row.denied()], ["running", "0"])
}

/// A VM that doesn't feed its watchdog: its report, and its new start.
fn crash(scenario: &Scenario, gic: u8) -> Outcome {
    let hung = busy("hung", 64).property("watchdog", "<1>").property("on-crash", "\"preserve\"");
    let vms = [monitor(), hung, Vm::pulse("ticks=500").reserved(200, 1000)];
    let mut shell = Shell::boot(scenario, &Machine::new(gic, 1), &vms)?;
    shell.board.expect_ever(r"(?m)hanok: error: hung crashed: its watchdog was not fed\n")?;
    let row = shell.wait_for("hung", "crashed")?;
    ensure_equal("crashes", row.crashes(), "1")?;
    ensure(row.held() != "0", || "its memory was to be preserved".to_owned())?;
    let said = shell.run("crash hung")?;
    let parts =
        [" ago: its watchdog was not fed\n", "  pc              0x4", ", instruction ", ": EL1\n", "   x0 "];
    for part in parts {
        ensure(said.contains(part), || format!("{part:?} is missing: {said}"))?;
    }
    shell.check("crash pulse", "pulse has not crashed\n")?;
    shell.run("restart hung")?;
    let row = shell.wait_for("hung", "running")?;
    ensure_equal("how often it was started", row.starts(), "2")?;
    reports_follow_each_other(&mut shell.board)
}

/// The monitor itself crashes, by a jump to nowhere: it starts afresh, tells of it, and nobody else notices.
fn crashes_itself(scenario: &Scenario, gic: u8) -> Outcome {
    const CPU: usize = 1;
    let pinned = monitor().without("weight").property("cpu-affinity", "<1>");
    let vms = [pinned.property("on-crash", "\"restart\""), Vm::pulse("ticks=500").reserved(200, 1000)];
    let bundle = scenario.bundle(&vms)?;
    let mut board = scenario.boot(&Machine::new(gic, 2).with_gdb().bundle(bundle))?;
    let mut gdb = board.gdb()?;
    gdb.run()?;
    greeted(&mut board)?;
    stop_in_guest(&mut gdb, CPU)?;
    gdb.set(CPU, Register::Pc, 0x10)?;
    gdb.run()?;
    // It sleeps: a key wakes it, where it isn't any more.
    board.send("x")?;
    board.expect(r"(?m)^guest: unexpected synchronous exception from EL1h on CPU 0\n")?;
    board.expect_log("error: monitor crashed: it says so itself")?;
    board.expect_log("monitor starts afresh in <n> ms")?;
    greeted(&mut board)?;
    let mut shell = Shell { board };
    let row = shell.row("monitor")?;
    ensure_equal("crashes and starts", [row.crashes(), row.starts()], ["1", "2"])?;
    let row = shell.row("pulse")?;
    ensure_equal("crashes and starts", [row.crashes(), row.starts()], ["0", "1"])?;
    let said = shell.run("crash monitor")?;
    ensure(said.contains(": instruction abort, ") && said.contains("elr, spsr_el1   0x10, "), || {
        said.clone()
    })?;
    reports_follow_each_other(&mut shell.board)
}

/// Stops the machine while this CPU is in its guest.
fn stop_in_guest(gdb: &mut Gdb, cpu: usize) -> Outcome {
    for _ in 0..LOOKS {
        gdb.interrupt()?;
        if gdb.registers(cpu)?.level() == 1 {
            return Ok(());
        }
        gdb.run()?;
    }
    Err(Failure::Wrong(format!("CPU {cpu} is never in its guest")))
}
