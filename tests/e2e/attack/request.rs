//! A request as the driver makes it, to be bent.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD as STANDARD};
use serde_json::{Value, json};

use crate::{patience::now, pod::Pod};

use super::{csr::Csr, field::Field};

pub const SIGNER: &str = "svid.dev/workload";
pub const COLLECTION: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const NODE_UID: &str = "csi.svid.dev/node-uid";

#[derive(Clone, Debug)]
pub struct Request {
    pub name: String,
    pub signer: &'static str,
    pub csr: Csr,
    pub usages: Vec<&'static str>,
    pub expiration: Option<i64>,
    pub annotations: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

// === impl Request ===

impl Request {
    /// What the driver on node A asks for a pod.
    pub fn honest(field: &Field<'_>, pod: &Pod) -> Self {
        let annotations =
            [("pod-namespace", &pod.namespace), ("pod-name", &pod.name), ("pod-uid", &pod.uid)];
        let annotations = annotations.map(|(key, value)| (ours(key), value.clone()));
        Self {
            name: unused_name(),
            signer: SIGNER,
            csr: Csr::of(&pod.spiffe_id()),
            usages: vec!["digital signature", "server auth", "client auth"],
            expiration: Some(3600),
            annotations: annotations.into_iter().collect(),
            labels: [(NODE_UID.to_owned(), field.here_uid.clone())].into_iter().collect(),
        }
    }

    pub fn csr(mut self, bend: impl FnOnce(Csr) -> Csr) -> Self {
        self.csr = bend(self.csr);
        self
    }

    /// An annotation of ours more, or in the place of one.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(ours(key), value.to_owned());
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.annotations.remove(&ours(key));
        self
    }

    /// As if it came from the node with this UID.
    pub fn labelled(mut self, uid: &str) -> Self {
        self.labels.insert(NODE_UID.to_owned(), uid.to_owned());
        self
    }

    pub fn expiration(mut self, seconds: Option<i64>) -> Self {
        self.expiration = seconds;
        self
    }

    pub fn usages(mut self, usages: &[&'static str]) -> Self {
        self.usages = usages.to_vec();
        self
    }

    pub fn signer(mut self, signer: &'static str) -> Self {
        self.signer = signer;
        self
    }

    /// The object to create.
    pub fn object(&self, field: &Field<'_>) -> Result<Value> {
        let mut object = json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {
                "name": self.name, "annotations": self.annotations, "labels": self.labels,
            },
            "spec": {
                "request": STANDARD.encode(self.csr.pem(field.scratch())?),
                "signerName": self.signer,
                "usages": self.usages,
            },
        });
        if let Some(seconds) = self.expiration {
            object["spec"]["expirationSeconds"] = seconds.into();
        }
        Ok(object)
    }

    pub fn path(&self) -> String {
        format!("{COLLECTION}/{}", self.name)
    }
}

fn ours(key: &str) -> String {
    format!("csi.svid.dev/{key}")
}

/// As the driver's names look.
fn unused_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("svid-{:024x}{number:016x}", since.as_nanos())
}
