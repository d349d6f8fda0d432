//! `log`: what was said last.

use abi::Speaker;

use crate::host::{Host, Stop};
use crate::text::Plain;

/// Bytes asked for at a time.
const PIECE: usize = 512;
/// The most bytes that are told. Nobody is known to keep more, and who speaks faster than is read here comes to an end.
const MOST: usize = 1 << 20;

/// Prints what is kept of what somebody said, up to now: not what this VM itself says meanwhile.
pub(crate) fn print(host: &mut impl Host, whose: Speaker) -> Result<(), Stop> {
    let end = read(host, whose, |_, _| Ok(()), u64::MAX)?;
    let mut plain = Plain::new();
    read(host, whose, |host, bytes| Ok(plain.print(bytes, host)?), end)?;
    Ok(plain.finish(host)?)
}

/// Reads what is kept, piece by piece, up to this position; the position of its end.
fn read<H: Host>(
    host: &mut H,
    whose: Speaker,
    mut body: impl FnMut(&mut H, &[u8]) -> Result<(), Stop>,
    end: u64,
) -> Result<u64, Stop> {
    let mut position = 0;
    let mut left = MOST;
    while left > 0 && position < end {
        let mut buffer = [0; PIECE];
        let (count, next) = host.history(whose, position, &mut buffer)?;
        let count = count.min(PIECE);
        if count == 0 {
            break;
        }
        // Where the piece goes past the end, what is behind it is new.
        let new = next.saturating_sub(end).min(count as u64) as usize;
        body(host, &buffer[..count - new])?;
        left = left.saturating_sub(count);
        position = next;
    }
    Ok(position)
}
