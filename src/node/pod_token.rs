//! The token of a volume's pod: in memory only, as kubelet brought it last.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use crate::volume::{PodToken, PodTokenError};

/// One volume's. After a restart nothing is known until kubelet comes again (invariant 4).
#[derive(Debug)]
pub(super) struct PodTokenCell(Mutex<Held>);

#[derive(Debug)]
struct Held {
    token: Result<Arc<PodToken>, PodTokenError>,
    /// A renewal waits for another one.
    awaited: bool,
}

// === impl PodTokenCell ===

impl Default for PodTokenCell {
    fn default() -> Self {
        Self(Mutex::new(Held { token: Err(PodTokenError::NotYet), awaited: false }))
    }
}

impl PodTokenCell {
    /// Takes what kubelet brought: what can't be used takes no token away. True if a renewal waited
    /// for this.
    pub(super) fn take(&self, brought: Result<PodToken, PodTokenError>, now: SystemTime) -> bool {
        let mut held = self.lock();
        match (brought, &held.token) {
            (Ok(token), Ok(known)) if token == **known || !token.is_good_at(now) => false,
            (Ok(token), _) => {
                held.token = Ok(Arc::new(token));
                std::mem::take(&mut held.awaited)
            }
            (Err(_), Ok(_)) => false,
            (Err(reason), Err(_)) => {
                held.token = Err(reason);
                false
            }
        }
    }

    /// The token, if it is good now.
    pub(super) fn current(&self, now: SystemTime) -> Result<Arc<PodToken>, PodTokenError> {
        let token = self.lock().token.clone()?;
        if token.is_good_at(now) { Ok(token) } else { Err(PodTokenError::Expired) }
    }

    /// A renewal waits for another token than this.
    pub(super) fn wait_for_next(&self) {
        self.lock().awaited = true;
    }

    /// Nothing waits any longer.
    pub(super) fn wait_no_longer(&self) {
        self.lock().awaited = false;
    }

    /// Whether a renewal waits.
    pub(super) fn is_awaited(&self) -> bool {
        self.lock().awaited
    }

    /// The pod is gone, or another.
    pub(super) fn forget(&self) {
        *self.lock() = Held { token: Err(PodTokenError::NotYet), awaited: false };
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn token(text: &str, end: u64) -> Result<PodToken, PodTokenError> {
        PodToken::new(text, at(end))
    }

    /// Invariants 3 and 4: a republish without a token takes nothing away, and only another token
    /// wakes who waits for one.
    #[test]
    fn the_newest_token_that_can_be_used_is_held() {
        let cell = PodTokenCell::default();
        assert_eq!(cell.current(at(0)), Err(PodTokenError::NotYet));
        let missing = PodTokenError::Missing { audience: "svid.dev".to_owned() };
        cell.wait_for_next();
        assert!(!cell.take(Err(missing.clone()), at(0)));
        assert_eq!(cell.current(at(0)), Err(missing.clone()), "why there is none");
        assert!(cell.take(token("one", 100), at(0)), "it was waited for");
        assert!(!cell.is_awaited());
        assert!(!cell.take(Err(missing), at(0)));
        assert_eq!(cell.current(at(0)).unwrap().secret(), "one");
        assert_eq!(cell.current(at(99)), Err(PodTokenError::Expired));
        // One that the signer refused.
        cell.wait_for_next();
        assert!(!cell.take(token("one", 100), at(0)) && cell.is_awaited(), "the same again");
        assert!(cell.take(token("two", 200), at(0)));
        assert!(!cell.take(token("over", 0), at(0)), "no worse than before");
        assert!(!cell.take(token("three", 300), at(0)), "nobody waits");
        assert_eq!(cell.current(at(99)).unwrap().secret(), "three");
        cell.forget();
        assert_eq!(cell.current(at(0)), Err(PodTokenError::NotYet));
    }
}
