//! What becomes of each request: decided, and if admitted, decided once more on the very version that
//! is signed.

mod judge;
mod queue;
mod read;
mod step;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use self::read::read;
use self::{
    judge::{Handled, Judge},
    queue::Queue,
    step::Step,
};
use super::{
    issuance::Issuance,
    metrics::{CacheLabel, Metrics},
    world::World,
};
use crate::{
    clock::Clock,
    jitter::random,
    k8s::{Cache, Change, ObjectName, RequestDecisions, RequestFacts},
};

/// Handles all requests for our signer.
pub struct Requests {
    judge: Arc<Judge>,
    cache: Cache<RequestFacts>,
    leads: watch::Receiver<bool>,
    beat: Mutex<Instant>,
}

/// What [`Requests`] needs.
pub struct Ground {
    /// What is known.
    pub world: Arc<World>,
    /// Who signs and keeps account.
    pub issuance: Arc<Issuance>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// How requests are answered.
    pub decisions: RequestDecisions,
    /// Whether this replica leads.
    pub leads: watch::Receiver<bool>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The loop's own state.
#[derive(Default)]
struct Work {
    queue: Queue,
    /// Requests that were finished here, by UID. What the watch still tells of them is older.
    finished: HashMap<ObjectName, String>,
    tasks: JoinSet<Handled>,
    /// What each task works on: name and UID.
    running: HashMap<Id, (ObjectName, String)>,
    /// When somebody else was last seen to have decided or signed something.
    others: Option<Instant>,
}

/// How many requests are worked on at once.
const CONCURRENCY: usize = 64;
/// How long a replica that doesn't lead leaves a request to the one that does, once nothing is seen of
/// that one's work.
const COURTESY: Duration = Duration::from_secs(1);
/// How long at most, whatever is seen.
const LONGEST_COURTESY: Duration = Duration::from_secs(15);
/// How long what is under way may take at the end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks whether enough is known to begin.
const LISTING: Duration = Duration::from_millis(100);
/// How often the loop turns at least, and how long it may not before it is dead.
const BEAT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(60);

// === impl Requests ===

impl Requests {
    /// With nothing told yet.
    pub fn new(ground: Ground) -> Self {
        let Ground { world, issuance, metrics, decisions, leads, clock } = ground;
        let judge = Arc::new(Judge { world, issuance, metrics, decisions, clock });
        Self { judge, cache: Cache::default(), leads, beat: Mutex::new(Instant::now()) }
    }

    /// Why no request is handled yet.
    pub fn ready(&self) -> Result<(), String> {
        match self.cache.is_synced() {
            true => Ok(()),
            false => {
                let why = self.cache.state().borrow().problem.clone();
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                Err(format!("not listed yet: certificatesigningrequests{why}"))
            }
        }
    }

    /// Whether the loop still turns.
    pub fn alive(&self) -> Result<(), String> {
        let silence = self.beat.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        match silence <= SILENCE {
            true => Ok(()),
            false => Err(format!("no request was looked at for {} s", silence.as_secs())),
        }
    }

    /// Brings the gauges up to date.
    pub fn refresh_metrics(&self, now: SystemTime) {
        let metrics = &self.judge.metrics;
        let label = CacheLabel("certificatesigningrequests");
        metrics.saw_cache(label, &self.cache.state().borrow());
        let all = self.cache.all();
        let waiting = all.iter().filter(|request| Step::of(request) != Step::Leave);
        let ages = waiting.map(|request| age(request, now));
        let (count, oldest) =
            ages.fold((0, Duration::ZERO), |(count, oldest), age| (count + 1, oldest.max(age)));
        metrics.waiting.set(count);
        metrics.oldest_waiting.set(oldest.as_secs_f64());
        metrics.leader.set((*self.leads.borrow()).into());
    }

    /// Works until `stop`, then finishes what is under way.
    pub async fn run(&self, stop: CancellationToken) {
        let (changes, mut told) = mpsc::unbounded_channel();
        let on_change = move |change| drop(changes.send(change));
        let mut watching = JoinSet::new();
        watching.spawn(self.judge.decisions.follow(self.cache.clone(), on_change));
        let mut work = Work::default();
        while !stop.is_cancelled() {
            let now = Instant::now();
            *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = now;
            let knows = self.judge.world.ready().is_ok() && self.cache.is_synced();
            let due = match knows && self.start(&mut work, now) {
                true => work.queue.next_due().map_or(now + BEAT, |due| due.min(now + BEAT)),
                // There is room when a task ends, which wakes too.
                false if knows => now + BEAT,
                false => now + LISTING,
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = work.tasks.join_next_with_id() => self.done(&mut work, done),
                Some(change) = told.recv() => self.heard(&mut work, change),
                Some(_) = watching.join_next() => {
                    error!("the watch of requests ended by itself");
                    break;
                }
                () = sleep_until(due) => {}
            }
        }
        drop(watching);
        let finish = async { while work.tasks.join_next().await.is_some() {} };
        if timeout(PATIENCE, finish).await.is_err() {
            warn!("some requests were left half done; another replica finishes them");
        }
    }

    /// Starts what is due; whether there was room for all of it.
    fn start(&self, work: &mut Work, now: Instant) -> bool {
        while work.queue.running() < CONCURRENCY {
            let Some((name, since)) = work.queue.take(now) else { return true };
            // Two at work on the same requests are twice the work for an API server that is slow.
            let others = work.others.map(|seen| seen + COURTESY).filter(|until| *until > now);
            if let Some(until) = others.filter(|_| !self.leads() && now < since + LONGEST_COURTESY)
            {
                work.queue.put_off(&name, until + COURTESY.mul_f64(random() / 4.0));
                continue;
            }
            let request = self.cache.get(&name).filter(|request| {
                Step::of(request) != Step::Leave
                    && work.finished.get(&name).is_none_or(|uid| *uid != request.uid)
            });
            let Some(request) = request else {
                work.queue.done(&name, None, now, 0.0);
                continue;
            };
            let judge = self.judge.clone();
            let uid = request.uid.clone();
            let task = work.tasks.spawn(async move { judge.handle(&request).await });
            work.running.insert(task.id(), (name, uid));
        }
        false
    }

    fn done(&self, work: &mut Work, done: Result<(Id, Handled), JoinError>) {
        let (id, handled) = match done {
            Ok((id, handled)) => (id, handled),
            Err(error) => {
                error!(%error, "a decision panicked; its request is left alone");
                (error.id(), Handled::Finished)
            }
        };
        let Some((name, uid)) = work.running.remove(&id) else { return };
        let again = match handled {
            Handled::Finished => {
                // Its node may have read and deleted it before the answer came.
                if self.cache.get(&name).is_some_and(|request| request.uid == uid) {
                    work.finished.insert(name.clone(), uid);
                }
                None
            }
            Handled::Outdated => None,
            Handled::Again(wait) => Some(wait),
        };
        work.queue.done(&name, again, Instant::now(), random());
    }

    fn heard(&self, work: &mut Work, change: Change<RequestFacts>) {
        let now = Instant::now();
        match change {
            Change::Set(name, request) => {
                let step = Step::of(&request);
                if step != Step::Decide && !work.is_ours(&name, &request.uid) {
                    work.others = Some(now);
                }
                if step == Step::Leave {
                    work.queue.forget(&name);
                    return;
                }
                let courtesy = match self.leads() {
                    true => Duration::ZERO,
                    false => COURTESY.mul_f64(1.0 + random() / 4.0),
                };
                work.queue.add(name, now, now + courtesy);
            }
            Change::Gone(name, _) => {
                work.finished.remove(&name);
                work.queue.forget(&name);
            }
            Change::Complete => info!("all requests are known"),
        }
    }

    fn leads(&self) -> bool {
        *self.leads.borrow()
    }
}

// === impl Work ===

impl Work {
    fn is_ours(&self, name: &ObjectName, uid: &str) -> bool {
        self.finished.get(name).is_some_and(|finished| finished == uid)
            || self.running.values().any(|(running, _)| running == name)
    }
}

/// How long a request has existed.
fn age(request: &RequestFacts, now: SystemTime) -> Duration {
    let created = request.created.unwrap_or(now);
    now.duration_since(created).unwrap_or(Duration::ZERO)
}
