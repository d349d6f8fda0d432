//! The calls that a guest makes by HVC and SMC: one table says which there are, everything else is NOT_SUPPORTED.
//!
//! [`Call::answer`] answers what needs no state of the VM, or says what to do; [`Call::request`] decodes Hanok's own calls. Both instructions answer alike;
//! the caller passes on only those with an immediate of 0, as the convention has no others, and answers the rest with
//! [`UNKNOWN`]. PSCI's effects are in [`crate::psci`]. See `docs/hypercalls.md`, whose table is this one.

use crate::calls::{Buffer, Request, WatchdogRequest};
use crate::layout::Ipa;
use crate::life::Event;
use crate::psci::PowerRequest;
use crate::trng::{INVALID, Wanted};
use abi::smccc::{
    INVALID_PARAMETER, NOT_REQUIRED, NOT_SUPPORTED, SUCCESS, WORKAROUND_CALLABLE, WORKAROUND_NEEDED,
};
use abi::{FunctionId, hanok, psci, pv_time, smccc, trng};

/// X0 after an unknown call: -1, sign-extended to 64 bits for both conventions. W0, which is all that a caller of the
/// 32-bit convention may look at, is -1 too.
pub const UNKNOWN: u64 = NOT_SUPPORTED as u64;

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Put this into X0. X1 to X17 stay as they are.
    Return(u64),
    /// Put these into X0 to X3.
    Return4([u64; 4]),
    /// Put 0 into X0, and let other vCPUs that share the CPU go first.
    Yield,
    /// Hand this to the VM's [`crate::psci::PowerStates`].
    Power(PowerRequest),
    /// About the calling vCPU's stolen time (DEN0057): [`UNKNOWN`] where its VM has no record of that.
    StolenTime(StolenTime),
    /// Put random bits into X0 to X3, as [`Wanted::answer`] has them.
    Random(Wanted),
}

/// What a guest asks about its stolen time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StolenTime {
    /// Whether there is a record: 0.
    Feature,
    /// The record's guest address ([`crate::stolen_time`]).
    Address,
}

/// What there is to say of one workaround on the physical CPU that the calling vCPU runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Workaround {
    /// There's nothing to call, or nothing is known: not offered to the guest.
    #[default]
    NotSupported,
    /// The CPU isn't affected.
    NotNeeded,
    /// The CPU is affected, and firmware or EL2 can carry out the mitigation. To guests: EL2 does so on each exit, of which their call is one.
    Needed,
}

/// What the workarounds' discovery tells a guest ([`crate::mitigations`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mitigations {
    /// `SMCCC_ARCH_WORKAROUND_1`.
    pub workaround_1: Workaround,
    /// The CPU doesn't need `SMCCC_ARCH_WORKAROUND_2`, or it is on for good.
    pub store_bypass_is_safe: bool,
    /// `SMCCC_ARCH_WORKAROUND_3`.
    pub workaround_3: Workaround,
}

/// What firmware says the board is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocId {
    /// `SMCCC_ARCH_SOC_ID`, type 0: the manufacturer's JEP-106 code and its number for the SoC.
    pub version: u32,
    /// Type 1: its revision.
    pub revision: u32,
}

/// What calls depend on that isn't the same everywhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offers {
    /// On the physical CPU that the calling vCPU runs on.
    pub mitigations: Mitigations,
    /// Where firmware tells it.
    pub soc: Option<SocId>,
    /// There are random numbers for the VM: elsewhere, the calls for them are unknown.
    pub random: bool,
}

/// A row of the call table, as the reference shows it.
#[derive(Debug)]
pub struct Row {
    /// Name in its specification.
    pub name: &'static str,
    /// Identifiers: of the 32-bit convention, the 64-bit one, or both in this order.
    pub ids: &'static [FunctionId],
    /// Arguments, from X1 (or W1) on.
    pub arguments: &'static str,
    /// Results, from X0 (or W0) on.
    pub results: &'static str,
    /// Errors, in X0 (or W0).
    pub errors: &'static str,
}

// The table makes both the decoder and the rows for the reference, so that neither can lack what the other has.
macro_rules! calls {
    ($(
        $call:ident, $name:literal, [$($id:path),+],
        $arguments:literal, $results:literal, $errors:literal;
    )*) => {
        /// A call that is offered.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(missing_docs, reason = "the table has their names")]
        pub enum Call { $($call),* }

        impl Call {
            /// The call with this identifier. The table holds whole identifiers, so reserved bits, yielding calls and
            /// the wrong convention fall out here.
            #[inline(always)]
            const fn decode(id: FunctionId) -> Option<Self> {
                match id {
                    $($($id)|+ => Some(Self::$call),)*
                    _ => None,
                }
            }

            /// The call with this [number](Self::number).
            #[inline]
            pub fn numbered(number: u64) -> Option<Self> {
                const ALL: &[Call] = &[$(Call::$call),*];
                ALL.get(number as usize).copied()
            }
        }

        /// Every call that is offered.
        pub const CALLS: &[Row] = &[$(
            Row { name: $name, ids: &[$($id),+], arguments: $arguments, results: $results, errors: $errors },
        )*];
    };
}

calls! {
    SmcccVersion, "SMCCC_VERSION", [smccc::VERSION],
        "", "0x10002: version 1.2", "";
    ArchFeatures, "SMCCC_ARCH_FEATURES", [smccc::ARCH_FEATURES],
        "identifier of an Arm Architecture call",
        "0: there; workarounds: 0 (`_1`, `_3`): there and needed on this CPU, 1: there and not needed, -2 (`_2`): not needed",
        "NOT_SUPPORTED (-1): not there";
    SocIdentity, "SMCCC_ARCH_SOC_ID", [smccc::ARCH_SOC_ID],
        "0: version, 1: revision", "as the board's firmware says",
        "INVALID_PARAMETER (-3): another type; NOT_SUPPORTED (-1): firmware doesn't say";
    Workaround1, "SMCCC_ARCH_WORKAROUND_1", [smccc::ARCH_WORKAROUND_1],
        "", "0", "NOT_SUPPORTED (-1): discovery says so";
    Workaround3, "SMCCC_ARCH_WORKAROUND_3", [smccc::ARCH_WORKAROUND_3],
        "", "0", "NOT_SUPPORTED (-1): discovery says so";
    PsciVersion, "PSCI_VERSION", [psci::VERSION],
        "", "0x10001: version 1.1", "";
    CpuSuspend, "CPU_SUSPEND", [psci::CPU_SUSPEND_32, psci::CPU_SUSPEND_64],
        "power state (original format); entry point; context",
        "0 after an interrupt; every state is entered as a standby",
        "INVALID_PARAMETERS (-2): reserved bit in the power state; INVALID_ADDRESS (-9): power-down with an entry point outside RAM";
    CpuOff, "CPU_OFF", [psci::CPU_OFF],
        "", "doesn't return", "";
    CpuOn, "CPU_ON", [psci::CPU_ON_32, psci::CPU_ON_64],
        "target affinity; entry point; context, which arrives in X0",
        "0: it will start",
        "INVALID_PARAMETERS (-2): no such CPU, or reserved bit; ALREADY_ON (-4); ON_PENDING (-5); INVALID_ADDRESS (-9): entry point outside RAM or not a multiple of 4";
    AffinityInfo, "AFFINITY_INFO", [psci::AFFINITY_INFO_32, psci::AFFINITY_INFO_64],
        "target affinity; lowest affinity level, 0 to 3",
        "0: on; 1: off; 2: to start. Above level 0, on if any CPU of the instance is",
        "INVALID_PARAMETERS (-2): no such CPU or instance, reserved bit, level above 3";
    MigrateInfoType, "MIGRATE_INFO_TYPE", [psci::MIGRATE_INFO_TYPE],
        "", "2: no trusted OS to migrate", "";
    SystemOff, "SYSTEM_OFF", [psci::SYSTEM_OFF],
        "", "doesn't return; stops this VM", "";
    SystemReset, "SYSTEM_RESET", [psci::SYSTEM_RESET],
        "", "doesn't return; starts this VM afresh", "";
    PsciFeatures, "PSCI_FEATURES", [psci::FEATURES],
        "identifier of a PSCI call, or SMCCC_VERSION",
        "0: there (for CPU_SUSPEND: original power state format, no OS-initiated mode)",
        "NOT_SUPPORTED (-1): not there";
    PvTimeFeatures, "PV_TIME_FEATURES", [pv_time::FEATURES],
        "identifier of a PV time call", "0: there",
        "NOT_SUPPORTED (-1): not there, as PV_TIME_ST for a VM whose vCPUs are pinned";
    PvTimeStolen, "PV_TIME_ST", [pv_time::STOLEN_TIME],
        "", "guest address of the calling vCPU's record of stolen time",
        "NOT_SUPPORTED (-1): the vCPUs are pinned";
    TrngVersion, "TRNG_VERSION", [trng::VERSION],
        "", "0x10000: version 1.0", "NOT_SUPPORTED (-1): there are no random numbers";
    TrngFeatures, "TRNG_FEATURES", [trng::FEATURES],
        "identifier of a TRNG call", "0: there", "NOT_SUPPORTED (-1): not there, as all of them without random numbers";
    TrngUuid, "TRNG_GET_UUID", [trng::GET_UUID],
        "", "the UUID 452a4189-2b12-4e5b-b31d-71df8497754b in W0 to W3, as Hanok's call UID has its own",
        "NOT_SUPPORTED (-1): there are no random numbers";
    TrngRandom, "TRNG_RND", [trng::RND_32, trng::RND_64],
        "bits wanted, 1 to 96, or to 192",
        "0; the bits in W1 to W3, or X1 to X3: the lowest ones in W3 or X3, zeros above the last one",
        "INVALID_PARAMETERS (-2): none, or too many; NOT_SUPPORTED (-1): there are no random numbers";
    HanokUid, "Hanok: call UID", [hanok::CALL_UID],
        "", "the UUID ecdcc7bd-8272-4b9f-b39c-18393b011d3d in W0 to W3, four bytes each, the first one lowest", "";
    HanokRevision, "Hanok: revision", [hanok::REVISION],
        "", "1 (major) in W0, 1 (minor) in W1", "";
    HanokFeatures, "Hanok: features", [hanok::FEATURES],
        "identifier of a call of this service", "0: there", "NOT_SUPPORTED (-1): not there";
    HanokIdentity, "Hanok: identity", [hanok::IDENTITY],
        "", "0; the VM's number in W1, the vCPU's in W2, the VM's rights in W3", "";
    HanokYield, "Hanok: yield", [hanok::YIELD],
        "", "0, when others that share the CPU have gone first once", "";
    HanokConsoleWrite, "Hanok: console write", [hanok::CONSOLE_WRITE],
        "buffer; bytes", "bytes taken, 0: there is no room", "INVALID_PARAMETERS (-2)";
    HanokConsoleRead, "Hanok: console read", [hanok::CONSOLE_READ],
        "buffer; bytes", "bytes given, 0: there are none", "INVALID_PARAMETERS (-2)";
    HanokDoorbell, "Hanok: doorbell", [hanok::DOORBELL],
        "number of a channel of the VM's", "0", "INVALID_PARAMETERS (-2): no such channel";
    HanokCrash, "Hanok: crash", [hanok::CRASH],
        "", "doesn't return; this VM has crashed", "";
    HanokVmStart, "Hanok: VM start", [hanok::VM_START],
        "VM", "0: it will", "INVALID_PARAMETERS (-2); DENIED (-3); WRONG_STATE (-4): it runs, or is stopping; BUSY (-5)";
    HanokVmStop, "Hanok: VM stop", [hanok::VM_STOP],
        "VM", "0: it will", "INVALID_PARAMETERS (-2); DENIED (-3); WRONG_STATE (-4): it is off, or stopping; BUSY (-5)";
    HanokVmPause, "Hanok: VM pause", [hanok::VM_PAUSE],
        "VM", "0: it will", "INVALID_PARAMETERS (-2); DENIED (-3); WRONG_STATE (-4): it doesn't run; BUSY (-5)";
    HanokVmResume, "Hanok: VM resume", [hanok::VM_RESUME],
        "VM", "0: it will", "INVALID_PARAMETERS (-2); DENIED (-3); WRONG_STATE (-4): it isn't paused; BUSY (-5)";
    HanokVmRestart, "Hanok: VM restart", [hanok::VM_RESTART],
        "VM", "0: it will", "INVALID_PARAMETERS (-2); DENIED (-3); WRONG_STATE (-4): it is starting, or stopping; BUSY (-5)";
    HanokVmInfo, "Hanok: VM info", [hanok::VM_INFO],
        "VM; buffer; bytes", "bytes written of a `VmRecord`", "INVALID_PARAMETERS (-2); DENIED (-3); BUSY (-5)";
    HanokVcpuInfo, "Hanok: vCPU info", [hanok::VCPU_INFO],
        "VM; vCPU; buffer; bytes", "bytes written of a `VcpuRecord`",
        "INVALID_PARAMETERS (-2); DENIED (-3); BUSY (-5)";
    HanokVmCrash, "Hanok: VM crash report", [hanok::VM_CRASH],
        "VM; buffer; bytes", "bytes written of the last crash's `CrashRecord`, 0: it has not crashed",
        "INVALID_PARAMETERS (-2); DENIED (-3); BUSY (-5)";
    HanokHistory, "Hanok: history", [hanok::HISTORY],
        "VM whose console, or 0xffffffff: Hanok's log; position, 0: the oldest; buffer; bytes",
        "bytes given, 0: there are no more; the position behind them in X1",
        "INVALID_PARAMETERS (-2); DENIED (-3); BUSY (-5)";
    HanokFocus, "Hanok: focus", [hanok::FOCUS],
        "VM", "0: it has the board's console", "INVALID_PARAMETERS (-2); DENIED (-3); BUSY (-5)";
    HanokBoardInfo, "Hanok: board info", [hanok::BOARD_INFO],
        "buffer; bytes", "bytes written of a `BoardRecord`", "INVALID_PARAMETERS (-2); DENIED (-3); BUSY (-5)";
    HanokWatchdog, "Hanok: watchdog", [hanok::WATCHDOG],
        "what (0: limits, 1: set timeout, 2: turn on or off, 3: feed, 4: time left); seconds, or 1 and 0 for on and off",
        "0; the least and the most in W1 and W2, or the seconds left in W1", "INVALID_PARAMETERS (-2)";
}

impl Call {
    /// Its place in the table.
    #[inline]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The call that X0 names; [`UNKNOWN`] answers all that there isn't.
    #[inline(always)]
    pub const fn named(x0: u64) -> Option<Self> {
        Self::decode(FunctionId::from_x0(x0))
    }

    /// The answer, where neither the caller nor its arguments matter.
    #[inline(always)]
    pub const fn at_once(self) -> Option<Answer> {
        Some(match self {
            Self::PsciVersion => Answer::Return(psci::VERSION_1_1 as u64),
            Self::SmcccVersion => Answer::Return(smccc::VERSION_1_2 as u64),
            Self::MigrateInfoType => Answer::Return(psci::MIGRATE_NOT_NEEDED as u64),
            Self::HanokYield => Answer::Yield,
            _ => return None,
        })
    }

    /// Answers a call that is no request, whose X0 to X4 are `x`. Takes no lock and changes nothing.
    pub fn answer(self, x: &[u64; 5], offers: &Offers) -> Answer {
        if let Some(answer) = self.at_once() {
            return answer;
        }
        // Arguments of the 32-bit convention are W registers: what stands above them is not the caller's.
        let is_64bit = FunctionId::from_x0(x[0]).is_64bit();
        let narrow = |argument: u64| if is_64bit { argument } else { argument & u64::from(u32::MAX) };
        let about = FunctionId::from_x0(x[1]);
        match self {
            Self::ArchFeatures => Answer::Return(arch_features(about, offers) as u64),
            Self::SocIdentity => Answer::Return(soc_identity(x[1] as u32, offers.soc)),
            Self::Workaround1 => workaround(offers.mitigations.workaround_1),
            Self::Workaround3 => workaround(offers.mitigations.workaround_3),
            Self::PsciFeatures => Answer::Return(psci_features(about) as u64),
            Self::PvTimeFeatures => pv_time_features(about),
            Self::PvTimeStolen => Answer::StolenTime(StolenTime::Address),
            Self::TrngVersion | Self::TrngFeatures | Self::TrngUuid | Self::TrngRandom if !offers.random => {
                Answer::Return(UNKNOWN)
            }
            Self::TrngVersion => Answer::Return(trng::VERSION_1_0.into()),
            Self::TrngFeatures => Answer::Return(trng_features(about) as u64),
            Self::TrngUuid => Answer::Return4(trng::UUID.map(u64::from)),
            Self::TrngRandom => match Wanted::new(narrow(x[1]), is_64bit) {
                Some(wanted) => Answer::Random(wanted),
                None => Answer::Return4(INVALID),
            },
            Self::HanokUid => Answer::Return4(hanok::UID.map(u64::from)),
            Self::HanokRevision => {
                let (major, minor) = (hanok::REVISION_MAJOR.into(), hanok::REVISION_MINOR.into());
                Answer::Return4([major, minor, x[2], x[3]])
            }
            Self::CpuSuspend => Answer::Power(PowerRequest::CpuSuspend {
                power_state: x[1] as u32,
                entry: Ipa::new(narrow(x[2])),
            }),
            Self::CpuOff => Answer::Power(PowerRequest::CpuOff),
            Self::CpuOn => Answer::Power(PowerRequest::CpuOn {
                target: narrow(x[1]),
                entry: Ipa::new(narrow(x[2])),
                context: narrow(x[3]),
            }),
            Self::AffinityInfo => {
                Answer::Power(PowerRequest::AffinityInfo { target: narrow(x[1]), level: x[2] as u32 })
            }
            Self::SystemOff => Answer::Power(PowerRequest::SystemOff),
            Self::SystemReset => Answer::Power(PowerRequest::SystemReset),
            Self::HanokFeatures => Answer::Return(hanok_features(about) as u64),
            // The rest are requests, and what was answered at once.
            _ => Answer::Return(UNKNOWN),
        }
    }

    /// What one of Hanok's own calls, whose X0 to X4 are `x`, asks for; `None` for other calls. Numbers of VMs, vCPUs and channels are 32 bits
    /// in both conventions.
    ///
    /// # Errors
    /// What X0 becomes.
    #[inline(always)]
    pub fn request(self, x: &[u64; 5]) -> Result<Option<Request>, i64> {
        let &[_, x1, x2, x3, x4] = x;
        let vm = x1 as u32;
        Ok(Some(match self {
            Self::HanokIdentity => Request::Identity,
            Self::HanokConsoleWrite => Request::ConsoleWrite(Buffer::new(x1, x2)?),
            Self::HanokConsoleRead => Request::ConsoleRead(Buffer::new(x1, x2)?),
            Self::HanokDoorbell => Request::Doorbell(x1 as u32),
            Self::HanokCrash => Request::Crash,
            Self::HanokVmStart => Request::Control(vm, Event::Start),
            Self::HanokVmStop => Request::Control(vm, Event::Stop),
            Self::HanokVmPause => Request::Control(vm, Event::Pause),
            Self::HanokVmResume => Request::Control(vm, Event::Resume),
            Self::HanokVmRestart => Request::Control(vm, Event::Restart),
            Self::HanokVmInfo => Request::VmInfo(vm, Buffer::new(x2, x3)?),
            Self::HanokVcpuInfo => Request::VcpuInfo(vm, x2 as u32, Buffer::new(x3, x4)?),
            Self::HanokVmCrash => Request::CrashReport(vm, Buffer::new(x2, x3)?),
            Self::HanokHistory => {
                let by = if vm == hanok::LOG { None } else { Some(vm) };
                Request::History { by, position: x2, buffer: Buffer::new(x3, x4)? }
            }
            Self::HanokFocus => Request::Focus(vm),
            Self::HanokBoardInfo => Request::BoardInfo(Buffer::new(x1, x2)?),
            Self::HanokWatchdog => Request::Watchdog(WatchdogRequest::decode(x1 as u32, x2 as u32)?),
            _ => return Ok(None),
        }))
    }
}

/// Whether a call of Hanok's own service is there.
fn hanok_features(id: FunctionId) -> i64 {
    let is_own = id.owner() == hanok::FEATURES.owner();
    if is_own && Call::decode(id).is_some() { hanok::SUCCESS } else { hanok::NOT_SUPPORTED }
}

/// DEN0057, PV_TIME_FEATURES.
fn pv_time_features(id: FunctionId) -> Answer {
    match Call::decode(id) {
        Some(Call::PvTimeFeatures) => Answer::Return(pv_time::SUCCESS as u64),
        Some(Call::PvTimeStolen) => Answer::StolenTime(StolenTime::Feature),
        _ => Answer::Return(pv_time::NOT_SUPPORTED as u64),
    }
}

/// DEN0098, TRNG_FEATURES, where there are random numbers.
fn trng_features(id: FunctionId) -> i64 {
    match Call::decode(id) {
        Some(Call::TrngVersion | Call::TrngFeatures | Call::TrngUuid | Call::TrngRandom) => trng::SUCCESS,
        _ => trng::NOT_SUPPORTED,
    }
}

/// DEN0028, SMCCC_ARCH_FEATURES: for calls of the Arm Architecture range, and whether there are PV time calls.
fn arch_features(id: FunctionId, offers: &Offers) -> i64 {
    let mitigations = &offers.mitigations;
    match Call::decode(id) {
        // DEN0057: whether there are PV time calls at all is asked here.
        Some(Call::SmcccVersion | Call::ArchFeatures | Call::PvTimeFeatures) => SUCCESS,
        Some(Call::SocIdentity) if offers.soc.is_some() => SUCCESS,
        Some(Call::Workaround1) => workaround_feature(mitigations.workaround_1),
        Some(Call::Workaround3) => workaround_feature(mitigations.workaround_3),
        // Not required, it isn't there to be called.
        None if id == smccc::ARCH_WORKAROUND_2 && mitigations.store_bypass_is_safe => NOT_REQUIRED,
        _ => NOT_SUPPORTED,
    }
}

fn workaround_feature(workaround: Workaround) -> i64 {
    match workaround {
        Workaround::NotSupported => NOT_SUPPORTED,
        Workaround::NotNeeded => WORKAROUND_CALLABLE,
        Workaround::Needed => WORKAROUND_NEEDED,
    }
}

/// Workarounds 1 and 3: callable where they aren't needed, to no effect; where they are, this exit has done it.
fn workaround(workaround: Workaround) -> Answer {
    Answer::Return(match workaround {
        Workaround::NotSupported => UNKNOWN,
        Workaround::NotNeeded | Workaround::Needed => SUCCESS as u64,
    })
}

/// DEN0028, SMCCC_ARCH_SOC_ID.
fn soc_identity(kind: u32, soc: Option<SocId>) -> u64 {
    match (soc, kind) {
        (None, _) => UNKNOWN,
        (Some(soc), 0) => soc.version.into(),
        (Some(soc), 1) => soc.revision.into(),
        (Some(_), _) => INVALID_PARAMETER as u64,
    }
}

/// DEN0022, PSCI_FEATURES. SMCCC_VERSION is the one call of another service that it tells of.
fn psci_features(id: FunctionId) -> i64 {
    match Call::decode(id) {
        Some(Call::CpuSuspend) => psci::SUSPEND_ORIGINAL_FORMAT,
        Some(
            Call::SmcccVersion
            | Call::PsciVersion
            | Call::CpuOff
            | Call::CpuOn
            | Call::AffinityInfo
            | Call::MigrateInfoType
            | Call::SystemOff
            | Call::SystemReset
            | Call::PsciFeatures,
        ) => psci::SUCCESS,
        _ => psci::NOT_SUPPORTED,
    }
}
