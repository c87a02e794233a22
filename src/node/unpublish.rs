//! NodeUnpublishVolume: works whatever the signer does, and after a reboot.

use std::sync::Arc;

use tokio::{task::block_in_place, time::Instant};
use tracing::{info, warn};

use super::{
    Node, NodeError,
    metrics::{Outcome, observe},
    volume::{Phase, Volume},
};
use crate::{sys::TargetPath, volume::VolumeId};

// === impl Node ===

impl Node {
    /// Unpublishes a volume. Unknown is fine; can be repeated and raced.
    pub async fn unpublish(
        self: &Arc<Self>,
        volume: VolumeId,
        target: String,
    ) -> Result<(), NodeError> {
        let node = self.clone();
        self.track(async move {
            let started = Instant::now();
            let result = node.unpublish_task(volume, &target).await;
            observe(&node.metrics.unpublish_seconds, started.elapsed());
            let outcome = Outcome::of(&result, NodeError::class);
            node.metrics.unpublishes.get_or_create(&outcome).inc();
            result
        })
        .await
    }

    async fn unpublish_task(&self, id: VolumeId, target: &str) -> Result<(), NodeError> {
        let target = self.places.kubelet.parse_target(target)?;
        loop {
            let volume = self.table.claim(&id, &target)?;
            // Whoever waits for a signer gives way now.
            volume.closing.cancel();
            let mut work = volume.lock().await;
            if work.phase == Phase::Gone {
                continue;
            }
            let removed = block_in_place(|| self.remove_volume(&volume, &target, work.device));
            match &removed {
                Err(error) => {
                    warn!(volume = %id, class = error.class().label(), %error, "unpublish failed");
                }
                Ok(()) if work.phase == Phase::New => {}
                Ok(()) => info!(volume = %id, "unpublished"),
            }
            // Forgotten also after a failure: what is left is found again by its mount.
            work.phase = Phase::Gone;
            self.table.remove(&volume);
            return removed;
        }
    }

    fn remove_volume(
        &self,
        volume: &Volume,
        target: &TargetPath,
        device: Option<u64>,
    ) -> Result<(), NodeError> {
        self.rotator.cancel(volume.id.clone());
        self.places.remove(target, device)
    }
}
