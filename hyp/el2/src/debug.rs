//! A vCPU's debug registers: in the CPU while the guest uses them, in memory otherwise. What there is, and what a guest's OS lock
//! does to it, is `vmm::debug`'s.

use aarch64_cpu::registers::MDSCR_EL1;
use tock_registers::interfaces::{Readable, Writeable};
use vmm::debug::{self, Answer, Debug, Pair, Register};

use crate::cpu;
use crate::exit::Trapped;
use crate::sysreg::{read_sysreg, write_sysreg};

/// Those of one vCPU, which has used them. MDSCR_EL1 is with the registers of EL1. A guest that looks for no breakpoint and no watchpoint is spared
/// the 64 registers at each change of vCPUs.
pub struct DebugRegisters {
    registers: Debug,
    /// The guest's side of the debug channel, which is its own where nothing traps it: MDCCINT_EL1, OSDTRRX_EL1, OSDTRTX_EL1.
    channel: [u64; 3],
    /// While the vCPU is loaded: they are in the CPU.
    live: bool,
}

/// Does something with each debug register of one kind that this CPU has: `$do!(value name, control name, place)`.
macro_rules! each_debug_register {
    ($do:ident, $values:expr, $count:expr, $value:literal, $control:literal) => {
        each_debug_register!($do, $values, $count, $value, $control,
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    ($do:ident, $values:expr, $count:expr, $value:literal, $control:literal, $($n:literal)*) => {
        $(if $n < $count {
            $do!(concat!("S2_0_C0_C", $n, "_", $value), concat!("S2_0_C0_C", $n, "_", $control), $values[$n]);
        })*
    };
}

macro_rules! save_debug {
    ($value:expr, $control:expr, $place:expr) => {
        $place = Pair { value: read_sysreg!($value), control: read_sysreg!($control) }
    };
}

macro_rules! load_debug {
    ($value:expr, $control:expr, $place:expr) => {{
        let Pair { value, control } = $place;
        write_sysreg!($value, value);
        write_sysreg!($control, control);
    }};
}

impl DebugRegisters {
    /// As after a reset.
    pub fn new() -> Self {
        let (breakpoints, watchpoints) = cpu::breakpoints();
        Self { registers: Debug::new(breakpoints, watchpoints), channel: [0; 3], live: false }
    }

    /// An access of the guest, which is loaded, that has trapped: a write of `value` or a read.
    pub fn access(&mut self, register: Register, value: Option<u64>) -> Trapped {
        match self.registers.access(register, value) {
            // There, nothing of them traps.
            Answer::GoLive if self.live => return Trapped::Undefined,
            Answer::GoLive => {
                self.go_live();
                return Trapped::Again;
            }
            Answer::Close => {
                self.retire();
                let mdscr = MDSCR_EL1.get();
                self.registers.close(mdscr);
                MDSCR_EL1.set(debug::without_events(mdscr));
            }
            Answer::Open(mdscr) => {
                MDSCR_EL1.set(mdscr);
                self.load();
            }
            Answer::Done => {}
            // DBGAUTHSTATUS_EL1.
            Answer::Own => return Trapped::Value(read_sysreg!("S2_0_C7_C14_6")),
            Answer::Value(value) => return Trapped::Value(value),
            Answer::Undefined => return Trapped::Undefined,
        }
        Trapped::Done
    }

    /// The vCPU is taken off its CPU.
    pub fn save(&mut self) {
        if self.live {
            self.read();
            self.live = false;
        }
    }

    /// The vCPU is loaded, with its MDSCR_EL1: where that asks for breakpoints, they have to be there. Whatever else of these registers it
    /// uses, it says so by a trap.
    pub fn load(&mut self) {
        if debug::needs_breakpoints(MDSCR_EL1.get()) {
            self.go_live();
        }
    }

    /// Into the CPU.
    fn go_live(&mut self) {
        self.write();
        self.live = true;
        cpu::trap_debug_registers(false);
    }

    /// Out of the CPU.
    fn retire(&mut self) {
        self.save();
        cpu::trap_debug_registers(true);
    }

    fn read(&mut self) {
        let (breakpoints, watchpoints) = cpu::breakpoints();
        each_debug_register!(save_debug, self.registers.breakpoints, breakpoints, 4, 5);
        each_debug_register!(save_debug, self.registers.watchpoints, watchpoints, 6, 7);
        // DBGCLAIMCLR_EL1 reads as the tags that are set.
        self.registers.claim = read_sysreg!("S2_0_C7_C9_6");
        if !cpu::keeps_debug_channel() {
            self.channel =
                [read_sysreg!("S2_0_C0_C2_0"), read_sysreg!("S2_0_C0_C0_2"), read_sysreg!("S2_0_C0_C3_2")];
        }
    }

    fn write(&self) {
        let (breakpoints, watchpoints) = cpu::breakpoints();
        each_debug_register!(load_debug, self.registers.breakpoints, breakpoints, 4, 5);
        each_debug_register!(load_debug, self.registers.watchpoints, watchpoints, 6, 7);
        write_sysreg!("S2_0_C7_C9_6", 0xff); // DBGCLAIMCLR_EL1
        write_sysreg!("S2_0_C7_C8_6", self.registers.claim); // DBGCLAIMSET_EL1
        if !cpu::keeps_debug_channel() {
            let [interrupts, receive, transmit] = self.channel;
            write_sysreg!("S2_0_C0_C2_0", interrupts);
            write_sysreg!("S2_0_C0_C0_2", receive);
            write_sysreg!("S2_0_C0_C3_2", transmit);
        }
    }
}
