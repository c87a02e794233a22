//! The controller's bundle, as this node follows it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{BundleSource, BundleStore, PublishedError, PublishedTrust};
use crate::{
    id::TrustDomain,
    k8s::{BundleText, Cluster, ObjectName},
};

/// Follows the ConfigMap that the controller publishes, on whatever node this is.
pub struct SharedBundle {
    cluster: Cluster,
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
        let (problem, refused) = (Mutex::default(), AtomicU64::new(0));
        Self { cluster, name, trust_domain, store, problem, refused }
    }

    /// Takes what the watch shows; `None` is no ConfigMap.
    fn take(&self, text: Option<&BundleText>) {
        let Some(text) = text else {
            self.note(Some("it is not there".to_owned()), false);
            return;
        };
        let (bundle, tainted) = (text.bundle.as_deref(), text.tainted.as_deref());
        let taken = PublishedTrust::parse(&self.trust_domain, bundle, tainted)
            .and_then(|published| self.store.publish_shared(published));
        self.note(taken.err().map(|error: PublishedError| error.to_string()), true);
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
        let (cache, watch) = BundleText::follow(&self.cluster, &self.name);
        let mut state = cache.state();
        let take = async {
            loop {
                if state.borrow_and_update().synced {
                    self.take(cache.get(&self.name).as_deref());
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
        self.refused.load(Ordering::Relaxed)
    }
}
