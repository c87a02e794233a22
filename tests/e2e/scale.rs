//! A hundred pods at once on one node, beside the same pods with an emptyDir.

use std::{
    collections::BTreeSet,
    env,
    io::{BufRead, BufReader},
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    ground::Ground,
    patience::{Deadline, eventually, still_wanted},
    pod::Pod,
    story::{Seen, Story},
    workload::{CONTAINER, MOUNT},
};

const PODS: usize = 100;
const LIMIT: Duration = Duration::from_mins(3);
const AIM: f64 = 1.1;
/// Far enough from the aim that a busy machine is not the reason.
const MOST: f64 = 2.0;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Svid,
    EmptyDir,
}

// === impl Kind ===

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Svid => "svid",
            Self::EmptyDir => "emptydir",
        }
    }
}

pub fn run(ground: &Ground, story: &Story) -> Result<Seen> {
    let node = ground.cluster.nodes()?.into_iter().next().context("no node")?;
    // With two rounds neither kind has the warmer machine. One is enough to notice a regression, and
    // leaves the colder machine to ours.
    let rounds = env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1).max(1);
    let order = [Kind::Svid, Kind::EmptyDir, Kind::EmptyDir, Kind::Svid];
    let order = order.into_iter().cycle().take(2 * rounds);
    let mut seconds: Vec<(Kind, f64)> = Vec::new();
    for (n, kind) in order.enumerate() {
        let namespace = format!("e2e-scale-{n}-{}", kind.name());
        let taken = started(ground, &namespace, kind, &node)?.as_secs_f64();
        story.step(&format!("{PODS} pods with {} Running after {taken:.1} s", kind.name()));
        seconds.push((kind, taken));
        if n == 0 {
            verified(ground, &namespace)?;
        }
        gone(ground, &namespace, &node)?;
    }
    let mean = |kind: Kind| {
        let of_kind: Vec<_> = seconds.iter().filter(|(k, _)| *k == kind).map(|(_, s)| s).collect();
        of_kind.iter().copied().sum::<f64>() / of_kind.len() as f64
    };
    let (svid, empty) = (mean(Kind::Svid), mean(Kind::EmptyDir));
    let ratio = svid / empty;
    ensure!(ratio <= MOST, "{svid:.1} s beside {empty:.1} s with an emptyDir: ratio {ratio:.2}");
    let runs: Vec<_> =
        seconds.iter().map(|(kind, s)| json!({"kind": kind.name(), "seconds": s})).collect();
    Ok(Seen::new(format!(
        "{PODS} pods at once on one node: all Running after {svid:.1} s, with an emptyDir instead \
         {empty:.1} s: ratio {ratio:.2} (aim {AIM})"
    ))
    .with(json!({"pods": PODS, "runs": runs, "ratio": ratio, "aim": AIM})))
}

/// Makes the pods; the time until all run.
fn started(ground: &Ground, namespace: &str, kind: Kind, node: &str) -> Result<Duration> {
    ground.namespace(namespace)?;
    let pods: Vec<Value> = (0..PODS)
        .map(|n| {
            let mut pod = ground.workload(namespace, &format!("pod-{n:03}")).on(node);
            // As most pods are, with the API's token mounted beside.
            pod.spec()["automountServiceAccountToken"] = true.into();
            match kind {
                Kind::Svid => pod,
                Kind::EmptyDir => pod.volume(json!({"emptyDir": {}})),
            }
        })
        .map(crate::workload::Workload::object)
        .collect();
    let columns = "-o=custom-columns=NAME:.metadata.name,PHASE:.status.phase";
    let args = ["-n", namespace, "get", "pods", "--watch", "--no-headers", columns];
    let mut watch = ground.cluster.kubectl_following(args)?;
    let output = watch.0.stdout.take().context("the watch has no output")?;
    let (tell, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pods}).to_string();
    let create = ground.cluster.kubectl_run(["create", "-f", "-"]).input(list);
    let began = Instant::now();
    create.text()?;
    let deadline = Deadline::after(LIMIT);
    let mut running = BTreeSet::new();
    while running.len() < PODS {
        still_wanted()?;
        ensure!(!deadline.passed(), "{} of {PODS} pods run after {LIMIT:?}", running.len());
        let Ok(line) = lines.recv_timeout(Duration::from_millis(500)) else { continue };
        if let [name, "Running"] = line.split_whitespace().collect::<Vec<_>>().as_slice() {
            running.insert((*name).to_owned());
        }
    }
    Ok(began.elapsed())
}

/// Each of the hundred has its own good identity.
fn verified(ground: &Ground, namespace: &str) -> Result<()> {
    let pods = ground.cluster.ready_pods(namespace, PODS, Duration::from_secs(30))?;
    if !ground.cluster.is_ours() {
        return Ok(());
    }
    let mut serials = BTreeSet::new();
    for pod in &pods {
        let set = pod.set(CONTAINER, MOUNT)?;
        set.check(&pod.spiffe_id()).with_context(|| pod.name.clone())?;
        serials.insert(set.serial().to_owned());
    }
    ensure!(serials.len() == PODS, "{} different certificates", serials.len());
    let node = &pods.first().context("no pod")?.node;
    ground.cluster.node(node).has_mounts_of(&pods, 1).map(drop)
}

/// The next hundred must find the node as these did.
fn gone(ground: &Ground, namespace: &str, node: &str) -> Result<()> {
    let pods = ground.cluster.pods(namespace, "")?;
    ground.cluster.delete_namespace(namespace, LIMIT)?;
    if ground.cluster.is_ours() {
        eventually("the pods' directories to go", Duration::from_mins(1), || {
            let args = ["-mindepth", "1", "-maxdepth", "1"];
            let there = ground.cluster.node(node).find("/var/lib/kubelet/pods", args)?;
            let left = |pod: &&Pod| there.iter().any(|path| Path::new(path) == pod.directory());
            let left = pods.iter().filter(left).count();
            ensure!(left == 0, "{left} directories are left");
            Ok(())
        })?;
    }
    Ok(())
}
