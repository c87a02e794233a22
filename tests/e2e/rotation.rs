//! Renewal under the eyes of applications, with the CA replaced meanwhile.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use svid_csi::pki::{TrustBundle, X509Svid};

use crate::{
    ca::Ca,
    control::Control,
    ground::{Ground, repository},
    issuers::{self, FIRST, SECOND},
    observer::Observer,
    patience::{eventually, now, pause},
    signer::Signer,
    story::{Seen, Story},
};

const NAMESPACE: &str = "e2e-rotation";
const WATCHED: &str = "svid-example-watcher";
/// The shortest that there is.
const TTL: &str = "10s";
const RENEWALS: usize = 10;

pub fn run(ground: &Ground, story: &Story) -> Result<Seen> {
    ground.namespace(NAMESPACE)?;
    let nodes = ground.cluster.nodes()?;
    watcher(ground)?;
    let mut pods = Vec::new();
    for (n, node) in nodes.iter().chain(&nodes).enumerate() {
        let pod = ground.workload(NAMESPACE, &format!("reader-{n}")).on(node).with("ttl", TTL);
        pods.push(pod.object());
    }
    ground.cluster.apply(&pods)?;
    let pods = ground.cluster.ready_pods(NAMESPACE, pods.len(), Duration::from_mins(1))?;
    let mut observer = Observer::start(&pods)?;
    observer.renewals(2, Duration::from_secs(40))?;
    story.step(&format!("{} volumes are renewed", pods.len()));

    let (old, new) = another_ca(ground, story)?;
    let within = ground.signer.propagation() + Duration::from_mins(1);
    let (published, signed) = published_then_signing(&mut observer, &old, &new, within, story)?;

    observer.wait("ten renewals of every volume", Duration::from_mins(2), |_, volume| {
        volume.svids.len() > RENEWALS
    })?;
    let reads = observer.end()?;
    let reloads = reloaded(ground)?;
    let lives = ground.cluster.pods(NAMESPACE, "")?;
    ensure!(lives.iter().all(|pod| pod.lives().iter().all(|life| life.1 == 0)), "a pod restarted");
    let volumes = observer.volumes();
    let fewest = volumes.values().map(|volume| volume.svids.len() - 1).min().unwrap_or_default();
    Ok(Seen::new(format!(
        "{} volumes renewed {fewest} times or more, {reads} reads and none mismatched; the watcher \
         reloaded {reloads} times; a new CA was in every bundle after {published:.0} s and signed \
         after {signed:.0} s",
        volumes.len()
    ))
    .with(json!({
        "renewals": fewest, "reads": reads, "reloads": reloads,
        "caPublishedSeconds": published, "caSigningSeconds": signed,
    })))
}

/// Has the CA replaced as an operator does: the roots until now, and the new one.
fn another_ca(ground: &Ground, story: &Story) -> Result<(TrustBundle, TrustBundle)> {
    match ground.signer {
        Signer::CertManager => {
            let (old, new) = (issuers::root(ground, FIRST)?, issuers::make(ground, SECOND)?);
            issuers::trust(ground, &[&old, &new])?;
            pause(ground.signer.propagation());
            issuers::choose(ground, SECOND)?;
            story.step("the ConfigMap names another issuer, whose root was trusted before");
            Ok((old, new))
        }
        Signer::Local => {
            let ca = Ca::make(&ground.out.join("ca"), "e2e-rotation")?;
            let roots = (ground.ca().root()?, ca.root()?);
            ground.replace_ca(ca)?;
            story.step("the CA's Secret holds another CA");
            Ok(roots)
        }
        Signer::Csr | Signer::Controller => {
            let roots = Control::of(ground).rotate()?;
            story.step("`svid-csi ca rotate`: the controller has another CA");
            Ok(roots)
        }
    }
}

/// The example as it stands, but for a shorter life.
fn watcher(ground: &Ground) -> Result<()> {
    let path = repository().join("deploy/examples/watcher.yaml");
    let manifest = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let ttl = "csi.svid.dev/ttl: 30s";
    ensure!(manifest.matches(ttl).count() == 1, "{} has no {ttl}", path.display());
    let manifest = manifest.replace(ttl, &format!("csi.svid.dev/ttl: {TTL}"));
    ground.apply_example(&manifest)
}

/// Invariant 6: nowhere does the new CA sign before it is in every bundle, and the old one stays.
/// Seconds until it was in every bundle, and until every volume had an SVID under it.
fn published_then_signing(
    observer: &mut Observer,
    old: &TrustBundle,
    new: &TrustBundle,
    within: Duration,
    story: &Story,
) -> Result<(f64, f64)> {
    let began = now();
    let under =
        |svid: &X509Svid, root: &TrustBundle| svid.verify_chain(root, svid.not_before()).is_ok();
    let since = || now().duration_since(began).unwrap_or_default().as_secs_f64();
    let [new_root] = new.x509_authorities() else { anyhow::bail!("one new root") };
    observer.wait("the new root in every bundle", Duration::from_mins(2), |_, volume| {
        volume.bundle.contains(new_root)
    })?;
    let published = since();
    for (pod, volume) in observer.volumes() {
        let has = |root| volume.bundle.contains(root);
        ensure!(old.x509_authorities().iter().all(has), "{pod} has lost an old root");
        let early = volume.svids.iter().find(|svid| under(svid, new));
        ensure!(early.is_none(), "the new CA signed for {pod} before every bundle had it");
    }
    story.step("its root is in every bundle beside the old one, which goes on signing");
    observer.wait("SVIDs under the new CA", within, |_, volume| {
        volume.svids.last().is_some_and(|svid| under(svid, new))
    })?;
    let signed = since();
    for (pod, volume) in observer.volumes() {
        let mut svids = volume.svids.iter().skip_while(|svid| under(svid, old));
        ensure!(svids.all(|svid| under(svid, new)), "{pod} went back to the old CA");
    }
    story.step("it signs, and SVIDs under the old CA verified until they ended");
    Ok((published, signed))
}

/// The watching application has loaded each new set, checked it, and lives: how often.
fn reloaded(ground: &Ground) -> Result<usize> {
    eventually("ten reloads of the watcher", Duration::from_mins(2), || {
        let log = ground.cluster.logs(WATCHED, "watcher", "app")?;
        let lines = log.lines().filter(|line| line.starts_with("reloaded "));
        let serials: BTreeSet<_> = lines.filter_map(|line| line.split(' ').nth(2)).collect();
        ensure!(serials.len() >= RENEWALS, "{} certificates in its log", serials.len());
        let pod = ground.cluster.pod(WATCHED, "watcher")?;
        ensure!(pod.container()?.restarts == 0, "the watcher was restarted: a set did not hold");
        Ok(serials.len())
    })
}
