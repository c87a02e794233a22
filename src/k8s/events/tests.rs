use std::{
    convert::Infallible,
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::http::{Method, Request, Response, StatusCode};
use kube::{Client, client::Body};
use serde_json::Value;
use tokio::task::JoinSet;

use super::*;

/// A clock that goes with tokio's paused one.
struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.0.elapsed()
    }
}

/// An API server that notes what it is sent, and answers what it is told.
#[derive(Default)]
struct Server {
    calls: Mutex<Vec<(Method, String, Value)>>,
    answers: Mutex<Vec<StatusCode>>,
    silent: Mutex<bool>,
}

impl Server {
    fn calls(&self) -> Vec<(Method, String, Value)> {
        self.calls.lock().unwrap().clone()
    }

    fn will_answer(&self, codes: &[StatusCode]) {
        self.answers.lock().unwrap().extend(codes.iter().rev());
    }

    fn answer(&self, method: Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let sent: Value = serde_json::from_slice(body).unwrap();
        self.calls.lock().unwrap().push((method, path.to_owned(), sent.clone()));
        match self.answers.lock().unwrap().pop() {
            Some(code) if code != StatusCode::OK => {
                let status = json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": "No", "message": "no"});
                (code, status)
            }
            _ => {
                let event = json!({"metadata": {}, "involvedObject": {}});
                (StatusCode::OK, event)
            }
        }
    }
}

fn start() -> (Arc<Server>, PodEvents, JoinSet<()>) {
    let server = Arc::new(Server::default());
    let cable = server.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = cable.clone();
        async move {
            if *server.silent.lock().unwrap() {
                std::future::pending::<()>().await;
            }
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let (status, answer) = server.answer(parts.method, parts.uri.path(), &body);
            let answer = Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, Infallible>(Response::builder().status(status).body(answer).unwrap())
        }
    });
    let cluster =
        Cluster { client: Client::new(service, "svid-csi"), namespace: "svid-csi".to_owned() };
    let clock = Arc::new(TestClock(Instant::now()));
    let (events, writer) = PodEvents::new(cluster, "csi.svid.dev", "node-1", clock);
    let mut tasks = JoinSet::new();
    tasks.spawn(writer.run(CancellationToken::new()));
    (server, events, tasks)
}

fn event(pod: &str, reason: EventReason, message: &str) -> PodEvent {
    let (namespace, name) = ("shop".to_owned(), pod.to_owned());
    PodEvent { namespace, name, uid: format!("uid-{pod}"), reason, message: message.to_owned() }
}

async fn seconds(n: u64) {
    sleep(Duration::from_secs(n)).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_is_the_pods_and_says_who_saw_it() {
    let (server, events, _tasks) = start();
    events.report(event("cart-0", EventReason::Denied, "no policy\nadmits it"));
    seconds(1).await;
    let calls = server.calls();
    let (method, path, sent) = &calls[0];
    assert_eq!((method, path.as_str()), (&Method::POST, "/api/v1/namespaces/shop/events"));
    assert_eq!(calls.len(), 1);
    for (pointer, expected) in [
        ("/involvedObject/kind", json!("Pod")),
        ("/involvedObject/name", json!("cart-0")),
        ("/involvedObject/uid", json!("uid-cart-0")),
        ("/reason", json!("SvidDenied")),
        ("/type", json!("Warning")),
        ("/message", json!("no policy admits it")),
        ("/count", json!(1)),
        ("/firstTimestamp", json!("2027-01-15T08:00:00Z")),
        ("/reportingComponent", json!("csi.svid.dev")),
        ("/reportingInstance", json!("node-1")),
    ] {
        assert_eq!(sent.pointer(pointer), Some(&expected), "{pointer} in {sent}");
    }
    let name = sent["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("cart-0.") && name.len() == "cart-0.".len() + 16, "{name}");
}

#[tokio::test(start_paused = true)]
async fn what_happens_again_is_counted_in_the_same_event_and_seldom_written() {
    let (server, events, _tasks) = start();
    for n in 0..120 {
        events.report(event("a", EventReason::RenewalFailed, &format!("try {n}")));
        seconds(1).await;
    }
    seconds(60).await;
    let calls = server.calls();
    assert!((4..=6).contains(&calls.len()), "{} writes of 120", calls.len());
    let (method, path, last) = calls.last().unwrap();
    assert_eq!(method, &Method::PATCH);
    assert!(path.ends_with(calls[0].2["metadata"]["name"].as_str().unwrap()));
    assert_eq!((&last["count"], &last["message"]), (&json!(120), &json!("try 119")));
    assert_eq!(last["lastTimestamp"], "2027-01-15T08:01:59Z");

    events.report(event("a", EventReason::Renewed, "all is well"));
    events.report(event("b", EventReason::RenewalFailed, "another pod"));
    seconds(700).await;
    events.report(event("a", EventReason::RenewalFailed, "after ten minutes"));
    seconds(1).await;
    let later: Vec<_> = server.calls().split_off(calls.len());
    assert_eq!(later.len(), 3);
    assert!(later.iter().all(|(method, ..)| method == Method::POST));
    assert_eq!(later[0].2["type"], "Normal");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_gone_is_made_anew() {
    let (server, events, _tasks) = start();
    server.will_answer(&[StatusCode::OK, StatusCode::NOT_FOUND, StatusCode::OK]);
    events.report(event("a", EventReason::RenewalFailed, "one"));
    seconds(1).await;
    events.report(event("a", EventReason::RenewalFailed, "two"));
    seconds(60).await;
    let methods: Vec<_> = server.calls().into_iter().map(|(method, ..)| method).collect();
    assert_eq!(methods, [Method::POST, Method::PATCH, Method::POST]);
    assert_eq!(server.calls()[2].2["count"], 2);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_or_busy_gets_it_later() {
    let (server, events, _tasks) = start();
    server.will_answer(&[
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::OK,
    ]);
    events.report(event("a", EventReason::RenewalFailed, "one"));
    seconds(60).await;
    assert_eq!(server.calls().len(), 3);
    assert_eq!(events.dropped(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_refuses_is_dropped_and_stops_no_other() {
    let (server, events, _tasks) = start();
    server.will_answer(&[StatusCode::FORBIDDEN]);
    events.report(event("a", EventReason::Failed, "one"));
    events.report(event("b", EventReason::Failed, "two"));
    seconds(60).await;
    assert_eq!(server.calls().len(), 2);
    assert_eq!(events.dropped(), 1);
}

/// Nobody waits for an Event.
#[tokio::test(start_paused = true)]
async fn a_silent_api_server_holds_up_nobody() {
    let (server, events, _tasks) = start();
    *server.silent.lock().unwrap() = true;
    events.report(event("a", EventReason::Failed, "one"));
    seconds(1).await;
    let before = Instant::now();
    for n in 0..2 * QUEUE {
        events.report(event(&format!("p{n}"), EventReason::Failed, "more"));
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(events.dropped(), QUEUE as u64);
}

#[test]
fn without_an_api_server_nothing_happens() {
    let events = PodEvents::default();
    events.report(event("a", EventReason::Failed, "one"));
    assert_eq!(events.dropped(), 0);
}

#[test]
fn a_message_is_cut_to_what_the_api_server_takes() {
    assert_eq!(cut(&"x".repeat(5_000)).len(), 1_024);
    let two_bytes = cut(&"é".repeat(5_000));
    assert_eq!(two_bytes.len(), 1_024);
    assert_eq!(cut("a\n\u{1b}[31mb"), "a  [31mb");
}
