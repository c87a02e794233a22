//! What a watch has seen: a map of objects that follows the API server.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::StreamExt;
use kube::{
    Api, Resource,
    api::ListParams,
    runtime::{
        utils::Backoff,
        watcher::{self, Config, DefaultBackoff, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    time::{error::Elapsed, sleep, timeout},
};
use tracing::{debug, warn};

/// How long one watch runs, in seconds; a connection that died in silence is noticed soon after.
const WATCH_SECONDS: u32 = 120;
/// How long a watch that failed and was tried again is silent before the server is asked.
const QUIET: Duration = Duration::from_secs(5);

/// An object's namespace, empty where it has none, and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Objects as the API server last told. Cheap to clone. While the server is away it stands still,
/// and says so.
#[derive(Debug)]
pub struct Cache<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    objects: RwLock<HashMap<ObjectName, Arc<T>>>,
    state: watch::Sender<CacheState>,
}

/// How a cache is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheState {
    /// It has been complete once. From then on it is at worst old.
    pub synced: bool,
    /// Why it may be old now: its watch failed and does not go on yet.
    pub problem: Option<String>,
    /// Grows with each change.
    pub changes: u64,
}

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// It is there, and is this. Said again for every object after a gap in the watch.
    Set(ObjectName, Arc<T>),
    /// It is gone, and was this.
    Gone(ObjectName, Arc<T>),
    /// All that there is has been told.
    Complete,
}

// === impl ObjectName ===

impl ObjectName {
    /// In a namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// In none.
    pub fn cluster_wide(name: impl Into<String>) -> Self {
        Self::new("", name)
    }

    fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

// === impl Cache ===

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        let shared = Shared { objects: RwLock::default(), state: watch::Sender::default() };
        Self { shared: Arc::new(shared) }
    }
}

impl<T> Cache<T> {
    /// One object, if it was told of.
    pub fn get(&self, name: &ObjectName) -> Option<Arc<T>> {
        let objects = self.shared.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(name).cloned()
    }

    /// Every object, in no order.
    pub fn all(&self) -> Vec<Arc<T>> {
        let objects = self.shared.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.values().cloned().collect()
    }

    /// How it is doing, and a way to wait for a change of that.
    pub fn state(&self) -> watch::Receiver<CacheState> {
        self.shared.state.subscribe()
    }

    /// Whether it has been complete once.
    pub fn is_synced(&self) -> bool {
        self.shared.state.borrow().synced
    }

    /// Puts an object there as if it had been told of: what a call answered is newer than the
    /// watch.
    pub fn set(&self, name: ObjectName, object: T) -> Arc<T> {
        let object = Arc::new(object);
        self.write(|objects| objects.insert(name, object.clone()));
        self.changed();
        object
    }

    fn remove(&self, name: &ObjectName) -> Option<Arc<T>> {
        let gone = self.write(|objects| objects.remove(name));
        self.changed();
        gone
    }

    /// Everything there is; returns what is there no longer.
    fn replace(
        &self,
        all: HashMap<ObjectName, Arc<T>>,
        what: &'static str,
    ) -> Vec<(ObjectName, Arc<T>)> {
        debug!(what, objects = all.len(), "the watch is complete");
        let gone = self.write(|objects| {
            let mut before = std::mem::replace(objects, all);
            before.retain(|name, _| !objects.contains_key(name));
            before.into_iter().collect()
        });
        self.shared.state.send_modify(|state| {
            state.synced = true;
            state.changes += 1;
        });
        gone
    }

    fn write<R>(&self, change: impl FnOnce(&mut HashMap<ObjectName, Arc<T>>) -> R) -> R {
        change(&mut self.shared.objects.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn changed(&self) {
        self.shared.state.send_modify(|state| state.changes += 1);
    }

    fn heard(&self, problem: Option<String>) {
        self.shared.state.send_if_modified(|state| {
            let news = state.problem != problem;
            state.problem = problem;
            news
        });
    }

    /// There is nothing to follow now, which is no problem.
    pub(in crate::k8s) fn rests(&self) {
        self.heard(None);
    }

    /// Follows `api` for ever; dropping the future ends it. `keep` takes what is needed of an object,
    /// or nothing; `on_change` is told after the cache has changed and must not block.
    pub(in crate::k8s) fn follow<K>(
        self,
        what: &'static str,
        api: Api<K>,
        scope: Config,
        mut keep: impl FnMut(K) -> Option<T> + Send + 'static,
        mut on_change: impl FnMut(Change<T>) + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static,
        T: Send + Sync + 'static,
    {
        let scope = scope.timeout(WATCH_SECONDS);
        async move {
            let mut streaming = true;
            let mut backoff = DefaultBackoff::default();
            loop {
                let config = match streaming {
                    true => scope.clone().streaming_lists(),
                    false => scope.clone(),
                };
                let mut events = std::pin::pin!(watcher::watcher(api.clone(), config));
                let mut listed = HashMap::new();
                // Whether what is here has to be replaced before it counts as new.
                let mut gap = true;
                loop {
                    let Ok(event) = self.next(events.next()).await else {
                        // A watch that goes on says nothing by itself.
                        if !gap && answers(&api, &scope).await {
                            self.heard(None);
                        }
                        continue;
                    };
                    match event {
                        None => break,
                        Some(Ok(event)) => {
                            backoff.reset();
                            let part = matches!(event, Event::Init | Event::InitApply(_));
                            gap = part;
                            self.take(what, event, &mut listed, &mut keep, &mut on_change);
                            if !part {
                                self.heard(None);
                            }
                        }
                        Some(Err(error)) if streaming && refuses_streaming(&error) => {
                            debug!(what, "the API server lists before it watches");
                            streaming = false;
                            break;
                        }
                        Some(Err(error)) => {
                            gap |= forgotten(&error);
                            let problem = super::error::reasons(&error);
                            if self.shared.state.borrow().problem.as_ref() != Some(&problem) {
                                warn!(what, %problem, "the watch failed; it is tried again");
                            }
                            self.heard(Some(problem));
                            sleep(backoff.next().unwrap_or(QUIET)).await;
                        }
                    }
                }
            }
        }
    }

    /// Waits for an event; while the cache may be old, only for so long.
    async fn next<E>(&self, event: impl Future<Output = E>) -> Result<E, Elapsed> {
        let old = self.shared.state.borrow().problem.is_some();
        match old {
            true => timeout(QUIET, event).await,
            false => Ok(event.await),
        }
    }

    fn take<K: Resource>(
        &self,
        what: &'static str,
        event: Event<K>,
        listed: &mut HashMap<ObjectName, Arc<T>>,
        keep: &mut impl FnMut(K) -> Option<T>,
        on_change: &mut impl FnMut(Change<T>),
    ) {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                let name = ObjectName::of(&object);
                if let Some(kept) = keep(object) {
                    listed.insert(name, Arc::new(kept));
                }
            }
            Event::InitDone => {
                let all = std::mem::take(listed);
                let told: Vec<_> =
                    all.iter().map(|(name, object)| (name.clone(), object.clone())).collect();
                for (name, object) in self.replace(all, what) {
                    on_change(Change::Gone(name, object));
                }
                for (name, object) in told {
                    on_change(Change::Set(name, object));
                }
                on_change(Change::Complete);
            }
            Event::Apply(object) => {
                let name = ObjectName::of(&object);
                if let Some(kept) = keep(object) {
                    let kept = self.set(name.clone(), kept);
                    on_change(Change::Set(name, kept));
                } else if let Some(gone) = self.remove(&name) {
                    on_change(Change::Gone(name, gone));
                }
            }
            Event::Delete(object) => {
                let name = ObjectName::of(&object);
                if let Some(gone) = self.remove(&name) {
                    on_change(Change::Gone(name, gone));
                }
            }
        }
    }
}

/// Whether the server answers the same question now. A watch that was tried again meanwhile and did not
/// fail then goes on.
async fn answers<K>(api: &Api<K>, scope: &Config) -> bool
where
    K: Clone + DeserializeOwned + fmt::Debug,
{
    let params = ListParams {
        label_selector: scope.label_selector.clone(),
        field_selector: scope.field_selector.clone(),
        limit: Some(1),
        ..ListParams::default()
    };
    super::call("list", api.list(&params)).await.is_ok()
}

/// Whether the server has forgotten what happened since: everything is listed anew.
fn forgotten(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status)
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 410,
        _ => false,
    }
}

/// Servers of some versions have streaming lists switched off, and those in front of an old etcd
/// cannot make them; each says so in a way of its own. Listing serves with all of them.
fn refuses_streaming(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::InitialListFailed(kube::Error::Api(status)) => {
            matches!(status.code, 400 | 422)
        }
        watcher::Error::WatchError(status) => status.code != 410,
        _ => false,
    }
}
