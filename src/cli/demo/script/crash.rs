//! Rotation, a crash, and that rotation goes on as if nothing had been.

use std::{
    fs,
    os::unix::{fs::MetadataExt, process::ExitStatusExt},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Script, Watch};
use crate::{
    cli::demo::{plugin::csi_socket, pod::PODS},
    clock::{Clock, SystemClock},
    sys::socket,
};

/// How long the plugin stays dead.
const DEAD: Duration = Duration::from_millis(1500);
/// How long no volume should be due when it dies, so that most are fresh when it is back.
const CALM: Duration = Duration::from_millis(2200);
/// How long that moment is waited for: a volume that comes due in between is fine too.
const CALM_PATIENCE: Duration = Duration::from_secs(5);
const SIGKILL: i32 = 9;

/// A volume just before the crash.
pub(super) struct Before {
    serial: String,
    device: u64,
}

// === impl Script ===

impl Script<'_> {
    pub(super) async fn rotate(&mut self) -> Result<()> {
        self.show.step(
            "SVIDs rotate",
            "They live for seconds here instead of an hour; renewal begins at half of it.",
        )?;
        self.rotate_all(2).await?;
        let (rotations, reads) = (self.watch.rotations, self.watch.reads);
        let text =
            format!("every volume got a new SVID and key, twice at least: {rotations} rotations");
        self.show.check("rotated", &text, json!({ "rotations": rotations }))?;
        let text = format!("{reads} reads so far: key, certificate and bundle always matched");
        self.show.check("reads", &text, json!({ "reads": reads }))?;
        self.breathe().await
    }

    pub(super) async fn kill(&mut self) -> Result<Vec<Before>> {
        self.show.step(
            "kill -9",
            "The plugin dies without a chance to tidy up. The pods should not notice.",
        )?;
        let calm = |watch: &Watch| watch.calm(SystemClock.now()) >= CALM;
        self.observe(CALM_PATIENCE, calm).await?;
        let mut before = Vec::new();
        for volume in &self.watch.volumes {
            before.push(Before {
                serial: volume.svid.serial_hex().to_owned(),
                device: fs::metadata(&volume.target)?.dev(),
            });
        }
        let plugin = self.stage.plugin.take();
        let mut plugin = plugin.context("the node plugin does not run")?;
        let status = plugin.process.kill()?;
        self.show.plugin(None);
        ensure!(status.signal() == Some(SIGKILL), "the plugin ended with {status}");
        let path = csi_socket(&self.stage.kubelet());
        ensure!(socket::connect(&path).is_err(), "csi.sock still answers");
        self.show.check(
            "killed",
            "SIGKILL: the plugin is gone, csi.sock answers no more",
            json!({ "pid": plugin.process.id() }),
        )?;
        self.observe(DEAD, |_| false).await?;
        let text = "every volume is still mounted, whole and valid";
        self.show.check("intact", text, json!({}))?;
        self.meet().await?;
        let text = "web-1 and ledger-1 talk mutual TLS as before";
        self.show.check("messages", text, json!({}))?;
        Ok(before)
    }

    pub(super) async fn restart(&mut self, before: &[Before]) -> Result<()> {
        self.show.step(
            "The plugin comes back",
            "It finds every volume by itself; no pod restarts, kubelet says nothing.",
        )?;
        self.start_plugin().await?;
        // An SVID that is new although the old one was fresh is an error already here.
        self.observe(Duration::ZERO, |_| true).await?;
        let mut kept = 0;
        for (volume, before) in self.watch.volumes.iter().zip(before) {
            kept += usize::from(volume.svid.serial_hex() == before.serial);
            ensure!(
                fs::metadata(&volume.target)?.dev() == before.device,
                "{} is mounted anew",
                volume.pod.name
            );
        }
        ensure!(kept > 0, "every SVID came due meanwhile: try again");
        let all = before.len();
        let text = match all - kept {
            0 => format!("all {all} have the serial they had: nothing was issued again"),
            due => {
                format!("{kept} of {all} have the serial they had; {due} came due and were renewed")
            }
        };
        self.show.check("kept", &text, json!({ "kept": kept, "due": all - kept }))?;
        for pod in &PODS {
            self.stage.plugin()?.check_condition(pod).await?;
        }
        let text = "NodeGetVolumeStats: every volume is in order";
        self.show.check("condition", text, json!({}))?;
        self.breathe().await
    }

    pub(super) async fn rotate_on(&mut self) -> Result<()> {
        self.show.step(
            "Rotation goes on",
            "Each is renewed when it would have been, and OpenSSL looks once more.",
        )?;
        self.rotate_all(1).await?;
        let text = "every volume has a new SVID again, none before it was due";
        let rotations = self.watch.rotations;
        self.show.check("rotated", text, json!({ "rotations": rotations }))?;
        self.verify_all().await?;
        self.stream_went_on().await?;
        self.breathe().await
    }

    pub(super) async fn end(&mut self) -> Result<()> {
        self.show.step(
            "The pods go",
            "kubelet calls NodeUnpublishVolume, and the plugin is told to stop.",
        )?;
        for pod in &PODS {
            self.watch.volumes.retain(|v| v.pod.name != pod.name);
            self.stage.plugin()?.unpublish(pod).await?;
            self.observe(self.show.pace() / 4, |_| false).await?;
        }
        let mounts = self.stage.mounts()?.len();
        ensure!(mounts == 0, "{mounts} mounts are left");
        self.show.check("unpublished", "no mount and no file is left", json!({}))?;
        let plugin = self.stage.plugin.take();
        let plugin = plugin.context("the node plugin does not run")?;
        let status = plugin.stop().await?;
        ensure!(status.success(), "SIGTERM: the plugin ended with {status}");
        let text = "SIGTERM: the plugin ended with status 0";
        self.show.check("stopped", text, json!({}))?;
        self.stage.clear()?;
        let text = "the temporary directory is gone, and its CA with it";
        self.show.check("cleared", text, json!({}))
    }
}
