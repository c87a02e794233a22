//! What a user sees when something is wrong, and that it gets right by itself.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;

use crate::{
    ca::secret,
    ground::{DRIVER, Ground},
    late::Late,
    outage,
    patience::eventually,
    pod::Pod,
    story::{Seen, Story},
    watch::View,
    workload::{CONTAINER, MOUNT, Workload},
};

const USER: &str = "e2e-failures";
const CROWD: &str = "e2e-failures-crowd";
const CROWD_SIZE: usize = 50;
const START: Duration = Duration::from_secs(60);
/// A publish waits 20 s for its signer before an Event is written.
const EVENT: Duration = Duration::from_secs(60);
/// kubelet tries a mount again after 2 min 2 s at most.
const RETRY: Duration = Duration::from_secs(150);

pub fn run(ground: &Ground, story: &Story) -> Result<Seen> {
    ground.namespace(USER)?;
    ground.namespace(CROWD)?;
    thread::scope(|scope| {
        // Their waits are long, and neither minds the other.
        let crowd = scope.spawn(|| crowd(ground, story));
        let users = scope.spawn(|| mistakes(ground, story));
        let late = scope.spawn(|| signer(ground, story));
        let panicked = |_| anyhow!("panicked");
        let crowd = crowd.join().map_err(panicked)?.context("a namespace of 50 pods");
        let users = users.join().map_err(panicked)?.context("a user's mistakes");
        // This takes the signer from everybody.
        let without = match ground.signer.is_decided() {
            true => outage::run(ground, USER, story).context("a controller that is away"),
            false => Ok(String::new()),
        };
        let late = late.join().map_err(panicked)?.context("a signer that is away");
        crowd.and(users)?;
        let (without, [registered, retried]) = (without?, late?);
        Ok(Seen::new(format!(
            "5 Events said what is wrong; a publish waited for its signer; pods started {registered:.0?} \
             after the driver registered and {retried:.0?} after the signer was repaired; a namespace \
             of {CROWD_SIZE} pods left nothing{without}"
        ))
        .with(json!({
            "start_after_registration_seconds": registered.as_secs_f64(),
            "start_after_repair_seconds": retried.as_secs_f64(),
        })))
    })
}

/// Pods that ask for what there is not, and are told so.
fn mistakes(ground: &Ground, story: &Story) -> Result<()> {
    let misspelt = ground.workload(USER, "misspelt").with("tll", "1h");
    let writable = ground.workload(USER, "writable").volume(json!({"csi": {"driver": DRIVER}}));
    let forever = ground.workload(USER, "forever").with("ttl", "48h");
    ground.cluster.apply(&[misspelt.object(), writable.object(), forever.object()])?;
    for (pod, wanted) in [
        ("misspelt", ["csi.svid.dev/tll", "did you mean csi.svid.dev/ttl?"]),
        ("writable", ["must be read-only", "set `readOnly: true`"]),
        ("forever", ["csi.svid.dev/ttl", "10s to 24h"]),
    ] {
        let event = told(ground, pod, &wanted)?;
        story.step(&format!("{pod}: {event}"));
    }
    Ok(())
}

/// Many pods of one node end together, and nothing of them is left.
fn crowd(ground: &Ground, story: &Story) -> Result<()> {
    let cluster = &ground.cluster;
    let nodes = cluster.nodes()?;
    let node = nodes.last().context("no node")?;
    let pod = |n| ground.workload(CROWD, &format!("pod-{n:02}")).on(node).object();
    cluster.apply(&(0..CROWD_SIZE).map(pod).collect::<Vec<_>>())?;
    let pods = cluster.ready_pods(CROWD, CROWD_SIZE, 2 * RETRY)?;
    story.step(&format!("{CROWD_SIZE} pods of one namespace run"));
    let began = Instant::now();
    cluster.delete_namespace(CROWD, RETRY)?;
    let took = began.elapsed();
    let node = cluster.node(node);
    eventually("everything of the deleted pods to go", START, || {
        let mounts = node.volumes()?;
        let left = node.find("/var/lib/kubelet/pods", ["-maxdepth", "1"])?;
        for pod in &pods {
            let directory = pod.directory();
            ensure!(!mounts.iter().any(|m| m.starts_with(&directory)), "{} is mounted", pod.name);
            ensure!(
                !left.iter().any(|path| *directory == *path),
                "{} is left",
                directory.display()
            );
        }
        Ok(())
    })?;
    story.step(&format!("the namespace went within {took:.0?}, with every mount and directory"));
    Ok(())
}

/// How long pods waited after the driver had registered, and after the signer had been repaired.
fn signer(ground: &Ground, story: &Story) -> Result<[Duration; 2]> {
    let late = Late::installed(ground)?;
    let pod = |name| {
        let workload = ground.workload(USER, name);
        workload.volume(json!({"csi": {"driver": Late::DRIVER, "readOnly": true}}))
    };

    late.set_ca(Some(ground.ca().secret()?))?;
    start(ground, pod("early"))?;
    let event = told(ground, "early", &[Late::DRIVER, "not found", "registered"])?;
    story.step(&format!("early: {event}"));
    let began = late.admit()?;
    let early = running(ground, "early", RETRY)?;
    let registered = began.elapsed();
    let held = View::of(&early, MOUNT)?;
    let serial = held.read()?.serial;
    story.step(&format!("early started {registered:.0?} after the driver had registered"));

    late.set_ca(None)?;
    late.restart()?;
    start(ground, pod("patient"))?;
    eventually("the publish to begin", START, || mounted(ground, "patient"))?;
    let began = Instant::now();
    late.set_ca(Some(ground.ca().secret()?))?;
    running(ground, "patient", Duration::from_secs(25)).context("within the publish")?;
    let events = ground.cluster.events(USER, "patient")?;
    let failed = events.iter().find(|event| event.starts_with("FailedMount"));
    ensure!(failed.is_none(), "the publish did not wait for its signer: {failed:?}");
    story.step(&format!(
        "patient started {:.0?} after the repair, within its publish",
        began.elapsed()
    ));

    late.set_ca(Some(secret("garbage", "garbage")))?;
    late.restart()?;
    start(ground, pod("broken"))?;
    let event = told(ground, "broken", &["the CA in /etc/svid-csi/ca can't be used"])?;
    story.step(&format!("broken: {event}"));
    late.set_ca(None)?;
    let event = told(ground, "broken", &["/etc/svid-csi/ca holds no CA", "tls.crt"])?;
    story.step(&format!("broken: {event}"));
    let began = Instant::now();
    late.set_ca(Some(ground.ca().secret()?))?;
    running(ground, "broken", RETRY)?;
    let retried = began.elapsed();
    story.step(&format!("broken started {retried:.0?} after the repair"));

    ensure!(held.read()?.serial == serial, "a running pod lost its SVID meanwhile");
    late.remove(USER, &["early", "patient", "broken"])?;
    Ok([registered, retried])
}

fn start(ground: &Ground, workload: Workload) -> Result<()> {
    ground.cluster.apply(&[workload.object()])
}

/// Waits until a pod runs with a good set.
fn running(ground: &Ground, name: &str, limit: Duration) -> Result<Pod> {
    eventually(&format!("{name} to run"), limit, || {
        let pod = ground.cluster.pod(USER, name)?;
        ensure!(pod.is_ready(), "{name} is {}", pod.state());
        pod.set(CONTAINER, MOUNT)?.check(&pod.spiffe_id())?;
        Ok(pod)
    })
}

/// Whether the driver has begun with a pod's volume.
fn mounted(ground: &Ground, name: &str) -> Result<()> {
    let pod = ground.cluster.pod(USER, name)?;
    ensure!(!pod.node.is_empty(), "{name} has no node yet");
    let mounts = ground.cluster.node(&pod.node).run(["cat", "/proc/self/mountinfo"])?;
    let target = pod.directory().join("volumes/kubernetes.io~csi");
    ensure!(mounts.contains(&target.display().to_string()), "nothing is mounted for {name}");
    Ok(())
}

/// The Event that tells a person all of this.
fn told(ground: &Ground, name: &str, wanted: &[&str]) -> Result<String> {
    eventually(&format!("an Event of {name} that says {wanted:?}"), EVENT, || {
        let events = ground.cluster.events(USER, name)?;
        let says_it = |event: &&String| wanted.iter().all(|words| event.contains(words));
        let found = events.iter().rfind(says_it).cloned();
        found.with_context(|| format!("its Events are {events:?}"))
    })
}
