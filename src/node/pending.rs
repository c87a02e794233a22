//! The key of a request that is decided elsewhere, kept beside the volume's record until it is
//! answered: with it a restart finds its own request again (invariant 4).

use tokio::task::block_in_place;
use tracing::warn;

use super::{NodeError, place::Places};
use crate::{
    pki::{KeyAlgorithm, PrivateKey},
    sys::TargetPath,
};

const PENDING_FILE: &str = "pending.key";
/// An RSA-4096 key has 3.3 KB.
const MAX_SIZE: usize = 16 << 10;

/// Where the key of one volume's request lies: `.svid/pending.key` on its tmpfs, 0600.
#[derive(Clone, Copy)]
pub(super) struct PendingKey<'a> {
    pub(super) places: &'a Places,
    pub(super) target: &'a TargetPath,
    pub(super) device: Option<u64>,
}

// === impl PendingKey ===

impl PendingKey<'_> {
    /// The key of a request that was not answered, if it is of this algorithm. `used` is the public
    /// key of the set on the volume: a key is for one SVID, so a request that was answered just
    /// before a crash is over.
    pub(super) fn load(&self, algorithm: KeyAlgorithm, used: Option<&[u8]>) -> Option<PrivateKey> {
        let key = self.read()?;
        (key.algorithm() == algorithm && used != Some(key.spki_der())).then_some(key)
    }

    /// After a restart: removes the key if it is the one of the set that is there.
    pub(super) fn remove_if_used(&self, used: &[u8]) {
        if self.read().is_some_and(|key| key.spki_der() == used) {
            self.remove();
        }
    }

    fn read(&self) -> Option<PrivateKey> {
        block_in_place(|| {
            let dir = self.places.open_ours(self.target, self.device).ok()?;
            let pem = dir.read_private(PENDING_FILE, MAX_SIZE).ok()?;
            PrivateKey::from_pem(std::str::from_utf8(&pem).ok()?).ok()
        })
    }

    /// Keeps a key, in place of any other.
    pub(super) fn keep(&self, key: &PrivateKey) -> Result<(), NodeError> {
        block_in_place(|| {
            let dir = self.places.open_ours(self.target, self.device)?;
            dir.write_private(PENDING_FILE, key.to_pem().as_bytes())
                .map_err(NodeError::io("keep a request's key in", self.target.path()))
        })
    }

    /// The request is over. What stays of it is known by its being used, or serves the next one.
    pub(super) fn remove(&self) {
        block_in_place(|| {
            let removed = self
                .places
                .open_ours(self.target, self.device)
                .map_err(|error| error.to_string())
                .and_then(|dir| {
                    dir.remove_private(PENDING_FILE).map_err(|error| error.to_string())
                });
            if let Err(error) = removed {
                let target = self.target.path().display();
                warn!(%target, error, "the key of an answered request stays for now");
            }
        });
    }
}
