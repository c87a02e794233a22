//! Reads volumes again and again while something happens to the cluster.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use svid_csi::pki::{TrustBundle, X509Svid};

use crate::{
    patience::{eventually, now, pause},
    pod::Pod,
    set::Set,
    workload::{CONTAINER, MOUNT},
};

const PERIOD: Duration = Duration::from_millis(200);

/// A thread that reads the volumes of pods. Each set must hold together, be its pod's and be valid;
/// and each SVID that has not ended, the superseded ones too, must verify in every pod's bundle.
pub struct Observer {
    seen: Arc<Mutex<HashMap<String, Volume>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

/// What has been read of one pod.
#[derive(Clone)]
pub struct Volume {
    /// The SVIDs, oldest first.
    pub svids: Vec<X509Svid>,
    /// The bundle now.
    pub bundle: TrustBundle,
}

// === impl Observer ===

impl Observer {
    /// Begins with the first whole round of reads.
    pub fn start(pods: &[Pod]) -> Result<Self> {
        let seen = Arc::new(Mutex::new(HashMap::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let mut pods = pods.to_vec();
        pods.sort_by(|a, b| a.name.cmp(&b.name));
        read_all(&pods, &seen)?;
        let (theirs, ends) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut reads = 0;
            while !ends.load(Ordering::SeqCst) {
                read_all(&pods, &theirs)?;
                reads += pods.len() as u64;
                pause(PERIOD);
            }
            Ok(reads)
        });
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// What each pod, by name, has shown so far.
    pub fn volumes(&self) -> HashMap<String, Volume> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until every volume is as wanted; ends early when a read has failed.
    pub fn wait(
        &mut self,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&str, &Volume) -> bool,
    ) -> Result<()> {
        let mut fault = None;
        eventually(what, limit, || {
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                fault = Some(self.end());
                return Ok(());
            }
            let volumes = self.volumes();
            let lacking = volumes.iter().filter(|(pod, volume)| !wanted(pod, volume));
            let lacking: Vec<_> = lacking.map(|(pod, _)| pod.as_str()).collect();
            ensure!(lacking.is_empty(), "not yet in {}", lacking.join(", "));
            Ok(())
        })?;
        match fault {
            Some(Err(error)) => Err(error),
            Some(Ok(_)) => bail!("the observer has ended"),
            None => Ok(()),
        }
    }

    /// Waits until every volume has been renewed `count` times since now.
    pub fn renewals(&mut self, count: usize, limit: Duration) -> Result<()> {
        let before = self.volumes();
        self.wait(&format!("{count} renewals of every volume"), limit, |pod, volume| {
            let had = before.get(pod).map_or(0, |volume| volume.svids.len());
            volume.svids.len() >= had + count
        })
    }

    /// Ends it: how many sets were read, none of them at fault.
    pub fn end(&mut self) -> Result<u64> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().context("the observer has ended before")?;
        thread.join().map_err(|_panic| anyhow!("the observer panicked"))?
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn read_all(pods: &[Pod], seen: &Mutex<HashMap<String, Volume>>) -> Result<()> {
    for pod in pods {
        let set = pod.set(CONTAINER, MOUNT)?;
        set.check(&pod.spiffe_id()).with_context(|| pod.name.clone())?;
        note(&mut seen.lock().unwrap_or_else(PoisonError::into_inner), pod, set);
    }
    let volumes = seen.lock().unwrap_or_else(PoisonError::into_inner);
    for (owner, volume) in volumes.iter() {
        let valid = volume.svids.iter().rev().take_while(|svid| svid.not_after() > now());
        for svid in valid {
            for (verifier, other) in volumes.iter() {
                let verified = svid.verify_chain(&other.bundle, now());
                verified.with_context(|| format!("{verifier} does not trust {owner}"))?;
            }
        }
    }
    Ok(())
}

fn note(volumes: &mut HashMap<String, Volume>, pod: &Pod, set: Set) {
    let Set { svid, bundle, .. } = set;
    let volume = volumes
        .entry(pod.name.clone())
        .or_insert_with(|| Volume { svids: Vec::new(), bundle: bundle.clone() });
    volume.bundle = bundle;
    if volume.svids.last().map(X509Svid::serial_hex) != Some(svid.serial_hex()) {
        volume.svids.push(svid);
    }
}
