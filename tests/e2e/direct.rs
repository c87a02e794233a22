//! `signer: controller`: what pods feel when replicas and drivers are killed, and while the API server
//! is away. Nothing: a call goes to another replica, and what fell due meanwhile is renewed in time.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    cluster::name_of,
    control::{Control, REPLICAS, STEP},
    ground::Ground,
    load::Load,
    patience::throughout,
    restarts::kill_drivers,
    story::{Seen, Story},
};

const NAMESPACE: &str = "e2e-direct";
const NEWCOMERS: &str = "e2e-direct-new";
const PODS: usize = 16;
/// Renewed after 60 to 80 s.
const TTL: &str = "2m";
/// A quarter of the life: nothing is decided meanwhile.
const AWAY: Duration = Duration::from_secs(30);
const KILLS: usize = 4;
const START: Duration = Duration::from_mins(2);

pub fn run(ground: &Ground, story: &Story) -> Result<Seen> {
    let control = Control::of(ground);
    let before = requests(ground)?;
    let load = Load::with_tokens(ground, NAMESPACE, PODS, TTL)?;
    story.step(&format!("{PODS} pods call each other"));

    let started = killed(ground, &control, &load)?;
    story.step(&format!(
        "replicas killed {KILLS} times in turn: {started} pods started meanwhile, none had to wait for \
         kubelet's next try"
    ));

    kill_drivers(ground)?;
    load.goes_on().context("after SIGKILL to the drivers")?;
    story.step("driver killed on every node: all go on");

    ground.cluster.script(["stop", "kube-apiserver"]).text()?;
    let gone = Instant::now();
    let away = throughout(AWAY, || load.check().map(drop));
    let back = ground.cluster.script(["start", "kube-apiserver"]).limit(STEP).text();
    away.and(back.map(drop)).context("while the API server is away")?;
    let away = gone.elapsed();
    control.settled(REPLICAS)?;
    let reloads = load.check()?.reloads;
    load.until("renewals after the API server is back", STEP, || {
        let renewed = load.check()?.reloads - reloads;
        ensure!(renewed >= i64::try_from(PODS)?, "{renewed} sets were taken since");
        Ok(())
    })?;
    load.goes_on().context("after the API server is back")?;
    story.step(&format!("no API server for {away:.0?}: all go on, and are renewed after it"));

    let made: Vec<_> = requests(ground)?.difference(&before).cloned().collect();
    ensure!(made.is_empty(), "API objects were made: {made:?}");
    let seen = load.check()?;
    Ok(Seen::new(format!(
        "{PODS} pods, {} handshakes and {} JWT-SVIDs verified, none failed, though replicas were killed \
         {KILLS} times, every driver once, and no API server was there for {away:.0?}; {} sets were \
         taken and no API object was made",
        seen.calls, seen.tokens, seen.reloads
    ))
    .with(json!({
        "pods": PODS, "handshakes": seen.calls, "tokens": seen.tokens, "reloads": seen.reloads,
    })))
}

/// Kills one replica after the other while pods start: how many did.
fn killed(ground: &Ground, control: &Control<'_>, load: &Load<'_>) -> Result<usize> {
    ground.namespace(NEWCOMERS)?;
    for n in 0..KILLS {
        // The other one answers, or nobody does for a moment.
        control.settled(REPLICAS)?;
        let replicas = control.pods()?;
        let pods = (0..4).map(|m| ground.workload(NEWCOMERS, &format!("new-{n}-{m}")).object());
        ground.cluster.apply(&pods.collect::<Vec<_>>())?;
        control.kill(&replicas[n % replicas.len()])?;
        load.check()?;
    }
    let pods = ground.cluster.ready_pods(NEWCOMERS, 4 * KILLS, START)?;
    for pod in &pods {
        let events = ground.cluster.events(NEWCOMERS, &pod.name)?;
        let failed = events.iter().find(|event| event.starts_with("FailedMount"));
        ensure!(failed.is_none(), "{}: {failed:?}", pod.name);
    }
    control.settled(REPLICAS)?;
    load.goes_on()?;
    Ok(pods.len())
}

/// Every CertificateSigningRequest there is, by name.
fn requests(ground: &Ground) -> Result<BTreeSet<String>> {
    let all = ground.cluster.list("", "certificatesigningrequests", "")?;
    Ok(all.iter().map(|request| name_of(request).to_owned()).collect())
}
