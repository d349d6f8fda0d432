//! The scheduler of a CPU, driven through simulated time: what runs is recorded, and the promises are checked on the
//! record alone.

mod admission;
mod fair;
mod pinned;
mod reserved;
mod sim;

/// Ticks that a member with a weight runs at a stretch while another is ready.
const SLICE: u64 = 100;
