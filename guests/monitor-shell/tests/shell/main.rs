//! The shell on a made-up machine: what is typed, what it asks of Hanok, and what it says.

mod fake;

use abi::Control::{Pause, Resume, Start};
use abi::hanok::right;
use abi::record::state;
use fake::{Asked, Fake, FakeVm, Typed, typed};

/// Three VMs, the last of which is the monitor.
fn house() -> Fake {
    let linux = FakeVm::new("linux", 2).sharing(1, 256, 0);
    let pulse = FakeVm::new("pulse", 1).sharing(2, 200, 1000);
    let monitor = FakeVm::new("monitor", 1);
    Fake::new(vec![linux, pulse, monitor], 2)
}

/// What is said behind the greeting and the echo of the only line.
fn answer(fake: Fake, line: &str) -> String {
    let (_, said) = fake.run(typed(&format!("{line}\r")));
    let (_, said) = said.split_once(&format!("monitor> {line}\n")).expect("the echo");
    said.strip_suffix("monitor> ").expect("a prompt").to_owned()
}

fn asked(fake: Fake, line: &str) -> (Vec<Asked>, String) {
    let (fake, said) = fake.run(typed(&format!("{line}\r")));
    (fake.asked, said)
}

#[test]
fn it_says_where_it_is_and_what_it_may_not() {
    let (_, said) = house().run(typed(""));
    assert_eq!(said, "monitor: Hanok, calls 1.0; type `help`\nmonitor> ");
    let (_, said) = house().rights(right::CONSOLE).run(typed(""));
    assert!(said.contains("\nmonitor: without these rights: control, statistics\n"), "{said}");
    let (_, said) = house().elsewhere().run(typed(""));
    assert!(said.starts_with("monitor: the hypervisor isn't Hanok, and can't be asked"), "{said}");
}

#[test]
fn vms_has_a_row_for_each() {
    let mut fake = house();
    fake.vms[0].record.state = state::PAUSED;
    fake.vms[0].record.crashes = 2;
    fake.vms[1].record.denied = 13;
    assert_eq!(
        answer(fake, "vms"),
        "  nr name    state    cpus share          ram   held starts crashes denied\n\
         \u{20}  1 linux   paused   0,1  weight 256     64M    65M      1       2      0\n\
         \u{20}  2 pulse   running  0    200/1000 us    64M    65M      1       0     13\n\
         *  3 monitor running  0    pinned         64M    65M      1       0      0\n"
    );
}

#[test]
fn vms_are_controlled_by_name_and_by_number() {
    let mut fake = house();
    fake.vms[1].record.state = state::STOPPED;
    let (asked_of, said) = asked(fake, "start pulse");
    assert_eq!(asked_of, [Asked::Control(Start, 1)]);
    assert!(said.contains("pulse: running\n"), "{said}");
    let (asked_of, said) = asked(house(), "pause 1");
    assert_eq!(asked_of, [Asked::Control(Pause, 0)]);
    assert!(said.contains("linux: paused\n"), "{said}");
}

#[test]
fn a_name_that_looks_like_a_number_goes_first() {
    let fake = Fake::new(vec![FakeVm::new("2", 1), FakeVm::new("b", 1), FakeVm::new("monitor", 1)], 2);
    assert_eq!(asked(fake, "pause 2").0, [Asked::Control(Pause, 0)]);
}

#[test]
fn what_cannot_be_is_told_with_the_reason() {
    assert_eq!(
        answer(house(), "start linux"),
        "start: linux is running, which doesn't allow that (WRONG_STATE)\n"
    );
    assert_eq!(answer(house(), "start nobody"), "start: there is no VM nobody\n");
    assert_eq!(answer(house(), "start 9"), "start: there is no such VM (INVALID_PARAMETERS)\n");
    assert_eq!(answer(house(), "start 0"), "start: there is no VM 0\n");
    assert_eq!(answer(house(), "reboot"), "reboot: no such command; `help` lists them\n");
    assert_eq!(answer(house(), "stop"), "usage: stop NAME|NUMBER\n");
    let mut fake = house();
    fake.busy = true;
    assert_eq!(answer(fake, "restart linux"), "restart: Hanok is still busy with it; try again (BUSY)\n");
    assert_eq!(
        answer(house().elsewhere(), "vms"),
        "vms: the hypervisor isn't Hanok, and can't be asked (NOT_SUPPORTED)\n"
    );
}

#[test]
fn the_monitor_restarts_itself_and_no_more() {
    for line in ["stop monitor", "pause 3"] {
        let (asked, said) = asked(house(), line);
        assert_eq!(asked, []);
        assert!(said.contains(": this is monitor itself, which couldn't bring itself back\n"), "{said}");
    }
    assert_eq!(asked(house(), "restart monitor").0.len(), 1);
}

#[test]
fn a_missing_right_is_named() {
    let without = |right: u32, line| answer(house().rights(!right), line);
    assert_eq!(
        without(right::CONTROL, "resume linux"),
        "resume: this VM has no right to control others; give it rights = \"control\" in the manifest (DENIED)\n"
    );
    for line in ["vms", "top", "log"] {
        let said = without(right::STATISTICS, line);
        assert!(said.contains("no right to see what others do; give it rights = \"statistics\""), "{said}");
    }
    for line in ["log linux", "console linux"] {
        let said = without(right::CONSOLE, line);
        assert!(said.contains("give it rights = \"console\""), "{said}");
    }
    // Names are statistics; numbers are not.
    assert_eq!(
        without(right::STATISTICS, "pause linux"),
        "pause: without the right `statistics`, VMs have no names here: say its number\n"
    );
    assert_eq!(without(right::STATISTICS, "pause 1"), "VM 1: pause has begun\n");
}

#[test]
fn logs_are_plain_text() {
    let mut fake = house();
    fake.vms[0].said = b"Booting\r\n\x1b[2J\x1b[1mlogin: ".to_vec();
    fake.log = (0..300).map(|n| format!("[{n}] hanok: a message\n")).collect::<String>().into_bytes();
    let log = String::from_utf8(fake.log.clone()).expect("text");
    let (_, said) = fake.run(typed("log linux\rlog\r"));
    assert!(said.contains("monitor> log linux\nBooting\nlogin: \nmonitor> log\n"), "{said}");
    assert!(said.contains(&log), "{said}");
    assert_eq!(answer(house(), "log linux"), "");
}

#[test]
fn its_own_words_are_told_once() {
    let mut fake = house();
    // More than is asked for at a time.
    fake.vms[2].said = b"monitor: earlier words\n".repeat(50);
    let said = answer(fake, "log monitor");
    assert_eq!(said.matches("earlier words").count(), 50, "{said}");
    // The echo is said as well, before the end is known.
    assert!(said.ends_with("monitor> log monitor\n"), "{said}");
}

#[test]
fn the_console_goes_after_the_words_about_it() {
    let (asked, said) = asked(house(), "console linux");
    assert!(said.contains("console of linux; Ctrl-T 3 comes back\n"), "{said}");
    let [Asked::Focus(0, before)] = &asked[..] else { panic!("{asked:?}") };
    assert!(before.ends_with("comes back\n"), "{before}");
}

#[test]
fn a_crash_is_told_in_words() {
    assert_eq!(answer(house(), "crash pulse"), "pulse has not crashed\n");
    let said = answer(house().crashed(1), "crash pulse");
    for line in [
        "pulse crashed 2.0 s ago: SError\n",
        "  crashes in all  1\n",
        "  esr_el2         0xbe000000: SError\n",
        "  pc              0xffff800010080000, instruction d503207f\n",
        "  pstate          0x3c5: EL1\n",
        "   x0 0000000000000100  x1 0000000000000101  x2 0000000000000102  x3 0000000000000103\n",
        "  x28 000000000000011c x29 000000000000011d x30 000000000000011e\n",
        "its last exits to Hanok, the latest first:\n",
        "  0xffff800010080004  interrupt\n",
        "          0x40080008  HVC #0x0\n",
    ] {
        assert!(said.contains(line), "{line:?} is missing: {said}");
    }
    assert!(said.lines().all(|line| line.len() < 100), "{said}");
    assert_eq!(said.matches("HVC").count(), 1, "there are two exits: {said}");
}

#[test]
fn help_tells_all_commands_and_more_about_each() {
    let said = answer(house(), "help");
    for name in
        ["vms", "top", "start", "stop", "pause", "resume", "restart", "log", "console", "crash", "help"]
    {
        assert!(said.lines().any(|line| line.split(' ').next() == Some(name)), "{name}: {said}");
        let more = answer(house(), &format!("help {name}"));
        assert!(more.starts_with(name) && more.lines().count() > 1, "{more}");
    }
    assert_eq!(said.lines().count(), 11);
    assert_eq!(answer(house(), "help me"), "me: no such command; `help` lists them\n");
}

#[test]
fn tab_completes_commands_and_names() {
    let line = |keys: &str| house().run(typed(keys)).1;
    assert!(line("paus\tl\t\r").contains("monitor> pause linux \nlinux: paused\n"));
    let said = line("st\t");
    assert!(said.ends_with("monitor> st\nstart  stop\nmonitor> st"), "{said}");
    let said = line("pause \t");
    assert!(said.ends_with("\nlinux  pulse  monitor\nmonitor> pause "), "{said}");
    assert!(line("vms x\t").ends_with("vms x\x07"));
    assert!(line("pause linux \t").ends_with("\x07"));
    let said = house().rights(0).run(typed("start l\t")).1;
    assert!(said.ends_with("start l\x07"), "{said}");
}

#[test]
fn resume_is_asked_for_what_was_completed() {
    let mut fake = house();
    fake.vms[0].record.state = state::PAUSED;
    let (fake, _) = fake.run(typed("resu\tli\t\r"));
    assert_eq!(fake.asked, [Asked::Control(Resume, 0)]);
}

/// The picture drawn last.
fn picture(said: &str) -> Vec<String> {
    let last = said.rsplit("\x1b[H").next().expect("a picture");
    last.split("\x1b[J").next().expect("its end").lines().map(|line| line.replace("\x1b[K", "")).collect()
}

#[test]
fn top_shows_what_happened_in_each_second() {
    let mut keys = typed("top\r");
    keys.extend([Typed::Silence, Typed::Silence, Typed::Key(b'q')]);
    keys.extend(typed("vms\r"));
    let mut fake = house();
    fake.vms[1].record.state = state::PAUSED;
    fake.vms[1].power = 2;
    let (_, said) = fake.run(keys);
    assert_eq!(said.matches("\x1b[H").count(), 2, "{said}");
    assert_eq!(said.matches("\x1b[2J").count(), 1, "the screen is cleared once: {said}");
    assert_eq!(
        picture(&said)[..6],
        [
            "2 of 3 VMs run, 4 vCPUs on; memory: 195M held, 1800M free; a key ends this",
            "",
            "vm.vcpu      cpu  run% wait%   mem  int  irq  hvc  smc  sys mmio abrt  wfx  oth",
            "linux.0        0  50.0  25.0   65M  100   10   20   30   40   50   60   70   80",
            "linux.1        1  50.0  25.0   65M  100   10   20   30   40   50   60   70   80",
            "pulse.0        0   0.0   0.0   65M    0    0    0    0    0    0    0    0    0",
        ]
    );
    // The key isn't typed at the prompt.
    assert!(said.contains("monitor> vms\n"), "{said}");
}

#[test]
fn top_ends_after_so_many_seconds() {
    let mut keys = typed("top 3\r");
    keys.extend([Typed::Silence, Typed::Silence, Typed::Silence]);
    let (fake, said) = house().run(keys);
    assert_eq!(fake.seconds(), 3);
    assert!(said.ends_with("monitor> "), "{said}");
}

#[test]
fn a_vm_that_is_off_has_no_row() {
    let mut fake = house();
    fake.vms[0].power = 0;
    let mut keys = typed("top 1\r");
    keys.push(Typed::Silence);
    let (_, said) = fake.run(keys);
    assert_eq!(picture(&said).len(), 5, "{said}");
}

#[test]
fn a_vcpu_has_a_row_when_it_has_been_looked_at_twice() {
    for (seconds, rows) in [(1, 2), (2, 2), (3, 4)] {
        let mut fake = house();
        fake.vms[0].on_after = 2;
        let mut keys = typed(&format!("top {seconds}\r"));
        keys.extend(vec![Typed::Silence; seconds]);
        let (_, said) = fake.run(keys);
        let picture = picture(&said);
        let vcpus = picture.iter().filter(|line| line.contains(".0 ") || line.contains(".1 "));
        assert_eq!(vcpus.count(), rows, "{picture:#?}");
    }
}
