//! A CA in a directory: for one machine, edge, demo and tests. Every node that has the directory
//! can sign any identity; DESIGN.md invariant 5 needs a cluster signer.

mod directory;
mod rollover;
#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::directory::CaError;
use self::{
    directory::{CaDirectory, CaFiles},
    rollover::{Offer, Rollover},
};
use super::{SignError, SignRequest, Signer, SignerStatus};
use crate::{
    class::Class,
    clock::Clock,
    id::TrustDomain,
    pki::{BundleError, Certificate, TrustBundle, X509Svid},
    trust::{BundleStore, RecoveredTrust, TrustBundles},
};

/// How often the directory is looked at. A mounted Secret changes by a symlink swap that a file
/// watch misses.
const POLL: Duration = Duration::from_secs(10);
/// How soon someone who polls the bundle should come again.
const REFRESH_HINT: Duration = Duration::from_secs(300);

/// Where the CA is and how it changes.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// The CA directory.
    pub directory: PathBuf,
    /// Make a CA if there is none.
    pub create: bool,
    /// The trust domain that it signs for.
    pub trust_domain: TrustDomain,
    /// For how long a new root is published before it signs.
    pub propagation: Duration,
}

/// Signs with a CA from a directory and publishes its bundle.
pub struct LocalSigner {
    directory: CaDirectory,
    clock: Arc<dyn Clock>,
    bundles: Arc<BundleStore>,
    state: Mutex<State>,
}

struct State {
    rollover: Rollover,
    files: CaFiles,
    /// Why the files on disk now can't be used, while the CA in memory goes on.
    broken: Option<String>,
    reload_failures: u64,
}

// === impl LocalSigner ===

impl LocalSigner {
    /// Opens the CA, making one if that was asked for. The bundle it publishes has the roots of
    /// `recovered` that are still needed.
    pub fn open(
        config: LocalConfig,
        recovered: RecoveredTrust,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, CaError> {
        let now = clock.now();
        let LocalConfig { directory, create, trust_domain, propagation } = config;
        let directory = CaDirectory::new(directory, trust_domain.clone());
        if create {
            directory.create_if_missing(now)?;
        }
        let files = directory.read()?;
        let authority = Arc::new(directory.load(&files, now)?);
        info!(
            directory = %directory.path().display(),
            certificate = authority.certificate().sha256(),
            "CA opened"
        );
        let rollover = Rollover::new(authority, recovered.roots, propagation, now);
        let bundle = bundle(&trust_domain, rollover.roots(), recovered.bundle.as_ref(), now)
            .map_err(|error| CaError::Unusable {
                path: directory.path().to_owned(),
                source: error.into(),
            })?;
        let bundles = Arc::new(BundleStore::new(TrustBundles::own(bundle)));
        let state = State { rollover, files, broken: None, reload_failures: 0 };
        Ok(Self { directory, clock, bundles, state: Mutex::new(state) })
    }

    /// The bundles it publishes to.
    pub fn bundles(&self) -> Arc<BundleStore> {
        self.bundles.clone()
    }

    /// How often a changed directory could not be used.
    pub fn reload_failures(&self) -> u64 {
        self.lock().reload_failures
    }

    /// Follows the directory and the clock until `stop`.
    pub async fn follow(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.poll(),
            }
        }
    }

    /// Looks once. The CA in memory goes on whatever is found.
    fn poll(&self) {
        let now = self.clock.now();
        let read = self.directory.read();
        let mut state = self.lock();
        let taken = read.and_then(|files| {
            if files == state.files {
                return Ok(None);
            }
            let authority = self.directory.load(&files, now)?;
            state.files = files;
            Ok(Some(state.rollover.offer(authority, now)))
        });
        match taken {
            Ok(offer) => {
                state.broken = None;
                match offer {
                    Some(Offer::Published) => info!("a new CA is published and signs later"),
                    Some(Offer::Activated) => info!("a new CA under a published root signs now"),
                    Some(Offer::Known) | None => {}
                }
            }
            Err(error) => {
                let error = error.to_string();
                if state.broken.as_ref() != Some(&error) {
                    state.reload_failures += 1;
                    warn!(%error, "the CA on disk can't be used; the one in memory goes on");
                    state.broken = Some(error);
                }
            }
        }
        if state.rollover.advance(now) {
            let certificate = state.rollover.active().certificate().sha256();
            info!(certificate, "the CA or its roots changed");
        }
        let current = self.bundles.current();
        let domain = current.own.trust_domain();
        match bundle(domain, state.rollover.roots(), Some(&current.own), now) {
            Ok(next) => self.bundles.publish_own(next),
            Err(error) => warn!(%error, "the bundle stays as it is"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bundle of these roots. What did not change keeps its sequence number, so that a restart
/// rewrites no volume (SPIFFE Trust Domain and Bundle §4.1.1).
fn bundle(
    domain: &TrustDomain,
    roots: Vec<Certificate>,
    last: Option<&TrustBundle>,
    now: SystemTime,
) -> Result<TrustBundle, BundleError> {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let sequence = match last {
        Some(last) if last.trust_domain() == domain && last.x509_authorities() == roots => {
            last.sequence().unwrap_or(seconds)
        }
        Some(last) => seconds.max(last.sequence().unwrap_or(0) + 1),
        None => seconds,
    };
    let bundle = TrustBundle::new(domain.clone(), roots)?;
    Ok(bundle.with_sequence(Some(sequence)).with_refresh_hint(Some(REFRESH_HINT)))
}

#[async_trait]
impl Signer for LocalSigner {
    async fn sign(&self, request: &SignRequest) -> Result<X509Svid, SignError> {
        let now = self.clock.now();
        let authority = {
            let mut state = self.lock();
            state.rollover.note_signature(now + request.ttl);
            state.rollover.active().clone()
        };
        authority.issue(&request.csr, &request.id, request.ttl, now).map_err(|error| {
            SignError::new(error.class(), format!("the local CA did not sign: {error}"))
        })
    }

    fn status(&self) -> SignerStatus {
        let not_after = self.lock().rollover.active().not_after();
        let ready = if self.clock.now() < not_after {
            Ok(())
        } else {
            let text = "the local CA has expired: put a new tls.crt and tls.key in its directory";
            Err(SignError::new(Class::NotReady, text))
        };
        SignerStatus { ready, ca_not_after: Some(not_after) }
    }
}
