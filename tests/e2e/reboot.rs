//! A node's end and start: every process killed, every tmpfs gone, kubelet's directory kept.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{
    fleet::{Fleet, views},
    ground::Ground,
    patience::eventually,
    pod::Pod,
    story::{Seen, Story},
    watch::Held,
};

const START: Duration = Duration::from_secs(60);
/// kubelet may miss the driver a few times before it is back.
const BACK: Duration = Duration::from_secs(150);

pub fn run(ground: &Ground, story: &Story) -> Result<Seen> {
    let cluster = &ground.cluster;
    let nodes = cluster.nodes()?;
    let (others, node) = nodes.split_at(nodes.len() - 1);
    let mut others = Fleet::start_on(ground, "e2e-reboot-others", others)?;
    let mut here = Fleet::start_on(ground, "e2e-reboot", node)?;
    let invited = here.invite()?;
    let orphans = here.arrived(&invited, START)?;
    let node = node[0].as_str();
    let before = all_held(here.members())?;
    let watch = others.watch()?;
    story.step("pods run on every node");

    // A pod that is deleted while the node is down: on its return nobody asks for its volume.
    cluster.service("stop", "kubelet", node)?;
    let args = ["-n", "e2e-reboot", "delete", "pod", "--force", "--grace-period=0"];
    cluster.kubectl(args.into_iter().chain(invited.iter().map(String::as_str)))?;
    cluster.script(["reboot", node]).text()?;
    story.step(&format!("{node} is rebooted"));

    let clock = story.elapsed();
    let back = eventually("the rebooted node's pods to run again", BACK, || {
        let pods = here.members().iter().map(|old| reborn(ground, old));
        let pods = pods.collect::<Result<Vec<_>>>()?;
        let held = all_held(&pods)?;
        for (name, held) in &held {
            let old = before.get(name).with_context(|| format!("{name} is new"))?;
            ensure!(held.serial != old.serial, "{name} has the serial that it had");
            ensure!(held.public_key != old.public_key, "{name} has the key that it had");
        }
        Ok(pods)
    })?;
    let took = story.elapsed() - clock;
    ground.driver_is_ready(START)?;
    story.step("its pods run again, every one with another key and certificate");

    here.continue_with(back)?;
    let watch_here = here.watch()?;
    here.gone(&orphans, BACK).context("a pod that was deleted while the node was down")?;
    here.goes_on(&watch_here)?;
    others.goes_on(&watch).context("pods of another node")?;
    let (seen, pods) = (watch.finish()?, here.members().len());
    watch_here.finish()?;
    Ok(Seen::new(format!(
        "{pods} pods of {node} had new keys and certificates {took:.0?} after its reboot, each \
         volume mounted once, nothing left of a pod deleted meanwhile; the other nodes' pods saw \
         nothing of it ({} renewals)",
        seen.renewals
    )))
}

/// The pod that it was, in new containers.
fn reborn(ground: &Ground, old: &Pod) -> Result<Pod> {
    let now = ground.cluster.pod(&old.namespace, &old.name)?;
    ensure!(now.uid == old.uid, "{} is another pod", old.name);
    ensure!(now.lives() != old.lives(), "{} has not been started again", old.name);
    ensure!(now.is_ready(), "{} is {}", old.name, now.state());
    Ok(now)
}

/// What their volumes hold.
fn all_held(pods: &[Pod]) -> Result<BTreeMap<String, Held>> {
    let views = views(pods)?;
    views.into_iter().map(|view| Ok((view.name.clone(), view.read()?))).collect()
}
