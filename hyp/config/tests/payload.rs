//! Loading plans: where payloads go, and the message that each unusable one gets.

mod vm;

use config::manifest::Payload;
use config::payload::{FLASH_UNIT, Granule, LoadPlan, PayloadError, Segment, plan};
use vm::config;
use vmm::layout::{Ipa, VIRT};

const RAM: u64 = 0x4000_0000;
const MIB: u64 = 1 << 20;
const TREE: u64 = 0x1800;

/// The plan for a VM of 128 MiB.
fn plan_for(payload: Payload<'_>) -> Result<LoadPlan<'_>, PayloadError> {
    plan(&config(payload, 128 * MIB), &VIRT, TREE)
}

fn message(payload: Payload<'_>) -> String {
    plan_for(payload).unwrap_err().to_string()
}

fn message_in(payload: Payload<'_>, memory: u64) -> String {
    plan(&config(payload, memory), &VIRT, TREE).unwrap_err().to_string()
}

fn segment(ipa: u64, bytes: &[u8], zero_after: u64) -> Segment<'_> {
    Segment { ipa: Ipa::new(ipa), bytes, zero_after }
}

/// An arm64 `Image` of `length` bytes.
fn image(length: usize, text_offset: u64, image_size: u64, flags: u64) -> Vec<u8> {
    let mut image = vec![0x55; length];
    image[8..16].copy_from_slice(&text_offset.to_le_bytes());
    image[16..24].copy_from_slice(&image_size.to_le_bytes());
    image[24..32].copy_from_slice(&flags.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

fn linux<'a>(image: &'a [u8], initrd: Option<&'a [u8]>) -> Payload<'a> {
    Payload::Linux { image, initrd }
}

fn kernel(image: &[u8]) -> String {
    message(linux(image, None))
}

mod linux_image {
    use super::*;

    #[test]
    fn goes_behind_the_tree_and_the_ram_disk_behind_it() {
        let (image, initrd) = (image(0x1000, 0, 0x30_0001, 0b1010), [7; 100]);
        let plan = plan_for(linux(&image, Some(&initrd))).unwrap();
        assert_eq!(plan.dtb, Ipa::new(RAM));
        assert_eq!(plan.entry, Ipa::new(RAM + 2 * MIB));
        assert_eq!(plan.granule, Some(Granule::Kib4));
        assert_eq!(plan.flash, None);
        let start = RAM + 5 * MIB + 0x1_0000;
        assert_eq!(plan.initrd, Some(Ipa::new(start)..Ipa::new(start + 100)));
        let expected = [segment(RAM + 2 * MIB, &image, 0x2f_f001), segment(start, &initrd, 0)];
        assert_eq!(plan.segments, expected);
    }

    #[test]
    fn keeps_its_text_offset() {
        let image = image(0x1000, 0x8_0000, 0x2000, 0);
        let plan = plan_for(linux(&image, None)).unwrap();
        assert_eq!(plan.entry, Ipa::new(RAM + 2 * MIB + 0x8_0000));
        assert_eq!((plan.initrd, plan.granule), (None, None));
    }

    #[test]
    fn goes_further_up_when_the_tree_is_large() {
        let image = image(64, 0, 64, 0);
        let config = config(linux(&image, None), 128 * MIB);
        assert_eq!(plan(&config, &VIRT, 2 * MIB).unwrap().entry, Ipa::new(RAM + 2 * MIB));
        assert_eq!(plan(&config, &VIRT, 2 * MIB + 1).unwrap().entry, Ipa::new(RAM + 4 * MIB));
    }

    #[test]
    fn of_old_kernels_leaves_them_all_the_room() {
        let (image, initrd) = (image(0x1000, 0x1234, 0, 0), [7; 100]);
        let plan = plan_for(linux(&image, Some(&initrd))).unwrap();
        assert_eq!(plan.entry, Ipa::new(RAM + 2 * MIB + 0x8_0000));
        let start = RAM + 128 * MIB - 0x1_0000;
        assert_eq!(plan.initrd, Some(Ipa::new(start)..Ipa::new(start + 100)));
        // In a very large RAM the RAM disk still lies where the kernel reaches it.
        let large = super::plan(&config(linux(&image, Some(&initrd)), 64 << 30), &VIRT, TREE).unwrap();
        assert_eq!(large.initrd.unwrap().start, Ipa::new(RAM + (16 << 30) - 0x1_0000));
    }

    #[test]
    fn is_at_least_as_large_as_its_file() {
        let image = image(0x1000, 0, 1, 0);
        assert_eq!(plan_for(linux(&image, None)).unwrap().segments, [segment(RAM + 2 * MIB, &image, 0)]);
    }

    #[test]
    fn must_fit() {
        let fits = image(64, 0, 6 * MIB, 0);
        assert!(plan(&config(linux(&fits, None), 8 * MIB), &VIRT, TREE).is_ok());
        let image = image(64, 0, 6 * MIB + 1, 0);
        let text = "kernel: starts at 0x40200000 and is 0x600001 bytes long, but RAM ends at 0x40800000: \
                    memory of 10240 KiB would do";
        assert_eq!(message_in(linux(&image, None), 8 * MIB), text);
        let text = "initrd: starts at 0x40800000 and is 0x5 bytes long, but RAM ends at 0x40800000: \
                    memory of 10240 KiB would do";
        assert_eq!(message_in(linux(&fits, Some(&[0; 5])), 8 * MIB), text);
    }

    #[test]
    fn must_have_a_possible_size() {
        let large =
            "kernel: starts at 0x40200000 and is 0xffffffffffffffff bytes long: no VM has that much memory";
        assert_eq!(kernel(&image(64, 0, u64::MAX, 0)), large);
        let large = "kernel: starts at 0x40200000 and is 0x3fc0000000 bytes long: no VM has that much memory";
        assert_eq!(kernel(&image(64, 0, 255 << 30, 0)), large);
        let far = "kernel: starts at 0xffffffffffffffff, outside of RAM (0x40000000 to 0x48000000)";
        assert_eq!(kernel(&image(64, u64::MAX, 64, 0)), far);
        let odd = "kernel: has its entry point at 0x40200002, not a multiple of 4";
        assert_eq!(kernel(&image(64, 2, 64, 0)), odd);
    }

    #[test]
    fn says_its_granule() {
        let granule = |flags| plan_for(linux(&image(64, 0, 64, flags), None)).unwrap().granule;
        let expected = [None, Some(Granule::Kib4), Some(Granule::Kib16), Some(Granule::Kib64)];
        assert_eq!([0, 2, 4, 6].map(granule), expected);
    }

    #[test]
    fn needs_a_cpu_with_its_granule() {
        let check = |flags, mmfr0| {
            let image = image(64, 0, 64, flags);
            let plan = plan_for(linux(&image, None)).unwrap();
            plan.check_granule(mmfr0).map_err(|error| error.to_string())
        };
        // ID_AA64MMFR0_EL1 as a Cortex-A72 has it: 4 KiB and 64 KiB.
        let a72 = 0x0000_1124;
        assert_eq!([0, 2, 6].map(|flags| check(flags, a72)), [Ok(()), Ok(()), Ok(())]);
        let text = "kernel: needs pages of 16 KiB, which this CPU doesn't have";
        assert_eq!(check(4, a72).unwrap_err(), text);
        assert_eq!(check(4, 0x0010_0000), Ok(()));
        assert_eq!(check(2, 0xf000_0000).unwrap_err(), text.replace("16", "4"));
        assert_eq!(check(6, 0x0f00_0000).unwrap_err(), text.replace("16", "64"));
    }

    #[test]
    fn must_be_little_endian() {
        let text =
            "kernel: is a big-endian kernel, for which there are no devices here: give a little-endian one";
        assert_eq!(kernel(&image(64, 0, 64, 1)), text);
    }
}

mod not_an_image {
    use super::*;

    /// A file of zeros that starts with `start`.
    fn file(start: &[u8]) -> Vec<u8> {
        let mut file = start.to_vec();
        file.resize(1024, 0);
        file
    }

    #[test]
    fn compressed_kernels_are_named() {
        let cases: [(&[u8], &str); 8] = [
            (b"\x1f\x8b\x08", "gzip"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
            (b"\x02\x21\x4c\x18", "lz4"),
            (b"\x04\x22\x4d\x18", "lz4"),
            (b"\xfd7zXZ\0", "xz"),
            (b"BZh9", "bzip2"),
            (b"\x5d\0\0\x80", "lzma"),
            (b"\x89LZO\0", "lzo"),
        ];
        for (start, name) in cases {
            let text = format!("kernel: is {name}-compressed: give the plain arm64 Image");
            assert_eq!(kernel(&file(start)), text);
        }
    }

    #[test]
    fn efi_zboot_is_named() {
        let names =
            [("gzip", "gzip"), ("zstd22", "zstd"), ("xzkern", "xz"), ("lz4", "lz4"), ("lzma", "lzma")];
        for (inside, name) in names.into_iter().chain([("lzo", "lzo"), ("rot13", "unknown compression")]) {
            let mut zboot = file(b"MZ\0\0zimg");
            zboot[24..24 + inside.len()].copy_from_slice(inside.as_bytes());
            let text = format!(
                "kernel: is an EFI zboot image with a compressed kernel inside ({name}): give the plain arm64 Image"
            );
            assert_eq!(kernel(&zboot), text);
            // It is one whatever stands at byte 56.
            zboot[56..60].copy_from_slice(b"ARM\x64");
            assert_eq!(kernel(&zboot), text);
        }
    }

    #[test]
    fn other_files_are_named() {
        let mut zimage = file(b"");
        zimage[0x24..0x28].copy_from_slice(&0x016f_2818_u32.to_le_bytes());
        let mut bzimage = file(b"MZ");
        bzimage[0x202..0x206].copy_from_slice(b"HdrS");
        let cases = [
            (file(b"\x7fELF"), ": it is an ELF file, give it as elf"),
            (file(b"MZ"), ": it is an EFI program"),
            (file(b"\x27\x05\x19\x56"), ": it is a U-Boot uImage, give the Image inside"),
            (file(b"\xd0\x0d\xfe\xed"), ": it is a device-tree blob or FIT image, give the Image inside"),
            (zimage, ": it is a 32-bit Arm kernel"),
            (bzimage, ": it is an x86 kernel"),
            (file(b""), ""),
        ];
        for (file, hint) in cases {
            assert_eq!(
                kernel(&file),
                format!("kernel: is no arm64 Image (no \"ARM\\x64\" at byte 56){hint}")
            );
        }
    }

    #[test]
    fn short_files() {
        let short = |length| format!("kernel: has {length} bytes: an arm64 Image has at least 64");
        assert_eq!(kernel(&[0]), short(1));
        assert_eq!(kernel(&image(64, 0, 64, 0)[..63]), short(63));
        assert_eq!(kernel(&image(64, 0, 64, 0)[..59]), short(59));
        assert_eq!(kernel(&[0; 64]), "kernel: is no arm64 Image (no \"ARM\\x64\" at byte 56)");
    }
}

mod elf {
    use super::*;

    const LOAD: u32 = 1;
    const DYNAMIC: u32 = 2;
    const INTERPRETER: u32 = 3;
    const NOTE: u32 = 4;

    /// A program header with its contents.
    #[derive(Clone)]
    struct Header {
        kind: u32,
        virtual_address: u64,
        physical_address: u64,
        memory: u64,
        bytes: Vec<u8>,
    }

    fn load(address: u64, bytes: &[u8], memory: u64) -> Header {
        Header {
            kind: LOAD,
            virtual_address: address,
            physical_address: address,
            memory,
            bytes: bytes.to_vec(),
        }
    }

    /// An ELF file.
    fn elf(entry: u64, headers: &[Header]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        for half in [2_u16, 183] {
            file.extend(half.to_le_bytes());
        }
        file.extend(1_u32.to_le_bytes());
        for word in [entry, 64, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend(0_u32.to_le_bytes());
        for half in [64_u16, 56, u16::try_from(headers.len()).unwrap(), 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let mut offset = 64 + 56 * headers.len();
        for header in headers {
            file.extend(header.kind.to_le_bytes());
            file.extend(7_u32.to_le_bytes());
            let size = header.bytes.len();
            for word in [
                offset as u64,
                header.virtual_address,
                header.physical_address,
                size as u64,
                header.memory,
                8,
            ] {
                file.extend(word.to_le_bytes());
            }
            offset += size;
        }
        headers.iter().for_each(|header| file.extend(&header.bytes));
        file
    }

    fn say(entry: u64, headers: &[Header]) -> String {
        message(Payload::Elf(&elf(entry, headers)))
    }

    /// The message for a good file with these bytes changed.
    fn say_patched(at: usize, bytes: &[u8]) -> String {
        let mut file = elf(RAM + MIB, &[load(RAM + MIB, &[1; 8], 16)]);
        file[at..at + bytes.len()].copy_from_slice(bytes);
        message(Payload::Elf(&file))
    }

    #[test]
    fn segments_go_to_their_physical_addresses() {
        let mut high = load(0xffff_0000_0000_0000, &[2; 16], 0x1000);
        high.physical_address = RAM + 4 * MIB;
        let note = Header { kind: NOTE, ..load(0, &[9; 3], 3) };
        let empty = load(0, &[], 0);
        let file = elf(0xffff_0000_0000_0004, &[high, note, empty, load(RAM + 2 * MIB, &[1; 8], 8)]);
        let plan = plan_for(Payload::Elf(&file)).unwrap();
        let expected = [segment(RAM + 2 * MIB, &[1; 8], 0), segment(RAM + 4 * MIB, &[2; 16], 0x1000 - 16)];
        assert_eq!(plan.segments, expected);
        assert_eq!(plan.entry, Ipa::new(RAM + 4 * MIB + 4));
        assert_eq!(plan.dtb, Ipa::new(RAM));
        assert_eq!((plan.initrd, plan.flash, plan.granule), (None, None, None));
    }

    #[test]
    fn a_position_independent_one_is_loaded_where_it_was_linked() {
        let mut dynamic = vec![0; 48];
        // DT_FLAGS, then DT_NULL, then what would be DT_NEEDED if it were not behind the end.
        dynamic[0] = 30;
        dynamic[32] = 1;
        let table = Header { kind: DYNAMIC, ..load(RAM + MIB, &dynamic, 48) };
        let mut file = elf(RAM + MIB, &[load(RAM + MIB, &[1; 8], 8), table]);
        file[16] = 3;
        assert_eq!(plan_for(Payload::Elf(&file)).unwrap().entry, Ipa::new(RAM + MIB));
    }

    #[test]
    fn the_tree_makes_way() {
        let tree = |start: u64, length: u64, memory: u64| {
            let file = elf(start, &[load(start, &[1; 8], length)]);
            let plan =
                plan(&config(Payload::Elf(&file), memory), &VIRT, TREE).map_err(|error| error.to_string());
            plan.map(|plan| plan.dtb.as_u64())
        };
        assert_eq!(tree(RAM + TREE, 8, 128 * MIB), Ok(RAM));
        assert_eq!(tree(RAM + TREE - 4, 8, 128 * MIB), Ok(RAM + 126 * MIB));
        assert_eq!(tree(RAM, 126 * MIB, 128 * MIB), Ok(RAM + 126 * MIB));
        assert_eq!(tree(RAM, 126 * MIB + 1, 128 * MIB), Ok(RAM + 128 * MIB - 0x2000));
        assert_eq!(tree(RAM, 128 * MIB - 0x2000, 128 * MIB), Ok(RAM + 128 * MIB - 0x2000));
        let text = "elf: leaves no room in RAM for the device tree of 0x1800 bytes: give the VM more memory";
        assert_eq!(tree(RAM, 128 * MIB - 0x1fff, 128 * MIB), Err(text.to_string()));
    }

    #[test]
    fn segments_must_lie_in_ram() {
        let outside = |index, start| {
            format!(
                "elf: has segment {index}, which starts at {start}, outside of RAM (0x40000000 to 0x48000000)"
            )
        };
        assert_eq!(say(0, &[load(0, &[1; 8], 8)]), outside(0, "0x0"));
        let good = load(RAM, &[1; 8], 8);
        assert_eq!(say(RAM, &[good.clone(), load(RAM - 4, &[1; 8], 8)]), outside(1, "0x3ffffffc"));
        assert_eq!(say(RAM, &[good.clone(), load(1 << 60, &[1; 8], 8)]), outside(1, "0x1000000000000000"));
        let beyond = "elf: has segment 1, which starts at 0x47fffffc and is 0x8 bytes long, but RAM ends at \
                      0x48000000: memory of 133120 KiB would do";
        assert_eq!(say(RAM, &[good.clone(), load(RAM + 128 * MIB - 4, &[1; 8], 8)]), beyond);
        let large = "elf: has segment 1, which starts at 0x40001000 and is 0xffffffffffffffff bytes long: no VM has \
                     that much memory";
        assert_eq!(say(RAM, &[good, load(RAM + 0x1000, &[1; 8], u64::MAX)]), large);
    }

    #[test]
    fn segments_must_not_overlap() {
        let text = "elf: has overlapping segments: 0 starts inside 1, at 0x40100008";
        assert_eq!(say(RAM + MIB, &[load(RAM + MIB + 8, &[1; 8], 8), load(RAM + MIB, &[1; 8], 9)]), text);
        let touching = elf(RAM + MIB, &[load(RAM + MIB + 8, &[1; 8], 8), load(RAM + MIB, &[1; 8], 8)]);
        assert!(plan_for(Payload::Elf(&touching)).is_ok());
    }

    #[test]
    fn the_entry_point_must_be_loaded() {
        let outside = |entry| format!("elf: has its entry point at {entry}, outside of what is loaded");
        let segment = [load(RAM, &[1; 8], 0x1000)];
        assert_eq!(say(RAM - 4, &segment), outside("0x3ffffffc"));
        assert_eq!(say(RAM + 8, &segment), outside("0x40000008"));
        assert_eq!(say(RAM + 2, &segment), "elf: has its entry point at 0x40000002, not a multiple of 4");
    }

    #[test]
    fn other_elf_files_are_named() {
        let class = |class, data| {
            format!(
                "elf: is not a 64-bit little-endian ELF file (class {class}, data {data}; must be 2 and 1)"
            )
        };
        assert_eq!(say_patched(4, &[1]), class(1, 1));
        assert_eq!(say_patched(5, &[2]), class(2, 2));
        assert_eq!(say_patched(18, &[62, 0]), "elf: is an ELF file for machine 62, not for AArch64 (183)");
        let kind = |kind| {
            format!(
                "elf: is an ELF file of type {kind}: only executables (2, or 3 if linked statically at its address) can run"
            )
        };
        assert_eq!(say_patched(16, &[1, 0]), kind(1));
        assert_eq!(say_patched(16, &[4, 0]), kind(4));
        assert_eq!(say_patched(54, &[32, 0]), "elf: has program headers of 32 bytes, must be 56");
        let nothing = "elf: has nothing to load (no PT_LOAD segment)";
        assert_eq!(say_patched(56, &[0, 0]), nothing);
        assert_eq!(say(RAM, &[Header { kind: NOTE, ..load(RAM, &[1], 1) }]), nothing);
        assert_eq!(say(RAM, &[load(RAM, &[], 0)]), nothing);
    }

    #[test]
    fn what_needs_a_dynamic_linker_is_refused() {
        let text = "elf: needs a dynamic linker: link it statically";
        let program = load(RAM, &[1; 8], 8);
        let interpreter = Header { kind: INTERPRETER, ..load(RAM, b"/lib/ld\0", 8) };
        assert_eq!(say(RAM, &[program.clone(), interpreter]), text);
        let mut needed = vec![0; 32];
        needed[0] = 1;
        assert_eq!(say(RAM, &[program, Header { kind: DYNAMIC, ..load(RAM, &needed, 32) }]), text);
    }

    #[test]
    fn truncated_files_say_what_is_missing() {
        let whole = elf(RAM, &[load(RAM, &[1; 8], 8)]);
        let say = |length: usize| message(Payload::Elf(&whole[..length]));
        let ends =
            |what, end, got| format!("elf: is truncated: its {what} end at byte {end}, the file at {got}");
        assert_eq!(say(4), ends("headers", "0x40", "0x4"));
        assert_eq!(say(63), ends("headers", "0x40", "0x3f"));
        assert_eq!(say(119), ends("program headers", "0x78", "0x77"));
        assert_eq!(say(127), ends("segments", "0x80", "0x7f"));
        assert!(plan_for(Payload::Elf(&whole)).is_ok());
        let nowhere = ends("program headers", "0xffffffffffffffff", "0x80");
        assert_eq!(say_patched(32, &u64::MAX.to_le_bytes()), nowhere);
        let nowhere = ends("segments", "0xffffffffffffffff", "0x80");
        assert_eq!(say_patched(64 + 8, &u64::MAX.to_le_bytes()), nowhere);
    }

    #[test]
    fn a_segment_has_no_more_in_the_file_than_in_memory() {
        let text = "elf: has 0x8 bytes in the file for 0x7 in memory in segment 0";
        assert_eq!(say(RAM, &[load(RAM, &[1; 8], 7)]), text);
    }

    #[test]
    fn files_of_other_kinds_are_named() {
        let say = |file: &[u8]| message(Payload::Elf(file));
        assert_eq!(say(&[0; 100]), "elf: is no ELF file");
        assert_eq!(say(&image(64, 0, 64, 0)), "elf: is no ELF file: it is an arm64 Image, give it as kernel");
        assert_eq!(say(b"\x1f\x8b\x08\0"), "elf: is no ELF file: it is compressed");
    }
}

mod binary {
    use super::*;

    fn raw(bytes: &[u8], load: u64, entry: u64) -> Payload<'_> {
        Payload::Binary { bytes, load_address: Ipa::new(load), entry: Ipa::new(entry) }
    }

    #[test]
    fn goes_where_it_was_told() {
        let plan = plan_for(raw(&[1; 16], RAM + MIB, RAM + MIB + 12)).unwrap();
        assert_eq!(plan.segments, [segment(RAM + MIB, &[1; 16], 0)]);
        assert_eq!((plan.entry, plan.dtb), (Ipa::new(RAM + MIB + 12), Ipa::new(RAM)));
        let at_base = plan_for(raw(&[1; 16], RAM, RAM)).unwrap();
        assert_eq!(at_base.dtb, Ipa::new(RAM + 126 * MIB));
    }

    #[test]
    fn mistakes() {
        let say = |load, entry| message(raw(&[1; 16], load, entry));
        let text = "load-address: starts at 0x80000, outside of RAM (0x40000000 to 0x48000000)";
        assert_eq!(say(0x8_0000, 0x8_0000), text);
        let text = "load-address: starts at 0x47fffff4 and is 0x10 bytes long, but RAM ends at 0x48000000: \
                    memory of 133120 KiB would do";
        assert_eq!(say(RAM + 128 * MIB - 12, RAM), text);
        let outside =
            |entry| format!("entry-address: has its entry point at {entry}, outside of what is loaded");
        assert_eq!(say(RAM, RAM + 16), outside("0x40000010"));
        assert_eq!(say(RAM, 0), outside("0x0"));
        assert_eq!(
            say(RAM, RAM + 1),
            "entry-address: has its entry point at 0x40000001, not a multiple of 4"
        );
        assert_eq!(message(raw(b"\x7fELF....", RAM, RAM)), "binary: is an ELF file: give it as elf");
        let large = vec![1; 2 << 20];
        let text =
            "binary: leaves no room in RAM for the device tree of 0x1800 bytes: give the VM more memory";
        assert_eq!(message_in(raw(&large, RAM, RAM), 2 * MIB), text);
    }
}

/// Firmware without variables.
fn firmware(image: &[u8]) -> Payload<'_> {
    Payload::Firmware { image, variables: None }
}

mod firmware {
    use super::{firmware, *};

    #[test]
    fn fills_the_first_bank_and_leaves_the_second_erased() {
        let bytes = vec![3; 2 * MIB as usize + 1];
        let plan = plan_for(firmware(&bytes)).unwrap();
        assert_eq!((plan.entry, plan.dtb), (Ipa::new(0), Ipa::new(RAM)));
        assert_eq!((plan.segments.as_slice(), plan.initrd), (&[][..], None));
        let [code, variables] = plan.flash.unwrap().banks;
        assert_eq!((code.base, code.bytes, code.backed), (Ipa::new(0), &bytes[..], 4 * MIB));
        assert_eq!(code.erased, 60 * MIB);
        assert_eq!((variables.base, variables.bytes, variables.backed), (Ipa::new(0x400_0000), &[][..], 0));
        assert_eq!(variables.erased, 64 * MIB);
        for bank in [code, variables] {
            assert!(!bank.kept);
            assert!(bank.backed.is_multiple_of(FLASH_UNIT) && bank.erased.is_multiple_of(FLASH_UNIT));
        }
    }

    #[test]
    fn may_have_a_second_bank_to_write_to() {
        let bytes = vec![3; 2 * MIB as usize + 1];
        for (variables, backed) in [(&bytes[..0], 2 * MIB), (&bytes[..1], 2 * MIB), (&bytes[..], 4 * MIB)] {
            let plan = plan_for(Payload::Firmware { image: &[1; 8], variables: Some(variables) }).unwrap();
            let [code, bank] = plan.flash.unwrap().banks;
            assert!(!code.kept && bank.kept);
            assert_eq!((bank.bytes, bank.backed, bank.erased), (variables, backed, 64 * MIB - backed));
        }
        let bytes = vec![3; 64 * MIB as usize + 1];
        let full = plan_for(Payload::Firmware { image: &[1; 8], variables: Some(&bytes[1..]) }).unwrap();
        let [_, bank] = full.flash.unwrap().banks;
        assert_eq!((bank.backed, bank.erased), (64 * MIB, 0));
        assert_eq!(
            message(Payload::Firmware { image: &[1; 8], variables: Some(&bytes) }),
            "firmware-variables: has 0x4000001 bytes, the flash bank 0x4000000"
        );
    }

    #[test]
    fn may_fill_the_bank_but_no_more() {
        let bytes = vec![3; 64 * MIB as usize + 1];
        let [code, _] = plan_for(firmware(&bytes[1..])).unwrap().flash.unwrap().banks;
        assert_eq!((code.backed, code.erased), (64 * MIB, 0));
        assert_eq!(message(firmware(&bytes)), "firmware: has 0x4000001 bytes, the flash bank 0x4000000");
    }

    #[test]
    fn is_no_elf_file() {
        assert_eq!(message(firmware(b"\x7fELF")), "firmware: is an ELF file: give it as elf");
    }

    #[test]
    fn leaves_room_for_the_tree() {
        let config = config(firmware(&[1]), 2 * MIB);
        assert!(plan(&config, &VIRT, 2 * MIB).is_ok());
        let text =
            "firmware: leaves no room in RAM for the device tree of 0x200001 bytes: give the VM more memory";
        assert_eq!(plan(&config, &VIRT, 2 * MIB + 1).unwrap_err().to_string(), text);
    }
}

#[test]
fn no_more_memory_than_the_layout_has() {
    let text = "memory: 0x3fc0000001 bytes are more than the layout's 0x3fc0000000";
    assert_eq!(message_in(firmware(&[1]), (255 << 30) + 1), text);
    assert!(plan(&config(firmware(&[1]), 255 << 30), &VIRT, TREE).is_ok());
}

#[test]
fn the_limit_of_the_layout_is_where_more_memory_stops_helping() {
    let say = |load| {
        message(Payload::Binary { bytes: &[1; 16], load_address: Ipa::new(load), entry: Ipa::new(load) })
    };
    let limit = RAM + (255 << 30);
    let text = "load-address: starts at 0x3ffffffff0 and is 0x10 bytes long, but RAM ends at 0x48000000: \
                memory of 267386880 KiB would do";
    assert_eq!(say(limit - 16), text);
    let text = "load-address: starts at 0x3ffffffff1 and is 0x10 bytes long: no VM has that much memory";
    assert_eq!(say(limit - 15), text);
    let text = "load-address: starts at 0x4000000000, outside of RAM (0x40000000 to 0x48000000)";
    assert_eq!(say(limit), text);
}
