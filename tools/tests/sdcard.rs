//! Card images, read again by a reader of its own that follows Microsoft's FAT specification (version 1.03) and knows
//! nothing of the library that writes them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use tools::sdcard::{MAX_MEBIBYTES, MIN_MEBIBYTES, build};

const SECTOR: usize = 512;
/// Marks the end of a chain in a file allocation table, from here on.
const END: u32 = 0x0fff_fff8;
/// Attribute bits of a folder's entry.
const LONG_NAME: u8 = 0x0f;
const VOLUME_LABEL: u8 = 0x08;
/// The first of January 1980.
const FIRST_DAY: usize = 1 << 5 | 1;

fn half(bytes: &[u8], at: usize) -> usize {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()).into()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// A FAT32 volume as its boot sector describes it.
struct Volume<'a> {
    bytes: &'a [u8],
    /// In bytes, from the volume's start.
    table: usize,
    table_len: usize,
    data: usize,
    cluster_len: usize,
    clusters: u32,
    root: u32,
}

impl<'a> Volume<'a> {
    /// The only partition of a card.
    #[track_caller]
    fn of(image: &'a [u8]) -> Self {
        assert_eq!(half(image, 510), 0xaa55);
        let entry = &image[446..462];
        assert_eq!(
            (entry[0], entry[4]),
            (0, 0x0c),
            "not bootable in the PC's sense; FAT32 by sector numbers"
        );
        assert_eq!(image[462..510], [0; 48], "no other partition");
        let (start, sectors) = (word(entry, 8), word(entry, 12));
        assert_eq!((start as usize * SECTOR) % (4 << 20), 0);
        assert_eq!((start + sectors) as usize * SECTOR, image.len());

        let bytes = &image[start as usize * SECTOR..];
        assert_eq!(half(bytes, 510), 0xaa55);
        assert_eq!(half(bytes, 11), SECTOR);
        assert_eq!((half(bytes, 17), half(bytes, 19), half(bytes, 22)), (0, 0, 0), "the fields of FAT16");
        assert_eq!((word(bytes, 28), word(bytes, 32)), (start, sectors));
        assert_eq!(&bytes[82..90], b"FAT32   ");
        let copy = half(bytes, 50) * SECTOR;
        assert_eq!(bytes[..SECTOR], bytes[copy..copy + SECTOR]);

        let table = half(bytes, 14) * SECTOR;
        let table_len = word(bytes, 36) as usize * SECTOR;
        let data = table + usize::from(bytes[16]) * table_len;
        let cluster_len = usize::from(bytes[13]) * SECTOR;
        let clusters = ((bytes.len() - data) / cluster_len) as u32;
        assert!(clusters >= 65525, "{clusters} clusters are FAT16");
        assert!(table_len >= 4 * (clusters as usize + 2));
        assert_eq!(bytes[table..table + table_len], bytes[table + table_len..data], "two tables alike");
        Self { bytes, table, table_len, data, cluster_len, clusters, root: word(bytes, 44) }
    }

    fn next(&self, cluster: u32) -> u32 {
        assert!((2..self.clusters + 2).contains(&cluster));
        word(&self.bytes[self.table..self.table + self.table_len], 4 * cluster as usize) & 0x0fff_ffff
    }

    /// How many clusters the table and the information sector say are free, which is the same.
    fn free(&self) -> u32 {
        let free = (2..self.clusters + 2).filter(|&cluster| self.next(cluster) == 0).count() as u32;
        let information = half(self.bytes, 48) * SECTOR;
        assert_eq!(word(self.bytes, information + 488), free);
        free
    }

    /// All bytes of a chain's clusters.
    fn chain(&self, first: u32) -> Vec<u8> {
        let mut content = Vec::new();
        let mut cluster = first;
        while cluster < END {
            let at = self.data + (cluster as usize - 2) * self.cluster_len;
            content.extend_from_slice(&self.bytes[at..at + self.cluster_len]);
            cluster = self.next(cluster);
        }
        content
    }

    /// Names and contents of the files in the root folder.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut long = Vec::new();
        for entry in self.chain(self.root).chunks(32).take_while(|entry| entry[0] != 0) {
            match entry[11] {
                LONG_NAME => long.push(entry.to_vec()),
                VOLUME_LABEL => assert_eq!(&entry[..11], b"HANOK      "),
                _ => {
                    for date in [16, 18, 24] {
                        assert_eq!(half(entry, date), FIRST_DAY, "date at byte {date}");
                    }
                    let name = full_name(entry, &std::mem::take(&mut long));
                    assert!(files.insert(name, self.content(entry)).is_none());
                }
            }
        }
        assert!(long.is_empty());
        files
    }

    /// The bytes of the file that a folder's entry tells of.
    fn content(&self, entry: &[u8]) -> Vec<u8> {
        let first = (half(entry, 20) << 16 | half(entry, 26)) as u32;
        let len = word(entry, 28) as usize;
        if len == 0 {
            assert_eq!(first, 0, "an empty file has no cluster");
            return Vec::new();
        }
        let mut content = self.chain(first);
        assert_eq!(content.len(), len.next_multiple_of(self.cluster_len));
        content.truncate(len);
        content
    }
}

/// A file's name: that of its long entries, which come last part first, or the short one.
fn full_name(short: &[u8], long: &[Vec<u8>]) -> String {
    let sum = short[..11].iter().fold(0u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte));
    let mut units = Vec::new();
    for (index, entry) in long.iter().rev().enumerate() {
        let last = if index + 1 == long.len() { 0x40 } else { 0 };
        assert_eq!((entry[0], entry[13]), ((index as u8 + 1) | last, sum));
        units.extend(
            [1..11, 14..26, 28..32]
                .into_iter()
                .flat_map(|range| entry[range].chunks(2))
                .map(|unit| half(unit, 0) as u16),
        );
    }
    let units: Vec<u16> = units.into_iter().take_while(|&unit| unit != 0).collect();
    if long.is_empty() {
        let part =
            |range: std::ops::Range<usize>| String::from_utf8_lossy(&short[range]).trim_end().to_owned();
        return format!("{}.{}", part(0..8), part(8..11));
    }
    String::from_utf16(&units).unwrap()
}

/// A file whose bytes tell where in it they stand.
fn file(name: &str, len: usize) -> (String, Vec<u8>) {
    (name.to_owned(), (0..len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect())
}

#[track_caller]
fn refused(files: &[(String, Vec<u8>)], mebibytes: u32) -> String {
    build(files, mebibytes).map(|_| ()).expect_err("must be refused").to_string()
}

#[test]
fn what_is_put_on_a_card_is_read_again() {
    let sizes = [0, 1, 511, 512, 513, 4096, 100_000, 3_000_000];
    let mut files: Vec<_> =
        sizes.into_iter().map(|len| file(&format!("a rather long name.{len}"), len)).collect();
    // More than one cluster of the folder.
    files.extend((0..40).map(|n| file(&format!("KERNEL{n}.IMG"), n)));
    files.push(file("config.txt", 253));
    let image = build(&files, 64).unwrap();
    assert_eq!(image.len(), 64 << 20);
    let volume = Volume::of(&image);
    volume.free();
    assert_eq!(volume.files(), files.iter().cloned().collect());
    assert!(build(&files, 64).unwrap() == image, "the same files make the same image");
}

#[test]
fn a_card_can_be_filled_to_its_last_cluster() {
    let empty = build(&[], MIN_MEBIBYTES).unwrap();
    let volume = Volume::of(&empty);
    assert_eq!(volume.files().len(), 0);
    let room = volume.free() as usize * volume.cluster_len;
    let files = [file("bundle.dtb", room)];
    let full = build(&files, MIN_MEBIBYTES).unwrap();
    let volume = Volume::of(&full);
    assert_eq!(volume.free(), 0);
    assert!(volume.files()["bundle.dtb"] == files[0].1);

    let why = |clusters: usize| {
        let (taken, room) = ((room + clusters * SECTOR).div_ceil(1024), room.div_ceil(1024));
        format!("the files take {taken} KiB, and a card of 40 MiB has room for {room} KiB: make it larger")
    };
    assert_eq!(refused(&[file("bundle.dtb", room + 1)], MIN_MEBIBYTES), why(1));
    // 16 files' names and the label take 33 entries, of which a cluster has 16.
    let mut files: Vec<_> = (0..15).map(|n| file(&format!("empty{n}"), 0)).collect();
    files.push(file("bundle.dtb", room));
    assert_eq!(refused(&files, MIN_MEBIBYTES), why(2));
}

#[test]
fn sizes_out_of_range_are_refused() {
    for mebibytes in [0, MIN_MEBIBYTES - 1, MAX_MEBIBYTES + 1, u32::MAX] {
        let why = format!("a card of {mebibytes} MiB can't be made: 40 to 4096 MiB are possible");
        assert_eq!(refused(&[], mebibytes), why);
    }
}

/// Above 260 MiB, clusters are larger.
#[test]
fn large_cards_are_fat32_too() {
    let files = [file("bundle.dtb", 50_000)];
    let image = build(&files, 300).unwrap();
    let volume = Volume::of(&image);
    assert_eq!(volume.cluster_len, 4096);
    assert_eq!(volume.files(), files.into_iter().collect());
}

#[test]
fn names_that_fat_has_not_are_refused() {
    let twice = [file("Config.txt", 1), file("b", 1), file("CONFIG.TXT", 1)];
    let why = "CONFIG.TXT is there twice, for FAT doesn't tell large letters from small ones";
    assert_eq!(refused(&twice, 64), why);
    for name in ["a/b", "a:b", "", &"x".repeat(256)] {
        let why = refused(&[file(name, 1)], 64);
        assert!(why.starts_with(&format!("{name} can't be put on a card: ")), "{why}");
    }
}

/// The file has holes where the image has zeros, and reads as the image.
#[test]
fn the_command_writes_the_image_of_a_folder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    let image = std::env::temp_dir().join(format!("hanok-whole-card-{}.img", std::process::id()));
    let command = ["sdcard".as_ref(), folder.as_os_str(), "40".as_ref(), image.as_os_str()];
    let status = Command::new(env!("CARGO_BIN_EXE_tools")).args(command).status().unwrap();
    let written = std::fs::read(&image);
    let _ = std::fs::remove_file(&image);
    assert!(status.success());
    assert!(written.unwrap() == build(&files, 40).unwrap());
}

#[test]
fn the_command_says_what_is_wrong() {
    let said = |folder: &Path, size: &str| {
        let image = std::env::temp_dir().join(format!("hanok-card-{}.img", std::process::id()));
        let command = ["sdcard".as_ref(), folder.as_os_str(), size.as_ref(), image.as_os_str()];
        let output = Command::new(env!("CARGO_BIN_EXE_tools")).args(command).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len(), image.exists()), (Some(1), 0, false));
        String::from_utf8(output.stderr).unwrap()
    };
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(said(recipe, "128M"), "the card's size is \"128M\": give whole MiB\n");
    assert_eq!(said(recipe, "-1"), "the card's size is \"-1\": give whole MiB\n");
    assert!(said(Path::new("/nowhere/boot"), "64").starts_with("/nowhere/boot: "));
    // It has a folder in it.
    assert!(said(recipe, "64").starts_with(&format!("{}/", recipe.display())));
    let flat = recipe.join("src");
    let why = format!("{}: a card of 39 MiB can't be made: 40 to 4096 MiB are possible\n", flat.display());
    assert_eq!(said(&flat, "39"), why);
}
