//! A volume as its pod sees it through the socket in it. The accepting socket is the identity:
//! kubelet put it into that pod and no other.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::{
    NodeError,
    offer::Offer,
    volume::{Volume, Work},
};
use crate::{
    clock::Clock,
    sys::VolumeDir,
    trust::{BundleStore, TrustBundles},
    volume::VolumeId,
};

/// Connections that wait to be served.
const ARRIVALS: usize = 64;

/// A connection that a volume's socket accepted.
#[derive(Debug)]
pub struct Arrival {
    /// The connection; nothing was read of it.
    pub stream: UnixStream,
    /// Whose it is.
    pub workload: Workload,
}

/// One volume and what is needed to serve it. Cheap to clone.
#[derive(Clone)]
pub struct Workload {
    volume: Arc<Volume>,
    desk: Arc<Desk>,
    closing: CancellationToken,
}

/// What serving any volume takes.
pub(super) struct Desk {
    pub(super) bundles: Arc<BundleStore>,
    pub(super) clock: Arc<dyn Clock>,
    arrivals: mpsc::Sender<Arrival>,
    /// The loops that accept connections.
    doors: TaskTracker,
    /// No socket is served any longer.
    closed: CancellationToken,
}

/// A bound socket that nobody is served at yet; whoever connects waits.
pub(super) struct BoundSocket(Option<UnixListener>);

// === impl Desk ===

impl Desk {
    pub(super) fn new(
        bundles: Arc<BundleStore>,
        clock: Arc<dyn Clock>,
    ) -> (Arc<Self>, mpsc::Receiver<Arrival>) {
        let (arrivals, incoming) = mpsc::channel(ARRIVALS);
        let (doors, closed) = (TaskTracker::new(), CancellationToken::new());
        (Arc::new(Self { bundles, clock, arrivals, doors, closed }), incoming)
    }

    /// Binds the socket that the volume is to have, in place of one that an earlier process left.
    pub(super) fn bind(
        &self,
        dir: &VolumeDir,
        volume: &Volume,
        work: &Work,
    ) -> Result<BoundSocket, NodeError> {
        let Some(spec) = &work.spec else { return Err(NodeError::Panicked) };
        let Some(name) = &spec.socket else { return Ok(BoundSocket(None)) };
        let listener = dir.bind_socket(name, &spec.ownership);
        let listener =
            listener.map_err(NodeError::io("bind the socket of", volume.target.path()))?;
        Ok(BoundSocket(Some(listener)))
    }

    /// Serves a volume at its socket, and no longer at one that it had before.
    pub(super) fn open(self: &Arc<Self>, volume: &Arc<Volume>, socket: BoundSocket) {
        let closing = self.closed.child_token();
        volume.door(Some(closing.clone()));
        let BoundSocket(Some(listener)) = socket else { return };
        let workload = Workload { volume: volume.clone(), desk: self.clone(), closing };
        self.doors.spawn(accept(listener, workload));
    }

    /// Takes no more connections at any socket, and ends every stream.
    pub(super) async fn close(&self) {
        self.closed.cancel();
        self.doors.close();
        self.doors.wait().await;
    }
}

async fn accept(listener: UnixListener, workload: Workload) {
    loop {
        let accepted: io::Result<_> = tokio::select! {
            () = workload.closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: it passes.
                warn!(volume = %workload.volume.id, %error, "accept");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let arrival = Arrival { stream, workload: workload.clone() };
        tokio::select! {
            () = workload.closing.cancelled() => return,
            sent = workload.desk.arrivals.send(arrival) => if sent.is_err() { return },
        }
    }
}

// === impl Workload ===

impl Workload {
    /// Which volume it is.
    pub fn volume(&self) -> &VolumeId {
        &self.volume.id
    }

    /// What the pod is entitled to now, and each change of it.
    pub fn offer(&self) -> watch::Receiver<Arc<Offer>> {
        self.volume.offer()
    }

    /// Everybody's bundles, and each change of them. Before the first there are none.
    pub fn bundles(&self) -> watch::Receiver<Option<Arc<TrustBundles>>> {
        self.desk.bundles.subscribe()
    }

    /// The clock by which SVIDs expire.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.desk.clock
    }

    /// Cancelled once the volume is no longer served at this socket: streams end as Unavailable.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }
}

impl std::fmt::Debug for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Workload").field(&self.volume.id).finish()
    }
}
