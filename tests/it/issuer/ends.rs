//! How it ends: what is under way is finished, and what cannot be decided is said.

use std::time::Instant;

use axum::http::{Method, StatusCode};
use tonic::Code;

use super::*;
use crate::api_server::Fault;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_is_finished_when_it_is_told_to_stop() {
    let mut bench = Bench::start().await;
    let client = bench.client().await;
    let (message, _) = wish(ID, bench.pod());
    client.x509(&bench.driver(), message).await.unwrap();
    // One call that has to read: the API server takes its time.
    let (entered, waits) = std::sync::mpsc::channel();
    let (go_on, held) = std::sync::mpsc::channel::<()>();
    bench.server.store.fault(Fault {
        method: Method::GET,
        suffix: "/pods/cart-9",
        status: StatusCode::CONTINUE,
        retry_after: 0,
        before: Some(Box::new(move |_| {
            entered.send(()).unwrap();
            let _ = held.recv_timeout(Duration::from_secs(20));
        })),
    });
    let claims = tokens::claims("shop", ("cart", "s-1"), ("cart-9", "p-9"), ("node-1", "n-1"));
    let (mut message, _) = wish(ID, bench.authority.token(&claims));
    message.pod = Some(Pod {
        namespace: "shop".to_owned(),
        name: "cart-9".to_owned(),
        uid: "p-9".to_owned(),
    });
    let driver = bench.driver();
    let call = async { client.x509(&driver, message).await };
    let stop = async {
        // On a thread of its own: the API server that takes its time holds one of the runtime's.
        tokio::task::spawn_blocking(move || {
            waits.recv_timeout(Duration::from_secs(20)).expect("the call reads");
            bench.replica.terminate();
            // It has heard, and has not ended.
            let deadline = Instant::now() + Duration::from_secs(10);
            while !bench.replica.log.lock().unwrap().contains("stopping") {
                assert!(Instant::now() < deadline, "it never said that it stops");
                std::thread::yield_now();
            }
            go_on.send(()).unwrap();
            bench.replica.wait()
        })
        .await
        .unwrap()
    };
    let (answer, status) = tokio::join!(call, stop);
    let answer = format!("{:?}", answer.unwrap());
    assert!(answer.contains("PodMissing"), "{answer}");
    assert_eq!(status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_unavailable_and_no_denial() {
    let bench = Bench::start().await;
    let client = bench.client().await;
    bench.server.store.fault(Fault {
        method: Method::GET,
        suffix: "/pods/cart-9",
        status: StatusCode::INTERNAL_SERVER_ERROR,
        retry_after: 0,
        before: None,
    });
    let claims = tokens::claims("shop", ("cart", "s-1"), ("cart-9", "p-9"), ("node-1", "n-1"));
    let (mut message, _) = wish(ID, bench.authority.token(&claims));
    message.pod = Some(Pod {
        namespace: "shop".to_owned(),
        name: "cart-9".to_owned(),
        uid: "p-9".to_owned(),
    });
    let status = client.x509(&bench.driver(), message).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(bench.audited("deny").is_empty());
}

/// Whoever proves nothing holds a place for ten seconds, and few of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_drivers_token_ends() {
    let bench = Bench::start().await;
    let known = bench.client().await;
    let (message, _) = wish(ID, bench.pod());
    known.x509(&bench.driver(), message).await.unwrap();

    let bundle = crate::controller::bundle(&bench.server.store);
    let versions = &[&rustls::version::TLS13];
    let began = std::time::Instant::now();
    let tls = client::tls(bench.address, client::controller(), bundle, b"h2", versions).await;
    let mut stranger = tls.unwrap();
    let mut silent = Vec::new();
    for _ in 0..31 {
        silent.push(TcpStream::connect(bench.address).await.unwrap());
    }
    // One more from this address is sent away at once.
    let mut more = TcpStream::connect(bench.address).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(4), more.read(&mut [0; 64])).await;
    assert!(matches!(read.expect("at once"), Ok(0) | Err(_)));
    // Half a handshake takes five seconds at most.
    let mut buffer = [0; 256];
    let read = silent[0].read(&mut buffer);
    let read = tokio::time::timeout(Duration::from_secs(9), read).await.expect("its end");
    assert!(matches!(read, Ok(0) | Err(_)));
    assert!(began.elapsed() < Duration::from_secs(9));
    while let Ok(1..) = stranger.read(&mut buffer).await {}
    let lived = began.elapsed().as_secs();
    assert!((9..=15).contains(&lived), "{lived} s");
    let (message, _) = wish(ID, bench.pod());
    known.x509(&bench.driver(), message).await.expect("a driver's goes on");
}
