//! No controller for a quarter of the SVIDs' life, while they fall due; then it is back.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{
    control::{Control, REPLICAS},
    ground::Ground,
    patience::throughout,
    story::{Seen, Story},
    watch::{View, Watch},
    workload::MOUNT,
};

const NAMESPACE: &str = "e2e-away";
const PODS: usize = 60;
const LIFE: Duration = Duration::from_mins(4);
/// A quarter of the life.
const AWAY: Duration = Duration::from_mins(1);
/// Of the table of renewals.
const SLOT: Duration = Duration::from_secs(2);
const START: Duration = Duration::from_mins(3);

pub fn run(ground: &Ground, story: &Story) -> Result<Seen> {
    let control = Control::of(ground);
    ground.namespace(NAMESPACE)?;
    let nodes = ground.cluster.nodes()?;
    let ttl = format!("{}s", LIFE.as_secs());
    let pod = |n: usize| {
        let pod = ground.workload(NAMESPACE, &format!("pod-{n:02}")).on(&nodes[n % nodes.len()]);
        pod.with("ttl", &ttl).object()
    };
    let began = Instant::now();
    ground.cluster.apply(&(0..PODS).map(pod).collect::<Vec<_>>())?;
    let pods = ground.cluster.ready_pods(NAMESPACE, PODS, START)?;
    let views = pods.iter().map(|pod| View::of(pod, MOUNT)).collect::<Result<Vec<_>>>()?;
    let watch = Watch::start(views);
    let first = serials(&watch);
    let started = began.elapsed();
    story.step(&format!("{PODS} pods run, all started within {started:.0?}"));

    // They fall due between a half and two thirds of their life; the first at its half.
    throughout((LIFE / 2).saturating_sub(started), || watch.check())?;
    control.scale(0)?;
    let gone = Instant::now();
    let before = changed(&first, &serials(&watch));
    story.step(&format!("no controller any more; {before} of {PODS} were renewed until now"));
    throughout(AWAY.saturating_sub(gone.elapsed()), || watch.check())?;
    let meanwhile = serials(&watch);
    let late = changed(&first, &meanwhile);
    let back = Instant::now();
    control.ask_for(REPLICAS)?;
    story.step(&format!(
        "asked for again after {:.0?}; {} of {PODS} were not renewed yet",
        back.duration_since(gone),
        PODS - late
    ));

    let slots = renewals(&watch, &first, late, back)?;
    control.settled(REPLICAS)?;
    let seen = watch.finish()?;
    let most = slots.values().max().copied().unwrap_or_default();
    let row = slots.iter().map(|(slot, count)| format!("{}s:{count}", slot * SLOT.as_secs()));
    let row = row.collect::<Vec<_>>().join(" ");
    story.step(&format!("renewals by {SLOT:?} since its return: {row}"));
    let rate = most as f64 / SLOT.as_secs_f64();
    Ok(Seen::new(format!(
        "{PODS} pods with SVIDs of {LIFE:.0?}: none noticed that no controller was there for {:.0?}; \
         {} renewals after it, {rate:.1} a second at most; {} reads, every set whole and valid",
        back.duration_since(gone),
        PODS - late,
        seen.reads
    ))
    .with(json!({"pods": PODS, "waited": PODS - late, "renewalsBySlot": slots, "mostASecond": rate})))
}

/// Waits until every SVID is another than at first: how many came in each slot of time.
fn renewals(
    watch: &Watch,
    first: &BTreeMap<String, String>,
    mut known: usize,
    back: Instant,
) -> Result<BTreeMap<u64, usize>> {
    let mut slots = BTreeMap::new();
    while known < first.len() {
        ensure!(back.elapsed() < LIFE, "only {known} of {} SVIDs were renewed", first.len());
        throughout(Duration::from_millis(200), || watch.check())?;
        let now = changed(first, &serials(watch));
        if now > known {
            *slots.entry(back.elapsed().as_secs() / SLOT.as_secs()).or_default() += now - known;
            known = now;
        }
    }
    Ok(slots)
}

fn serials(watch: &Watch) -> BTreeMap<String, String> {
    watch.last().into_iter().map(|(name, held)| (name, held.serial)).collect()
}

/// How many volumes hold another SVID than they did.
fn changed(then: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> usize {
    now.iter().filter(|(name, serial)| then.get(*name) != Some(serial)).count()
}
