//! What a pod may take is bounded, and comes back.

use proptest::prelude::*;
use tokio::time::advance;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_bucket_is_full_at_first_and_fills_at_its_rate() {
    let mut bucket = Bucket::default();
    let mut take = || bucket.take(10, 20, Instant::now());
    assert_eq!((0..100).filter(|_| take()).count(), 20);
    advance(Duration::from_millis(50)).await;
    assert!(!take());
    advance(Duration::from_millis(60)).await;
    assert!(take() && !take());
    advance(Duration::from_secs(3600)).await;
    assert_eq!((0..100).filter(|_| take()).count(), 20, "no more than a burst");
}

proptest! {
    /// In no stretch of time more than the burst and what came back meanwhile.
    #[test]
    fn no_rhythm_gets_more(
        (rate, burst) in (1u32..5_000, 1u32..10_000),
        waits in prop::collection::vec(0u64..2_000, 1..300),
    ) {
        let mut bucket = Bucket::default();
        let start = Instant::now();
        let (mut now, mut taken) = (start, 0u32);
        for wait in waits {
            now += Duration::from_millis(wait);
            taken += u32::from(bucket.take(rate, burst, now));
            let most = f64::from(burst) + (now - start).as_secs_f64() * f64::from(rate);
            prop_assert!(f64::from(taken) <= most + 1e-6);
        }
    }
}

#[test]
fn a_count_never_exceeds_its_limit() {
    let count = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    if Usage::enter(&count, 3) {
                        assert!(count.load(Ordering::Acquire) <= 3);
                        count.fetch_sub(1, Ordering::AcqRel);
                    }
                }
            });
        }
    });
    assert_eq!(count.into_inner(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_kind_has_a_bucket_of_its_own() {
    let usage = Usage::default();
    let limits = WorkloadLimits { calls: 5, signatures: 2, ..WorkloadLimits::default() };
    let calls = (0..50).filter(|_| usage.may_call(&limits).is_ok()).count();
    let signatures = (0..50).filter(|_| usage.may_sign(&limits).is_ok()).count();
    let connections = (0..50).filter(|_| usage.may_connect(&limits)).count();
    assert_eq!((calls, signatures, connections), (10, 10, 10));
    assert_eq!(usage.may_call(&limits), Err(Refused(Limit::Calls)));
    assert_eq!(usage.may_sign(&limits), Err(Refused(Limit::Signatures)));
    for limit in Limit::ALL {
        assert!(Refused(limit).to_string().ends_with("try again later"));
    }
}
