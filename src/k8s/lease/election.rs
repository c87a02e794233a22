//! Who leads, from what one candidate has seen. No clock but its own counts: what others wrote
//! about the time is never believed.

use std::time::Duration;

use tokio::time::Instant;

/// How long a Lease holds, and how often it is written.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long others wait after the last sign of life.
    pub duration: Duration,
    /// How often its holder writes it.
    pub renew: Duration,
    /// How long its holder believes in it after the last write that went through.
    pub trust: Duration,
    /// How often others look.
    pub look: Duration,
}

/// A Lease as it was read.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// Changes with each write.
    pub(super) version: String,
    /// `None` if it was let go.
    pub(super) holder: Option<String>,
    /// How long its holder says that it holds.
    pub(super) duration: Duration,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nobody holds it, or nobody that lives.
    Take,
    /// It is ours.
    Renew,
    /// It is somebody else's.
    Wait,
}

/// One candidate's view.
#[derive(Debug)]
pub(super) struct Election {
    identity: String,
    terms: Terms,
    /// The version last seen, and when it was first seen here.
    seen: Option<(String, Instant)>,
    /// When the last write of ours that went through was begun.
    wrote: Option<Instant>,
}

/// Of a wait, as much may be left out.
const JITTER: f64 = 0.2;
/// How soon a round that failed is tried again while we lead.
const AGAIN: Duration = Duration::from_secs(1);

// === impl Terms ===

impl Default for Terms {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew: Duration::from_secs(5),
            trust: Duration::from_secs(10),
            look: Duration::from_secs(2),
        }
    }
}

impl Terms {
    /// The duration as it stands in the Lease.
    pub(super) fn seconds(&self) -> i32 {
        i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX)
    }
}

// === impl Election ===

impl Election {
    pub(super) fn new(identity: String, terms: Terms) -> Self {
        Self { identity, terms, seen: None, wrote: None }
    }

    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What to do about the Lease as it was found.
    pub(super) fn next(&mut self, found: Option<&Held>, now: Instant) -> Next {
        let Some(found) = found else { return Next::Take };
        let since = match &self.seen {
            Some((version, since)) if *version == found.version => *since,
            _ => {
                self.seen = Some((found.version.clone(), now));
                now
            }
        };
        match &found.holder {
            None => Next::Take,
            Some(holder) if *holder == self.identity => Next::Renew,
            Some(_) if now >= since + found.duration.max(self.terms.duration) => Next::Take,
            Some(_) => {
                // It was taken from us.
                self.wrote = None;
                Next::Wait
            }
        }
    }

    /// A write that was begun then went through.
    pub(super) fn wrote(&mut self, began: Instant) {
        self.wrote = Some(began);
    }

    /// Whether we lead. Ends before anyone else may take the Lease.
    pub(super) fn leads(&self, now: Instant) -> bool {
        self.wrote.is_some_and(|wrote| now < wrote + self.terms.trust)
    }

    /// How long a round may take.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        match self.wrote.map(|wrote| wrote + self.terms.trust) {
            Some(end) if end > now => (end - now).min(self.terms.renew),
            _ => self.terms.renew,
        }
    }

    /// How long until the next round; `random` in [0, 1).
    pub(super) fn pause(&self, now: Instant, random: f64) -> Duration {
        let spread = |wait: Duration| wait.mul_f64(1.0 - JITTER * random);
        match self.wrote {
            Some(wrote) if now < wrote + self.terms.trust => {
                let due = wrote + spread(self.terms.renew);
                let end = wrote + self.terms.trust;
                // A renewal that is due and was not made has failed.
                let next = if due > now { due - now } else { AGAIN.mul_f64(0.5 + random / 2.0) };
                next.min(end - now)
            }
            _ => spread(self.terms.look),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn election(identity: &str) -> Election {
        Election::new(identity.to_owned(), Terms::default())
    }

    fn held(version: u64, holder: &str) -> Held {
        let holder = (!holder.is_empty()).then(|| holder.to_owned());
        Held { version: version.to_string(), holder, duration: Duration::from_secs(15) }
    }

    #[test]
    fn a_lease_is_taken_when_nobody_has_it_or_its_holder_is_silent() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut a = election("a");
        assert_eq!(a.next(None, at(0)), Next::Take);
        assert_eq!(a.next(Some(&held(1, "")), at(0)), Next::Take);
        assert_eq!(a.next(Some(&held(2, "a")), at(0)), Next::Renew);
        // Whatever time it says inside: our own clock begins when we first see it.
        assert_eq!(a.next(Some(&held(3, "b")), at(100)), Next::Wait);
        assert_eq!(a.next(Some(&held(3, "b")), at(114)), Next::Wait);
        assert_eq!(a.next(Some(&held(4, "b")), at(114)), Next::Wait);
        assert_eq!(a.next(Some(&held(4, "b")), at(128)), Next::Wait);
        assert_eq!(a.next(Some(&held(4, "b")), at(129)), Next::Take);
    }

    #[test]
    fn who_promised_longer_is_waited_for() {
        let start = Instant::now();
        let mut a = election("a");
        let long = Held { duration: Duration::from_secs(60), ..held(1, "b") };
        let short = Held { duration: Duration::ZERO, ..held(2, "b") };
        a.next(Some(&long), start);
        assert_eq!(a.next(Some(&long), start + Duration::from_secs(59)), Next::Wait);
        a.next(Some(&short), start);
        assert_eq!(a.next(Some(&short), start + Duration::from_secs(14)), Next::Wait);
    }

    #[test]
    fn a_leader_that_reaches_nobody_stops_in_time() {
        let start = Instant::now();
        let mut a = election("a");
        a.wrote(start);
        assert!(a.leads(start + Duration::from_millis(9_999)));
        assert!(!a.leads(start + Duration::from_secs(10)));
        assert_eq!(a.patience(start + Duration::from_secs(8)), Duration::from_secs(2));
        assert_eq!(a.next(Some(&held(9, "b")), start), Next::Wait);
        assert!(!a.leads(start), "somebody else has it");
    }

    proptest! {
        /// Whatever the delays: one's belief ends before another's patience.
        #[test]
        fn two_never_lead(
            read_after in 0_u64..5_000, steps in prop::collection::vec(1_u64..6_000, 1..20),
        ) {
            let (mut a, mut b) = (election("a"), election("b"));
            let mut now = Instant::now();
            a.wrote(now);
            now += Duration::from_millis(read_after);
            b.next(Some(&held(1, "a")), now);
            for step in steps {
                now += Duration::from_millis(step);
                if b.next(Some(&held(1, "a")), now) == Next::Take {
                    prop_assert!(!a.leads(now));
                }
            }
        }

        #[test]
        fn a_leader_looks_again_before_its_time_is_up(
            after in 0_u64..9_999, random in 0.0..1.0,
        ) {
            let start = Instant::now();
            let mut a = election("a");
            a.wrote(start);
            let now = start + Duration::from_millis(after);
            let pause = a.pause(now, random);
            prop_assert!(!pause.is_zero() && now + pause <= start + Terms::default().trust);
        }
    }
}
