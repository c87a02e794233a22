//! The controller's bundle, as this node follows it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{BundleSource, BundleStore};
use crate::{
    id::TrustDomain,
    k8s::{BundleText, Cluster, ObjectName},
};

/// Follows the ConfigMap that the controller publishes, on whatever node this is.
pub struct SharedBundle {
    cluster: Cluster,
    taker: Taker,
}

/// Takes what is good of what it is shown.
struct Taker {
    name: ObjectName,
    trust_domain: TrustDomain,
    store: Arc<BundleStore>,
    /// Why what is there now is not taken.
    problem: Mutex<Option<String>>,
    refused: AtomicU64,
}

// === impl SharedBundle ===

impl SharedBundle {
    /// Publishes the ConfigMap of that name to the store, as the bundle of this trust domain.
    pub fn new(
        cluster: Cluster,
        name: ObjectName,
        trust_domain: TrustDomain,
        store: Arc<BundleStore>,
    ) -> Self {
        Self { cluster, taker: Taker::new(name, trust_domain, store) }
    }
}

// === impl Taker ===

impl Taker {
    fn new(name: ObjectName, trust_domain: TrustDomain, store: Arc<BundleStore>) -> Self {
        let (problem, refused) = (Mutex::default(), AtomicU64::new(0));
        Self { name, trust_domain, store, problem, refused }
    }

    /// Takes what the watch shows; `None` is no ConfigMap.
    fn take(&self, text: Option<&BundleText>) {
        let Some(text) = text else {
            self.note(Some("it is not there".to_owned()), false);
            return;
        };
        let (bundle, tainted) = (text.bundle.as_deref(), text.tainted.as_deref());
        let taken = self.store.take_text(&self.trust_domain, bundle, tainted);
        self.note(taken.err().map(|error| error.to_string()), true);
    }

    /// Says once what is wrong, and once that it no longer is.
    fn note(&self, problem: Option<String>, refused: bool) {
        let mut known = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == problem {
            return;
        }
        match &problem {
            Some(problem) => {
                self.refused.fetch_add(u64::from(refused), Ordering::Relaxed);
                warn!(
                    config_map = %self.name,
                    problem,
                    "the published bundle can't be used; the last good one stands"
                );
            }
            None => info!(config_map = %self.name, "the published bundle is good again"),
        }
        *known = problem;
    }
}

#[async_trait]
impl BundleSource for SharedBundle {
    async fn follow(&self, stop: CancellationToken) {
        let (cache, watch) = BundleText::follow(&self.cluster, &self.taker.name);
        let mut state = cache.state();
        let take = async {
            loop {
                if state.borrow_and_update().synced {
                    self.taker.take(cache.get(&self.taker.name).as_deref());
                }
                if state.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = watch => {}
            () = take => {}
        }
    }

    fn refused(&self) -> u64 {
        self.taker.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::pki::{Authority, KeyAlgorithm};

    /// Invariant 3: whatever becomes of the ConfigMap, the last good bundle stands.
    #[test]
    fn a_configmap_that_is_bad_or_gone_takes_nothing_away() {
        let domain: TrustDomain = "example.org".parse().unwrap();
        let (day, now) = (Duration::from_secs(86_400), SystemTime::UNIX_EPOCH);
        let ca = Authority::create(&domain, KeyAlgorithm::EcdsaP256, day, now + day).unwrap();
        let text = |sequence| BundleText {
            bundle: Some(ca.bundle().with_sequence(Some(sequence)).to_jwks()),
            tainted: None,
        };
        let garbage = BundleText { bundle: Some("garbage".to_owned()), tainted: None };
        let store = Arc::new(BundleStore::default());
        let name = ObjectName::new("svid-csi", "svid-csi-bundle");
        let taker = Taker::new(name, domain, store.clone());
        let refused = || taker.refused.load(Ordering::Relaxed);
        taker.take(None);
        assert!(store.current().is_none() && refused() == 0, "it may come later");
        taker.take(Some(&text(7)));
        let good = store.current().unwrap();
        for bad in
            [Some(&garbage), Some(&garbage), Some(&BundleText::default()), Some(&text(6)), None]
        {
            taker.take(bad);
            assert_eq!(store.current().unwrap(), good);
            assert!(store.refusal().is_some());
        }
        assert_eq!(refused(), 3, "each reason once, however often it is seen");
        taker.take(Some(&text(8)));
        assert_eq!(store.current().unwrap().own.sequence(), Some(8));
        assert!(taker.problem.lock().unwrap().is_none() && store.refusal().is_none());
    }
}
