//! No trap of a guest's can make EL2 panic: what panics are left in the image are in `tests/panics.toml`, each with the reason why
//! it isn't reached.

use tests::{PanicList, panics_from_traps};

use crate::case::Case;

pub fn cases() -> Vec<Case> {
    vec![Case::new("panics", |scenario| {
        let list = PanicList::load()?;
        list.check(&panics_from_traps(&scenario.inputs().elf, &list)?)
    })]
}
