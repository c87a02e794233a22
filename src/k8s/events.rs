//! Events on Pods: what a person reads who asks why a pod has no new SVID.
//!
//! Nobody ever waits for one. What happens again to the same pod for the same reason is counted in
//! the Event that is there (`series.rs`), and writes are paced.

mod series;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::series::{Outcome, Series, Write};
use super::{ApiError, ApiErrorKind, Cluster, call};
use crate::clock::Clock;

/// How many may wait to be written.
const QUEUE: usize = 1_024;
/// The API server refuses a longer message.
const MAX_MESSAGE: usize = 1_024;
/// Between two writes: all pods of a node may fail at once.
const PACE: Duration = Duration::from_millis(50);
/// While the API server is away.
const AWAY: Duration = Duration::from_secs(10);

/// Something that a pod's owner should know. It must hold no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// The pod's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// What happened.
    pub reason: EventReason,
    /// The same for a person; a long one is cut.
    pub message: String,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventReason {
    /// Policy denies the pod its SVID.
    Denied,
    /// Nobody could sign it, which is nobody's policy.
    Failed,
    /// The SVID in place could not be renewed.
    RenewalFailed,
    /// It is renewed again.
    Renewed,
}

/// Where Events are left to be written. Cheap to clone. One that leads nowhere drops them all, as
/// where there is no API server to write to.
#[derive(Clone, Debug, Default)]
pub struct PodEvents {
    queue: Option<mpsc::Sender<PodEvent>>,
    dropped: Arc<AtomicU64>,
}

/// Writes them.
pub struct EventWriter {
    queue: mpsc::Receiver<PodEvent>,
    dropped: Arc<AtomicU64>,
    cluster: Cluster,
    clock: Arc<dyn Clock>,
    /// Who reports: the driver's name and the node's.
    controller: String,
    instance: String,
}

// === impl EventReason ===

impl EventReason {
    /// As it stands in the Event.
    pub fn label(self) -> &'static str {
        match self {
            Self::Denied => "SvidDenied",
            Self::Failed => "SvidFailed",
            Self::RenewalFailed => "SvidRenewalFailed",
            Self::Renewed => "SvidRenewed",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Denied | Self::Failed | Self::RenewalFailed => "Warning",
            Self::Renewed => "Normal",
        }
    }
}

// === impl PodEvents ===

impl PodEvents {
    /// The handle, and what writes while it runs.
    pub fn new(
        cluster: Cluster,
        controller: impl Into<String>,
        instance: impl Into<String>,
        clock: Arc<dyn Clock>,
    ) -> (Self, EventWriter) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let handle = Self { queue: Some(sender), dropped: dropped.clone() };
        let (controller, instance) = (controller.into(), instance.into());
        (handle, EventWriter { queue, dropped, cluster, clock, controller, instance })
    }

    /// Leaves an Event to be written. Never waits: where there is no room it is dropped, and counted.
    pub fn report(&self, event: PodEvent) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

// === impl EventWriter ===

impl EventWriter {
    /// Writes until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut series = Series::default();
        let mut resume = Instant::now();
        loop {
            let now = self.clock.now();
            let next = series.next_at().map(|at| at.duration_since(now).unwrap_or_default());
            let at = resume.max(Instant::now() + next.unwrap_or(Duration::from_secs(3_600)));
            tokio::select! {
                () = stop.cancelled() => return,
                event = self.queue.recv() => match event {
                    Some(mut event) => {
                        event.message = cut(&event.message);
                        series.note(event, self.clock.now());
                    }
                    None => return,
                },
                () = sleep_until(at), if next.is_some() => {
                    let Some(write) = series.take(self.clock.now()) else { continue };
                    let outcome = tokio::select! {
                        () = stop.cancelled() => return,
                        outcome = self.write(&write) => outcome,
                    };
                    if let Outcome::Later(wait) = outcome {
                        resume = Instant::now() + wait;
                    }
                    if !series.settle(&write, outcome, self.clock.now()) {
                        self.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                    sleep(PACE).await;
                }
            }
        }
    }

    async fn write(&self, write: &Write) -> Outcome {
        let result = match write.exists {
            true => self.patch(write).await,
            false => self.create(write).await,
        };
        let Err(error) = result else { return Outcome::Done };
        let pod = format!("{}/{}", write.event.namespace, write.event.name);
        match error.kind() {
            ApiErrorKind::NotFound if write.exists => Outcome::Gone,
            ApiErrorKind::Away | ApiErrorKind::Throttled | ApiErrorKind::Conflict => {
                debug!(pod, %error, "an Event is written later");
                Outcome::Later(error.retry_after().unwrap_or(AWAY))
            }
            // The namespace may be about to go.
            _ => {
                warn!(pod, %error, "an Event could not be written");
                Outcome::Refused
            }
        }
    }

    async fn create(&self, write: &Write) -> Result<(), ApiError> {
        let PodEvent { namespace, name, uid, reason, message } = write.event.clone();
        let time = |at| Timestamp::try_from(at).ok().map(Time);
        let event = Event {
            metadata: ObjectMeta {
                name: Some(write.name.clone()),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(namespace.clone()),
                name: Some(name),
                uid: Some(uid),
                ..ObjectReference::default()
            },
            reason: Some(reason.label().to_owned()),
            message: Some(message),
            type_: Some(reason.kind().to_owned()),
            count: Some(write.count),
            first_timestamp: time(write.first),
            last_timestamp: time(write.last),
            source: Some(EventSource {
                component: Some(self.controller.clone()),
                host: Some(self.instance.clone()),
            }),
            reporting_component: Some(self.controller.clone()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        };
        let api = self.cluster.namespaced::<Event>(&namespace);
        match call("create an Event", api.create(&PostParams::default(), &event)).await {
            // It was, and the answer was lost.
            Err(error) if error.is_already_exists() => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn patch(&self, write: &Write) -> Result<(), ApiError> {
        let last = Timestamp::try_from(write.last).ok().map(Time);
        let (count, message) = (write.count, &write.event.message);
        let patch = json!({ "count": count, "lastTimestamp": last, "message": message });
        let api = self.cluster.namespaced::<Event>(&write.event.namespace);
        let params = PatchParams::default();
        call("count up an Event", api.patch(&write.name, &params, &Patch::Merge(patch))).await?;
        Ok(())
    }
}

/// What others say may be of any length and hold anything.
fn cut(message: &str) -> String {
    let printable = message.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut text = String::new();
    for c in printable {
        if text.len() + c.len_utf8() > MAX_MESSAGE {
            break;
        }
        text.push(c);
    }
    text
}
