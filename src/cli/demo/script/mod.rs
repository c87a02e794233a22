//! The demo, step by step. Each check is a claim that would have ended it, had it not held.

mod crash;
mod socket;
mod start;

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    application::Stream,
    openssl::Party,
    show::{Show, rounded},
    stage::Stage,
    watch::Watch,
};
use crate::{
    clock::{Clock, SystemClock},
    sys::namespace::Isolation,
};

/// How often the volumes are read.
const TICK: Duration = Duration::from_millis(100);
/// Longer than any rotation takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Who talks to whom.
const CLIENT: &str = "web-1";
const SERVER: &str = "ledger-1";

/// The demo while it runs.
pub(super) struct Script<'a> {
    stage: &'a mut Stage,
    show: &'a mut Show,
    watch: Watch,
    /// Opened before the crash.
    stream: Option<Stream>,
}

/// What it amounted to.
pub(super) struct Summary {
    pub(super) rotations: u32,
    pub(super) reads: u64,
}

// === impl Script ===

impl<'a> Script<'a> {
    pub(super) fn new(stage: &'a mut Stage, show: &'a mut Show) -> Self {
        Self { stage, show, watch: Watch::default(), stream: None }
    }

    /// All of it. `openssl` is the verifier's version.
    pub(super) async fn play(mut self, isolation: Isolation, openssl: &str) -> Result<Summary> {
        self.ground(isolation, openssl).await?;
        self.start().await?;
        self.publish().await?;
        self.verify().await?;
        self.handshake().await?;
        self.rotate().await?;
        self.ask_sockets().await?;
        let before = self.kill().await?;
        self.restart(&before).await?;
        self.rotate_on().await?;
        self.end().await?;
        Ok(Summary { rotations: self.watch.rotations, reads: self.watch.reads })
    }

    /// Reads the volumes over and over until `enough` or until the time is up; which one.
    async fn observe(
        &mut self,
        patience: Duration,
        mut enough: impl FnMut(&Watch) -> bool,
    ) -> Result<bool> {
        let deadline = Instant::now() + patience;
        loop {
            if let Err(error) = self.stage.plugin_is_well() {
                self.show.plugin(None);
                self.show.volumes(&self.watch, SystemClock.now())?;
                return Err(error);
            }
            for rotation in self.watch.look(|| SystemClock.now())? {
                self.show.rotated(&rotation)?;
            }
            self.show.volumes(&self.watch, SystemClock.now())?;
            if enough(&self.watch) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(TICK).await;
        }
    }

    /// Time for a person to read what was written.
    async fn breathe(&mut self) -> Result<()> {
        let pace = self.show.pace();
        self.observe(pace, |_| false).await?;
        Ok(())
    }

    /// Waits until every volume was renewed so many times more.
    async fn rotate_all(&mut self, times: u32) -> Result<()> {
        let before: Vec<_> = self.watch.volumes.iter().map(|v| v.rotations).collect();
        let all = |watch: &Watch| {
            let mut pairs = watch.volumes.iter().zip(&before);
            pairs.all(|(volume, before)| volume.rotations >= before + times)
        };
        ensure!(
            self.observe(PATIENCE, all).await?,
            "not every volume was renewed within {} s",
            PATIENCE.as_secs()
        );
        Ok(())
    }

    fn party(&self, pod: &str) -> Result<Party> {
        let volume = self.watch.get(pod)?;
        Ok(Party { spiffe_id: volume.pod.spiffe_id(), set: volume.set()? })
    }

    async fn start_plugin(&mut self) -> Result<()> {
        let plugin = self.stage.start_plugin().await?;
        let (pid, took) = (plugin.process.id(), plugin.took);
        self.show.plugin(Some(pid));
        let text = format!("svid-csi node is ready {} after its start", millis(took));
        let took = rounded(took.as_secs_f64() * 1e3);
        self.show.check("ready", &text, json!({ "pid": pid, "milliseconds": took }))
    }
}

fn millis(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    match millis {
        ..10.0 => format!("{millis:.1} ms"),
        _ => format!("{millis:.0} ms"),
    }
}
