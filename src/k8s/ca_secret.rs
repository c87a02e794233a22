//! Secrets that hold a CA: our own and the upstream one.

use std::{collections::BTreeMap, fmt, future::Future};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
    runtime::watcher::Config,
};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::{ApiError, Cache, CacheState, Cluster, ObjectName, call};

/// One Secret, by name.
#[derive(Clone)]
pub struct CaSecret {
    api: Api<Secret>,
    name: ObjectName,
}

/// What is in the Secret, and which version of it.
pub struct StoredSecret {
    /// Without its data.
    object: Secret,
    data: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

// === impl CaSecret ===

impl CaSecret {
    /// The Secret of that name.
    pub fn new(cluster: &Cluster, namespace: &str, name: &str) -> Self {
        Self { api: cluster.namespaced(namespace), name: ObjectName::new(namespace, name) }
    }

    /// Its name.
    pub fn name(&self) -> &ObjectName {
        &self.name
    }

    /// What the API server has now; nothing if there is no such Secret.
    pub async fn read(&self) -> Result<Option<StoredSecret>, ApiError> {
        let doing = format!("read the Secret {}", self.name);
        Ok(call(&doing, self.api.get_opt(&self.name.name)).await?.map(StoredSecret::of))
    }

    /// Makes it.
    pub async fn create(
        &self,
        data: BTreeMap<String, Zeroizing<Vec<u8>>>,
    ) -> Result<StoredSecret, ApiError> {
        let metadata = ObjectMeta {
            name: Some(self.name.name.clone()),
            labels: Some(super::bundle_publisher::labels()),
            ..ObjectMeta::default()
        };
        let object = Secret { metadata, type_: Some("Opaque".to_owned()), ..Secret::default() };
        let object = with_data(object, data);
        let doing = format!("create the Secret {}", self.name);
        call(&doing, self.api.create(&PostParams::default(), &object)).await.map(StoredSecret::of)
    }

    /// Replaces its data if nobody did since `old` was read.
    pub async fn replace(
        &self,
        old: StoredSecret,
        data: BTreeMap<String, Zeroizing<Vec<u8>>>,
    ) -> Result<StoredSecret, ApiError> {
        let object = with_data(old.object, data);
        let doing = format!("write the Secret {}", self.name);
        call(&doing, self.api.replace(&self.name.name, &PostParams::default(), &object))
            .await
            .map(StoredSecret::of)
    }

    /// Tells of each change of it, while the future runs.
    pub fn follow(
        &self,
    ) -> (watch::Receiver<CacheState>, impl Future<Output = ()> + Send + 'static) {
        let cache: Cache<()> = Cache::default();
        let scope = Config::default().fields(&format!("metadata.name={}", self.name.name));
        let state = cache.state();
        (state, cache.follow("CA Secret", self.api.clone(), scope, |_secret| Some(()), |_| {}))
    }
}

fn with_data(object: Secret, data: BTreeMap<String, Zeroizing<Vec<u8>>>) -> Secret {
    let data =
        data.into_iter().map(|(name, mut bytes)| (name, ByteString(std::mem::take(&mut bytes))));
    Secret { data: Some(data.collect()), ..object }
}

// === impl StoredSecret ===

impl StoredSecret {
    fn of(mut object: Secret) -> Self {
        let data = object.data.take().unwrap_or_default();
        let data = data.into_iter().map(|(name, bytes)| (name, Zeroizing::new(bytes.0))).collect();
        Self { object, data }
    }

    /// Its data.
    pub fn data(&self) -> &BTreeMap<String, Zeroizing<Vec<u8>>> {
        &self.data
    }

    /// Tells this object from another of its name.
    pub fn uid(&self) -> &str {
        self.object.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Differs whenever anything in it does.
    pub fn version(&self) -> &str {
        self.object.metadata.resource_version.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSecret").field("version", &self.version()).finish_non_exhaustive()
    }
}
