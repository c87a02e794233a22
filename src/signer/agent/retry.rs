//! How long to wait before an agent that went away is asked again (invariant 9: full jitter).

use std::time::Duration;

/// The bound of the first wait.
const FIRST: Duration = Duration::from_millis(500);
/// The bound of every wait after a while.
const LONGEST: Duration = Duration::from_secs(15);
/// The least wait.
const FLOOR: Duration = Duration::from_millis(50);

/// Failures in a row.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
}

// === impl Retry ===

impl Retry {
    /// It answered.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// It failed once more: `random` in [0, 1) of a bound that doubles each time.
    pub(super) fn failed(&mut self, random: f64) -> Duration {
        let bound = FIRST * (1 << self.failures.min(8));
        self.failures = self.failures.saturating_add(1);
        bound.min(LONGEST).mul_f64(random).max(FLOOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_its_end_and_begins_anew_after_an_answer() {
        let mut retry = Retry::default();
        let waits: Vec<u128> = (0..8).map(|_| retry.failed(1.0).as_millis()).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]);
        assert_eq!(retry.failed(0.0), FLOOR);
        retry.succeeded();
        assert_eq!(retry.failed(1.0), FIRST);
        retry.failures = u32::MAX;
        assert_eq!(retry.failed(1.0), LONGEST);
    }
}
