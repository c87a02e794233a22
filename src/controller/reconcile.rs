//! The loop that objects of one kind go through that ask for something: each is handled once, by one
//! replica where that can be had, and again where it failed.

mod obstacle;
mod queue;

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{
        mpsc::{self, UnboundedSender},
        watch,
    },
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use self::obstacle::{Handled, Obstacle};
use self::queue::Queue;
use super::{issuance::Issuance, metrics::CacheLabel, world::World};
use crate::{
    jitter::random,
    k8s::{Cache, Change, Following, ObjectName},
};

/// Handles all objects of one kind.
pub struct Reconciler<T> {
    kind: Kind<T>,
    cache: Cache<T>,
    ground: Ground,
    beat: Mutex<Instant>,
}

/// What every kind is handled with. Cheap to clone.
#[derive(Clone)]
pub struct Ground {
    /// What is known.
    pub world: Arc<World>,
    /// Who signs and keeps account.
    pub issuance: Arc<Issuance>,
    /// Whether this replica leads.
    pub leads: watch::Receiver<bool>,
}

/// A kind of object, and what is done about it.
pub struct Kind<T> {
    /// Its plural, as the API has it.
    pub resource: &'static str,
    /// What the loop has to know of one.
    pub look: fn(&T) -> Look<'_>,
    /// Keeps the cache and tells what changes in it, for ever.
    pub follow: Follow<T>,
    /// Does what this version of one needs.
    pub handle: Box<dyn Fn(Arc<T>) -> Handling + Send + Sync>,
}

/// A watch that runs until it is dropped.
pub type Follow<T> = Box<dyn Fn(Cache<T>, UnboundedSender<Change<T>>) -> Following + Send + Sync>;

/// One object being handled.
pub type Handling = Pin<Box<dyn Future<Output = Handled> + Send>>;

/// What the loop has to know of an object.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// Its UID.
    pub uid: &'a str,
    /// When it was created, as the API server says.
    pub created: Option<SystemTime>,
    /// How far it is.
    pub state: State,
}

/// How far an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has done anything about it.
    New,
    /// Somebody has, and something is left to do.
    Begun,
    /// Nothing is to be done.
    Finished,
}

/// The loop's own state.
#[derive(Default)]
struct Work {
    queue: Queue,
    /// Objects that were finished here, by UID. What the watch still tells of them is older.
    finished: HashMap<ObjectName, String>,
    tasks: JoinSet<Handled>,
    /// What each task works on: name and UID.
    running: HashMap<Id, (ObjectName, String)>,
    /// When somebody else was last seen to have decided or signed something.
    others: Option<Instant>,
}

/// How many objects are worked on at once.
const CONCURRENCY: usize = 64;
/// How long a replica that doesn't lead leaves an object to the one that does, once nothing is seen of
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

// === impl Reconciler ===

impl<T: Send + Sync + 'static> Reconciler<T> {
    /// With nothing told yet.
    pub fn new(kind: Kind<T>, ground: Ground) -> Self {
        Self { kind, cache: Cache::default(), ground, beat: Mutex::new(Instant::now()) }
    }

    /// All that the watch told.
    pub fn cache(&self) -> &Cache<T> {
        &self.cache
    }

    /// Why none is handled yet.
    pub fn ready(&self) -> Result<(), String> {
        match self.cache.is_synced() {
            true => Ok(()),
            false => {
                let why = self.cache.state().borrow().problem.clone();
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                Err(format!("not listed yet: {}{why}", self.kind.resource))
            }
        }
    }

    /// Whether the loop still turns.
    pub fn alive(&self) -> Result<(), String> {
        let silence = self.beat.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        let resource = self.kind.resource;
        match silence <= SILENCE {
            true => Ok(()),
            false => Err(format!("no {resource} were looked at for {} s", silence.as_secs())),
        }
    }

    /// Brings the gauges up to date.
    pub fn refresh_metrics(&self, now: SystemTime) {
        let (label, metrics) = (CacheLabel(self.kind.resource), &self.ground.issuance.metrics);
        metrics.saw_cache(label, &self.cache.state().borrow());
        let all = self.cache.all();
        let looks = all.iter().map(|object| (self.kind.look)(object));
        let ages = looks.filter(|look| look.state != State::Finished).map(|look| look.age(now));
        let (count, oldest) =
            ages.fold((0, Duration::ZERO), |(count, oldest), age| (count + 1, oldest.max(age)));
        metrics.saw_waiting(label, count, oldest);
    }

    /// Works until `stop`, then finishes what is under way.
    pub async fn run(&self, stop: CancellationToken) {
        let (changes, mut told) = mpsc::unbounded_channel();
        let mut watching = JoinSet::new();
        watching.spawn((self.kind.follow)(self.cache.clone(), changes));
        let mut work = Work::default();
        while !stop.is_cancelled() {
            let now = Instant::now();
            *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = now;
            let listed = self.cache.is_synced();
            let knows = self.ground.world.ready().is_ok() && listed;
            let due = match knows && self.start(&mut work, now) {
                true => work.queue.next_due().map_or(now + BEAT, |due| due.min(now + BEAT)),
                // There is room when a task ends, and a list when it is told, which wakes too.
                false if knows || !listed => now + BEAT,
                false => now + LISTING,
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = work.tasks.join_next_with_id() => self.done(&mut work, done),
                Some(change) = told.recv() => self.heard(&mut work, change),
                Some(_) = watching.join_next() => {
                    error!(resource = self.kind.resource, "the watch ended by itself");
                    break;
                }
                () = sleep_until(due) => {}
            }
        }
        drop(watching);
        let finish = async { while work.tasks.join_next().await.is_some() {} };
        if timeout(PATIENCE, finish).await.is_err() {
            warn!(
                resource = self.kind.resource,
                "some were left half done; another replica finishes them"
            );
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
            let object = self.cache.get(&name).filter(|object| {
                let look = (self.kind.look)(object);
                look.state != State::Finished
                    && work.finished.get(&name).is_none_or(|uid| uid != look.uid)
            });
            let Some(object) = object else {
                work.queue.done(&name, None, now, 0.0);
                continue;
            };
            let uid = (self.kind.look)(&object).uid.to_owned();
            let task = work.tasks.spawn((self.kind.handle)(object));
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
                let known = self.cache.get(&name);
                if known.is_some_and(|object| (self.kind.look)(&object).uid == uid) {
                    work.finished.insert(name.clone(), uid);
                }
                None
            }
            Handled::Outdated => None,
            Handled::Again(wait) => Some(wait),
        };
        work.queue.done(&name, again, Instant::now(), random());
    }

    fn heard(&self, work: &mut Work, change: Change<T>) {
        let now = Instant::now();
        match change {
            Change::Set(name, object) => {
                let look = (self.kind.look)(&object);
                if look.state != State::New && !work.is_ours(&name, look.uid) {
                    work.others = Some(now);
                }
                if look.state == State::Finished {
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
            Change::Complete => info!(resource = self.kind.resource, "all requests are known"),
        }
    }

    fn leads(&self) -> bool {
        *self.ground.leads.borrow()
    }
}

// === impl Look ===

impl Look<'_> {
    /// How long it has existed.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.created.unwrap_or(now)).unwrap_or(Duration::ZERO)
    }
}

// === impl Work ===

impl Work {
    fn is_ours(&self, name: &ObjectName, uid: &str) -> bool {
        self.finished.get(name).is_some_and(|finished| finished == uid)
            || self.running.values().any(|(running, _)| running == name)
    }
}
