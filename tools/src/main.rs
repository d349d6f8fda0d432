//! The build's own commands; the Makefile calls them.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::ExitCode;
use tools::initramfs::Contents;
use tools::modules::Modules;
use tools::programs::Programs;

const USAGE: &str = "\
usage: tools image ELF IMAGE
           make the flat boot image of EL2's ELF
       tools strip ELF STRIPPED
           leave of a guest's ELF what is loaded
       tools initramfs RECIPE BUSYBOX MODULES CPIO
           make a Linux guest's initramfs. RECIPE: a folder with `modules`, the names of the modules that guests need,
           and `etc`, the files for /etc. BUSYBOX: a static busybox for arm64. MODULES: the kernel's lib/modules/VERSION
       tools programs ROOT CPIO PROGRAM...
           make an archive of programs with the libraries that they load, for Linux to unpack behind its initramfs. ROOT: a folder in
           which packages have been unpacked
       tools check-manifest BUNDLE [TREE]
           say what is in a VM bundle, or what is wrong with it. TREE: the device tree of the board, for its devices
       tools sysregs
           print docs/sysregs.md: what guests have of each system register
       tools sdcard FOLDER MEBIBYTES IMAGE
           make the image of a memory card with a FAT32 volume that holds the files of FOLDER";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["image", elf, image] => make_image(Path::new(elf), Path::new(image)),
        ["strip", elf, to] => strip(Path::new(elf), Path::new(to)),
        ["initramfs", recipe, busybox, modules, cpio] => {
            make_initramfs(Path::new(recipe), Path::new(busybox), Path::new(modules), Path::new(cpio))
        }
        ["programs", root, cpio, ref programs @ ..] => {
            make_programs(Path::new(root), Path::new(cpio), programs)
        }
        ["check-manifest", bundle] => check_manifest(Path::new(bundle), None),
        ["check-manifest", bundle, tree] => check_manifest(Path::new(bundle), Some(Path::new(tree))),
        ["sysregs"] => {
            print!("{}", tools::sysregs::document());
            Ok(())
        }
        ["sdcard", folder, mebibytes, image] => make_card(Path::new(folder), mebibytes, Path::new(image)),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn make_image(elf: &Path, to: &Path) -> Result<(), String> {
    let image = tools::image::flatten(&read(elf)?).map_err(|why| format!("{}: {why}", elf.display()))?;
    write_whole(to, &image.bytes)?;
    println!("{}: {image}", to.display());
    Ok(())
}

/// Leaves the file alone when it has the right bytes: what is made of it isn't made again then.
fn strip(elf: &Path, to: &Path) -> Result<(), String> {
    let bytes = tools::strip::strip(&read(elf)?).map_err(|why| format!("{}: {why}", elf.display()))?;
    if std::fs::read(to).is_ok_and(|there| there == bytes) { Ok(()) } else { write_whole(to, &bytes) }
}

fn make_initramfs(recipe: &Path, busybox: &Path, root: &Path, to: &Path) -> Result<(), String> {
    let list = String::from_utf8_lossy(&read(&recipe.join("modules"))?).into_owned();
    let names =
        list.lines().map(|line| line.split('#').next().unwrap_or(line)).flat_map(str::split_whitespace);
    let modules = Modules::collect(root, names).map_err(|why| why.to_string())?;
    let release =
        root.file_name().map(|name| name.to_string_lossy()).ok_or("the module folder has no name")?;
    let contents = Contents {
        busybox: &read(busybox)?,
        etc: read_etc(&recipe.join("etc"))?,
        release: &release,
        modules: &modules,
        built_in: &read(&root.join("modules.builtin"))?,
    };
    let bytes = tools::initramfs::build(&contents).map_err(|why| why.to_string())?;
    write_whole(to, &bytes)?;
    let names: Vec<&str> = modules.0.keys().map(String::as_str).collect();
    println!("{}: {} bytes; modules of {release}: {}", to.display(), bytes.len(), names.join(" "));
    Ok(())
}

fn make_programs(root: &Path, to: &Path, programs: &[&str]) -> Result<(), String> {
    let programs = Programs::collect(root, programs.iter().copied()).map_err(|why| why.to_string())?;
    let bytes = programs.archive().map_err(|why| why.to_string())?;
    write_whole(to, &bytes)?;
    println!("{}: {} bytes, {} programs and libraries", to.display(), bytes.len(), programs.0.len());
    Ok(())
}

/// Mistakes go to standard error, the last line says how many there are.
fn check_manifest(bundle: &Path, board: Option<&Path>) -> Result<(), String> {
    let board = board.map(read).transpose()?;
    let tools::manifest::Report { sound, wrong } = tools::manifest::check(&read(bundle)?, board.as_deref());
    for line in &sound {
        println!("{line}");
    }
    for line in &wrong {
        eprintln!("error: {line}");
    }
    match wrong.len() {
        0 => Ok(()),
        1 => Err("1 mistake".to_owned()),
        count => Err(format!("{count} mistakes")),
    }
}

fn make_card(folder: &Path, mebibytes: &str, to: &Path) -> Result<(), String> {
    let mebibytes =
        mebibytes.parse().map_err(|_| format!("the card's size is {mebibytes:?}: give whole MiB"))?;
    let unreadable = |why: std::io::Error| format!("{}: {why}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name =
            entry.file_name().into_string().map_err(|name| format!("{name:?}: not a name in Unicode"))?;
        files.push((name, read(&entry.path())?));
    }
    // Folders list their files in any order, and the same files make the same image.
    files.sort();
    let image =
        tools::sdcard::build(&files, mebibytes).map_err(|why| format!("{}: {why}", folder.display()))?;
    write_beside(to, |file| write_sparse(file, &image))?;
    println!("{}: {mebibytes} MiB, {} files", to.display(), files.len());
    Ok(())
}

/// The files of a folder, by name; those that start with `#!` are programs.
fn read_etc(folder: &Path) -> Result<Vec<(String, Vec<u8>, bool)>, String> {
    let unreadable = |why: std::io::Error| format!("{}: {why}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let content = read(&path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let program = content.starts_with(b"#!");
        files.push((name, content, program));
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|why| format!("{}: {why}", path.display()))
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), String> {
    write_beside(path, |file| file.write_all(bytes))
}

/// Writes beside the file and renames, so that an interrupted build leaves no half of one.
fn write_beside(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), String> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    File::create(&beside)
        .and_then(|mut file| write(&mut file))
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|why| format!("{}: {why}", path.display()))
}

/// Leaves out blocks of zeros, which most of a card is: they take no room on the disk.
fn write_sparse(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    const BLOCK: usize = 4096;
    file.set_len(bytes.len() as u64)?;
    for (index, block) in bytes.chunks(BLOCK).enumerate() {
        if block.iter().any(|&byte| byte != 0) {
            file.seek(SeekFrom::Start((index * BLOCK) as u64))?;
            file.write_all(block)?;
        }
    }
    Ok(())
}
