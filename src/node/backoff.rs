//! How long to wait after a failed renewal (invariant 9: full jitter).

use std::time::Duration;

use crate::class::Class;

/// No SVID is closer to its end than this when it is tried again.
const FLOOR: Duration = Duration::from_millis(500);
/// An expired SVID can't get worse, but its pod waits.
const EXPIRED: Duration = Duration::from_secs(30);
/// What a signer may ask for: it may be wrong, or change its mind.
const LONGEST: Duration = Duration::from_secs(300);
/// Over how long those who were told the same moment come.
const SPREAD: Duration = Duration::from_secs(10);

/// The delay before the next try: `random` in [0, 1) of a bound that doubles with each failure
/// in a row, and never more than a third of what is left of the SVID. A signer that said when it
/// signs again is taken at its word, with up to a quarter as much again so that not all come at once.
pub(super) fn delay(
    class: Class,
    failures: u32,
    remaining: Duration,
    retry_after: Option<Duration>,
    random: f64,
) -> Duration {
    if let Some(wait) = retry_after {
        let wait = wait.clamp(FLOOR, LONGEST);
        return wait + (wait / 4).min(SPREAD).mul_f64(random);
    }
    let (base, cap) = match class {
        // Someone has to change something first.
        Class::Invalid | Class::Denied | Class::NotReady => (30, 600),
        Class::Unavailable => (1, 300),
        Class::Internal => (5, 300),
    };
    let doubled = base << failures.saturating_sub(1).min(10);
    let bound = Duration::from_secs(doubled.min(cap));
    let left = if remaining.is_zero() { EXPIRED } else { remaining / 3 };
    bound.mul_f64(random).min(left).max(FLOOR)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLASSES: [Class; 5] =
        [Class::Invalid, Class::Denied, Class::NotReady, Class::Unavailable, Class::Internal];

    #[test]
    fn it_doubles_up_to_its_cap() {
        let at = |failures| {
            delay(Class::Unavailable, failures, Duration::from_secs(86_400), None, 1.0).as_secs()
        };
        assert_eq!([at(1), at(2), at(3), at(9), at(100)], [1, 2, 4, 256, 300]);
    }

    proptest! {
        #[test]
        fn it_leaves_time_for_two_more_tries(
            class in 0..CLASSES.len(), failures in 0..u32::MAX, left in 3_u64..100_000,
            random in 0.0..1.0,
        ) {
            let left = Duration::from_secs(left);
            let delay = delay(CLASSES[class], failures, left, None, random);
            prop_assert!(delay >= FLOOR && delay <= left / 3);
        }

        #[test]
        fn an_expired_svid_is_tried_every_half_minute_at_least(
            class in 0..CLASSES.len(), failures in 0..u32::MAX, random in 0.0..1.0,
        ) {
            let delay = delay(CLASSES[class], failures, Duration::ZERO, None, random);
            prop_assert!(delay <= EXPIRED);
        }
    }

    proptest! {
        /// However often it failed before: who knows when it signs again is believed.
        #[test]
        fn a_signer_that_says_when_is_asked_then(
            class in 0..CLASSES.len(), failures in 0..u32::MAX, wait in 1_u64..300,
            left in 0_u64..100_000, random in 0.0..1.0,
        ) {
            let wait = Duration::from_secs(wait);
            let left = Duration::from_secs(left);
            let delay = delay(CLASSES[class], failures, left, Some(wait), random);
            prop_assert!(delay >= wait && delay <= wait * 5 / 4 && delay <= wait + SPREAD);
        }
    }
}
