//! When an SVID is renewed.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};

/// When an SVID is renewed: at a point between ½ and ⅔ of its lifetime that depends on nothing but
/// the seed, so that a restart computes the same instant and a fleet spreads (DESIGN.md §2,
/// invariant 9).
#[derive(Clone, Copy, Debug, Default)]
pub struct RenewalPolicy;

// === impl RenewalPolicy ===

impl RenewalPolicy {
    /// The instant. `seed` is the volume's id and the certificate's serial.
    pub fn renew_at(not_before: SystemTime, not_after: SystemTime, seed: &[u8]) -> SystemTime {
        let lifetime = not_after.duration_since(not_before).unwrap_or_default();
        not_before + lifetime.mul_f64(0.5 + Self::fraction(seed) / 6.0)
    }

    /// When an SVID under a CA key that is believed stolen is renewed, if that is before
    /// [`Self::renew_at`]: spread over a tenth of its lifetime from when this became known. After
    /// `round` SVIDs in a row that were under such a key, the wait doubles each time: whoever signs
    /// has not heard of it.
    pub fn tainted_at(
        since: SystemTime,
        round: u32,
        not_before: SystemTime,
        not_after: SystemTime,
        seed: &[u8],
    ) -> SystemTime {
        let lifetime = not_after.duration_since(not_before).unwrap_or_default();
        let tenths = f64::from((1_u32 << round.min(4)) - 1) + Self::fraction(seed);
        let at = since + lifetime.mul_f64(tenths / 10.0);
        at.min(Self::renew_at(not_before, not_after, seed))
    }

    /// When an SVID is overdue that somebody else renews, at half of its lifetime or later: three
    /// quarters of it have passed, or all but twelve hours, and up to a third of the rest.
    pub fn overdue_at(not_before: SystemTime, not_after: SystemTime, seed: &[u8]) -> SystemTime {
        let lifetime = not_after.duration_since(not_before).unwrap_or_default();
        let rest = (lifetime / 4).min(Duration::from_secs(12 * 3600));
        not_before + (lifetime - rest) + rest.mul_f64(Self::fraction(seed) / 3.0)
    }

    /// A number in [0, 1) that only the seed decides.
    pub fn fraction(seed: &[u8]) -> f64 {
        let hash = digest(&SHA256, seed);
        let bits =
            hash.as_ref().iter().take(4).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        f64::from(bits) / 4_294_967_296.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Invariant 9: renewals are spread.
    #[test]
    fn many_seeds_fill_the_window_evenly() {
        let mut buckets = [0u32; 10];
        for seed in 0..10_000u32 {
            let fraction = RenewalPolicy::fraction(&seed.to_be_bytes());
            buckets[(fraction * 10.0) as usize] += 1;
        }
        for count in buckets {
            assert!((850..1150).contains(&count), "{buckets:?}");
        }
    }

    #[test]
    fn the_instant_is_fixed_for_ever() {
        // A release that moves it would renew every volume of a fleet at another time after upgrade.
        // The first four bytes of SHA-256 of "a".
        let expected = f64::from(0xca97_8112_u32) / 4_294_967_296.0;
        assert!((RenewalPolicy::fraction(b"a") - expected).abs() < 1e-12);
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let end = start + Duration::from_secs(3600);
        let at = RenewalPolicy::renew_at(start, end, b"a");
        let after = at.duration_since(start).unwrap().as_secs_f64();
        assert!((after - 3600.0 * (0.5 + expected / 6.0)).abs() < 1e-6);
    }

    proptest! {
        // Invariant 9.
        #[test]
        fn renewal_lies_between_half_and_two_thirds(start in 0u64..4_000_000_000, lifetime in 0u64..400_000_000, seed in any::<[u8; 8]>()) {
            let start = SystemTime::UNIX_EPOCH + Duration::from_secs(start);
            let lifetime = Duration::from_secs(lifetime);
            let at = RenewalPolicy::renew_at(start, start + lifetime, &seed);
            let after = at.duration_since(start).unwrap();
            prop_assert!(after >= lifetime / 2);
            prop_assert!(after <= lifetime * 2 / 3 + Duration::from_micros(1));
        }

        #[test]
        fn what_others_renew_is_overdue_in_its_last_quarter(
            lifetime in 0u64..4_000_000, seed in any::<[u8; 8]>(),
        ) {
            let (start, lifetime) = (SystemTime::UNIX_EPOCH, Duration::from_secs(lifetime));
            let at = RenewalPolicy::overdue_at(start, start + lifetime, &seed);
            let left = (start + lifetime).duration_since(at).unwrap();
            let rest = (lifetime / 4).min(Duration::from_secs(43_200));
            prop_assert!(left <= rest && left >= rest * 2 / 3 - Duration::from_micros(1).min(rest));
        }

        // Invariant 9, also when a CA's key is stolen.
        #[test]
        fn a_tainted_svid_is_renewed_within_a_tenth_and_ever_later_if_that_does_not_help(
            known in 0u64..7_200, round in 0u32..100, lifetime in 10u64..100_000,
            seed in any::<[u8; 8]>(),
        ) {
            let (start, lifetime) = (SystemTime::UNIX_EPOCH, Duration::from_secs(lifetime));
            let since = start + Duration::from_secs(known);
            let at = |round| {
                RenewalPolicy::tainted_at(since, round, start, start + lifetime, &seed)
            };
            let latest = RenewalPolicy::renew_at(start, start + lifetime, &seed);
            prop_assert!(at(0) <= since + lifetime / 10);
            prop_assert!(at(round) <= latest);
            prop_assert!(at(round) == latest || at(round) >= since);
            // From the second on, there is always a pause.
            prop_assert!(round == 0 || at(round) == latest || at(round) >= since + lifetime / 10);
            prop_assert_eq!(at(round.max(4)), latest);
        }

        #[test]
        fn an_end_before_the_start_renews_at_once(start in 1u64..4_000_000_000, seed in any::<[u8; 4]>()) {
            let start = SystemTime::UNIX_EPOCH + Duration::from_secs(start);
            prop_assert_eq!(RenewalPolicy::renew_at(start, SystemTime::UNIX_EPOCH, &seed), start);
        }
    }
}
