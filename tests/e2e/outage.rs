//! A controller that is away, that denies, whose policy is broken, whose CA has vanished: what a user
//! sees, and that it gets right by itself.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    control::{CA_SECRET, Control, REPLICAS, STEP},
    ground::{Ground, NAMESPACE},
    patience::eventually,
    story::Story,
    workload::{CONTAINER, MOUNT},
};

/// A publish waits 20 s for its signer before an Event is written.
const EVENT: Duration = Duration::from_secs(90);
/// kubelet tries a mount again after 2 min 2 s at most.
const RETRY: Duration = Duration::from_secs(150);

/// What is to be said of it.
pub fn run(ground: &Ground, namespace: &str, story: &Story) -> Result<String> {
    let control = Control::of(ground);
    vanished(ground, &control, namespace, story).context("a CA Secret that has vanished")?;
    refused(ground, namespace, story).context("a policy that denies")?;

    control.scale(0)?;
    start(ground, namespace, "orphan")?;
    let event = told(ground, namespace, "orphan", &["controller"])?;
    story.step(&format!("orphan: {event}"));
    control.scale(REPLICAS)?;
    let back = Instant::now();
    running(ground, namespace, "orphan")?;
    let waited = back.elapsed();
    story.step(&format!("orphan started {waited:.0?} after the controller was back"));
    Ok(format!(
        ", a denied pod was told why and started when the policy let it, one without a controller \
         {waited:.0?} after that was back; a CA Secret that vanished was not replaced"
    ))
}

/// One policy denies by its rule, then it is broken, then it is gone.
fn refused(ground: &Ground, namespace: &str, story: &Story) -> Result<()> {
    let policy = |expression: &str| {
        json!({
            "apiVersion": "svid.dev/v1alpha1", "kind": "SvidPolicy",
            "metadata": {"name": "e2e-failures"},
            "spec": {
                "priority": 1000,
                "selector": {"pods": {"matchLabels": {"app": "refused"}}},
                "rules": [{
                    "name": "blue", "expression": expression,
                    "message": "only blue pods are admitted here",
                }],
            },
        })
    };
    let ready = |wanted: &str| {
        eventually(&format!("the policy to be Ready: {wanted}"), STEP, || {
            let object = ground.cluster.get("", "svidpolicy", "e2e-failures")?;
            let all = object["status"]["conditions"].as_array().into_iter().flatten();
            let found = all.clone().find(|condition| condition["type"] == "Ready");
            let found = found.context("it has no condition Ready")?;
            let current =
                object["metadata"]["generation"] == object["status"]["observedGeneration"];
            ensure!(current && found["status"] == wanted, "it is {found}");
            Ok(found["message"].as_str().unwrap_or_default().to_owned())
        })
    };
    ground.cluster.apply(&[policy("pod.labels['colour'] == 'blue' ||")])?;
    let problem = ready("False")?;
    story.step(&format!("a broken policy says what is wrong with it: {problem}"));
    ground.cluster.apply(&[policy("'colour' in pod.labels && pod.labels['colour'] == 'blue'")])?;
    ready("True")?;
    start(ground, namespace, "refused")?;
    let event = told(ground, namespace, "refused", &["only blue pods are admitted here"])?;
    story.step(&format!("refused: {event}"));
    ground.cluster.kubectl(["delete", "svidpolicy", "e2e-failures"])?;
    running(ground, namespace, "refused")
}

/// The controller makes no other CA in its place, and goes on with what comes back.
fn vanished(ground: &Ground, control: &Control<'_>, namespace: &str, story: &Story) -> Result<()> {
    let cluster = &ground.cluster;
    let mut kept = cluster.get(NAMESPACE, "secret", CA_SECRET)?;
    let metadata = kept["metadata"].as_object_mut().context("no metadata")?;
    metadata
        .retain(|key, _| ["name", "namespace", "labels", "annotations"].contains(&key.as_str()));
    let before = control.bundle()?;
    cluster.kubectl(["-n", NAMESPACE, "delete", "secret", CA_SECRET])?;
    let problem = eventually("the status to say so", STEP, || {
        let status = control.status()?;
        let problem = status["problem"].as_str().context("it says nothing")?;
        Ok(problem.to_owned())
    });
    let made = cluster.list(NAMESPACE, "secrets", "")?;
    let made = made.iter().any(|secret| secret["metadata"]["name"] == CA_SECRET);
    cluster.apply(&[kept])?;
    story.step(&format!("without its Secret: {}", problem?));
    ensure!(!made, "another Secret was made");
    eventually("the status to be good again", STEP, || {
        let problem = &control.status()?["problem"];
        ensure!(*problem == Value::Null, "{problem}");
        Ok(())
    })?;
    let same = control.bundle()?.x509_authorities() == before.x509_authorities();
    ensure!(same, "the published roots are others");
    start(ground, namespace, "after")?;
    running(ground, namespace, "after")
}

fn start(ground: &Ground, namespace: &str, name: &str) -> Result<()> {
    ground.cluster.apply(&[ground.workload(namespace, name).object()])
}

fn running(ground: &Ground, namespace: &str, name: &str) -> Result<()> {
    eventually(&format!("{name} to run"), RETRY, || {
        let pod = ground.cluster.pod(namespace, name)?;
        ensure!(pod.is_ready(), "{name} is {}", pod.state());
        pod.set(CONTAINER, MOUNT)?.check(&pod.spiffe_id())
    })
}

/// The Event that tells a person all of this.
fn told(ground: &Ground, namespace: &str, name: &str, wanted: &[&str]) -> Result<String> {
    eventually(&format!("an Event of {name} that says {wanted:?}"), EVENT, || {
        let events = ground.cluster.events(namespace, name)?;
        let says_it = |event: &&String| wanted.iter().all(|words| event.contains(words));
        let found = events.iter().rfind(says_it).cloned();
        found.with_context(|| format!("its Events are {events:?}"))
    })
}
