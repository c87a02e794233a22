//! From a CA on the nodes to the controller's, under pods in continuous mutual TLS.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use svid_csi::pki::TrustBundle;

use crate::{
    ca,
    control::{Control, REPLICAS, STEP},
    ground::{Ground, NAMESPACE},
    load::Load,
    signer::Signer,
    story::{Seen, Story},
};

const PODS: &str = "e2e-leave-local";
const COUNT: usize = 16;
const TTL: &str = "90s";
const LIMIT: Duration = Duration::from_mins(4);

pub fn run(ground: &Ground, story: &Story) -> Result<Seen> {
    let control = Control::of(ground);
    ground.uninstall()?;
    ground.cluster.delete_namespace(NAMESPACE, LIMIT)?;
    ground.privileged_namespace(NAMESPACE)?;
    ground.cluster.apply(&[ground.ca().secret()?])?;
    ground.install_with(Signer::Local, &[])?;
    let old = ground.ca().root()?;
    let load = Load::start(ground, PODS, COUNT, TTL)?;
    load.is_under(&old, LIMIT)?;
    story.step(&format!("{COUNT} pods call each other, with a CA whose key is on every node"));

    let leaving = format!("controller.ca.leavingLocal.caSecret={}", ca::SECRET);
    let refusal = refused(ground, &leaving)?;
    load.check()?;
    story.step(&format!("the jump is refused: {refusal}"));

    ground.install_with(Signer::Local, &["controller.enabled=true", &leaving])?;
    control.settled(REPLICAS)?;
    let both = load.until("both roots in the published bundle", STEP, || {
        let bundle = control.bundle()?;
        ensure!(old.x509_authorities().iter().all(|root| bundle.contains(root)), "the old is not");
        ensure!(bundle.x509_authorities().len() == 2, "{} roots", bundle.x509_authorities().len());
        Ok(bundle)
    })?;
    let new = both.x509_authorities().iter().filter(|root| !old.contains(root)).cloned();
    let new = TrustBundle::new(both.trust_domain().clone(), new.collect())?;
    load.trusts(&both)?;
    load.is_under(&old, LIMIT).context("who signs is still the node")?;
    story.step("first upgrade: the controller beside, its root in every volume, the nodes sign");

    load.until("the controller's CA to be active", STEP, || {
        ensure!(control.authorities("active")?.len() == 1, "it is not yet");
        Ok(())
    })?;
    // Refused while a driver has followed the bundle for less than the propagation time.
    load.until("the second upgrade", STEP, || ground.install_with(Signer::Csr, &[&leaving]))?;
    load.is_under(&new, LIMIT)?;
    load.trusts(&both)?;
    no_key_on_nodes(ground)?;
    story.step("second upgrade: every SVID is the controller's; no CA key is on a node");

    load.goes_on()?;
    let seen = load.check()?;
    ground.cluster.delete_namespace(PODS, LIMIT)?;
    ground.install_anew()?;
    Ok(Seen::new(format!(
        "{COUNT} pods, {} handshakes and none failed, from signer local to csr by two upgrades; the \
         jump in one is refused",
        seen.calls
    ))
    .with(json!({"pods": COUNT, "handshakes": seen.calls, "reloads": seen.reloads, "retries": seen.retries})))
}

/// What the chart says to one who wants both steps at once.
fn refused(ground: &Ground, leaving: &str) -> Result<String> {
    let Err(error) = ground.install_with(Signer::Csr, &[leaving]) else {
        bail!("the chart took the jump from local to csr in one upgrade");
    };
    let text = format!("{error:#}");
    let told = text.contains("two upgrades") && text.contains("docs/leaving-local.md");
    ensure!(told, "the refusal does not say what to do: {text}");
    let from = text.find("the nodes sign").unwrap_or_default();
    Ok(text[from..].chars().take(120).collect())
}

/// Invariant 5: the drivers' pods have no Secret any more.
fn no_key_on_nodes(ground: &Ground) -> Result<()> {
    for pod in ground.cluster.list(NAMESPACE, "pods", "app.kubernetes.io/component=node")? {
        let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        let secrets = volumes.filter(|volume| !volume["secret"].is_null()).count();
        ensure!(secrets == 0, "a driver's pod mounts a Secret");
    }
    Ok(())
}
