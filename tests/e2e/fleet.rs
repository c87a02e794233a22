//! Pods that run throughout a suite, and what must hold for them whatever happens around them.
//!
//! Each has two volumes. One is renewed every few seconds, which shows that rotation goes on; the
//! other is fresh throughout, which shows that nothing is issued again without need.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    ground::{DRIVER, Ground},
    patience::eventually,
    pod::Pod,
    watch::{Held, View, Watch},
    workload::{CONTAINER, MOUNT},
};

/// Renewed after 15 to 20 s, so the driver may be away for 10 s: an upgrade on a slow machine.
const SHORT: &str = "30s";
/// Where the volume is mounted that needs no renewal.
const LONG: &str = "/long";
const START: Duration = Duration::from_secs(90);
/// For a renewal, and for a driver that only just came back: with signer controller it waits for
/// kubelet, which tries again 2 min 2 s at most after it missed the driver.
const RENEWAL: Duration = Duration::from_secs(150);

/// The pods of a namespace, two on each node.
pub struct Fleet<'a> {
    ground: &'a Ground,
    namespace: &'a str,
    nodes: Vec<String>,
    members: Vec<Pod>,
    /// What the volumes hold that need no renewal.
    fresh: BTreeMap<String, String>,
    newcomers: usize,
}

// === impl Fleet ===

impl<'a> Fleet<'a> {
    /// Starts two pods on every node.
    pub fn start(ground: &'a Ground, namespace: &'a str) -> Result<Self> {
        Self::start_on(ground, namespace, &ground.cluster.nodes()?)
    }

    /// Starts two pods on each of these nodes and waits for them.
    pub fn start_on(ground: &'a Ground, namespace: &'a str, nodes: &[String]) -> Result<Self> {
        ground.namespace(namespace)?;
        let mut objects = Vec::new();
        for node in nodes {
            let grouped = json!({"runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 20001});
            for (kind, security) in [("root", json!({})), ("fsgroup", grouped)] {
                let name = format!("{kind}-{node}");
                let pod = ground.workload(namespace, &name).on(node).with("ttl", SHORT);
                let mut pod = pod.security(security);
                add_long(pod.spec());
                objects.push(pod.object());
            }
        }
        ground.cluster.apply(&objects)?;
        let members = ground.cluster.ready_pods(namespace, objects.len(), START)?;
        let fresh = fresh(&members)?;
        Ok(Self { ground, namespace, nodes: nodes.to_vec(), members, fresh, newcomers: 0 })
    }

    /// Goes on with the same pods in other containers.
    pub fn continue_with(&mut self, members: Vec<Pod>) -> Result<()> {
        self.fresh = fresh(&members)?;
        self.members = members;
        Ok(())
    }

    /// Watches every volume from inside its container.
    pub fn watch(&self) -> Result<Watch> {
        Ok(Watch::start(views(&self.members)?))
    }

    /// After something happened: the same containers run, nothing was wrong in any volume, each is
    /// mounted once, rotation goes on, new pods start and old ones go.
    pub fn goes_on(&mut self, watch: &Watch) -> Result<()> {
        let before = watch.last();
        let invited = self.invite()?;
        let arrived = self.arrived(&invited, START)?;
        self.mounted_once(&arrived)?;
        self.dismiss(&arrived)?;
        self.gone(&arrived, START)?;
        renewed(watch, &before)?;
        self.untouched(watch, &[])
    }

    /// The same without new pods.
    pub fn rotates(&self, watch: &Watch) -> Result<()> {
        renewed(watch, &watch.last())?;
        self.untouched(watch, &[])
    }

    /// A new pod on each node, not waited for.
    pub fn invite(&mut self) -> Result<Vec<String>> {
        self.newcomers += 1;
        let name = |node: &String| format!("new-{}-{node}", self.newcomers);
        let names: Vec<_> = self.nodes.iter().map(name).collect();
        let workload = |(name, node): (&String, &String)| {
            self.ground.workload(self.namespace, name).on(node).with("ttl", SHORT).object()
        };
        let objects: Vec<_> = names.iter().zip(&self.nodes).map(workload).collect();
        self.ground.cluster.apply(&objects)?;
        Ok(names)
    }

    /// Waits for newcomers.
    pub fn arrived(&self, names: &[String], limit: Duration) -> Result<Vec<Pod>> {
        eventually("new pods to start", limit, || {
            let mut pods = self.ground.cluster.pods(self.namespace, "")?;
            pods.retain(|pod| names.contains(&pod.name));
            ensure!(pods.len() == names.len(), "{} of {} are there", pods.len(), names.len());
            for pod in &pods {
                ensure!(pod.is_ready(), "{} is {}", pod.name, pod.state());
                pod.set(CONTAINER, MOUNT)?.check(&pod.spiffe_id())?;
            }
            Ok(pods)
        })
    }

    /// Asks for pods' deletion, and does not wait.
    pub fn dismiss(&self, pods: &[Pod]) -> Result<()> {
        let names = pods.iter().map(|pod| pod.name.as_str());
        let args = ["-n", self.namespace, "delete", "--wait=false", "pod"];
        self.ground.cluster.kubectl(args.into_iter().chain(names)).map(drop)
    }

    /// Deleted pods terminate and leave nothing behind.
    pub fn gone(&self, pods: &[Pod], limit: Duration) -> Result<()> {
        let cluster = &self.ground.cluster;
        eventually("deleted pods to go", limit, || {
            let left = cluster.list(self.namespace, "pods", "")?;
            for pod in pods {
                let here = left.iter().any(|left| left["metadata"]["uid"] == pod.uid.as_str());
                ensure!(!here, "{} is there", pod.name);
                let directory = pod.directory();
                let left = cluster.node(&pod.node).has(&directory)?;
                ensure!(!left, "{} is left on {}", directory.display(), pod.node);
            }
            Ok(())
        })
    }

    /// The same containers run with each volume mounted once, and nothing was wrong in one.
    pub fn untouched(&self, watch: &Watch, others: &[Pod]) -> Result<()> {
        let pods = self.ground.cluster.pods(self.namespace, "")?;
        for member in &self.members {
            let now = pods.iter().find(|pod| pod.uid == member.uid);
            let now = now.with_context(|| format!("{} was replaced or has gone", member.name))?;
            ensure!(now.lives() == member.lives(), "a container of {} was restarted", now.name);
            ensure!(now.is_ready(), "{} is {}", now.name, now.state());
        }
        for (name, held) in watch.last() {
            let same = self.fresh.get(&name).is_none_or(|serial| *serial == held.serial);
            ensure!(same, "{name} was issued again while it was fresh");
        }
        watch.check()?;
        self.mounted_once(others)
    }

    /// On every node, each volume of these pods is mounted exactly once, and nothing twice.
    fn mounted_once(&self, others: &[Pod]) -> Result<()> {
        for node in &self.nodes {
            let mounts = self.ground.cluster.node(node).volumes_once()?;
            let members = self.members.iter().map(|pod| (pod, 2));
            for (pod, wanted) in members.chain(others.iter().map(|pod| (pod, 1))) {
                if pod.node == *node {
                    let found = mounts.iter().filter(|m| m.starts_with(pod.directory())).count();
                    ensure!(found == wanted, "{} has {found} mounts, not {wanted}", pod.name);
                }
            }
        }
        Ok(())
    }

    pub fn members(&self) -> &[Pod] {
        &self.members
    }
}

/// Both volumes of each pod, through its container's root.
pub fn views(pods: &[Pod]) -> Result<Vec<View>> {
    let both = pods.iter().flat_map(|pod| [View::of(pod, MOUNT), View::of(pod, LONG)]);
    both.collect()
}

/// The serials in the volumes that need no renewal.
fn fresh(pods: &[Pod]) -> Result<BTreeMap<String, String>> {
    let views = pods.iter().map(|pod| View::of(pod, LONG)).collect::<Result<Vec<_>>>()?;
    views.into_iter().map(|view| Ok((view.name.clone(), view.read()?.serial))).collect()
}

/// Every short-lived volume comes to hold another SVID than it held before.
fn renewed(watch: &Watch, before: &BTreeMap<String, Held>) -> Result<()> {
    eventually("every short-lived SVID to be renewed", RENEWAL, || {
        for (name, held) in watch.last() {
            let same = before.get(&name).is_some_and(|old| old.serial == held.serial);
            ensure!(!same || name.ends_with(LONG), "{name} still holds {}", held.serial);
        }
        Ok(())
    })
}

/// A second volume that needs no renewal.
fn add_long(spec: &mut Value) {
    let mount = json!({"name": "long", "mountPath": LONG, "readOnly": true});
    let volume = json!({"name": "long", "csi": {"driver": DRIVER, "readOnly": true}});
    for (list, item) in [("/containers/0/volumeMounts", mount), ("/volumes", volume)] {
        if let Some(list) = spec.pointer_mut(list).and_then(Value::as_array_mut) {
            list.push(item);
        }
    }
}
