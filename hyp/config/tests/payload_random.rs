//! Payloads with random headers: no plan leaves RAM, overlaps itself or the tree, or starts where nothing is.

mod payload_check;
mod vm;

use config::manifest::Payload;
use payload_check::RAM;
use proptest::prelude::*;
use vm::config;
use vmm::layout::Ipa;

const PROGRAM_HEADERS: usize = 3;

fn check(payload: Payload<'_>, memory: u64, dtb_size: u64) {
    payload_check::check(&config(payload, memory), dtb_size);
}

/// Numbers near everything that matters here, and any others.
fn number() -> impl Strategy<Value = u64> {
    let near = |base: u64| (0_u64..32).prop_map(move |offset| base.wrapping_sub(16).wrapping_add(offset));
    let marks = [
        0,
        RAM,
        RAM + (2 << 20),
        RAM + (8 << 20),
        1 << 20,
        64,
        0x1000,
        u64::MAX,
        1 << 63,
        255 << 30,
        256 << 30,
    ];
    let marks = prop::sample::select(marks.to_vec());
    prop_oneof![4 => marks.prop_flat_map(near), 2 => RAM..RAM + (9 << 20), 1 => any::<u64>()]
}

/// RAM from 2 to 16 MiB.
fn memory() -> impl Strategy<Value = u64> {
    (1_u64..9).prop_map(|blocks| blocks << 21)
}

prop_compose! {
    /// A program header: type, and the fields from `p_offset` on.
    fn program_header()(
        kind in prop::sample::select(vec![1_u32, 1, 1, 1, 2, 3, 4, 0]),
        offset in prop_oneof![3 => 0_u64..300, 1 => number()],
        address in prop_oneof![3 => (0_u64..0x1000).prop_map(|word| RAM + word * 4096), 1 => number()],
        distinct in prop::option::weighted(0.2, number()),
        file in prop_oneof![3 => 0_u64..64, 1 => number()],
        memory in prop_oneof![3 => 0_u64..0x4000, 1 => number()],
    ) -> (u32, [u64; 6]) {
        (kind, [offset, distinct.unwrap_or(address), address, file, memory, 8])
    }
}

/// A file whose fixed fields are right, so that the random ones are reached.
fn elf(entry: u64, headers: &[(u32, [u64; 6])], table: u64) -> Vec<u8> {
    let mut file = vec![0; 16];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file.extend([2, 0, 183, 0, 1, 0, 0, 0]);
    [entry, table, 0].iter().for_each(|word| file.extend(word.to_le_bytes()));
    file.extend([0; 4]);
    let halves = [64, 56, headers.len() as u16, 0, 0, 0];
    halves.iter().for_each(|half| file.extend(half.to_le_bytes()));
    for (kind, words) in headers {
        file.extend(kind.to_le_bytes());
        file.extend(7_u32.to_le_bytes());
        words.iter().for_each(|word| file.extend(word.to_le_bytes()));
    }
    file.resize(400, 0x5a);
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 10_000 }))]

    #[test]
    fn images(
        text_offset in prop_oneof![Just(0), Just(0x8_0000), number()],
        image_size in number(),
        flags in 0_u64..16,
        length in 0_usize..200,
        initrd in prop::option::of(1_usize..300),
        memory in memory(),
        dtb_size in 1_u64..0x40_0000,
        changes in prop::collection::vec((0_usize..64, any::<u8>()), 0..2),
    ) {
        let mut image = [0; 200];
        image[8..16].copy_from_slice(&text_offset.to_le_bytes());
        image[16..24].copy_from_slice(&image_size.to_le_bytes());
        image[24..32].copy_from_slice(&flags.to_le_bytes());
        image[56..60].copy_from_slice(b"ARM\x64");
        changes.iter().for_each(|&(at, value)| image[at] = value);
        let initrd = initrd.map(|length| vec![1; length]);
        let payload = Payload::Linux { image: &image[..200 - length], initrd: initrd.as_deref() };
        check(payload, memory, dtb_size);
    }

    #[test]
    fn elf_files(
        headers in prop::collection::vec(program_header(), 1..=PROGRAM_HEADERS),
        entry_in in prop::option::weighted(0.9, 0_usize..PROGRAM_HEADERS),
        entry in number(),
        table in prop_oneof![9 => Just(64), 1 => number()],
        changes in prop::collection::vec((0_usize..400, any::<u8>()), 0..2),
        length in prop_oneof![3 => Just(400_usize), 1 => 0_usize..400],
        memory in memory(),
        dtb_size in 1_u64..0x40_0000,
    ) {
        let entry = entry_in.and_then(|index| headers.get(index)).map_or(entry, |(_, words)| words[1]);
        let mut file = elf(entry, &headers, table);
        changes.iter().for_each(|&(at, value)| file[at] = value);
        check(Payload::Elf(&file[..length]), memory, dtb_size);
    }

    #[test]
    fn raw_binaries(load in number(), entry in number(), length in 1_usize..0x2000, memory in memory(), dtb_size in 1_u64..0x40_0000) {
        let bytes = vec![1; length];
        let raw = Payload::Binary { bytes: &bytes, load_address: Ipa::new(load), entry: Ipa::new(entry) };
        check(raw, memory, dtb_size);
        check(Payload::Firmware { image: &bytes, variables: None }, memory, dtb_size);
        check(Payload::Firmware { image: &bytes, variables: Some(&bytes) }, memory, dtb_size);
    }

    #[test]
    fn noise(file in prop::collection::vec(any::<u8>(), 1..600)) {
        check(Payload::Linux { image: &file, initrd: Some(&file) }, 16 << 20, 0x1000);
        check(Payload::Elf(&file), 16 << 20, 0x1000);
        check(Payload::Firmware { image: &file, variables: Some(&file) }, 16 << 20, 0x1000);
    }
}
