//! The virtual PL031: time, alarm, and the deadline that the alarm needs.

use proptest::prelude::*;
use std::num::NonZeroU32;
use vmm::devices::{Line, Pl031};

const DR: u32 = 0x00;
const MR: u32 = 0x04;
const LR: u32 = 0x08;
const CR: u32 = 0x0c;
const IMSC: u32 = 0x10;
const RIS: u32 = 0x14;
const MIS: u32 = 0x18;
const ICR: u32 = 0x1c;

const HZ: NonZeroU32 = NonZeroU32::new(62_500_000).unwrap();
/// A wall-clock time in 2026, and a counter value in the middle of a second.
const WALL: u32 = 1_795_000_000;
const START: u64 = 100 * SECOND + 1234;
const SECOND: u64 = 62_500_000;

fn rtc() -> Pl031 {
    Pl031::new(WALL, START, HZ)
}

fn read(rtc: &mut Pl031, register: u32, now: u64) -> u32 {
    rtc.read(register, now).0
}

#[test]
fn registers_after_reset() {
    let mut rtc = rtc();
    let expected = [
        (DR, WALL),
        (MR, 0),
        (LR, WALL),
        (CR, 1),
        (IMSC, 0),
        (RIS, 0),
        (MIS, 0),
        (0x20, 0),
        (0xfe0, 0x31),
        (0xfe4, 0x10),
        (0xfe8, 0x14),
        (0xfec, 0x00),
        (0xff0, 0x0d),
        (0xff4, 0xf0),
        (0xff8, 0x05),
        (0xffc, 0xb1),
    ];
    for (register, value) in expected {
        assert_eq!(rtc.read(register, START), (value, Line::Unchanged), "{register:#x}");
    }
    assert_eq!(read(&mut rtc, DR + 2, START), WALL >> 16);
    assert_eq!(rtc.next_deadline(), None);
}

#[test]
fn time_advances_a_second_at_a_time_and_wraps() {
    let mut rtc = rtc();
    let second = 100 * SECOND;
    assert_eq!(read(&mut rtc, DR, second + SECOND - 1), WALL);
    assert_eq!(read(&mut rtc, DR, second + SECOND), WALL + 1);
    assert_eq!(read(&mut rtc, DR, second + 86_400 * SECOND), WALL + 86_400);
    let left = u64::from(u32::MAX - WALL);
    assert_eq!(read(&mut rtc, DR, second + left * SECOND), u32::MAX);
    assert_eq!(read(&mut rtc, DR, second + (left + 1) * SECOND), 0);
}

#[test]
fn the_guest_sets_the_time_and_a_reset_keeps_it() {
    let mut rtc = rtc();
    let later = START + 5 * SECOND;
    assert_eq!(rtc.write(LR, 1000, later), Line::Unchanged);
    assert_eq!((read(&mut rtc, DR, later), read(&mut rtc, LR, later)), (1000, 1000));
    assert_eq!(read(&mut rtc, DR, later + 3 * SECOND), 1003);
    assert_eq!(rtc.reset(later + 3 * SECOND), Line::Unchanged);
    assert_eq!(read(&mut rtc, DR, later + 4 * SECOND), 1004);
}

#[test]
fn the_alarm_rings_at_its_second_and_not_before() {
    let mut rtc = rtc();
    assert_eq!(rtc.write(MR, WALL + 10, START), Line::Unchanged);
    assert_eq!(rtc.next_deadline(), None, "masked");
    assert_eq!(rtc.write(IMSC, 1, START), Line::Unchanged);
    let deadline = rtc.next_deadline().unwrap();
    assert_eq!(deadline, 110 * SECOND);
    assert_eq!(rtc.tick(deadline - 1), Line::Unchanged);
    assert_eq!(rtc.tick(deadline), Line::Raised);
    assert_eq!((read(&mut rtc, RIS, deadline), read(&mut rtc, MIS, deadline)), (1, 1));
    assert_eq!(rtc.next_deadline(), None, "the line is up already");
    assert_eq!(rtc.tick(deadline + SECOND), Line::Unchanged);
    assert_eq!(rtc.write(ICR, 1, deadline + SECOND), Line::Lowered);
    assert_eq!(rtc.next_deadline(), Some(deadline + (SECOND << 32)), "when the count comes round");
    assert_eq!(rtc.tick(deadline + (SECOND << 32) - 1), Line::Unchanged);
    assert_eq!(rtc.tick(deadline + (SECOND << 32)), Line::Raised);
}

#[test]
fn an_alarm_for_now_rings_at_once_and_one_in_the_past_does_not() {
    let mut rtc = rtc();
    assert_eq!(rtc.write(IMSC, 1, START), Line::Unchanged);
    assert_eq!(rtc.write(MR, WALL - 1, START), Line::Unchanged);
    assert_eq!(rtc.write(MR, WALL, START), Line::Raised);
    assert_eq!(rtc.write(IMSC, 0, START), Line::Lowered);
    assert_eq!((read(&mut rtc, RIS, START), read(&mut rtc, MIS, START)), (1, 0));
    assert_eq!(rtc.write(IMSC, 1, START), Line::Raised);
    assert_eq!(rtc.reset(START), Line::Lowered);
}

#[test]
fn setting_the_time_moves_the_alarm() {
    let mut rtc = rtc();
    let _ = rtc.write(IMSC, 1, START);
    let _ = rtc.write(MR, 2000, START);
    assert_eq!(rtc.write(LR, 1990, START), Line::Unchanged);
    assert_eq!(rtc.next_deadline(), Some(110 * SECOND));
    assert_eq!(rtc.write(LR, 2000, START), Line::Raised);
}

#[test]
fn an_overdue_alarm_is_seen_by_whoever_looks() {
    let mut rtc = rtc();
    let _ = rtc.write(IMSC, 1, START);
    let _ = rtc.write(MR, WALL + 1, START);
    assert_eq!(rtc.read(MIS, START + 2 * SECOND), (1, Line::Raised));
}

#[test]
fn the_clock_can_not_be_stopped_and_read_only_registers_are() {
    let mut rtc = rtc();
    for register in [CR, DR, RIS, MIS, 0xfe0, LR + 1, 0xffc] {
        assert_eq!(rtc.write(register, 0xff, START), Line::Unchanged);
    }
    assert_eq!((read(&mut rtc, CR, START), read(&mut rtc, DR, START)), (1, WALL));
}

#[test]
fn extreme_times_do_no_harm() {
    for frequency in [1, u32::MAX] {
        let mut rtc = Pl031::new(u32::MAX, u64::MAX, NonZeroU32::new(frequency).unwrap());
        let _ = rtc.write(IMSC, 1, u64::MAX);
        let _ = rtc.write(MR, 5, u64::MAX);
        let _ = rtc.next_deadline();
        assert_eq!(rtc.tick(0), Line::Unchanged);
        assert_eq!(read(&mut rtc, CR, 0), 1);
    }
}

proptest! {
    /// Random accesses as time goes by: the line is RIS and IMSC, DR counts seconds, and the alarm is neither early
    /// nor later than its deadline said.
    #[test]
    fn random_accesses_keep_time_and_line(
        frequency in prop_oneof![Just(1), Just(54_000_000), Just(1_000_000_000)],
        steps in proptest::collection::vec((0_u64..20, prop_oneof![0_u32..0x24, Just(0xfe0)], 0_u32..40), 0..100),
    ) {
        let second = u64::from(frequency);
        let mut now = 7 * second + second / 2;
        let mut rtc = Pl031::new(20, now, NonZeroU32::new(frequency).unwrap());
        let (mut base, mut base_second) = (20_u32, now / second);
        let mut level = false;
        for (tenths, offset, value) in steps {
            let deadline = rtc.next_deadline();
            now += tenths * second / 10;
            let line = rtc.tick(now);
            prop_assert_eq!(line == Line::Raised, deadline.is_some_and(|deadline| deadline <= now));
            level = line.level().unwrap_or(level);
            level = rtc.write(offset, value, now).level().unwrap_or(level);
            if offset == LR {
                (base, base_second) = (value, now / second);
            }
            let dr = base.wrapping_add((now / second - base_second) as u32);
            prop_assert_eq!(rtc.read(DR, now), (dr, Line::Unchanged));
            let (ris, imsc) = (read(&mut rtc, RIS, now), read(&mut rtc, IMSC, now));
            prop_assert_eq!(rtc.irq_level(), ris & imsc != 0);
            prop_assert_eq!(rtc.irq_level(), level);
            prop_assert_eq!(read(&mut rtc, MIS, now), ris & imsc);
            if offset == MR && value == dr {
                prop_assert_eq!(ris, 1);
            }
        }
    }
}
