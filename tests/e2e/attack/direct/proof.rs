//! Other tokens in the driver's place.

use anyhow::Result;
use serde_json::json;

use super::{
    super::{
        Attacks,
        Expected::{Denied, Refused},
        field::DRIVER_ACCOUNT,
        until,
    },
    Direct,
    tokens::AUDIENCE,
};
use crate::{control::Control, ground::NAMESPACE};

/// Runs as the driver's ServiceAccount and is no driver any more.
const GONE: &str = "e2e-attack-driver";
const REFUSED: &str = "Unauthenticated: the driver's token";
const YEAR: i64 = 365 * 24 * 3600;

pub fn try_all(direct: &Direct<'_>, attacks: &mut Attacks) -> Result<()> {
    let field = direct.field;
    let honest = || direct.x509(&field.own, &direct.own);
    let here = field.ground.driver_pod(&field.here)?;
    let driver = |pod, audiences: &[&str]| direct.token(NAMESPACE, DRIVER_ACCOUNT, pod, audiences);
    let mut call = honest()?;
    call.driver = None;
    let none = Refused("Unauthenticated: no driver's token");
    attacks.add("direct: no driver's token", none, direct.ask(&call)?);

    let api = driver(Some(&here), &[])?;
    let both = driver(Some(&here), &[AUDIENCE, "https://kubernetes.default.svc.cluster.local"])?;
    let foreign = driver(Some(&here), &["vault"])?;
    let expired = direct.genuine(&direct.driver, |claims| {
        for name in ["iat", "nbf", "exp"] {
            claims[name] = (claims[name].as_i64().unwrap_or_default() - YEAR).into();
        }
    })?;
    let early = direct.genuine(&direct.driver, |claims| {
        for name in ["iat", "nbf", "exp"] {
            claims[name] = (claims[name].as_i64().unwrap_or_default() + YEAR).into();
        }
    })?;
    let issuer = direct.genuine(&direct.driver, |claims| claims["iss"] = "https://a".into())?;
    let moved = Direct::forged(&direct.driver, |claims| {
        claims["kubernetes.io"]["node"] = json!({"name": field.there, "uid": field.there_uid});
    })?;
    for (what, token) in [
        ("direct: the driver's API token", api),
        ("direct: a driver's token for the API server too", both),
        ("direct: a driver's token for a foreign audience", foreign),
        ("direct: an expired driver's token", expired),
        ("direct: a driver's token of next year", early),
        ("direct: a driver's token of another issuer", issuer),
        ("direct: a driver's token with node B written into it", moved),
        ("direct: a driver's token with alg none", Direct::unsigned(&direct.driver)?),
        ("direct: a driver's token that is bound to no pod", driver(None, &[AUDIENCE])?),
        ("direct: no token but words", "a.b.c".to_owned()),
    ] {
        attacks.add(what, Refused(REFUSED), direct.ask(&honest()?.driven_by(&token))?);
    }
    let not_the_driver = Refused("Unauthenticated: ");
    let own = honest()?.driven_by(&direct.own);
    attacks.add("direct: a pod's token in the driver's place", not_the_driver, direct.ask(&own)?);
    let replicas = Control::of(field.ground).pods()?;
    let controller =
        direct.token(NAMESPACE, "svid-csi-controller", replicas.first(), &[AUDIENCE])?;
    let call = honest()?.driven_by(&controller);
    attacks.add("direct: the controller's token", not_the_driver, direct.ask(&call)?);

    let there = field.ground.driver_pod(&field.there)?;
    let stolen = driver(Some(&there), &[AUDIENCE])?;
    let outcome = direct.ask(&honest()?.driven_by(&stolen))?;
    let what = "direct: a pod's token replayed by node B's driver";
    attacks.add(what, Denied(&["PodTokenElsewhere"]), outcome);
    a_driver_that_is_gone(direct, attacks)
}

/// Its token outlives it, and its successor's name.
fn a_driver_that_is_gone(direct: &Direct<'_>, attacks: &mut Attacks) -> Result<()> {
    let (field, cluster) = (direct.field, direct.field.cluster());
    let made = || {
        let mut pod = field.ground.workload(NAMESPACE, GONE).volume(json!({"emptyDir": {}}));
        pod.spec()["serviceAccountName"] = DRIVER_ACCOUNT.into();
        pod.spec()["nodeName"] = field.here.as_str().into();
        cluster.apply(&[pod.object()])?;
        cluster.pod(NAMESPACE, GONE)
    };
    let delete = || {
        let args = ["-n", NAMESPACE, "delete", "pod", GONE, "--grace-period=0", "--force"];
        cluster.kubectl(args)
    };
    let pod = made()?;
    let token = direct.token(NAMESPACE, DRIVER_ACCOUNT, Some(&pod), &[AUDIENCE])?;
    delete()?;
    let call = direct.x509(&field.own, &direct.own)?.driven_by(&token);
    let outcome = direct.ask(&call)?;
    let what = "direct: the token of a driver's pod that is gone";
    attacks.add(what, Denied(&["DriverPodMissing"]), outcome);
    made()?;
    let outcome = until("its successor to be known", || {
        let outcome = direct.ask(&direct.x509(&field.own, &direct.own)?.driven_by(&token))?;
        anyhow::ensure!(!outcome.seen().contains("DriverPodMissing"), "it is not yet");
        Ok(outcome)
    });
    delete()?;
    let what = "direct: … replayed under its successor of the same name";
    attacks.add(what, Denied(&["DriverPodReplaced"]), outcome?);
    Ok(())
}
