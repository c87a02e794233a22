//! `signer: controller`: what pods feel when a replica is killed, the driver, or the API server is
//! away. Nothing, for the controller needs no API call and makes no API object for an SVID.

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
/// Renewed after 30 to 40 s.
const TTL: &str = "1m";
/// So long that every SVID is renewed meanwhile, and every JWT-SVID of a minute too.
const AWAY: Duration = Duration::from_secs(75);
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

    let reloads = load.check()?.reloads;
    ground.cluster.script(["stop", "kube-apiserver"]).text()?;
    let gone = Instant::now();
    let away = throughout(AWAY, || load.check().map(drop));
    let renewed = load.check().map(|tally| tally.reloads - reloads);
    let back = ground.cluster.script(["start", "kube-apiserver"]).limit(STEP).text();
    away.and(back.map(drop)).context("while the API server is away")?;
    let (away, renewed) = (gone.elapsed(), renewed?);
    let least = i64::try_from(PODS)?;
    ensure!(renewed >= least, "{renewed} sets only were taken while the API server was away");
    control.settled(REPLICAS)?;
    load.goes_on().context("after the API server is back")?;
    story.step(&format!("no API server for {away:.0?}: {renewed} sets were taken meanwhile"));

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
        "renewedWithoutApiServer": renewed,
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
