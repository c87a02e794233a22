//! Every replica of the controller: found, kept connected, and chosen from.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tracing::{debug, info, warn};

use super::{ControllerAddress, ControllerMetrics, keeper::Keeper, link::Seat, replica::Replica};
use crate::jitter::random;

/// How often the replicas are looked for.
const LOOK: Duration = Duration::from_secs(30);
/// How often while not all of them are connected: one may have come back elsewhere.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The shortest pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// How many troubles are told.
const TOLD: usize = 3;

/// All replicas that are known.
pub(super) struct Replicas {
    address: ControllerAddress,
    known: Mutex<Known>,
    /// Counts the connections that were made.
    pub(super) connections: watch::Sender<u64>,
    /// A connection was lost.
    pub(super) lost: Notify,
    turn: AtomicUsize,
    pub(super) metrics: ControllerMetrics,
}

#[derive(Default)]
struct Known {
    replicas: BTreeMap<SocketAddr, Arc<Replica>>,
    /// Why they could not be looked for.
    trouble: Option<String>,
}

// === impl Replicas ===

impl Replicas {
    pub(super) fn new(address: ControllerAddress, metrics: ControllerMetrics) -> Self {
        Self {
            address,
            known: Mutex::default(),
            connections: watch::Sender::new(0),
            lost: Notify::new(),
            turn: AtomicUsize::new(0),
            metrics,
        }
    }

    /// Looks for replicas again and again, and keeps a connection to each.
    pub(super) async fn run(self: &Arc<Self>, keeper: Arc<Keeper>) {
        let mut keeping = JoinSet::new();
        loop {
            match self.address.resolve().await {
                Ok(found) => {
                    for replica in self.update(&found) {
                        let (keeper, replicas) = (keeper.clone(), self.clone());
                        keeping.spawn(async move { keeper.keep(&replica, &replicas).await });
                    }
                }
                // Those that are known may still be there.
                Err(error) => {
                    let trouble = error.to_string();
                    if self.known().trouble.replace(trouble).as_deref() != Some(&*error.to_string())
                    {
                        warn!(%error, "the controller's replicas can't be looked for");
                    }
                }
            }
            while keeping.try_join_next().is_some() {}
            let (known, connected) = self.count();
            let pause = if connected > 0 && connected == known { LOOK } else { LOOK_AGAIN };
            // Not every node at once, when all of them have lost the same replica.
            sleep(PAUSE + PAUSE.mul_f64(random())).await;
            tokio::select! {
                () = sleep(pause.mul_f64(0.75 + random() / 2.0)) => {}
                () = self.lost.notified() => {}
            }
        }
    }

    /// Takes in what a look found: those that are new. One that is gone is left alone while it is all
    /// there is.
    fn update(&self, found: &[SocketAddr]) -> Vec<Arc<Replica>> {
        let mut known = self.known();
        known.trouble = found.is_empty().then(|| format!("{} has no addresses", self.address));
        let mut new = Vec::new();
        for address in found {
            known.replicas.entry(*address).or_insert_with(|| {
                let replica = Arc::new(Replica::new(*address));
                new.push(replica.clone());
                replica
            });
        }
        for (address, replica) in &known.replicas {
            replica.set_listed(found.contains(address));
        }
        let listed = |replica: &Arc<Replica>| replica.link().is_some_and(|(_, listed)| listed);
        let others = known.replicas.values().any(listed);
        let metrics = &self.metrics;
        known.replicas.retain(|address, replica| {
            let stays = found.contains(address) || (!others && replica.link().is_some());
            if !stays {
                info!(replica = %address, "the controller has this replica no longer");
                replica.leave.cancel();
                metrics.forget(*address);
            }
            stays
        });
        for replica in &new {
            metrics.connected(replica.address, false);
            debug!(replica = %replica.address, "found a replica of the controller");
        }
        new
    }

    /// A seat at the connection that has the least to do, but at none of these.
    pub(super) fn pick(&self, tried: &[u64]) -> Option<(SocketAddr, Seat)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let known = self.known();
        let all = known.replicas.len().max(1);
        let linked = known.replicas.values().enumerate().filter_map(|(index, replica)| {
            let (link, listed) = replica.link()?;
            let rank = (!listed, link.load(), (index + turn) % all);
            (!tried.contains(&link.number())).then_some((rank, replica.address, link))
        });
        let (_, address, link) = linked.min_by_key(|(rank, ..)| *rank)?;
        Some((address, link.seat()))
    }

    /// The same; waits for one until the deadline.
    pub(super) async fn wait(
        &self,
        tried: &[u64],
        deadline: Instant,
    ) -> Option<(SocketAddr, Seat)> {
        let mut connections = self.connections.subscribe();
        loop {
            connections.mark_unchanged();
            if let Some(picked) = self.pick(tried) {
                return Some(picked);
            }
            timeout_at(deadline, connections.changed()).await.ok()?.ok()?;
        }
    }

    /// How many are known, and how many connected.
    pub(super) fn count(&self) -> (usize, usize) {
        let known = self.known();
        let connected = known.replicas.values().filter(|replica| replica.link().is_some()).count();
        (known.replicas.len(), connected)
    }

    /// Why nobody can be called, for a person.
    pub(super) fn trouble(&self) -> String {
        let known = self.known();
        let mut told: Vec<String> = known.trouble.iter().cloned().collect();
        let unlinked = known.replicas.values().filter(|replica| replica.link().is_none());
        told.extend(unlinked.map(|replica| replica.trouble()));
        if told.is_empty() {
            return format!("{} has not been looked up yet", self.address);
        }
        let more = told.len().saturating_sub(TOLD);
        told.truncate(TOLD);
        let told = told.join("; ");
        if more == 0 { told } else { format!("{told}; and {more} more") }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
