//! Blobs token by token: for what no writer makes.
#![allow(dead_code, reason = "each test file uses some of it")]

pub const BEGIN_NODE: u32 = 1;
pub const END_NODE: u32 = 2;
pub const PROP: u32 = 3;
pub const NOP: u32 = 4;
pub const END: u32 = 9;

/// Where a blob made here has its structure block: behind the header and one reservation entry, the terminator.
pub const STRUCTURE: usize = 56;

/// A word of the header, by its index.
pub fn word(blob: &[u8], index: usize) -> u32 {
    u32::from_be_bytes(blob[index * 4..index * 4 + 4].try_into().unwrap())
}

pub fn set_word(blob: &mut [u8], index: usize, value: u32) {
    blob[index * 4..index * 4 + 4].copy_from_slice(&value.to_be_bytes());
}

/// A blob with this structure block and these strings, and nothing reserved.
pub fn blob(structure: &[u8], strings: &[u8]) -> Vec<u8> {
    with_reservations(&[0; 16], structure, strings)
}

pub fn with_reservations(reservations: &[u8], structure: &[u8], strings: &[u8]) -> Vec<u8> {
    let at = 40 + reservations.len();
    let strings_at = at + structure.len();
    let total = strings_at + strings.len();
    let header = [0xd00d_feed, total, at, strings_at, 40, 17, 16, 0, strings.len(), structure.len()];
    let header = header.iter().flat_map(|word| (*word as u32).to_be_bytes());
    header.chain(reservations.iter().chain(structure).chain(strings).copied()).collect()
}

pub fn token(token: u32) -> Vec<u8> {
    token.to_be_bytes().to_vec()
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

pub fn begin(name: &[u8]) -> Vec<u8> {
    padded([&token(BEGIN_NODE), name, &[0]].concat())
}

pub fn prop(name_at: u32, value: &[u8]) -> Vec<u8> {
    padded([&token(PROP), &token(value.len() as u32), &token(name_at), value].concat())
}

/// The tokens of a good blob up to the last one, each with what belongs to it. What follows that means nothing.
pub fn tokens(blob: &[u8]) -> Vec<Vec<u8>> {
    let at = word(blob, 2) as usize;
    let mut rest = &blob[at..at + word(blob, 9) as usize];
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let length = match word(rest, 0) {
            BEGIN_NODE => 4 + rest[4..].iter().position(|byte| *byte == 0).unwrap() + 1,
            PROP => 12 + word(rest, 1) as usize,
            _ => 4,
        };
        let (token, behind) = rest.split_at(length.next_multiple_of(4));
        tokens.push(token.to_vec());
        rest = if word(token, 0) == END { &[] } else { behind };
    }
    tokens
}

/// The same tree with `count(n)` NOP tokens before its token `n`.
pub fn with_nops(good: &[u8], count: impl Fn(usize) -> usize) -> Vec<u8> {
    let structure = tokens(good).into_iter().enumerate();
    let structure = structure.flat_map(|(n, bytes)| [token(NOP).repeat(count(n)), bytes].concat());
    let strings_at = word(good, 3) as usize;
    let strings = &good[strings_at..strings_at + word(good, 8) as usize];
    let reservations = &good[40..word(good, 2) as usize];
    with_reservations(reservations, &structure.collect::<Vec<u8>>(), strings)
}
