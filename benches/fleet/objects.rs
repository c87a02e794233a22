//! The objects, each made from its number whenever somebody asks for it: none of them is kept.

use std::sync::Arc;

use serde_json::{Value, json};

pub const DRIVER_NAMESPACE: &str = "svid-csi";
pub const DRIVER_ACCOUNT: &str = "svid-csi";
/// Pods of one Deployment, which share a ServiceAccount.
const REPLICAS: usize = 50;
const NAMESPACES: usize = 200;

/// A cluster of so many nodes and pods.
#[derive(Clone)]
pub struct Fleet {
    pub nodes: usize,
    pub pods: usize,
    /// As an API server of 1.37 tells of a pod.
    template: Arc<str>,
}

/// What one pod is called.
#[derive(Clone, Debug)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub account: String,
    pub node: usize,
}

// === impl Fleet ===

impl Fleet {
    pub fn new(nodes: usize, pods: usize) -> Self {
        let template: Value = serde_json::from_str(include_str!("pod.json")).unwrap();
        Self { nodes, pods, template: template.to_string().into() }
    }

    pub fn pod(&self, n: usize) -> Pod {
        let deployment = n / REPLICAS;
        Pod {
            namespace: namespace(deployment),
            name: format!("{}-7d4b9c6f58-{}", account(deployment), suffix(n)),
            uid: uid(1, n),
            account: account(deployment),
            node: n % self.nodes,
        }
    }

    /// The driver's pod on a node.
    pub fn driver(&self, node: usize) -> Pod {
        Pod {
            namespace: DRIVER_NAMESPACE.to_owned(),
            name: format!("svid-csi-{}", suffix(node)),
            uid: uid(2, node),
            account: DRIVER_ACCOUNT.to_owned(),
            node,
        }
    }

    pub fn node_name(node: usize) -> String {
        format!("node-{node:04}")
    }

    pub fn node_uid(node: usize) -> String {
        uid(3, node)
    }

    /// That of a ServiceAccount, by its namespace and name.
    pub fn account_uid(pod: &Pod) -> String {
        let number = pod.account.strip_prefix("app-").and_then(|number| number.parse().ok());
        uid(4, number.unwrap_or(usize::from(u16::MAX)))
    }

    /// The pods as JSON, the driver's last.
    pub fn pods(&self) -> impl Iterator<Item = String> + Send + use<> {
        let (fleet, drivers) = (self.clone(), self.clone());
        let drivers = (0..self.nodes).map(move |node| {
            let pod = drivers.driver(node);
            // Its volumes are of other kinds.
            drivers
                .pod_json(&pod, &suffix(node))
                .replace(r#""driver":"csi.svid.dev""#, r#""driver":"none""#)
        });
        (0..self.pods).map(move |n| fleet.pod_json(&fleet.pod(n), &suffix(n))).chain(drivers)
    }

    fn pod_json(&self, pod: &Pod, suffix: &str) -> String {
        let address = format!("10.{}.{}.{}", pod.node / 250, pod.node % 250, suffix.len());
        self.template
            .replace("NAMESPACE", &pod.namespace)
            .replace("DEPLOYMENT", &pod.account)
            .replace("SUFFIX", suffix)
            .replace("ACCOUNT", &pod.account)
            .replace("ADDRESS", &address)
            .replace("VERSION", "1")
            .replace(r#""UID""#, &format!("{:?}", pod.uid))
            .replace(r#""NAME""#, &format!("{:?}", pod.name))
            .replace(r#""NODE""#, &format!("{:?}", Self::node_name(pod.node)))
    }

    pub fn nodes(&self) -> Vec<Value> {
        let node = |n| json!({"metadata": {"name": Self::node_name(n), "uid": Self::node_uid(n)}});
        (0..self.nodes).map(node).collect()
    }

    pub fn namespaces(&self) -> Vec<Value> {
        let of = |name: String| json!({"metadata": {"name": name, "uid": format!("uid-{name}")}});
        (0..NAMESPACES).map(|n| of(namespace(n))).chain([of(DRIVER_NAMESPACE.to_owned())]).collect()
    }

    pub fn accounts(&self) -> Vec<Value> {
        let of = |pod: Pod| {
            let uid = Self::account_uid(&pod);
            json!({"metadata": {"namespace": pod.namespace, "name": pod.account, "uid": uid}})
        };
        let deployments = (0..self.pods).step_by(REPLICAS);
        deployments.map(|n| of(self.pod(n))).chain([of(self.driver(0))]).collect()
    }
}

fn namespace(deployment: usize) -> String {
    format!("team-{:03}", deployment % NAMESPACES)
}

fn account(deployment: usize) -> String {
    format!("app-{deployment:04}")
}

/// As long as the API server's own.
fn uid(kind: usize, n: usize) -> String {
    format!("{kind:08x}-7c1b-4b7e-9f61-{n:012x}")
}

/// Five letters, as generated names have.
fn suffix(n: usize) -> String {
    let alphabet = b"bcdfghjklmnpqrstvwxz2456789";
    let letter = |place: u32| char::from(alphabet[n / alphabet.len().pow(place) % alphabet.len()]);
    (0..5).map(letter).collect()
}
