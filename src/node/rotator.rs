//! One task that knows when each volume is due.
//!
//! Deadlines are wall time, because certificates are: a suspended node or a set clock is noticed
//! at the next look, 10 s later at most.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    sync::mpsc,
    task::{self, JoinError, JoinSet},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, volume::VolumeId};

/// How many volumes are tended to at once.
const CONCURRENCY: usize = 32;
/// A clock that lags behind by more, after one sleep, was set back.
const SET_BACK: Duration = Duration::from_secs(1);
/// The longest that the task sleeps.
const LOOK: Duration = Duration::from_secs(10);

/// Tends to one volume that was due at the given time, and says when it is due again; `None` if it
/// is gone.
pub(super) type Tend =
    Arc<dyn Fn(VolumeId, SystemTime) -> BoxFuture<Option<SystemTime>> + Send + Sync>;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Tells the task what changed. Cheap to clone; never blocks.
#[derive(Clone, Debug)]
pub(super) struct RotatorHandle {
    commands: mpsc::UnboundedSender<Command>,
    beat: Arc<Heartbeat>,
}

/// The task.
pub(super) struct Rotator {
    tend: Tend,
    clock: Arc<dyn Clock>,
    commands: mpsc::UnboundedReceiver<Command>,
    beat: Arc<Heartbeat>,
    queue: BTreeSet<(SystemTime, VolumeId)>,
    due: HashMap<VolumeId, SystemTime>,
    running: HashMap<task::Id, VolumeId>,
    /// Running ones that have to be looked at again.
    again: HashSet<VolumeId>,
    tasks: JoinSet<Option<SystemTime>>,
}

#[derive(Debug)]
enum Command {
    Schedule(VolumeId, SystemTime),
    Cancel(VolumeId),
    TendAll,
}

/// When the task last went round, so that `/livez` sees it hang.
#[derive(Debug)]
struct Heartbeat {
    started: Instant,
    millis: AtomicU64,
}

// === impl RotatorHandle ===

impl RotatorHandle {
    /// The volume is due then, and at no other time.
    pub(super) fn schedule(&self, volume: VolumeId, at: SystemTime) {
        self.send(Command::Schedule(volume, at));
    }

    /// The volume is gone.
    pub(super) fn cancel(&self, volume: VolumeId) {
        self.send(Command::Cancel(volume));
    }

    /// Every volume is due now: the trust bundle changed.
    pub(super) fn tend_all(&self) {
        self.send(Command::TendAll);
    }

    /// How long ago the task last went round.
    pub(super) fn silence(&self) -> Duration {
        let last = Duration::from_millis(self.beat.millis.load(Ordering::Relaxed));
        self.beat.started.elapsed().saturating_sub(last)
    }

    fn send(&self, command: Command) {
        // The task ends only when the process does.
        let _ = self.commands.send(command);
    }
}

// === impl Rotator ===

/// The handle, and the task before it knows what to do with a volume that is due.
pub(super) fn channel() -> (RotatorHandle, RotatorInbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let beat = Arc::new(Heartbeat { started: Instant::now(), millis: AtomicU64::new(0) });
    let handle = RotatorHandle { commands: sender, beat: beat.clone() };
    (handle, RotatorInbox { commands: receiver, beat })
}

/// The receiving end, until the task starts.
#[derive(Debug)]
pub struct RotatorInbox {
    commands: mpsc::UnboundedReceiver<Command>,
    beat: Arc<Heartbeat>,
}

impl Rotator {
    pub(super) fn new(inbox: RotatorInbox, tend: Tend, clock: Arc<dyn Clock>) -> Self {
        Self {
            tend,
            clock,
            commands: inbox.commands,
            beat: inbox.beat,
            queue: BTreeSet::new(),
            due: HashMap::new(),
            running: HashMap::new(),
            again: HashSet::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Runs until cancelled, then waits for what is under way.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut seen = (self.clock.now(), Instant::now());
        loop {
            let look = (self.clock.now(), Instant::now());
            // What was signed by a clock that is now set back may not be valid for long.
            if look.0 + SET_BACK < seen.0 + (look.1 - seen.1) {
                tracing::warn!("the clock was set back; looking at every volume");
                self.obey(Command::TendAll);
            }
            seen = look;
            self.start_due();
            let beat = self.beat.started.elapsed().as_millis() as u64;
            self.beat.millis.store(beat, Ordering::Relaxed);
            let pause = self.pause();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(command) = self.commands.recv() => self.obey(command),
                Some(done) = self.tasks.join_next_with_id() => self.finish(done),
                () = sleep(pause) => {}
            }
        }
        while self.tasks.join_next().await.is_some() {}
    }

    fn pause(&self) -> Duration {
        if self.running.len() >= CONCURRENCY {
            return LOOK;
        }
        let Some((at, _)) = self.queue.first() else {
            return LOOK;
        };
        // A millisecond more than none, so that rounding can't spin.
        let left = at.duration_since(self.clock.now()).unwrap_or_default();
        (left + Duration::from_millis(1)).min(LOOK)
    }

    fn start_due(&mut self) {
        let now = self.clock.now();
        while self.running.len() < CONCURRENCY
            && let Some((at, _)) = self.queue.first()
            && *at <= now
            && let Some((at, volume)) = self.queue.pop_first()
        {
            self.due.remove(&volume);
            let task = self.tasks.spawn((self.tend)(volume.clone(), at));
            self.running.insert(task.id(), volume);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Schedule(volume, at) => self.set(volume, at),
            Command::Cancel(volume) => {
                self.unset(&volume);
                self.again.remove(&volume);
            }
            Command::TendAll => {
                let now = self.clock.now();
                for (_, volume) in std::mem::take(&mut self.queue) {
                    self.due.insert(volume.clone(), now);
                    self.queue.insert((now, volume));
                }
                // These may have read what was before the change.
                self.again.extend(self.running.values().cloned());
            }
        }
    }

    fn finish(&mut self, done: Result<(task::Id, Option<SystemTime>), JoinError>) {
        let (id, next) = match done {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "tending to a volume panicked; it is tried again");
                (error.id(), Some(self.clock.now() + LOOK))
            }
        };
        let Some(volume) = self.running.remove(&id) else {
            return;
        };
        let again = self.again.remove(&volume);
        match next {
            Some(_) if again => self.set(volume, self.clock.now()),
            // A publish may have set a time meanwhile; the earlier one is right.
            Some(at) if self.due.get(&volume).is_none_or(|set| at < *set) => self.set(volume, at),
            _ => {}
        }
    }

    fn set(&mut self, volume: VolumeId, at: SystemTime) {
        self.unset(&volume);
        self.due.insert(volume.clone(), at);
        self.queue.insert((at, volume));
    }

    fn unset(&mut self, volume: &VolumeId) {
        if let Some(at) = self.due.remove(volume) {
            self.queue.remove(&(at, volume.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A clock that goes with tokio's paused one, and can be set.
    struct TestClock {
        start: Instant,
        offset: Mutex<Duration>,
    }

    impl TestClock {
        fn new() -> Arc<Self> {
            Arc::new(Self { start: Instant::now(), offset: Mutex::new(Duration::ZERO) })
        }

        fn jump(&self, by: Duration) {
            *self.offset.lock().unwrap() += by;
        }
    }

    impl Clock for TestClock {
        fn now(&self) -> SystemTime {
            at(0) + self.start.elapsed() + *self.offset.lock().unwrap()
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn id(name: &str) -> VolumeId {
        name.parse().unwrap()
    }

    /// Notes who was tended to and when; each is due again after `every`.
    struct Notes {
        clock: Arc<TestClock>,
        every: Duration,
        takes: Duration,
        seen: Mutex<Vec<(String, u64)>>,
        at_once: AtomicU64,
        most_at_once: AtomicU64,
    }

    impl Notes {
        async fn tend(&self, volume: VolumeId) -> Option<SystemTime> {
            let now = self.clock.now();
            let seconds = now.duration_since(at(0)).unwrap().as_secs();
            self.seen.lock().unwrap().push((volume.to_string(), seconds));
            let running = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(running, Ordering::SeqCst);
            sleep(self.takes).await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            assert!(volume.to_string() != "panics" || now > at(5), "as the test wants it");
            Some(now + self.every)
        }
    }

    fn start(every: u64, takes: u64) -> (RotatorHandle, Arc<Notes>, Arc<TestClock>, JoinSet<()>) {
        let clock = TestClock::new();
        let notes = Arc::new(Notes {
            clock: clock.clone(),
            every: Duration::from_secs(every),
            takes: Duration::from_secs(takes),
            seen: Mutex::default(),
            at_once: AtomicU64::new(0),
            most_at_once: AtomicU64::new(0),
        });
        let (handle, inbox) = channel();
        let tender = notes.clone();
        let tend: Tend = Arc::new(move |volume, _due| {
            let notes = tender.clone();
            Box::pin(async move { notes.tend(volume).await })
        });
        let rotator = Rotator::new(inbox, tend, clock.clone());
        let mut task = JoinSet::new();
        task.spawn(rotator.run(CancellationToken::new()));
        (handle, notes, clock, task)
    }

    fn seen(notes: &Notes) -> Vec<(String, u64)> {
        notes.seen.lock().unwrap().clone()
    }

    fn noted(list: &[(&str, u64)]) -> Vec<(String, u64)> {
        list.iter().map(|(name, second)| (name.to_string(), *second)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_volume_is_tended_to_when_it_is_due_and_again_after() {
        let (handle, notes, _, _task) = start(100, 0);
        handle.schedule(id("b"), at(50));
        handle.schedule(id("a"), at(30));
        sleep(Duration::from_secs(140)).await;
        assert_eq!(seen(&notes), noted(&[("a", 30), ("b", 50), ("a", 130)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_volume_is_left_alone_and_a_rescheduled_one_has_one_time() {
        let (handle, notes, _, _task) = start(1_000, 0);
        handle.schedule(id("a"), at(30));
        handle.schedule(id("b"), at(30));
        handle.cancel(id("a"));
        handle.schedule(id("b"), at(60));
        sleep(Duration::from_secs(100)).await;
        assert_eq!(seen(&notes), noted(&[("b", 60)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_jumps_forward_is_noticed_within_ten_seconds() {
        let (handle, notes, clock, _task) = start(10_000, 0);
        handle.schedule(id("a"), at(3_600));
        sleep(Duration::from_secs(15)).await;
        clock.jump(Duration::from_secs(7_200));
        sleep(Duration::from_secs(10)).await;
        assert_eq!(seen(&notes).len(), 1);
    }

    /// What was signed before is not valid yet, so everyone is looked at, and once.
    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_is_noticed_within_ten_seconds() {
        let (handle, notes, clock, _task) = start(10_000, 0);
        clock.jump(Duration::from_secs(1_000));
        handle.schedule(id("a"), at(1_100));
        sleep(Duration::from_secs(15)).await;
        *clock.offset.lock().unwrap() = Duration::ZERO;
        sleep(Duration::from_secs(1_000)).await;
        assert_eq!(seen(&notes), noted(&[("a", 20)]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_bundle_makes_everyone_due_also_those_under_way() {
        let (handle, notes, _, _task) = start(10_000, 5);
        handle.schedule(id("running"), at(1));
        handle.schedule(id("waiting"), at(9_000));
        sleep(Duration::from_secs(3)).await;
        handle.tend_all();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(seen(&notes), noted(&[("running", 1), ("waiting", 3), ("running", 6)]));
    }

    /// Invariant 9.
    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_bound_run_at_once() {
        let (handle, notes, _, _task) = start(10_000, 5);
        for volume in 0..100 {
            handle.schedule(id(&format!("v{volume}")), at(1));
        }
        sleep(Duration::from_secs(60)).await;
        assert_eq!(seen(&notes).len(), 100);
        assert_eq!(notes.most_at_once.load(Ordering::SeqCst), CONCURRENCY as u64);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_costs_one_try_not_the_task() {
        let (handle, notes, _, _task) = start(10_000, 0);
        handle.schedule(id("panics"), at(1));
        sleep(Duration::from_secs(30)).await;
        assert_eq!(seen(&notes), noted(&[("panics", 1), ("panics", 11)]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_heartbeat_goes_on_without_work() {
        let (handle, _, _, _task) = start(1, 0);
        sleep(Duration::from_secs(1_000)).await;
        assert!(handle.silence() <= LOOK + Duration::from_secs(1));
    }
}
