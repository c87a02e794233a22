//! What rewriting `:authority` costs: the same bytes of the same calls read with it and without it,
//! and what `h2`'s server, without tonic or a kernel, takes for such a call, by turns in one run.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark is nobody's interface"
)]

use std::{
    hint::black_box,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use svid_csi::sys::RewriteAuthority;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const CALLS: u32 = 2_000;
const ROUNDS: usize = 40;
/// `h2`'s buffer.
const BUFFER: usize = 8 * 1024;

/// A client's bytes, about one call's at a time: `h2` accepts one a turn.
struct Client<'a> {
    left: &'a [u8],
    at_once: usize,
    /// It waits before the next one.
    waits: bool,
}

/// One kind of client.
struct Traffic {
    name: &'static str,
    bytes: Vec<u8>,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let _timers = runtime.enter();
    println!(
        "{:32} {:>8} {:>10} {:>8} {:>8}",
        "ns a call", "reading", "rewriting", "all of h2", "added"
    );
    for Traffic { name, bytes } in [indexed(), literal(), large()] {
        let bare = || read(Client::new(&bytes));
        let ours = || read(RewriteAuthority::new(Client::new(&bytes)));
        let served = || serve(Client::new(&bytes));
        print(name, quickest([&bare, &ours, &served]).map(per_call));
    }
}

fn per_call(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(CALLS)
}

fn print(name: &str, [bare, ours, served]: [f64; 3]) {
    let added = 100.0 * (ours - bare) / served;
    println!("{name:32} {bare:>8.0} {ours:>10.0} {served:>9.0} {added:>6.1} %");
}

/// The quickest round of each; they take turns.
fn quickest<const N: usize>(work: [&dyn Fn(); N]) -> [Duration; N] {
    let mut quickest = [Duration::MAX; N];
    for _ in 0..ROUNDS {
        for (work, quickest) in work.iter().zip(&mut quickest) {
            let began = Instant::now();
            work();
            *quickest = began.elapsed().min(*quickest);
        }
    }
    quickest
}

/// Reads everything as `h2` does.
fn read(connection: impl AsyncRead) {
    let mut connection = pin!(connection);
    let (mut memory, mut context) = ([0; BUFFER], Context::from_waker(Waker::noop()));
    let mut pending = 0;
    loop {
        let mut buffer = ReadBuf::new(&mut memory);
        match connection.as_mut().poll_read(&mut context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => return,
            Poll::Ready(Ok(())) => {
                black_box(buffer.filled());
            }
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => pending += 1,
        }
        assert!(pending <= 2 * CALLS, "it does not end");
    }
}

/// Accepts and answers every call.
fn serve(connection: impl AsyncRead + AsyncWrite + Unpin) {
    let serving = async {
        let mut served = 0;
        let connection = h2::server::Builder::new().handshake::<_, &[u8]>(connection).await;
        let mut connection = connection.expect("a preface");
        while let Some(call) = connection.accept().await {
            let (call, mut answer) = call.expect("a call");
            drop(call);
            answer.send_response(http::Response::new(()), true).expect("answered");
            served += 1;
        }
        served
    };
    let mut serving = pin!(serving);
    loop {
        match serving.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            // It hung up after the last one, which may not have been accepted yet.
            Poll::Ready(served) => return assert!(served + 2 > CALLS, "{served}"),
            Poll::Pending => {}
        }
    }
}

// === impl Client ===

impl<'a> Client<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes, at_once: bytes.len() / CALLS as usize, waits: false }
    }
}

impl AsyncRead for Client<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.waits = !self.waits;
        if self.waits {
            return Poll::Pending;
        }
        let size = self.left.len().min(buffer.remaining()).min(self.at_once);
        let (now, later) = self.left.split_at(size);
        buffer.put_slice(now);
        self.left = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
}

/// Calls with a block each: the first one's and the others'.
fn calls(first: &[u8], others: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, b""));
    for n in 0..CALLS {
        let stream = 2 * n + 1;
        bytes.extend(frame(1, 4, stream, if n == 0 { first } else { others }));
        bytes.extend(frame(0, 1, stream, body));
    }
    bytes
}

/// As Go and Rust call: every field is in the table after the first call.
fn indexed() -> Traffic {
    let fields = b"\x41\x09localhost\x44\x20/SpiffeWorkloadAPI/FetchX509SVID\
        \x5f\x10application/grpc\x40\x02te\x08trailers\x40\x12workload.spiffe.io\x04true";
    let first = [b"\x83\x86".as_slice(), fields].concat();
    let bytes = calls(&first, b"\x83\x86\xc2\xc1\xc0\xbf\xbe", &[0; 5]);
    Traffic { name: "all indexed", bytes }
}

/// A client that has no table.
fn literal() -> Traffic {
    let block = b"\x83\x86\x01\x15%2Fsvid%2Fspiffe.sock\x04\x20/SpiffeWorkloadAPI/FetchX509SVID\
        \x0f\x10\x10application/grpc\x00\x02te\x08trailers\x00\x12workload.spiffe.io\x04true";
    // Without us no such call is accepted, so that the other side of the ratio has a plain name.
    let plain = |byte: u8| if byte == b'%' { b'a' } else { byte };
    let block: Vec<u8> = block.iter().copied().map(plain).collect();
    Traffic { name: "all literal, each rewritten", bytes: calls(&block, &block, &[0; 5]) }
}

/// Bodies: nothing of them is looked at.
fn large() -> Traffic {
    let block = b"\x83\x86\x41\x09localhost\x84";
    Traffic { name: "bodies of 1,000 bytes", bytes: calls(block, b"\x83\x86\xbe\x84", &[7; 1000]) }
}
