//! Debian's tools in an unmodified Linux: `perf`, `gdb`, `cyclictest`, kprobes, 32-bit programs, CPUs that go and come, suspend to idle, random numbers.
//!
//! The same is done with the same kernel on the bare board, at EL1. So what is wanted of the guest is known to be there at all; and what both
//! can be asked for exactly, the guest has to give as the board does: its counters' counts, the steps of `gdb`, and no warning of the kernel's that the
//! board doesn't have. Time is what instructions take.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex_lite::Regex;
use tests::{Failure, Machine, Outcome, Scenario, Shell, Vm, ensure, ensure_equal};
use tools::cpio::{Archive, READABLE};

use crate::case::Case;

/// GIC version, CPU model.
const MACHINES: [(u8, &str); 3] = [(3, "cortex-a72"), (2, "cortex-a72"), (3, "max")];

const VCPUS: u8 = 2;
const MEMORY: u32 = 512;

/// Something to count, record and compare: mostly in user space, tens of millions of instructions.
const WORK: &str = "md5sum /bin/busybox";

/// A hundred single steps from a program's very first instruction on.
const STEPS: &str = r#"starti
set $n = 0
while $n < 100
  stepi
  printf "at %#lx\n", $pc
  set $n = $n + 1
end
kill
"#;

/// A breakpoint in code, and a watchpoint and a breakpoint of the hardware's. `cyclictest` reads its options, in which `optind` counts, and then
/// locks its memory.
const BREAKS: &str = r"set breakpoint pending on
break getopt_long
run
delete
watch *(int *)&optind
continue
delete
hbreak mlockall
continue
x/i $pc
kill
";

pub fn cases() -> Vec<Case> {
    let case = |(gic, cpu): (u8, &'static str)| {
        let name = format!("linux-tools/gicv{gic}/{cpu}");
        Case::new(name, move |scenario| as_on_the_board(scenario, gic, cpu)).needs_linux()
    };
    MACHINES.into_iter().map(case).collect()
}

fn as_on_the_board(scenario: &Scenario, gic: u8, cpu: &str) -> Outcome {
    let initrd = initrd(scenario)?;
    let board = Machine::new(gic, VCPUS)
        .cpu(cpu)
        .option("-icount", "shift=0,sleep=off")
        .option("-rtc", "base=2024-01-01,clock=vm");
    let native = board
        .clone()
        .without_el2()
        .memory(&format!("{MEMORY}M"))
        .image(scenario.inputs().guests.join("linux/Image"))
        .arguments("console=ttyAMA0")
        .option("-initrd", initrd.display().to_string());
    // Debian 12's gdb doesn't know the debug architecture that `max` has; the one that a guest has there it knows.
    let native = look(scenario, &native, Offers { hardware_breaks: cpu != "max", random_numbers: false })
        .map_err(|failure| Failure::Wrong(format!("without Hanok, on the bare board: {failure}")))?;
    let bundle = scenario.bundle(&[Vm::linux(VCPUS).memory(MEMORY).payload("initrd", &initrd)])?;
    let offers = Offers { hardware_breaks: true, random_numbers: true };
    look(scenario, &board.bundle(bundle), offers)?.is_as(&native)
}

/// What `make run` has, with tools and what `gdb` is to do.
fn initrd(scenario: &Scenario) -> Outcome<PathBuf> {
    let linux = scenario.inputs().guests.join("linux");
    let read = |path: &Path| fs::read(path).map_err(Failure::io(format!("read {}", path.display())));
    let tools = linux.join("tools.cpio");
    ensure(tools.exists(), || format!("there is no {}: `make payloads-tools` brings it", tools.display()))?;
    let mut all = read(&linux.join("initrd.cpio"))?;
    all.extend(read(&tools)?);
    let mut scripts = Archive::new();
    for (name, script) in [("steps.gdb", STEPS), ("breaks.gdb", BREAKS)] {
        let added = scripts.file(name, READABLE, script.as_bytes());
        added.map_err(|error| Failure::Wrong(format!("the initramfs can't be made: {error}")))?;
    }
    all.extend(scripts.finish());
    scenario.write("initrd.cpio", all)
}

/// What only one of the two has.
struct Offers {
    /// Breakpoints and watchpoints of the hardware's that `gdb` can use.
    hardware_breaks: bool,
    /// TRNG calls, which on a board are firmware's.
    random_numbers: bool,
}

/// What Linux says of its machine, exactly.
struct Seen {
    /// What [`WORK`] has taken, by event.
    counts: BTreeMap<String, u64>,
    /// Where `gdb` was after each step.
    steps: Vec<u64>,
    /// The kernel's lines of level warning and above.
    warnings: Vec<String>,
}

impl Seen {
    /// Fails unless the board has seen the same.
    fn is_as(&self, native: &Self) -> Outcome {
        alike("here", &self.counts, "on the bare board", &native.counts)?;
        ensure_equal("gdb's steps, as on the bare board", &self.steps, &native.steps)?;
        let known: BTreeSet<String> = native.warnings.iter().map(|line| without_numbers(line)).collect();
        let new: Vec<&String> =
            self.warnings.iter().filter(|line| !known.contains(&without_numbers(line))).collect();
        ensure(new.is_empty(), || {
            format!(
                "Linux warns of what it doesn't on the bare board: {new:#?}; there: {:#?}",
                native.warnings
            )
        })
    }
}

/// Fails where two counts of an event are too far apart: 1 % in user space, where only interrupts make a difference and what a C library has for
/// different CPUs, and 5 % with the kernel, which does more on CPUs that have more.
fn alike(first: &str, ones: &BTreeMap<String, u64>, second: &str, others: &BTreeMap<String, u64>) -> Outcome {
    for (event, &one) in ones {
        let other = others.get(event).copied().unwrap_or(0);
        let percent = if event.ends_with(":u") { 1 } else { 5 };
        ensure(one.abs_diff(other) <= other * percent / 100, || {
            format!("perf counts {one} {event} of `{WORK}` {first}, {other} {second}")
        })?;
    }
    Ok(())
}

/// A line of the kernel's log without its level, time and all other numbers and addresses.
fn without_numbers(line: &str) -> String {
    let text = line.split_once("] ").map_or(line, |(_, text)| text);
    text.split_inclusive(|c: char| !c.is_ascii_alphanumeric())
        .map(|word| if word.starts_with(|c: char| c.is_ascii_digit()) { "<n>" } else { word })
        .collect()
}

/// Boots Linux, has it do all of it, and turns it off.
fn look(scenario: &Scenario, machine: &Machine, offers: Offers) -> Outcome<Seen> {
    let mut board = scenario.boot(machine)?;
    let mut shell = Shell::login(&mut board)?;
    shell.check("nproc", &VCPUS.to_string())?;
    // What follows is done by CPUs that have been off.
    cpus_go_and_come(&mut shell)?;
    let counts = counts(&mut shell)?;
    overflows_are_sampled(&mut shell, counts.get("cycles:u").copied().unwrap_or(0))?;
    let steps = steps(&mut shell)?;
    if offers.hardware_breaks {
        breaks(&mut shell)?;
    }
    kernel_probes(&mut shell)?;
    programs_of_32_bits(&mut shell)?;
    wakes_up_in_time(&mut shell)?;
    suspends_to_idle(&mut shell)?;
    if offers.random_numbers {
        random_numbers(&mut shell)?;
    }
    // All is as it was.
    alike("after the suspension", &self::counts(&mut shell)?, "before it", &counts)?;
    let log = shell.run("dmesg -r | sed -n '/^<[0-4]>/p'")?;
    let warnings = log.lines().map(str::to_owned).collect();
    shell.type_line("poweroff")?;
    board.expect(r"reboot: Power down\n")?;
    board.expect_off()?;
    Ok(Seen { counts, steps, warnings })
}

/// Each CPU is taken out and put back while the other one goes on, the one that has booted too.
fn cpus_go_and_come(shell: &mut Shell<'_>) -> Outcome {
    for _ in 0..3 {
        for cpu in [0, 1] {
            let online = format!("/sys/devices/system/cpu/cpu{cpu}/online");
            shell.run(&format!("echo 0 >{online}"))?;
            shell.check("cat /sys/devices/system/cpu/online", &(1 - cpu).to_string())?;
            let (said, status) = shell.try_run(&format!("taskset -c {cpu} true"))?;
            ensure(status != 0, || format!("CPU {cpu} is off and runs a program: {said}"))?;
            shell.run(&format!("echo 1 >{online}"))?;
            shell.check("cat /sys/devices/system/cpu/online", "0-1")?;
            // Which CPU a process runs on is the 39th word of its state.
            shell.check(
                &format!("taskset -c {cpu} awk '{{ print $39 }}' /proc/self/stat"),
                &cpu.to_string(),
            )?;
        }
    }
    Ok(())
}

/// The hardware's counters, all at once and all the time.
fn counts(shell: &mut Shell<'_>) -> Outcome<BTreeMap<String, u64>> {
    const EVENTS: [&str; 4] = ["instructions:u", "cycles:u", "instructions", "cycles"];
    let command = format!("taskset -c 1 perf stat -x , -e {} -- {WORK} 2>&1", EVENTS.join(","));
    let said = shell.run(&command)?;
    let mut counts = BTreeMap::new();
    for event in EVENTS {
        // The count, its unit, the event, for how long it was counted, and for which part of the time in percent.
        let row = said.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let row = row.into_iter().find(|row| row.get(2) == Some(&event)).unwrap_or_default();
        let count = row.first().and_then(|count| count.parse().ok());
        let count = count.ok_or_else(|| Failure::Wrong(format!("perf doesn't count {event}: {said}")))?;
        ensure_equal(
            &format!("percent of the time for which {event} were counted"),
            row.get(4),
            Some(&"100.00"),
        )?;
        ensure((20_000_000..40_000_000).contains(&count), || format!("`{WORK}` takes {count} {event}"))?;
        counts.insert(event.to_owned(), count);
    }
    let of = |event| counts.get(event).copied().unwrap_or(0);
    ensure(of("instructions:u") < of("instructions"), || format!("the kernel takes nothing: {counts:?}"))?;
    Ok(counts)
}

/// The counters' overflow interrupt: a sample each 100,000 cycles.
fn overflows_are_sampled(shell: &mut Shell<'_>, cycles: u64) -> Outcome {
    let interrupts =
        "awk '/arm-pmu/ { for (i = 2; i < NF - 3; i++) n += $i } END { print n + 0 }' /proc/interrupts";
    let before = shell.number(interrupts)?;
    let said =
        shell.run(&format!("taskset -c 1 perf record -o /tmp/perf -e cycles:u -c 100000 -- {WORK} 2>&1"))?;
    let samples =
        said.split_once(" samples)").and_then(|(text, _)| text.rsplit('(').next()?.parse::<u64>().ok());
    let samples = samples.ok_or_else(|| Failure::Wrong(format!("perf has no samples: {said}")))?;
    ensure(samples.abs_diff(cycles / 100_000) <= 3, || {
        format!("{samples} samples of {cycles} cycles, one each 100,000")
    })?;
    let came = shell.number(interrupts)? - before;
    ensure(came.abs_diff(samples) <= 3, || {
        format!("{came} interrupts of the counters for {samples} samples")
    })?;
    let report = shell.run("perf report -i /tmp/perf --stdio -s comm,dso 2>&1 | grep -v '^#' | head -n 3")?;
    ensure(
        Regex::new(r"(?m)^ *(9[5-9]|100)\.\d+% +md5sum +busybox").is_ok_and(|row| row.is_match(&report)),
        || format!("perf's samples should be md5sum's: {report}"),
    )
}

/// Single steps: where each one came to.
fn steps(shell: &mut Shell<'_>) -> Outcome<Vec<u64>> {
    let said = shell.run("taskset -c 1 gdb -nx -batch -x /steps.gdb cyclictest 2>&1 | grep '^at '")?;
    let steps: Vec<u64> = said
        .lines()
        .filter_map(|line| u64::from_str_radix(line.strip_prefix("at 0x")?.trim(), 16).ok())
        .collect();
    ensure_equal("gdb's steps", steps.len(), 100)?;
    let next = steps.windows(2).filter(|pair| pair[1] == pair[0] + 4).count();
    ensure(next >= 50, || format!("few of gdb's steps are to the next instruction: {steps:#x?}"))?;
    Ok(steps)
}

fn breaks(shell: &mut Shell<'_>) -> Outcome {
    let said =
        shell.run("taskset -c 1 gdb -nx -batch -x /breaks.gdb --args cyclictest -q -m -i 1000 -l 10 2>&1")?;
    for pattern in [
        r"\nBreakpoint 1, 0x[0-9a-f]+ in getopt_long \(\)",
        r"\nHardware watchpoint 2: .*\n\nOld value = 1\nNew value = [2-9]\n",
        r"\nBreakpoint 3, 0x[0-9a-f]+ in mlockall \(\).*\n=> 0x[0-9a-f]+ <mlockall",
    ] {
        let found = Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(&said));
        ensure(found, || format!("gdb doesn't say /{pattern}/: {said}"))?;
    }
    Ok(())
}

/// A probe at the beginning of a system call and one at its end, which each of these calls comes to.
fn kernel_probes(shell: &mut Shell<'_>) -> Outcome {
    shell.run("mount -t tracefs tracefs /sys/kernel/tracing; cd /sys/kernel/tracing")?;
    shell.run("echo p:hanok/call __arm64_sys_sethostname >>kprobe_events")?;
    shell.run("echo r:hanok/return __arm64_sys_sethostname >>kprobe_events")?;
    shell.run("echo 1 >events/hanok/enable")?;
    shell.run("for cpu in 0 1; do for n in $(seq 10); do taskset -c $cpu hostname linux; done; done")?;
    shell.run("echo 0 >events/hanok/enable")?;
    // Hits and misses.
    shell.check("awk '{ print $1, $2, $3 }' kprobe_profile", "call 20 0\nreturn 20 0")?;
    shell.check("grep -c 'call: (__arm64_sys_sethostname+0x0/' trace", "20")?;
    shell.run("cd").map(drop)
}

fn programs_of_32_bits(shell: &mut Shell<'_>) -> Outcome {
    // The fifth byte of an ELF file says which class it is: 1 has 32 bits.
    shell.check("head -c 5 /usr/bin/busybox32 | tail -c 1 | od -A n -t u1 | tr -d ' '", "1")?;
    shell.check("linux32 busybox32 uname -m", "armv8l")?;
    let sum = shell.run("sha256sum </bin/busybox")?;
    for cpu in [0, 1] {
        shell.check(&format!("taskset -c {cpu} busybox32 sha256sum </bin/busybox"), &sum)?;
    }
    let counted = "busybox32 sh -c 'n=0; while [ $n -lt 3000 ]; do n=$((n + 1)); done; echo $n'";
    shell.check(counted, "3000")?;
    shell.check("busybox32 seq 20000 | busybox32 sort -rn | busybox32 head -n 1", "20000")
}

/// Threads that sleep until their time has come, one on each CPU. On this machine an instruction is a nanosecond, so nothing else makes them late.
fn wakes_up_in_time(shell: &mut Shell<'_>) -> Outcome {
    const LOOPS: u64 = 3000;
    let said = shell.run(&format!("cyclictest -q -m -a -t {VCPUS} -p 80 -i 1000 -l {LOOPS} 2>&1"))?;
    let row = r"(?m)^T: *(\d+) .* C: *(\d+) Min: *(\d+) Act: *\d+ Avg: *(\d+) Max: *(\d+)";
    let row = Regex::new(row).map_err(|error| Failure::Wrong(error.to_string()))?;
    let mut threads = 0;
    for row in row.captures_iter(&said) {
        let number = |n: usize| row.get(n).and_then(|text| text.as_str().parse::<u64>().ok()).unwrap_or(0);
        let (thread, loops, [min, average, max]) = (number(1), number(2), [3, 4, 5].map(number));
        // All threads but the first one are 500 us slower each, and stop with it.
        ensure(loops * (1000 + 500 * thread) + 3000 >= LOOPS * 1000, || {
            format!("a thread stopped too early: {said}")
        })?;
        ensure(0 < min && min <= average && average <= max && max < 200, || {
            format!("latencies, in microseconds, should be above 0 and below 200: {said}")
        })?;
        threads += 1;
    }
    ensure_equal("threads of cyclictest", threads, VCPUS)
}

/// The alarm of the clock ends it.
fn suspends_to_idle(shell: &mut Shell<'_>) -> Outcome {
    const CLOCK: &str = "/sys/class/rtc/rtc0";
    shell.run(&format!("grep -q pl031 {CLOCK}/name"))?;
    for (round, state) in ["freeze", "mem"].into_iter().enumerate() {
        // All by one command: where nothing is to do, virtual time runs on as long as the test takes to type the next one.
        let slept = shell.number(&format!(
            "before=$(cat {CLOCK}/since_epoch); echo +5 >{CLOCK}/wakealarm; echo {state} >/sys/power/state; \
             echo $(($(cat {CLOCK}/since_epoch) - before))"
        ))?;
        ensure((4..=7).contains(&slept), || format!("suspended for 5 seconds, Linux woke up after {slept}"))?;
        let rounds = (round + 1).to_string();
        shell.check("cat /sys/power/suspend_stats/success", &rounds)?;
        shell.check("dmesg | grep -c 'PM: suspend entry (s2idle)'", &rounds)?;
        shell.check("dmesg | grep -c 'PM: suspend exit'", &rounds)?;
        shell.check("awk '/rtc-pl031/ { print $2 + $3 }' /proc/interrupts", &rounds)?;
        shell.check("nproc", &VCPUS.to_string())?;
    }
    Ok(())
}

/// The kernel's own driver for TRNG calls: it is there where they are, and gives what differs.
fn random_numbers(shell: &mut Shell<'_>) -> Outcome {
    shell.run("modprobe arm_smccc_trng")?;
    shell.check("cat /sys/class/misc/hw_random/rng_available", "smccc_trng")?;
    let mut read = || shell.run("head -c 32 /dev/hwrng | od -A n -v -t x1");
    let [first, second] = [read()?, read()?];
    for bytes in [&first, &second] {
        let bytes: Vec<&str> = bytes.split_whitespace().collect();
        ensure_equal("bytes read of /dev/hwrng", bytes.len(), 32)?;
        ensure(bytes.iter().any(|byte| byte != &bytes[0]), || format!("/dev/hwrng says {bytes:?}"))?;
    }
    ensure(first != second, || format!("/dev/hwrng says the same twice: {first}"))
}
