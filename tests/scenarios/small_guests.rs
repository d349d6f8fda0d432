//! The small guests: the one that the image has built in, and the one that checks its machine from the inside.

use std::time::Duration;

use tests::{Machine, Outcome, Scenario, Vm, ensure, ensure_equal};

use crate::case::{Case, GICS, Named, on_both_gics};

/// The models that are tested.
const MODELS: [&str; 4] = ["max", "neoverse-n1", "cortex-a72", "cortex-a53"];

/// The self-test has more cases than this; fewer means that some were lost.
const CASES: u64 = 120;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for gic in GICS {
        for vcpus in [4, 2, 1] {
            for cpu in MODELS {
                let name = format!("selftest/gicv{gic}/{cpu}/{vcpus}-vcpus");
                cases.push(Case::new(name, move |scenario| selftest(scenario, gic, cpu, vcpus)));
            }
        }
    }
    let counted = ["max", "cortex-a72"].map(|cpu| {
        Case::new(format!("counted-instructions/{cpu}"), move |scenario| counted_instructions(scenario, cpu))
    });
    cases.extend(counted);
    let small: [Named; 6] = [
        ("no-random-numbers", no_random_numbers),
        ("built-in", built_in),
        ("console-echo", echo),
        ("console-blocks", blocks),
        ("restarts", restarts),
        ("raw-binary", raw_binary),
    ];
    cases.extend(on_both_gics("", &small));
    cases
}

/// A board that gives no random numbers: guests get no seeds and no TRNG, and it is said.
fn no_random_numbers(scenario: &Scenario, gic: u8) -> Outcome {
    let bundle = scenario.bundle(&[Vm::selftest(2, "selftest=trng")])?;
    let machine = Machine::new(gic, 2).cpu("cortex-a72").option("-M", "dtb-randomness=off");
    let mut board = scenario.boot(&machine.bundle(bundle))?;
    board.expect_log(
        "warning: neither the device tree (/chosen/rng-seed of 32 bytes) nor the CPU (RNDR) gives random numbers: \
         guests get no seeds and no TRNG",
    )?;
    board.expect(r"(?m)^test trng.there-with-seeds-alone ... ok\n")?;
    board.expect(r"(?m)^6 skipped\n1 passed, 0 failed\n")?;
    board.expect_log("selftest turned itself off")?;
    board.expect_off()?;
    Ok(())
}

fn selftest(scenario: &Scenario, gic: u8, cpu: &str, vcpus: u8) -> Outcome {
    // With 2 vCPUs it is the manifest in guests/.
    let bundle = if vcpus == 2 {
        scenario.built_bundle("selftest")?
    } else {
        scenario.bundle(&[Vm::selftest(vcpus, "")])?
    };
    let mut board = scenario.boot(&Machine::new(gic, vcpus).cpu(cpu).bundle(bundle))?;
    board.expect(&format!(r"(?m)^selftest: {vcpus} CPUs, 64 MiB, GICv{gic}, under Hanok\n"))?;
    let end = board.expect_within(r"(?m)^(\d+) passed, (\d+) failed\n", Duration::from_secs(200))?;
    let (passed, failed) = (end.number(1)?, end.number(2)?);
    ensure(failed == 0, || {
        let failures: Vec<&str> = end.before.lines().filter(|line| line.contains("FAILED")).collect();
        format!("{failed} cases failed in the guest:\n{}", failures.join("\n"))
    })?;
    let skipped = end.before.matches("... skipped").count() as u64;
    ensure(passed + skipped > CASES, || format!("only {passed} cases passed and {skipped} were skipped"))?;
    ensure(!end.before.contains("skipped: holds under Hanok only"), || {
        "the guest doesn't know that it runs under Hanok".to_owned()
    })?;
    board.expect_log("selftest turned itself off")?;
    board.expect_off()?;
    Ok(())
}

/// On a board that counts instructions, a guest counts its own alone, and its own cycles.
fn counted_instructions(scenario: &Scenario, cpu: &str) -> Outcome {
    let bundle = scenario.bundle(&[Vm::selftest(1, "selftest=pmu counted=1")])?;
    let machine = Machine::new(3, 1).cpu(cpu).option("-icount", "shift=0,sleep=off");
    let mut board = scenario.boot(&machine.bundle(bundle))?;
    board.expect(r"(?m)^test pmu.calls-not-counted ... ok\n")?;
    board.expect(r"(?m)^\d+ passed, 0 failed\n")?;
    Ok(())
}

/// Without a bundle, the bare image does something useful.
fn built_in(scenario: &Scenario, gic: u8) -> Outcome {
    let mut board = scenario.boot(&Machine::new(gic, 1))?;
    board.expect_log("no bundle was handed over as initrd: running the built-in guests")?;
    let built = board.expect_log("hello: 1 vCPU on CPU 0, 16 MiB")?;
    ensure(!built.before.contains("error:"), || format!("nothing is wrong, and it says\n{}", built.before))?;
    board.expect(r"(?m)^hello: a small guest under Hanok, on ")?;
    board.expect(&format!(r"hello: 1 CPU\(s\), GICv{gic}, counter at \d+ Hz\n"))?;
    for tick in 1..=10 {
        board.expect(&format!(r"hello: tick {tick} of 10\n"))?;
    }
    board.expect(r"(?m)^> ")?;
    board.send_line("help")?;
    board.expect(r"uptime +since when it runs\n")?;
    board.expect(r"(?m)^> ")?;
    board.send_line("uptime")?;
    let uptime = board.expect(r"\n(\d+)\.\d{3} s\n")?;
    ensure(uptime.number(1)? >= 1, || "ten ticks of a tenth of a second took less than a second".to_owned())?;
    board.expect(r"(?m)^> ")?;
    board.send_line("reboot")?;
    board.expect_log("hello starts afresh")?;
    board.expect(r"(?m)^hello: a small guest under Hanok")?;
    board.expect(r"(?m)^> ")?;
    board.send_line("off")?;
    board.expect_log("hello turned itself off")?;
    board.expect_log("no VM is left: turning the board off")?;
    board.expect_off()?;
    Ok(())
}

/// A program of a few instructions, entered behind its first one, which would never end.
fn raw_binary(scenario: &Scenario, gic: u8) -> Outcome {
    const PROGRAM: [u32; 9] = [
        0x1400_0000, // b .
        0xd2a1_2001, // mov x1, #0x0900_0000: the console's data register
        0x5280_0e40, // mov w0, #'r'
        0xb900_0020, // str w0, [x1]
        0x5280_0140, // mov w0, #10
        0xb900_0020, // str w0, [x1]
        0x5280_0100, // mov w0, #0x8400_0008: PSCI SYSTEM_OFF
        0x72b0_8000,
        0xd400_0002, // hvc #0
    ];
    let bytes: Vec<u8> = PROGRAM.iter().flat_map(|word| word.to_le_bytes()).collect();
    let vm = Vm::new("raw")
        .payload("binary", scenario.write("raw.bin", bytes)?)
        .property("load-address", "<0x0 0x40400000>")
        .property("entry-address", "<0x0 0x40400004>");
    let mut board = scenario.boot(&Machine::new(gic, 1).bundle(scenario.bundle(&[vm])?))?;
    board.expect(r"(?m)^r\n")?;
    board.expect_log("raw turned itself off")?;
    board.expect_off()?;
    Ok(())
}

/// Input by receive interrupts alone, faster than a guest reads: nothing is lost or comes twice.
fn echo(scenario: &Scenario, gic: u8) -> Outcome {
    echo_by(scenario, gic, "selftest=echo")
}

/// The same by calls that move blocks.
fn blocks(scenario: &Scenario, gic: u8) -> Outcome {
    echo_by(scenario, gic, "selftest=echo-in-blocks")
}

fn echo_by(scenario: &Scenario, gic: u8, arguments: &str) -> Outcome {
    let bundle = scenario.bundle(&[Vm::selftest(1, arguments)])?;
    let mut board = scenario.boot(&Machine::new(gic, 2).bundle(bundle))?;
    board.expect(r"(?m)^echo: ready\n")?;
    let lines: Vec<String> = (0..40).map(|n| format!("{n} {}", "abcdefghij".repeat(n % 8))).collect();
    // As much at once as the guest has room for, 256 bytes; a FIFO has 32.
    for burst in lines.chunks(4) {
        board.send(&format!("{}\n", burst.join("\n")))?;
        for line in burst {
            let found = board.expect(r"(?m)^echo: ([^\n]*)\n")?;
            ensure_equal("the echo", found.group(1), line.as_str())?;
        }
    }
    board.send_line("off")?;
    board.expect_log("selftest turned itself off")?;
    board.expect_off()?;
    Ok(())
}

/// A guest that restarts as soon as it runs, on all that it had before: each time from a clean start. Often, since its
/// CPUs leave and come back in another order each time.
fn restarts(scenario: &Scenario, gic: u8) -> Outcome {
    let bundle = scenario.bundle(&[Vm::selftest(2, "selftest=reboot")])?;
    let mut board = scenario.boot(&Machine::new(gic, 2).bundle(bundle))?;
    for round in 0..300 {
        board.expect(&format!(r"(?m)^selftest: 2 CPUs, 64 MiB, GICv{gic}, under Hanok\n"))?;
        board.expect(r"(?m)^reboot: SYSTEM_RESET\n")?;
        // Later messages are too many, and are left out.
        if round < 5 {
            board.expect_log("selftest starts afresh")?;
        }
    }
    ensure(!board.text().contains("error"), || "something went wrong on the way".to_owned())
}
