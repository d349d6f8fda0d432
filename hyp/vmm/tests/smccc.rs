//! The call table: every identifier that is offered, every one that isn't, and the reference that shows it.

use abi::{FunctionId, hanok, psci, pv_time, smccc, trng};
use proptest::prelude::*;
use stage2::Ipa;
use std::fmt::Write;
use vmm::calls::Request;
use vmm::psci::PowerRequest;
use vmm::smccc::{Answer, CALLS, Call, Mitigations, Offers, SocId, StolenTime, UNKNOWN, Workaround};
use vmm::trng::Wanted;

/// What becomes of the call whose X0 to X4 are `x`.
fn call(x: &[u64; 5], offers: &Offers) -> Answer {
    let Some(call) = Call::named(x[0]) else { return Answer::Return(UNKNOWN) };
    match call.request(x) {
        Ok(None) => call.answer(x, offers),
        Ok(Some(request)) => panic!("{request:?}"),
        Err(code) => Answer::Return(code as u64),
    }
}

/// What one of Hanok's own calls asks for.
fn request(id: FunctionId, x: [u64; 4]) -> Request {
    let x = [u64::from(id.as_u32()), x[0], x[1], x[2], x[3]];
    let call = Call::named(x[0]).expect("an offered one");
    call.request(&x).expect("a sound one").expect("one of Hanok's own")
}

const NONE: Offers = Offers {
    mitigations: Mitigations {
        workaround_1: Workaround::NotSupported,
        store_bypass_is_safe: false,
        workaround_3: Workaround::NotSupported,
    },
    soc: None,
    random: false,
};
const RANDOM: Offers = Offers { random: true, ..NONE };

fn ask(id: FunctionId, x1: u64, x2: u64, x3: u64) -> Answer {
    call(&[u64::from(id.as_u32()), x1, x2, x3, 0], &NONE)
}

fn features(of: FunctionId) -> Answer {
    ask(psci::FEATURES, u64::from(of.as_u32()), 0, 0)
}

fn arch_features(of: FunctionId, offers: &Offers) -> Answer {
    call(&[u64::from(smccc::ARCH_FEATURES.as_u32()), u64::from(of.as_u32()), 0, 0, 0], offers)
}

fn code(code: i64) -> Answer {
    Answer::Return(code as u64)
}

#[test]
fn versions() {
    assert_eq!(ask(smccc::VERSION, 0, 0, 0), Answer::Return(0x1_0002));
    assert_eq!(ask(psci::VERSION, 0, 0, 0), Answer::Return(0x1_0001));
    assert_eq!(ask(psci::MIGRATE_INFO_TYPE, 0, 0, 0), Answer::Return(2));
    let uid = [0xbdc7_dcec, 0x9f4b_7282, 0x3918_9cb3, 0x3d1d_013b];
    assert_eq!(ask(hanok::CALL_UID, 0, 0, 0), Answer::Return4(uid));
    assert_eq!(ask(hanok::REVISION, 0, 8, 9), Answer::Return4([1, 1, 8, 9]), "X2 and X3 are kept");
}

/// A number, by which a call is handed on, is that of one call alone.
#[test]
fn calls_have_numbers_of_their_own() {
    for row in CALLS {
        for id in row.ids {
            let call = Call::named(id.as_u32().into()).expect("it is in the table");
            assert_eq!(Call::numbered(call.number().into()), Some(call), "{}", row.name);
        }
    }
    let count = CALLS.len() as u64;
    assert!(
        (0..count)
            .all(|number| Call::numbered(number).is_some_and(|call| u64::from(call.number()) == number))
    );
    assert!([count, 256, u64::MAX].map(Call::numbered).iter().all(Option::is_none));
}

#[test]
fn what_is_not_offered_is_unknown_and_not_advertised() {
    let not_offered = [
        smccc::ARCH_WORKAROUND_2,
        smccc::ARCH_WORKAROUND_4,
        psci::SYSTEM_SUSPEND_64,
        psci::SYSTEM_RESET2_64,
        FunctionId::from_u32(0xc400_0000), // PSCI_VERSION has no 64-bit form
        FunctionId::from_u32(0x0400_0000), // a yielding call
        FunctionId::from_u32(0x8401_0000), // a reserved bit
        FunctionId::from_u32(0x8480_0000),
        FunctionId::from_u32(0x8600_0007),
        FunctionId::from_u32(0x8600_0003), // console write has no 32-bit form
        FunctionId::from_u32(0xc600_ff01),
        FunctionId::from_u32(0xbf00_ff01),
        FunctionId::from_u32(0),
        FunctionId::from_u32(u32::MAX),
    ];
    for id in not_offered {
        assert_eq!(ask(id, 0, 0, 0), Answer::Return(u64::MAX), "{id:x?}");
        assert_eq!(features(id), Answer::Return(u64::MAX), "{id:x?}");
        assert_eq!(arch_features(id, &NONE), Answer::Return(u64::MAX), "{id:x?}");
    }
}

#[test]
fn psci_features_tells_of_psci_and_of_smccc_version() {
    for row in CALLS {
        for id in row.ids {
            // DEN0022, 5.1: the first 32 numbers are PSCI's; TRNG has others of the same service.
            let psci = id.owner() == psci::VERSION.owner() && id.number() < 0x20 || *id == smccc::VERSION;
            assert_eq!(features(*id), code(if psci { 0 } else { -1 }), "{}", row.name);
        }
    }
}

#[test]
fn arch_features_tells_of_its_own_range() {
    for (feature, id) in
        [(0, smccc::VERSION), (0, smccc::ARCH_FEATURES), (-1, psci::VERSION), (-1, hanok::CALL_UID)]
    {
        assert_eq!(arch_features(id, &NONE), code(feature), "{id:x?}");
    }
}

#[test]
fn stolen_time_is_found_as_its_specification_says() {
    let features = |of: FunctionId| ask(pv_time::FEATURES, u64::from(of.as_u32()), 0, 0);
    assert_eq!(arch_features(pv_time::FEATURES, &NONE), code(0));
    assert_eq!(arch_features(pv_time::STOLEN_TIME, &NONE), code(-1));
    assert_eq!(features(pv_time::FEATURES), code(0));
    assert_eq!(features(pv_time::STOLEN_TIME), Answer::StolenTime(StolenTime::Feature));
    assert_eq!(features(psci::VERSION), code(-1));
    assert_eq!(features(FunctionId::from_u32(0)), code(-1));
    assert_eq!(ask(pv_time::STOLEN_TIME, 0, 0, 0), Answer::StolenTime(StolenTime::Address));
}

#[test]
fn workarounds_are_what_the_cpu_needs() {
    use Workaround::{Needed, NotNeeded, NotSupported};
    let unknown = Answer::Return(UNKNOWN);
    let ask = |id: FunctionId, offers: &Offers| call(&[u64::from(id.as_u32()), 1, 0, 0, 0], offers);
    // Where it is needed, the exit has done it.
    for (state, feature, answer) in
        [(NotSupported, -1, unknown), (NotNeeded, 1, code(0)), (Needed, 0, code(0))]
    {
        let one = Offers { mitigations: Mitigations { workaround_1: state, ..NONE.mitigations }, ..NONE };
        let three = Offers { mitigations: Mitigations { workaround_3: state, ..NONE.mitigations }, ..NONE };
        for (id, offers, other) in
            [(smccc::ARCH_WORKAROUND_1, one, three), (smccc::ARCH_WORKAROUND_3, three, one)]
        {
            assert_eq!(arch_features(id, &offers), code(feature), "{id:x?} {state:?}");
            assert_eq!(ask(id, &offers), answer);
            assert_eq!(arch_features(id, &other), code(-1), "{id:x?}, the other one {state:?}");
        }
    }
    // What isn't required isn't there.
    for (safe, feature) in [(false, -1), (true, -2)] {
        let mitigations = Mitigations { store_bypass_is_safe: safe, ..NONE.mitigations };
        let offers = Offers { mitigations, ..NONE };
        assert_eq!(arch_features(smccc::ARCH_WORKAROUND_2, &offers), code(feature));
        assert_eq!(ask(smccc::ARCH_WORKAROUND_2, &offers), unknown);
    }
}

#[test]
fn the_soc_is_what_firmware_says() {
    let ask = |kind, offers| call(&[u64::from(smccc::ARCH_SOC_ID.as_u32()), kind, 0, 0, 0], offers);
    let known = Offers { soc: Some(SocId { version: 0x0426_2711, revision: 0xc0 }), ..NONE };
    assert_eq!(arch_features(smccc::ARCH_SOC_ID, &known), code(0));
    assert_eq!(arch_features(smccc::ARCH_SOC_ID, &NONE), code(-1));
    for (kind, answer) in [(0, 0x0426_2711), (1, 0xc0), (1 << 32, 0x0426_2711), (2, -3), (u64::MAX, -3)] {
        assert_eq!(ask(kind, &known), code(answer), "{kind:x}");
        assert_eq!(ask(kind, &NONE), Answer::Return(UNKNOWN));
    }
}

const TRNG: [FunctionId; 5] = [trng::VERSION, trng::FEATURES, trng::GET_UUID, trng::RND_32, trng::RND_64];

#[test]
fn random_numbers_are_there_or_none_of_their_calls() {
    let ask = |id: FunctionId, x1, offers| call(&[u64::from(id.as_u32()), x1, 0, 0, 0], offers);
    for id in TRNG {
        for x1 in [0, 1, 96, u64::from(trng::VERSION.as_u32())] {
            assert_eq!(ask(id, x1, &NONE), Answer::Return(UNKNOWN), "{id:x?}");
        }
        assert_eq!(ask(trng::FEATURES, id.as_u32().into(), &RANDOM), code(0), "{id:x?}");
        assert_eq!(arch_features(id, &RANDOM), code(-1), "they are found by TRNG_VERSION");
    }
    for id in [0, 0x8400_0000, 0x8400_0054, 0xc400_0050, 0xc400_0052] {
        assert_eq!(ask(trng::FEATURES, id, &RANDOM), code(-1), "{id:x}");
    }
    assert_eq!(ask(trng::VERSION, 0, &RANDOM), Answer::Return(0x1_0000));
    let uuid = [0x8941_2a45, 0x5b4e_122b, 0xdf71_1db3, 0x4b75_9784];
    assert_eq!(ask(trng::GET_UUID, 0, &RANDOM), Answer::Return4(uuid));
}

#[test]
fn random_bits_are_as_many_as_the_convention_has_room_for() {
    let ask = |id: FunctionId, x1| call(&[u64::from(id.as_u32()), x1, 0, 0, 0], &RANDOM);
    let invalid = Answer::Return4([-2i64 as u64, 0, 0, 0]);
    for (id, most) in [(trng::RND_32, 96), (trng::RND_64, 192)] {
        for bits in 1..=most {
            let wanted = Wanted::new(bits, id == trng::RND_64).expect("so many");
            assert_eq!(ask(id, bits), Answer::Random(wanted));
        }
        for bits in [0, most + 1, 256, u64::from(u32::MAX)] {
            assert_eq!(ask(id, bits), invalid, "{id:x?} {bits}");
        }
    }
    assert_eq!(ask(trng::RND_64, 1 << 32 | 8), invalid);
    assert_eq!(ask(trng::RND_32, 1 << 32 | 8), ask(trng::RND_32, 8), "the argument is W1");
}

const GARBAGE: u64 = 0xdead_beef_0000_0000;

#[test]
fn arguments_are_as_wide_as_the_convention() {
    let on = |target, entry, context| {
        Answer::Power(PowerRequest::CpuOn { target, entry: Ipa::new(entry), context })
    };
    assert_eq!(
        ask(psci::CPU_ON_64, GARBAGE | 1, GARBAGE | 2, GARBAGE | 3),
        on(GARBAGE | 1, GARBAGE | 2, GARBAGE | 3)
    );
    assert_eq!(ask(psci::CPU_ON_32, GARBAGE | 1, GARBAGE | 2, GARBAGE | 3), on(1, 2, 3));

    let suspend =
        |power_state, entry| Answer::Power(PowerRequest::CpuSuspend { power_state, entry: Ipa::new(entry) });
    assert_eq!(ask(psci::CPU_SUSPEND_64, GARBAGE | 1, GARBAGE | 2, 3), suspend(1, GARBAGE | 2));
    assert_eq!(ask(psci::CPU_SUSPEND_32, GARBAGE | 1, GARBAGE | 2, 3), suspend(1, 2));

    let info = |target, level| Answer::Power(PowerRequest::AffinityInfo { target, level });
    assert_eq!(ask(psci::AFFINITY_INFO_64, GARBAGE | 1, GARBAGE | 2, 3), info(GARBAGE | 1, 2));
    assert_eq!(ask(psci::AFFINITY_INFO_32, GARBAGE | 1, GARBAGE | 2, 3), info(1, 2));

    assert_eq!(
        call(&[GARBAGE | 0x8400_0000, 0, 0, 0, 0], &NONE),
        Answer::Return(0x1_0001),
        "the identifier is W0"
    );
}

#[test]
fn calls_without_arguments_are_requests() {
    assert_eq!(ask(psci::CPU_OFF, 1, 2, 3), Answer::Power(PowerRequest::CpuOff));
    assert_eq!(ask(psci::SYSTEM_OFF, 1, 2, 3), Answer::Power(PowerRequest::SystemOff));
    assert_eq!(ask(psci::SYSTEM_RESET, 1, 2, 3), Answer::Power(PowerRequest::SystemReset));
}

#[test]
fn hanok_s_calls_are_decoded() {
    use vmm::calls::{Buffer, WatchdogRequest};
    use vmm::life::Event;
    let ask = |id: FunctionId, x: [u64; 4]| call(&[u64::from(id.as_u32()), x[0], x[1], x[2], x[3]], &NONE);
    let own = |id, x, wanted: Request| assert_eq!(request(id, x), wanted);
    let buffer = |at, size| Buffer { at: Ipa::new(at), size };
    own(hanok::IDENTITY, [1, 2, 3, 4], Request::Identity);
    assert_eq!(ask(hanok::YIELD, [1, 2, 3, 4]), Answer::Yield);
    own(hanok::CRASH, [1, 2, 3, 4], Request::Crash);
    own(hanok::CONSOLE_WRITE, [8, 2, 3, 4], Request::ConsoleWrite(buffer(8, 2)));
    own(hanok::CONSOLE_READ, [16, 2, 3, 4], Request::ConsoleRead(buffer(16, 2)));
    own(hanok::DOORBELL, [GARBAGE | 5, 2, 3, 4], Request::Doorbell(5));
    for (id, event) in [
        (hanok::VM_START, Event::Start),
        (hanok::VM_STOP, Event::Stop),
        (hanok::VM_PAUSE, Event::Pause),
        (hanok::VM_RESUME, Event::Resume),
        (hanok::VM_RESTART, Event::Restart),
    ] {
        own(id, [GARBAGE | 7, 0, 0, 0], Request::Control(7, event));
    }
    own(hanok::VM_INFO, [7, 8, 9, 0], Request::VmInfo(7, buffer(8, 9)));
    own(hanok::VCPU_INFO, [7, 3, 8, 9], Request::VcpuInfo(7, 3, buffer(8, 9)));
    own(hanok::VM_CRASH, [7, 8, 9, 0], Request::CrashReport(7, buffer(8, 9)));
    own(hanok::HISTORY, [7, 6, 8, 9], Request::History { by: Some(7), position: 6, buffer: buffer(8, 9) });
    let log = u64::from(hanok::LOG);
    own(hanok::HISTORY, [log, 6, 8, 9], Request::History { by: None, position: 6, buffer: buffer(8, 9) });
    own(hanok::FOCUS, [7, 0, 0, 0], Request::Focus(7));
    own(hanok::BOARD_INFO, [8, 9, 0, 0], Request::BoardInfo(buffer(8, 9)));
    for (x, request) in [
        ([0, 9], WatchdogRequest::Limits),
        ([1, 9], WatchdogRequest::SetTimeout(9)),
        ([2, 0], WatchdogRequest::Enable(false)),
        ([GARBAGE | 2, GARBAGE | 1], WatchdogRequest::Enable(true)),
        ([3, 9], WatchdogRequest::Feed),
        ([4, 9], WatchdogRequest::TimeLeft),
    ] {
        own(hanok::WATCHDOG, [x[0], x[1], 0, 0], Request::Watchdog(request));
    }
    for (id, x) in [
        (hanok::WATCHDOG, [2, 2, 0, 0]),
        (hanok::WATCHDOG, [5, 0, 0, 0]),
        (hanok::CONSOLE_WRITE, [4, 1, 0, 0]),
        (hanok::VCPU_INFO, [0, 0, 12, 8]),
    ] {
        assert_eq!(ask(id, x), code(hanok::INVALID_PARAMETERS), "{id:x?} {x:?}");
    }
}

#[test]
fn hanok_s_features_tell_of_its_own_service_alone() {
    for row in CALLS {
        for id in row.ids {
            let own = id.owner() == hanok::FEATURES.owner();
            let answer = ask(hanok::FEATURES, u64::from(id.as_u32()), 0, 0);
            assert_eq!(answer, code(if own { 0 } else { -1 }), "{}", row.name);
        }
    }
    assert_eq!(ask(hanok::FEATURES, 0x8600_0007, 0, 0), code(-1));
}

#[test]
fn what_concerns_others_takes_a_right() {
    use abi::hanok::right::{CONSOLE, CONTROL, STATISTICS};
    for (number, right) in [
        (hanok::IDENTITY, 0),
        (hanok::CONSOLE_WRITE, 0),
        (hanok::WATCHDOG, 0),
        (hanok::VM_START, CONTROL),
        (hanok::VM_STOP, CONTROL),
        (hanok::VM_PAUSE, CONTROL),
        (hanok::VM_RESUME, CONTROL),
        (hanok::VM_RESTART, CONTROL),
        (hanok::BOARD_INFO, STATISTICS),
        (hanok::VM_INFO, STATISTICS),
        (hanok::VCPU_INFO, STATISTICS),
        (hanok::VM_CRASH, STATISTICS),
        (hanok::HISTORY, CONSOLE),
        (hanok::FOCUS, CONSOLE),
    ] {
        let request = request(number, [0; 4]);
        assert_eq!(request.right(), right, "{request:?}");
    }
    assert_eq!(request(hanok::HISTORY, [hanok::LOG.into(), 0, 0, 0]).right(), STATISTICS);
}

/// The table of the reference, made from the one that decides.
fn table() -> String {
    let mut text =
        String::from("| Call | Identifier | Arguments | Results | Errors |\n|---|---|---|---|---|\n");
    for row in CALLS {
        let ids: Vec<_> = row.ids.iter().map(|id| format!("`{:08X}`", id.as_u32())).collect();
        let cells = [row.name, &ids.join(", "), row.arguments, row.results, row.errors];
        let cells = cells.map(|cell| if cell.is_empty() { "none" } else { cell });
        writeln!(text, "| {} |", cells.join(" | ")).unwrap();
    }
    text
}

#[test]
fn the_reference_shows_this_table() {
    let reference = include_str!("../../../docs/hypercalls.md");
    assert!(reference.contains(&table()), "docs/hypercalls.md lacks this table:\n\n{}", table());
}

proptest! {
    #[test]
    fn an_identifier_outside_the_table_is_unknown(
        id in prop_oneof![any::<u32>(), (0x8000_0000_u32..0x8000_0010), (0x8400_0000_u32..0x8400_0060),
            (0xc400_0000_u32..0xc400_0060), (0x8600_ff00_u32..0x8600_ff10), (0x8600_0000_u32..0x8600_0030),
            (0xc600_0000_u32..0xc600_0030)],
        x in any::<[u64; 4]>(),
    ) {
        let offered = CALLS.iter().any(|row| row.ids.contains(&FunctionId::from_u32(id)));
        let x = [u64::from(id), x[0], x[1], x[2], x[3]];
        if let Some(Ok(Some(_))) = Call::named(x[0]).map(|call| call.request(&x)) {
            prop_assert!(offered);
            return Ok(());
        }
        let answer = call(&x, &NONE);
        let depends = id == 0x8000_0002 || (0x8000_3fff..=0x8000_8000).contains(&id);
        let random = TRNG.contains(&FunctionId::from_u32(id));
        if !offered || depends || random {
            prop_assert_eq!(answer, Answer::Return(UNKNOWN));
        } else if ![psci::FEATURES, smccc::ARCH_FEATURES, hanok::FEATURES].map(FunctionId::as_u32).contains(&id) {
            prop_assert_ne!(answer, Answer::Return(UNKNOWN));
        }
    }
}
