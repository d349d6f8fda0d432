//! Cards for a Raspberry Pi 4, opened again by mtools: the partition is where it says, each file is what it was made
//! of, `config.txt` names no file that isn't there, and what the card holds boots.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{Failure, Machine, Outcome, Scenario, Shell, ensure, ensure_equal, run_tool};

use crate::case::Case;

/// Bytes in a sector of the card.
const SECTOR: usize = 512;
/// Partition type: FAT32, addressed by sector numbers.
const FAT32_LBA: u8 = 0x0c;
/// How a device-tree blob and an ELF file start.
const TREE: &[u8] = &[0xd0, 0x0d, 0xfe, 0xed];
const ELF: &[u8] = b"\x7fELF";

pub fn cases() -> Vec<Case> {
    let stubs = ["stock", "tf-a"];
    let opened =
        stubs.map(|stub| Case::new(format!("sdcard/{stub}"), move |scenario| opened(scenario, stub)));
    let booted = Case::new("sdcard/boots", boots);
    opened.into_iter().chain([booted]).map(Case::needs_linux).collect()
}

fn opened(scenario: &Scenario, stub: &str) -> Outcome {
    let folder = files_of_card(scenario, stub)?;
    let files = read_all(&folder)?;
    let boot = read_all(&scenario.inputs().cards.join(stub).join("boot"))?;
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    ensure_equal("files on the card", names(&files), names(&boot))?;
    for (name, content) in &files {
        ensure(boot.get(name) == Some(content), || format!("{name} isn't the file in boot/"))?;
    }

    let text = |name: &str| String::from_utf8_lossy(files.get(name).map_or(&[], |file| file)).into_owned();
    let config = Config::of(&text("config.txt"))?;
    for name in ["arm_64bit", "enable_gic", "enable_uart", "uart_2ndstage"] {
        ensure_equal(name, config.setting(name)?, "1")?;
    }
    ensure_equal("cmdline.txt", text("cmdline.txt"), "hanok.log=info\n".to_owned())?;
    let file = |name: &str| {
        files.get(name).ok_or_else(|| Failure::Wrong(format!("config.txt names {name}, which isn't there")))
    };
    let image = read(&scenario.inputs().image)?;
    ensure(*file(config.setting("kernel")?)? == image, || "the kernel isn't the boot image".into())?;
    let bundle = read(&scenario.built_bundle("rpi4")?)?;
    ensure(*file(&config.initramfs)? == bundle, || {
        "the initramfs isn't the bundle of guests/rpi4.dts".into()
    })?;
    let tree = file(config.setting("device_tree")?)?;
    let compatible = b"raspberrypi,4-model-b\0";
    let is_pi = tree.starts_with(TREE) && tree.windows(compatible.len()).any(|bytes| bytes == compatible);
    ensure(is_pi, || "the device tree isn't that of a Raspberry Pi 4".into())?;
    console_is_on_the_header(&folder.join(config.setting("device_tree")?))?;
    // Firmware has been seen that boots no other.
    ensure_equal("bytes behind the kernel's last word", image.len() % 4, 0)?;
    // The firmware's own names, which config.txt needn't say.
    ensure(file("start4.elf")?.starts_with(ELF), || "start4.elf is no ELF file".into())?;
    file("fixup4.dat")?;
    match stub {
        "stock" => ensure_equal("a stub", config.settings.get("armstub"), None),
        _ => {
            // Where the firmware looks for this word, it puts the addresses of tree and kernel next to it.
            let stub = file(config.setting("armstub")?)?;
            ensure_equal(
                "the stub's magic word",
                stub.get(0xf0..0xf4),
                Some(&0x5afe_570bu32.to_le_bytes()[..]),
            )
        }
    }
}

/// The UART that the firmware puts on the header's pins, which is the one with the alias `serial0`, is the console, and
/// nothing else is behind it.
fn console_is_on_the_header(tree: &Path) -> Outcome {
    let get = |node: &str, property: &str| -> Outcome<String> {
        let value = run_tool(Command::new("fdtget").arg(tree).args([node, property]))?;
        Ok(String::from_utf8_lossy(&value).trim_end().to_owned())
    };
    ensure_equal("the console", get("/chosen", "stdout-path")?.as_str(), "serial0:115200n8")?;
    let uart = get("/aliases", "serial0")?;
    ensure_equal("the UART", get(&uart, "compatible")?.split(' ').next(), Some("arm,pl011"))?;
    ensure_equal("the UART's state", get(&uart, "status")?.as_str(), "okay")?;
    ensure_equal("Bluetooth", get(&format!("{uart}/bluetooth"), "status")?.as_str(), "disabled")
}

/// The card's kernel with its bundle, on a machine like the board: four Cortex-A72, GICv2, 1 GiB.
fn boots(scenario: &Scenario) -> Outcome {
    let folder = files_of_card(scenario, "stock")?;
    let machine =
        Machine::new(2, 4).memory("1G").image(folder.join("kernel8.img")).bundle(folder.join("bundle.dtb"));
    let mut board = scenario.boot(&machine)?;
    let mut shell = Shell::login(&mut board)?;
    shell.check("nproc", "4")?;
    shell.check("echo $((6 * 7))", "42")?;
    board.expect_ever(r"(?m)^\[pulse\] pulse: a timer of 1000 Hz; ")?;
    board.send("\x142")?;
    board.expect_log("console of monitor (2 of 3)")?;
    board.expect(r"(?m)^monitor> $")?;
    Ok(())
}

/// What `config.txt` says.
struct Config {
    settings: HashMap<String, String>,
    initramfs: String,
}

impl Config {
    /// Reads it as the firmware does: `name=value`, but for the initramfs, and comments.
    fn of(text: &str) -> Outcome<Self> {
        let mut config = Self { settings: HashMap::new(), initramfs: String::new() };
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(place) = line.strip_prefix("initramfs ") {
                let (file, place) = place.split_once(' ').unwrap_or((place, ""));
                ensure_equal("where the bundle goes", place, "followkernel")?;
                file.clone_into(&mut config.initramfs);
                continue;
            }
            let (name, value) =
                line.split_once('=').ok_or_else(|| Failure::Wrong(format!("config.txt: {line:?}")))?;
            let before = config.settings.insert(name.to_owned(), value.to_owned());
            ensure_equal("a setting that is given before", before, None)?;
        }
        Ok(config)
    }

    fn setting(&self, name: &str) -> Outcome<&str> {
        let value = self.settings.get(name).map(String::as_str);
        value.ok_or_else(|| Failure::Wrong(format!("config.txt has no {name}")))
    }
}

/// Copies the files of a card into a folder, by mtools, from where its partition table says that they are.
fn files_of_card(scenario: &Scenario, stub: &str) -> Outcome<PathBuf> {
    let image = scenario.inputs().cards.join(stub).join("sdcard.img");
    let card = read(&image)?;
    let table = card.get(446..SECTOR).unwrap_or_default();
    ensure(table.ends_with(&[0x55, 0xaa]), || "the card has no partition table".into())?;
    let partition = |at: usize| {
        let field = table.get(at..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
        u32::from_le_bytes(field) as usize * SECTOR
    };
    let (start, len) = (partition(8), partition(12));
    ensure_equal("partition type", table.get(4), Some(&FAT32_LBA))?;
    ensure_equal("the partition's end", start + len, card.len())?;
    let others = table.get(16..64).unwrap_or_default();
    ensure(others.iter().all(|&byte| byte == 0), || "the card has more partitions".into())?;

    let folder = scenario.file("card");
    fs::create_dir(&folder).map_err(Failure::io(format!("make {}", folder.display())))?;
    let volume = format!("{}@@{start}", image.display());
    run_tool(Command::new("mcopy").args(["-i", &volume, "::*"]).arg(&folder))?;
    Ok(folder)
}

fn read_all(folder: &Path) -> Outcome<BTreeMap<String, Vec<u8>>> {
    let unreadable = || Failure::io(format!("read {}", folder.display()));
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(unreadable())? {
        let entry = entry.map_err(unreadable())?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), read(&entry.path())?);
    }
    Ok(files)
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    fs::read(path).map_err(Failure::io(format!("read {}", path.display())))
}
