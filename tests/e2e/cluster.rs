//! The cluster, through `hack/cluster`: ours, or with KUBECONFIG a person's own.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    command::{Done, Following, Run},
    node::Node,
    patience::eventually,
    pod::Pod,
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hack/cluster");

/// A cluster.
#[derive(Clone)]
pub struct Cluster {
    /// Where ours keeps its state; `None` for a person's own.
    directory: Option<PathBuf>,
}

// === impl Cluster ===

impl Cluster {
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self { directory }
    }

    /// Whether its nodes are ours to look into, restart and kill.
    pub fn is_ours(&self) -> bool {
        self.directory.is_some()
    }

    /// Where ours keeps its state.
    pub fn state(&self) -> Result<&Path> {
        self.directory.as_deref().context("only our own cluster's state is known")
    }

    /// How a person looks into it.
    pub fn hint(&self) -> String {
        let directory = self.directory.iter().map(|dir| format!("CLUSTER_DIR={} ", dir.display()));
        directory.collect::<String>() + "hack/cluster kubectl get pods -A"
    }

    /// `hack/cluster ARGS…`, to be run.
    pub fn script<I: IntoIterator<Item: AsRef<str>>>(&self, args: I) -> Run {
        self.environment(Run::new(SCRIPT, args))
    }

    /// So that a program's own `hack/cluster` finds this cluster.
    pub fn environment(&self, run: Run) -> Run {
        match &self.directory {
            Some(directory) => run.env("CLUSTER_DIR", &directory.display().to_string()),
            None => run,
        }
    }

    /// `kubectl ARGS…`, to be run.
    pub fn kubectl_run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Run {
        self.script(["kubectl"].into_iter().chain(args))
    }

    pub fn kubectl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<String> {
        self.kubectl_run(args).text()
    }

    /// A `kubectl` whose output is followed.
    pub fn kubectl_following<'a>(
        &self,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Result<Following> {
        self.kubectl_run(args).following()
    }

    /// `helm ARGS…`, to be run.
    pub fn helm<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Run {
        self.script(["run", "helm"].into_iter().chain(args)).limit(Duration::from_mins(5))
    }

    /// A command in a node's namespaces, to be run.
    pub fn node_exec<'a>(&self, node: &'a str, args: impl IntoIterator<Item = &'a str>) -> Run {
        self.script(["exec", node].into_iter().chain(args))
    }

    /// `hack/cluster restart kubelet node-1` and the like; `verb` is stop, start, restart or kill.
    pub fn service(&self, verb: &str, component: &str, node: &str) -> Result<()> {
        self.script([verb, component, node]).text().map(drop)
    }

    pub fn node(&self, name: &str) -> Node {
        Node::new(self.clone(), name)
    }

    /// The nodes' names, in order.
    pub fn nodes(&self) -> Result<Vec<String>> {
        let nodes = self.list("", "nodes", "")?;
        let mut names: Vec<_> = nodes.iter().map(|node| name_of(node).to_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// Applies objects, as JSON.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.apply_text(&list.to_string())
    }

    /// Applies a manifest, YAML or JSON.
    pub fn apply_text(&self, manifest: &str) -> Result<()> {
        self.kubectl_run(["apply", "-f", "-"]).input(manifest).text().map(drop)
    }

    /// One object; `namespace` is empty for a cluster-wide one.
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Result<Value> {
        let args = ["-n", namespace, "get", kind, name, "-o", "json"];
        let text = self.kubectl(args.into_iter().skip(if namespace.is_empty() { 2 } else { 0 }))?;
        serde_json::from_str(&text).context("kubectl's answer")
    }

    /// The objects of a kind that a label selector (may be empty) finds in a namespace (empty: all).
    pub fn list(&self, namespace: &str, kind: &str, selector: &str) -> Result<Vec<Value>> {
        let mut args = vec!["get", kind, "-o", "json"];
        match namespace {
            "" => args.push("--all-namespaces"),
            namespace => args.extend(["-n", namespace]),
        }
        if !selector.is_empty() {
            args.extend(["-l", selector]);
        }
        let mut answer: Value = serde_json::from_str(&self.kubectl(args)?)?;
        let items = answer.get_mut("items").map(Value::take).context("no items")?;
        serde_json::from_value(items).context("kubectl's answer")
    }

    pub fn pod(&self, namespace: &str, name: &str) -> Result<Pod> {
        Pod::from_json(self.clone(), &self.get(namespace, "pod", name)?)
    }

    /// The pods of a namespace, without those that are being deleted.
    pub fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
        let pods = self.list(namespace, "pods", selector)?;
        let here = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        here.map(|pod| Pod::from_json(self.clone(), pod)).collect()
    }

    /// Waits until a namespace has `count` pods, all ready.
    pub fn ready_pods(&self, namespace: &str, count: usize, limit: Duration) -> Result<Vec<Pod>> {
        eventually(&format!("{count} ready pods in {namespace}"), limit, || {
            let pods = self.pods(namespace, "")?;
            let ready = pods.iter().filter(|pod| pod.is_ready()).count();
            ensure!(
                ready == count && pods.len() == count,
                "{ready} of {} are ready; {}",
                pods.len(),
                unready(&pods)
            );
            Ok(pods)
        })
    }

    /// Waits until these pods of a namespace are ready, whatever else is there.
    pub fn ready_pods_named(&self, namespace: &str, names: &[&str], limit: Duration) -> Result<()> {
        eventually(&format!("{} to be ready", names.join(", ")), limit, || {
            for name in names {
                let pod = self.pod(namespace, name)?;
                ensure!(pod.is_ready(), "{name} is {}", pod.state());
            }
            Ok(())
        })
    }

    /// A command in a container, whatever its status.
    pub fn exec<'a>(
        &self,
        namespace: &'a str,
        pod: &'a str,
        container: &'a str,
        command: impl IntoIterator<Item = &'a str>,
    ) -> Result<Done> {
        let args = ["-n", namespace, "exec", pod, "-c", container, "--"];
        self.kubectl_run(args.into_iter().chain(command)).done()
    }

    pub fn logs(&self, namespace: &str, pod: &str, container: &str) -> Result<String> {
        self.kubectl(["-n", namespace, "logs", pod, "-c", container])
    }

    /// What happened to a pod, oldest first: `FailedMount: MountVolume.SetUp failed …`.
    pub fn events(&self, namespace: &str, pod: &str) -> Result<Vec<String>> {
        let mut events = self.list(namespace, "events", "")?;
        events.retain(|event| event["involvedObject"]["name"] == pod);
        events.sort_by_key(|event| {
            let at = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            at("lastTimestamp").max(at("eventTime"))
        });
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        Ok(events
            .iter()
            .map(|e| format!("{}: {}", text(e, "reason"), text(e, "message")))
            .collect())
    }

    /// Deletes a namespace and waits until it has gone.
    pub fn delete_namespace(&self, name: &str, limit: Duration) -> Result<()> {
        let limit_text = format!("--timeout={}s", limit.as_secs());
        let args = ["delete", "namespace", name, "--ignore-not-found", "--wait", &limit_text];
        self.kubectl_run(args).limit(limit + Duration::from_secs(10)).text().map(drop)
    }
}

pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn unready(pods: &[Pod]) -> String {
    let unready: BTreeMap<_, _> =
        pods.iter().filter(|pod| !pod.is_ready()).map(|pod| (&pod.name, pod.state())).collect();
    let shown: Vec<_> =
        unready.iter().take(5).map(|(name, why)| format!("{name}: {why}")).collect();
    shown.join(", ")
}
