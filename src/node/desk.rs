//! Every volume's socket: bound, watched, and its connections handed to whoever serves them.

use std::{
    future::Future,
    io,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::{
    ConnectionPermit, NodeError, Workload, WorkloadLimits,
    issuer::Issuer,
    metrics::Metrics,
    verified::VerifiedTokens,
    volume::{Volume, Work},
};
use crate::{
    sys::{VolumeDir, process::descriptor_limit, socket::SocketIdentity},
    volume::PodInfo,
};

/// Connections that wait to be served. Each volume waits for room with one at a time, first come,
/// first served: with few places a flood at one socket is before no other for long.
const ARRIVALS: usize = 8;
/// How long a socket rests whose volume has all the connections that it may have.
const REST: Duration = Duration::from_millis(20);
/// How long it rests when the kernel gives no connection: most likely descriptors are short.
const SHORTAGE: Duration = Duration::from_millis(100);

/// A connection that a volume's socket accepted.
#[derive(Debug)]
pub struct Arrival {
    /// The connection; nothing was read of it.
    pub stream: UnixStream,
    /// Whose it is.
    pub workload: Workload,
    /// Its place among the volume's connections, to be kept for as long as it is open.
    pub permit: ConnectionPermit,
}

/// What serving any volume takes.
pub(super) struct Desk {
    pub(super) issuer: Arc<Issuer>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) limits: WorkloadLimits,
    pub(super) verified: VerifiedTokens,
    /// Open connections of all volumes, and the most of them.
    pub(super) connections: AtomicU32,
    pub(super) max_connections: u32,
    arrivals: mpsc::Sender<Arrival>,
    /// The loops that accept connections, and requests to the signer.
    tasks: TaskTracker,
    /// No socket is served any longer.
    closed: CancellationToken,
}

/// A bound socket that nobody is served at yet; whoever connects waits.
pub(super) struct BoundSocket(Option<(UnixListener, SocketIdentity, Arc<PodInfo>)>);

/// A socket that is served.
#[derive(Debug)]
pub(super) struct Door {
    /// Ends every stream.
    closing: CancellationToken,
    /// Ends accepting at this very socket.
    listening: CancellationToken,
    socket: SocketIdentity,
}

// === impl Desk ===

impl Desk {
    pub(super) fn new(
        issuer: Arc<Issuer>,
        metrics: Arc<Metrics>,
        limits: WorkloadLimits,
    ) -> (Arc<Self>, mpsc::Receiver<Arrival>) {
        let (arrivals, incoming) = mpsc::channel(ARRIVALS);
        let (tasks, closed) = (TaskTracker::new(), CancellationToken::new());
        // The other half is for listeners and for the volumes' own work.
        let max_connections = descriptor_limit().map_or(512, |limit| limit / 2).max(1);
        let max_connections = u32::try_from(max_connections).unwrap_or(u32::MAX);
        let desk = Self {
            issuer,
            metrics,
            limits,
            verified: VerifiedTokens::default(),
            connections: AtomicU32::new(0),
            max_connections,
            arrivals,
            tasks,
            closed,
        };
        (Arc::new(desk), incoming)
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
        let bound = dir.bind_socket(name, &spec.ownership);
        let (listener, socket) =
            bound.map_err(NodeError::io("bind the socket of", volume.target.path()))?;
        Ok(BoundSocket(Some((listener, socket, Arc::new(spec.pod.clone())))))
    }

    /// Serves a volume at its socket, and no longer at one that it had before, whose streams end.
    pub(super) fn open(self: &Arc<Self>, volume: &Arc<Volume>, socket: BoundSocket) {
        volume.shut();
        self.listen(volume, socket, self.closed.child_token());
    }

    /// Binds a live volume's socket again if its name is gone or leads elsewhere. Streams go on.
    pub(super) fn look_after(self: &Arc<Self>, dir: &VolumeDir, volume: &Arc<Volume>, work: &Work) {
        let Some(name) = work.spec.as_ref().and_then(|spec| spec.socket.as_deref()) else { return };
        if self.closed.is_cancelled() {
            return;
        }
        let closing = match &*volume.door() {
            Some(door) if dir.socket(name).is_ok_and(|found| found == Some(door.socket)) => return,
            Some(door) => door.closing.clone(),
            None => self.closed.child_token(),
        };
        match self.bind(dir, volume, work) {
            Ok(socket) => {
                info!(volume = %volume.id, "its socket was gone; it is bound again");
                self.metrics.workload.rebound.inc();
                self.listen(volume, socket, closing);
            }
            Err(error) => warn!(volume = %volume.id, %error, "its socket is not served"),
        }
    }

    fn listen(
        self: &Arc<Self>,
        volume: &Arc<Volume>,
        socket: BoundSocket,
        closing: CancellationToken,
    ) {
        let BoundSocket(Some((listener, socket, pod))) = socket else { return };
        let listening = closing.child_token();
        let workload = Workload::new(volume.clone(), self.clone(), pod, closing.clone());
        let door = Door { closing, listening: listening.clone(), socket };
        if let Some(before) = volume.door().replace(door) {
            before.listening.cancel();
        }
        self.tasks.spawn(accept(listener, workload, listening));
    }

    /// Runs what nobody in particular waits for, to its end or until no socket is served.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    async fn send(&self, arrival: Arrival) -> Result<(), ()> {
        self.arrivals.send(arrival).await.map_err(drop)
    }

    /// Takes no more connections at any socket, and ends every stream.
    pub(super) async fn close(&self) {
        self.closed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

// === impl Door ===

impl Door {
    /// Ends accepting, and every stream.
    pub(super) fn shut(&self) {
        self.closing.cancel();
    }
}

async fn accept(listener: UnixListener, workload: Workload, listening: CancellationToken) {
    let (volume, desk) = workload.parts();
    let work = async {
        loop {
            // A pod that connects all the time waits in its own backlog.
            while !volume.usage.may_connect(&desk.limits) {
                sleep(REST).await;
            }
            let accepted: io::Result<_> = listener.accept().await;
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // It passes.
                    warn!(volume = %volume.id, %error, "accept");
                    sleep(SHORTAGE).await;
                    continue;
                }
            };
            let Ok(permit) = desk.connect(volume) else {
                // Closed at once, so that the client knows; and seldom, so that a flood costs
                // nobody but its own pod.
                drop(stream);
                sleep(REST).await;
                continue;
            };
            let arrival = Arrival { stream, workload: workload.clone(), permit };
            if desk.send(arrival).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = listening.cancelled() => {}
        () = work => {}
    }
}
