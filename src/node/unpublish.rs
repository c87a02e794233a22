//! NodeUnpublishVolume: works whatever the signer does, and after a reboot.

use std::sync::Arc;

use tokio::{task::block_in_place, time::Instant};
use tracing::{info, warn};

use super::{
    Node, NodeError,
    metrics::{Outcome, observe},
    volume::{Phase, Volume},
};
use crate::{sys::AtomicWriter, volume::VolumeId};

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
            volume.give_way();
            let mut work = volume.lock().await;
            if work.phase == Phase::Gone {
                continue;
            }
            volume.shut();
            let removed = block_in_place(|| self.places.remove(&target, work.device));
            if let Err(error) = &removed {
                warn!(volume = %id, class = error.class().label(), %error, "unpublish failed");
                let untouched = match error {
                    NodeError::Foreign(_) => self.places.is_covered(&target),
                    _ => self.is_whole(&volume, work.device),
                };
                if work.phase == Phase::Live && untouched {
                    // Nothing was taken away: its rotation goes on until kubelet tries again.
                    volume.go_on();
                    self.serve_again(&volume, &work);
                    return removed;
                }
            } else if work.phase != Phase::New {
                info!(volume = %id, "unpublished");
            }
            // What a failure left is found again by its mount.
            self.rotator.cancel(id);
            work.phase = Phase::Gone;
            volume.pod_token.forget();
            work.handout = None;
            self.table.remove(&volume);
            return removed;
        }
    }

    fn is_whole(&self, volume: &Volume, device: Option<u64>) -> bool {
        block_in_place(|| self.places.open_ours(&volume.target, device))
            .is_ok_and(|dir| AtomicWriter::new(&dir).has_current().unwrap_or(false))
    }
}
