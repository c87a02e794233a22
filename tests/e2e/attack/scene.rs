//! What a kubelet may write, annotations, status and its Node's labels, wins nothing.

use anyhow::Result;
use serde_json::json;

use super::{
    Attacks,
    Expected::{Denied, Refused},
    field::{Field, PODS},
    request::Request,
};

const POLICY: &str = "e2e-attack-trusted";

pub fn try_all(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    let kubelet = |args: &[&str]| field.attempt(&field.kubelet, args.iter().copied(), "");
    let id = field.victim.spiffe_id();
    let annotations = json!({"metadata": {"annotations": {
        "csi.svid.dev/spiffe-id": id, "csi.svid.dev/service-account": "victim",
    }}})
    .to_string();
    let status = json!({"status": {"phase": "Running", "podIP": "10.244.9.9", "message": id}});
    let status = status.to_string();
    let args = ["-n", PODS, "patch", "pod", "own", "--subresource=status", "--type=merge", "-p"];
    for patch in [&annotations, &status] {
        // Whether the API server lets it is its affair.
        kubelet(&[&args[..], &[patch.as_str()]].concat())?;
    }
    let foreign = Request::honest(field, &field.own).csr(|csr| csr.names(&format!("URI:{id}")));
    let outcome = field.ask(&field.driver, &foreign)?;
    let what = "own pod annotated with the ID that is wanted";
    attacks.add(what, Denied(&["IdentityIs"]), outcome);

    let labels = json!({"metadata": {"labels": {"app": "victim"}}}).to_string();
    let args = ["-n", PODS, "patch", "pod", "own", "--subresource=status", "--type=merge", "-p"];
    let outcome = kubelet(&[&args[..], &[labels.as_str()]].concat())?;
    attacks.add("the kubelet labels its pod", Refused("Forbidden"), outcome);
    let args = ["-n", PODS, "patch", "pod", "victim", "--subresource=status", "--type=merge", "-p"];
    let outcome = kubelet(&[&args[..], &[status.as_str()]].concat())?;
    attacks.add("the kubelet writes the status of a pod on node B", Refused("Forbidden"), outcome);

    let mark = "e2e-attack=trusted";
    let key = "node-restriction.kubernetes.io/e2e-attack=trusted";
    let outcome = kubelet(&["label", "node", &field.here, "--overwrite", key])?;
    attacks.add("the kubelet marks its Node as trusted", Refused("forbidden"), outcome);
    by_rule(field, attacks, mark)
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
        anyhow::ensure!(!matches!(outcome, super::Outcome::Won(_)), "it is not yet");
        Ok(outcome)
    });
    let unmark = format!("{}-", mark.split('=').next().unwrap_or_default());
    cluster.kubectl(["label", "node", &field.here, &unmark])?;
    cluster.kubectl(["delete", "svidpolicy", POLICY])?;
    let what = "a mark of the kubelet's own on its Node, which a policy's rule wants";
    attacks.add(what, Denied(&["RuleNotMet"]), outcome?);
    super::until("the policy to be forgotten", || {
        let outcome = field.ask(&field.driver, &Request::honest(field, &field.own))?;
        anyhow::ensure!(matches!(outcome, super::Outcome::Won(_)), "{}", outcome.seen());
        Ok(())
    })
}
