//! How the volumes are: NodeGetVolumeStats for one, metrics for all.

use std::{collections::BTreeMap, time::UNIX_EPOCH};

use tokio::task::block_in_place;

use super::{
    Node, NodeError,
    metrics::{StateLabel, VolumeState},
};
use crate::{signer::SignerStatus, volume::VolumeId};

/// How full a volume is, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeStats {
    /// Bytes.
    pub bytes: Usage,
    /// Inodes.
    pub inodes: Usage,
    /// What is wrong, for a person; `None` if all is well.
    pub abnormal: Option<String>,
}

/// How much of something there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// All of it.
    pub total: u64,
    /// What is taken.
    pub used: u64,
    /// What is left.
    pub available: u64,
}

// === impl Node ===

impl Node {
    /// The stats of a volume at the path where it is published.
    pub fn stats(&self, id: &VolumeId, path: &str) -> Result<VolumeStats, NodeError> {
        let unknown = || NodeError::Unknown { volume: id.clone(), target: path.to_owned() };
        let volume = self.table.get(id).ok_or_else(unknown)?;
        let target = self.places.kubelet.parse_target(path);
        if target.ok().as_ref() != Some(&volume.target) {
            return Err(unknown());
        }
        let status = volume.status();
        let dir = match block_in_place(|| self.places.open(&volume.target)) {
            Ok(dir) => dir,
            Err(error) if !status.live => return Err(error),
            Err(error) => {
                let none = Usage { total: 0, used: 0, available: 0 };
                let abnormal = Some(format!("the volume is not mounted any more: {error}"));
                return Ok(VolumeStats { bytes: none, inodes: none, abnormal });
            }
        };
        let usage = dir.usage().map_err(NodeError::io("look at", volume.target.path()))?;
        let error = status.last_error.as_ref().map(|error| error.message.as_str());
        let abnormal = match status.state(self.clock.now()) {
            VolumeState::Live => None,
            VolumeState::Pending => Some("its publish is still under way".to_owned()),
            VolumeState::Failing => Some(format!("renewal fails: {}", error.unwrap_or("unknown"))),
            VolumeState::Expired => Some(format!(
                "the SVID has expired; renewal fails: {}",
                error.unwrap_or("it was not tried yet")
            )),
        };
        let bytes = Usage {
            total: usage.bytes_total,
            used: usage.bytes_total.saturating_sub(usage.bytes_free),
            available: usage.bytes_free,
        };
        let inodes = Usage {
            total: usage.inodes_total,
            used: usage.inodes_total.saturating_sub(usage.inodes_free),
            available: usage.inodes_free,
        };
        Ok(VolumeStats { bytes, inodes, abnormal })
    }

    /// Brings the metrics that are not counted but looked at up to date.
    pub fn refresh_metrics(&self) {
        let now = self.clock.now();
        let mut counts: BTreeMap<&str, (VolumeState, i64)> =
            VolumeState::ALL.into_iter().map(|state| (state.label(), (state, 0))).collect();
        let (mut nearest, mut nearest_failing) = (f64::INFINITY, f64::INFINITY);
        let (mut tainted, mut waiting) = (0, 0);
        for volume in self.table.all() {
            let status = volume.status();
            let state = status.state(now);
            tainted += i64::from(status.tainted);
            waiting += i64::from(volume.pod_token.is_awaited());
            if let Some((_, count)) = counts.get_mut(state.label()) {
                *count += 1;
            }
            if let Some(left) = status.remaining(now).filter(|_| status.live) {
                nearest = nearest.min(left.as_secs_f64());
                if state == VolumeState::Failing {
                    nearest_failing = nearest_failing.min(left.as_secs_f64());
                }
            }
        }
        for (state, count) in counts.into_values() {
            self.metrics.volumes.get_or_create(&StateLabel { state }).set(count);
        }
        self.metrics.tainted_volumes.set(tainted);
        self.metrics.waiting_for_pod_token.set(waiting);
        self.metrics.events_dropped.set(self.events.dropped() as i64);
        let bundles = self.issuer.bundles.current();
        let sequence = bundles.and_then(|bundles| bundles.own.sequence());
        self.metrics.bundle_sequence.set(sequence.unwrap_or_default() as i64);
        self.metrics.nearest_expiry.set(nearest);
        self.metrics.nearest_failing_expiry.set(nearest_failing);
        let SignerStatus { ready, ca_not_after } = self.issuer.signer.status();
        self.metrics.signer_ready.set(i64::from(ready.is_ok()));
        let end = ca_not_after.and_then(|end| end.duration_since(UNIX_EPOCH).ok());
        self.metrics.ca_expiry.set(end.map_or(0, |end| end.as_secs() as i64));
    }
}
