//! The CA and the JWT key replaced twice under pods in continuous mutual TLS, in which each verifies
//! the other's JWT-SVID too, the leading controller killed in every phase.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    control::{Control, REPLICAS, STEP},
    ground::Ground,
    load::Load,
    patience::eventually,
    story::{Seen, Story},
};

const NAMESPACE: &str = "e2e-ca-rotation";
const PODS: usize = 50;
/// Renewed after 45 to 60 s; a busy machine may be late.
const TTL: &str = "90s";

pub fn run(ground: &Ground, story: &Story) -> Result<Seen> {
    let control = Control::of(ground);
    let load = Load::with_tokens(ground, NAMESPACE, PODS, TTL)?;
    story.step(&format!("{PODS} pods call each other"));
    let mut killed = 0;
    for turn in 1..=2 {
        killed += rotated(ground, &control, &load, turn, story)?;
    }
    load.goes_on()?;
    let seen = load.check()?;
    control.settled(REPLICAS)?;
    Ok(Seen::new(format!(
        "{PODS} pods, {} handshakes and {} JWT-SVIDs verified, none failed, while the CA and the JWT \
         key were replaced twice and the leading controller killed {killed} times; {} sets were taken",
        seen.calls, seen.tokens, seen.reloads
    ))
    .with(json!({"pods": PODS, "handshakes": seen.calls, "tokens": seen.tokens, "kills": killed, "reloads": seen.reloads, "retries": seen.retries})))
}

/// One rotation, with the leader killed in every phase: how often.
fn rotated(
    ground: &Ground,
    control: &Control<'_>,
    load: &Load<'_>,
    turn: usize,
    story: &Story,
) -> Result<usize> {
    let mut kills = Kills { control, count: 0 };
    let before = control.authorities("active")?;
    ensure!(before.len() == 1, "active are {before:?}");
    let keys = control.jwt_keys("active")?;
    ensure!(keys.len() == 1, "active JWT keys are {keys:?}");

    let old = control.bundle()?;
    kills.kill().context("before the request")?;
    control.ca(&["rotate", "--no-wait"])?;
    kills.kill().context("right after the request")?;
    let new = load.until("a new root", STEP, || control.new_root(&old))?;
    story.step(&format!("rotation {turn}: asked for, the leader killed before and after"));

    // The leader takes one request after the other.
    control.ca(&["rotate", "--jwt", "--no-wait"])?;
    kills.kill().context("while the new root spreads")?;
    let key = load.until("a new JWT key", STEP, || {
        let prepared = control.jwt_keys("prepared")?;
        prepared.first().cloned().context("there is none")
    })?;
    load.trusts(&new)?;
    load.knows(&key)?;
    story.step("the new root and JWT key are in every volume; the leader was killed meanwhile");

    let active = load.until("another active CA", STEP, || {
        let active = control.authorities("active")?;
        ensure!(active.len() == 1 && active != before, "active are {active:?}");
        Ok(active)
    })?;
    kills.kill().context("when it had become active")?;
    load.is_under(&new, STEP)?;
    load.is_signed_with(&key, STEP)?;
    load.trusts(&old).context("the old root")?;
    story.step(&format!(
        "every SVID is under {}, every token by {key}; the old ones stay",
        active[0]
    ));

    kills.kill().context("when the old one had retired")?;
    let retired = control.authorities("retired")?;
    ensure!(retired.contains(&before[0]), "retired are {retired:?}, not {}", before[0]);
    let retired = control.jwt_keys("retired")?;
    ensure!(retired.contains(&keys[0]), "retired JWT keys are {retired:?}, not {}", keys[0]);
    load.goes_on()?;
    ground.driver_is_ready(STEP)?;
    Ok(kills.count)
}

/// Ends the leader again and again.
struct Kills<'a> {
    control: &'a Control<'a>,
    count: usize,
}

// === impl Kills ===

impl Kills<'_> {
    /// SIGKILL to the leader's process, or its pod taken away, in turn.
    fn kill(&mut self) -> Result<()> {
        let control = self.control;
        eventually("a leader", STEP, || {
            let leader = control.leader()?;
            ensure!(leader.is_ready(), "{} is {}", leader.name, leader.state());
            match self.count % 2 {
                0 => control.kill(&leader),
                _ => control.remove(&leader),
            }
        })?;
        self.count += 1;
        Ok(())
    }
}
