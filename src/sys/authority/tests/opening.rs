//! A client has 10 s for its preface, on tokio's own clock.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{Instant, sleep},
};

use super::*;

/// How a client that writes a piece of these every so often fares, and when.
async fn fares(pieces: &[&[u8]], every: Duration) -> (io::Result<usize>, Duration) {
    let (mut client, server): (DuplexStream, _) = duplex(1 << 16);
    let mut server = RewriteAuthority::new(server);
    let began = Instant::now();
    let writing = async {
        for piece in pieces {
            client.write_all(piece).await.unwrap();
            sleep(every).await;
        }
        // Stays, and says no more.
        sleep(Duration::from_secs(3600)).await;
    };
    let mut out = Vec::new();
    tokio::select! {
        read = server.read_to_end(&mut out) => (read, began.elapsed()),
        () = writing => (Ok(out.len()), began.elapsed()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_too_little_is_dropped_after_ten_seconds() {
    let preface = preface();
    let magic = &preface[..24];
    let slow: Vec<&[u8]> = preface.chunks(1).collect();
    let cases: [(&str, Vec<&[u8]>); 4] = [
        ("nothing", vec![]),
        ("no SETTINGS", vec![magic]),
        ("half of SETTINGS", vec![&preface[..preface.len() - 1]]),
        ("a byte a second", slow),
    ];
    for (what, pieces) in cases {
        let (read, after) = fares(&pieces, Duration::from_secs(1)).await;
        assert_eq!(read.expect_err(what).kind(), io::ErrorKind::TimedOut, "{what}");
        assert_eq!(after.as_secs(), 10, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_said_its_preface_may_be_idle() {
    let preface = preface();
    for pieces in [vec![preface.as_slice()], vec![&preface[..30], &preface[30..]]] {
        let (read, after) = fares(&pieces, Duration::from_secs(9)).await;
        assert_eq!(read.unwrap(), preface.len());
        assert!(after >= Duration::from_secs(3600));
    }
}

/// A connection that always has something to say gives its timer no turn.
#[tokio::test(start_paused = true)]
async fn a_flood_is_no_preface() {
    let pings = frame(6, 0, 0, &[0; 8]).repeat(1000);
    let mut bytes = preface()[..24].to_vec();
    bytes.extend(pings);
    let mut connection = RewriteAuthority::new(Pieces::new(&bytes, &[17]));
    let mut read = 0;
    let error = loop {
        tokio::time::advance(Duration::from_millis(100)).await;
        match connection.read(&mut [0; 100]).await {
            Ok(some) => read += some,
            Err(error) => break error,
        }
        assert!(read < 10_000, "goes on");
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(connection.opening.is_some_and(|opening| opening.timer.is_none()));
}
