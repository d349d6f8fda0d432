//! Looking up what a guest has chosen the number of, so that nothing else is reached even ahead of time.
//!
//! A CPU may guess that a number is in bounds, and go on as if it were until it knows (CVE-2017-5753): what it reads meanwhile shows
//! in the caches where the address of a further access depends on it. So the number itself is made one that there is, by
//! arithmetic, which is not guessed. Where a table has a power of two of places, the number's low bits do, and
//! nothing of this is needed.

use core::hint::black_box;

/// What `slice.get(index)` gives.
#[inline(always)]
pub fn get<T>(slice: &[T], index: usize) -> Option<&T> {
    slice.get(self::index(index, slice.len())?)
}

/// `index` where it is below `length`.
#[inline(always)]
pub fn index(index: usize, length: usize) -> Option<usize> {
    if index < length { Some(clamp(index, length)) } else { None }
}

/// `index` where it is below `length`, else 0. The compiler doesn't know of the index that it is in bounds, so that it can't leave
/// this out.
#[inline(always)]
fn clamp(index: usize, length: usize) -> usize {
    // With both below 2^63, the sign tells. A larger index has the sign itself, and then the sum's says that it isn't below.
    let index = black_box(index);
    let below = index.wrapping_sub(length) & !index;
    index & ((below as isize) >> (isize::BITS - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clamped_index_is_itself_or_the_first() {
        const TOP: usize = 1 << 63;
        for length in [1, 2, 31, 32, 1000, TOP - 1] {
            for index in [0, 1, 2, 30, 31, 32, 999, 1000, 1001, TOP - 2, TOP - 1, TOP, TOP + 1, usize::MAX] {
                assert_eq!(
                    clamp(index, length),
                    if index < length { index } else { 0 },
                    "{index} of {length}"
                );
            }
        }
    }

    #[test]
    fn lookups_are_the_slice_s() {
        let numbers = [3, 5, 8];
        for length in 0..=numbers.len() {
            for index in [0, 1, 2, 3, 4, usize::MAX] {
                let slice = &numbers[..length];
                assert_eq!(get(slice, index), slice.get(index));
            }
        }
    }
}
