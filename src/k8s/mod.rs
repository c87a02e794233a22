//! The Kubernetes API: the only user of `kube`. Each file is one kind of object and the few things
//! that are done to it; everything else sees plain types.

mod access_reviews;
mod bundle_map;
mod bundle_publisher;
mod ca_secret;
mod cache;
mod certificate_request;
mod certificate_request_decisions;
mod certificate_requests;
mod config_text;
mod error;
mod events;
mod facts;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
pub(crate) mod fake_store;
#[cfg(test)]
pub(crate) mod fake_tokens;
mod fence;
mod inventory;
mod issuer_ref;
mod lease;
pub mod names;
mod pod_certificates;
mod request_decisions;
mod requests;
mod service_account_tokens;
mod svid_policy;
mod trust_targets;
mod verdict;
mod whoami;

use std::{future::Future, time::Duration};

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::{
    Api, Client, Config, Resource,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::time::timeout;

pub use self::{
    access_reviews::Subject,
    bundle_map::BundleText,
    bundle_publisher::{BundleMap, BundleMapContent, BundlePublisher},
    ca_secret::{CaSecret, StoredSecret},
    cache::{Cache, CacheState, Change, ObjectName},
    certificate_request::{
        CertificateRequest, CertificateRequestCondition, CertificateRequestSpec,
        CertificateRequestStatus,
    },
    certificate_request_decisions::{CertificateRequestDecisions, CertificateRequestFacts},
    certificate_requests::CertificateRequests,
    config_text::ConfigText,
    error::{ApiError, ApiErrorKind},
    events::{EventReason, EventWriter, PodEvent, PodEvents},
    facts::{
        ConditionFacts, KeptSpec, NamespaceFacts, NodeFacts, PodFacts, RequestFacts,
        ServiceAccountFacts, TaintFacts,
    },
    fence::Fence,
    inventory::{Following, Inventory},
    issuer_ref::{CERT_MANAGER_GROUP, IssuerRef, IssuerRefError},
    lease::{Candidate, Terms},
    pod_certificates::{OfferedKey, PodCertificate, PodCertificateFacts, PodCertificates, Served},
    request_decisions::RequestDecisions,
    requests::{NewRequest, OwnRequest},
    service_account_tokens::{PublishedTokenKeys, ReviewedToken},
    svid_policy::{
        JwtPolicy, LabelRequirement, Labels, MatchedPods, PolicyCondition, PolicyFacts, PolicyRule,
        PolicySelector, SvidPolicy, SvidPolicySpec, SvidPolicyStatus, X509Policy,
        svid_policy_definition,
    },
    trust_targets::TrustTargets,
    verdict::{ApprovalMessage, IdentityIs, LifetimeIs},
    whoami::WhoAmI,
};

/// The longest that one call may take. Watches are not calls.
const CALL: Duration = Duration::from_secs(15);

/// Access to one cluster's API server. Cheap to clone; connects when it is first used, and again
/// whenever it has to.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
}

// === impl Cluster ===

impl Cluster {
    /// As a pod: the API server's address from the environment, the ServiceAccount's token and the
    /// cluster's CA from files that are read again when they change.
    pub fn in_cluster() -> Result<Self, ApiError> {
        let config = Config::incluster().map_err(|error| ApiError::setup("as a pod", &error))?;
        Self::with(config)
    }

    /// As a person: from `KUBECONFIG` or `~/.kube/config`, its current context or this one.
    pub async fn from_kubeconfig(context: Option<&str>) -> Result<Self, ApiError> {
        let setup = |error: &dyn std::error::Error| ApiError::setup("by the kubeconfig", error);
        let file = Kubeconfig::read().map_err(|error| setup(&error))?;
        let options =
            KubeConfigOptions { context: context.map(str::to_owned), ..Default::default() };
        let config =
            Config::from_custom_kubeconfig(file, &options).await.map_err(|error| setup(&error))?;
        Self::with(config)
    }

    fn with(mut config: Config) -> Result<Self, ApiError> {
        // Who calls knows how long it is worth trying, and how urgent it is.
        config.default_retry = false;
        let namespace = config.default_namespace.clone();
        let client =
            Client::try_from(config).map_err(|error| ApiError::setup("with TLS", &error))?;
        Ok(Self { client, namespace })
    }

    #[cfg(test)]
    fn with_client(client: Client) -> Self {
        Self { client, namespace: "default".to_owned() }
    }

    /// The namespace of the pod, or of the kubeconfig's context.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(in crate::k8s) fn client(&self) -> &Client {
        &self.client
    }

    /// Objects that are in no namespace.
    pub(in crate::k8s) fn cluster_wide<K>(&self) -> Api<K>
    where
        K: Resource<Scope = ClusterResourceScope, DynamicType = ()>,
    {
        Api::all(self.client.clone())
    }

    /// Objects of one namespace.
    pub(in crate::k8s) fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Objects of every namespace.
    pub(in crate::k8s) fn everywhere<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = ()>,
    {
        Api::all(self.client.clone())
    }
}

/// Waits for one call, but not for ever; `doing` says what for, as in "create the request".
pub(in crate::k8s) async fn call<T>(
    doing: &str,
    answer: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    match timeout(CALL, answer).await {
        Ok(answer) => answer.map_err(|error| ApiError::new(doing, &error)),
        Err(_elapsed) => Err(ApiError::silent(doing, CALL)),
    }
}
