use std::{
    convert::Infallible,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::http::{Method, Request, Response, StatusCode};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::*;
use crate::clock::SystemClock;

/// An API server with one Lease.
#[derive(Default)]
struct Server {
    lease: Mutex<Option<Value>>,
    writes: Mutex<u64>,
}

/// One candidate's process, and the cable to the server.
struct Replica {
    leads: watch::Receiver<bool>,
    away: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Server {
    fn answer(&self, method: &Method, body: &[u8]) -> (StatusCode, Value) {
        let mut lease = self.lease.lock().unwrap();
        let status = |code: StatusCode, reason| {
            let status = json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": "no"});
            (code, status)
        };
        let mut sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
        match (method.clone(), lease.as_ref()) {
            (Method::GET, Some(lease)) => return (StatusCode::OK, lease.clone()),
            (Method::GET, None) => return status(StatusCode::NOT_FOUND, "NotFound"),
            (Method::POST, Some(_)) => return status(StatusCode::CONFLICT, "AlreadyExists"),
            (Method::PUT, Some(lease)) if version(lease) != version(&sent) => {
                return status(StatusCode::CONFLICT, "Conflict");
            }
            _ => {}
        }
        let mut writes = self.writes.lock().unwrap();
        *writes += 1;
        sent["metadata"]["resourceVersion"] = json!(writes.to_string());
        *lease = Some(sent.clone());
        (StatusCode::OK, sent)
    }

    fn holder(&self) -> Option<String> {
        let lease = self.lease.lock().unwrap();
        let holder = lease.as_ref()?["spec"]["holderIdentity"].as_str()?;
        Some(holder.split('_').next()?.to_owned())
    }
}

fn start(server: &Arc<Server>, identity: &str, tasks: &mut JoinSet<()>) -> Replica {
    let away = Arc::new(AtomicBool::new(false));
    let cable = (server.clone(), away.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (server, away) = cable.clone();
        async move {
            if away.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let (status, answer) = server.answer(&parts.method, &body);
            let answer = Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, Infallible>(Response::builder().status(status).body(answer).unwrap())
        }
    });
    let cluster =
        Cluster { client: Client::new(service, "svid-csi"), namespace: "svid-csi".to_owned() };
    let stop = CancellationToken::new();
    let clock = Arc::new(SystemClock);
    let (candidate, leads) =
        Candidate::new(&cluster, "svid-csi", "lease".to_owned(), identity, clock);
    tasks.spawn(candidate.run(stop.clone()));
    Replica { leads, away, stop }
}

/// Runs on for so long and looks all the time: how long nobody led, and whether two ever did.
async fn watch_for(seconds: u64, replicas: &[&Replica]) -> Duration {
    let mut nobody = Duration::ZERO;
    for _ in 0..seconds * 10 {
        sleep(Duration::from_millis(100)).await;
        let leaders = replicas.iter().filter(|replica| *replica.leads.borrow()).count();
        assert!(leaders <= 1, "{leaders} lead at once");
        nobody += Duration::from_millis(if leaders == 0 { 100 } else { 0 });
    }
    nobody
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_another_follows_when_it_is_cut_off() {
    let (server, mut tasks) = (Arc::new(Server::default()), JoinSet::new());
    let (a, b) = (start(&server, "a", &mut tasks), start(&server, "b", &mut tasks));
    assert!(watch_for(60, &[&a, &b]).await < Duration::from_secs(1));
    let (led, other) = if *a.leads.borrow() { (&a, &b) } else { (&b, &a) };

    led.away.store(true, Ordering::SeqCst);
    let nobody = watch_for(60, &[&a, &b]).await;
    assert!(*other.leads.borrow() && !*led.leads.borrow());
    assert!(nobody < Duration::from_secs(15), "{nobody:?}");

    led.away.store(false, Ordering::SeqCst);
    assert!(watch_for(60, &[&a, &b]).await.is_zero());
    assert!(*other.leads.borrow());
}

#[tokio::test(start_paused = true)]
async fn who_ends_lets_go() {
    let (server, mut tasks) = (Arc::new(Server::default()), JoinSet::new());
    let a = start(&server, "a", &mut tasks);
    watch_for(3, &[&a]).await;
    assert_eq!(server.holder().as_deref(), Some("a"));
    let b = start(&server, "b", &mut tasks);
    watch_for(20, &[&a, &b]).await;
    a.stop.cancel();
    let nobody = watch_for(5, &[&a, &b]).await;
    assert!(*b.leads.borrow() && nobody < Duration::from_secs(3), "{nobody:?}");
    assert_eq!(server.lease.lock().unwrap().as_ref().unwrap()["spec"]["leaseTransitions"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_writer_who_lost_the_race_waits() {
    let (server, mut tasks) = (Arc::new(Server::default()), JoinSet::new());
    let a = start(&server, "a", &mut tasks);
    watch_for(3, &[&a]).await;
    // Somebody else wrote it, with a clock that is years ahead.
    let mut lease = server.lease.lock().unwrap().clone().unwrap();
    lease["spec"]["holderIdentity"] = json!("b");
    lease["spec"]["renewTime"] = json!("2050-01-01T00:00:00.000000Z");
    lease["metadata"]["resourceVersion"] = json!("other");
    *server.lease.lock().unwrap() = Some(lease);
    watch_for(12, &[&a]).await;
    assert!(!*a.leads.borrow());
    assert_eq!(server.holder().as_deref(), Some("b"));
    watch_for(15, &[&a]).await;
    assert!(*a.leads.borrow(), "the other one never wrote again");
}
