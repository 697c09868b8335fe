//! When a step is tried again in place. Activities wait in the database instead: see `workflow.retry_delay`.

use std::time::Duration;

/// Tries of a step before its failure is recorded.
pub(crate) const STEP_TRIES: u32 = 10;
const STEP_BASE: Duration = Duration::from_millis(50);
const STEP_CAP: Duration = Duration::from_secs(5);

/// The pause after the `tries`-th failed try of a step, counted from 1: exponential, full jitter above half.
pub(crate) fn step_pause(tries: u32) -> Duration {
    jittered(exponential(STEP_BASE, STEP_CAP, tries.saturating_sub(1)))
}

/// `base · 2ⁿ`, at most `cap`.
pub(crate) fn exponential(base: Duration, cap: Duration, n: u32) -> Duration {
    base.saturating_mul(1u32.checked_shl(n.min(30)).unwrap_or(u32::MAX)).min(cap)
}

/// Between half of `pause` and all of it.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ten_tries_of_a_step_take_less_than_half_a_minute() {
        let all: Duration = (1..STEP_TRIES).map(|n| exponential(STEP_BASE, STEP_CAP, n - 1)).sum();
        assert!(all < Duration::from_secs(30), "{all:?}");
    }

    proptest! {
        #[test]
        fn a_pause_never_shrinks_and_never_passes_its_cap(n in 0u32..200) {
            let (base, cap) = (Duration::from_millis(50), Duration::from_secs(5));
            prop_assert!(exponential(base, cap, n) <= exponential(base, cap, n + 1));
            prop_assert!(exponential(base, cap, n) <= cap);
            let pause = jittered(exponential(base, cap, n));
            prop_assert!(pause <= cap && pause >= base / 2);
        }
    }
}
