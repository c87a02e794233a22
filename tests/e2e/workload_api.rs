//! Applications that know nothing of us and take their identity from the socket in their volume:
//! one with go-spiffe, one with Python's spiffe, as nobody in particular, under Pod Security
//! `restricted`. Through kills and upgrades of the driver they go on, and come back by themselves.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    cluster::name_of,
    control::Control,
    ground::Ground,
    jwt_files,
    patience::eventually,
    pod::Pod,
    restarts::{kill_drivers, runs_image},
    story::{Seen, Story},
    workload::CONTAINER,
};

const NAMESPACE: &str = "e2e-workload";
/// Renewed after 30 to 40 s. gRPC's C core waits longer each time before it connects again, so the
/// driver must be back well before the end.
const TTL: &str = "1m";
const START: Duration = Duration::from_secs(90);
/// For a renewal, on a busy machine.
const RENEWAL: Duration = Duration::from_secs(120);
const PROGRAMS: [&str; 2] = ["workload-go", "workload-python"];

/// What an application says of itself, once a second.
#[derive(Clone, Debug, Default)]
struct Report {
    id: String,
    serial: String,
    renewals: u64,
    handshakes: u64,
    jwt: String,
    tokens: u64,
    waits: u64,
}

/// The applications, two on every node.
struct Applications<'a> {
    ground: &'a Ground,
    pods: Vec<Pod>,
}

pub fn run(ground: &Ground, story: &Story) -> Result<Seen> {
    let second = ground.second_image()?;
    ground.namespace(NAMESPACE)?;
    let level = "pod-security.kubernetes.io/enforce=restricted";
    ground.cluster.kubectl(["label", "--overwrite", "namespace", NAMESPACE, level])?;
    let own = Applications::start(ground)?;
    let file = jwt_files::written(ground, NAMESPACE)?;
    story.step(&format!("{} applications use the socket; {file}", own.pods.len()));
    if ground.signer.is_decided() {
        let event = jwt_files::refused(ground, NAMESPACE)?;
        story.step(&format!("refused: {event}"));
    }

    kill_drivers(ground)?;
    own.go_on().context("after SIGKILL to the driver")?;
    story.step("driver killed with SIGKILL on every node: each follows it again");

    ground.install(&[&format!("image.tag={second}")])?;
    runs_image(ground, second)?;
    own.go_on().context("after the upgrade to another image")?;
    story.step("upgraded to another image: each follows it again");

    if ground.signer.is_decided() {
        Control::of(ground).rotate()?;
    }
    ground.install(&[])?;
    own.go_on().context("after the way back and another CA")?;
    story.step("back to the first image, and to another CA: each follows");

    let seen = own.reports()?;
    let sum = |figure: fn(&Report) -> u64| seen.iter().map(figure).sum::<u64>();
    let least = seen.iter().map(|report| report.renewals).min().unwrap_or_default();
    ensure!(least >= 3, "an application saw {least} rotations only");
    Ok(Seen::new(format!(
        "{} applications with go-spiffe and Python's spiffe, non-root, from a read-only mount, kept \
         their identity through a kill, two upgrades and {} rotations: {} handshakes and none \
         failed, {} JWT-SVIDs, each validated; {file}",
        seen.len(),
        sum(|report| report.renewals),
        sum(|report| report.handshakes),
        sum(|report| report.tokens),
    ))
    .with(json!({
        "applications": seen.len(),
        "rotations": sum(|report| report.renewals),
        "handshakes": sum(|report| report.handshakes),
        "tokens": sum(|report| report.tokens),
        "waits": sum(|report| report.waits),
    })))
}

// === impl Applications ===

impl<'a> Applications<'a> {
    /// Starts them and waits until each has its identity and its JWT-SVIDs.
    fn start(ground: &'a Ground) -> Result<Self> {
        let mut objects = Vec::new();
        let nodes = ground.cluster.nodes()?;
        for (n, node) in nodes.iter().enumerate() {
            for (m, program) in PROGRAMS.into_iter().enumerate() {
                // With an fsGroup the socket is the group's; without, everybody's.
                let grouped = n % 2 == m % 2;
                objects.push(application(ground, program, node, grouped));
            }
        }
        ground.cluster.apply(&objects)?;
        let names: Vec<_> = objects.iter().map(name_of).collect();
        let pods = eventually("the applications to start", START, || {
            let mut pods = ground.cluster.pods(NAMESPACE, "")?;
            pods.retain(|pod| names.contains(&pod.name.as_str()));
            let late = pods.iter().find(|pod| !pod.is_ready());
            ensure!(late.is_none(), "one is {}", late.map(Pod::state).unwrap_or_default());
            ensure!(pods.len() == names.len(), "{} are there", pods.len());
            Ok(pods)
        })?;
        let applications = Self { ground, pods };
        eventually("the applications' first words", START, || {
            for (pod, report) in applications.pods.iter().zip(applications.reports()?) {
                ensure!(report.id == pod.spiffe_id(), "{} is {}", pod.name, report.id);
                let served = report.jwt == "served" && report.tokens > 0;
                ensure!(served, "{} has no JWT-SVID: {report:?}", pod.name);
            }
            Ok(())
        })?;
        Ok(applications)
    }

    /// The same containers run, and since now each has had a new certificate over its socket, has
    /// made handshakes with it and has had its JWT-SVIDs as before.
    fn go_on(&self) -> Result<()> {
        self.ground.driver_is_ready(START)?;
        let before = self.reports()?;
        eventually("every application to go on", RENEWAL, || {
            self.unharmed()?;
            for ((pod, before), now) in self.pods.iter().zip(&before).zip(self.reports()?) {
                let name = &pod.name;
                ensure!(now.serial != before.serial, "{name} still has {}", now.serial);
                ensure!(now.renewals > before.renewals, "{name} has had no renewal");
                ensure!(now.handshakes > before.handshakes, "{name} is silent");
                ensure!(now.tokens > before.tokens, "{name} has had no JWT-SVID: {now:?}");
            }
            Ok(())
        })
    }

    fn unharmed(&self) -> Result<()> {
        let pods = self.ground.cluster.pods(NAMESPACE, "")?;
        for pod in &self.pods {
            let now = pods.iter().find(|now| now.uid == pod.uid);
            let now = now.with_context(|| format!("{} has gone", pod.name))?;
            ensure!(now.lives() == pod.lives(), "a container of {} was restarted", pod.name);
        }
        Ok(())
    }

    fn reports(&self) -> Result<Vec<Report>> {
        self.pods.iter().map(|pod| self.report(pod)).collect()
    }

    fn report(&self, pod: &Pod) -> Result<Report> {
        let log = self.ground.cluster.logs(NAMESPACE, &pod.name, CONTAINER)?;
        let line = log.lines().rfind(|line| line.contains(" handshakes="));
        let last = log.lines().last().unwrap_or_default();
        let line = line.with_context(|| format!("{} says only: {last}", pod.name))?;
        Ok(Report::parse(line))
    }
}

// === impl Report ===

impl Report {
    fn parse(line: &str) -> Self {
        let word = |name: &str| {
            let value = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_default().to_owned()
        };
        let figure = |name: &str| word(name).parse().unwrap_or_default();
        Self {
            id: line.split(' ').next().unwrap_or_default().to_owned(),
            serial: word("serial"),
            renewals: figure("renewals"),
            handshakes: figure("handshakes"),
            jwt: word("jwt"),
            tokens: figure("tokens"),
            waits: figure("waits"),
        }
    }
}

/// A pod that runs a program of the examples' image under Pod Security `restricted`.
fn application(ground: &Ground, program: &str, node: &str, grouped: bool) -> Value {
    let workload = ground.workload(NAMESPACE, &format!("{program}-{node}"));
    let mut workload = workload.on(node).with("ttl", TTL).security(restricted(grouped));
    let spec = workload.spec();
    let container = &mut spec["containers"][0];
    container["command"] = json!([format!("/usr/local/bin/{program}")]);
    container["env"] =
        json!([{"name": "SPIFFE_ENDPOINT_SOCKET", "value": "unix:///svid/spiffe.sock"}]);
    container["securityContext"] = confined();
    let mounts = container["volumeMounts"].as_array_mut();
    mounts.into_iter().for_each(|mounts| mounts.push(json!({"name": "tmp", "mountPath": "/tmp"})));
    let volumes = spec["volumes"].as_array_mut();
    let memory = json!({"name": "tmp", "emptyDir": {"medium": "Memory"}});
    volumes.into_iter().for_each(|volumes| volumes.push(memory.clone()));
    workload.object()
}

/// A container's security context under Pod Security `restricted`.
pub fn confined() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    })
}

/// A pod's.
pub fn restricted(grouped: bool) -> Value {
    let mut context = json!({
        "runAsNonRoot": true,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    if grouped {
        context["fsGroup"] = 20001.into();
    }
    context
}
