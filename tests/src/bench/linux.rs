//! What a whole Linux costs under Hanok: its boot, and some fixed work, pinned to a CPU of its own, beside the same on the bare board.
//!
//! [`measure`] takes whole runs, from reset until Linux has turned its machine off. QEMU tells exactly how many instructions each took. What is
//! before Linux and behind it is known by a kernel that does nothing but turn the machine off, and is taken away. Work is what the run with
//! it has over the one without. What of it EL2 had is known by a log of each of its instructions ([`Exits`]).

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tools::cpio::{Archive, CpioError, EXECUTABLE};

use super::accesses::all_executed;
use super::boot::SCRUB;
use super::instruction::Kind;
use super::peers::shortened;
use super::{RAM, TEXT_OFFSET, moved_image};
use crate::code::Code;
use crate::source::Source;
use crate::{Failure, Machine, Outcome, Scenario, Vm, ensure, ensure_equal};

/// Where both QEMU and Hanok enter Linux: its `Image` says that it wants to lie at a multiple of 2 MiB, and RAM begins with the tree.
const LINUX_ENTRY: u64 = RAM + (2 << 20);
/// Linux's memory, in MiB.
const MEMORY: u32 = 512;
/// The same addresses in each run, and nothing on the console. `init`'s argument, which follows, is the work: Linux forgets at `rdinit` what it would
/// else give it besides.
const ARGUMENTS: &str = "console=ttyAMA0 quiet nokaslr norandmaps rdinit=/init --";
/// The longest that one run may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// What `init` says when its work has come to something else than it should.
const WRONG: &str = "bench: wrong";

/// All that Linux runs, with the number of a [`Work`] as its argument. It says nothing, for a console costs.
const INIT: &str = r#"#!/bin/busybox sh
run=/bin/busybox
wrong() { echo "bench: wrong: $*"; }
case $1 in
0) ;;
1)
    sum=$($run dd if=/dev/zero bs=64k count=1024 2>/dev/null | $run md5sum)
    [ "$sum" = '7f614da9329cd3aebf59b91aadc30bf0  -' ] || wrong "$sum"
    ;;
2)
    n=0
    while [ $n -lt 500 ]; do
        $run true || wrong $n
        n=$((n + 1))
    done
    ;;
3)
    $run mkfifo /there /back
    while read -r n; do echo "$n"; done </there >/back &
    exec 3>/there 4</back
    n=0
    while [ $n -lt 2000 ]; do
        echo $n >&3
        read -r m <&4
        [ "$m" = $n ] || wrong $n
        n=$((n + 1))
    done
    ;;
*) wrong "$1" ;;
esac
$run poweroff -f
"#;

/// What Linux does, by what [`INIT`] is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Nothing: it boots to `init` and turns itself off.
    Boot,
    /// The checksum of 64 MB that come through a pipe.
    Checksum,
    /// 500 processes, one after the other: fork, exec, wait.
    Processes,
    /// A line to another process through a pipe and back, 2,000 times.
    PingPong,
}

impl Work {
    /// All of it; what the others have over the first one is their own.
    pub const ALL: [Self; 4] = [Self::Boot, Self::Checksum, Self::Processes, Self::PingPong];

    fn arguments(self) -> String {
        format!("{ARGUMENTS} {}", self as u8)
    }

    fn about(self) -> &'static str {
        match self {
            Self::Boot => "Boot to init, and power off",
            Self::Checksum => "Checksum of 64 MB",
            Self::Processes => "500 processes: fork, exec, wait",
            Self::PingPong => "Pipe ping-pong, 2,000 times there and back",
        }
    }
}

/// Instructions, of one piece of work.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was done.
    pub work: Work,
    /// On the bare board, with the device tree that QEMU makes for it.
    pub native_board_tree: u64,
    /// On the bare board, with the device tree that Hanok's guest has.
    pub native: u64,
    /// As a guest of Hanok, EL2's included.
    pub guest: u64,
    /// Of these, EL2's.
    pub el2: u64,
    /// Exits by kind.
    pub exits: Exits,
}

impl Row {
    /// What stands in the table: natively with the board's tree and with the guest's, as a guest, in EL2; and exits.
    fn numbers(&self) -> [u64; 5] {
        [self.native_board_tree, self.native, self.guest, self.el2, self.exits.all().count]
    }
}

/// How often a guest has come to EL2, and what that took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exits(BTreeMap<&'static str, Exit>);

/// Exits of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// How many.
    pub count: u64,
    /// Instructions that they took, from the vector to ERET.
    pub instructions: u64,
}

/// Kinds of exits by a part of the name of a function that they come to, or that was compiled into one; of several it is the first one here, so
/// that an access to a device is of that device's kind.
const KINDS: [(&str, &str); 12] = [
    ("mmio::redistributor", "GIC redistributor"),
    ("distributor", "GIC distributor"),
    ("uart_", "UART"),
    ("mmio::rtc", "clock"),
    ("data_abort", "another address"),
    ("handle_system_register", "system register"),
    ("handle_hvc", "HVC"),
    ("handle_smc", "SMC"),
    ("handle_irq", "interrupt"),
    ("handle_serror", "SError"),
    ("handle_aarch32", "32-bit program"),
    ("handle_other", "other"),
];

impl Exits {
    /// From a log of all instructions of EL2's, whose code lies at `base`, from a guest's first one on. What comes behind the last ERET isn't counted:
    /// it is the end of the machine. `functions` tells those that an instruction is of ([`Source::frames`]).
    ///
    /// # Errors
    /// When there is no ERET, or an exit is of no known kind: then names of functions have changed.
    pub fn read(el2: &Code, base: u64, log: &str, functions: impl Fn(u64) -> Vec<String>) -> Outcome<Self> {
        let place = |offset| {
            let names = functions(offset);
            KINDS.iter().position(|(part, _)| names.iter().any(|name| name.contains(part)))
        };
        let mut places = HashMap::new();
        let mut exits = Self::default();
        let mut instructions = 0;
        let mut kind: Option<usize> = None;
        for (_, address) in all_executed(log) {
            let Some(offset) = address.checked_sub(base) else { continue };
            let Some(word) = el2.instruction(offset) else { continue };
            instructions += 1;
            let place = *places.entry(offset).or_insert_with(|| place(offset));
            kind = [kind, place].into_iter().flatten().min();
            if Kind::of(word) == Kind::ExceptionReturn {
                let known = kind.take().and_then(|place| KINDS.get(place));
                let (_, name) = known.ok_or_else(|| {
                    Failure::Wrong(format!("the exit that ends at {address:#x} is of no known kind"))
                })?;
                let exit = exits.0.entry(name).or_default();
                exit.count += 1;
                exit.instructions += std::mem::take(&mut instructions);
            }
        }
        if exits.0.is_empty() {
            return Err(Failure::Wrong("the log has no exit of the guest's".to_owned()));
        }
        Ok(exits)
    }

    /// Of all kinds.
    pub fn all(&self) -> Exit {
        self.0.values().fold(Exit::default(), |all, exit| Exit {
            count: all.count + exit.count,
            instructions: all.instructions + exit.instructions,
        })
    }

    /// What these have over others.
    ///
    /// # Errors
    /// When the others have more.
    fn over(&self, others: &Self) -> Outcome<Self> {
        let mut exits = self.clone();
        for (name, other) in &others.0 {
            let exit = exits.0.entry(name).or_default();
            exit.count = over("exits", exit.count, other.count)?;
            exit.instructions = over("instructions of exits", exit.instructions, other.instructions)?;
        }
        exits.0.retain(|_, exit| exit.count != 0);
        Ok(exits)
    }
}

/// What is left of `whole` without `part`.
fn over(what: &str, whole: u64, part: u64) -> Outcome<u64> {
    whole.checked_sub(part).ok_or_else(|| {
        Failure::Wrong(format!("{what}: {whole}, which is less than without the work, {part}"))
    })
}

/// All that is measured.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// One for each [`Work`].
    pub rows: Vec<Row>,
    /// The package that the kernel is of, and its version.
    pub kernel: String,
    /// The commands that booted, on the bare board with its own tree and as a guest; files are named from the checkout's root.
    pub commands: Vec<String>,
}

/// Measures it all.
///
/// # Errors
/// When Linux doesn't come to its end, or the same run doesn't take the same again.
pub fn measure(scenario: &Scenario) -> Outcome<Figures> {
    let bench = Bench::new(scenario)?;
    let tree = bench.guest_tree()?;
    let none = bench.off.as_path();
    let native_none = bench.run(&bench.native(none, Work::Boot, Some(&tree)))?;
    let guest_none = bench.run(&bench.hanok(none, Work::Boot)?)?;
    let mut commands = Vec::new();
    let mut rows: Vec<Row> = Vec::new();
    for work in Work::ALL {
        let linux = bench.linux.as_path();
        let native = |tree| over("a run", bench.run(&bench.native(linux, work, tree))?, native_none);
        let shown = || shortened(&scenario.command().unwrap_or_default());
        let native_board_tree = native(None)?;
        let native_command = shown();
        let guest = over("a run", bench.run(&bench.hanok(linux, work)?)?, guest_none)?;
        let guest_command = shown();
        let native_alike = native(Some(&tree))?;
        let exits = bench.exits(work)?;
        let mut row = Row { work, native_board_tree, native: native_alike, guest, el2: 0, exits };
        match rows.first() {
            None => {
                ensure_equal("instructions of the same run again", native(Some(&tree))?, row.native)?;
                commands = vec![native_command, guest_command];
            }
            Some(boot) => {
                for (whole, of_boot) in [
                    (&mut row.native_board_tree, boot.native_board_tree),
                    (&mut row.native, boot.native),
                    (&mut row.guest, boot.guest),
                ] {
                    *whole = over("instructions", *whole, of_boot)?;
                }
                row.exits = row.exits.over(&boot.exits)?;
            }
        }
        row.el2 = row.exits.all().instructions;
        rows.push(row);
    }
    // The command names the bundle that boots.
    bench.hanok(&bench.linux, Work::Boot)?;
    Ok(Figures { rows, kernel: bench.kernel()?, commands })
}

/// What all runs have in common.
struct Bench<'a> {
    scenario: &'a Scenario,
    /// The image, clear of the guest's addresses.
    image: PathBuf,
    el2: Code,
    linux: PathBuf,
    /// As large as Linux, but does nothing but turn its machine off.
    off: PathBuf,
    initramfs: PathBuf,
}

impl<'a> Bench<'a> {
    fn new(scenario: &'a Scenario) -> Outcome<Self> {
        let inputs = scenario.inputs();
        let linux = inputs.guests.join("linux/Image");
        let busybox = inputs.busybox.as_path();
        let read = |path: &Path| fs::read(path).map_err(Failure::io(format!("read {}", path.display())));
        let archive = initramfs(&read(busybox)?)
            .map_err(|error| Failure::Wrong(format!("the initramfs can't be made: {error}")))?;
        Ok(Self {
            image: moved_image(scenario)?,
            el2: Code::read(&inputs.elf)?,
            off: scenario.write("off.img", turned_off(read(&linux)?)?)?,
            linux,
            initramfs: scenario.write("initramfs.cpio", archive)?,
            scenario,
        })
    }

    /// The package that the kernel is of, and its version.
    fn kernel(&self) -> Outcome<String> {
        let path = self.scenario.inputs().busybox.with_file_name("versions");
        let versions = fs::read_to_string(&path).map_err(Failure::io(format!("read {}", path.display())))?;
        let line = versions.lines().find(|line| line.starts_with("linux-image-"));
        line.map(str::to_owned).ok_or_else(|| Failure::Wrong(format!("{} names no kernel", path.display())))
    }

    fn board() -> Machine {
        Machine::new(3, 1).counted().cpu("cortex-a72,cntfrq=1000000000")
    }

    /// On the bare board. Its memory is the guest's.
    fn native(&self, kernel: &Path, work: Work, tree: Option<&Path>) -> Machine {
        let machine = Self::board()
            .without_el2()
            .memory(&format!("{MEMORY}M"))
            .image(kernel.to_owned())
            .arguments(&work.arguments())
            .option("-initrd", self.initramfs.display().to_string());
        match tree {
            Some(tree) => machine.option("-dtb", tree.display().to_string()),
            None => machine,
        }
    }

    /// As a guest of Hanok, whose log is off.
    fn hanok(&self, kernel: &Path, work: Work) -> Outcome<Machine> {
        let vm = Vm::linux(1)
            .memory(MEMORY)
            .payload("kernel", kernel)
            .payload("initrd", &self.initramfs)
            .property("bootargs", &format!("{:?}", work.arguments()));
        let bundle = self.scenario.bundle(&[vm])?;
        Ok(Self::board().image(self.image.clone()).arguments("hanok.log=off").bundle(bundle))
    }

    /// How many instructions it is from reset until the machine is off.
    fn run(&self, machine: &Machine) -> Outcome<u64> {
        // The machine is kept when it is off, to be asked.
        let board = self.scenario.boot(&machine.clone().option("-action", "shutdown=pause"))?;
        let mut qmp = board.qmp()?;
        qmp.wait_for_shutdown(PATIENCE)?;
        let said = board.text();
        ensure(!said.contains(WRONG), || format!("init says: {said}"))?;
        let answer = qmp.execute("query-replay", json!({}))?;
        let count = answer.get("icount").and_then(serde_json::Value::as_u64);
        count.ok_or_else(|| Failure::Qmp(format!("query-replay tells no count: {answer}")))
    }

    /// The device tree that the guest has.
    fn guest_tree(&self) -> Outcome<PathBuf> {
        let machine = self.hanok(&self.linux, Work::Boot)?.with_gdb();
        let board = self.scenario.boot(&machine)?;
        let mut gdb = board.gdb()?;
        gdb.run_to_address(LINUX_ENTRY)?;
        let [tree, ..] = gdb.registers(0)?.x;
        let nothing = || Failure::Wrong(format!("the guest has no device tree at {tree:#x}"));
        let header: [u8; 8] = gdb.read(0, tree)?.ok_or_else(nothing)?;
        let [_, size] =
            [0, 4].map(|at| header[at..at + 4].iter().fold(0, |n, byte| n << 8 | u64::from(*byte)));
        let mut blob = Vec::new();
        for at in (tree..tree + size).step_by(8) {
            let piece: [u8; 8] = gdb.read(0, at)?.ok_or_else(nothing)?;
            blob.extend(piece);
        }
        blob.truncate(size as usize);
        self.scenario.write("guest.dtb", blob)
    }

    /// What exits there are from the guest's first instruction until it turns its machine off.
    fn exits(&self, work: Work) -> Outcome<Exits> {
        let log = self.scenario.file("exits.log");
        let base = RAM + TEXT_OFFSET;
        let size = 4 * self.el2.instructions().count() as u64;
        let machine = self
            .hanok(&self.linux, work)?
            .with_gdb()
            .option("-dfilter", format!("{base:#x}+{size:#x}"))
            .option("-D", log.display().to_string());
        let board = self.scenario.boot(&machine)?;
        let mut gdb = board.gdb()?;
        gdb.run_to_address(LINUX_ENTRY)?;
        gdb.one_by_one(base..base + size)?;
        gdb.monitor("log exec")?;
        gdb.set_patience(PATIENCE)?;
        // The VM's memory is cleared when it is off: many millions of instructions.
        gdb.run_to_address(base + self.el2.address(SCRUB)?)?;
        drop(board);
        let text = fs::read_to_string(&log).map_err(Failure::io(format!("read {}", log.display())))?;
        let elf = &self.scenario.inputs().elf;
        let elf = fs::read(elf).map_err(Failure::io(format!("read {}", elf.display())))?;
        let source = Source::parse(&elf)?;
        Exits::read(&self.el2, base, &text, |offset| {
            source.frames(offset).into_iter().map(|frame| frame.function).collect()
        })
    }
}

/// The initramfs: busybox, what it is to run, and the devices that are needed.
fn initramfs(busybox: &[u8]) -> Result<Vec<u8>, CpioError> {
    let mut archive = Archive::new();
    archive.directory("bin")?;
    archive.directory("dev")?;
    archive.character_device("dev/console", 0o600, (5, 1))?;
    archive.character_device("dev/null", 0o666, (1, 3))?;
    archive.character_device("dev/zero", 0o666, (1, 5))?;
    archive.file("bin/busybox", EXECUTABLE, busybox)?;
    archive.file("init", EXECUTABLE, INIT.as_bytes())?;
    Ok(archive.finish())
}

/// An arm64 `Image` (Linux, Documentation/arch/arm64/booting.rst) of the same size and header that calls PSCI's SYSTEM_OFF and does nothing else.
fn turned_off(mut image: Vec<u8>) -> Outcome<Vec<u8>> {
    /// `b` from the header's second word to behind the header.
    const BRANCH: u32 = 0x1400_0000 | ((HEADER - 4) / 4);
    const HEADER: u32 = 64;
    /// `movz w0, #8; movk w0, #0x8400, lsl #16; hvc #0`.
    const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];
    if image.get(56..60) != Some(b"ARM\x64") {
        return Err(Failure::Wrong("the kernel is no arm64 Image".to_owned()));
    }
    let places = [4, 64, 68, 72].into_iter().zip([BRANCH].into_iter().chain(OFF));
    for (at, word) in places {
        let place = image.get_mut(at..at + 4);
        let place = place.ok_or_else(|| Failure::Wrong("the kernel has no code".to_owned()))?;
        place.copy_from_slice(&word.to_le_bytes());
    }
    Ok(image)
}

impl Figures {
    /// For people, in Markdown.
    pub fn text(&self) -> String {
        let commands = self.commands.join("\n\n");
        format!(
            "{}\nDebian's `{}`. To boot it on the bare board, and as a guest:\n\n```\n{commands}\n```\n",
            table(&self.rows),
            self.kernel
        )
    }

    /// For programs.
    pub fn json(&self) -> String {
        format!("{:#}\n", json!(self))
    }
}

/// Two tables in Markdown: instructions, and exits.
fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| instructions | native, the board's tree | native, the guest's tree | guest of Hanok | ratio to the board's tree \
         | ratio to the guest's tree | in EL2 | share | exits |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let mut line = |about: &str, [board_tree, native, guest, el2, exits]: [u64; 5]| {
        let of = |one: u64, other: u64| one as f64 / other as f64;
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "| {about} | {board_tree} | {native} | {guest} | {:.6} | {:.6} | {el2} | {:.4} % | {exits} |",
            of(guest, board_tree),
            of(guest, native),
            100.0 * of(el2, guest)
        );
    };
    let mut all = [0; 5];
    for row in rows {
        let numbers = row.numbers();
        line(row.work.about(), numbers);
        all.iter_mut().zip(numbers).for_each(|(all, number)| *all += number);
    }
    line("All of it", all);
    text.push_str("\n| exits: how many, and their instructions |");
    rows.iter().for_each(|row| text.extend([" ", row.work.about(), " |"]));
    text.push_str("\n|---|");
    text.push_str(&"--:|".repeat(rows.len()));
    text.push('\n');
    for (_, kind) in KINDS {
        if rows.iter().all(|row| !row.exits.0.contains_key(kind)) {
            continue;
        }
        let _ = write!(text, "| {kind} |");
        for row in rows {
            let Exit { count, instructions } = row.exits.0.get(kind).copied().unwrap_or_default();
            let _ = write!(text, " {count}: {instructions} |");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x4400_0000;
    const ERET: u32 = 0xd69f_03e0;
    const NOP: u32 = 0xd503_201f;

    const FUNCTIONS: [&[&str]; 5] = [
        &["sync"],
        &["handle_data_abort"],
        &["hanok::vm::Vm::uart_peek", "handle_data_abort"],
        &["handle_hvc"],
        &["return_to_guest"],
    ];

    /// Of an instruction for each of these.
    fn el2() -> Code {
        Code::with_functions(Vec::new(), &[NOP, NOP, NOP, NOP, ERET])
    }

    fn read(log: &str) -> Outcome<Exits> {
        Exits::read(&el2(), BASE, log, |offset| {
            FUNCTIONS[offset as usize / 4].iter().map(|name| name.to_string()).collect()
        })
    }

    fn log(functions: &[u64]) -> String {
        let address = |function: &u64| BASE + 4 * function;
        let line =
            |function| format!("Trace 0: 0x7f00 [00800400/{:016x}/1e00/ff000201] name\n", address(function));
        functions.iter().map(line).collect()
    }

    fn exits<const N: usize>(of: [(&'static str, u64, u64); N]) -> Exits {
        Exits(of.map(|(name, count, instructions)| (name, Exit { count, instructions })).into())
    }

    #[test]
    fn exits_are_told_apart_by_where_they_go() {
        // What comes behind the last return is the machine's end.
        let log = log(&[0, 1, 4, 0, 1, 2, 1, 4, 0, 3, 4, 0, 1, 4, 0, 3, 3]);
        let found = read(&log).expect("it is sound");
        assert_eq!(found, exits([("another address", 2, 6), ("UART", 1, 5), ("HVC", 1, 3)]));
        assert_eq!(found.all(), Exit { count: 4, instructions: 14 });
    }

    #[test]
    fn a_log_of_something_else_is_refused() {
        assert!(read(&log(&[0, 1])).is_err(), "nothing returns");
        assert!(read(&log(&[0, 4])).is_err(), "it comes to no handler");
    }

    #[test]
    fn what_the_work_has_over_the_boot_is_its_own() {
        let boot = exits([("UART", 2, 20), ("HVC", 1, 3)]);
        let whole = exits([("UART", 2, 20), ("HVC", 4, 13), ("interrupt", 1, 9)]);
        let own = whole.over(&boot).expect("it has more");
        assert_eq!(own, exits([("HVC", 3, 10), ("interrupt", 1, 9)]));
        assert!(boot.over(&whole).is_err());
    }

    #[test]
    fn a_kernel_is_made_to_do_nothing() {
        let mut image = vec![0xff; 128];
        image[56..60].copy_from_slice(b"ARM\x64");
        let off = turned_off(image.clone()).expect("it has a header");
        // b +60; then behind the header mov w0, #0x84000008; hvc #0.
        assert_eq!(off[4..8], [0x0f, 0, 0, 0x14]);
        assert_eq!(off[64..76], [0x00, 0x01, 0x80, 0x52, 0x00, 0x80, 0xb0, 0x72, 2, 0, 0, 0xd4]);
        let changed = image.iter().zip(&off).filter(|(old, new)| old != new).count();
        assert_eq!((off.len(), changed), (128, 16));
        assert!(turned_off(vec![0; 128]).is_err(), "no magic number");
        image.truncate(70);
        assert!(turned_off(image).is_err(), "too short");
    }

    #[test]
    fn a_row_tells_ratio_and_share() {
        let row = Row {
            work: Work::Boot,
            native_board_tree: 2000,
            native: 1000,
            guest: 1001,
            el2: 1,
            exits: exits([("HVC", 3, 1)]),
        };
        let table = table(&[row]);
        let wanted = "| 2000 | 1000 | 1001 | 0.500500 | 1.001000 | 1 | 0.0999 % | 3 |\n";
        assert!(table.contains(&format!("{} {wanted}| All of it {wanted}", Work::Boot.about())), "{table}");
        assert!(table.ends_with("\n|---|--:|\n| HVC | 3: 1 |\n"), "{table}");
    }
}
