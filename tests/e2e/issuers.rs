//! cert-manager's issuers, as an operator makes them: two CAs, and whom to trust.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use svid_csi::pki::TrustBundle;

use crate::{
    ca::Ca,
    ground::{Ground, NAMESPACE},
    patience::eventually,
};

/// The installation's issuer, and one that pods may name where policy allows it.
pub const FIRST: &str = "svid-csi-e2e";
pub const SECOND: &str = "svid-csi-e2e-second";
/// The chart's names for its ConfigMaps.
pub const ISSUER_MAP: &str = "svid-csi-issuer";
const ROOTS_MAP: &str = "svid-csi-issuer-roots";
/// Where cert-manager has the Secrets of ClusterIssuers.
const CERT_MANAGER: &str = "cert-manager";

/// Starts cert-manager in our own cluster, and makes the first issuer. In another it must be there.
pub fn prepare(ground: &Ground) -> Result<()> {
    if ground.cluster.is_ours() {
        ground.cluster.script(["cert-manager"]).limit(Duration::from_mins(20)).text()?;
    }
    let root = make(ground, FIRST)?;
    trust(ground, &[&root])
}

/// Makes an issuer of this name with a CA of its own: its root.
pub fn make(ground: &Ground, name: &str) -> Result<TrustBundle> {
    let ca = Ca::make(&ground.out.join("ca"), name)?;
    let mut secret = ca.secret()?;
    secret["metadata"] = json!({"name": name, "namespace": CERT_MANAGER});
    ground.cluster.apply(&[
        secret,
        json!({
            "apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer",
            "metadata": {"name": name}, "spec": {"ca": {"secretName": name}},
        }),
    ])?;
    eventually(&format!("the issuer {name}"), Duration::from_mins(1), || {
        let issuer = ground.cluster.get("", "clusterissuer", name)?;
        let ready = issuer["status"]["conditions"].as_array().into_iter().flatten();
        let ready = ready.filter(|it| it["type"] == "Ready").any(|it| it["status"] == "True");
        ensure!(ready, "it is not ready: {}", issuer["status"]);
        ca.root()
    })
}

/// The root of an issuer that was made before.
pub fn root(ground: &Ground, name: &str) -> Result<TrustBundle> {
    let path = ground.out.join("ca").join(format!("{name}.crt"));
    let pem = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let domain = crate::ground::TRUST_DOMAIN.parse().ok().context("trust domain")?;
    Ok(TrustBundle::from_pem(domain, &pem)?)
}

/// Says whom to trust.
pub fn trust(ground: &Ground, roots: &[&TrustBundle]) -> Result<()> {
    let pem: String = roots.iter().map(|root| root.to_pem()).collect();
    ground.cluster.apply(&[json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": ROOTS_MAP, "namespace": NAMESPACE}, "data": {"ca.crt": pem},
    })])
}

/// Has another issuer sign from now on.
pub fn choose(ground: &Ground, name: &str) -> Result<()> {
    let patch = json!({"data": {"issuer-name": name}}).to_string();
    let args = ["patch", "configmap", ISSUER_MAP, "-n", NAMESPACE, "--type=merge", "-p", &patch];
    ground.cluster.kubectl(args).map(drop)
}
