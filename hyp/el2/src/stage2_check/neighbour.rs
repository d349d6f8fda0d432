//! Another CPU, with the same tables loaded: what CPU 0 takes out must be gone from its TLBs too.
//!
//! It sleeps as CPUs do that wait for VMs, is woken by a kick, and does what the mailbox says.

use spin::Mutex;

use super::hardware::{self, Regime};
use super::ranges::{self, Stretch, Wrong};
use crate::percpu::{self, PerCpu, request};
use crate::timer;

/// What it is to do.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Load these tables, stage 1 being on.
    Load {
        /// VTCR_EL2.
        vtcr: u64,
        /// VTTBR_EL2.
        vttbr: u64,
    },
    /// Have every page in the TLB.
    Touch,
    /// Look at these pages.
    Look(Stretch),
    /// Have stage 2 off again.
    Unload,
}

enum Mail {
    Nothing,
    Order(Order),
    Answer(Result<(), Wrong>),
}

static MAIL: Mutex<Mail> = Mutex::new(Mail::Nothing);

/// How long it may take, in seconds: on an emulator, it has to be given the time.
const PATIENCE: u64 = 20;

/// The CPU, if the board has a second one.
pub struct Neighbour(&'static PerCpu);

impl Neighbour {
    /// Looks for one.
    pub fn find() -> Option<Self> {
        percpu::get(1).filter(|cpu| cpu.is_online()).map(Self)
    }

    /// Has it do something, and waits. `None` if it doesn't answer.
    pub fn order(&self, order: Order) -> Option<Result<(), Wrong>> {
        *MAIL.lock() = Mail::Order(order);
        self.0.request(request::SYNC);
        let deadline = timer::now() + PATIENCE * timer::frequency();
        while timer::now() < deadline {
            let mut mail = MAIL.lock();
            if let Mail::Answer(answer) = *mail {
                *mail = Mail::Nothing;
                return Some(answer);
            }
            drop(mail);
            core::hint::spin_loop();
        }
        None
    }
}

/// Sees to the mailbox, on the other CPU.
pub fn serve() {
    let Mail::Order(order) = *MAIL.lock() else { return };
    let answer = match order {
        Order::Load { vtcr, vttbr } => {
            hardware::load(vtcr, vttbr, Regime::On);
            Ok(())
        }
        Order::Touch => {
            ranges::touch_all();
            Ok(())
        }
        Order::Look(stretch) => ranges::look(stretch),
        Order::Unload => {
            hardware::unload();
            Ok(())
        }
    };
    *MAIL.lock() = Mail::Answer(answer);
}
