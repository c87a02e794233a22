//! Looks through containers' eyes at their volumes while things are broken around them.
//!
//! Unlike an `Observer` it reads on when something was wrong, and knows that nobody renews while
//! the driver is away.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use anyhow::{Result, bail};
use svid_csi::id::SpiffeId;

use crate::{
    patience::{now, pause},
    pod::Pod,
    set::Set,
    workload::CONTAINER,
};

const PAUSE: Duration = Duration::from_millis(250);

/// A volume, as a container has it mounted.
#[derive(Clone, Debug)]
pub struct View {
    /// For people, and the key of what is said about it.
    pub name: String,
    /// Below the container's root, reached through /proc.
    pub path: PathBuf,
    /// Whose held it must hold.
    pub id: String,
}

/// What a volume held.
#[derive(Clone, Debug)]
pub struct Held {
    pub serial: String,
    pub public_key: Vec<u8>,
    pub not_after: SystemTime,
}

/// What a whole watch saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub reads: u64,
    pub renewals: usize,
}

/// A thread that reads every volume four times a second.
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    expiry_allowed: AtomicBool,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    seen: Seen,
    last: BTreeMap<String, Held>,
    faults: Vec<String>,
}

// === impl View ===

impl View {
    /// A volume of a pod's only container.
    pub fn of(pod: &Pod, mount: &str) -> Result<Self> {
        let path = pod.root(CONTAINER)?.join(mount.trim_start_matches('/'));
        Ok(Self { name: format!("{}:{mount}", pod.name), path, id: pod.spiffe_id() })
    }

    /// Reads one set as a careful application does. Key, certificate and bundle belong together
    /// and are the pod's own; it may have expired.
    pub fn read(&self) -> Result<Held> {
        let Set { svid, key, bundle, .. } = Set::read(&self.path)?;
        let id: SpiffeId = self.id.parse()?;
        let last = svid.not_after() - Duration::from_secs(1);
        let moment = now().clamp(svid.not_before(), last);
        svid.verify(&id, key.spki_der(), &bundle, moment)?;
        Ok(Held {
            serial: svid.serial_hex().to_owned(),
            public_key: key.spki_der().to_vec(),
            not_after: svid.not_after(),
        })
    }
}

// === impl Watch ===

impl Watch {
    pub fn start(views: Vec<View>) -> Self {
        let shared = Arc::new(Shared::default());
        // Whoever asks next what was seen gets an answer for every volume.
        views.iter().for_each(|view| shared.look(view));
        let thread = thread::spawn({
            let shared = shared.clone();
            move || {
                while !shared.stop.load(Ordering::SeqCst) {
                    views.iter().for_each(|view| shared.look(view));
                    pause(PAUSE);
                }
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// While the driver is away nobody can renew; everything else must hold all the same.
    pub fn allow_expiry(&self, allowed: bool) {
        self.shared.expiry_allowed.store(allowed, Ordering::SeqCst);
    }

    /// What each volume held when it was last read.
    pub fn last(&self) -> BTreeMap<String, Held> {
        self.shared.log().last.clone()
    }

    /// Fails with what was wrong until now.
    pub fn check(&self) -> Result<()> {
        let log = self.shared.log();
        let Some(first) = log.faults.first() else { return Ok(()) };
        bail!("{first} (the first of {} faults that were seen in volumes)", log.faults.len())
    }

    pub fn finish(mut self) -> Result<Seen> {
        self.stop();
        self.check()?;
        Ok(std::mem::take(&mut self.shared.log().seen))
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

// === impl Shared ===

impl Shared {
    fn look(&self, view: &View) {
        let name = &view.name;
        let read = view.read();
        let mut log = self.log();
        log.seen.reads += 1;
        match read {
            Ok(held) => {
                if now() > held.not_after && !self.expiry_allowed.load(Ordering::SeqCst) {
                    log.faults.push(format!("{name}: {} has expired", held.serial));
                }
                let before = log.last.insert(name.clone(), held.clone());
                if before.is_some_and(|before| before.serial != held.serial) {
                    log.seen.renewals += 1;
                }
            }
            Err(error) => log.faults.push(format!("{name}: {error:#}")),
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
