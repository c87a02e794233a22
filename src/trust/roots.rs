//! The roots of issuers that publish none themselves, from where an operator put them.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{BundleSource, BundleStore};
use crate::{
    id::TrustDomain,
    k8s::{Cluster, ConfigText, ObjectName, names::ROOTS},
    pki::TrustBundle,
    sys::RegularFile,
};

/// Follows a PEM file, or the key `ca.crt` of a ConfigMap. What is there is trusted, and nothing
/// that an answer brings along.
pub struct IssuerRoots {
    place: RootsPlace,
    trust_domain: TrustDomain,
    store: Arc<BundleStore>,
    /// Why what is there now is not taken.
    problem: Mutex<Option<String>>,
    refused: AtomicU64,
}

/// Where an operator put them.
pub enum RootsPlace {
    /// A file.
    File(PathBuf),
    /// A ConfigMap.
    Map(Cluster, ObjectName),
}

/// As in a ConfigMap.
const MAX_SIZE: usize = 1 << 20;
/// Each volume holds all of them several times.
const MAX_ROOTS: usize = 64;
/// How often the file is read.
const LOOK: Duration = Duration::from_secs(5);

// === impl IssuerRoots ===

impl IssuerRoots {
    /// Publishes what is there to the store, as the own bundle of this trust domain.
    pub fn new(place: RootsPlace, trust_domain: TrustDomain, store: Arc<BundleStore>) -> Self {
        Self { place, trust_domain, store, problem: Mutex::default(), refused: AtomicU64::new(0) }
    }

    /// Takes what is there, or says why not: then the last good roots stand.
    fn take(&self, pem: Result<&str, String>) {
        let read = pem.and_then(|pem| self.read(pem));
        let problem = match read {
            Ok(bundle) => {
                self.store.publish_own(bundle);
                None
            }
            Err(problem) => Some(problem),
        };
        let mut known = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == problem {
            return;
        }
        match &problem {
            Some(problem) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                warn!(problem, "the issuers' roots can't be used; the last good ones stand");
            }
            None => info!("the issuers' roots are good again"),
        }
        *known = problem;
    }

    fn read(&self, pem: &str) -> Result<TrustBundle, String> {
        if pem.len() > MAX_SIZE {
            return Err(format!("they have {} bytes; at most {MAX_SIZE} are read", pem.len()));
        }
        let bundle = TrustBundle::from_pem(self.trust_domain.clone(), pem)
            .map_err(|error| error.to_string())?;
        match bundle.x509_authorities().len() {
            0..=MAX_ROOTS => Ok(bundle),
            more => Err(format!("they are {more}; at most {MAX_ROOTS} are trusted")),
        }
    }

    async fn follow_file(&self, path: &std::path::Path) {
        let mut tick = interval(LOOK);
        loop {
            tick.tick().await;
            // A few KiB, of a mounted ConfigMap or Secret.
            let content = RegularFile::read(path, MAX_SIZE);
            let text = content.as_ref().map_err(ToString::to_string).and_then(|file| {
                std::str::from_utf8(&file.content).map_err(|error| error.to_string())
            });
            self.take(text.map_err(|error| format!("{}: {error}", path.display())));
        }
    }

    async fn follow_map(&self, cluster: &Cluster, name: &ObjectName) {
        let (cache, watch) = ConfigText::follow(cluster, "issuers' roots", name);
        let mut state = cache.state();
        let take = async {
            loop {
                if state.borrow_and_update().synced {
                    let text = cache.get(name);
                    let pem = text.as_deref().map(|text| text.get(ROOTS));
                    self.take(match pem {
                        Some(Some(pem)) => Ok(pem),
                        Some(None) => Err(format!("the ConfigMap {name} has no {ROOTS}")),
                        None => Err(format!("the ConfigMap {name} is not there")),
                    });
                }
                if state.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = watch => {}
            () = take => {}
        }
    }
}

#[async_trait]
impl BundleSource for IssuerRoots {
    async fn follow(&self, stop: CancellationToken) {
        let follow = async {
            match &self.place {
                RootsPlace::File(path) => self.follow_file(path).await,
                RootsPlace::Map(cluster, name) => self.follow_map(cluster, name).await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow => {}
        }
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::pki::{Authority, KeyAlgorithm};

    fn root() -> String {
        let domain = "example.org".parse().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let day = Duration::from_secs(86_400);
        let ca = Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, now).unwrap();
        ca.bundle().to_pem()
    }

    fn roots(path: PathBuf) -> IssuerRoots {
        let place = RootsPlace::File(path);
        IssuerRoots::new(place, "example.org".parse().unwrap(), Arc::default())
    }

    /// Invariant 3: whatever becomes of the file, the last good roots stand.
    #[test]
    fn roots_that_are_bad_or_gone_take_nothing_away() {
        let roots = roots(PathBuf::new());
        let (one, other) = (root(), root());
        roots.take(Err("it is not there".to_owned()));
        assert!(roots.store.current().is_none());
        roots.take(Ok(&one));
        let good = roots.store.current().unwrap();
        let many: String = (0..=MAX_ROOTS).map(|_| root()).collect();
        for bad in ["", "not PEM", &one[..100], &many, &"x".repeat(MAX_SIZE + 1)] {
            roots.take(Ok(bad));
            assert_eq!(roots.store.current().unwrap(), good);
        }
        roots.take(Err("it is not there".to_owned()));
        assert_eq!(roots.store.current().unwrap(), good);
        assert!(roots.refused() > 4);
        roots.take(Ok(&format!("{one}{other}")));
        assert_eq!(roots.store.current().unwrap().own.x509_authorities().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.crt");
        let roots = roots(path.clone());
        let mut bundles = roots.store.subscribe();
        let stop = CancellationToken::new();
        let change = async {
            for pem in [root(), root()] {
                std::fs::write(&path, &pem).unwrap();
                let expected = |it: &Option<Arc<crate::trust::TrustBundles>>| {
                    it.as_ref().is_some_and(|it| it.own.to_pem() == pem)
                };
                bundles.wait_for(expected).await.unwrap();
            }
            stop.cancel();
        };
        tokio::join!(roots.follow(stop.clone()), change);
    }
}
