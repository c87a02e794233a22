//! Installing, upgrading, rolling back and taking away by the documents' own commands, with pods
//! running.

use std::{thread, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;

use crate::{
    command::Run,
    documented::{Block, blocks, scratch_checkout},
    fleet::Fleet,
    ground::{DRIVER, Ground, NAMESPACE, RELEASE, TRUST_DOMAIN, chart, repository},
    images::SECOND_TAG,
    patience::{eventually, throughout},
    story::{Seen, Story},
    watch::Watch,
    workload::{CONTAINER, MOUNT},
};

const PODS: &str = "e2e-helm";
const INSTALL: &str = "docs/install.md";
/// No uninstall takes it away, nor the policies.
const DEFINITION: &str = "svidpolicies.svid.dev";
/// The version before this one, until there is a real one.
const PREVIOUS: &str = "0.0.1";
const LIMIT: Duration = Duration::from_secs(90);
/// How long pods are left without a driver.
const AWAY: Duration = Duration::from_secs(15);
/// kubelet tries an unmount again after 2 min 2 s at most.
const RETRY: Duration = Duration::from_secs(150);

pub fn run(ground: &Ground, story: &Story) -> Result<Seen> {
    let cluster = &ground.cluster;
    // Lint, schema and snapshots want a processor, and most of what follows is waiting.
    let checked = thread::spawn(|| hack_chart("check").text());
    ground.uninstall()?;
    cluster.delete_namespace(NAMESPACE, LIMIT)?;
    cluster.kubectl(["delete", "crd", DEFINITION])?;
    ground.cluster.environment(hack_chart("server")).text()?;
    story.step("the API server takes what the chart renders");
    let directory = scratch_checkout()?;
    readme(ground, &directory)?;
    story.step("README's \"Install in a cluster\" works word for word");
    paste(ground, &block("## Uninstall")?, &directory)?;
    let kinds = nothing_left(ground)?;
    story.step(&format!("uninstalled: no object of {kinds} kinds, socket or registration is left"));
    checked.join().map_err(|_panic| anyhow!("panicked"))?.context("the chart as such")?;
    story.step("lint, schema and snapshots of the chart are as they should be");
    plain_manifests(ground, &directory)?;
    story.step("plain manifests work, with the edits that docs/install.md shows");

    ground.prepare_namespace()?;
    install_previous(ground)?;
    let mut fleet = Fleet::start(ground, PODS)?;
    let watch = fleet.watch()?;
    story.step(&format!("pods run with chart {PREVIOUS}"));
    let upgrade = block("## Upgrade and roll back")?;
    for (step, version) in upgrade.singly().iter().zip([env!("CARGO_PKG_VERSION"), PREVIOUS]) {
        paste(ground, step, &directory)?;
        let listed = cluster.helm(["list", "-n", NAMESPACE]).text()?;
        ensure!(listed.contains(&format!("svid-csi-{version}")), "not {version}: {listed}");
        fleet.goes_on(&watch).with_context(|| format!("with chart {version}"))?;
        story.step(&format!("changed to chart {version} and its image: pods go on"));
    }

    under_running_pods(ground, &mut fleet, &watch)?;
    story.step("uninstalled and installed again under running pods: every volume goes on");
    let seen = watch.finish()?;
    Ok(Seen::new(format!(
        "the commands of README and docs/install.md work as they stand; {} pods went through \
         upgrade, rollback, uninstall and install with {} renewals in {} reads, every set whole; \
         uninstalled, nothing of {kinds} kinds of objects is left",
        fleet.members().len(),
        seen.renewals,
        seen.reads
    )))
}

/// `hack/chart check` needs no cluster, `hack/chart server` one without the chart's objects.
fn hack_chart(mode: &str) -> Run {
    let script = repository().join("hack/chart").display().to_string();
    // The first time, it downloads definitions.
    Run::new(&script, [mode]).limit(Duration::from_mins(5))
}

/// What README.md shows, but for the images, which `make e2e` has made.
fn readme(ground: &Ground, directory: &TempDir) -> Result<()> {
    let blocks = blocks("README.md", "## Install in a cluster")?;
    let [prepare, install] = &blocks[..] else {
        bail!("README.md shows {} blocks of commands, not two", blocks.len());
    };
    // The last command of the first block opens the shell for the second.
    let elsewhere = |command: &str| command.starts_with("make ") || command.ends_with("run bash");
    let prepare = prepare.clone().without(elsewhere);
    prepare.run(ground.cluster.environment(Run::new("bash", ["-s"])), directory)?;
    paste(ground, install, directory)?;
    ground.cluster.delete_namespace("svid-example-minimal", LIMIT)
}

/// What docs/install.md shows for people without Helm.
fn plain_manifests(ground: &Ground, directory: &TempDir) -> Result<()> {
    // "With a registry, the image": there is none here.
    let block = block("## Without Helm")?.with("registry.example.org/", "localhost/");
    paste(ground, &block, directory)?;
    ground.driver_is_ready(LIMIT)?;
    ground.namespace(PODS)?;
    ground.cluster.apply(&[ground.workload(PODS, "plain").object()])?;
    let pods = ground.cluster.ready_pods(PODS, 1, LIMIT)?;
    pods[0].set(CONTAINER, MOUNT)?.check(&pods[0].spiffe_id())?;
    ground.cluster.delete_namespace(PODS, LIMIT)?;
    for file in ["svid-csi.yaml", "svidpolicies.yaml"] {
        let path = repository().join("deploy/manifests").join(file).display().to_string();
        ground.cluster.kubectl(["delete", "-f", &path])?;
    }
    nothing_left(ground)?;
    ground.cluster.delete_namespace(NAMESPACE, LIMIT)
}

/// The same chart under another version, which also means another image.
fn install_previous(ground: &Ground) -> Result<()> {
    ground.second_image()?;
    let (chart, out) = (chart().display().to_string(), ground.out.display().to_string());
    let versions = ["--version", PREVIOUS, "--app-version", SECOND_TAG, "--destination", &out];
    ground.cluster.helm(["package", &chart].into_iter().chain(versions)).text()?;
    let (archive, domain) =
        (format!("{out}/svid-csi-{PREVIOUS}.tgz"), format!("trustDomain={TRUST_DOMAIN}"));
    let args = ["install", RELEASE, &archive, "-n", NAMESPACE, "--set", &domain, "--wait"];
    ground.cluster.helm(args).text().map(drop)
}

/// Without the driver pods go on, and those that are deleted wait; with it again all is resumed.
fn under_running_pods(ground: &Ground, fleet: &mut Fleet<'_>, watch: &Watch) -> Result<()> {
    let cluster = &ground.cluster;
    let names = fleet.invite()?;
    let leavers = fleet.arrived(&names, LIMIT)?;
    let notes = cluster.helm(["get", "notes", RELEASE, "-n", NAMESPACE]).text()?;
    ensure!(notes.contains("Before you uninstall"), "the notes do not warn: {notes}");
    watch.allow_expiry(true);
    ground.uninstall()?;
    fleet.dismiss(&leavers)?;
    throughout(AWAY, || {
        fleet.untouched(watch, &leavers)?;
        for pod in &leavers {
            cluster.pod(PODS, &pod.name).context("a pod ended with its volume mounted")?;
        }
        Ok(())
    })
    .context("uninstalled")?;
    ground.install(&[])?;
    fleet.gone(&leavers, RETRY).context("installed again")?;
    fleet.goes_on(watch).context("installed again")?;
    watch.allow_expiry(false);
    Ok(())
}

/// The only commands of docs/install.md below a heading.
fn block(heading: &str) -> Result<Block> {
    let mut blocks = blocks(INSTALL, heading)?;
    ensure!(blocks.len() == 1, "{INSTALL} shows {} blocks below {heading}", blocks.len());
    Ok(blocks.remove(0))
}

/// Runs a document's commands in the shell that `hack/cluster run bash` opens.
fn paste(ground: &Ground, block: &Block, directory: &TempDir) -> Result<()> {
    block.run(ground.cluster.script(["run", "bash"]), directory)
}

/// No object of the chart's in the cluster, no socket and no registration on a node; the number of
/// kinds that were looked through.
fn nothing_left(ground: &Ground) -> Result<usize> {
    let cluster = &ground.cluster;
    let kinds = cluster.kubectl(["api-resources", "--verbs=list", "-o", "name"])?;
    let kinds: Vec<_> = kinds.lines().collect();
    eventually("everything of the driver to go", LIMIT, || {
        let label = format!("app.kubernetes.io/instance={RELEASE}");
        let args = ["get", &kinds.join(","), "-A", "-o", "name", "-l", &label];
        let left = cluster.kubectl(args)?;
        ensure!(left.is_empty(), "left in the cluster: {left}");
        for node in cluster.list("", "csinodes", "")? {
            let drivers = node["spec"]["drivers"].as_array().into_iter().flatten();
            let known = drivers.filter(|driver| driver["name"] == DRIVER).count();
            ensure!(known == 0, "{} knows the driver", node["metadata"]["name"]);
        }
        for node in cluster.nodes()? {
            let node = cluster.node(&node);
            let ours = format!("*{DRIVER}*");
            let mut left = node.find("/var/lib/kubelet", ["!", "-type", "d", "-path", &ours])?;
            // It stays for the case that the driver comes back to pods that still have volumes.
            left.retain(|path| !path.ends_with("/record.key"));
            ensure!(left.is_empty(), "left on {}: {left:?}", node.name);
            let mounts = node.volumes()?;
            ensure!(mounts.is_empty(), "mounted on {}: {mounts:?}", node.name);
        }
        Ok(())
    })?;
    Ok(kinds.len())
}
