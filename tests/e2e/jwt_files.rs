//! Volumes with JWT-SVIDs in files: written where the driver has a key for them, refused elsewhere by
//! a text that says what to set.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use svid_csi::{jose, pki::TrustBundle};

use crate::{
    ground::{DRIVER, Ground, TRUST_DOMAIN},
    patience::{eventually, now},
    workload::{CONTAINER, MOUNT},
    workload_api::{confined, restricted},
};

pub const POD: &str = "jwt-files";
/// What a person whose driver signs no JWT-SVIDs reads everywhere.
pub const WHAT_TO_SET: &str = "jwt.key";
const FILES: &str = "example.jwt=example;both.jwt=example,other";
const LIMIT: Duration = Duration::from_secs(90);

/// Applies a pod that wants JWT-SVIDs; the Event that refuses it.
pub fn refused(ground: &Ground, namespace: &str) -> Result<String> {
    let name = "jwt-refused";
    ground.cluster.apply(&[pod(ground, namespace, name, DRIVER)])?;
    let wanted = ["FailedPrecondition", "csi.svid.dev/jwt", WHAT_TO_SET];
    eventually(&format!("an Event of {name} that says {wanted:?}"), LIMIT, || {
        let events = ground.cluster.events(namespace, name)?;
        let found = events.iter().rfind(|event| wanted.iter().all(|words| event.contains(words)));
        found.cloned().with_context(|| format!("its Events are {events:?}"))
    })
}

/// The same at a driver with a key: each file has a token for its audiences that the volume's own
/// bundle verifies.
pub fn written(ground: &Ground, namespace: &str, driver: &str) -> Result<String> {
    ground.cluster.apply(&[pod(ground, namespace, POD, driver)])?;
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

fn pod(ground: &Ground, namespace: &str, name: &str, driver: &str) -> Value {
    let workload = ground.workload(namespace, name).with("jwt", FILES).with("ttl", "1m");
    let mut workload = workload.security(restricted(false));
    workload.spec()["containers"][0]["securityContext"] = confined();
    workload.spec()["volumes"][0]["csi"]["driver"] = driver.into();
    workload.object()
}
