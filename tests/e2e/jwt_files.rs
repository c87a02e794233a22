//! Volumes with JWT-SVIDs in files: written where the policy allows the audience, refused elsewhere by
//! a text that says which policy and what it allows.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use svid_csi::{jose, pki::TrustBundle};

use crate::{
    ground::{Ground, TRUST_DOMAIN},
    patience::{eventually, now},
    workload::{CONTAINER, MOUNT},
    workload_api::{confined, restricted},
};

const POD: &str = "jwt-files";
const REFUSED: &str = "jwt-refused";
const POLICY: &str = "e2e-jwt-refused";
const FILES: &str = "example.jwt=example;both.jwt=example,other";
const LIMIT: Duration = Duration::from_secs(90);

/// Applies a pod that wants a JWT-SVID for an audience beyond its policy; the Event that refuses it.
pub fn refused(ground: &Ground, namespace: &str) -> Result<String> {
    ground.cluster.apply(&[
        json!({
            "apiVersion": "svid.dev/v1alpha1", "kind": "SvidPolicy",
            "metadata": {"name": POLICY},
            "spec": {
                "priority": 1000,
                "selector": {"pods": {"matchLabels": {"app": REFUSED}}},
                "jwt": {"audiences": ["example"]},
            },
        }),
        pod(ground, namespace, REFUSED),
    ])?;
    let wanted = ["other", POLICY];
    let event = eventually(&format!("an Event of {REFUSED} that says {wanted:?}"), LIMIT, || {
        let events = ground.cluster.events(namespace, REFUSED)?;
        let found = events.iter().rfind(|event| wanted.iter().all(|words| event.contains(words)));
        found.cloned().with_context(|| format!("its Events are {events:?}"))
    });
    ground.cluster.kubectl(["delete", "svidpolicy", POLICY])?;
    event
}

/// Each file has a token for its audiences that the volume's own bundle verifies.
pub fn written(ground: &Ground, namespace: &str) -> Result<String> {
    ground.cluster.apply(&[pod(ground, namespace, POD)])?;
    eventually(&format!("{POD} to have its tokens"), LIMIT, || {
        let pod = ground.cluster.pod(namespace, POD)?;
        ensure!(pod.is_ready(), "it is {}", pod.state());
        let set = pod.set(CONTAINER, MOUNT)?;
        set.check(&pod.spiffe_id())?;
        let file = |name: &str| set.files.get(name).with_context(|| format!("there is no {name}"));
        let domain = TRUST_DOMAIN.parse().ok().context("trust domain")?;
        let bundle = TrustBundle::from_jwks(domain, file("bundle.json")?.as_bytes())?;
        let authorities: Arc<[_]> = Arc::clone(bundle.jwt_authorities());
        ensure!(!authorities.is_empty(), "bundle.json has no JWT authority");
        for (name, audience) in
            [("example.jwt", "example"), ("both.jwt", "example"), ("both.jwt", "other")]
        {
            let token = file(name)?;
            let known = |_: &_| Some(Arc::clone(&authorities));
            let jwt = jose::verify(token.trim(), audience, known, now()).context(name)?;
            ensure!(jwt.id.to_string() == pod.spiffe_id(), "{name} is {}'s", jwt.id);
        }
        let foreign = jose::verify(file("example.jwt")?.trim(), "other", |_| None, now());
        ensure!(foreign.is_err(), "example.jwt is for everybody");
        Ok("two JWT-SVID files verify with the volume's own bundle".to_owned())
    })
}

fn pod(ground: &Ground, namespace: &str, name: &str) -> Value {
    let workload = ground.workload(namespace, name).with("jwt", FILES).with("ttl", "1m");
    let mut workload = workload.security(restricted(false));
    workload.spec()["containers"][0]["securityContext"] = confined();
    workload.object()
}
