//! U-Boot as a guest: firmware that wasn't built for Hanok and starts at address 0.

use tests::{Machine, Outcome, Scenario, ensure};

use crate::case::{Case, GICS};

/// U-Boot's prompt.
const PROMPT: &str = r"(?m)^=> ";

pub fn cases() -> Vec<Case> {
    let case = |gic| Case::new(format!("u-boot-guest/gicv{gic}"), move |scenario| prompt(scenario, gic));
    GICS.map(case).map(Case::needs_linux).into()
}

fn prompt(scenario: &Scenario, gic: u8) -> Outcome {
    let bundle = scenario.built_bundle("u-boot")?;
    let mut board = scenario.boot(&Machine::new(gic, 2).bundle(bundle))?;
    // It starts again by `reset`, as from power on.
    for round in 0..2 {
        if round > 0 {
            board.send_line("reset")?;
            board.expect_log("u-boot starts afresh")?;
        }
        board.expect(r"\nU-Boot 20\d\d\.\d\d")?;
        board.expect(r"DRAM: +128 MiB\n")?;
        // The second bank reads as erased, which is no environment.
        board.expect(r"Loading Environment from Flash\.\.\. \*\*\* Warning - bad CRC")?;
        board.expect("Hit any key to stop autoboot")?;
        board.send_line("")?;
        board.expect(PROMPT)?;
    }
    board.send_line("version")?;
    board.expect(r"\nU-Boot 20\d\d\.\d\d[^\n]*\n\n[^\n]*gcc")?;
    board.expect(PROMPT)?;
    board.send_line("bdinfo")?;
    board.expect(r"-> start += 0x0*40000000\n-> size += 0x0*8000000\n")?;
    board.expect(PROMPT)?;
    // Computing something in memory: the checksum of 64 KiB of zeros.
    board.send_line("mw.b 0x42000000 0 0x10000; crc32 0x42000000 0x10000")?;
    board.expect("==> d7978eeb")?;
    board.send_line("sleep 1; echo slept$?")?;
    board.expect("slept0")?;
    board.send_line("poweroff")?;
    board.expect_log("u-boot turned itself off")?;
    let said = board.expect_off()?;
    ensure(!said.contains("Synchronous Abort"), || "U-Boot took an abort".to_owned())
}
