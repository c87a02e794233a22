//! HTTP/2 by hand (RFC 9113).

use std::{fmt, path::PathBuf, time::Duration};

use svid_csi::sys::socket;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

pub const DATA: u8 = 0x0;
pub const HEADERS: u8 = 0x1;
pub const PRIORITY: u8 = 0x2;
pub const RST_STREAM: u8 = 0x3;
pub const SETTINGS: u8 = 0x4;
pub const PUSH_PROMISE: u8 = 0x5;
pub const PING: u8 = 0x6;
pub const GO_AWAY: u8 = 0x7;
pub const WINDOW_UPDATE: u8 = 0x8;
pub const CONTINUATION: u8 = 0x9;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;

/// Only ends a test that has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Nothing moves for so long: it has stalled.
const STALLED: Duration = Duration::from_millis(500);

/// The socket in a volume.
pub struct Door(pub PathBuf);

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// GOAWAY with this code, and closed.
    GoAway(Code),
    /// Closed without a word, which a connection error may be (RFC 9113 §5.4.1).
    Closed,
    /// One stream was reset with this code; the connection still answers.
    Reset(Code),
    /// The response's status is this; the connection still answers.
    Status(u16),
    /// Everything was taken or ignored; the connection still answers.
    Answers,
    /// The server neither reads nor closes: the client's own socket is full.
    Stalled,
}

/// RFC 9113 §7.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

// === impl Code ===

impl Code {
    pub const NO_ERROR: Self = Self(0x0);
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags], stream.to_be_bytes().as_slice(), body].concat()
}

pub fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(SETTINGS, 0, 0, b"").as_slice()].concat()
}

/// The header block of a call, every field a literal that is not added to any table.
pub fn call(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    // POST, http.
    let mut block = b"\x83\x86".to_vec();
    let fields = [(":path", path), (":authority", "%2Fsvid%2Fspiffe.sock")];
    let others = [("content-type", "application/grpc"), ("te", "trailers")];
    for (name, value) in fields.iter().chain(&others).chain(more) {
        block.push(0);
        for string in [name, value] {
            length(&mut block, string.len());
            block.extend_from_slice(string.as_bytes());
        }
    }
    block
}

/// RFC 7541 §5.1.
fn length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return block.push(u8::try_from(length).unwrap());
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

/// What a PING carries that is waited for.
const PROBE: &[u8; 8] = b"still on";

pub const FETCH_X509: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

// === impl Door ===

impl Door {
    pub async fn open(&self) -> UnixStream {
        let stream = socket::connect(&self.0).unwrap();
        stream.set_nonblocking(true).unwrap();
        UnixStream::from_std(stream).unwrap()
    }

    /// Sends this on a connection of its own, and then PINGs to see whether it still answers.
    pub async fn send(&self, bytes: &[u8]) -> Ended {
        let mut stream = self.open().await;
        // Whoever hangs up on us in the middle has read enough.
        let _ = stream.write_all(&[bytes, &frame(PING, 0, 0, PROBE)].concat()).await;
        timeout(PATIENCE, ended(&mut stream)).await.expect("nothing happens")
    }

    /// Sends this, reading nothing before all is sent. That it stalls has to be waited for.
    pub async fn flood(&self, bytes: &[u8], stalls: bool) -> Ended {
        let mut stream = self.open().await;
        let written = timeout(if stalls { STALLED } else { PATIENCE }, async {
            for piece in bytes.chunks(1 << 16) {
                if stream.write_all(piece).await.is_err() {
                    return;
                }
            }
            let _ = stream.write_all(&frame(PING, 0, 0, PROBE)).await;
        });
        if written.await.is_err() {
            return Ended::Stalled;
        }
        timeout(PATIENCE, ended(&mut stream)).await.expect("nothing happens")
    }
}

/// Reads until the connection ends or two PINGs are answered, one after the other: what came
/// before the first is answered before the second.
async fn ended(stream: &mut UnixStream) -> Ended {
    let (mut seen, mut again) = (Ended::Answers, false);
    loop {
        let mut header = [0; 9];
        if stream.read_exact(&mut header).await.is_err() {
            return if matches!(seen, Ended::GoAway(_)) { seen } else { Ended::Closed };
        }
        let mut body = vec![0; u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize];
        if stream.read_exact(&mut body).await.is_err() {
            return Ended::Closed;
        }
        let code = |at: usize| Code(u32::from_be_bytes(body[at..at + 4].try_into().unwrap()));
        match header[3] {
            GO_AWAY => seen = Ended::GoAway(code(4)),
            RST_STREAM if seen == Ended::Answers => seen = Ended::Reset(code(0)),
            HEADERS if seen == Ended::Answers => {
                // 200 is in the static table; the only other one here is not.
                seen = Ended::Status(if body[0] == 0x88 { 200 } else { 431 });
            }
            PING if body == PROBE && again => return seen,
            PING if body == PROBE => {
                again = true;
                let _ = stream.write_all(&frame(PING, 0, 0, PROBE)).await;
            }
            _ => {}
        }
    }
}
