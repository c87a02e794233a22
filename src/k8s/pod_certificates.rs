//! PodCertificateRequests (KEP-4317) as their signer sees them: all that are for one signer name, in
//! whatever version the API server has, and what is decided about them. Every write names the version
//! that it was decided on.

mod facts;
#[cfg(test)]
mod tests;

use std::{
    future::{Future, pending},
    sync::Arc,
    time::{Duration, SystemTime},
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api,
    api::{ApiResource, GroupVersionKind, Patch, PatchParams},
    runtime::watcher::Config,
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use self::facts::PodCertificateRequest;
pub use self::facts::{OfferedKey, PodCertificateFacts};
use super::{ApiError, Cache, Change, Cluster, call};

/// PodCertificateRequests for one signer name. Cheap to clone.
#[derive(Clone)]
pub struct PodCertificates {
    cluster: Cluster,
    signer: Arc<str>,
    served: watch::Sender<Served>,
}

/// Whether the API server has PodCertificateRequests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// It was not asked yet, or did not answer.
    Unknown,
    /// No: it is older than 1.35, or they are switched off.
    No,
    /// In this version.
    In(&'static str),
}

/// A certificate for a pod.
#[derive(Clone, Debug)]
pub struct PodCertificate {
    /// The chain in PEM, leaf first, without the root.
    pub chain_pem: String,
    /// When it begins.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
    /// When the kubelet is to ask for the next; at least ten minutes from both.
    pub begin_refresh_at: SystemTime,
}

const GROUP: &str = "certificates.k8s.io";
const KIND: &str = "PodCertificateRequest";
const PLURAL: &str = "podcertificaterequests";
/// Where there are both, only the older has the bare keys of older kubelets, and all else as well.
const VERSIONS: [&str; 2] = ["v1beta1", "v1"];
/// Whose fields they are, as `managedFields` shows it.
const MANAGER: &str = "svid-csi-controller";
/// A request may be as large as the API server takes: not many of those are listed at once.
const PAGE: u32 = 50;
/// A longer message helps nobody.
const LONGEST_MESSAGE: usize = 4096;
/// How soon it is seen that an API server has them now.
const LOOK: Duration = Duration::from_secs(60);
/// How soon a server that did not answer, or whose watch fails, is asked again.
const AGAIN: Duration = Duration::from_secs(5);

// === impl PodCertificates ===

impl PodCertificates {
    /// For this signer name, in this cluster.
    pub fn new(cluster: &Cluster, signer: &str) -> Self {
        let served = watch::Sender::new(Served::Unknown);
        Self { cluster: cluster.clone(), signer: signer.into(), served }
    }

    /// Whether there are such objects, as was last heard.
    pub fn served(&self) -> Served {
        *self.served.borrow()
    }

    /// Follows all requests for our signer for ever, in the version that the API server has now; where
    /// it has none it is asked again now and then.
    pub fn follow(
        &self,
        cache: Cache<PodCertificateFacts>,
        on_change: impl FnMut(Change<PodCertificateFacts>) + Clone + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let this = self.clone();
        async move {
            loop {
                let served = match this.discover().await {
                    Ok(served) => served,
                    Err(error) => {
                        warn!(%error, "nobody knows whether there are {PLURAL}");
                        sleep(AGAIN).await;
                        continue;
                    }
                };
                this.say(served);
                let Served::In(version) = served else {
                    cache.rests();
                    sleep(LOOK).await;
                    continue;
                };
                let signer = this.signer.clone();
                let keep = move |object: PodCertificateRequest| {
                    let facts = PodCertificateFacts::from(object);
                    (*facts.signer_name == *signer).then_some(facts)
                };
                let fields = format!("spec.signerName={}", this.signer);
                let scope = Config::default().fields(&fields).page_size(PAGE);
                let api = Api::all_with(this.cluster.client().clone(), &resource(version));
                let watching = cache.clone().follow(PLURAL, api, scope, keep, on_change.clone());
                tokio::select! {
                    () = watching => {}
                    () = this.moved(&cache, version) => {}
                }
            }
        }
    }

    /// Ends when the API server has them in another version, or no more. It is asked while the watch
    /// fails: an upgrade breaks every watch.
    async fn moved(&self, cache: &Cache<PodCertificateFacts>, version: &'static str) {
        let mut state = cache.state();
        loop {
            if state.wait_for(|state| state.problem.is_some()).await.is_err() {
                return pending().await;
            }
            if self.discover().await.is_ok_and(|served| served != Served::In(version)) {
                return;
            }
            sleep(AGAIN).await;
        }
    }

    async fn discover(&self) -> Result<Served, ApiError> {
        for version in VERSIONS {
            let group = format!("{GROUP}/{version}");
            let doing = format!("ask what {group} has");
            let client = self.cluster.client();
            match call(&doing, client.list_api_group_resources(&group)).await {
                Ok(list) if list.resources.iter().any(|resource| resource.name == PLURAL) => {
                    return Ok(Served::In(version));
                }
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Served::No)
    }

    fn say(&self, served: Served) {
        if self.served.send_replace(served) == served {
            return;
        }
        match served {
            Served::In(version) => info!(version, signer = &*self.signer, "{PLURAL} are signed"),
            Served::No | Served::Unknown => warn!(
                "this API server has no {PLURAL} ({GROUP}/v1 from Kubernetes 1.37 on, v1beta1 where \
                 it is switched on); none are signed"
            ),
        }
    }

    /// Answers a request with its certificate: the condition Issued with this reason and message.
    pub async fn issue(
        &self,
        request: &PodCertificateFacts,
        certificate: &PodCertificate,
        reason: &str,
        message: &str,
        now: SystemTime,
    ) -> Result<(), ApiError> {
        let status = json!({
            "conditions": [condition("Issued", reason, message, now)],
            "certificateChain": certificate.chain_pem,
            "notBefore": time(certificate.not_before),
            "notAfter": time(certificate.not_after),
            "beginRefreshAt": time(certificate.begin_refresh_at),
        });
        self.write("issue a PodCertificateRequest's certificate", request, status).await
    }

    /// Refuses it for good: the condition Denied.
    pub async fn deny(
        &self,
        request: &PodCertificateFacts,
        reason: &str,
        message: &str,
        now: SystemTime,
    ) -> Result<(), ApiError> {
        let message: String = message.chars().take(LONGEST_MESSAGE).collect();
        let status = json!({"conditions": [condition("Denied", reason, &message, now)]});
        self.write("deny a PodCertificateRequest", request, status).await
    }

    async fn write(
        &self,
        doing: &str,
        request: &PodCertificateFacts,
        status: Value,
    ) -> Result<(), ApiError> {
        let Served::In(version) = self.served() else {
            return Err(ApiError::gone(doing, KIND));
        };
        let client = self.cluster.client().clone();
        let api: Api<PodCertificateRequest> =
            Api::namespaced_with(client, &request.name.namespace, &resource(version));
        // Another version, or another object of that name, is a conflict.
        let patch = Patch::Merge(json!({
            "metadata": {"uid": request.uid, "resourceVersion": request.resource_version},
            "status": status,
        }));
        let params = PatchParams::apply(MANAGER);
        call(doing, api.patch_status(&request.name.name, &params, &patch)).await.map(drop)
    }
}

fn resource(version: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, version, KIND), PLURAL)
}

fn condition(kind: &str, reason: &str, message: &str, now: SystemTime) -> Value {
    json!({
        "type": kind, "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": time(now),
    })
}

/// As the API has times: whole seconds.
fn time(time: SystemTime) -> Option<Time> {
    Timestamp::try_from(time).ok().map(Time)
}
