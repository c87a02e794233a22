//! A CA in a directory: for one machine, edge, demo and tests. Every node that has the directory
//! can sign any identity; DESIGN.md invariant 5 needs a cluster signer.

mod directory;
mod jwt;
mod jwt_rollover;
mod rollover;
#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use self::{directory::CaError, jwt::LocalJwtConfig};
use self::{
    directory::{CaDirectory, CaFiles},
    jwt::JwtSigning,
    rollover::{Offer, Rollover},
};
use super::{JwtRequest, SignError, SignRequest, Signer, SignerStatus};
use crate::{
    class::Class,
    clock::Clock,
    id::TrustDomain,
    jose::{JwtAuthority, JwtSvid},
    pki::{BundleError, Certificate, TrustBundle, X509Svid},
    trust::{BundleSource, BundleStore, RecoveredTrust},
};

/// How often the directory is looked at. A mounted Secret changes by a symlink swap that a file
/// watch misses.
const POLL: Duration = Duration::from_secs(10);
/// The same while nothing can be signed: pods wait for it.
const URGENT_POLL: Duration = Duration::from_secs(1);
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
    /// For how long a new root or JWT key is published before it signs.
    pub propagation: Duration,
    /// What JWT-SVIDs are like.
    pub jwt: LocalJwtConfig,
}

/// Signs with a CA from a directory and publishes its bundle. Without a good CA it signs nothing,
/// says why, and waits for one.
pub struct LocalSigner {
    directory: CaDirectory,
    create: bool,
    trust_domain: TrustDomain,
    clock: Arc<dyn Clock>,
    bundles: Arc<BundleStore>,
    state: Mutex<State>,
}

struct State {
    rollover: Rollover,
    jwt: JwtSigning,
    /// What was last taken from the directory.
    files: Option<CaFiles>,
    /// Why the files on disk now can't be used.
    broken: Option<String>,
    reload_failures: u64,
    /// The bundle that this CA published last. The store's may have others' roots besides.
    published: Option<TrustBundle>,
}

// === impl LocalSigner ===

impl LocalSigner {
    /// Opens the CA and the JWT key, making what is missing if that was asked for. The bundle it
    /// publishes has the roots and JWT authorities of `recovered` that are still needed; while there
    /// is no good CA, all of the roots.
    pub fn open(config: LocalConfig, recovered: RecoveredTrust, clock: Arc<dyn Clock>) -> Self {
        let now = clock.now();
        let LocalConfig { directory, create, trust_domain, propagation, jwt } = config;
        let directory = CaDirectory::new(directory, trust_domain.clone());
        let RecoveredTrust { roots: mut live, jwt_authorities, bundle, .. } = recovered;
        // In the order that the volumes have them, so that none is rewritten for that alone.
        let order = bundle.as_ref().map_or(&[][..], TrustBundle::x509_authorities);
        live.sort_by_key(|root| {
            let place = order.iter().position(|known| *known == root.certificate);
            place.unwrap_or(usize::MAX)
        });
        let opened = read(&directory, create, now).and_then(|files| {
            let authority = directory.load(&files, now)?;
            Ok((files, Arc::new(authority)))
        });
        let (files, active, broken) = match opened {
            Ok((files, active)) => (Some(files), Some(active), None),
            Err(error) => (None, None, Some(error.to_string())),
        };
        if let Some(reason) = &broken {
            error!(reason, "no usable CA: nothing can be signed until there is one");
        }
        if let Some(active) = &active {
            let certificate = active.certificate().sha256();
            info!(directory = %directory.path().display(), certificate, "CA opened");
        }
        let reload_failures = u64::from(broken.is_some());
        let rollover = Rollover::new(active, live, propagation, now);
        let bundles = Arc::default();
        let jwt = JwtSigning::new(jwt, jwt_authorities, propagation, now);
        let state = State { rollover, jwt, files, broken, reload_failures, published: bundle };
        let state = Mutex::new(state);
        let signer = Self { directory, create, trust_domain, clock, bundles, state };
        signer.look_for_jwt_key(now);
        signer.publish(&mut signer.lock(), now);
        signer
    }

    /// The bundles it publishes to.
    pub fn bundles(&self) -> Arc<BundleStore> {
        self.bundles.clone()
    }

    /// Looks once. What is in memory goes on whatever is found.
    fn poll(&self) {
        let now = self.clock.now();
        self.look_for_jwt_key(now);
        let create = self.create && self.lock().rollover.active().is_none();
        let files = read(&self.directory, create, now);
        let mut state = self.lock();
        let found = files.and_then(|files| {
            if state.files.as_ref() == Some(&files) {
                return Ok(None);
            }
            Ok(Some((self.directory.load(&files, now)?, files)))
        });
        match found {
            Ok(found) => {
                state.broken = None;
                if let Some((authority, files)) = found {
                    state.files = Some(files);
                    match state.rollover.offer(authority, now) {
                        Offer::Published => info!("a new CA is published and signs later"),
                        Offer::Activated => info!("a new CA signs now"),
                        Offer::Known => {}
                    }
                }
            }
            Err(error) => {
                let reason = error.to_string();
                if state.broken.as_ref() != Some(&reason) {
                    state.reload_failures += 1;
                    if state.rollover.can_sign(now) {
                        warn!(reason, "the CA on disk can't be used; the one in memory goes on");
                    } else {
                        error!(reason, "no usable CA: nothing can be signed until there is one");
                    }
                    state.broken = Some(reason);
                }
            }
        }
        if state.rollover.advance(now) {
            let active = state.rollover.active();
            let certificate = active.map(|active| active.certificate().sha256());
            info!(certificate, "the CA or its roots changed");
        }
        self.publish(&mut state, now);
    }

    /// Looks for the JWT key, of which X.509 never depends.
    fn look_for_jwt_key(&self, now: SystemTime) {
        // To make one takes a while.
        let wanted = self.lock().jwt.wants().filter(|_| self.create);
        let made = wanted.map_or(Ok(()), |it| self.directory.create_jwt_key_if_missing(it));
        let found = made.and_then(|()| self.directory.read_jwt_key());
        self.lock().jwt.take(&self.directory, found, now);
    }

    fn publish(&self, state: &mut State, now: SystemTime) {
        let roots = state.rollover.roots();
        if roots.is_empty() {
            return;
        }
        let jwt = state.jwt.authorities();
        match bundle(&self.trust_domain, roots, jwt, state.published.as_ref(), now) {
            Ok(next) => {
                state.published = Some(next.clone());
                self.bundles.publish_own(next);
            }
            Err(error) => warn!(%error, "the bundle stays as it is"),
        }
    }

    /// Why nothing can be signed.
    fn obstacle(&self, state: &State, now: SystemTime) -> SignError {
        let directory = self.directory.path().display();
        let reason = if let Some(at) = state.rollover.next_signs_at(now) {
            let left = at.duration_since(now).unwrap_or_default();
            let reason = format!(
                "the CA in {directory} is new: it is published first and signs in {} s",
                left.as_secs()
            );
            // It is looked at once in so long.
            return SignError::new(Class::Unavailable, reason).with_retry_after(left + URGENT_POLL);
        } else if let Some(reason) = &state.broken {
            reason.clone()
        } else {
            format!("the CA in {directory} has expired: put a new tls.crt and tls.key there")
        };
        SignError::new(Class::Unavailable, reason)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(directory: &CaDirectory, create: bool, now: SystemTime) -> Result<CaFiles, CaError> {
    if create {
        directory.create_if_missing(now)?;
    }
    directory.read()
}

/// The bundle of these authorities. What did not change keeps its sequence number, so that a restart
/// rewrites no volume (SPIFFE Trust Domain and Bundle §4.1.1).
fn bundle(
    domain: &TrustDomain,
    roots: Vec<Certificate>,
    jwt: Vec<JwtAuthority>,
    last: Option<&TrustBundle>,
    now: SystemTime,
) -> Result<TrustBundle, BundleError> {
    let bundle = TrustBundle::new(domain.clone(), roots)?.with_jwt_authorities(jwt);
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let sequence = match last {
        Some(last) if last.trust_domain() == domain && last.same_authorities(&bundle) => {
            last.sequence().unwrap_or(seconds)
        }
        Some(last) => seconds.max(last.sequence().unwrap_or(0) + 1),
        None => seconds,
    };
    Ok(bundle.with_sequence(Some(sequence)).with_refresh_hint(Some(REFRESH_HINT)))
}

#[async_trait]
impl BundleSource for LocalSigner {
    /// Follows the directory and the clock.
    async fn follow(&self, stop: CancellationToken) {
        loop {
            self.poll();
            let ready = {
                let state = self.lock();
                state.rollover.can_sign(self.clock.now()) && !state.jwt.is_settling()
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(if ready { POLL } else { URGENT_POLL }) => {}
            }
        }
    }

    fn refused(&self) -> u64 {
        let state = self.lock();
        state.reload_failures + state.jwt.failures()
    }
}

#[async_trait]
impl Signer for LocalSigner {
    async fn sign(&self, request: &SignRequest) -> Result<X509Svid, SignError> {
        let now = self.clock.now();
        if !request.dns_names.is_empty() {
            return Err(SignError::new(
                Class::Denied,
                "the local CA has no policy that could allow DNS names: remove the volume \
                 attribute csi.svid.dev/dns-names, or use --signer csr",
            ));
        }
        let authority = {
            let mut state = self.lock();
            let Some(authority) = state.rollover.signing(now).cloned() else {
                return Err(self.obstacle(&state, now));
            };
            state.rollover.note_signature(now + request.ttl);
            authority
        };
        authority.issue(request.csr.public_key(), &request.id, &[], request.ttl, now).map_err(
            |error| SignError::new(error.class(), format!("the local CA did not sign: {error}")),
        )
    }

    fn status(&self) -> SignerStatus {
        let (state, now) = (self.lock(), self.clock.now());
        let ca_not_after = state.rollover.active().map(|active| active.not_after());
        let ready = match state.rollover.can_sign(now) {
            true => Ok(()),
            false => Err(self.obstacle(&state, now)),
        };
        SignerStatus { ready, ca_not_after }
    }

    async fn sign_jwt(&self, request: &JwtRequest) -> Result<JwtSvid, SignError> {
        let now = self.clock.now();
        let (key, claims) = {
            let mut guard = self.lock();
            let State { jwt, published, .. } = &mut *guard;
            jwt.prepare(request, &self.directory, published.as_ref(), now)?
        };
        key.sign(&claims).map_err(|error| {
            SignError::new(error.class(), format!("the local JWT key did not sign: {error}"))
        })
    }

    fn signs_jwt(&self) -> Result<(), SignError> {
        self.lock().jwt.check(&self.directory)
    }
}
