//! For pods that node A has no right to, with their tokens or with others.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    super::{
        Attacks,
        Expected::{Denied, Refused},
        field::PODS,
        until,
    },
    Direct,
    tokens::AUDIENCE,
};
use crate::pod::Pod;

const REFUSED: &str = "Unauthenticated: the pod's token";
const GONE: &str = "removed";
const ACCOUNT: &str = "reborn";

pub fn try_all(direct: &Direct<'_>, attacks: &mut Attacks) -> Result<()> {
    let field = direct.field;
    let of = |pod: &Pod| direct.token(PODS, &pod.service_account, Some(pod), &[AUDIENCE]);
    let victims = of(&field.victim)?;
    let mut both = |what: &str, expected, pod: &Pod, token: &str| -> Result<()> {
        attacks.add(format!("direct: {what}"), expected, direct.ask(&direct.x509(pod, token)?)?);
        let outcome = direct.ask(&direct.jwt(pod, token))?;
        attacks.add(format!("direct: {what}, for a JWT-SVID"), expected, outcome);
        Ok(())
    };
    let elsewhere = Denied(&["PodTokenElsewhere"]);
    both("the stolen token of a pod on node B", elsewhere, &field.victim, &victims)?;
    let swapped = Denied(&["PodTokenMismatch"]);
    both("own pod's token, for the pod on node B", swapped, &field.victim, &direct.own)?;
    both("own pod's token, for another own pod", swapped, &field.done, &direct.own)?;
    both("the stolen token, for the own pod", swapped, &field.own, &victims)?;
    let driver = field.ground.driver_pod(&field.here)?;
    both("the driver's token as a pod's", swapped, &field.own, &direct.driver)?;
    let volume = Denied(&["PodWithoutVolume"]);
    both("the driver's token, for the driver's pod", volume, &driver, &direct.driver)?;
    both("a pod without our volume", volume, &field.plain, &of(&field.plain)?)?;
    both("a pod that has finished", Denied(&["PodFinished"]), &field.done, &of(&field.done)?)?;

    let refused = Refused(REFUSED);
    let own = |pod, audiences: &[&str]| direct.token(PODS, "default", pod, audiences);
    both("no pod's token", refused, &field.own, "")?;
    both("a token that is bound to no pod", refused, &field.own, &own(None, &[AUDIENCE])?)?;
    let api = own(Some(&field.own), &[])?;
    both("the pod's own API token", refused, &field.own, &api)?;
    let vault = own(Some(&field.own), &["vault"])?;
    both("a token for a foreign audience", refused, &field.own, &vault)?;
    let two = own(Some(&field.own), &[AUDIENCE, "vault"])?;
    both("a token for two audiences", refused, &field.own, &two)?;
    let expired = direct.genuine(&direct.own, |claims| claims["exp"] = claims["iat"].clone())?;
    both("an expired token", refused, &field.own, &expired)?;
    let moved = Direct::forged(&victims, |claims| {
        claims["kubernetes.io"]["node"] = json!({"name": field.here, "uid": field.here_uid});
    })?;
    both("the stolen token with node A written into it", refused, &field.victim, &moved)?;
    both("a token with alg none", refused, &field.own, &Direct::unsigned(&direct.own)?)?;
    let outcome = direct.ask(&direct.x509(&field.own, &direct.own)?.with("pod", json!({})))?;
    attacks.add("direct: no pod at all", Denied(&["PodNotNamed"]), outcome);
    a_pod_that_is_gone(direct, attacks)
}

/// Its token outlives it, its successor of the same name, and its ServiceAccount.
fn a_pod_that_is_gone(direct: &Direct<'_>, attacks: &mut Attacks) -> Result<()> {
    let (field, cluster) = (direct.field, direct.field.cluster());
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": ACCOUNT, "namespace": PODS},
    });
    cluster.apply(std::slice::from_ref(&account))?;
    let made = || -> Result<Pod> {
        let mut pod = field.ground.workload(PODS, GONE);
        pod.spec()["serviceAccountName"] = ACCOUNT.into();
        pod.spec()["nodeName"] = field.here.as_str().into();
        let pod = pod.object();
        cluster.apply(&[pod])?;
        cluster.pod(PODS, GONE)
    };
    let delete = |kind: &str, name: &str| {
        cluster.kubectl(["-n", PODS, "delete", kind, name, "--grace-period=0", "--force"])
    };
    // The controller may learn of each change a moment later than we.
    let becomes = |call: &super::Call, wanted: &'static str| {
        until(wanted, || {
            let outcome = direct.ask(call)?;
            ensure!(outcome.seen().contains(wanted), "{}", outcome.seen());
            Ok(outcome)
        })
    };
    let pod = made()?;
    let token = direct.token(PODS, ACCOUNT, Some(&pod), &[AUDIENCE])?;
    let call = direct.x509(&pod, &token)?;
    delete("serviceaccount", ACCOUNT)?;
    cluster.apply(&[account])?;
    let outcome = becomes(&call, "ServiceAccountReplaced")?;
    let what = "direct: a token of a ServiceAccount that was made anew";
    attacks.add(what, Denied(&["ServiceAccountReplaced"]), outcome);
    delete("pod", GONE)?;
    let outcome = direct.ask(&call)?;
    attacks.add("direct: a deleted pod's token", Denied(&["PodMissing"]), outcome);
    made()?;
    let outcome = becomes(&call, "PodReplaced")?;
    let what = "direct: … replayed under a pod of the same name";
    attacks.add(what, Denied(&["PodReplaced"]), outcome);
    delete("pod", GONE).map(drop)
}
