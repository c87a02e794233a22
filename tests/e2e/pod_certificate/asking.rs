//! Whoever asks for a pod's certificate.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{command::Done, ground::Ground};

pub const SIGNER: &str = "svid.dev/workload";
/// An empty PKCS#10 request, as a kubelet makes it. Nobody here has its key.
const STUB: &str = concat!(
    "MIG5MGICAQAwADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLUT2H155naam8t6M6yQWz+Yd7ssAYxS9CJh",
    "+1MVg9Q6JXpe+Ulucvs5nlreIUG2Uw6u10xNl8pP3j0q/txLf/6gADAKBggqhkjOPQQDAgNHADBEAiBgN7g5",
    "d7wQE1reJKc6TVcWmw2L/zbgJYc0KwJfKTPQIAIgCLfj/fPYM0hHa0pikYhj3Ud88pBqEOH53W6Ny54pFIE=",
);

/// Somebody with a kubeconfig.
pub struct Ask<'a> {
    ground: &'a Ground,
    /// Nothing for the administrator, who may do anything but is no node.
    kubeconfig: Option<String>,
}

// === impl Ask ===

impl<'a> Ask<'a> {
    pub fn as_admin(ground: &'a Ground) -> Self {
        Self { ground, kubeconfig: None }
    }

    /// With the certificate of a node's kubelet.
    pub fn as_kubelet(ground: &'a Ground, node: &str) -> Result<Self> {
        let path = ground.cluster.state()?.join("pki").join(format!("{node}.kubeconfig"));
        Ok(Self { ground, kubeconfig: Some(path.display().to_string()) })
    }

    /// Asks for this pod's certificate and is refused: by which words.
    pub fn refused(&self, namespace: &str, pod: &str) -> Result<String> {
        let done = self.ask(namespace, pod)?;
        ensure!(!done.status.success(), "it was made: {}", done.stdout);
        Ok(done.stderr)
    }

    /// Asks for this pod's certificate: the request's name.
    pub fn made(&self, namespace: &str, pod: &str) -> Result<String> {
        let done = self.ask(namespace, pod)?;
        ensure!(done.status.success(), "{}", done.stderr);
        let object: Value = serde_json::from_str(&done.stdout)?;
        Ok(object["metadata"]["name"].as_str().context("no name")?.to_owned())
    }

    fn ask(&self, namespace: &str, name: &str) -> Result<Done> {
        let cluster = &self.ground.cluster;
        let uid = |object: &Value| object["metadata"]["uid"].clone();
        let pod = cluster.get(namespace, "pod", name)?;
        let account = &pod["spec"]["serviceAccountName"];
        let node = &pod["spec"]["nodeName"];
        let text = |value: &Value| value.as_str().map(str::to_owned).context("no name");
        let spec: BTreeMap<&str, Value> = [
            ("signerName", json!(SIGNER)),
            ("podName", json!(name)),
            ("podUID", uid(&pod)),
            ("serviceAccountName", account.clone()),
            ("serviceAccountUID", uid(&cluster.get(namespace, "serviceaccount", &text(account)?)?)),
            ("nodeName", node.clone()),
            ("nodeUID", uid(&cluster.get("", "node", &text(node)?)?)),
            ("maxExpirationSeconds", json!(86_400)),
            ("stubPKCS10Request", json!(STUB)),
        ]
        .into();
        let object = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "PodCertificateRequest",
            "metadata": {"generateName": "forged-", "namespace": namespace},
            "spec": spec,
        });
        let path =
            format!("/apis/certificates.k8s.io/v1/namespaces/{namespace}/podcertificaterequests");
        let config = self.kubeconfig.as_ref().map(|path| format!("--kubeconfig={path}"));
        let args = config.iter().map(String::as_str).chain(["create", "--raw", &path, "-f", "-"]);
        cluster.kubectl_run(args).input(object.to_string()).done()
    }
}
