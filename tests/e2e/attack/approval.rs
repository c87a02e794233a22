//! Approvals by others who hold `approve`, and requests that are swapped.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    Attacks,
    Expected::{Denied, Refused, Unsigned},
    Outcome, fences,
    field::{Credentials, Field, PODS},
    request::{COLLECTION, Request},
    until,
};
use crate::control::{Control, REPLICAS};

/// Who holds `approve` beside the controller.
const OTHER: &str = "e2e-attack-approver";
const FENCES: [&str; 2] = ["svid-csi-decide", "svid-csi-alter"];
const SWAPS: usize = 10;

pub fn try_all(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    swapped(field, attacks)?;
    let other = approver(field)?;
    let control = Control::of(field.ground);
    field.listen()?;
    control.scale(0)?;
    let result = with_nobody_else(field, attacks, &other, &control);
    control.scale(REPLICAS)?;
    let cluster = field.cluster();
    cluster.kubectl(["delete", "clusterrolebinding,clusterrole", OTHER])?;
    result
}

/// The same name, another pod, while the controller is at it.
fn swapped(field: &Field<'_>, attacks: &mut Attacks) -> Result<()> {
    let args = ["create", "--raw", COLLECTION, "-f", "-"];
    let mut last = None;
    for _ in 0..SWAPS {
        let honest = Request::honest(field, &field.own);
        let mut hostile = Request::honest(field, &field.victim);
        hostile.name.clone_from(&honest.name);
        let (honest_object, object) = (honest.object(field)?, hostile.object(field)?);
        field.note(&honest);
        for (args, body) in [
            (&args[..], honest_object.to_string()),
            (&["delete", "--raw", &honest.path()][..], String::new()),
            (&args[..], object.to_string()),
        ] {
            let outcome = field.attempt(&field.driver, args.iter().copied(), &body)?;
            ensure!(matches!(outcome, Outcome::Won(_)), "{}", outcome.seen());
        }
        let outcome = field.decided(&honest.name)?;
        let denied = matches!(&outcome, Outcome::Denied { .. });
        last = Some(outcome);
        if !denied {
            break;
        }
    }
    let what = format!("a request swapped for another of the same name, {SWAPS} times");
    attacks.add(what, Denied(&["PodElsewhere"]), last.context("no swap")?);
    Ok(())
}

/// A ServiceAccount that may approve and alter requests of our signer.
fn approver(field: &Field<'_>) -> Result<Credentials> {
    let group = "certificates.k8s.io";
    let all = ["certificatesigningrequests", "certificatesigningrequests/approval"];
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": OTHER, "namespace": PODS},
    });
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": OTHER},
        "rules": [
            {"apiGroups": [group], "resources": all, "verbs": ["get", "update", "patch"]},
            {"apiGroups": [group], "resources": ["signers"], "verbs": ["approve"],
             "resourceNames": ["svid.dev/workload"]},
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": OTHER},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": OTHER},
        "subjects": [{"kind": "ServiceAccount", "name": OTHER, "namespace": PODS}],
    });
    field.cluster().apply(&[account, role, binding])?;
    let token = field.cluster().kubectl(["-n", PODS, "create", "token", OTHER])?;
    field.token(OTHER, &token)
}

/// While no controller is there, so that the other one is first.
fn with_nobody_else(
    field: &Field<'_>,
    attacks: &mut Attacks,
    other: &Credentials,
    control: &Control<'_>,
) -> Result<()> {
    let hostile = submitted(field, Request::honest(field, &field.victim))?;
    let words = "approves, denies and signs requests for svid.dev/workload";
    let outcome = until("the other's right to approve", || {
        let outcome = approve(field, other, &hostile)?;
        let early = matches!(&outcome, Outcome::Refused(said) if !said.contains(words));
        ensure!(!early, "not yet: {}", outcome.seen());
        Ok(outcome)
    })?;
    let what = "another who holds `approve` approves a request for a pod on node B";
    attacks.add(what, Refused(words), outcome);

    let fences = bindings(field)?;
    let mut args = vec!["delete", "validatingadmissionpolicybinding"];
    args.extend(FENCES);
    field.cluster().kubectl(args)?;
    let result = without_fences(field, attacks, other, control, &hostile);
    field.cluster().apply(&fences)?;
    result
}

/// The fences are down, and the controller alone is left: it looks at everything again.
fn without_fences(
    field: &Field<'_>,
    attacks: &mut Attacks,
    other: &Credentials,
    control: &Control<'_>,
    hostile: &Request,
) -> Result<()> {
    until("the fences to be down", || match approve(field, other, hostile)? {
        Outcome::Won(_) => Ok(()),
        outcome => bail!("{}", outcome.seen()),
    })?;
    let altered = submitted(field, Request::honest(field, &field.own))?;
    let outcome = approve(field, other, &altered)?;
    ensure!(matches!(outcome, Outcome::Won(_)), "{}", outcome.seen());
    let victim = json!({"metadata": {"annotations": {
        "csi.svid.dev/pod-name": field.victim.name, "csi.svid.dev/pod-uid": field.victim.uid,
    }}})
    .to_string();
    let args = ["patch", "csr", &altered.name, "--type=merge", "-p", &victim];
    let outcome = field.attempt(other, args, "")?;
    ensure!(matches!(outcome, Outcome::Won(_)), "{}", outcome.seen());

    control.scale(REPLICAS)?;
    let what = "that approval with the fences torn down";
    attacks.add(what, Unsigned("PodElsewhere"), field.decided(&hostile.name)?);
    let what = "a request altered between approval and signing, with the fences torn down";
    attacks.add(what, Unsigned("PodElsewhere"), field.decided(&altered.name)?);
    Ok(())
}

fn submitted(field: &Field<'_>, request: Request) -> Result<Request> {
    field.note(&request);
    let object = request.object(field)?.to_string();
    let outcome =
        field.attempt(&field.driver, ["create", "--raw", COLLECTION, "-f", "-"], &object)?;
    ensure!(matches!(outcome, Outcome::Won(_)), "{}", outcome.seen());
    Ok(request)
}

fn approve(field: &Field<'_>, who: &Credentials, request: &Request) -> Result<Outcome> {
    let mut object = field.cluster().get("", "csr", &request.name)?;
    object["status"]["conditions"] = json!([fences::approval()]);
    let path = format!("{}/approval", request.path());
    field.attempt(who, ["replace", "--raw", &path, "-f", "-"], &object.to_string())
}

/// The fences' bindings, to be put up again.
fn bindings(field: &Field<'_>) -> Result<Vec<Value>> {
    let get = |name: &&str| {
        let mut binding = field.cluster().get("", "validatingadmissionpolicybinding", name)?;
        let metadata = binding["metadata"].as_object_mut().context("no metadata")?;
        metadata.retain(|key, _| ["name", "labels", "annotations"].contains(&key.as_str()));
        Ok(binding)
    };
    FENCES.iter().map(get).collect()
}
