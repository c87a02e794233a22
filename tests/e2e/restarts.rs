//! Whatever restarts around them, pods go on: the same containers, certificates renewed, each
//! volume mounted once; new pods start, deleted ones terminate.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    fleet::Fleet,
    ground::{Ground, NAMESPACE, RELEASE},
    patience::{eventually, throughout},
    story::{Seen, Story},
    watch::Watch,
};

const NAME: &str = "e2e-restarts";
const DRIVER_START: Duration = Duration::from_secs(60);
/// How long the driver stays away.
const OUTAGE: Duration = Duration::from_secs(120);
/// kubelet tries a mount or unmount again after 2 min 2 s at most.
const RETRY: Duration = Duration::from_secs(150);
/// Into the outage, the time at which kubelet first misses the driver. It tries again 0.5 s, 1.5 s,
/// 3.5 s … later; 31 s later the driver is back.
const MISSED_AT: Duration = Duration::from_secs(106);

pub fn run(ground: &Ground, story: &Story) -> Result<Seen> {
    let second = ground.second_image()?;
    let image = format!("image.tag={second}");
    let mut fleet = Fleet::start(ground, NAME)?;
    let watch = fleet.watch()?;
    story.step("pods on every node run, with an SVID of 30 s and one of an hour each");

    kill_drivers(ground)?;
    fleet.goes_on(&watch).context("after SIGKILL to the driver")?;
    story.step("driver killed with SIGKILL on every node: pods go on");

    ground.install(&[&image])?;
    runs_image(ground, second)?;
    fleet.goes_on(&watch).context("after the upgrade to another image")?;
    story.step("DaemonSet upgraded to another image: pods go on");

    let waited = outage(ground, &image, &mut fleet, &watch)?;
    story.step(&format!(
        "driver deleted for {OUTAGE:?}, kubelet of one node restarted meanwhile: pods go on; new and \
         deleted pods waited and had what they wanted {waited:.0?} after the driver was back"
    ));

    for component in ["kubelet", "containerd"] {
        for node in ground.cluster.nodes()? {
            ground.cluster.service("restart", component, &node)?;
        }
        fleet.goes_on(&watch).with_context(|| format!("after a restart of {component}"))?;
        story.step(&format!("{component} restarted on every node: pods go on"));
    }

    let pods = fleet.members().len();
    let seen = watch.finish()?;
    ground.install(&[])?;
    Ok(Seen::new(format!(
        "{pods} pods kept their containers through 6 restarts around them; {} renewals, {} reads, \
         every set whole; {} volumes, each mounted once before and after",
        seen.renewals,
        seen.reads,
        2 * pods
    )))
}

/// SIGKILL to every driver; kubelet starts each again.
pub fn kill_drivers(ground: &Ground) -> Result<()> {
    let before = ground.driver_pods()?;
    for pod in &before {
        let pid = pod.process(&pod.container()?.name)?;
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL)?;
    }
    eventually("the drivers to be started again", DRIVER_START, || {
        for old in &before {
            let now = ground.driver_pod(&old.node)?;
            ensure!(now.uid == old.uid, "the pod on {} is another", old.node);
            ensure!(now.lives() != old.lives(), "the driver on {} still runs", old.node);
            ensure!(now.is_ready(), "the driver on {} is {}", old.node, now.state());
        }
        Ok(())
    })
}

/// Every driver runs an image with this tag.
pub fn runs_image(ground: &Ground, tag: &str) -> Result<()> {
    let pods = ground.cluster.list(NAMESPACE, "pods", "app.kubernetes.io/component=node")?;
    for pod in pods {
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
        ensure!(image.ends_with(tag), "a driver still runs {image}");
    }
    Ok(())
}

/// The driver is gone for two minutes. How long after it was back the pods that waited for it had
/// what they wanted.
fn outage(ground: &Ground, image: &str, fleet: &mut Fleet<'_>, watch: &Watch) -> Result<Duration> {
    let cluster = &ground.cluster;
    let names = fleet.invite()?;
    let leavers = fleet.arrived(&names, DRIVER_START)?;

    watch.allow_expiry(true);
    let began = Instant::now();
    let args = ["-n", NAMESPACE, "delete", "daemonset", RELEASE, "--cascade=foreground", "--wait"];
    cluster.kubectl(args)?;
    eventually("the driver to go", DRIVER_START, || {
        let left = cluster.list(NAMESPACE, "pods", "app.kubernetes.io/component=node")?;
        ensure!(left.is_empty(), "{} drivers are there", left.len());
        Ok(())
    })?;
    throughout(MISSED_AT.saturating_sub(began.elapsed()), || fleet.untouched(watch, &leavers))
        .context("while the driver is away")?;
    let node = &cluster.nodes()?[0];
    cluster.service("restart", "kubelet", node)?;
    let waiting = fleet.invite()?;
    fleet.dismiss(&leavers)?;
    throughout(OUTAGE.saturating_sub(began.elapsed()), || fleet.untouched(watch, &leavers))
        .context("while the driver is away")?;
    for name in &waiting {
        let pod = cluster.pod(NAME, name)?;
        ensure!(!pod.is_ready(), "{name} runs though no driver could mount its volume");
    }
    for pod in &leavers {
        cluster.pod(NAME, &pod.name).context("a pod ended with its volume mounted")?;
    }

    ground.install(&[image])?;
    ground.driver_is_ready(DRIVER_START)?;
    let back = Instant::now();
    let arrived = fleet.arrived(&waiting, RETRY)?;
    fleet.gone(&leavers, RETRY)?;
    let waited = back.elapsed();
    fleet.dismiss(&arrived)?;
    fleet.rotates(watch).context("after the driver came back")?;
    watch.allow_expiry(false);
    fleet.gone(&arrived, DRIVER_START)?;
    Ok(waited)
}
