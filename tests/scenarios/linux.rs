//! An unmodified Debian Linux as the only guest: it boots to its shell, works, restarts and goes off.

use std::time::{SystemTime, UNIX_EPOCH};

use tests::{Board, Machine, Outcome, Scenario, Shell, Vm, ensure, ensure_equal};

use crate::case::Case;

/// GIC version, CPU model, vCPUs. Every number of vCPUs and every model comes with GICv3, and the models of boards that
/// have a GICv2 with that.
const MACHINES: [(u8, &str, u8); 8] = [
    (3, "max", 4),
    (2, "cortex-a72", 4),
    (3, "cortex-a53", 4),
    (3, "cortex-a72", 2),
    (2, "cortex-a53", 2),
    (3, "neoverse-n1", 2),
    (2, "cortex-a72", 1),
    (3, "cortex-a72", 1),
];

pub fn cases() -> Vec<Case> {
    let case = |(gic, cpu, vcpus): (u8, &'static str, u8)| {
        let name = format!("linux/gicv{gic}/{cpu}/{vcpus}-vcpus");
        Case::new(name, move |scenario| boots_and_works(scenario, gic, cpu, vcpus)).needs_linux()
    };
    MACHINES.into_iter().map(case).collect()
}

fn boots_and_works(scenario: &Scenario, gic: u8, cpu: &str, vcpus: u8) -> Outcome {
    // With 2 vCPUs it is just what `make run` boots.
    let bundle =
        if vcpus == 2 { scenario.built_bundle("linux")? } else { scenario.bundle(&[Vm::linux(vcpus)])? };
    let mut board = scenario.boot(&Machine::new(gic, vcpus).cpu(cpu).bundle(bundle))?;
    let cpus = if vcpus == 1 { "1 CPU".to_owned() } else { format!("{vcpus} CPUs") };
    board.expect(&format!(r"hanok: Hanok \S+ on \S+, {cpus}, entered at 0x[0-9a-f]+\n"))?;
    addresses_differ(&mut board)?;

    let mut shell = Shell::login(&mut board)?;
    sees_its_machine(&mut shell, gic, vcpus)?;
    works_line_by_line(&mut shell, vcpus)?;
    works_typed_at_once(&mut shell, vcpus)?;
    interrupts_reach_all_cpus(&mut shell, vcpus)?;
    if vcpus > 1 {
        turns_cpus_off_and_on(&mut shell, vcpus)?;
    }
    let before = shell.run("cat /proc/sys/kernel/random/boot_id")?;
    let mut shell = reboots(shell)?;
    shell.check("nproc", &vcpus.to_string())?;
    let after = shell.run("cat /proc/sys/kernel/random/boot_id")?;
    ensure(before != after, || format!("both boots have the same random numbers: {after}"))?;
    shell.check("echo hanok | md5sum", "58bb721193dd2abf3b515b4c260d17a2  -")?;

    shell.type_line("poweroff")?;
    board.expect(r"reboot: Power down\n")?;
    board.expect_log("linux turned itself off")?;
    board.expect_log("no VM is left: turning the board off")?;
    board.expect_off()?;
    Ok(())
}

/// None of the guest's RAM is where the guest sees it, so that no access by the wrong kind of address works by chance.
fn addresses_differ(board: &mut Board) -> Outcome {
    let mut end = 0x4000_0000;
    let mut mebibytes = 0;
    while mebibytes < 512 {
        let run = board.expect(r"hanok: linux: RAM 0x([0-9a-f]+) is at 0x([0-9a-f]+), (\d+) MiB\n")?;
        let address = |n| u64::from_str_radix(run.group(n), 16).unwrap_or(0);
        ensure_equal("the guest's RAM goes on at", address(1), end)?;
        ensure(address(1) != address(2), || format!("RAM at {:#x} is where the guest sees it", end))?;
        mebibytes += run.number(3)?;
        end += run.number(3)? << 20;
    }
    Ok(())
}

fn sees_its_machine(shell: &mut Shell<'_>, gic: u8, vcpus: u8) -> Outcome {
    let all = if vcpus == 1 { "0".to_owned() } else { format!("0-{}", vcpus - 1) };
    shell.check("nproc", &vcpus.to_string())?;
    shell.check("cat /sys/devices/system/cpu/online", &all)?;
    shell.check("uname -m", "aarch64")?;
    shell.check("cat /proc/cmdline", "console=ttyAMA0")?;
    shell
        .check("cat /sys/devices/system/clocksource/clocksource0/current_clocksource", "arch_sys_counter")?;
    shell.run("dmesg | grep -q 'psci: PSCIv1.1 detected in firmware'")?;
    let controller = if gic == 3 { "GICv3" } else { "GIC-0" };
    shell.run(&format!("grep -q '{controller} .*arch_timer' /proc/interrupts"))?;
    // EL2 gives seeds: without, the generator is ready much later.
    shell.run("dmesg | grep -q '0.000000. random: crng init done'")?;
    shell.run("dmesg | grep -q 'CPU: All CPU(s) started at EL1'")?;
    let kib = shell.number("awk '/^MemTotal/ { print $2 }' /proc/meminfo")?;
    ensure((450 << 10..512 << 10).contains(&kib), || format!("{kib} KiB of 512 MiB RAM"))?;
    // The board's clock, which is the host's.
    let host = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let guest = shell.number("date +%s")?;
    ensure(host.abs_diff(guest) < 300, || format!("the guest's clock says {guest}, the host's {host}"))?;
    Ok(())
}

fn works_line_by_line(shell: &mut Shell<'_>, vcpus: u8) -> Outcome {
    shell.run("modprobe virtio_blk")?;
    shell.run("grep -q '^virtio_blk .* Live' /proc/modules")?;
    shell.run("mkdir /tmp/d && cd /tmp/d")?;
    shell.check("seq 20000 | sha256sum", SEQ_SHA256)?;
    shell.check(
        "dd if=/dev/zero bs=1M count=16 2>/dev/null | md5sum",
        "2c7ab85a893283e98c931e9511add182  -",
    )?;
    shell.check("head -c 3000000 /dev/urandom >r; cp r s; cmp r s && wc -c <s", "3000000")?;
    // The same work on every CPU, pinned, all at once.
    let work = format!(
        "for c in $(seq 0 {}); do taskset -c $c sha256sum r & done | cut -c 1-64 | sort | uniq -c | wc -l",
        vcpus - 1
    );
    shell.check(&work, "1")?;
    shell.check("timeout 1 sleep 60; echo $?", "Terminated\n143")?;
    // A line that is longer than any FIFO between here and there.
    let long = "hanok".repeat(60);
    shell.check(&format!("echo {long} | wc -c"), "301")?;
    let (said, status) = shell.try_run("ls /absent")?;
    ensure(status == 1 && said.contains("No such file"), || format!("`ls /absent`: {status}, {said:?}"))?;
    shell.run("cd; rm -r /tmp/d")?;
    Ok(())
}

/// Of `seq 20000`, by coreutils on another machine.
const SEQ_SHA256: &str = "f6351f5ead9a700e34275480b3856ea738122a7c57bdeb744a631251c069587a  -";

/// A script that is pasted: the console's input must not lose a byte while the guest is busy.
fn works_typed_at_once(shell: &mut Shell<'_>, vcpus: u8) -> Outcome {
    let processors = vcpus.to_string();
    let script = [
        ("nproc", processors.as_str()),
        ("expr 6 '*' 7", "42"),
        ("seq 1000 | wc -l", "1000"),
        ("seq 100 | tail -n 1", "100"),
        ("printf hanok | md5sum | cut -c 1-8", "69eed0a3"),
        ("printf hanok | sha1sum | cut -c 1-8", "47fe2217"),
        ("echo hanok | tr a-z A-Z", "HANOK"),
        ("echo hanok | rev", "konah"),
        ("printf '3 1 2' | tr ' ' '\\n' | sort | tr '\\n' ' '", "1 2 3 "),
        ("grep -c ^processor /proc/cpuinfo", processors.as_str()),
        ("cat /proc/1/comm", "init"),
        ("id -u", "0"),
        ("hostname", "linux"),
        ("uname -s", "Linux"),
        ("stat -c %a /tmp", "1777"),
        ("echo a b c | awk '{ print $2 }'", "b"),
        ("seq 10 | awk '{ s += $1 } END { print s }'", "55"),
        ("dd if=/dev/zero bs=1k count=9 2>/dev/null | wc -c", "9216"),
        ("true && echo yes || echo no", "yes"),
        ("cat /proc/sys/kernel/ostype", "Linux"),
        ("test -c /dev/ttyAMA0 && echo tty", "tty"),
        ("date -u -d @0 +%Y", "1970"),
    ];
    let answers = shell.run_at_once(&script.map(|(command, _)| command))?;
    for ((command, wanted), got) in script.iter().zip(&answers) {
        ensure_equal(&format!("`{command}`, typed with others"), got.as_str(), *wanted)?;
    }
    Ok(())
}

/// Timer interrupts on every CPU, and inter-processor interrupts where there are several.
fn interrupts_reach_all_cpus(shell: &mut Shell<'_>, vcpus: u8) -> Outcome {
    let before = timer_interrupts(shell)?;
    // A CPU that idles has no tick.
    let work = format!(
        "for c in $(seq 0 {}); do taskset -c $c timeout 1 sh -c 'while :; do :; done' & done; wait",
        vcpus - 1
    );
    shell.run(&work)?;
    let after = timer_interrupts(shell)?;
    ensure_equal("CPUs with timer interrupts", after.len(), usize::from(vcpus))?;
    let rising = before.iter().zip(&after).all(|(before, after)| after >= &(before + 5));
    ensure(rising, || format!("a second's work took timer interrupts from {before:?} to {after:?}"))?;
    if vcpus > 1 {
        let sum = "awk '/^IPI[01]:/ { for (i = 2; i < NF; i++) n += $i } END { print n }' /proc/interrupts";
        let ipis = shell.number(sum)?;
        ensure(ipis > 10, || format!("{ipis} inter-processor interrupts"))?;
    }
    let uart = shell.number("awk '/uart-pl011/ { print $2 }' /proc/interrupts")?;
    ensure(uart > 10, || format!("{uart} interrupts of the console"))
}

fn timer_interrupts(shell: &mut Shell<'_>) -> Outcome<Vec<u64>> {
    let line = shell.run("grep arch_timer /proc/interrupts")?;
    Ok(line.split_whitespace().skip(1).map_while(|word| word.parse().ok()).collect())
}

fn turns_cpus_off_and_on(shell: &mut Shell<'_>, vcpus: u8) -> Outcome {
    let last = vcpus - 1;
    for _ in 0..2 {
        for cpu in [1, last] {
            let online = format!("/sys/devices/system/cpu/cpu{cpu}/online");
            shell.run(&format!("echo 0 >{online}"))?;
            shell.check("nproc", &last.to_string())?;
            shell.run(&format!("echo 1 >{online}"))?;
            shell.check("nproc", &vcpus.to_string())?;
            shell.check(&format!("taskset -c {cpu} sh -c 'seq 100 | wc -l'"), "100")?;
        }
    }
    Ok(())
}

fn reboots(mut shell: Shell<'_>) -> Outcome<Shell<'_>> {
    shell.type_line("reboot")?;
    let board = shell.into_board();
    board.expect(r"reboot: Restarting system\n")?;
    board.expect_log("linux starts afresh")?;
    board.expect("Booting Linux on physical CPU")?;
    Shell::login(board)
}
