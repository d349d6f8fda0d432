//! Instructions in a row that a CPU's erratum makes dangerous, in any ELF file of AArch64 code.

use std::path::Path;

use crate::{Outcome, code};

/// Where an ELF file has the sequence of Cortex-A53's erratum 843419: an ADRP in a page's last two words, a load or store, at
/// most one more instruction that doesn't branch, and a load or store of one register by the ADRP's, with an unsigned offset.
///
/// # Errors
/// When it can't be read, or has no code.
pub fn find_843419(path: &Path) -> Outcome<Vec<u64>> {
    let segments = code::executable(path)?;
    Ok(segments.iter().flat_map(|(start, code)| sequences(*start, code)).collect())
}

fn sequences(start: u64, code: &[u32]) -> impl Iterator<Item = u64> {
    (start..).step_by(4).zip(code.windows(3).enumerate()).filter_map(|(at, (index, window))| {
        let [adrp, second, third] = *window else { return None };
        let fourth = code.get(index + 3).copied();
        let register = adrp & 0x1f;
        let uses = |word: u32| is_load_or_store_unsigned(word) && word >> 5 & 0x1f == register;
        let hit = at & 0xfff >= 0xff8
            && adrp & 0x9f00_0000 == 0x9000_0000
            && is_load_or_store(second)
            && (uses(third) || !is_branch(third) && fourth.is_some_and(uses));
        hit.then_some(at)
    })
}

/// Loads and stores, and structures of them: bits 27 and 25 are 1 and 0.
fn is_load_or_store(word: u32) -> bool {
    word & 0x0a00_0000 == 0x0800_0000
}

/// Of one register, at an unsigned offset from another one.
fn is_load_or_store_unsigned(word: u32) -> bool {
    word & 0x3b00_0000 == 0x3900_0000
}

/// Branches, exceptions and system instructions: bits 28 to 26 are 101.
fn is_branch(word: u32) -> bool {
    word >> 26 & 0b111 == 0b101
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADRP_X0: u32 = 0x9000_0000;
    const STR_X1_SP: u32 = 0xf900_03e1;
    const ADD_X2: u32 = 0x8b03_0042;
    const LDR_X4_X0: u32 = 0xf940_0004;
    const LDR_X4_X5: u32 = 0xf940_00a4;
    const RET: u32 = 0xd65f_03c0;

    fn found(start: u64, code: &[u32]) -> Vec<u64> {
        sequences(start, code).collect()
    }

    #[test]
    fn the_sequence_is_found_at_the_end_of_a_page_alone() {
        let four = [ADRP_X0, STR_X1_SP, ADD_X2, LDR_X4_X0];
        assert_eq!(found(0x1ff8, &four), [0x1ff8]);
        assert_eq!(found(0x1ffc, &four), [0x1ffc]);
        assert_eq!(found(0x1ff8, &[ADRP_X0, STR_X1_SP, LDR_X4_X0]), [0x1ff8]);
        for start in [0x1ff4, 0x2000] {
            assert!(found(start, &four).is_empty(), "{start:#x}");
        }
    }

    #[test]
    fn what_breaks_the_sequence_is_no_hit() {
        for code in [
            [ADRP_X0, ADD_X2, STR_X1_SP, LDR_X4_X0],
            [ADRP_X0, STR_X1_SP, RET, LDR_X4_X0],
            [ADRP_X0, STR_X1_SP, ADD_X2, LDR_X4_X5],
            [ADD_X2, STR_X1_SP, ADD_X2, LDR_X4_X0],
        ] {
            assert!(found(0x1ff8, &code).is_empty(), "{code:x?}");
        }
    }
}
