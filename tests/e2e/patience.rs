//! Waiting, always with a bound; and the word that it is over.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use svid_csi::clock::{Clock, SystemClock};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Between two looks. The machine's few cores are the cluster's.
const POLL: Duration = Duration::from_millis(300);

pub fn now() -> SystemTime {
    SystemClock.now()
}

#[expect(clippy::disallowed_methods, reason = "a cluster is watched by looking again")]
pub fn pause(time: Duration) {
    thread::sleep(time);
}

pub struct Deadline(Instant);

impl Deadline {
    pub fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    pub fn passed(&self) -> bool {
        Instant::now() >= self.0
    }
}

/// Looks until `look` finds what it wants; its last error says why it never did.
pub fn eventually<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Deadline::after(limit);
    loop {
        let late = deadline.passed();
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if late => {
                return Err(error).with_context(|| format!("waited {limit:?} for {what}"));
            }
            Err(_) => still_wanted()?,
        }
        pause(POLL);
    }
}

/// Looks for all of `time`, and fails as soon as `look` does.
pub fn throughout(time: Duration, mut look: impl FnMut() -> Result<()>) -> Result<()> {
    let deadline = Deadline::after(time);
    while !deadline.passed() {
        look()?;
        still_wanted()?;
        pause(POLL);
    }
    Ok(())
}

/// Fails when the person has had enough.
pub fn still_wanted() -> Result<()> {
    if interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// From here on SIGINT, SIGTERM and SIGHUP only end the waiting, so that the cluster is taken down.
pub fn heed_signals() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    drop(entered);
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                INTERRUPTED.store(true, Ordering::SeqCst);
            }
        });
    });
    Ok(())
}
