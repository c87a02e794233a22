//! More connections than anybody needs.

use std::{io::ErrorKind, os::unix::net::UnixStream, time::Duration};

use svid_csi::sys::socket;
use tokio::{io::AsyncReadExt, time::timeout};

use super::{Scene, wire::preface};

/// One pod's.
const MANY: usize = 10_000;
/// Longer than a client has for its preface.
const OPENING: Duration = Duration::from_secs(40);

pub async fn all(scene: &Scene) {
    scene.during("10,000 connections", ten_thousand(scene)).await;
    scene.during("connections that say nothing", silent(scene)).await;
}

/// As many as this process may open at a time, MANY in all.
async fn ten_thousand(scene: &Scene) {
    let mut open: Vec<UnixStream> = Vec::new();
    let (mut made, mut refused) = (0, 0);
    while made < MANY {
        match socket::connect(&scene.wire().0) {
            Ok(mut stream) => {
                use std::io::Write;
                stream.set_nonblocking(true).unwrap();
                refused += usize::from(stream.write_all(&preface()).is_err());
                made += 1;
                open.push(stream);
            }
            // The queue of those who wait is full.
            Err(error) if error.kind() == ErrorKind::WouldBlock => refused += 1,
            Err(error) => panic!("{error}"),
        }
        if open.len() == 500 {
            // Others run; the half of these go.
            tokio::task::yield_now().await;
            open.drain(..250);
        }
    }
    println!("{made} made, {refused} refused at once");
    scene.neighbour.answered().await;
}

/// Whoever says no preface is closed.
async fn silent(scene: &Scene) {
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(scene.wire().open().await);
    }
    for stream in &mut streams {
        let mut answer = Vec::new();
        let end = timeout(OPENING, stream.read_to_end(&mut answer)).await;
        end.expect("it stays open").unwrap_or_default();
    }
}
