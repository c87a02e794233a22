//! The controller as a signer of PodCertificateRequests: a plain `podCertificate` volume in mutual TLS
//! with a volume of ours, what a pod is told that is denied, and who may ask.

mod asking;

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    control::Control,
    ground::{Ground, repository},
    patience::{eventually, pause, throughout},
    story::{Seen, Story},
};

use self::asking::{Ask, SIGNER};

const EXAMPLE: &str = "svid-example-pod-certificate";
const NAMESPACE: &str = "e2e-pod-certificate";
const START: Duration = Duration::from_mins(2);
/// What the suites install, and this beside it.
const VALUES: [&str; 2] =
    ["podCertificates.enabled=true", "controller.ca.publish.clusterTrustBundle=true"];
const FENCE: &str = "svid-csi-pod-certificates";
/// A request older than the fence and this is nobody's.
const SETTLING: Duration = Duration::from_secs(12);

pub fn run(ground: &Ground, story: &Story) -> Result<Seen> {
    ground.install(&VALUES)?;
    let result = tried(ground, story);
    let _ = ground.cluster.kubectl(["delete", "svidpolicy", "brief", "--ignore-not-found"]);
    let back = ground.install(&[]);
    let seen = result?;
    back.context("without pod certificates again")?;
    Ok(seen)
}

fn tried(ground: &Ground, story: &Story) -> Result<Seen> {
    let example = repository().join("deploy/examples/pod-certificate.yaml");
    let example = fs::read_to_string(example)?;
    // The fence must have stood for a while.
    pause(SETTLING);
    ground.apply_example(&example)?;
    for (one, other) in [("native", "mounted"), ("mounted", "native")] {
        said(ground, one, &["called ", &format!("/sa/{other} "), "says: welcome"])?;
        said(ground, one, &["served ", &format!("/sa/{other} ")])?;
    }
    story.step("a podCertificate pod and a pod with our volume call each other by mutual TLS");
    let part = schedule(ground)?;
    story.step(&format!("the kubelet is to refresh after {part:.2} of the life"));

    ground.namespace(NAMESPACE)?;
    let short = denied(ground, "brief", "ECDSAP256", "TtlNotAllowed")?;
    let wrong = denied(ground, "rsa", "RSA3072", "UnsupportedKeyType")?;
    story.step(&format!("pods are told why: {short}; {wrong}"));
    let audited = Control::of(ground).audit()?;
    for (decision, reason) in [("sign", "SvidPolicy"), ("deny", "TtlNotAllowed")] {
        let found = audited.iter().any(|line| {
            line["way"] == "PodCertificateRequest"
                && line["decision"] == decision
                && line["reason"] == reason
        });
        ensure!(found, "the audit stream lacks {decision} {reason}");
    }

    let refused = refused(ground)?;
    story.step(&format!("refused by the API server: {}", refused.join("; ")));
    let log = unfenced(ground)?;
    story.step(&format!("without the fence nothing is signed: {log}"));
    Ok(Seen::new(format!(
        "a podCertificate pod and a CSI pod in mutual TLS with each other, to be refreshed after \
         {part:.2} of its life; a policy of less than an hour and a foreign key type are denied in the \
         pod's events; {} forged requests refused, and without the fence nothing signed",
        refused.len()
    )))
}

/// Waits until a Deployment of the example has said these words in one line.
fn said(ground: &Ground, app: &str, words: &[&str]) -> Result<()> {
    eventually(&format!("{app} to say {words:?}"), START, || {
        let target = format!("deploy/{app}");
        let log = ground.cluster.kubectl(["-n", EXAMPLE, "logs", &target])?;
        let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        ensure!(found, "its last line: {}", log.lines().last().unwrap_or_default());
        Ok(())
    })
}

/// After which part of the certificate's life its kubelet is told to ask for the next.
fn schedule(ground: &Ground) -> Result<f64> {
    let requests = ground.cluster.list(EXAMPLE, "podcertificaterequests", "")?;
    let status = &requests.first().context("there is no PodCertificateRequest")?["status"];
    let at = |key: &str| -> Result<i64> {
        let text = status[key].as_str().with_context(|| format!("no {key} in {status}"))?;
        Ok(OffsetDateTime::parse(text, &Rfc3339)?.unix_timestamp())
    };
    let (begin, end) = (at("notBefore")?, at("notAfter")?);
    ensure!(end - begin >= 3600, "it lives {} s", end - begin);
    let part = (at("beginRefreshAt")? - begin) as f64 / (end - begin) as f64;
    ensure!((0.5..0.67).contains(&part), "{part}");
    Ok(part)
}

/// A pod whose request is denied, and what its events say of it.
fn denied(ground: &Ground, name: &str, key: &str, reason: &str) -> Result<String> {
    // Only for the one that is named so.
    ground.cluster.apply(&[json!({
        "apiVersion": "svid.dev/v1alpha1", "kind": "SvidPolicy", "metadata": {"name": "brief"},
        "spec": {
            "priority": 100,
            "selector": {"pods": {"matchLabels": {"app": "brief"}}},
            "x509": {"maxTTL": "30m"},
        },
    })])?;
    ground.cluster.apply(&[projecting(ground, name, key, None)])?;
    eventually(&format!("{name} to be told {reason}"), START, || {
        let events = ground.cluster.events(NAMESPACE, name)?;
        let found = events.iter().find(|event| event.contains(reason) && event.contains("denied"));
        let event = found.with_context(|| format!("its events: {events:?}"))?;
        let (_, words) = event.split_once("message=").unwrap_or((event, event));
        Ok(format!("{reason}: {words}"))
    })
}

/// A pod with a plain `podCertificate` volume.
fn projecting(ground: &Ground, name: &str, key: &str, node: Option<&str>) -> Value {
    let source = json!({"projected": {"sources": [{"podCertificate": {
        "signerName": SIGNER, "keyType": key, "credentialBundlePath": "credentials.pem",
    }}]}});
    let mut workload = ground.workload(NAMESPACE, name).volume(source);
    if let Some(node) = node {
        workload = workload.on(node);
    }
    workload.object()
}

/// What others than the pod's own kubelet ask for, and kubelets that have no reason to.
fn refused(ground: &Ground) -> Result<Vec<String>> {
    let nodes = ground.cluster.nodes()?;
    let (here, there) = (&nodes[0], &nodes[1]);
    ground.cluster.apply(&[
        projecting(ground, "here", "ECDSAP256", Some(here)),
        projecting(ground, "there", "ECDSAP256", Some(there)),
        ground.workload(NAMESPACE, "plain").on(here).object(),
    ])?;
    ground.cluster.ready_pods_named(NAMESPACE, &["here", "there", "plain"], START)?;
    let admin = Ask::as_admin(ground);
    let kubelet = Ask::as_kubelet(ground, here)?;
    let fence = "only the kubelet of spec.nodeName may ask";
    [
        ("an account with create, for a pod", &admin, "here", fence),
        (
            "a kubelet, for another node's pod",
            &kubelet,
            "there",
            "which is not the requesting node",
        ),
        ("a kubelet, for a pod without the projection", &kubelet, "plain", "does not mount"),
    ]
    .into_iter()
    .map(|(what, who, pod, words)| {
        let said = who.refused(NAMESPACE, pod).with_context(|| what.to_owned())?;
        ensure!(said.contains(words), "{what}: {said}");
        Ok(format!("{what} ({words})"))
    })
    .collect()
}

/// With the fence gone an account with `create` can make a request, and the controller signs neither
/// that nor anything else; once the fence is back, new requests are signed, and that one never.
fn unfenced(ground: &Ground) -> Result<String> {
    let binding = ["delete", "validatingadmissionpolicybinding", FENCE];
    ground.cluster.kubectl(binding)?;
    let admin = Ask::as_admin(ground);
    let forged = eventually("the fence to be gone", START, || admin.made(NAMESPACE, "here"))?;
    let unsigned = || -> Result<()> {
        let object = ground.cluster.get(NAMESPACE, "podcertificaterequest", &forged)?;
        let conditions = object["status"]["conditions"].as_array().map_or(0, Vec::len);
        ensure!(conditions == 0, "it was decided: {}", object["status"]);
        Ok(())
    };
    throughout(Duration::from_secs(20), unsigned)?;
    let said = eventually("the controller to say so", START, || {
        for pod in Control::of(ground).pods()? {
            let log = ground.cluster.logs(crate::ground::NAMESPACE, &pod.name, "controller")?;
            let line = log.lines().find(|line| line.contains("nobody keeps others than kubelets"));
            if let Some(line) = line {
                return Ok(line.to_owned());
            }
        }
        anyhow::bail!("no replica said so")
    })?;
    ground.install(&VALUES)?;
    pause(SETTLING);
    ground.cluster.apply(&[projecting(ground, "after", "ECDSAP256", None)])?;
    ground.cluster.ready_pods_named(NAMESPACE, &["after"], START)?;
    unsigned().context("with the fence back")?;
    Ok(said.chars().take(160).collect())
}
