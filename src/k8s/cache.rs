//! What a watch has seen: a map of objects that follows the API server.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    sync::{Arc, PoisonError, RwLock},
};

use futures_util::StreamExt;
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Config, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::{debug, warn};

/// How long one watch runs, in seconds; a connection that died in silence is noticed soon after.
const WATCH_SECONDS: u32 = 120;

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
    /// Why it may be old now; gone with the next thing that is heard.
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
            loop {
                let config = match streaming {
                    true => scope.clone().streaming_lists(),
                    false => scope.clone(),
                };
                let mut events =
                    std::pin::pin!(watcher::watcher(api.clone(), config).default_backoff());
                let mut listed = HashMap::new();
                while let Some(event) = events.next().await {
                    match event {
                        Ok(event) => {
                            self.heard(None);
                            self.take(what, event, &mut listed, &mut keep, &mut on_change);
                        }
                        Err(error) if streaming && refuses_streaming(&error) => {
                            debug!(what, "the API server lists before it watches");
                            streaming = false;
                            break;
                        }
                        Err(error) => {
                            let problem = super::error::reasons(&error);
                            // Also told where nothing is wrong, as when a watch is too old.
                            if self.shared.state.borrow().problem.as_ref() != Some(&problem) {
                                warn!(what, %problem, "the watch failed; it is tried again");
                            }
                            self.heard(Some(problem));
                        }
                    }
                }
            }
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

/// Servers of some versions have streaming lists switched off, and those in front of an old etcd
/// cannot make them; each says so in a way of its own. Listing serves with all of them.
fn refuses_streaming(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::InitialListFailed(kube::Error::Api(status)) => {
            matches!(status.code, 400 | 422)
        }
        // 410 is said of what was listed.
        watcher::Error::WatchError(status) => status.code != 410,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;

    use super::*;

    fn namespace(name: &str, label: &str) -> Namespace {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        namespace.metadata.labels = Some([("kept".to_owned(), label.to_owned())].into());
        namespace
    }

    /// What is told when these events come, and the cache after them.
    fn told(events: Vec<Event<Namespace>>) -> (Vec<String>, Cache<String>) {
        let cache = Cache::default();
        let (mut listed, mut told) = (HashMap::new(), Vec::new());
        let mut keep = |namespace: Namespace| {
            let label = namespace.metadata.labels?.remove("kept")?;
            (label != "no").then_some(label)
        };
        let mut on_change = |change: Change<String>| {
            told.push(match change {
                Change::Set(name, label) => format!("{name}={label}"),
                Change::Gone(name, label) => format!("{name} was {label}"),
                Change::Complete => "complete".to_owned(),
            });
        };
        for event in events {
            cache.take("namespaces", event, &mut listed, &mut keep, &mut on_change);
        }
        (told, cache)
    }

    #[test]
    fn a_gap_in_the_watch_tells_what_went_meanwhile() {
        let list = |names: &[&str]| {
            let objects = names.iter().map(|name| Event::InitApply(namespace(name, "1")));
            [Event::Init].into_iter().chain(objects).chain([Event::InitDone]).collect::<Vec<_>>()
        };
        let (told, cache) = told([list(&["a"]), list(&["b"])].concat());
        assert_eq!(told, ["a=1", "complete", "a was 1", "b=1", "complete"]);
        assert!(cache.is_synced());
        assert_eq!(cache.all().len(), 1);
        assert!(cache.get(&ObjectName::cluster_wide("a")).is_none());
    }

    #[test]
    fn a_list_that_breaks_off_changes_nothing() {
        let (told, cache) = told(vec![
            Event::Init,
            Event::InitApply(namespace("a", "1")),
            Event::InitDone,
            Event::Init,
            Event::InitApply(namespace("b", "1")),
        ]);
        assert_eq!(told, ["a=1", "complete"]);
        assert_eq!(*cache.get(&ObjectName::cluster_wide("a")).unwrap(), "1");
    }

    #[test]
    fn what_is_not_kept_any_longer_is_gone() {
        let (told, cache) = told(vec![
            Event::Apply(namespace("a", "1")),
            Event::Apply(namespace("a", "2")),
            Event::Apply(namespace("a", "no")),
            Event::Delete(namespace("a", "no")),
        ]);
        assert_eq!(told, ["a=1", "a=2", "a was 2"]);
        assert!(cache.all().is_empty() && !cache.is_synced());
    }
}
