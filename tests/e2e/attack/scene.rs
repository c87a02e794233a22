//! What a kubelet may write, annotations, status and its Node's labels, wins nothing.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{
    Attacks,
    Expected::{Denied, Refused},
    Outcome,
    field::{Field, PODS},
    request::Request,
};
use crate::cluster::name_of;

const POLICY: &str = "e2e-attack-trusted";

pub fn try_all(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    let kubelet = |args: &[&str]| field.attempt(&field.kubelet, args.iter().copied(), "");
    let id = field.victim.spiffe_id();
    let mut own = field.cluster().get(PODS, "pod", "own")?;
    own["metadata"]["annotations"]["csi.svid.dev/spiffe-id"] = id.as_str().into();
    own["status"]["message"] = id.as_str().into();
    let written = write_status(field, &own)?;
    ensure!(matches!(written, Outcome::Won(_)), "annotating the own pod: {}", written.seen());
    let foreign = Request::honest(field, &field.own).csr(|csr| csr.names(&format!("URI:{id}")));
    let outcome = field.ask(&field.driver, &foreign)?;
    let what = "own pod annotated with the ID that is wanted";
    attacks.add(what, Denied(&["IdentityIs"]), outcome);

    let mut own = field.cluster().get(PODS, "pod", "own")?;
    own["metadata"]["labels"]["app"] = "victim".into();
    let outcome = write_status(field, &own)?;
    attacks.add("the kubelet labels its pod", Refused("Forbidden"), outcome);
    let mut victim = field.cluster().get(PODS, "pod", "victim")?;
    victim["status"]["phase"] = "Failed".into();
    let outcome = write_status(field, &victim)?;
    attacks.add("the kubelet writes the status of a pod on node B", Refused("Forbidden"), outcome);

    let mark = "e2e-attack=trusted";
    let key = "node-restriction.kubernetes.io/e2e-attack=trusted";
    let outcome = kubelet(&["label", "node", &field.here, "--overwrite", key])?;
    attacks.add("the kubelet marks its Node as trusted", Refused("forbidden"), outcome);
    by_rule(field, attacks, mark)
}

/// As the kubelet.
fn write_status(field: &Field<'_>, pod: &Value) -> Result<Outcome> {
    let path = format!("/api/v1/namespaces/{PODS}/pods/{}/status", name_of(pod));
    let args = ["replace", "--raw", &path, "-f", "-"];
    field.attempt(&field.kubelet, args, &pod.to_string())
}

/// A policy that wants a mark on the Node sees none that its kubelet made.
fn by_rule(field: &Field<'_>, attacks: &mut Attacks, mark: &str) -> Result<()> {
    let cluster = field.cluster();
    cluster.kubectl(["label", "namespace", PODS, "e2e-attack=true"])?;
    cluster.apply(&[json!({
        "apiVersion": "svid.dev/v1alpha1", "kind": "SvidPolicy",
        "metadata": {"name": POLICY},
        "spec": {
            "priority": 1000,
            "selector": {"namespaces": {"matchLabels": {"e2e-attack": "true"}}},
            "rules": [{
                "name": "trusted-node",
                "expression": "'e2e-attack' in node.labels",
                "message": "only pods on trusted nodes",
            }],
        },
    })])?;
    let args = ["label", "node", &field.here, "--overwrite", mark];
    field.attempt(&field.kubelet, args, "")?;
    // A controller may not have heard of the policy yet.
    let outcome = super::until("the policy to be known", || {
        let outcome = field.ask(&field.driver, &Request::honest(field, &field.own))?;
        ensure!(!matches!(outcome, Outcome::Won(_)), "it is not yet");
        Ok(outcome)
    });
    let unmark = format!("{}-", mark.split('=').next().unwrap_or_default());
    cluster.kubectl(["label", "node", &field.here, &unmark])?;
    cluster.kubectl(["delete", "svidpolicy", POLICY])?;
    let what = "a mark of the kubelet's own on its Node, which a policy's rule wants";
    attacks.add(what, Denied(&["RuleNotMet"]), outcome?);
    super::until("the policy to be forgotten", || {
        let outcome = field.ask(&field.driver, &Request::honest(field, &field.own))?;
        ensure!(matches!(outcome, Outcome::Won(_)), "{}", outcome.seen());
        Ok(())
    })
}
