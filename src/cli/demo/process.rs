//! Child processes that end with their owner.

use std::{
    io::Read,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

use crate::sys;

/// How often a child is looked at.
const TICK: Duration = Duration::from_millis(5);

/// A child process. It is killed, and waited for, when this is dropped.
pub(super) struct Process {
    name: String,
    child: Child,
    stdout: Capture,
    stderr: Capture,
}

/// What a child wrote to a pipe so far.
#[derive(Default)]
struct Capture {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

// === impl Process ===

impl Process {
    /// Starts it outside the terminal's foreground group, so that Ctrl-C reaches us alone and we
    /// decide in which order things end. Piped output is collected.
    pub(super) fn start(name: &str, command: &mut Command) -> Result<Self> {
        let mut child =
            command.process_group(0).spawn().with_context(|| format!("start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            stdout: child.stdout.take().map(Capture::of).unwrap_or_default(),
            stderr: child.stderr.take().map(Capture::of).unwrap_or_default(),
            child,
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn stdin(&mut self) -> Option<&mut std::process::ChildStdin> {
        self.child.stdin.as_mut()
    }

    pub(super) fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until `find` finds something in what it wrote to standard output. An error if it
    /// ends before, with what it wrote to standard error.
    pub(super) async fn wrote<T>(
        &mut self,
        patience: Duration,
        find: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            // In this order: what it wrote before it ended counts.
            let ended = self.ended()?;
            if ended.is_some() {
                self.stdout.finish();
            }
            if let Some(found) = find(&self.stdout.text()) {
                return Ok(found);
            }
            if let Some(status) = ended {
                self.stderr.finish();
                bail!("{} ended with {status}: {}", self.name, self.stderr.text().trim());
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} is silent: {}",
                    self.name,
                    self.stderr.text().trim().trim_end_matches('.')
                );
            }
            sleep(TICK).await;
        }
    }

    /// Waits until it ends: its status.
    pub(super) async fn end(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} did not end within {} s", self.name, patience.as_secs());
            }
            sleep(TICK).await;
        }
    }

    /// SIGTERM.
    pub(super) fn terminate(&mut self) -> Result<()> {
        if self.ended()?.is_none() {
            sys::process::terminate(self.child.id())?;
        }
        Ok(())
    }

    /// SIGKILL; returns once nothing of it is left.
    pub(super) fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// What it wrote to standard output so far.
    pub(super) fn stdout(&self) -> String {
        self.stdout.text()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

// === impl Capture ===

impl Capture {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let reader = thread::spawn({
            let text = text.clone();
            move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                    let read = buffer.get(..length).unwrap_or_default();
                    let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                    text.extend_from_slice(read);
                }
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits for the rest of what an ended child wrote.
    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
