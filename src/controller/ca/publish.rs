//! What the bundle's ConfigMap is to hold, and what it holds.

use super::{
    CaSettings, CaState,
    answer::stale,
    lifecycle::Published,
    moment::Moment,
    request::{Outcome, Request},
    status::{CaStatus, LastRequest},
};
use crate::{
    k8s::{BundleMap, BundleMapContent, Cluster, TrustTargets, names::SIGNER},
    pki::{BundleError, TrustBundle},
};

/// What is to be published.
pub(super) struct Standing<'a> {
    pub(super) state: &'a CaState,
    pub(super) settings: &'a CaSettings,
    pub(super) problems: &'a [String],
    pub(super) now: Moment,
}

// === impl Standing ===

impl Standing<'_> {
    /// What to write; nothing where it is there already.
    pub(super) fn content(
        &self,
        map: Option<&BundleMap>,
    ) -> Result<Option<BundleMapContent>, BundleError> {
        let bundle = self.state.trust_bundle(self.settings)?.to_jwks();
        let status = CaStatus::of(self.state, self.settings, self.problems, self.now);
        let content = BundleMapContent {
            seal: self.state.seal.seal(&bundle),
            bundle,
            tainted: self.state.tainted(self.now),
            status: status.to_json(),
        };
        let there = map.is_some_and(|map| {
            map.bundle() == Some(&content.bundle)
                && map.seal() == Some(&content.seal)
                && map.tainted() == content.tainted
                && self::status(map).is_some_and(|there| there.says_the_same(&status))
        });
        Ok((!there).then_some(content))
    }
}

/// The bundle in the ConfigMap, if it can be read.
pub(super) fn read(
    map: &BundleMap,
    settings: &CaSettings,
    state: Option<&CaState>,
    problems: &mut Vec<String>,
) -> Option<Published> {
    let text = map.bundle()?;
    match TrustBundle::from_jwks(settings.trust_domain.clone(), text.as_bytes()) {
        Ok(bundle) => {
            let ours = |seal| state.is_some_and(|state| state.seal.is_of(seal, text));
            Some(Published { bundle, ours: map.seal().is_some_and(ours) })
        }
        Err(error) => {
            problems.push(format!("the ConfigMap {}: {error}", settings.config_map));
            None
        }
    }
}

/// The status in the ConfigMap, if it can be read.
pub(super) fn status(map: &BundleMap) -> Option<CaStatus> {
    CaStatus::from_json(map.status()?).ok()
}

/// The same ConfigMap with another word on what is wrong; nothing where that is there already. A
/// request is refused meanwhile.
pub(super) fn with_problem(
    map: &BundleMap,
    request: Option<&Request>,
    problems: &[String],
    now: Moment,
) -> Option<BundleMapContent> {
    let there = status(map)?;
    let problem = (!problems.is_empty()).then(|| problems.join("; "));
    let answered = there.last_request.as_ref().map(|answered| answered.uid.clone());
    let refused = request.filter(|request| answered.as_ref() != Some(&request.uid));
    let last_request = match refused {
        Some(request) => Some(LastRequest {
            uid: request.uid.clone(),
            action: request.action,
            outcome: Outcome::Refused,
            message: stale(request, now).or_else(|| problem.clone()).unwrap_or_default(),
            at: now,
        }),
        None => there.last_request.clone(),
    };
    let status = CaStatus { problem, last_request, updated: now, ..there.clone() };
    (!there.says_the_same(&status)).then(|| BundleMapContent {
        bundle: map.bundle().unwrap_or_default().to_owned(),
        tainted: map.tainted(),
        status: status.to_json(),
        seal: map.seal().unwrap_or_default().to_owned(),
    })
}

/// Where else the bundle goes.
pub(super) fn targets(cluster: &Cluster, settings: &CaSettings) -> TrustTargets {
    let pem = settings.pem_config_map.as_ref();
    let pem = pem.map(|pem| (pem.name.clone(), pem.namespaces.clone()));
    let cluster_wide = settings.cluster_trust_bundle.then(|| SIGNER.to_owned());
    TrustTargets::new(cluster, pem, cluster_wide)
}
