//! A pod as the API server shows it, and its containers as the node has them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{cluster::Cluster, ground::TRUST_DOMAIN, set::Set};

/// A pod at one moment.
#[derive(Clone)]
pub struct Pod {
    cluster: Cluster,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub node: String,
    pub service_account: String,
    pub phase: String,
    pub containers: Vec<Container>,
}

#[derive(Clone)]
pub struct Container {
    pub name: String,
    /// Without `containerd://`; empty before it has started.
    pub id: String,
    pub restarts: u64,
    pub ready: bool,
    /// Why it waits or has ended.
    pub reason: String,
}

// === impl Pod ===

impl Pod {
    pub fn from_json(cluster: Cluster, pod: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let containers = pod["status"]["containerStatuses"].as_array();
        let containers = containers.into_iter().flatten().map(|status| Container {
            name: text(&status["name"]),
            id: text(&status["containerID"]).replace("containerd://", ""),
            restarts: status["restartCount"].as_u64().unwrap_or_default(),
            ready: status["ready"] == true,
            reason: text(&status["state"]["waiting"]["reason"])
                + &text(&status["state"]["terminated"]["reason"]),
        });
        Ok(Self {
            cluster,
            namespace: text(&pod["metadata"]["namespace"]),
            name: text(&pod["metadata"]["name"]),
            uid: text(&pod["metadata"]["uid"]),
            node: text(&pod["spec"]["nodeName"]),
            service_account: text(&pod["spec"]["serviceAccountName"]),
            phase: text(&pod["status"]["phase"]),
            containers: containers.collect(),
        })
    }

    /// The ID that it must have.
    pub fn spiffe_id(&self) -> String {
        format!("spiffe://{TRUST_DOMAIN}/ns/{}/sa/{}", self.namespace, self.service_account)
    }

    pub fn is_ready(&self) -> bool {
        self.phase == "Running" && self.containers.iter().all(|container| container.ready)
    }

    /// Running, done, or why not yet.
    pub fn state(&self) -> String {
        let reason = self.containers.iter().find(|container| !container.reason.is_empty());
        reason.map_or_else(|| self.phase.clone(), |c| format!("{} ({})", self.phase, c.reason))
    }

    /// Its containers' IDs and restarts: equal as long as none was started anew.
    pub fn lives(&self) -> Vec<(String, u64)> {
        self.containers.iter().map(|c| (c.id.clone(), c.restarts)).collect()
    }

    /// The only container, or the first.
    pub fn container(&self) -> Result<&Container> {
        self.containers.first().with_context(|| format!("{} has no container yet", self.name))
    }

    /// A process of a container that runs on this machine.
    pub fn process(&self, container: &str) -> Result<u32> {
        let found = self.containers.iter().find(|c| c.name == container);
        let id = &found.with_context(|| format!("{} has no container {container}", self.name))?.id;
        ensure!(!id.is_empty(), "container {container} of {} has not started", self.name);
        process_of(id).with_context(|| format!("no process of {}/{container} ({id})", self.name))
    }

    /// The root directory of a container that runs on this machine, as that container sees it.
    pub fn root(&self, container: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root", self.process(container)?)))
    }

    /// The set that a container finds at `path`, read through its own root; in a person's own
    /// cluster by a shell in the container.
    pub fn set(&self, container: &str, path: &str) -> Result<Set> {
        if !self.cluster.is_ours() {
            return self.set_by_shell(container, path);
        }
        let root = self.root(container)?;
        let volume = root.join(path.trim_start_matches('/'));
        Set::read(&volume).with_context(|| format!("{}:{path}", self.name))
    }

    /// The same, read by a shell inside the container.
    pub fn set_by_shell(&self, container: &str, path: &str) -> Result<Set> {
        let command = ["sh", "-c", Set::SCRIPT, "set", path];
        let done = self.cluster.exec(&self.namespace, &self.name, container, command)?;
        Set::from_frames(&done.text()?).with_context(|| format!("{}:{path}", self.name))
    }

    /// Runs a shell script in a container: what it printed; it must succeed.
    pub fn shell(&self, container: &str, script: &str) -> Result<String> {
        let command = ["sh", "-c", script];
        self.cluster.exec(&self.namespace, &self.name, container, command)?.text()
    }

    /// Its directory under kubelet's, on its node.
    pub fn directory(&self) -> PathBuf {
        Path::new("/var/lib/kubelet/pods").join(&self.uid)
    }
}

/// The first process whose control group is named for the container.
fn process_of(id: &str) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<_> = pids
        .filter(|pid| {
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"));
            groups.is_ok_and(|groups| groups.contains(id))
        })
        .collect();
    found.sort_unstable();
    found.first().copied()
}
