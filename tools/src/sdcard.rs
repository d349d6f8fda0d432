//! The image of a memory card: a partition table (MBR) and one FAT32 volume with files, for boards whose firmware reads
//! such cards.
//!
//! The same files make the same bytes: times and serial numbers are fixed. Folders are not made; the file system itself
//! is the `fatfs` crate's work.

use std::collections::BTreeSet;
use std::io::{Cursor, Error, Write};

use fatfs::{
    Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider, format_volume,
};

/// Bytes in a sector.
const SECTOR: usize = 512;
const MEBIBYTE: usize = 1 << 20;
/// Where the volume starts, in bytes: where cards begin an erase block, which makes writing cheap.
const VOLUME_START: usize = 4 * MEBIBYTE;
/// FAT32 is told from FAT16 by having at least 65,525 clusters, which are of one sector in volumes below 260 MiB.
pub const MIN_MEBIBYTES: u32 = 40;
/// The image is made in memory; for more there is no use.
pub const MAX_MEBIBYTES: u32 = 4096;

/// Identifies the disk and the volume to operating systems; any number will do, as long as it is the same each time.
const SERIAL: u32 = 0x484e_4b31;
/// What a desktop shows as the volume's name, padded with blanks.
const LABEL: [u8; 11] = *b"HANOK      ";
/// Partition type: FAT32, addressed by sector numbers.
const FAT32_LBA: u8 = 0x0c;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// Too small for FAT32, or larger than makes sense.
    #[error("a card of {0} MiB can't be made: {MIN_MEBIBYTES} to {MAX_MEBIBYTES} MiB are possible")]
    Size(u32),
    /// The files take more room than the volume has.
    #[error(
        "the files take {needed} KiB, and a card of {mebibytes} MiB has room for {free} KiB: make it larger"
    )]
    Full {
        /// What the files take, in KiB, with what rounding to clusters and the folder itself add.
        needed: u64,
        /// What the volume has, in KiB.
        free: u64,
        /// The card's size.
        mebibytes: u32,
    },
    /// FAT takes large and small letters for the same.
    #[error("{0} is there twice, for FAT doesn't tell large letters from small ones")]
    Twice(String),
    /// A file that can't be written, for its name or its size.
    #[error("{name} can't be put on a card: {why}")]
    File {
        /// Its name.
        name: String,
        /// What the file system says.
        why: Error,
    },
    /// The volume can't be made.
    #[error("the file system can't be made: {0}")]
    Format(#[from] Error),
}

/// Returns the image of a card of this size with these files, by name, in its only folder.
///
/// # Errors
/// When the size is out of range, the files don't fit, or FAT allows no such file.
pub fn build(files: &[(String, Vec<u8>)], mebibytes: u32) -> Result<Vec<u8>, CardError> {
    if !(MIN_MEBIBYTES..=MAX_MEBIBYTES).contains(&mebibytes) {
        return Err(CardError::Size(mebibytes));
    }
    let mut names = BTreeSet::new();
    if let Some((name, _)) = files.iter().find(|(name, _)| !names.insert(name.to_lowercase())) {
        return Err(CardError::Twice(name.clone()));
    }
    let mut image = vec![0; mebibytes as usize * MEBIBYTE];
    let (table, volume) = image.split_at_mut(VOLUME_START);
    write_partition_table(&mut table[..SECTOR], volume.len());
    let options = FormatVolumeOptions::new().fat_type(FatType::Fat32).volume_id(SERIAL).volume_label(LABEL);
    format_volume(Cursor::new(&mut *volume), options)?;
    write_files(volume, files, mebibytes)?;
    write_hidden_sectors(volume);
    Ok(image)
}

/// One entry, as all of the disk behind the gap is the volume. Its heads and cylinders say that they aren't used.
fn write_partition_table(sector: &mut [u8], volume_len: usize) {
    const NO_GEOMETRY: [u8; 3] = [0xfe, 0xff, 0xff];
    let mut entry = [0; 16];
    entry[1..4].copy_from_slice(&NO_GEOMETRY);
    entry[4] = FAT32_LBA;
    entry[5..8].copy_from_slice(&NO_GEOMETRY);
    entry[8..12].copy_from_slice(&sectors(VOLUME_START));
    entry[12..16].copy_from_slice(&sectors(volume_len));
    sector[440..444].copy_from_slice(&SERIAL.to_le_bytes());
    sector[446..462].copy_from_slice(&entry);
    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
}

/// This many bytes in sectors, as it stands on disks.
fn sectors(bytes: usize) -> [u8; 4] {
    ((bytes / SECTOR) as u32).to_le_bytes()
}

fn write_files(volume: &mut [u8], files: &[(String, Vec<u8>)], mebibytes: u32) -> Result<(), CardError> {
    let options = FsOptions::new().update_accessed_date(false).time_provider(&NoClock);
    let system = FileSystem::new(Cursor::new(volume), options)?;
    let stats = system.stats()?;
    let cluster = u64::from(stats.cluster_size());
    let clusters = |bytes: u64| bytes.div_ceil(cluster);
    // An entry of 32 bytes for the label, one for each file, and one for 13 characters of its name. The folder has its
    // first cluster already.
    let entries: u64 =
        1 + files.iter().map(|(name, _)| 1 + (name.encode_utf16().count() as u64).div_ceil(13)).sum::<u64>();
    let contents: u64 = files.iter().map(|(_, content)| clusters(content.len() as u64)).sum();
    let needed = contents + clusters(entries * 32) - 1;
    let free = u64::from(stats.free_clusters());
    if needed > free {
        let kibibytes = |clusters: u64| (clusters * cluster).div_ceil(1024);
        return Err(CardError::Full { needed: kibibytes(needed), free: kibibytes(free), mebibytes });
    }
    let root = system.root_dir();
    for (name, content) in files {
        let file = |why| CardError::File { name: name.clone(), why };
        let mut to = root.create_file(name).map_err(file)?;
        to.write_all(content).and_then(|()| to.flush()).map_err(file)?;
    }
    drop(root);
    Ok(system.unmount()?)
}

/// All files are of one time, the first that FAT knows.
#[derive(Debug)]
struct NoClock;

impl TimeProvider for NoClock {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

/// The boot sector and its copy say where on the disk the volume starts, which `fatfs` doesn't know.
fn write_hidden_sectors(volume: &mut [u8]) {
    const HIDDEN_SECTORS: usize = 28;
    const COPY: usize = 6 * SECTOR;
    for at in [HIDDEN_SECTORS, COPY + HIDDEN_SECTORS] {
        volume[at..at + 4].copy_from_slice(&sectors(VOLUME_START));
    }
}
