//! What decisions rest on: pods, nodes, namespaces, ServiceAccounts and policies, as they were last
//! told or as they are now.

use std::{future::Future, pin::Pin};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::{
    Api, Resource,
    api::{ListParams, Patch, PatchParams},
    runtime::watcher::Config,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{
    ApiError, Cache, Cluster, NamespaceFacts, NodeFacts, ObjectName, PodFacts, PolicyFacts,
    ServiceAccountFacts, SvidPolicy, SvidPolicyStatus, call, facts::Alike,
};

/// Everything that decisions rest on. Cheap to clone.
#[derive(Clone)]
pub struct Inventory {
    cluster: Cluster,
    /// Pods that use the driver, and the driver's own. Others are read live when somebody names
    /// them.
    pub pods: Cache<PodFacts>,
    /// Nodes.
    pub nodes: Cache<NodeFacts>,
    /// Namespaces.
    pub namespaces: Cache<NamespaceFacts>,
    /// ServiceAccounts.
    pub service_accounts: Cache<ServiceAccountFacts>,
    /// SvidPolicies.
    pub policies: Cache<PolicyFacts>,
}

/// A watch that runs until it is dropped.
pub type Following = Pin<Box<dyn Future<Output = ()> + Send>>;

// === impl Inventory ===

impl Inventory {
    /// With nothing told yet.
    pub fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            pods: Cache::default(),
            nodes: Cache::default(),
            namespaces: Cache::default(),
            service_accounts: Cache::default(),
            policies: Cache::default(),
        }
    }

    /// The watches, by the plural of what they watch. Of pods only those are kept that use this
    /// driver, project a `podCertificate` of this signer, or run as the driver's ServiceAccount.
    pub fn follow(
        &self,
        driver_name: String,
        driver_service_account: ObjectName,
        pod_certificate_signer: Option<String>,
    ) -> Vec<(&'static str, Following)> {
        let counts = move |pod: &PodFacts| {
            pod.uses_driver(&driver_name)
                || pod_certificate_signer.as_deref().is_some_and(|it| pod.projects_certificate(it))
                || (pod.namespace == driver_service_account.namespace
                    && pod.service_account() == driver_service_account.name)
        };
        let mut alike = Alike::default();
        let pods = self.pods.clone().follow(
            "pods",
            self.cluster.everywhere::<Pod>(),
            Config::default(),
            move |pod| Some(PodFacts::from(pod)).filter(&counts).map(|pod| alike.keep(pod)),
            |_| {},
        );
        let nodes = follow(&self.nodes, "nodes", self.cluster.cluster_wide::<Node>());
        let namespaces =
            follow(&self.namespaces, "namespaces", self.cluster.cluster_wide::<Namespace>());
        let service_accounts = follow(
            &self.service_accounts,
            "serviceaccounts",
            self.cluster.everywhere::<ServiceAccount>(),
        );
        let policies =
            follow(&self.policies, "svidpolicies", self.cluster.cluster_wide::<SvidPolicy>());
        vec![
            ("pods", Box::pin(pods)),
            ("nodes", nodes),
            ("namespaces", namespaces),
            ("serviceaccounts", service_accounts),
            ("svidpolicies", policies),
        ]
    }

    /// A pod as it is now.
    pub async fn read_pod(&self, name: &ObjectName) -> Result<Option<PodFacts>, ApiError> {
        read::<Pod, _>("read a Pod", self.cluster.namespaced(&name.namespace), name).await
    }

    /// A node as it is now.
    pub async fn read_node(&self, name: &ObjectName) -> Result<Option<NodeFacts>, ApiError> {
        read::<Node, _>("read a Node", self.cluster.cluster_wide(), name).await
    }

    /// A namespace as it is now.
    pub async fn read_namespace(
        &self,
        name: &ObjectName,
    ) -> Result<Option<NamespaceFacts>, ApiError> {
        read::<Namespace, _>("read a Namespace", self.cluster.cluster_wide(), name).await
    }

    /// A ServiceAccount as it is now.
    pub async fn read_service_account(
        &self,
        name: &ObjectName,
    ) -> Result<Option<ServiceAccountFacts>, ApiError> {
        let api = self.cluster.namespaced(&name.namespace);
        read::<ServiceAccount, _>("read a ServiceAccount", api, name).await
    }

    /// The policies as they are now.
    pub async fn read_policies(&self) -> Result<Vec<PolicyFacts>, ApiError> {
        let api = self.cluster.cluster_wide::<SvidPolicy>();
        let all = call("list SvidPolicies", api.list(&ListParams::default())).await?;
        Ok(all.items.into_iter().map(PolicyFacts::from).collect())
    }

    /// Says what was found out about a policy.
    pub async fn write_policy_status(
        &self,
        name: &str,
        status: &SvidPolicyStatus,
    ) -> Result<(), ApiError> {
        let api = self.cluster.cluster_wide::<SvidPolicy>();
        let patch = Patch::Merge(json!({ "status": status }));
        let params = PatchParams::default();
        let answer = api.patch_status(name, &params, &patch);
        call("write a SvidPolicy's status", answer).await.map(drop)
    }
}

fn follow<K, T>(cache: &Cache<T>, what: &'static str, api: Api<K>) -> Following
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
    T: From<K> + Send + Sync + 'static,
{
    Box::pin(cache.clone().follow(what, api, Config::default(), |k| Some(T::from(k)), |_| {}))
}

async fn read<K, T>(
    doing: &'static str,
    api: Api<K>,
    name: &ObjectName,
) -> Result<Option<T>, ApiError>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
    T: From<K>,
{
    // Requesters choose these names, and they become part of a URL.
    let in_namespace = name.namespace.is_empty() || is_name(&name.namespace);
    if !in_namespace || !is_name(&name.name) {
        return Ok(None);
    }
    Ok(call(doing, api.get_opt(&name.name)).await?.map(T::from))
}

/// What the API server takes as a name: RFC 1123, so that nothing else can exist.
fn is_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [name.bytes().next(), name.bytes().last()];
    name.len() <= 253
        && name.bytes().all(|byte| inner(byte) || b"-.".contains(&byte))
        && ends.into_iter().all(|byte| byte.is_some_and(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_elsewhere() {
        for good in ["a", "cart-0", "web-7d4b9c-x2x", "a.b", "0"] {
            assert!(is_name(good), "{good}");
        }
        let long = "a".repeat(254);
        for bad in
            ["", ".", "..", "../secrets/x", "a/log", "a?b", "a%2fb", "-a", "a-", "A", "é", &long]
        {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
