//! A Pod's specification as it is kept. Rules may look at any of it, and a controller knows every pod
//! of its cluster: kept as text, and once for all pods of a Deployment, it is a hundredth of the size.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    hash::Hash,
    sync::Arc,
};

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::Value;

use super::PodFacts;

/// A Pod's specification. Two that differ only in what is a pod's own share the rest.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeptSpec {
    template: Arc<Template>,
    own: Own,
}

/// What pods of one Deployment, StatefulSet or DaemonSet have in common.
#[derive(Default, PartialEq, Eq, Hash)]
struct Template {
    /// JSON, with marks where something of the pod's own belongs.
    json: Box<str>,
    service_account: Box<str>,
    /// The drivers of its inline volumes.
    drivers: Box<[String]>,
    /// The signers of its `podCertificate` projections.
    signers: Box<[String]>,
}

/// What is a pod's own; empty where it has none.
#[derive(Clone, Default, PartialEq, Eq)]
struct Own {
    node_name: Box<str>,
    /// A StatefulSet's pod has its name there, and in the names of its claims.
    hostname: Box<str>,
    /// The volume of the API's token: the API server makes up its name.
    token_volume: Box<str>,
}

/// Keeps once what many pods have.
#[derive(Default)]
pub(in crate::k8s) struct Alike {
    templates: Pool<Template>,
    labels: Pool<BTreeMap<String, String>>,
}

/// What was seen, and how much of it there was when it was last looked through.
struct Pool<T> {
    known: HashSet<Arc<T>>,
    swept: usize,
}

const TOKEN_VOLUME: &str = "kube-api-access-";
/// A pool this small is not looked through.
const SMALL: usize = 1024;

// === impl KeptSpec ===

impl KeptSpec {
    /// The node that the pod is bound to; empty while it is bound to none.
    pub fn node_name(&self) -> &str {
        &self.own.node_name
    }

    /// The ServiceAccount that it runs as.
    pub fn service_account(&self) -> &str {
        match &*self.template.service_account {
            "" => "default",
            name => name,
        }
    }

    /// Whether one of its volumes is inline and this driver's.
    pub fn uses_driver(&self, name: &str) -> bool {
        self.template.drivers.iter().any(|driver| driver == name)
    }

    /// Whether one of its projected volumes has a `podCertificate` of this signer.
    pub fn projects_certificate(&self, signer_name: &str) -> bool {
        self.template.signers.iter().any(|signer| signer == signer_name)
    }

    /// The same for a pod that is bound to this node.
    pub fn on_node(&self, name: &str) -> Self {
        let mut spec: PodSpec = serde_json::from_value(self.to_json()).unwrap_or_default();
        spec.node_name = Some(name.to_owned());
        spec.into()
    }

    /// All of it, as the API server has it.
    pub fn to_json(&self) -> Value {
        // Whatever it is not, nothing is found in `null`.
        serde_json::from_str(&self.own.put_back(&self.template.json)).unwrap_or_default()
    }
}

impl From<PodSpec> for KeptSpec {
    fn from(spec: PodSpec) -> Self {
        let volumes = || spec.volumes.iter().flatten();
        let drivers = volumes().filter_map(|volume| volume.csi.as_ref());
        let projected = volumes().filter_map(|volume| volume.projected.as_ref());
        let sources = projected.flat_map(|projected| projected.sources.iter().flatten());
        let signers = sources.filter_map(|source| source.pod_certificate.as_ref());
        let token_volume = volumes().find(|volume| volume.name.starts_with(TOKEN_VOLUME));
        let text = |text: Option<&String>| text.map(String::as_str).unwrap_or_default().into();
        let own = Own {
            node_name: text(spec.node_name.as_ref()),
            hostname: text(spec.hostname.as_ref()),
            token_volume: text(token_volume.map(|volume| &volume.name)),
        };
        let json = serde_json::to_string(&spec).unwrap_or_default();
        let template = Template {
            json: own.take_out(json).into(),
            service_account: text(spec.service_account_name.as_ref()),
            drivers: drivers.map(|csi| csi.driver.clone()).collect(),
            signers: signers.map(|projection| projection.signer_name.clone()).collect(),
        };
        Self { template: Arc::new(template), own }
    }
}

/// Without values: a specification may hold what should have been a Secret.
impl fmt::Debug for KeptSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptSpec")
            .field("node_name", &self.own.node_name)
            .field("service_account", &self.service_account())
            .finish_non_exhaustive()
    }
}

// === impl Own ===

impl Own {
    /// With the mark of each: JSON has no such bytes, so that what is put back is what was taken out.
    fn parts(&self) -> [(&str, &'static str); 3] {
        [(&self.token_volume, "\u{1}"), (&self.hostname, "\u{2}"), (&self.node_name, "\u{3}")]
    }

    fn take_out(&self, json: String) -> String {
        let parts = self.parts().into_iter().filter(|(value, _)| !value.is_empty());
        parts.fold(json, |json, (value, mark)| json.replace(value, mark))
    }

    fn put_back(&self, json: &str) -> String {
        let parts = self.parts().into_iter().rev();
        parts.fold(json.to_owned(), |json, (value, mark)| json.replace(mark, value))
    }
}

// === impl Alike ===

impl Alike {
    /// The same pod, with what it has in common with one that is known already.
    pub(in crate::k8s) fn keep(&mut self, mut pod: PodFacts) -> PodFacts {
        self.templates.share(&mut pod.spec.template);
        self.labels.share(&mut pod.labels);
        pod
    }
}

// === impl Pool ===

impl<T: Eq + Hash> Pool<T> {
    fn share(&mut self, value: &mut Arc<T>) {
        if let Some(known) = self.known.get(value) {
            *value = known.clone();
            return;
        }
        self.known.insert(value.clone());
        if self.known.len() > SMALL.max(2 * self.swept) {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.known.shrink_to_fit();
            self.swept = self.known.len();
        }
    }
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), swept: 0 }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kept(spec: &Value) -> KeptSpec {
        serde_json::from_value::<PodSpec>(spec.clone()).unwrap().into()
    }

    fn replica(node: &str, token_volume: &str) -> Value {
        json!({
            "nodeName": node, "serviceAccountName": "web",
            "containers": [{"name": "app", "volumeMounts": [{"name": token_volume, "mountPath": "/t"}]}],
            "volumes": [
                {"name": "svid", "csi": {"driver": "csi.svid.dev"}},
                {"name": token_volume, "projected": {"sources": [
                    {"podCertificate": {"signerName": "svid.dev/workload", "keyType": "ED25519"}},
                ]}},
            ],
        })
    }

    #[test]
    fn nothing_is_lost() {
        let stateful = json!({
            "containers": [], "hostname": "db-0", "nodeName": "a",
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}}],
        });
        // Where a name is a part of everything, even of the names of fields.
        let odd = json!({"containers": [{"name": "e", "args": ["\u{1}\u{3}", "\"e"]}], "hostname": "e", "nodeName": "\u{1}e\u{2}"});
        for spec in
            [replica("node-1", "kube-api-access-abcde"), stateful, odd, json!({"containers": []})]
        {
            assert_eq!(kept(&spec).to_json(), spec);
        }
    }

    #[test]
    fn what_decisions_rest_on_is_read_once() {
        let spec = kept(&replica("node-1", "kube-api-access-abcde"));
        assert_eq!((spec.node_name(), spec.service_account()), ("node-1", "web"));
        assert!(spec.uses_driver("csi.svid.dev") && !spec.uses_driver("svid.dev/workload"));
        assert!(spec.projects_certificate("svid.dev/workload"));
        assert!(!spec.projects_certificate("csi.svid.dev"));
        let bare = KeptSpec::from(PodSpec::default());
        assert_eq!((bare.node_name(), bare.service_account()), ("", "default"));
    }

    #[test]
    fn replicas_share_and_their_own_stays_their_own() {
        let mut alike = Alike::default();
        let mut keep = |node: &str, volume: &str| {
            let labels = Arc::new(BTreeMap::from([("app".to_owned(), "web".to_owned())]));
            let spec = kept(&replica(node, volume));
            alike.keep(PodFacts { labels, spec, ..PodFacts::default() })
        };
        let (one, two) =
            (keep("node-1", "kube-api-access-abcde"), keep("node-2", "kube-api-access-fghij"));
        assert!(Arc::ptr_eq(&one.spec.template, &two.spec.template));
        assert!(Arc::ptr_eq(&one.labels, &two.labels));
        assert_eq!(two.spec.to_json(), replica("node-2", "kube-api-access-fghij"));
        assert_ne!(one.spec, two.spec);
    }

    #[test]
    fn what_no_pod_has_any_longer_is_forgotten() {
        let mut pool = Pool::default();
        for n in 0..10 * SMALL {
            pool.share(&mut Arc::new(n));
            assert!(pool.known.len() <= SMALL + 1);
        }
    }

    #[test]
    fn no_value_shows_in_debug() {
        let spec =
            json!({"containers": [{"name": "a", "env": [{"name": "P", "value": "hunter2"}]}]});
        assert!(!format!("{:?}", kept(&spec)).contains("hunter2"));
    }
}
