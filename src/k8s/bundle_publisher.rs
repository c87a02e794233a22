//! The bundle's ConfigMap, as its one writer sees it.

use std::{collections::BTreeMap, future::Future};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    runtime::watcher::Config,
};
use serde_json::json;
use tokio::sync::watch;

use super::{
    ApiError, Cache, CacheState, Cluster, ObjectName, call,
    names::{annotation, bundle_map},
};

/// The bundle's ConfigMap, by name.
#[derive(Clone)]
pub struct BundlePublisher {
    api: Api<ConfigMap>,
    name: ObjectName,
}

/// What is in it, and which version of it.
#[derive(Clone, Debug, Default)]
pub struct BundleMap {
    object: ConfigMap,
}

/// What is to be in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BundleMapContent {
    /// The SPIFFE bundle.
    pub bundle: String,
    /// Key identifiers that are believed stolen.
    pub tainted: Vec<String>,
    /// What `svid-csi ca show` shows.
    pub status: String,
    /// Tells that the bundle is ours.
    pub seal: String,
}

// === impl BundlePublisher ===

impl BundlePublisher {
    /// The ConfigMap of that name.
    pub fn new(cluster: &Cluster, namespace: &str, name: &str) -> Self {
        Self { api: cluster.namespaced(namespace), name: ObjectName::new(namespace, name) }
    }

    /// Its name.
    pub fn name(&self) -> &ObjectName {
        &self.name
    }

    /// What the API server has now; nothing if there is no such ConfigMap.
    pub async fn read(&self) -> Result<Option<BundleMap>, ApiError> {
        let doing = format!("read the ConfigMap {}", self.name);
        let object = call(&doing, self.api.get_opt(&self.name.name)).await?;
        Ok(object.map(|object| BundleMap { object }))
    }

    /// Writes it if nobody did since `old` was read; makes it where there was none.
    pub async fn write(
        &self,
        old: Option<BundleMap>,
        content: &BundleMapContent,
    ) -> Result<BundleMap, ApiError> {
        let there = old.is_some();
        let mut object = old.unwrap_or_default().object;
        let mut tainted = content.tainted.join("\n");
        if !tainted.is_empty() {
            tainted.push('\n');
        }
        object.data.get_or_insert_default().extend([
            (bundle_map::BUNDLE.to_owned(), content.bundle.clone()),
            (bundle_map::TAINTED.to_owned(), tainted),
            (bundle_map::STATUS.to_owned(), content.status.clone()),
        ]);
        let metadata = &mut object.metadata;
        let seal = (annotation::BUNDLE_SEAL.to_owned(), content.seal.clone());
        metadata.annotations.get_or_insert_default().extend([seal]);
        let params = PostParams::default();
        let object = if there {
            let doing = format!("write the ConfigMap {}", self.name);
            call(&doing, self.api.replace(&self.name.name, &params, &object)).await?
        } else {
            metadata.name = Some(self.name.name.clone());
            metadata.labels = Some(labels());
            let doing = format!("create the ConfigMap {}", self.name);
            call(&doing, self.api.create(&params, &object)).await?
        };
        Ok(BundleMap { object })
    }

    /// Leaves a request for the leader: an annotation.
    pub async fn request(&self, request: &str) -> Result<(), ApiError> {
        let patch = json!({ "metadata": { "annotations": { annotation::CA_REQUEST: request } } });
        let doing = format!("annotate the ConfigMap {}", self.name);
        let params = PatchParams::default();
        call(&doing, self.api.patch(&self.name.name, &params, &Patch::Merge(patch))).await?;
        Ok(())
    }

    /// Tells of each change of it, while the future runs.
    pub fn follow(
        &self,
    ) -> (watch::Receiver<CacheState>, impl Future<Output = ()> + Send + 'static) {
        let cache: Cache<()> = Cache::default();
        let scope = Config::default().fields(&format!("metadata.name={}", self.name.name));
        let state = cache.state();
        (state, cache.follow("bundle ConfigMap", self.api.clone(), scope, |_map| Some(()), |_| {}))
    }
}

/// On what the controller makes.
pub(super) fn labels() -> BTreeMap<String, String> {
    [("app.kubernetes.io/managed-by".to_owned(), "svid-csi-controller".to_owned())].into()
}

// === impl BundleMap ===

impl BundleMap {
    /// Tells this object from another of its name.
    pub fn uid(&self) -> &str {
        self.object.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The SPIFFE bundle, if there is one.
    pub fn bundle(&self) -> Option<&str> {
        self.data(bundle_map::BUNDLE)
    }

    /// The status, if there is one.
    pub fn status(&self) -> Option<&str> {
        self.data(bundle_map::STATUS)
    }

    /// Key identifiers that are believed stolen.
    pub fn tainted(&self) -> Vec<String> {
        let lines = self.data(bundle_map::TAINTED).unwrap_or_default().lines();
        lines.map(str::to_owned).collect()
    }

    /// What tells whose bundle it is.
    pub fn seal(&self) -> Option<&str> {
        self.annotation(annotation::BUNDLE_SEAL)
    }

    /// What a person wants done to the CA.
    pub fn request(&self) -> Option<&str> {
        self.annotation(annotation::CA_REQUEST)
    }

    fn data(&self, key: &str) -> Option<&str> {
        self.object.data.as_ref()?.get(key).map(String::as_str)
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.object.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }
}
