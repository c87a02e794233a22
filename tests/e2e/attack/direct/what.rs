//! For other things than what policy gives the own pod.

use anyhow::Result;
use serde_json::json;

use super::{
    super::{
        Attacks, Expected,
        Expected::{Denied, Refused},
        csr::Csr,
        field::PODS,
        until,
    },
    Call, Direct,
};

const POLICY: &str = "e2e-attack-audiences";

pub fn try_all(direct: &Direct<'_>, attacks: &mut Attacks) -> Result<()> {
    certificates(direct, attacks)?;
    tokens(direct, attacks)?;
    audiences(direct, attacks)
}

fn certificates(direct: &Direct<'_>, attacks: &mut Attacks) -> Result<()> {
    let (field, pod) = (direct.field, &direct.field.own);
    let (own, victim) = (pod.spiffe_id(), field.victim.spiffe_id());
    let reserved = "spiffe://example.org/svid.dev/controller";
    let mut forged = Csr::of(&own);
    forged.forged = true;
    let csrs: [(&str, &'static [&'static str], Csr); 7] = [
        ("the ID of the pod on node B", &["IdentityIs"], Csr::of(&victim)),
        ("the controller's ID", &["ReservedId"], Csr::of(reserved)),
        ("O=system:masters", &["SubjectNotEmpty"], Csr::of(&own).subject("/O=system:masters")),
        ("two URIs", &["ForbiddenName"], Csr::of(&own).names(&format!("URI:{own},URI:{victim}"))),
        (
            "CA:TRUE",
            &["ForbiddenExtension"],
            Csr::of(&own).with("basicConstraints=critical,CA:TRUE"),
        ),
        ("a weak key", &["BadSignature", "WeakKey"], Csr::of(&own).key(&["rsa:1024"])),
        // No API server looks at it first.
        ("a bad signature", &["BadSignature"], forged),
    ];
    for (what, reasons, csr) in csrs {
        let outcome = direct.ask(&direct.certified(pod, &direct.own, &csr)?)?;
        attacks.add(format!("direct: {what}"), Denied(reasons), outcome);
    }
    let honest = || direct.x509(pod, &direct.own);
    let bent: [(&str, &'static [&'static str], Call); 4] = [
        ("a lifetime too long", &["TtlNotAllowed"], honest()?.with("ttlSeconds", 48 * 3600)),
        (
            "a key algorithm that is not the key's",
            &["WrongKeyAlgorithm"],
            honest()?.with("keyAlgorithm", "rsa-4096"),
        ),
        (
            "a DNS name that no policy gives",
            &["DnsNameNotAllowed"],
            honest()?.with("dnsNames", json!(["kubernetes.default.svc"])),
        ),
        ("no CSR but noise", &["MalformedCsr"], honest()?.with("csr", "bm9pc2U=")),
    ];
    for (what, reasons, call) in bent {
        attacks.add(format!("direct: {what}"), Denied(reasons), direct.ask(&call)?);
    }
    Ok(())
}

fn tokens(direct: &Direct<'_>, attacks: &mut Attacks) -> Result<()> {
    let (field, pod) = (direct.field, &direct.field.own);
    let honest = || direct.jwt(pod, &direct.own);
    let many: Vec<_> = (0..1000).map(|n| format!("audience-{n}")).collect();
    let id = |id: &str| honest().with("spiffeId", id);
    let calls: [(&str, Expected, Call); 7] = [
        (
            "a JWT-SVID of the pod on node B",
            Denied(&["OtherIdentity"]),
            id(&field.victim.spiffe_id()),
        ),
        (
            "a JWT-SVID of the controller",
            Denied(&["ReservedId"]),
            id("spiffe://example.org/svid.dev/controller"),
        ),
        (
            "a JWT-SVID of another trust domain",
            Denied(&["ForeignTrustDomain"]),
            id("spiffe://example.com/ns/e2e-attack/sa/default"),
        ),
        ("a JWT-SVID of no ID", Denied(&["NotASpiffeId"]), id("e2e-attack/default")),
        (
            "a JWT-SVID for nobody",
            Denied(&["MalformedAudience"]),
            honest().with("audience", json!([])),
        ),
        (
            "a JWT-SVID for an audience without a name",
            Denied(&["MalformedAudience"]),
            honest().with("audience", json!([""])),
        ),
        (
            "a JWT-SVID for a thousand audiences",
            Denied(&["MalformedAudience"]),
            honest().with("audience", json!(many)),
        ),
    ];
    for (what, expected, call) in calls {
        attacks.add(format!("direct: {what}"), expected, direct.ask(&call)?);
    }
    let mut unproven = honest();
    unproven.driver = None;
    let refused = Refused("Unauthenticated: no driver's token");
    attacks.add("direct: a JWT-SVID without a driver's token", refused, direct.ask(&unproven)?);
    Ok(())
}

/// A policy that names its audiences gives no other, alone or beside one of them.
fn audiences(direct: &Direct<'_>, attacks: &mut Attacks) -> Result<()> {
    let (field, cluster) = (direct.field, direct.field.cluster());
    cluster.kubectl(["label", "--overwrite", "namespace", PODS, "e2e-attack-jwt=true"])?;
    cluster.apply(&[json!({
        "apiVersion": "svid.dev/v1alpha1", "kind": "SvidPolicy",
        "metadata": {"name": POLICY},
        "spec": {
            "priority": 1000,
            "selector": {"namespaces": {"matchLabels": {"e2e-attack-jwt": "true"}}},
            "jwt": {"audiences": ["allowed"]},
        },
    })])?;
    let ask = |audience: &[&str]| {
        direct.ask(&direct.jwt(&field.own, &direct.own).with("audience", json!(audience)))
    };
    let known = until("the policy to be known", || {
        let outcome = ask(&["forbidden"])?;
        anyhow::ensure!(outcome.parts().0 == "denied", "it is not yet");
        Ok(outcome)
    });
    let beside = ask(&["allowed", "forbidden"]);
    let star = ask(&["*"]);
    let allowed = ask(&["allowed"]);
    cluster.kubectl(["delete", "svidpolicy", POLICY])?;
    let denied = Denied(&["AudienceNotAllowed"]);
    attacks.add("direct: a JWT-SVID for a forbidden audience", denied, known?);
    attacks.add("direct: … beside an allowed one", denied, beside?);
    attacks.add("direct: … for the audience *", denied, star?);
    let allowed = allowed?;
    anyhow::ensure!(allowed.parts().0 == "WON", "the allowed audience: {}", allowed.seen());
    until("the policy to be forgotten", || {
        let outcome = ask(&["forbidden"])?;
        anyhow::ensure!(outcome.parts().0 == "WON", "{}", outcome.seen());
        Ok(())
    })
}
