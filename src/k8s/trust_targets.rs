//! Where else the bundle is published: PEM in a ConfigMap of selected namespaces, and a
//! ClusterTrustBundle.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{ApiError, Cluster, call};
use crate::pki::TrustBundle;

/// Where else the bundle is published.
pub struct TrustTargets {
    cluster: Cluster,
    /// The ConfigMap's name and the namespaces' label selector.
    pem: Option<(String, String)>,
    /// The signer that a ClusterTrustBundle names.
    signer: Option<String>,
    /// What each namespace has.
    written: BTreeMap<String, String>,
    cluster_wide: Option<String>,
    verified: Option<Instant>,
}

/// How soon a new namespace gets its ConfigMap.
const LOOK: Duration = Duration::from_secs(20);
/// How soon what someone else changed is put right.
const VERIFY: Duration = Duration::from_secs(60);
const GROUP: &str = "certificates.k8s.io";
const KIND: &str = "ClusterTrustBundle";
const PLURAL: &str = "clustertrustbundles";

// === impl TrustTargets ===

impl TrustTargets {
    /// Nowhere, unless something is named.
    pub fn new(cluster: &Cluster, pem: Option<(String, String)>, signer: Option<String>) -> Self {
        Self {
            cluster: cluster.clone(),
            pem,
            signer,
            written: BTreeMap::new(),
            cluster_wide: None,
            verified: None,
        }
    }

    /// Publishes what `bundles` has, for ever; nothing while that is nothing. `problems` is told
    /// what goes wrong.
    pub async fn run(
        mut self,
        mut bundles: watch::Receiver<Option<TrustBundle>>,
        problems: watch::Sender<Vec<String>>,
    ) {
        if self.pem.is_none() && self.signer.is_none() {
            return;
        }
        loop {
            let bundle = bundles.borrow_and_update().clone();
            let found = match bundle {
                Some(bundle) => self.publish(&bundle.to_pem(), &bundles).await,
                None => {
                    // Whoever leads meanwhile may write something else.
                    self.verified = None;
                    Vec::new()
                }
            };
            problems.send_if_modified(|said| {
                let news = *said != found;
                *said = found;
                news
            });
            tokio::select! {
                () = sleep(LOOK) => {}
                changed = bundles.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn publish(
        &mut self,
        pem: &str,
        bundles: &watch::Receiver<Option<TrustBundle>>,
    ) -> Vec<String> {
        if self.verified.is_none_or(|at| at.elapsed() > VERIFY) {
            self.written.clear();
            self.cluster_wide = None;
            self.verified = Some(Instant::now());
        }
        let mut problems = Vec::new();
        if let Some((name, selector)) = self.pem.clone()
            && let Err(error) =
                self.config_maps(&name, &selector, pem, bundles, &mut problems).await
        {
            problems.push(error.to_string());
        }
        if let Some(signer) = self.signer.clone()
            && self.cluster_wide.as_deref() != Some(pem)
        {
            match self.cluster_trust_bundle(&signer, pem).await {
                Ok(true) => self.cluster_wide = Some(pem.to_owned()),
                Ok(false) => problems.push(format!(
                    "this API server has no {KIND} ({GROUP}/v1 or v1beta1); switch its publication off"
                )),
                Err(error) => problems.push(error.to_string()),
            }
        }
        problems
    }

    async fn config_maps(
        &mut self,
        name: &str,
        selector: &str,
        pem: &str,
        bundles: &watch::Receiver<Option<TrustBundle>>,
        problems: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let namespaces: Api<Namespace> = self.cluster.cluster_wide();
        let params = ListParams::default().labels(selector);
        let listed = call("list namespaces", namespaces.list_metadata(&params)).await?;
        let mut failed = 0_usize;
        for namespace in listed.items {
            // Nobody leads any more, or there is a newer bundle.
            if bundles.has_changed().unwrap_or(true) {
                return Ok(());
            }
            let metadata = namespace.metadata;
            let Some(namespace) = metadata.name else { continue };
            let there = self.written.get(&namespace).map(String::as_str) == Some(pem);
            if there || metadata.deletion_timestamp.is_some() {
                continue;
            }
            let api: Api<ConfigMap> = self.cluster.namespaced(&namespace);
            let object = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": { "name": name, "labels": super::bundle_publisher::labels() },
                "data": { "ca.crt": pem },
            });
            let doing = format!("write the ConfigMap {namespace}/{name}");
            match call(&doing, api.patch(name, &apply(), &Patch::Apply(object))).await {
                Ok(_) => drop(self.written.insert(namespace, pem.to_owned())),
                // One that goes meanwhile needs none.
                Err(error) if error.is_not_found() => {}
                Err(error) if failed == 0 => {
                    failed += 1;
                    problems.push(error.to_string());
                }
                Err(_) => failed += 1,
            }
        }
        if failed > 1 {
            problems.push(format!("{failed} namespaces have no current ConfigMap {name}"));
        }
        Ok(())
    }

    /// Whether the server knows such objects.
    async fn cluster_trust_bundle(&self, signer: &str, pem: &str) -> Result<bool, ApiError> {
        for version in ["v1", "v1beta1"] {
            if !self.has(version).await? {
                continue;
            }
            let kind = GroupVersionKind::gvk(GROUP, version, KIND);
            let resource = ApiResource::from_gvk_with_plural(&kind, PLURAL);
            let api: Api<DynamicObject> = Api::all_with(self.cluster.client().clone(), &resource);
            let name = format!("{}:bundle", signer.replace('/', ":"));
            let object = json!({
                "apiVersion": format!("{GROUP}/{version}"),
                "kind": KIND,
                "metadata": { "name": name, "labels": super::bundle_publisher::labels() },
                "spec": { "signerName": signer, "trustBundle": pem },
            });
            let doing = format!("write the {KIND} {name}");
            call(&doing, api.patch(&name, &apply(), &Patch::Apply(object))).await?;
            return Ok(true);
        }
        Ok(false)
    }

    async fn has(&self, version: &str) -> Result<bool, ApiError> {
        let group = format!("{GROUP}/{version}");
        let client = self.cluster.client();
        let doing = format!("ask what {group} has");
        match call(&doing, client.list_api_group_resources(&group)).await {
            Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == PLURAL)),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn apply() -> PatchParams {
    PatchParams::apply("svid-csi-controller").force()
}
