//! What RBAC alone would leave open: other signers, other nodes' requests, decisions.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    Attacks,
    Expected::Refused,
    Outcome,
    field::Field,
    request::{COLLECTION, Request, SIGNER},
};
use crate::patience::now;

pub fn try_all(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    for signer in
        ["kubernetes.io/kube-apiserver-client", "kubernetes.io/kube-apiserver-client-kubelet"]
    {
        let mut request = Request::honest(field, &field.own).signer(signer);
        request.csr = request.csr.subject("/CN=admin");
        let outcome = field.ask(&field.driver, &request)?;
        let what = format!("the driver asks {signer} for a certificate");
        attacks.add(what, Refused("may ask for certificates of no signer but"), outcome);
    }
    let request = Request::honest(field, &field.own).labelled(&field.there_uid);
    let outcome = field.ask(&field.driver, &request)?;
    let fence = "csi.svid.dev/node-uid must be the UID of the node";
    attacks.add("a request labelled as node B's", Refused(fence), outcome);
    let mut request = Request::honest(field, &field.own);
    request.labels.clear();
    attacks.add("a request without the label", Refused(fence), field.ask(&field.driver, &request)?);
    let own = "the driver's own label and annotations and no others";
    let unknown = Request::honest(field, &field.own).with("spiffe-id", "/x");
    let all = ["digital signature", "server auth", "client auth", "cert sign"];
    let usages = Request::honest(field, &field.own).usages(&all);
    for (what, words, request) in [
        ("an unknown annotation of ours", own, &unknown),
        ("a fourth usage", "for three usages", &usages),
    ] {
        attacks.add(what, Refused(words), field.ask(&field.driver, request)?);
    }
    requests_of_others(field, attacks)?;
    decisions(field, attacks)
}

/// Node B's request and one for another signer: neither may be touched.
fn requests_of_others(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    let theirs = Request::honest(field, &field.victim).labelled(&field.there_uid);
    let driver = field.ground.driver_pod(&field.there)?;
    let bound = ["--bound-object-kind=Pod", "--bound-object-name", &driver.name];
    let token = field.token("there", &field.driver_token(&bound)?)?;
    let seen = field.ask(&token, &theirs)?;
    ensure!(matches!(seen, Outcome::Won(_)), "node B's honest request: {}", seen.seen());
    let foreign = Request::honest(field, &field.own).signer("example.org/another");
    let args = ["create", "--raw", COLLECTION, "-f", "-"];
    let object = foreign.object(field)?.to_string();
    field.cluster().kubectl_run(args).input(object).text()?;
    field.note(&foreign);

    let own = "the driver may delete only what it asked";
    for (what, who, request, words) in [
        ("the driver deletes node B's request", &field.driver, &theirs, own),
        ("the driver deletes a request for another signer", &field.driver, &foreign, own),
        ("the kubelet deletes node B's request", &field.kubelet, &theirs, "Forbidden"),
    ] {
        let outcome = field.attempt(who, ["delete", "--raw", &request.path()], "")?;
        attacks.add(what, Refused(words), outcome);
    }
    let outcome = field.attempt(&field.driver, ["delete", "--raw", COLLECTION], "")?;
    attacks.add("the driver deletes all requests at once", Refused("Forbidden"), outcome);
    for (what, patch) in [
        (
            "the driver alters the labels of node B's request",
            json!({"metadata": {"labels": {"a": "b"}}}),
        ),
        (
            "the driver alters its annotations",
            json!({"metadata": {"annotations": {"csi.svid.dev/pod-name": "own"}}}),
        ),
    ] {
        let patch = patch.to_string();
        let args = ["patch", "csr", &theirs.name, "--type=merge", "-p", &patch];
        attacks.add(what, Refused("Forbidden"), field.attempt(&field.driver, args, "")?);
    }
    let left = field.cluster().get("", "csr", &theirs.name)?;
    ensure!(left["metadata"]["labels"]["a"].is_null(), "node B's request was altered");
    Ok(())
}

/// Approving and signing as the node.
fn decisions(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    let request = Request::honest(field, &field.victim);
    let denied = field.ask(&field.driver, &request)?;
    ensure!(matches!(denied, Outcome::Denied { .. }), "it is {}", denied.seen());
    let object = field.cluster().get("", "csr", &request.name)?;
    let mut approved = object.clone();
    approved["status"]["conditions"] = json!([approval()]);
    let mut signed = object;
    signed["status"]["certificate"] = "LS0tLS1CRUdJTg==".into();
    ensure!(signed["spec"]["signerName"] == SIGNER, "another signer");
    for (who, name) in [(&field.driver, "the driver"), (&field.kubelet, "the kubelet")] {
        for (verb, part, body) in
            [("approves", "approval", &approved), ("signs", "status", &signed)]
        {
            let path = format!("{}/{part}", request.path());
            let args = ["replace", "--raw", &path, "-f", "-"];
            let outcome = field.attempt(who, args, &body.to_string())?;
            attacks.add(format!("{name} {verb} a request"), Refused("Forbidden"), outcome);
        }
    }
    Ok(())
}

/// The condition that whoever approves writes.
pub fn approval() -> serde_json::Value {
    let at = now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({
        "type": "Approved", "status": "True", "reason": "Attack", "message": format!("at {at}"),
    })
}
