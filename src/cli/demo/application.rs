//! What an application in a pod gets through the socket of its volume, by `svid-csi fetch`.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::process::Process;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// An application that asks the socket in this volume.
pub(super) struct Application {
    socket: PathBuf,
}

/// An application that keeps a stream of its SVIDs open.
pub(super) struct Stream(Process);

// === impl Application ===

impl Application {
    pub(super) fn of(volume: &Path) -> Self {
        Self { socket: volume.join("spiffe.sock") }
    }

    /// What `svid-csi fetch` says in JSON; an error if it can't be told.
    pub(super) fn fetch(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.command(arguments)?.stdin(Stdio::null()).output()?;
        let said = serde_json::from_slice(&output.stdout);
        said.map_err(|_no_json| {
            let complaint = String::from_utf8_lossy(&output.stderr);
            anyhow::anyhow!("svid-csi fetch {}: {}", arguments.join(" "), complaint.trim())
        })
    }

    pub(super) fn open_stream(&self) -> Result<Stream> {
        let mut command = self.command(&["watch"])?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Process::start("svid-csi fetch watch", &mut command).map(Stream)
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(env::current_exe()?);
        command
            .env_clear()
            .arg("fetch")
            .args(arguments)
            .args(["-o", "json", "--socket"])
            .arg(&self.socket);
        Ok(command)
    }
}

// === impl Stream ===

impl Stream {
    /// Waits for a message with the SVID of this serial number, or for any; how many there were.
    pub(super) async fn had(&mut self, serial: Option<&str>) -> Result<usize> {
        let had = |text: &str| {
            let its = |line: &str| good(&serde_json::from_str(line).ok()?).ok();
            let mut serials = text.lines().filter_map(its);
            serials.any(|one| serial.is_none_or(|it| it == one)).then(|| text.lines().count())
        };
        self.0.wrote(PATIENCE, had).await
    }
}

/// The serial number of an SVID that `svid-csi fetch` found good.
pub(super) fn good(said: &Value) -> Result<String> {
    if said.get("status").and_then(Value::as_str) != Some("ok") {
        bail!("what the socket gave is not good: {said}");
    }
    let serial = said.pointer("/results/0/svid/serial").and_then(Value::as_str);
    Ok(serial.context("no serial number")?.to_owned())
}
