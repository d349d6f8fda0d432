//! The board's memory is what its tree says, in as many banks as there are; and what the firmware keeps for itself stays as
//! the firmware left it, whatever becomes of the rest.

use std::time::Duration;

use tests::{Board, Outcome, Qmp, Scenario, Vm, ensure, ensure_equal};

use crate::case::Case;
use crate::handed_over::{HandedOver, Of, Pattern};
use crate::raspberry_pi_4::NO_OVERFLOW;

pub fn cases() -> Vec<Case> {
    type Run = fn(&Scenario, Of) -> Outcome;
    let all: [(&str, Run); 2] = [("banks", banks), ("reserved", reserved)];
    let case = |of: Of| {
        move |(name, run): (&str, Run)| {
            let case =
                Case::new(format!("board-memory/{name}/{}", of.name()), move |scenario| run(scenario, of));
            if of == Of::Pi { case.needs_linux() } else { case }
        }
    };
    let sizes = [
        Case::new("board-memory/1-gib/pi", one_gib).needs_linux(),
        Case::new("board-memory/2-gib/pi", two_gib).needs_linux(),
    ];
    let devices = [Case::new("board-memory/many-devices/virt", many_devices)];
    let all = Of::ALL.into_iter().flat_map(|of| all.into_iter().map(case(of)));
    all.chain(sizes).chain(devices).collect()
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Boots the board with these patterns in its memory and one VM of `mebibytes`, which ends. What nobody may touch is untouched when it
/// runs, its memory being zeroed by then, and when that has been taken back.
fn keeps(
    scenario: &Scenario,
    of: Of,
    board: HandedOver<'_>,
    patterns: &[Pattern],
    mebibytes: u32,
) -> Outcome<(Board, Qmp)> {
    let vm = Vm::hello("hello").memory(mebibytes);
    let bundle = scenario.bundle_with("when-all-off = \"stay\";", &[vm])?;
    let board = patterns.iter().fold(board, |board, pattern| pattern.load(board));
    let mut board = board.bundle(&bundle)?.boot()?;
    let mut qmp = board.qmp()?;
    board.expect(r"(?m)^hello: tick 1 of 10\n")?;
    patterns.iter().try_for_each(|pattern| pattern.is_untouched(scenario, of, &mut qmp))?;
    board.send_line("off")?;
    board.expect_log("hello is off")?;
    board.expect(r"(?m)hanok: no VM is left\n")?;
    patterns.iter().try_for_each(|pattern| pattern.is_untouched(scenario, of, &mut qmp))?;
    Ok((board, qmp))
}

/// Three banks, of which a VM gets nearly all. What lies in the holes is no memory, whatever is there.
fn banks(scenario: &Scenario, of: Of) -> Outcome {
    let board = HandedOver::new(scenario, of)?;
    let banks = [(0, 64 * MIB), (96 * MIB, 64 * MIB), (208 * MIB, 16 * MIB)];
    let board = board.with(&of.memory(&banks));
    let edges = [64 * MIB, 96 * MIB - 64 * KIB, 160 * MIB, 208 * MIB - 64 * KIB, 224 * MIB];
    let patterns = edges.map(|start| Pattern::new(scenario, start, 64 * KIB));
    let patterns = patterns.into_iter().collect::<Outcome<Vec<_>>>()?;
    // Three pieces of 32 MiB, of which the first bank has one and the second two, and two of 16.
    let (mut board, _) = keeps(scenario, of, board, &patterns, 128)?;
    let free = board.expect_ever(r"(?m)hanok: (\d+) MiB of RAM free\n")?.number(1)?;
    ensure((136..144).contains(&free), || format!("{free} MiB of 144 are free"))
}

/// What the tree reserves by a node, by one that says `no-map`, and in its reservation block is nobody's. Each is where the VM's
/// memory would be otherwise: amid or at the start of the largest pieces. EL2 has no map of what is `no-map`.
fn reserved(scenario: &Scenario, of: Of) -> Outcome {
    let board = HandedOver::new(scenario, of)?;
    let [kept, hidden, listed] = [(64 * MIB, MIB), (80 * MIB, 2 * MIB), (96 * MIB, 64 * KIB)];
    let patterns = [kept, hidden, listed].map(|(start, size)| Pattern::new(scenario, start, size));
    let patterns = patterns.into_iter().collect::<Outcome<Vec<_>>>()?;
    let cells = if of == Of::Pi { 1 } else { 2 };
    let nodes = format!(
        "/ {{ reserved-memory {{ #address-cells = <2>; #size-cells = <{cells}>; ranges; \
         kept {{ reg = {}; }}; hidden {{ reg = {}; no-map; }}; }}; }};\n",
        of.reg(&[kept]),
        of.reg(&[hidden])
    );
    let board = board.with(&of.memory(&[(0, 128 * MIB)])).with(&nodes).reserve(listed.0, listed.1);
    let (_board, mut qmp) = keeps(scenario, of, board, &patterns, 96)?;
    // All CPUs are idle in EL2, so that addresses are EL2's. Those on both sides are mapped.
    let (start, end) = (of.ram() + hidden.0, of.ram() + hidden.0 + hidden.1);
    for (address, is_mapped) in
        [(start - 4, true), (start, false), (end - 4, false), (end, true), (of.ram() + kept.0, true)]
    {
        let word = qmp.monitor(&format!("x /1wx {address:#x}"))?;
        let refused = word.contains("Cannot access memory");
        ensure(refused != is_mapped, || {
            format!("{address:#x} should {}be mapped: {word}", if is_mapped { "" } else { "not " })
        })?;
    }
    Ok(())
}

/// A tree with nearly as many nodes as are accepted, each with registers in a place of its own: EL2's memory suffices for what it
/// has to know of these, and a device that comes early in the map can be handed out.
fn many_devices(scenario: &Scenario) -> Outcome {
    let of = Of::Virt(3);
    let node = |number: u64| {
        let address = 0x7f_0000_0000 + (number << 14);
        format!(
            "device@{address:x} {{ compatible = \"none,such\"; reg = <{:#x} {:#x} 0 0x1000>; interrupts = <0 {} 4>; }};\n",
            address >> 32,
            address & 0xffff_ffff,
            40 + number % 200
        )
    };
    let nodes: String = (0..3900).map(node).collect();
    let board = HandedOver::new(scenario, of)?.with(&format!("/ {{\n{nodes}}};\n"));
    let vms = [
        Vm::driver("clock", &["/pl031@9010000"]),
        Vm::hello("late")
            .property("passthrough", "\"/device@7f03ccc000\"")
            .property("layout", "\"board\"")
            .property("allow-unprotected-dma", ""),
    ];
    let mut board = board.bundle(&scenario.bundle(&vms)?)?.boot()?;
    board.expect_log(
        "warning: the board has devices at more than <n> places: no VM is given one from <n> on",
    )?;
    board.expect_ever(r"(?m)hanok: error: left out: /late: passthrough: ")?;
    board.expect(r"(?m)^driver: alarm 3 of 3\n")?;
    board.expect_off().map(drop)
}

/// The bank of a board of 1 GiB: a VM that fits runs, one that doesn't is left out with a message that names it.
fn one_gib(scenario: &Scenario) -> Outcome {
    let board = HandedOver::new(scenario, Of::Pi)?.with(&Of::Pi.memory(&[(0, 948 * MIB)]));
    let vms = [Vm::hello("large").memory(1024), Vm::selftest(3, NO_OVERFLOW)];
    let mut board = board.bundle(&scenario.bundle(&vms)?)?.boot()?;
    board.expect_log(
        "error: left out: /large: memory: 1048576 KiB of memory are wanted and <n> KiB are free",
    )?;
    let end = board.expect_within(r"(?m)^(\d+) passed, (\d+) failed\n", Duration::from_secs(120))?;
    ensure_equal("failed cases", end.number(2)?, 0)?;
    board.expect_off()?;
    Ok(())
}

/// The banks of a board of 2 GiB, with the graphics processor's part between them: a VM may have memory of both.
fn two_gib(scenario: &Scenario) -> Outcome {
    let board = HandedOver::new(scenario, Of::Pi)?;
    let board = board.with(&Of::Pi.memory(&[(0, 948 * MIB), (1024 * MIB, 1024 * MIB)]));
    let patterns = [948 * MIB, 1024 * MIB - MIB].map(|start| Pattern::new(scenario, start, MIB));
    let patterns = patterns.into_iter().collect::<Outcome<Vec<_>>>()?;
    keeps(scenario, Of::Pi, board, &patterns, 1536)?;
    Ok(())
}
