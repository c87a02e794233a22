//! The newest bundles, for everyone who follows them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::{
    PublishedError, PublishedTrust, RecoveredTrust, TaintedKeys, TrustBundles, merge::merge,
    views::Views,
};
use crate::{id::TrustDomain, pki::TrustBundle};

/// Holds the newest [`TrustBundles`] and tells everyone of a change. Sources publish to it; before
/// the first one there is nobody to trust, and nothing can be signed.
#[derive(Debug, Default)]
pub struct BundleStore {
    sources: Mutex<Sources>,
    bundles: watch::Sender<Option<Arc<TrustBundles>>>,
    tainted: watch::Sender<Option<Arc<TaintedKeys>>>,
    refusal: Mutex<Option<String>>,
    views: Views,
}

/// What each source said last.
#[derive(Debug, Default)]
struct Sources {
    own: Option<TrustBundle>,
    shared: Option<TrustBundle>,
    federated: Option<BTreeMap<TrustDomain, TrustBundle>>,
}

// === impl BundleStore ===

impl BundleStore {
    /// A store that begins with these bundles.
    pub fn new(bundles: TrustBundles) -> Self {
        Self { bundles: watch::Sender::new(Some(Arc::new(bundles))), ..Self::default() }
    }

    /// A store that begins with what the volumes tell, until a source says more.
    pub fn recovered(bundle: Option<TrustBundle>) -> Self {
        bundle.map_or_else(Self::default, |bundle| Self::new(TrustBundles::own(bundle)))
    }

    /// The same with the federated bundles, for a source that will say which of them go.
    pub fn recovered_all(trust: RecoveredTrust) -> Self {
        let RecoveredTrust { bundle, federated, .. } = trust;
        bundle.map_or_else(Self::default, |own| Self::new(TrustBundles { own, federated }))
    }

    /// These bundles as somebody sees them who is to know the federated trust domains `domains`
    /// alone. The same again while they are the newest.
    pub fn view(
        &self,
        bundles: &Arc<TrustBundles>,
        domains: &BTreeSet<TrustDomain>,
    ) -> Arc<TrustBundles> {
        self.views.of(bundles, domains)
    }

    /// The newest bundles.
    pub fn current(&self) -> Option<Arc<TrustBundles>> {
        self.bundles.borrow().clone()
    }

    /// Follows every change from now on.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<TrustBundles>>> {
        self.bundles.subscribe()
    }

    /// The CA keys that are believed stolen; `None` before anybody said.
    pub fn tainted(&self) -> Option<Arc<TaintedKeys>> {
        self.tainted.borrow().clone()
    }

    /// Follows every change of the tainted keys from now on.
    pub fn subscribe_tainted(&self) -> watch::Receiver<Option<Arc<TaintedKeys>>> {
        self.tainted.subscribe()
    }

    /// Why the bundle that is published now is not taken, so that an older one stands.
    pub fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the bundle of this process's own CA.
    pub fn publish_own(&self, own: TrustBundle) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.own = Some(own);
        self.publish(&sources);
    }

    /// Takes everybody's bundles from the one source that has them all, in place of what it said
    /// before. It counts no sequence of its own: that of the own trust domain's goes on from what
    /// is held, or begins with `now`, in Unix seconds.
    pub fn publish_all(&self, bundles: TrustBundles, now: u64) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let TrustBundles { own, federated } = bundles;
        let held = self.current().and_then(|held| held.own.sequence());
        sources.own = Some(own.with_sequence(Some(held.unwrap_or(now))));
        sources.federated = Some(federated);
        self.publish(&sources);
    }

    /// Takes what the controller publishes, as it is written, and remembers why if not.
    pub fn take_text(
        &self,
        trust_domain: &TrustDomain,
        bundle: Option<&str>,
        tainted: Option<&str>,
    ) -> Result<(), PublishedError> {
        let taken = PublishedTrust::parse(trust_domain, bundle, tainted)
            .and_then(|published| self.publish_shared(published));
        let refusal = taken.as_ref().err().map(ToString::to_string);
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
        taken
    }

    /// Takes what the controller publishes, unless it is older than what it published before.
    pub fn publish_shared(&self, published: PublishedTrust) -> Result<(), PublishedError> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = &sources.shared {
            published.check_against(held)?;
        }
        let PublishedTrust { bundle, tainted } = published;
        sources.shared = Some(bundle);
        self.publish(&sources);
        self.tainted.send_if_modified(|current| {
            let news = current.as_deref() != Some(&tainted);
            *current = Some(Arc::new(tainted));
            news
        });
        Ok(())
    }

    /// Merges the own trust domain's bundle. Equal bundles wake nobody.
    fn publish(&self, sources: &Sources) {
        self.bundles.send_if_modified(|current| {
            let held = current.as_deref();
            let (own, shared) = (sources.own.as_ref(), sources.shared.as_ref());
            let Some(own) = merge(own, shared, held.map(|held| &held.own)) else {
                return false;
            };
            let before = || held.map(|held| held.federated.clone()).unwrap_or_default();
            let federated = sources.federated.clone().unwrap_or_else(before);
            let next = TrustBundles { own, federated };
            if held == Some(&next) {
                return false;
            }
            *current = Some(Arc::new(next));
            true
        });
    }
}
