//! A ConfigMap that a person or another program writes, and that is read here whenever it changes.

use std::{collections::BTreeMap, future::Future};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, runtime::watcher::Config};

use super::{ApiError, Cache, Cluster, IssuerRef, ObjectName, call, names::issuer_map};

/// What is in one. It may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigText(pub BTreeMap<String, String>);

// === impl ConfigText ===

impl ConfigText {
    /// Follows the one ConfigMap of this name while the future runs.
    pub fn follow(
        cluster: &Cluster,
        what: &'static str,
        name: &ObjectName,
    ) -> (Cache<Self>, impl Future<Output = ()> + Send + use<>) {
        let api: Api<ConfigMap> = cluster.namespaced(&name.namespace);
        // RBAC that names the one object allows no other watch.
        let scope = Config::default().fields(&format!("metadata.name={}", name.name));
        let cache = Cache::default();
        let keep = |map: ConfigMap| Some(Self(map.data.unwrap_or_default()));
        let follow = cache.clone().follow(what, api, scope, keep, |_| {});
        (cache, follow)
    }

    /// Reads it now; `None` is no ConfigMap.
    pub async fn read(cluster: &Cluster, name: &ObjectName) -> Result<Option<Self>, ApiError> {
        let api: Api<ConfigMap> = cluster.namespaced(&name.namespace);
        let map = call("read a ConfigMap", api.get_opt(&name.name)).await?;
        Ok(map.map(|map| Self(map.data.unwrap_or_default())))
    }

    /// One value, if it is there.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The issuer that it names, or why it names none.
    pub fn issuer(&self) -> Result<IssuerRef, String> {
        let Some(name) = self.get(issuer_map::NAME) else {
            return Err(format!("it has no {}", issuer_map::NAME));
        };
        let (kind, group) = (self.get(issuer_map::KIND), self.get(issuer_map::GROUP));
        IssuerRef::new(name, kind, group).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_needs_no_more_than_a_name() {
        let text = |pairs: &[(&str, &str)]| {
            ConfigText(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        let plain = text(&[("issuer-name", "a")]).issuer().unwrap();
        assert_eq!(plain.to_string(), "ClusterIssuer/a");
        let pairs = [("issuer-name", "a"), ("issuer-kind", "Issuer"), ("issuer-group", "x.io")];
        assert_eq!(text(&pairs).issuer().unwrap().to_string(), "Issuer.x.io/a");
        for bad in [&[][..], &[("issuer-kind", "Issuer")], &[("issuer-name", "")]] {
            assert!(text(bad).issuer().is_err());
        }
    }
}
