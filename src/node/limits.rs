//! What one volume's pod may take of the driver, so that a greedy one feels it before its
//! neighbours do.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tracing::warn;

use super::{desk::Desk, volume::Volume};

/// A volume that goes on asking for too much is named in the log this often.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What each volume's pod may have at its socket, from the driver's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkloadLimits {
    /// Open connections.
    pub connections: u32,
    /// Calls under way, streams among them.
    pub streams: u32,
    /// Calls and messages a second; twice as many at once, and as many new connections.
    pub calls: u32,
    /// JWT-SVIDs a second that have to be signed; five times as many at once.
    pub signatures: u32,
}

/// A limit, as metrics and messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// [`WorkloadLimits::connections`].
    Connections,
    /// All volumes' connections together, which the limit of open files bounds.
    Descriptors,
    /// [`WorkloadLimits::streams`].
    Streams,
    /// [`WorkloadLimits::calls`].
    Calls,
    /// [`WorkloadLimits::signatures`].
    Signatures,
}

/// The volume has too much of something already. The standard calls it load shedding: the call is
/// `Unavailable` (Workload Endpoint §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: try again later", .0.message())]
pub struct Refused(pub Limit);

/// An open connection. Dropped, it makes room for another.
#[must_use]
pub struct ConnectionPermit {
    volume: Arc<Volume>,
    desk: Arc<Desk>,
}

/// A call under way. Dropped, it makes room for another.
#[must_use]
#[derive(Debug)]
pub struct CallPermit(Arc<Volume>);

/// What one volume's pod has now.
#[derive(Debug, Default)]
pub(super) struct Usage {
    connections: AtomicU32,
    calls: AtomicU32,
    rates: Mutex<Rates>,
}

#[derive(Debug, Default)]
struct Rates {
    calls: Bucket,
    connections: Bucket,
    signatures: Bucket,
    /// Refused since the volume was last named in the log, and when that was.
    refused: u64,
    named: Option<Instant>,
}

/// A token bucket, as what has been taken from it and not yet come back. It begins full.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    taken: f64,
    at: Option<Instant>,
}

// === impl WorkloadLimits ===

impl Default for WorkloadLimits {
    fn default() -> Self {
        Self { connections: 64, streams: 512, calls: 2000, signatures: 100 }
    }
}

// === impl Limit ===

impl Limit {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Connections, Self::Descriptors, Self::Streams, Self::Calls, Self::Signatures];

    /// The metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Descriptors => "descriptors",
            Self::Streams => "streams",
            Self::Calls => "calls",
            Self::Signatures => "signatures",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Connections => "this pod has too many connections open",
            Self::Descriptors => "the node has too many connections open",
            Self::Streams => "this pod has too many calls open",
            Self::Calls => "this pod calls too often",
            Self::Signatures => "this pod asks for new JWT-SVIDs too often",
        }
    }
}

// === impl Bucket ===

impl Bucket {
    /// Takes one of `burst`, of which `rate` come back each second.
    pub(super) fn take(&mut self, rate: u32, burst: u32, now: Instant) -> bool {
        let back = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.taken = (self.taken - back * f64::from(rate)).max(0.0);
        self.at = Some(now);
        let room = self.taken + 1.0 <= f64::from(burst);
        if room {
            self.taken += 1.0;
        }
        room
    }
}

// === impl Usage ===

impl Usage {
    /// Whether the volume may have one more of what is counted.
    fn enter(count: &AtomicU32, max: u32) -> bool {
        let one_more = |held: u32| (held < max).then_some(held + 1);
        count.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another connection may come now, rather than later.
    pub(super) fn may_connect(&self, limits: &WorkloadLimits) -> bool {
        let burst = limits.calls.saturating_mul(2);
        self.rates().connections.take(limits.calls, burst, Instant::now())
    }

    /// A call or message.
    pub(super) fn may_call(&self, limits: &WorkloadLimits) -> Result<(), Refused> {
        let burst = limits.calls.saturating_mul(2);
        let room = self.rates().calls.take(limits.calls, burst, Instant::now());
        if room { Ok(()) } else { Err(Refused(Limit::Calls)) }
    }

    /// A JWT-SVID that has to be signed.
    pub(super) fn may_sign(&self, limits: &WorkloadLimits) -> Result<(), Refused> {
        let burst = limits.signatures.saturating_mul(5);
        let room = self.rates().signatures.take(limits.signatures, burst, Instant::now());
        if room { Ok(()) } else { Err(Refused(Limit::Signatures)) }
    }
}

// === impl Desk ===

impl Desk {
    /// Admits a connection that was accepted.
    pub(super) fn connect(
        self: &Arc<Self>,
        volume: &Arc<Volume>,
    ) -> Result<ConnectionPermit, Refused> {
        if !Usage::enter(&self.connections, self.max_connections) {
            return Err(self.refuse(volume, Refused(Limit::Descriptors)));
        }
        if !Usage::enter(&volume.usage.connections, self.limits.connections) {
            self.connections.fetch_sub(1, Ordering::AcqRel);
            return Err(self.refuse(volume, Refused(Limit::Connections)));
        }
        self.metrics.workload.connections.inc();
        Ok(ConnectionPermit { volume: volume.clone(), desk: self.clone() })
    }

    /// Admits a call.
    pub(super) fn call(&self, volume: &Arc<Volume>) -> Result<CallPermit, Refused> {
        self.message(volume)?;
        if !Usage::enter(&volume.usage.calls, self.limits.streams) {
            return Err(self.refuse(volume, Refused(Limit::Streams)));
        }
        Ok(CallPermit(volume.clone()))
    }

    /// Admits a message of a call that was admitted.
    pub(super) fn message(&self, volume: &Volume) -> Result<(), Refused> {
        volume.usage.may_call(&self.limits).map_err(|refused| self.refuse(volume, refused))
    }

    /// Counts what was refused, and names the volume now and then.
    pub(super) fn refuse(&self, volume: &Volume, refused: Refused) -> Refused {
        self.metrics.workload.refused(refused.0);
        let now = Instant::now();
        let mut rates = volume.usage.rates();
        rates.refused += 1;
        if rates.named.is_none_or(|at| now.duration_since(at) >= WARN_EVERY) {
            let count = std::mem::take(&mut rates.refused);
            rates.named = Some(now);
            drop(rates);
            let (limit, target) = (refused.0.label(), volume.target.path().display());
            warn!(volume = %volume.id, %target, limit, count, "a pod asks too much of its socket");
        }
        refused
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let Self { volume, desk } = self;
        volume.usage.connections.fetch_sub(1, Ordering::AcqRel);
        desk.connections.fetch_sub(1, Ordering::AcqRel);
        desk.metrics.workload.connections.dec();
    }
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.0.usage.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

impl std::fmt::Debug for ConnectionPermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ConnectionPermit").field(&self.volume.id).finish()
    }
}

#[cfg(test)]
mod tests;
