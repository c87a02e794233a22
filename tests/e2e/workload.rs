//! Pods that the suites start: one container that sleeps, one volume of ours at `/svid`.

use serde_json::{Value, json};

use crate::ground::DRIVER;

pub const MOUNT: &str = "/svid";
pub const CONTAINER: &str = "app";

/// A pod to be made.
#[derive(Clone)]
pub struct Workload {
    pod: Value,
}

// === impl Workload ===

impl Workload {
    pub fn new(namespace: &str, name: &str, image: &str) -> Self {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": CONTAINER,
                    "image": image,
                    "command": ["sleep", "infinity"],
                    "resources": {"requests": {"cpu": "1m", "memory": "4Mi"}},
                    "volumeMounts": [{"name": "svid", "mountPath": MOUNT, "readOnly": true}],
                }],
                "volumes": [{"name": "svid", "csi": {"driver": DRIVER, "readOnly": true}}],
            },
        });
        Self { pod }
    }

    /// On this node, whatever the scheduler thinks.
    pub fn on(mut self, node: &str) -> Self {
        self.spec()["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        self
    }

    /// An attribute, without our prefix.
    pub fn with(mut self, attribute: &str, value: &str) -> Self {
        let key = format!("{DRIVER}/{attribute}");
        self.spec()["volumes"][0]["csi"]["volumeAttributes"][key] = value.into();
        self
    }

    /// The pod's security context.
    pub fn security(mut self, context: Value) -> Self {
        self.spec()["securityContext"] = context;
        self
    }

    /// Another kind of volume in ours' place.
    pub fn volume(mut self, mut source: Value) -> Self {
        source["name"] = "svid".into();
        self.spec()["volumes"] = json!([source]);
        self
    }

    /// The rest of it, at one's own choice.
    pub fn spec(&mut self) -> &mut Value {
        &mut self.pod["spec"]
    }

    /// The object to apply.
    pub fn object(self) -> Value {
        self.pod
    }
}
