//! The bundle's ConfigMap, as its many readers see it.

use std::future::Future;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, runtime::watcher::Config};

use super::{Cache, Cluster, ObjectName, names::bundle_map};

/// What is in the bundle's ConfigMap. It may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BundleText {
    /// The SPIFFE bundle.
    pub bundle: Option<String>,
    /// Identifiers of CA keys that are believed stolen, a line each.
    pub tainted: Option<String>,
}

// === impl BundleText ===

impl BundleText {
    /// Follows the one ConfigMap of this name while the future runs.
    pub fn follow(
        cluster: &Cluster,
        name: &ObjectName,
    ) -> (Cache<Self>, impl Future<Output = ()> + Send + 'static) {
        let api: Api<ConfigMap> = cluster.namespaced(&name.namespace);
        // RBAC that names the one object allows no other watch.
        let scope = Config::default().fields(&format!("metadata.name={}", name.name));
        let cache = Cache::default();
        let follow =
            cache.clone().follow("bundle ConfigMap", api, scope, |map| Some(Self::of(map)), |_| {});
        (cache, follow)
    }

    fn of(map: ConfigMap) -> Self {
        let mut data = map.data.unwrap_or_default();
        Self { bundle: data.remove(bundle_map::BUNDLE), tainted: data.remove(bundle_map::TAINTED) }
    }
}
