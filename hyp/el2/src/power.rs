//! Turning the board off or over. By PSCI where the tree has it, for there the firmware may have more to do; else by a
//! device that the tree names, which is EL2's alone.

use platform::power::bcm2835_pm::PowerManager;
use platform::power::{End, psci};
use platform::tree::{Board, Psci, Range};
use spin::Once;

use crate::{console, crash, timer};

/// What turns the board off or over.
enum Switch {
    Psci,
    Bcm2835Pm(Range),
}

/// None, on a board that nothing turns off.
static SWITCH: Once<Switch> = Once::new();

/// Longer than any of them takes, in microseconds.
const PATIENCE: u64 = 100_000;

/// Finds what turns this board off or over. Once.
pub fn init(board: &Board<'_>) {
    let by_psci = (board.psci == Some(Psci::Smc)).then_some(Switch::Psci);
    if let Some(switch) = by_psci.or(board.bcm2835_pm.map(Switch::Bcm2835Pm)) {
        SWITCH.call_once(|| switch);
    }
}

/// Turns the board off or over; where that can't be, says so and stops.
pub fn end(how: End) -> ! {
    let has_begun = match (SWITCH.get(), how) {
        (Some(Switch::Psci), End::Off) => psci::system_off().is_ok(),
        (Some(Switch::Psci), End::Reset) => psci::system_reset().is_ok(),
        (Some(Switch::Bcm2835Pm(registers)), how) => {
            // SAFETY: the tree says that the registers are there. EL2's map has them (`mmu::devices`), the ledger keeps
            // them from every VM, and nothing but this, which runs once, drives them.
            unsafe { PowerManager::new(registers.start.as_u64() as usize) }.end(how);
            true
        }
        (None, _) => false,
    };
    if has_begun {
        let start = timer::now();
        while timer::now().wrapping_sub(start) < timer::ticks(PATIENCE) {}
    }
    console::write_now(match how {
        End::Off => b"hanok: this board can't be turned off by software\r\n",
        End::Reset => b"hanok: this board can't be reset by software\r\n",
    });
    crash::halt()
}
