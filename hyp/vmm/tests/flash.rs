//! The bank of flash: what firmware sends to it and expects, each command, and that nothing else changes what it holds.

use proptest::prelude::*;
use vmm::devices::flash::{Answer, BANK, BUFFER, Bank, Cells, SECTOR};

/// Sectors that the tests look at, and how many of these can be written.
const SECTORS: u32 = 4;
const WRITABLE: u32 = 2 * SECTOR;

const READY: u32 = 0x80;
const ERASE_ERROR: u32 = 0x20;
const PROGRAM_ERROR: u32 = 0x10;
const LOCKED: u32 = 0x02;

/// The same for both chips.
fn both(value: u32) -> u32 {
    value << 16 | value
}

/// What the first sectors hold.
struct Held(Vec<u8>);

impl Cells for Held {
    fn program(&mut self, offset: u32, kept: &[u32]) -> bool {
        assert!(offset.is_multiple_of(4) && !kept.is_empty() && kept.len() <= BUFFER);
        let end = offset + 4 * kept.len() as u32;
        assert!(end <= WRITABLE, "{offset:#x} to {end:#x}");
        assert_eq!(offset / SECTOR, (end - 1) / SECTOR);
        for (cells, kept) in self.0[offset as usize..].chunks_exact_mut(4).zip(kept) {
            cells.iter_mut().zip(kept.to_le_bytes()).for_each(|(cell, kept)| *cell &= kept);
        }
        true
    }
}

/// A bank with what it holds, as EL2 drives it.
struct Flash {
    bank: Bank,
    held: Held,
}

impl Flash {
    fn holding(held: Vec<u8>) -> Self {
        assert_eq!(held.len(), (SECTORS * SECTOR) as usize);
        Self { bank: Bank::new(WRITABLE), held: Held(held) }
    }

    fn erased() -> Self {
        Self::holding(vec![0xff; (SECTORS * SECTOR) as usize])
    }

    /// Erases what is to be erased, in pieces.
    fn finish(&mut self) {
        while let Some(erase) = self.bank.erase() {
            let piece = erase.left.min(24 << 10);
            let words = self.held.0[erase.offset as usize..][..piece as usize].chunks_exact_mut(4);
            for word in words {
                word.iter_mut().zip(erase.lanes.to_le_bytes()).for_each(|(cell, lane)| *cell |= lane);
            }
            self.bank.erased(piece);
        }
    }

    fn write(&mut self, offset: u32, size: u32, value: u64) -> bool {
        self.finish();
        self.bank.write(offset, size, value, &mut self.held)
    }

    fn read(&mut self, offset: u32, size: u32) -> u64 {
        self.finish();
        let Answer { said, held } = self.bank.read(offset, size).expect("aligned");
        let mut bytes = [0; 8];
        bytes[..size as usize].copy_from_slice(&self.held.0[offset as usize..][..size as usize]);
        assert_eq!(said & held, 0);
        said | u64::from_le_bytes(bytes) & held
    }

    /// A command to both chips.
    fn send(&mut self, offset: u32, command: u32) {
        assert!(self.write(offset, 4, both(command).into()));
    }

    fn load(&mut self, offset: u32) -> u32 {
        self.read(offset, 4) as u32
    }

    fn status(&mut self) -> u32 {
        self.send(0, 0x70);
        self.load(0)
    }

    /// As EDK2 erases a block, unlocking it first if it has to. Returns the status.
    fn erase(&mut self, block: u32) -> u32 {
        self.send(block + 8, 0x90);
        if self.load(block + 8) != 0 {
            self.send(block, 0x60);
            self.send(block, 0xd0);
            assert_eq!(self.status() & both(READY), both(READY));
            self.send(block, 0xff);
        }
        self.send(block, 0x20);
        self.send(block, 0xd0);
        let status = self.status();
        if status != both(READY) {
            self.send(0, 0x50);
        }
        self.send(0, 0xff);
        status
    }

    /// As EDK2 programs a word.
    fn program(&mut self, offset: u32, word: u32) -> u32 {
        self.send(offset, 0x40);
        assert!(self.write(offset, 4, word.into()));
        let status = self.status();
        self.send(0, 0x50);
        self.send(0, 0xff);
        status
    }

    /// As EDK2 programs a buffer.
    fn program_buffer(&mut self, offset: u32, words: &[u32]) -> u32 {
        self.send(offset, 0xe8);
        assert_eq!(self.load(offset) & both(READY), both(READY));
        self.send(offset, words.len() as u32 - 1);
        for (at, word) in (offset..).step_by(4).zip(words) {
            assert!(self.write(at, 4, (*word).into()));
        }
        self.send(0, 0xd0);
        let status = self.status();
        self.send(0, 0x50);
        self.send(0, 0xff);
        status
    }

    fn word(&self, offset: u32) -> u32 {
        u32::from_le_bytes(self.held.0[offset as usize..][..4].try_into().unwrap())
    }
}

#[test]
fn after_power_up_it_shows_what_it_holds() {
    let mut flash = Flash::erased();
    flash.held.0[..8].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(flash.bank.shows_cells());
    assert_eq!(flash.read(0, 8), 0x0807_0605_0403_0201);
    assert_eq!((flash.read(4, 4), flash.read(6, 2), flash.read(7, 1)), (0x0807_0605, 0x0807, 8));
    assert_eq!(flash.bank.read(4, 2), Some(Answer { said: 0, held: 0xffff }));
}

#[test]
fn only_accesses_that_the_bus_carries_reach_the_chips() {
    let mut flash = Flash::erased();
    for size in 0..=16 {
        for offset in (0..16).chain(BANK - 16..BANK + 16) {
            let is_one = [1, 2, 4, 8].contains(&size) && offset % size == 0 && offset < BANK;
            assert_eq!(flash.bank.read(offset, size).is_some(), is_one, "{size} bytes at {offset:#x}");
            assert_eq!(flash.write(offset, size, u64::MAX), is_one, "{size} bytes at {offset:#x}");
        }
    }
}

#[test]
fn what_edk2_does_to_store_a_variable() {
    let mut flash = Flash::erased();
    assert_eq!(flash.erase(SECTOR), both(READY));
    let words: Vec<u32> = (0..32).map(|n| 0x1234_0000 + n).collect();
    assert_eq!(flash.program_buffer(SECTOR + 0x80, &words), both(READY));
    for (at, word) in (SECTOR + 0x80..).step_by(4).zip(&words) {
        assert_eq!(flash.load(at), *word);
    }
    // A variable is marked as deleted by clearing bits of it.
    assert_eq!(flash.program(SECTOR + 0x80, 0xffff_fffd), both(READY));
    assert_eq!(flash.load(SECTOR + 0x80), 0x1234_0000);
    assert_eq!(flash.program(SECTOR + 0x84, 0x0000_ff00), both(READY));
    assert_eq!(flash.load(SECTOR + 0x84), 0);
    assert_eq!(flash.load(SECTOR + 0x7c), u32::MAX);
    assert_eq!(flash.erase(SECTOR), both(READY));
    assert!(flash.held.0.iter().all(|byte| *byte == 0xff));
}

#[test]
fn what_it_says_of_itself() {
    let mut flash = Flash::erased();
    for setup in [0x98, 0xff, 0x98] {
        flash.send(0x55 * 4, setup);
    }
    let said: Vec<u32> = (0x10..0x31).map(|number| flash.load(number * 4)).collect();
    assert!(said.iter().all(|word| *word == both(word & 0xff)));
    let at = |number: usize| said[number - 0x10] & 0xff;
    assert_eq!([at(0x10), at(0x11), at(0x12)], *b"QRY".map(u32::from).as_slice());
    // Intel's command set, a chip of 32 MiB on 16 lines, a buffer of 64 bytes, 256 sectors of 128 KiB.
    assert_eq!((at(0x13), at(0x14), at(0x27), at(0x28)), (1, 0, 25, 1));
    assert_eq!(2usize << at(0x2a), 4 * BUFFER);
    assert_eq!((at(0x2c), at(0x2d), at(0x2e), at(0x2f), at(0x30)), (1, 255, 0, 0, 2));
    let table = at(0x15) | at(0x16) << 8;
    let said: Vec<u8> = (table..table + 5).map(|number| flash.load(number * 4) as u8).collect();
    assert_eq!(said, b"PRI10");
    // Nothing before and behind the tables; in other sectors the same.
    for number in [0, 0xf, 0x44, 0x100, SECTOR / 4 - 1] {
        assert_eq!(flash.load(number * 4), 0, "{number:#x}");
    }
    assert_eq!(flash.load(3 * SECTOR + 0x40), both(u32::from(b'Q')));
    // Narrow loads see their lanes.
    assert_eq!((flash.read(0x40, 2), flash.read(0x41, 1), flash.read(0x42, 1)), (0x51, 0, 0x51));
    assert_eq!(flash.read(0x40, 8), 0x0052_0052_0051_0051);
    flash.send(0, 0x90);
    assert_eq!((flash.load(0), flash.load(4), flash.load(12)), (both(0x89), both(0x18), 0));
}

#[test]
fn behind_what_can_be_written_sectors_are_locked() {
    let mut flash = Flash::erased();
    for (sector, locked) in [(0, 0), (1, 0), (2, 1), (3, 1)] {
        flash.send(0, 0x90);
        assert_eq!(flash.load(sector * SECTOR + 8), both(locked), "{sector}");
    }
    flash.held.0[WRITABLE as usize] = 0;
    assert_eq!(flash.erase(WRITABLE), both(READY | ERASE_ERROR | LOCKED));
    assert_eq!(flash.program(WRITABLE + 4, 0), both(READY | PROGRAM_ERROR | LOCKED));
    assert_eq!(flash.program_buffer(WRITABLE + 4, &[0, 0]), both(READY | PROGRAM_ERROR | LOCKED));
    // From the last sector that can be written into the first that can't.
    assert_eq!(flash.program_buffer(WRITABLE - 4, &[0, 0]), both(READY | ERASE_ERROR | PROGRAM_ERROR));
    assert_eq!(flash.word(WRITABLE - 4), u32::MAX);
    assert_eq!((flash.load(WRITABLE), flash.load(WRITABLE + 4)), (0xffff_ff00, u32::MAX));
    // A part of a sector is none.
    flash.bank = Bank::new(SECTOR - 1);
    flash.send(0, 0x90);
    assert_eq!(flash.load(8), both(1));
}

/// First cycles, second ones that don't follow them, and the status then.
#[test]
fn a_wrong_second_cycle_is_an_error_until_it_is_cleared() {
    for (first, second) in [(0x20, 0x70), (0x20, 0xff), (0x60, 0x20), (0xe8, 32), (0xe8, 0xffff)] {
        let mut flash = Flash::holding(vec![0; (SECTORS * SECTOR) as usize]);
        flash.send(0, first);
        flash.send(0, second);
        let error = both(READY | ERASE_ERROR | PROGRAM_ERROR);
        assert_eq!(flash.load(0), error, "{first:#x} {second:#x}");
        // It stays, whatever succeeds meanwhile.
        assert_eq!(flash.status(), error);
        flash.send(0, 0x20);
        flash.send(0, 0xd0);
        assert_eq!((flash.load(0), flash.word(0)), (error, u32::MAX));
        flash.send(0, 0x50);
        assert!(flash.bank.shows_cells());
        assert_eq!(flash.status(), both(READY));
    }
}

#[test]
fn an_erase_is_confirmed_in_its_own_sector() {
    let mut flash = Flash::holding(vec![0; (SECTORS * SECTOR) as usize]);
    flash.send(0, 0x20);
    flash.send(SECTOR, 0xd0);
    assert_eq!(flash.bank.erase(), None);
    assert_eq!(flash.status(), both(READY | ERASE_ERROR | PROGRAM_ERROR));
    flash.send(SECTOR - 4, 0x20);
    flash.send(0x100, 0xd0);
    let erase = flash.bank.erase().unwrap();
    assert_eq!((erase.offset, erase.left, erase.lanes), (0, SECTOR, u32::MAX));
}

#[test]
fn an_erase_goes_on_where_it_has_come_to_and_ends_with_a_reset() {
    let mut flash = Flash::holding(vec![0; (SECTORS * SECTOR) as usize]);
    flash.send(SECTOR, 0x20);
    flash.send(SECTOR, 0xd0);
    flash.bank.erased(0x1000);
    let erase = flash.bank.erase().unwrap();
    assert_eq!((erase.offset, erase.left), (SECTOR + 0x1000, SECTOR - 0x1000));
    let mut again = flash.bank.clone();
    again.erased(SECTOR);
    assert_eq!(again.erase(), None);
    flash.bank.reset();
    assert_eq!(flash.bank.erase(), None);
    assert!(flash.bank.shows_cells());
    assert_eq!(flash.status(), both(READY));
}

#[test]
fn a_buffer_takes_its_words_in_any_order_and_none_from_elsewhere() {
    let mut flash = Flash::erased();
    let fill = |flash: &mut Flash, words: &[(u32, u32)], confirm| {
        flash.send(0, 0xe8);
        flash.send(0, words.len() as u32 - 1);
        for (at, word) in words {
            flash.write(*at, 4, (*word).into());
        }
        flash.send(0, confirm);
        let status = flash.status();
        flash.send(0, 0x50);
        status
    };
    assert_eq!(fill(&mut flash, &[(0x100, 1), (0x108, 3), (0x104, 2)], 0xd0), both(READY));
    assert_eq!((flash.load(0x100), flash.load(0x104), flash.load(0x108)), (1, 2, 3));
    // The same twice: the last counts, and what was not given stays.
    assert_eq!(fill(&mut flash, &[(0x200, 1), (0x200, 2)], 0xd0), both(READY));
    assert_eq!((flash.load(0x200), flash.load(0x204)), (2, u32::MAX));
    for words in [[(0x300, 0), (0x308, 0)], [(0x304, 0), (0x300, 0)], [(0x300, 0), (SECTOR, 0)]] {
        assert_eq!(fill(&mut flash, &words, 0xd0), both(READY | ERASE_ERROR | PROGRAM_ERROR));
    }
    assert_eq!(fill(&mut flash, &[(0x300, 0)], 0xff), both(READY | ERASE_ERROR | PROGRAM_ERROR));
    assert_eq!((flash.load(0x300), flash.load(0x304), flash.load(SECTOR)), (u32::MAX, u32::MAX, u32::MAX));
}

#[test]
fn what_can_not_be_held_is_an_error() {
    struct Broken;
    impl Cells for Broken {
        fn program(&mut self, _: u32, _: &[u32]) -> bool {
            false
        }
    }
    let mut bank = Bank::new(WRITABLE);
    assert!(bank.write(0, 4, both(0x40).into(), &mut Broken) && bank.write(0, 4, 0, &mut Broken));
    assert_eq!(bank.read(0, 4).unwrap().said, both(READY | PROGRAM_ERROR).into());
}

#[test]
fn each_chip_has_its_own_half_of_the_bus() {
    let mut flash = Flash::holding(vec![0; (SECTORS * SECTOR) as usize]);
    flash.held.0[..4].copy_from_slice(&[1, 2, 3, 4]);
    // The high chip alone.
    assert!(flash.write(2, 2, 0x70));
    assert!(!flash.bank.shows_cells());
    assert_eq!(flash.bank.read(0, 4), Some(Answer { said: 0x0080_0000, held: 0xffff }));
    assert_eq!(flash.bank.read(0, 8), Some(Answer { said: 0x0080_0000_0080_0000, held: 0xffff_0000_ffff }));
    assert_eq!((flash.load(0), flash.read(1, 1), flash.read(3, 1)), (0x0080_0201, 2, 0));
    // A byte has no command for a chip whose low lines it doesn't drive: these are high, which is READ ARRAY.
    assert!(flash.write(3, 1, 0x70));
    assert!(flash.bank.shows_cells());
    // The low chip erases, the high one doesn't.
    assert!(flash.write(0, 2, 0x20) && flash.write(0, 1, 0xd0));
    assert_eq!(flash.read(0, 2), 0x80);
    assert!(flash.write(0, 2, 0xff));
    assert_eq!((flash.load(0), flash.load(SECTOR - 4)), (0x0403_ffff, 0xffff));
    // And a byte is programmed, with its neighbours left.
    assert!(flash.write(0, 1, 0x40) && flash.write(1, 1, 0x5a) && flash.write(0, 2, 0xff));
    assert_eq!(flash.load(0), 0x0403_5aff);
}

#[test]
fn a_doubleword_is_two_words_the_low_one_first() {
    let mut flash = Flash::erased();
    assert!(flash.write(8, 8, u64::from(both(0x40)) | 0xdead_0000_0000));
    assert_eq!(flash.load(0), both(READY));
    flash.send(0, 0xff);
    assert_eq!((flash.word(8), flash.word(12)), (u32::MAX, 0xdead));
    // Which is how a sector may be erased in one store.
    assert!(flash.write(8, 8, u64::from(both(0xd0)) << 32 | u64::from(both(0x20))));
    flash.send(0, 0xff);
    assert_eq!(flash.load(12), u32::MAX);
}

/// Something that a driver does, on both chips or on one.
#[derive(Clone, Debug)]
enum Act {
    Erase { sector: u32 },
    Word { at: u32, word: u32 },
    Buffer { at: u32, words: Vec<u32> },
    One { chip: u32, at: u32, half: u16 },
    EraseOne { chip: u32, sector: u32 },
    Look { command: u32 },
    Reset,
}

fn acts() -> impl Strategy<Value = Act> {
    let words = 0..SECTORS * SECTOR / 4;
    // Often the same words, so that what is programmed meets what was.
    let at = prop_oneof![words, (0..64u32).prop_map(|n| n / 2 * 32 + n % 2), Just(SECTOR / 4 - 1)]
        .prop_map(|n| n * 4);
    let buffer = proptest::collection::vec(any::<u32>(), 1..=BUFFER);
    prop_oneof![
        2 => (0..SECTORS).prop_map(|sector| Act::Erase { sector }),
        4 => (at.clone(), any::<u32>()).prop_map(|(at, word)| Act::Word { at, word }),
        4 => (at.clone(), buffer).prop_map(|(at, words)| Act::Buffer { at, words }),
        2 => (0..2u32, at, any::<u16>()).prop_map(|(chip, at, half)| Act::One { chip, at, half }),
        1 => (0..2u32, 0..SECTORS).prop_map(|(chip, sector)| Act::EraseOne { chip, sector }),
        1 => prop_oneof![Just(0x70), Just(0x90), Just(0x98), Just(0x60), Just(0x50)].prop_map(|command| Act::Look { command }),
        1 => Just(Act::Reset),
    ]
}

/// What flash is: programming clears bits, erasing sets all of a sector.
struct Model(Vec<u8>);

impl Model {
    fn program(&mut self, at: u32, bytes: &[u8]) {
        if at < WRITABLE {
            self.0[at as usize..].iter_mut().zip(bytes).for_each(|(cell, byte)| *cell &= byte);
        }
    }

    fn erase(&mut self, sector: u32, mut is_in: impl FnMut(usize) -> bool) {
        if sector * SECTOR < WRITABLE {
            let cells = self.0[(sector * SECTOR) as usize..][..SECTOR as usize].iter_mut().enumerate();
            cells.filter(|(at, _)| is_in(*at)).for_each(|(_, cell)| *cell = 0xff);
        }
    }
}

fn act(flash: &mut Flash, model: &mut Model, act: &Act) {
    let locked = |at: u32, error: u32| both(READY | if at < WRITABLE { 0 } else { error | LOCKED });
    match act {
        Act::Erase { sector } => {
            let at = sector * SECTOR;
            assert_eq!(flash.erase(at), locked(at, ERASE_ERROR));
            model.erase(*sector, |_| true);
        }
        Act::Word { at, word } => {
            assert_eq!(flash.program(*at, *word), locked(*at, PROGRAM_ERROR));
            model.program(*at, &word.to_le_bytes());
        }
        Act::Buffer { at, words } => {
            let end = at + 4 * words.len() as u32;
            let status = flash.program_buffer(*at, words);
            if at / SECTOR == (end - 1) / SECTOR {
                assert_eq!(status, locked(*at, PROGRAM_ERROR));
                model.program(*at, &words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>());
            } else {
                assert_eq!(status, both(READY | ERASE_ERROR | PROGRAM_ERROR));
            }
        }
        Act::One { chip, at, half } => {
            let at = at + 2 * chip;
            assert!(flash.write(at, 2, 0x10) && flash.write(at, 2, (*half).into()));
            assert_eq!(flash.read(at, 2) as u32, locked(at, PROGRAM_ERROR) & 0xffff);
            assert!(flash.write(at, 2, 0x50));
            model.program(at, &half.to_le_bytes());
        }
        Act::EraseOne { chip, sector } => {
            let at = sector * SECTOR + 2 * chip;
            assert!(flash.write(at, 2, 0x20) && flash.write(at, 2, 0xd0));
            assert_eq!(flash.read(at, 2) as u32, locked(at, ERASE_ERROR) & 0xffff);
            assert!(flash.write(at, 2, 0x50));
            model.erase(*sector, |at| at as u32 / 2 % 2 == *chip);
        }
        Act::Look { command } => {
            flash.send(0, *command);
            flash.send(0, 0xd0);
            flash.send(0, 0xff);
        }
        Act::Reset => flash.bank.reset(),
    }
}

/// Any store, more often one that means something.
fn stores() -> impl Strategy<Value = (u32, u32, u64)> {
    let command = prop_oneof![
        Just(0x10u32),
        Just(0x20),
        Just(0x40),
        Just(0x50),
        Just(0x60),
        Just(0x70),
        Just(0x90),
        Just(0x98),
        Just(0xb0),
        Just(0xd0),
        Just(0xd0),
        Just(0xe8),
        Just(0xff),
        0..40u32,
    ];
    let value = prop_oneof![
        command.clone().prop_map(|command| both(command).into()),
        (command.clone(), command).prop_map(|(low, high)| u64::from(both(high)) << 32 | u64::from(both(low))),
        any::<u64>(),
    ];
    let size = prop_oneof![Just(1u32), Just(2), Just(4), Just(4), Just(4), Just(8)];
    let offset =
        prop_oneof![0..0x100u32, 0..SECTORS * SECTOR, Just(SECTOR - 4), Just(WRITABLE - 8), Just(WRITABLE)];
    (offset, size, value).prop_map(|(offset, size, value)| (offset & !(size - 1), size, value))
}

/// Whether the change from `before` to `after` is one that flash can make: bits are cleared, or a sector's half of the bus is set.
fn is_possible(before: &[u8], after: &[u8]) -> bool {
    let mut sectors = before.chunks(SECTOR as usize).zip(after.chunks(SECTOR as usize));
    sectors.all(|(before, after)| {
        before == after
            || (0..2).all(|chip| {
                let mut half = before.iter().zip(after).enumerate().filter(|(at, _)| at / 2 % 2 == chip);
                half.clone().all(|(_, (before, after))| before & after == *after)
                    || half.all(|(_, (_, after))| *after == 0xff)
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_driver_finds_what_a_plain_array_holds(list in proptest::collection::vec(acts(), 1..60)) {
        let mut flash = Flash::erased();
        let mut model = Model(flash.held.0.clone());
        for one in &list {
            act(&mut flash, &mut model, one);
            prop_assert!(flash.bank.shows_cells(), "{one:?}");
            prop_assert!(flash.held.0 == model.0, "{one:?}");
        }
    }

    #[test]
    fn garbage_does_what_flash_can_do_and_no_more(
        list in proptest::collection::vec(stores(), 1..120),
        seed in any::<u8>(),
    ) {
        let start: Vec<u8> = (0..SECTORS * SECTOR).map(|at| (at as u8).wrapping_mul(seed)).collect();
        let mut flash = Flash::holding(start.clone());
        for (offset, size, value) in list {
            flash.finish();
            let before = flash.held.0.clone();
            prop_assert!(flash.write(offset, size, value));
            if let Some(erase) = flash.bank.erase() {
                prop_assert!(erase.offset + erase.left <= WRITABLE && erase.left == SECTOR);
                prop_assert!(erase.offset.is_multiple_of(SECTOR));
            }
            flash.read(offset, size);
            prop_assert!(is_possible(&before, &flash.held.0));
        }
        flash.finish();
        prop_assert!(flash.held.0[WRITABLE as usize..] == start[WRITABLE as usize..]);
        // Ones bring it back from wherever it is, and change nothing.
        let held = flash.held.0.clone();
        for _ in 0..BUFFER + 4 {
            flash.send(0, 0xffff);
        }
        prop_assert!(flash.bank.shows_cells());
        prop_assert!(flash.held.0 == held);
    }
}
