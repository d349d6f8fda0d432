//! A guest's debug registers while another vCPU has the CPU.

use crate::cpu;
use crate::sysreg::{read_sysreg, write_sysreg};

/// Breakpoints and watchpoints of a guest, values and controls; its claim tags; and its side of the debug channel, which
/// is its own where nothing traps it. A guest that never touches them is spared their 64
/// registers at each change of vCPUs.
#[derive(Default)]
pub struct Breakpoints {
    breakpoints: [[u64; 2]; 16],
    watchpoints: [[u64; 2]; 16],
    claim: u64,
    channel: [u64; 3],
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
        $place = [read_sysreg!($value), read_sysreg!($control)]
    };
}

macro_rules! load_debug {
    ($value:expr, $control:expr, $place:expr) => {{
        let [value, control] = $place;
        write_sysreg!($value, value);
        write_sysreg!($control, control);
    }};
}

impl Breakpoints {
    /// Takes them out of this CPU.
    pub fn save(&mut self) {
        let (breakpoints, watchpoints) = cpu::breakpoints();
        each_debug_register!(save_debug, self.breakpoints, breakpoints, 4, 5);
        each_debug_register!(save_debug, self.watchpoints, watchpoints, 6, 7);
        // DBGCLAIMCLR_EL1 reads as the tags that are set.
        self.claim = read_sysreg!("S2_0_C7_C9_6");
        if !cpu::keeps_debug_channel() {
            // MDCCINT_EL1, OSDTRRX_EL1, OSDTRTX_EL1.
            self.channel =
                [read_sysreg!("S2_0_C0_C2_0"), read_sysreg!("S2_0_C0_C0_2"), read_sysreg!("S2_0_C0_C3_2")];
        }
    }

    /// Puts them into this CPU.
    pub fn load(&self) {
        let (breakpoints, watchpoints) = cpu::breakpoints();
        each_debug_register!(load_debug, self.breakpoints, breakpoints, 4, 5);
        each_debug_register!(load_debug, self.watchpoints, watchpoints, 6, 7);
        write_sysreg!("S2_0_C7_C9_6", 0xff); // DBGCLAIMCLR_EL1
        write_sysreg!("S2_0_C7_C8_6", self.claim); // DBGCLAIMSET_EL1
        if !cpu::keeps_debug_channel() {
            let [interrupts, receive, transmit] = self.channel;
            write_sysreg!("S2_0_C0_C2_0", interrupts);
            write_sysreg!("S2_0_C0_C0_2", receive);
            write_sysreg!("S2_0_C0_C3_2", transmit);
        }
    }
}
