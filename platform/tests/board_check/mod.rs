//! What must hold of whatever is read from a board's tree, a good one or not.

use devicetree::Tree;
use platform::tree::{Board, BoardError, Gic, Range};

use crate::trees::blob::{BEGIN_NODE, PROP, tokens, word};

/// Checks the blob and, if it is found good, reads it.
pub fn check(blob: &[u8]) {
    let Ok(tree) = Tree::check(blob) else { return };
    // The reader sees every node and property that the blob has.
    let begins = |wanted: u32| tokens(blob).iter().filter(|token| word(token, 0) == wanted).count();
    assert_eq!(tree.nodes().count(), begins(BEGIN_NODE));
    assert_eq!(tree.nodes().flat_map(|node| node.properties()).count(), begins(PROP));
    let (board, outcome) = Board::read_any(&tree);
    assert!(!format!("{board:?}").is_empty());
    check_board(&board);
    match (Board::read(&tree), outcome.and_then(|()| board.check_complete())) {
        (Ok(_), outcome) => assert_eq!(outcome, Ok(())),
        (Err(error), outcome) => {
            check_message(&error);
            assert_eq!(outcome, Err(error));
        }
    }
}

/// It is shown on a line.
fn check_message(error: &BoardError) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains(['\n', '\r', '\x1b']), "{text:?}");
}

/// 52 bits: the end of what physical addresses can be.
const PHYSICAL_END: u64 = 1 << 52;

fn check_board(board: &Board<'_>) {
    let range = |range: Range, what: &str| {
        assert!(range.start.as_u64() < PHYSICAL_END && range.end() <= PHYSICAL_END, "{what}: {range:x?}");
        let (start, end) = range.pages();
        assert!(start <= range.start.as_u64() && end >= range.end());
    };
    assert!(!board.model.contains(char::is_control), "{:?}", board.model);
    board.memory.iter().for_each(|bank| range(*bank, "memory"));
    board.reserved.iter().for_each(|reserved| range(reserved.range, "reserved"));
    board.used().for_each(|used| range(used.registers, used.what));
    board.initrd.into_iter().for_each(|initrd| range(initrd, "initrd"));
    board.rtc.into_iter().for_each(|rtc| range(rtc, "rtc"));
    // Private peripheral interrupts, and the shared ones of devices.
    let is_ppi = |intid: u32| (16..32).contains(&intid);
    if let Some(Gic::V2 { maintenance, .. } | Gic::V3 { maintenance, .. }) = board.gic {
        assert!(is_ppi(maintenance), "maintenance interrupt {maintenance}");
    }
    if let Some(timer) = &board.timer {
        for intid in [timer.physical, timer.virtual_, timer.hypervisor] {
            assert!(is_ppi(intid), "timer interrupt {intid}");
        }
    }
    for uart in &board.uarts {
        range(uart.registers, "uart");
        assert!(uart.interrupt.is_none_or(|intid| (32..1020).contains(&intid)), "{uart:?}");
    }
}
