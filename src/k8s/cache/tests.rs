use std::{collections::VecDeque, convert::Infallible, sync::Mutex};

use axum::{
    body::Body,
    http::{Request, Response, StatusCode},
};
use futures_util::stream;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use super::*;
use crate::k8s::Cluster;

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

/// What the server does with a call.
enum Answer {
    List(&'static [&'static str]),
    /// A watch that breaks off.
    Reset,
    Fails(u16),
    /// A watch that ends with this code.
    Ends(u16),
    /// Nothing comes.
    Silence,
}

fn status(code: u16) -> Value {
    json!({"kind": "Status", "status": "Failure", "code": code, "reason": "", "message": "no", "metadata": {}})
}

/// A cache that follows a server with these answers to the calls that are no probes.
fn follow(answers: Vec<Answer>, tasks: &mut JoinSet<()>) -> Cache<String> {
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let answer = match query.contains("limit=1") && !query.contains("limit=500") {
            true => Some(Answer::List(&[])),
            false => answers.lock().unwrap().pop_front(),
        };
        async move {
            let (code, body) = match answer.unwrap_or(Answer::Silence) {
                Answer::List(names) => {
                    let item = |name| json!({"metadata": {"name": name, "labels": {"kept": "1"}}});
                    let items: Vec<_> = names.iter().map(item).collect();
                    let list = json!({"metadata": {"resourceVersion": "7"}, "items": items});
                    (200, Body::from(list.to_string()))
                }
                Answer::Fails(code) => (code, Body::from(status(code).to_string())),
                Answer::Ends(code) => {
                    let event = json!({"type": "ERROR", "object": status(code)}).to_string();
                    (200, Body::from(event + "\n"))
                }
                Answer::Reset => {
                    let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                    (200, Body::from_stream(stream::iter([Err::<String, _>(reset)])))
                }
                Answer::Silence if query.contains("watch=true") => {
                    let silence = stream::pending::<Result<String, Infallible>>();
                    (200, Body::from_stream(silence))
                }
                Answer::Silence => std::future::pending().await,
            };
            let code = StatusCode::from_u16(code).unwrap();
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    let cluster = Cluster::with_client(Client::new(service, "default"));
    let cache = Cache::default();
    let keep = |namespace: Namespace| namespace.metadata.name;
    let api = cluster.cluster_wide::<Namespace>();
    tasks.spawn(cache.clone().follow("namespaces", api, Config::default(), keep, |_| {}));
    cache
}

/// Waits until the cache says that it may be old, or that it is not.
async fn until_old(cache: &Cache<String>, old: bool) -> Duration {
    let began = Instant::now();
    let mut state = cache.state();
    let so = state.wait_for(|state| state.synced && state.problem.is_some() == old);
    timeout(Duration::from_secs(300), so).await.expect("the cache doesn't say so").unwrap();
    began.elapsed()
}

/// Invariant 3: nothing is said to be old for longer than it may be.
#[tokio::test(start_paused = true)]
async fn a_watch_that_goes_on_in_silence_is_good_again() {
    let mut tasks = JoinSet::new();
    let cache = follow(
        vec![
            Answer::Fails(422),
            Answer::List(&["a"]),
            Answer::Reset,
            Answer::Fails(503),
            Answer::Silence,
        ],
        &mut tasks,
    );
    until_old(&cache, true).await;
    let took = until_old(&cache, false).await;
    assert!(took > QUIET && took < Duration::from_secs(20), "{took:?}");
    assert_eq!(cache.all().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cache_is_old_until_the_whole_new_list_is_there() {
    let mut tasks = JoinSet::new();
    let answers =
        vec![Answer::Fails(422), Answer::List(&["a"]), Answer::Ends(410), Answer::Silence];
    let cache = follow(answers, &mut tasks);
    until_old(&cache, true).await;
    // The server answers whoever asks, and yet the list does not come.
    sleep(Duration::from_secs(120)).await;
    assert!(cache.state().borrow().problem.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_was_forgotten_is_good_with_the_new_list() {
    let mut tasks = JoinSet::new();
    let answers = vec![
        Answer::Fails(422),
        Answer::List(&["a"]),
        Answer::Ends(410),
        Answer::List(&["b", "c"]),
        Answer::Silence,
    ];
    let cache = follow(answers, &mut tasks);
    until_old(&cache, true).await;
    assert!(until_old(&cache, false).await < QUIET);
    assert_eq!(cache.all().len(), 2);
}

/// Streaming lists need a newer etcd than some servers have behind them.
#[tokio::test(start_paused = true)]
async fn a_streaming_list_that_fails_is_listed() {
    for code in [400, 422, 500] {
        let mut tasks = JoinSet::new();
        let first = if code == 500 { Answer::Ends(500) } else { Answer::Fails(code) };
        let cache = follow(vec![first, Answer::List(&["a"])], &mut tasks);
        let mut state = cache.state();
        let synced = state.wait_for(|state| state.synced);
        timeout(Duration::from_secs(60), synced).await.expect("listed").unwrap();
    }
}
