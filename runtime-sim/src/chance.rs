//! Draws from the one generator of the running simulation.

use std::ops::Range;

use madsim::rand::RngCore;

/// 64 bits of chance.
pub(crate) fn draw() -> u64 {
    madsim::rand::thread_rng().next_u64()
}

/// A number below `bound`, or 0 if the bound is 0. The bias of the remainder is of no concern here.
pub(crate) fn below(bound: u64) -> u64 {
    if bound == 0 { 0 } else { draw() % bound }
}

/// A number of the range, or its start if the range is empty.
pub(crate) fn within(range: &Range<u64>) -> u64 {
    range.start + below(range.end.saturating_sub(range.start))
}

/// Whether something that happens `ppm` times in a million happens now. Draws nothing for never and always.
pub(crate) fn hits(ppm: u32) -> bool {
    match ppm {
        0 => false,
        1_000_000.. => true,
        _ => below(1_000_000) < u64::from(ppm),
    }
}
