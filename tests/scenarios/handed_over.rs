//! Boards whose device tree is a scenario's own, to the last word: the memory of a tree that QEMU's boot loader knows of, it
//! writes anew. So what it starts is a few instructions that lead to the image, and the tree is in memory already.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{Board, Failure, Machine, Outcome, Qmp, Scenario, ensure, run_tool};

/// A machine of QEMU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// `virt`, with the GIC of this version.
    Virt(u8),
    /// Its Raspberry Pi 4. The tree is that of a card.
    Pi,
}

impl Of {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Virt(2), Self::Virt(3), Self::Pi];

    /// For a scenario's name.
    pub fn name(self) -> String {
        match self {
            Self::Virt(gic) => format!("gicv{gic}"),
            Self::Pi => "pi".to_owned(),
        }
    }

    /// Where its RAM begins.
    pub const fn ram(self) -> u64 {
        match self {
            Self::Virt(_) => 0x4000_0000,
            Self::Pi => 0,
        }
    }

    /// Ranges of memory as `reg` has them below the root: a start from where RAM begins, and a size.
    pub fn reg(self, ranges: &[(u64, u64)]) -> String {
        let high = if self == Self::Pi { "" } else { "0x0 " };
        let range = |(start, size): &(u64, u64)| format!("<0x0 {:#x} {high}{size:#x}>", self.ram() + start);
        ranges.iter().map(range).collect::<Vec<_>>().join(", ")
    }

    /// Source that makes these ranges the board's RAM.
    pub fn memory(self, banks: &[(u64, u64)]) -> String {
        let name = if self == Self::Pi { "memory@0" } else { "memory@40000000" };
        format!("/ {{ {name} {{ reg = {}; }}; }};\n", self.reg(banks))
    }

    fn machine(self) -> Machine {
        match self {
            Self::Virt(gic) => Machine::new(gic, 2),
            // Its tree is not for QEMU's boot loader.
            Self::Pi => Machine::raspberry_pi_4(PathBuf::new()),
        }
    }
}

/// Where things lie, from where RAM begins.
pub const KERNEL: u64 = 0x20_0000;
const TREE: u64 = 0x80_0000;
const BUNDLE: u64 = 0xa0_0000;

/// A board that is being described.
pub struct HandedOver<'a> {
    scenario: &'a Scenario,
    of: Of,
    reservations: String,
    /// What the machine's tree is, and behind it what is different.
    source: String,
    damaged: bool,
    machine: Machine,
}

impl<'a> HandedOver<'a> {
    /// The machine with its own tree, without a bundle.
    pub fn new(scenario: &'a Scenario, of: Of) -> Outcome<Self> {
        let tree = match of {
            Of::Virt(_) => scenario.board_tree(&of.machine())?,
            Of::Pi => scenario.inputs().cards.join("stock/boot/bcm2711-rpi-4-b.dtb"),
        };
        let source = run_tool(Command::new("dtc").args(["-q", "-I", "dtb", "-O", "dts"]).arg(tree))?;
        let source = String::from_utf8_lossy(&source).into_owned();
        let this = Self {
            scenario,
            of,
            reservations: String::new(),
            source,
            damaged: false,
            machine: of.machine().without_kernel(),
        };
        Ok(this.with("/ { chosen { bootargs = \"hanok.log=debug hanok.color=off\"; }; };\n"))
    }

    /// With this device-tree source behind the tree's own, which it changes.
    pub fn with(mut self, source: &str) -> Self {
        self.source.push_str(source);
        self
    }

    /// With an entry in the tree's memory reservation block; `start` from where RAM begins.
    pub fn reserve(mut self, start: u64, size: u64) -> Self {
        self.reservations.push_str(&format!("/memreserve/ {:#x} {size:#x};\n", self.of.ram() + start));
        self
    }

    /// With a tree whose last token isn't what it should be.
    pub fn damaged(mut self) -> Self {
        self.damaged = true;
        self
    }

    /// With a bundle.
    pub fn bundle(self, bundle: &Path) -> Outcome<Self> {
        let size = fs::metadata(bundle).map_err(Failure::io("look at the bundle"))?.len();
        let start = self.of.ram() + BUNDLE;
        let (from, to) = (start, start + size);
        let chosen = format!("linux,initrd-start = <0x0 {from:#x}>; linux,initrd-end = <0x0 {to:#x}>;");
        Ok(self.with(&format!("/ {{ chosen {{ {chosen} }}; }};\n")).load(bundle, BUNDLE))
    }

    /// With a file in memory; `at` from where RAM begins.
    pub fn load(mut self, file: &Path, at: u64) -> Self {
        let at = self.of.ram() + at;
        let value = format!("loader,file={},addr={at:#x},force-raw=on", file.display());
        self.machine = self.machine.option("-device", value);
        self
    }

    /// Starts it.
    pub fn boot(self) -> Outcome<Board> {
        let (scenario, ram) = (self.scenario, self.of.ram());
        let version = "/dts-v1/;\n";
        let source = self.source.replacen(version, &format!("{version}{}", self.reservations), 1);
        let source = scenario.write("tree.dts", source)?;
        let tree = scenario.file("tree.dtb");
        run_tool(Command::new("dtc").args(["-q", "-I", "dts", "-O", "dtb", "-o"]).arg(&tree).arg(source))?;
        if self.damaged {
            damage(&tree)?;
        }
        // `movz x0, #tree, lsl #16`, the same for the image and x1, and `br x1`.
        let movz = |register: u64, address: u64| 0xd2a0_0000 | (address >> 16) << 5 | register;
        let words = [movz(0, ram + TREE), movz(1, ram + KERNEL), 0xd61f_0020];
        let code: Vec<u8> = words.iter().flat_map(|word| (*word as u32).to_le_bytes()).collect();
        let code = scenario.write("code.bin", code)?;
        let image = scenario.inputs().image.clone();
        let this = self.load(&tree, TREE).load(&image, KERNEL);
        scenario.boot(&this.machine.option("-kernel", code.display().to_string()))
    }
}

/// Makes the structure block of a tree end with no known token (Devicetree Specification, 5.4.1).
fn damage(tree: &Path) -> Outcome {
    let mut blob = fs::read(tree).map_err(Failure::io("read the tree"))?;
    let word = |at: usize| blob.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_be_bytes);
    let end = word(8).zip(word(36)).map(|(start, size)| (start + size) as usize);
    let last = end.and_then(|end| blob.get_mut(end - 4..end));
    last.ok_or_else(|| Failure::Wrong("dtc made no tree".to_owned()))?.fill(0xff);
    fs::write(tree, blob).map_err(Failure::io("write the tree"))
}

/// Memory that holds something of which each byte tells where it is.
pub struct Pattern {
    file: PathBuf,
    /// From where RAM begins.
    start: u64,
    bytes: Vec<u8>,
}

impl Pattern {
    /// For `size` bytes at `start`.
    pub fn new(scenario: &Scenario, start: u64, size: u64) -> Outcome<Self> {
        let word = |at: u64| ((start + at) as u32).wrapping_mul(0x9e37_79b1) | 1;
        let bytes: Vec<u8> = (0..size).step_by(4).flat_map(|at| word(at).to_le_bytes()).collect();
        let file = scenario.write(&format!("pattern-{start:x}"), &bytes)?;
        Ok(Self { file, start, bytes })
    }

    /// Puts it into a board's memory.
    pub fn load<'a>(&self, board: HandedOver<'a>) -> HandedOver<'a> {
        board.load(&self.file, self.start)
    }

    /// It is there as it was put there.
    pub fn is_untouched(&self, scenario: &Scenario, of: Of, qmp: &mut Qmp) -> Outcome {
        let (start, size) = (of.ram() + self.start, self.bytes.len());
        let now = scenario.file("memory");
        let arguments = serde_json::json!({ "val": start, "size": size, "filename": now });
        qmp.execute("pmemsave", arguments)?;
        let now = fs::read(now).map_err(Failure::io("read what QEMU saved"))?;
        ensure(now.len() == size, || format!("{} of {size} bytes were saved", now.len()))?;
        let changed = self.bytes.iter().zip(&now).position(|(was, is)| was != is);
        ensure(changed.is_none(), || {
            format!("the byte at {:#x} has changed", start + changed.unwrap_or_default() as u64)
        })
    }
}
