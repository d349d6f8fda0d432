//! Any call by HVC or SMC, by any X0 to X4: what is in the table is answered as it says, and all else is unknown.

use abi::FunctionId;
use abi::hanok::{INVALID_PARAMETERS, right};
use vmm::calls::{Buffer, Request};
use vmm::smccc::{Answer, CALLS, Call, Mitigations, Offers, SocId, UNKNOWN, Workaround};

use crate::words::Words;

/// A byte that says what the CPU needs and how X0 is made, then X0 to X4.
pub fn check(bytes: &[u8]) {
    let mut words = Words::new(bytes);
    let shape = words.byte();
    let mut x = [0u64; 5];
    x.iter_mut().for_each(|x| *x = words.word());
    let ids: Vec<FunctionId> = CALLS.iter().flat_map(|row| row.ids.iter().copied()).collect();
    if shape & 0x80 == 0 {
        // One of those that there are: few would be met by chance.
        let id = ids[x[0] as usize % ids.len()];
        x[0] = x[0] & !0xffff_ffff | u64::from(id.as_u32());
    }
    let workaround = |n: u8| match shape >> n & 3 {
        0 => Workaround::NotSupported,
        1 => Workaround::NotNeeded,
        _ => Workaround::Needed,
    };
    let mitigations = Mitigations {
        workaround_1: workaround(0),
        store_bypass_is_safe: shape & 4 != 0,
        workaround_3: workaround(4),
    };
    let soc = (shape & 8 != 0).then_some(SocId { version: 0x7fff_ffff, revision: 0 });
    let offers = Offers { mitigations, soc, random: shape & 0x40 != 0 };
    let id = FunctionId::from_x0(x[0]);
    let rows = CALLS.iter().filter(|row| row.ids.contains(&id)).count();
    let call = Call::named(x[0]);
    assert_eq!(rows, usize::from(call.is_some()), "{id:?}");
    // SMCCC 2.5: what is offered are fast calls without reserved bits.
    let Some(call) = call else { return };
    assert!(id.is_fast() && id.reserved_bits() == 0, "{id:?}");
    check_request(call, id, &x);
    check_answer(call, id, &x, &offers);
}

/// With something else above each W register.
fn with_other_upper_halves(x: &[u64; 5]) -> [u64; 5] {
    x.map(|x| x ^ 0x5a5a_a5a5 << 32)
}

fn check_answer(call: Call, id: FunctionId, x: &[u64; 5], offers: &Offers) {
    let answer = call.answer(x, offers);
    assert_eq!(answer, call.answer(x, offers));
    if let Some(at_once) = call.at_once() {
        assert_eq!(answer, at_once);
        assert_eq!(call.request(x), Ok(None), "{call:?} is answered at once, and asks for something");
    }
    if !id.is_64bit() && !matches!(call, Call::HanokRevision) {
        assert_eq!(answer, call.answer(&with_other_upper_halves(x), offers), "{call:?}");
    }
    match answer {
        // A result, or an error, of 32 bits sign-extended.
        Answer::Return(value) => assert!(value as i64 >= -9 && value as i64 <= 0xffff_ffff, "{value:#x}"),
        // X2 and X3 of a call that gives two values are the caller's.
        Answer::Return4(values) if matches!(call, Call::HanokRevision) => assert_eq!(values[2..], x[2..4]),
        Answer::Random(wanted) => {
            assert!(offers.random, "{wanted:?}");
            assert!(x[1] as u32 != 0 && x[1] as u32 <= if id.is_64bit() { 192 } else { 96 }, "{wanted:?}");
        }
        _ => {}
    }
}

fn check_request(call: Call, id: FunctionId, x: &[u64; 5]) {
    let request = call.request(x);
    assert_eq!(request, call.request(x));
    if !id.is_64bit() {
        assert_eq!(request, call.request(&with_other_upper_halves(x)), "{call:?}");
    }
    let request = match request {
        Ok(Some(request)) => request,
        Ok(None) => return,
        Err(code) => return assert_eq!(code, INVALID_PARAMETERS),
    };
    // It is a request, so it has no other answer.
    assert_eq!(call.answer(x, &Offers::default()), Answer::Return(UNKNOWN), "{call:?}");
    let right = request.right();
    assert!(right == 0 || right.is_power_of_two());
    assert_eq!(right & !(right::CONTROL | right::STATISTICS | right::CONSOLE), 0);
    // What reads or changes another VM takes a right.
    let about_others = matches!(
        request,
        Request::Control(..)
            | Request::VmInfo(..)
            | Request::VcpuInfo(..)
            | Request::CrashReport(..)
            | Request::History { .. }
            | Request::Focus(_)
            | Request::BoardInfo(_)
    );
    assert_eq!(right != 0, about_others, "{request:?}");
    let buffer = match request {
        Request::ConsoleWrite(buffer)
        | Request::ConsoleRead(buffer)
        | Request::BoardInfo(buffer)
        | Request::VmInfo(_, buffer)
        | Request::VcpuInfo(_, _, buffer)
        | Request::CrashReport(_, buffer)
        | Request::History { buffer, .. } => buffer,
        _ => return,
    };
    assert!(buffer.at.as_u64().is_multiple_of(8));
    assert!(x[1..].windows(2).any(|pair| Buffer::new(pair[0], pair[1]) == Ok(buffer)), "{request:x?}");
}
