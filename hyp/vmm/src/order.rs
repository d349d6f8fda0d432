//! Sorting of short lists, in few bytes of code: members of a CPU, VMs of a bundle, devices of a board.
//!
//! The standard library's sorts are made for long lists: each type that they are used with takes 2 to 4 KiB of the image. This one takes
//! time that grows with the square of the length where nothing is in order yet, so it isn't for what a guest can make long.

/// Sorts; equals stay in their order.
pub fn sort_by_key<T, K: Ord>(list: &mut [T], key: impl Fn(&T) -> K) {
    for end in 1..=list.len() {
        let mut part = list.get_mut(..end).unwrap_or_default();
        // The last one sinks to its place among those before it, which are in order.
        while let Some((last, rest)) = part.split_last_mut()
            && let Some(before) = rest.last_mut()
            && key(before) > key(last)
        {
            core::mem::swap(before, last);
            part = rest;
        }
    }
}

/// Sorts numbers, and pairs of them.
pub fn sort<T: Ord + Copy>(list: &mut [T]) {
    sort_by_key(list, |item| *item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn equals_stay_in_their_order(mut list: Vec<(u8, u16)>) {
            let mut expected = list.clone();
            expected.sort_by_key(|(key, _)| *key);
            sort_by_key(&mut list, |(key, _)| *key);
            prop_assert_eq!(list, expected);
        }

        #[test]
        fn numbers_come_in_ascending_order(mut list: Vec<u8>) {
            let mut expected = list.clone();
            expected.sort_unstable();
            sort(&mut list);
            prop_assert_eq!(list, expected);
        }
    }
}
