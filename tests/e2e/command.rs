//! Running programs: each with a limit, in a process group of its own (a ^C is the harness's to
//! answer), its output in files, so that what it leaves running can hold no pipe open.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::patience::{Deadline, interrupted, pause};

const LIMIT: Duration = Duration::from_mins(2);

/// A program about to run.
pub struct Run {
    command: Command,
    shown: String,
    input: Vec<u8>,
    limit: Duration,
    stubborn: bool,
}

/// A program that has ended.
pub struct Done {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    shown: String,
}

// === impl Run ===

impl Run {
    pub fn new<I: IntoIterator<Item: AsRef<str>>>(program: &str, args: I) -> Self {
        let mut command = Command::new(program);
        let mut shown = program.rsplit('/').next().unwrap_or(program).to_owned();
        for arg in args {
            command.arg(arg.as_ref());
            shown = format!("{shown} {}", arg.as_ref());
        }
        shown = shown.lines().next().unwrap_or_default().to_owned();
        Self { command, shown, input: Vec::new(), limit: LIMIT, stubborn: false }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Goes on though a person has interrupted: what takes the cluster down must finish.
    pub fn stubborn(mut self) -> Self {
        self.stubborn = true;
        self
    }

    /// To its end, whatever its status.
    pub fn done(mut self) -> Result<Done> {
        let mut input = tempfile::tempfile()?;
        input.write_all(&self.input)?;
        input.rewind()?;
        let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
        self.command.stdin(input).stdout(out.try_clone()?).stderr(err.try_clone()?);
        let status = self.ended();
        let (stdout, stderr) = (text(&mut out)?, text(&mut err)?);
        match status {
            Ok(status) => Ok(Done { status, stdout, stderr, shown: self.shown }),
            Err(error) => Err(error.context(format!("{}: {}", self.shown, stderr.trim()))),
        }
    }

    /// To its end, which must be good: what it printed.
    pub fn text(self) -> Result<String> {
        self.done()?.text()
    }

    /// To its end, which must be good, its output on ours.
    pub fn shown(mut self) -> Result<()> {
        self.command.stdin(Stdio::null());
        let status = self.ended().with_context(|| self.shown.clone())?;
        ensure!(status.success(), "{}: {status}", self.shown);
        Ok(())
    }

    /// Starts it with its output in a pipe, for a reader that follows it. Ends with the value.
    pub fn following(mut self) -> Result<Following> {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = self.command.process_group(0).spawn().with_context(|| self.shown.clone())?;
        Ok(Following(child))
    }

    fn ended(&mut self) -> Result<ExitStatus> {
        let mut child = self.command.process_group(0).spawn()?;
        let deadline = Deadline::after(self.limit);
        let mut nap = Duration::from_millis(2);
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            let unwanted = interrupted() && !self.stubborn;
            if unwanted || deadline.passed() {
                end(&mut child);
                ensure!(!unwanted, "interrupted");
                bail!("has not ended within {:?}", self.limit);
            }
            pause(nap);
            nap = (nap * 2).min(Duration::from_millis(50));
        }
    }
}

fn end(child: &mut Child) {
    // Its descendants in the group too; the group may be gone already.
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    let _ = child.wait();
}

fn text(file: &mut File) -> Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

// === impl Done ===

impl Done {
    pub fn text(self) -> Result<String> {
        let complaint = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        ensure!(self.status.success(), "{}: {}: {}", self.shown, self.status, complaint.trim());
        Ok(self.stdout)
    }
}

/// A running program; dropped, it ends.
pub struct Following(pub Child);

impl Drop for Following {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}
