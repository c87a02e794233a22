//! What a pod sees in its volume, looked at again and again.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{TRUST_DOMAIN, pod::Pod};
use crate::{
    id::TrustDomain,
    pki::{PrivateKey, TrustBundle, X509Svid},
    volume::{RECORD_FILE, VolumeRecord},
};

/// The volumes, as a reader knows them.
#[derive(Default)]
pub(super) struct Watch {
    pub(super) volumes: Vec<Volume>,
    /// Of all volumes, also of those that are gone.
    pub(super) rotations: u32,
    /// How many sets were read; each was whole.
    pub(super) reads: u64,
}

/// A volume.
pub(super) struct Volume {
    pub(super) pod: Pod,
    pub(super) target: PathBuf,
    pub(super) svid: X509Svid,
    /// When the plugin means to renew it, by its own record.
    pub(super) renew_at: Option<SystemTime>,
    pub(super) rotations: u32,
    /// When the current SVID was first seen.
    pub(super) seen: Instant,
}

/// An SVID took the place of another.
pub(super) struct Rotation {
    pub(super) pod: Pod,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) lifetime: Duration,
}

// === impl Watch ===

impl Watch {
    /// Begins to watch a volume that has just been published.
    pub(super) fn add(&mut self, pod: Pod, target: PathBuf, now: SystemTime) -> Result<&Volume> {
        let svid = read(&pod, &target, now)?;
        self.reads += 1;
        let mut volume =
            Volume { pod, target, svid, renew_at: None, rotations: 0, seen: Instant::now() };
        volume.look_at_record()?;
        self.volumes.push(volume);
        self.volumes.last().context("no volume")
    }

    /// Reads every volume. An error if a set is not whole, not the pod's, not valid, or new though
    /// the old one was fresh.
    pub(super) fn look(&mut self, now: impl Fn() -> SystemTime) -> Result<Vec<Rotation>> {
        let mut rotations = Vec::new();
        for volume in &mut self.volumes {
            let svid = read(&volume.pod, &volume.target, now())?;
            self.reads += 1;
            if svid.serial_hex() != volume.svid.serial_hex() {
                ensure!(
                    volume.renew_at.is_none_or(|due| due <= now()),
                    "{} was issued a new SVID before the old one was due",
                    volume.pod.name
                );
                ensure!(
                    volume.svid.leaf().spki_der() != svid.leaf().spki_der(),
                    "{} was issued a new SVID for its old key",
                    volume.pod.name
                );
                rotations.push(Rotation {
                    pod: volume.pod,
                    from: volume.svid.serial_hex().to_owned(),
                    to: svid.serial_hex().to_owned(),
                    lifetime: left(&svid, now()),
                });
                volume.svid = svid;
                volume.rotations += 1;
                self.rotations += 1;
                volume.renew_at = None;
                volume.seen = Instant::now();
            }
            if volume.renew_at.is_none() {
                volume.look_at_record()?;
            }
        }
        Ok(rotations)
    }

    /// Until the first volume is due.
    pub(super) fn calm(&self, now: SystemTime) -> Duration {
        let due = |volume: &Volume| volume.renew_at.and_then(|at| at.duration_since(now).ok());
        let calm = self.volumes.iter().map(|volume| due(volume).unwrap_or_default());
        calm.min().unwrap_or_default()
    }

    pub(super) fn get(&self, pod: &str) -> Result<&Volume> {
        let mut volumes = self.volumes.iter();
        volumes.find(|volume| volume.pod.name == pod).with_context(|| format!("no volume of {pod}"))
    }
}

// === impl Volume ===

impl Volume {
    /// The directory of the current set. Whoever reads several files resolves it once, so that
    /// they belong together.
    pub(super) fn set(&self) -> Result<PathBuf> {
        current_set(&self.target)
    }

    pub(super) fn left(&self, now: SystemTime) -> Duration {
        left(&self.svid, now)
    }

    /// The record is written after the set: until it is about this SVID, it says nothing.
    fn look_at_record(&mut self) -> Result<()> {
        let record = fs::read(self.target.join(".svid").join(RECORD_FILE))?;
        let record = VolumeRecord::from_json(&record)?;
        if record.serial.as_deref() == Some(self.svid.serial_hex()) {
            self.renew_at = record.renew_at;
        }
        Ok(())
    }
}

fn current_set(target: &Path) -> Result<PathBuf> {
    let data = fs::read_link(target.join("..data"));
    let data = data.with_context(|| format!("{} has no current set", target.display()))?;
    Ok(target.join(data))
}

/// Reads a set as a pod would and checks all of it: key, certificate and bundle belong together,
/// the SPIFFE ID is the pod's, and it is valid.
fn read(pod: &Pod, target: &Path, now: SystemTime) -> Result<X509Svid> {
    let set = current_set(target)?;
    let file = |name: &str| {
        let text = fs::read_to_string(set.join(name)).map(Zeroizing::new);
        text.with_context(|| format!("{} cannot read its {name}", pod.name))
    };
    let svid = X509Svid::from_pem(&file("tls.crt")?)?;
    let key = PrivateKey::from_pem(&file("tls.key")?)?;
    let bundle = TrustBundle::from_pem(TRUST_DOMAIN.parse::<TrustDomain>()?, &file("ca.crt")?)?;
    svid.verify(&pod.spiffe_id().parse()?, key.spki_der(), &bundle, now)
        .with_context(|| format!("the SVID of {}", pod.name))?;
    Ok(svid)
}

fn left(svid: &X509Svid, now: SystemTime) -> Duration {
    svid.not_after().duration_since(now).unwrap_or_default()
}
