//! Tokens that were found good a short while ago. It has hashes only, and no more than so many.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use tokio::time::Instant;

use super::TokenClaims;

/// Most tokens of one generation; there are two of them. One token takes about 700 bytes.
const GENERATION: usize = 16 << 10;

/// A token's SHA-256.
pub(super) type Hash = [u8; 32];

/// Tokens that were found good. The younger generation has what was seen lately; once it is full it
/// becomes the older one, which is then forgotten: what is used stays, and nothing is ever searched.
#[derive(Default)]
pub(super) struct Memory {
    younger: HashMap<Hash, Known>,
    older: HashMap<Hash, Known>,
}

/// By what a token was found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// By this set of published keys.
    Keys(u64),
    /// By TokenReview, which is to be believed until then.
    Review(Instant),
}

#[derive(Clone)]
struct Known {
    claims: Arc<TokenClaims>,
    proof: Proof,
}

pub(super) fn hash(token: &str) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

// === impl Memory ===

impl Memory {
    /// What is known of a token, if that still holds: it has not ended, and what it was proven by
    /// are the `keys` of now.
    pub(super) fn get(
        &mut self,
        hash: &Hash,
        keys: Option<u64>,
        now: SystemTime,
    ) -> Option<Arc<TokenClaims>> {
        let (known, old) = match self.younger.get(hash) {
            Some(known) => (known.clone(), false),
            None => (self.older.remove(hash)?, true),
        };
        let holds = match known.proof {
            Proof::Keys(version) => keys == Some(version),
            Proof::Review(until) => Instant::now() < until,
        };
        if !holds || known.claims.expires_at <= now {
            self.younger.remove(hash);
            return None;
        }
        let claims = known.claims.clone();
        if old {
            self.keep(*hash, known);
        }
        Some(claims)
    }

    pub(super) fn put(&mut self, hash: Hash, claims: Arc<TokenClaims>, proof: Proof) {
        self.keep(hash, Known { claims, proof });
    }

    fn keep(&mut self, hash: Hash, known: Known) {
        if self.younger.len() >= GENERATION {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(hash, known);
    }

    /// How many it has.
    pub(super) fn len(&self) -> usize {
        self.younger.len() + self.older.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn claims(expires_at: SystemTime) -> Arc<TokenClaims> {
        let text = || "x".to_owned();
        Arc::new(TokenClaims {
            namespace: text(),
            service_account: text(),
            service_account_uid: text(),
            pod_name: text(),
            pod_uid: text(),
            node_name: text(),
            node_uid: text(),
            expires_at,
        })
    }

    fn numbered(number: usize) -> Hash {
        hash(&number.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_ends_with_the_token_and_with_its_proof() {
        let mut memory = Memory::default();
        let (one, two) = (hash("one"), hash("two"));
        memory.put(one, claims(at(100)), Proof::Keys(7));
        let review = Proof::Review(Instant::now() + Duration::from_secs(120));
        memory.put(two, claims(at(1_000)), review);
        assert!(memory.get(&one, Some(7), at(99)).is_some());
        assert!(memory.get(&two, None, at(99)).is_some());
        assert!(memory.get(&hash("three"), Some(7), at(99)).is_none());
        assert!(memory.get(&one, Some(7), at(100)).is_none(), "it has ended");
        assert!(memory.get(&one, Some(7), at(99)).is_none(), "and is forgotten");
        for keys in [Some(8), None] {
            memory.put(one, claims(at(100)), Proof::Keys(7));
            assert!(memory.get(&one, keys, at(99)).is_none(), "its keys are not those of now");
        }
        tokio::time::advance(Duration::from_secs(120)).await;
        assert!(memory.get(&two, None, at(99)).is_none(), "the review is old");
    }

    #[test]
    fn it_forgets_what_is_not_used_and_never_has_more_than_so_many() {
        let mut memory = Memory::default();
        let kept = numbered(usize::MAX);
        memory.put(kept, claims(at(100)), Proof::Keys(1));
        for number in 0..4 * GENERATION {
            memory.put(numbered(number), claims(at(100)), Proof::Keys(1));
            assert!(memory.len() <= 2 * GENERATION);
            if number % 1_000 == 0 {
                assert!(memory.get(&kept, Some(1), at(1)).is_some(), "used after {number} others");
            }
        }
        assert!(memory.get(&numbered(0), Some(1), at(1)).is_none());
        assert!(memory.get(&numbered(4 * GENERATION - 1), Some(1), at(1)).is_some());
    }
}
