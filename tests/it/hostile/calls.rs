//! Calls in good HTTP/2 that ask too much.

use std::time::Duration;

use svid_csi_proto::workload::{
    JwtsvidRequest, ValidateJwtsvidRequest, spiffe_workload_api_client::SpiffeWorkloadApiClient,
};
use tokio::{io::AsyncWriteExt, task::JoinSet, time::sleep};
use tonic::{Code, Request, Status};

use super::{
    GROWTH_OF_TABLES, Scene,
    wire::{DATA, END_HEADERS, END_STREAM, FETCH_X509, HEADERS, SETTINGS, call, frame, preface},
};
use crate::plugin::connect;

const HEALTH: &str = "/grpc.health.v1.Health/Check";

pub async fn all(scene: &Scene) {
    scene.during("10,000 audiences", too_many_audiences(scene)).await;
    scene.during("a token of 1 MiB", too_long_a_token(scene)).await;
    scene.during("compressed messages", compressed(scene)).await;
    scene.during("a message that claims 4 GiB", too_long_a_claim(scene)).await;
    scene.during("1,000 refused calls on one connection", refused_often(scene)).await;
    scene.during("bodies that never end", endless_bodies(scene)).await;
    scene.during("clients that never read", never_reading(scene)).await;
    scene.growing(GROWTH_OF_TABLES, "tables that hold buffers", held_buffers(scene)).await;
}

async fn client(scene: &Scene) -> SpiffeWorkloadApiClient<tonic::transport::Channel> {
    SpiffeWorkloadApiClient::new(connect(&scene.wire().0).await.unwrap())
}

fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

/// By the limit on messages, by the service's own, or because there is no such service.
fn assert_refused(status: &Status) {
    let wanted =
        [Code::InvalidArgument, Code::OutOfRange, Code::ResourceExhausted, Code::Unimplemented];
    assert!(wanted.contains(&status.code()), "{status:?}");
}

async fn too_many_audiences(scene: &Scene) {
    let mut client = client(scene).await;
    for length in [1, 3, 100] {
        let audience = (0..10_000).map(|n| format!("{n:0length$}")).collect();
        let request = JwtsvidRequest { audience, spiffe_id: String::new() };
        let status = client.fetch_jwtsvid(with_header(request)).await.expect_err("too many");
        assert_refused(&status);
    }
}

async fn too_long_a_token(scene: &Scene) {
    let request = ValidateJwtsvidRequest { audience: "a".to_owned(), svid: "e".repeat(1 << 20) };
    let status = client(scene).await.validate_jwtsvid(with_header(request)).await;
    assert_refused(&status.expect_err("too long"));
}

/// What a call with these fields and this body is answered: grpc-status and HTTP's.
async fn raw(scene: &Scene, path: &str, more: &[(&str, &str)], body: &[u8]) -> (u16, Option<i32>) {
    let (client, connection) = h2::client::handshake(scene.wire().open().await).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    let mut request = http::Request::post(format!("http://a{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("workload.spiffe.io", "true");
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    let mut client = client.ready().await.unwrap();
    let (answer, mut stream) = client.send_request(request.body(()).unwrap(), false).unwrap();
    stream.send_data(body.to_vec().into(), true).unwrap();
    let answer = answer.await.unwrap();
    let status = |headers: &http::HeaderMap| {
        let status = headers.get("grpc-status")?.to_str().unwrap();
        Some(status.parse().unwrap())
    };
    let code = answer.status().as_u16();
    let early = status(answer.headers());
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        if data.is_err() {
            return (code, early);
        }
    }
    let late = body.trailers().await.ok().flatten();
    (code, early.or_else(|| status(&late?)))
}

/// A compressed message could hold any amount; none is taken.
async fn compressed(scene: &Scene) {
    let message = b"\x01\0\0\0\x04\x1f\x8b\x08\0";
    for encoding in ["gzip", "deflate", "zstd", "snappy", "identity"] {
        for path in [FETCH_X509, HEALTH] {
            let (code, status) = raw(scene, path, &[("grpc-encoding", encoding)], message).await;
            assert_eq!(code, 200);
            let refused = [Code::Unimplemented as i32, Code::Internal as i32];
            assert!(refused.contains(&status.unwrap()), "{encoding} {path}: {status:?}");
        }
    }
}

async fn too_long_a_claim(scene: &Scene) {
    let (code, status) = raw(scene, FETCH_X509, &[], b"\0\xff\xff\xff\xffabc").await;
    assert_eq!((code, status), (200, Some(Code::OutOfRange as i32)));
}

/// What is not read of a call's body must not count against the connection for ever.
async fn refused_often(scene: &Scene) {
    let mut client = client(scene).await;
    for _ in 0..1000 {
        let request = JwtsvidRequest { audience: Vec::new(), spiffe_id: "no".to_owned() };
        let status = client.fetch_jwtsvid(Request::new(request)).await.expect_err("no header");
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
}

/// The calls wait for their end, and hold no more than that.
async fn endless_bodies(scene: &Scene) {
    let mut connections = Vec::new();
    for _ in 0..4 {
        let mut stream = scene.wire().open().await;
        let mut bytes = preface();
        for n in 0..50_u32 {
            let block = call(FETCH_X509, &[("workload.spiffe.io", "true")]);
            bytes.extend(frame(HEADERS, END_HEADERS, 2 * n + 1, &block));
            // A message of 60,000 bytes of which little comes.
            bytes.extend(frame(DATA, 0, 2 * n + 1, b"\0\0\0\xea\x60abc"));
        }
        let _ = stream.write_all(&bytes).await;
        connections.push(stream);
    }
    scene.neighbour.answered().await;
    sleep(Duration::from_millis(200)).await;
}

/// Windows of nothing, and no byte is ever read.
async fn never_reading(scene: &Scene) {
    let mut connections = Vec::new();
    for window in [0_u32, 1, 65_535] {
        let mut stream = scene.wire().open().await;
        let mut bytes = preface();
        let window = [b"\0\x04", window.to_be_bytes().as_slice()].concat();
        bytes.extend(frame(SETTINGS, 0, 0, &window));
        for n in 0..90_u32 {
            let block = call(FETCH_X509, &[("workload.spiffe.io", "true")]);
            bytes.extend(frame(HEADERS, END_HEADERS, 2 * n + 1, &block));
            bytes.extend(frame(DATA, END_STREAM, 2 * n + 1, &[0; 5]));
        }
        let _ = stream.write_all(&bytes).await;
        connections.push(stream);
    }
    scene.neighbour.answered().await;
    sleep(Duration::from_millis(200)).await;
}

/// Each short entry of the dynamic table holds the buffer that it was read in: 16 KiB of something
/// else between any two of them, on as many connections as a pod may have.
async fn held_buffers(scene: &Scene) {
    let before = super::resident(&scene.node);
    let mut connections = Vec::new();
    for _ in 0..60 {
        let mut stream = scene.wire().open().await;
        let _ = stream.write_all(&preface()).await;
        for n in 0..100_u32 {
            let block = [b"\x83\x86\x44\x02/".as_slice(), &[b'a' + u8::try_from(n % 26).unwrap()]];
            let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block.concat());
            bytes.extend(frame(0xfb, 0, 0, &[0; 16_000]));
            if stream.write_all(&bytes).await.is_err() {
                break;
            }
        }
        connections.push(stream);
    }
    scene.neighbour.answered().await;
    sleep(Duration::from_millis(200)).await;
    let each = super::resident(&scene.node).saturating_sub(before) / 60;
    println!("{each} KiB each of 60 such connections");
}
