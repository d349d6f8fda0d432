//! The decoder of loads and stores against a disassembler, which is somebody else's reading of the same manual: what it writes is read
//! back here by the names of instructions and registers, without a look at the bits.

use proptest::prelude::*;
use vmm::instruction::{Bank, Extend, Index, LoadStore, Offset};
use yaxpeax_arch::{Arch, Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::ARMv8;

/// What the disassembler writes for a word, if it is an instruction.
fn disassemble(word: u32) -> Option<String> {
    let bytes = word.to_le_bytes();
    let decoder = <ARMv8 as Arch>::Decoder::default();
    decoder.decode(&mut U8Reader::new(&bytes)).ok().map(|instruction| instruction.to_string())
}

/// A load or store as a person reads it.
#[derive(Debug, PartialEq)]
struct Read {
    write: bool,
    /// Bytes of a register in memory.
    bytes: u64,
    sign_extends: bool,
    vector: bool,
    /// Of a general-purpose register: whether all 64 bits are loaded.
    wide: bool,
    registers: Vec<u8>,
    base: u8,
    offset: Offset,
    index: Index,
}

fn number(text: &str) -> i64 {
    let text = text.trim().trim_start_matches('#');
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    sign * i64::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("a number: {text}"))
}

fn register(text: &str) -> (char, u8) {
    match text.trim() {
        "xzr" => ('x', 31),
        "wzr" => ('w', 31),
        "sp" => ('x', 31),
        name => {
            let (kind, number) = name.split_at(1);
            (kind.chars().next().unwrap(), number.parse().unwrap_or_else(|_| panic!("a register: {name}")))
        }
    }
}

/// Of its text; `None`: it isn't one that is decoded.
fn read(text: &str) -> Option<Read> {
    let (mnemonic, operands) = text.split_once(' ')?;
    let stems = [
        "ldpsw", "ldp", "stp", "ldnp", "stnp", "ldapur", "ldapr", "ldar", "stlur", "stlr", "ldur", "stur",
        "ldtr", "sttr", "ldr", "str",
    ];
    let suffix = stems.iter().find_map(|stem| mnemonic.strip_prefix(stem))?;
    let (registers, address) = operands.split_once('[')?;
    let registers: Vec<_> =
        registers.split(',').map(str::trim).filter(|r| !r.is_empty()).map(register).collect();
    let (kind, _) = registers[0];
    let by_register = match kind {
        'b' => 1,
        'h' => 2,
        'w' | 's' => 4,
        'x' | 'd' => 8,
        'q' => 16,
        _ => return None,
    };
    let (bytes, sign_extends) = match suffix {
        "" if mnemonic == "ldpsw" => (4, true),
        "" => (by_register, false),
        "b" => (1, false),
        "h" => (2, false),
        "sb" => (1, true),
        "sh" => (2, true),
        "sw" => (4, true),
        _ => return None,
    };
    let (inside, behind) = address.split_once(']')?;
    let parts: Vec<_> = inside.split(',').map(str::trim).collect();
    let (_, base) = register(parts[0]);
    let (offset, index) = match (&parts[1..], behind.trim()) {
        ([], "") => (Offset::Immediate(0), Index::Offset),
        ([], "!") => (Offset::Immediate(0), Index::Pre),
        ([], post) => (Offset::Immediate(number(post.strip_prefix(',')?)), Index::Post),
        ([immediate], "!") => (Offset::Immediate(number(immediate)), Index::Pre),
        ([immediate], "") if immediate.starts_with('#') => {
            (Offset::Immediate(number(immediate)), Index::Offset)
        }
        ([index, extend @ ..], "") => {
            let (_, index) = register(index);
            let (name, shift) = match extend {
                [] => ("lsl", 0),
                [one] => {
                    let (name, shift) = one.split_once(' ').unwrap_or((one, "#0"));
                    (name, shift.trim().trim_start_matches('#').parse().unwrap())
                }
                _ => return None,
            };
            let extend = match name {
                "uxtw" => Extend::Unsigned32,
                "sxtw" => Extend::Signed32,
                "lsl" | "sxtx" | "uxtx" => Extend::Whole,
                // Bytes and halves, which no load or store extends: UNALLOCATED, though the disassembler writes it.
                _ => return None,
            };
            (Offset::Register { register: index, extend, shift }, Index::Offset)
        }
        _ => return None,
    };
    let numbers: Vec<u8> = registers.iter().map(|(_, number)| *number).collect();
    let (write, vector) = (mnemonic.starts_with("st"), !['w', 'x'].contains(&kind));
    // CONSTRAINED UNPREDICTABLE.
    let one_twice = !write && numbers.len() == 2 && numbers[0] == numbers[1];
    let loses_base = !vector && index != Index::Offset && base != 31 && numbers.contains(&base);
    let read = Read {
        write,
        bytes,
        sign_extends,
        vector,
        wide: kind == 'x',
        registers: numbers,
        base,
        offset,
        index,
    };
    (!one_twice && !loses_base).then_some(read)
}

/// What the decoder says, in the same words.
fn decode(word: u32) -> Option<Read> {
    let decoded = LoadStore::decode(word)?;
    let access = decoded.access;
    let whole = decoded.bank == Bank::WholeVector;
    let vector = decoded.bank != Bank::General;
    // All bits of the access set: what a load makes of that tells how it extends.
    let extended = access.extend(u64::MAX);
    let width = 8 << access.size();
    let sign_extends = width < 64 && extended >> (width - 1) > 1;
    let registers: Vec<u8> =
        decoded.parts().filter(|(_, upper)| !upper).map(|(register, _)| register).collect();
    assert_eq!(decoded.parts().count(), registers.len() * if whole { 2 } else { 1 });
    Some(Read {
        write: access.is_write(),
        bytes: decoded.access_bytes() * if whole { 2 } else { 1 },
        sign_extends,
        vector,
        wide: if sign_extends { extended >> 32 != 0 } else { !vector && width == 64 },
        registers,
        base: decoded.base,
        offset: decoded.offset,
        index: decoded.index,
    })
}

fn check(word: u32) {
    let text = disassemble(word);
    let expected = text.as_deref().and_then(read).filter(|_| !has_wrong_fixed_bits(word));
    assert_eq!(decode(word), expected, "{word:#010x}: {text:?}");
}

/// LDAR, STLR and LDAPR have fields that should be ones, at which the disassembler doesn't look: CONSTRAINED UNPREDICTABLE.
fn has_wrong_fixed_bits(word: u32) -> bool {
    let ordered = word >> 24 & 0x3f == 0b001000;
    let rcpc = word >> 24 & 0x3f == 0b111000 && word >> 21 & 1 == 1 && word >> 10 & 0b11 == 0;
    ordered && word & 0x1f_7c00 != 0x1f_7c00 || rcpc && word & 0x1f_0000 != 0x1f_0000
}

/// All combinations of the bits that tell instructions apart, with registers and offsets that tell fields apart.
#[test]
fn every_opcode_is_read_as_the_disassembler_reads_it() {
    let fields = [
        0x0000_0000,
        0x0003_0c43,
        0x001f_fc5f,
        0x0008_2c82,
        0x001f_7c00,
        0x0010_0ca5,
        0x001f_4fe1,
        0x0015_5d7e,
    ];
    let mut decoded = 0;
    // Bits 31 to 21, and 15 to 10.
    for opcode in 0..1_u32 << 11 {
        for form in 0..1_u32 << 6 {
            for field in fields {
                let word = opcode << 21 | field & !(0x3f << 10) | form << 10;
                if word >> 25 & 0b101 == 0b100 {
                    check(word);
                    decoded += u32::from(LoadStore::decode(word).is_some());
                }
            }
        }
    }
    assert!(decoded > 50_000, "{decoded}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn words_at_random_are_read_as_the_disassembler_reads_them(word in any::<u32>()) {
        check(word & !(1 << 25) | 1 << 27);
        check(word);
    }
}
