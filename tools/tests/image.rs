//! The boot image maker against ELF files made here, byte by byte from the ELF specification.

use tools::image::{ImageError, flatten};
use tools::strip::strip;

const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;
const R_AARCH64_ABS64: u64 = 257;
const R_AARCH64_RELATIVE: u64 = 1027;

/// What a test changes of an image that is right.
struct Elf {
    kind: u16,
    machine: u16,
    entry: u64,
    magic: u32,
    text_offset: u64,
    image_size: u64,
    flags: u64,
    /// Address, flags, content, size in memory.
    segments: Vec<(u64, u32, Vec<u8>, u64)>,
    /// Entries of a section of packed ones.
    packed: Vec<u64>,
    /// Offset and info of plain ones.
    plain: Vec<(u64, u64)>,
    plain_section: u32,
}

impl Elf {
    /// Text at 0, data at 0x1000 with 0x10 bytes and bss up to 0x3000, two relocations.
    fn right() -> Self {
        Self {
            kind: 3,
            machine: 183,
            entry: 0,
            magic: 0x644d_5241,
            text_offset: 0,
            image_size: 0x3000,
            flags: 0b1010,
            segments: vec![
                (0, PF_R | PF_X, vec![0xaa; 0x100], 0x100),
                (0x1000, PF_R | PF_W, vec![0xbb; 0x10], 0x2000),
            ],
            // A word, and the bitmap of those behind it: the first one.
            packed: vec![0x1000, 0b11],
            plain: vec![],
            plain_section: 4,
        }
    }

    /// The content of the segment at 0, with the `Image` header in it.
    fn head(&self) -> Vec<u8> {
        let mut text = self.segments.iter().find(|segment| segment.0 == 0).expect("one is at 0").2.clone();
        text[8..16].copy_from_slice(&self.text_offset.to_le_bytes());
        text[16..24].copy_from_slice(&self.image_size.to_le_bytes());
        text[24..32].copy_from_slice(&self.flags.to_le_bytes());
        text[56..60].copy_from_slice(&self.magic.to_le_bytes());
        text
    }

    /// Sections: 0 null, 1 .text, 2 .data, 3 .bss, 4 .relr.dyn, 5 .rela.dyn, 6 .shstrtab.
    fn bytes(&self) -> Vec<u8> {
        let headers = 64 + 56 * self.segments.len() as u64;
        let mut content = Vec::new();
        let mut table = Vec::new();
        for (address, flags, bytes, memory) in &self.segments {
            let offset = headers + content.len() as u64;
            push32(&mut table, &[1, *flags]);
            push64(&mut table, &[offset, *address, *address, bytes.len() as u64, *memory, 4096]);
            content.extend(if *address == 0 { self.head() } else { bytes.clone() });
        }
        let packed = headers + content.len() as u64;
        push64(&mut content, &self.packed);
        let plain = headers + content.len() as u64;
        for (offset, info) in &self.plain {
            push64(&mut content, &[*offset, *info, 0x20]);
        }
        let names = headers + content.len() as u64;
        content.extend(b"\0.text\0.data\0.bss\0.relr.dyn\0.rela.dyn\0.shstrtab\0");
        content.resize(content.len().next_multiple_of(8), 0);
        let sections = headers + content.len() as u64;

        let (packed_size, plain_size) = (8 * self.packed.len() as u64, 24 * self.plain.len() as u64);
        let mut section = |name: u32, kind: u32, fields: [u64; 4], entry_size: u64| {
            push32(&mut content, &[name, kind]);
            push64(&mut content, &fields);
            push32(&mut content, &[0, 0]);
            push64(&mut content, &[8, entry_size]);
        };
        // Flags: writable 1, allocated 2, executable 4.
        section(0, 0, [0; 4], 0);
        section(1, 1, [2 | 4, 0, headers, 0x100], 0);
        section(7, 1, [2 | 1, 0x1000, headers + 0x100, 0x10], 0);
        section(13, 8, [2 | 1, 0x1010, 0, 0x1ff0], 0);
        section(18, 19, [2, 0x80, packed, packed_size], 8);
        section(28, self.plain_section, [2, 0x90, plain, plain_size], 24);
        section(38, 3, [0, 0, names, 48], 0);

        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        push16(&mut file, &[self.kind, self.machine]);
        push32(&mut file, &[1]);
        push64(&mut file, &[self.entry, 64, sections]);
        push32(&mut file, &[0]);
        push16(&mut file, &[64, 56, self.segments.len() as u16, 64, 7, 6]);
        file.extend(table);
        file.extend(content);
        file
    }

    fn error(&self) -> ImageError {
        flatten(&self.bytes()).expect_err("must be refused")
    }
}

fn push16(to: &mut Vec<u8>, values: &[u16]) {
    values.iter().for_each(|value| to.extend(value.to_le_bytes()));
}

fn push32(to: &mut Vec<u8>, values: &[u32]) {
    values.iter().for_each(|value| to.extend(value.to_le_bytes()));
}

fn push64(to: &mut Vec<u8>, values: &[u64]) {
    values.iter().for_each(|value| to.extend(value.to_le_bytes()));
}

#[test]
fn segments_are_laid_out_flat() {
    let elf = Elf::right();
    let image = flatten(&elf.bytes()).unwrap();
    assert_eq!(image.bytes.len(), 0x1010);
    assert_eq!(image.bytes[..0x100], elf.head());
    assert!(image.bytes[0x100..0x1000].iter().all(|&byte| byte == 0));
    assert_eq!(image.bytes[0x1000..], [0xbb; 0x10]);
    assert_eq!(image.relocations, 2);
    let sizes = image.sizes;
    let parts = (sizes.text, sizes.rodata, sizes.data, sizes.bss, sizes.memory);
    assert_eq!(parts, (0x100, 16, 0x10, 0x1ff0, 0x3000));
}

#[test]
fn segments_may_come_in_any_order() {
    let mut elf = Elf::right();
    let image = flatten(&elf.bytes()).unwrap();
    elf.segments.swap(0, 1);
    assert_eq!(flatten(&elf.bytes()).unwrap().bytes, image.bytes);
}

#[test]
fn image_size_covers_bss_and_not_much_more() {
    let mut elf = Elf::right();
    for size in [0, 0x1010, 0x2fff, 0x3000 + (2 << 20)] {
        elf.image_size = size;
        assert_eq!(elf.error(), ImageError::Size { header: size, span: 0x3000 });
    }
    elf.image_size = 0x4000;
    assert!(flatten(&elf.bytes()).is_ok());
}

#[test]
fn only_packed_relocations_pass() {
    let mut elf = Elf::right();
    let refused = |kind, offset| ImageError::Relocation { kind, offset, section: ".rela.dyn".into() };
    for kind in [R_AARCH64_ABS64, R_AARCH64_RELATIVE] {
        elf.plain = vec![(0x1008, kind)];
        assert_eq!(elf.error(), refused(kind as u32, 0x1008));
    }
    elf.plain_section = 9;
    assert_eq!(elf.error(), refused(9, 0x90));

    let mut elf = Elf::right();
    elf.packed.clear();
    assert_eq!(elf.error(), ImageError::NoRelocation);
}

#[test]
fn relocations_lie_in_what_is_loaded() {
    let mut elf = Elf::right();
    for place in [0x1004, 0x100a, 0x1010, 0x3000, u64::MAX - 7] {
        elf.packed[0] = place;
        assert_eq!(elf.error(), ImageError::RelocationPlace(place));
    }
    // Bit 2 is the second word behind the first entry's, which is behind all of them.
    let mut elf = Elf::right();
    elf.packed[1] = 0b101;
    assert_eq!(elf.error(), ImageError::RelocationPlace(0x1010));
}

#[test]
fn header_and_kind_are_checked() {
    let change = |change: fn(&mut Elf)| {
        let mut elf = Elf::right();
        change(&mut elf);
        elf.error()
    };
    assert_eq!(change(|elf| elf.kind = 2), ImageError::NotPie(2));
    assert_eq!(change(|elf| elf.machine = 62), ImageError::Machine(62));
    assert_eq!(change(|elf| elf.entry = 0x40), ImageError::Entry { entry: 0x40, base: 0 });
    assert_eq!(change(|elf| elf.magic = 0), ImageError::Magic(0));
    assert_eq!(change(|elf| elf.text_offset = 2 << 20), ImageError::TextOffset(2 << 20));
    for flags in [0b1, 0b100, 0b110, 0x10] {
        let mut elf = Elf::right();
        elf.flags = flags;
        assert_eq!(elf.error(), ImageError::Flags(flags));
    }
}

#[test]
fn segments_are_checked() {
    let change = |change: fn(&mut Elf)| {
        let mut elf = Elf::right();
        change(&mut elf);
        elf.error()
    };
    assert_eq!(change(|elf| elf.segments[1].1 |= PF_X), ImageError::WritableText(0x1000));
    assert_eq!(change(|elf| elf.segments[0].3 = 0x1001), ImageError::Overlap(0x1000));
    assert_eq!(change(|elf| elf.segments[0].3 = 0x80), ImageError::Segment(0));
    assert_eq!(change(|elf| elf.segments[1].3 = u64::MAX), ImageError::Segment(0x1000));
    let far = 0x4000_0000;
    let to = far + 0x2000;
    let mut elf = Elf::right();
    elf.segments[1].0 = far;
    assert_eq!(elf.error(), ImageError::Span { from: 0, to });
    let mut elf = Elf::right();
    elf.segments.clear();
    elf.segments.push((0, PF_R, vec![0; 0x100], 0));
    assert_eq!(elf.error(), ImageError::Empty);
}

#[test]
fn cut_off_files_are_errors() {
    let whole = Elf::right().bytes();
    for length in 0..whole.len() {
        assert!(flatten(&whole[..length]).is_err(), "{length} bytes of {}", whole.len());
    }
}

#[test]
fn stripping_keeps_what_is_loaded() {
    let mut elf = Elf::right();
    elf.segments.push((0x8000, PF_R, vec![], 0));
    let stripped = strip(&elf.bytes()).unwrap();
    elf.segments.pop();
    let word = |at: usize| u64::from_le_bytes(stripped[at..at + 8].try_into().unwrap());
    assert_eq!((word(24), word(32), word(40)), (0, 64, 0), "entry, program headers, no section headers");
    for (index, (address, _, content, memory)) in elf.segments.iter().enumerate() {
        let at = 64 + 56 * index;
        let offset = word(at + 8) as usize;
        assert_eq!((word(at + 16), word(at + 32), word(at + 40)), (*address, content.len() as u64, *memory));
        let expected = if index == 0 { elf.head() } else { content.clone() };
        assert_eq!(stripped[offset..offset + content.len()], expected);
        assert_eq!(offset % 8, 0);
    }
    assert_eq!(stripped.len(), 64 + 2 * 56 + 0x110);
    // Nothing but the loader's view counts: stripping again changes nothing.
    assert_eq!(strip(&stripped).unwrap(), stripped);
}
