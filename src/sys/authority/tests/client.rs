//! A client of which every byte is a choice within the standard.

use super::{
    encoder::{Choice, Encoder, Field},
    far_side::Request,
};

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const CONTINUATION: u8 = 0x9;
const UNKNOWN: u8 = 0xfb;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// What `:authority` becomes.
const REWRITTEN: &[u8] = b"u";

/// What clients call a Unix socket, and what they could.
const AUTHORITIES: [&str; 5] = [
    "%2Fvar%2Flib%2Fkubelet%2Fplugins%2Fcsi.svid.dev%2Fcsi.sock",
    "%2F",
    "localhost",
    "example.org:443",
    "a",
];

const NAMES: [&str; 10] = [
    "accept-encoding",
    "authorization",
    "content-type",
    "cookie",
    "grpc-timeout",
    "te",
    "user-agent",
    "workload.spiffe.io",
    "x",
    "x-authority",
];

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags], stream.to_be_bytes().as_slice(), body].concat()
}

pub(crate) fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(SETTINGS, 0, 0, b"").as_slice()].concat()
}

/// Some requests, as bytes and as they must arrive.
pub(crate) fn requests(count: u32, choose: &mut Choice<'_>) -> (Vec<u8>, Vec<Request>) {
    let mut encoder = Encoder::new();
    let (mut bytes, mut wanted) = (preface(), Vec::new());
    for number in 0..count {
        let fields = fields(choose);
        let block = encoder.block(&fields, choose);
        send(&mut bytes, 2 * number + 1, &block, choose);
        wanted.push(arriving(&fields));
    }
    (bytes, wanted)
}

/// How a request with these fields must arrive.
pub(crate) fn arriving(fields: &[Field]) -> Request {
    let fields = fields.iter().filter(|(name, _)| name != b":scheme");
    let mut fields: Vec<_> = fields
        .map(|(name, value)| match &name[..] {
            b":authority" => (":authority".to_owned(), REWRITTEN.to_vec()),
            _ => (String::from_utf8(name.clone()).unwrap(), value.clone()),
        })
        .collect();
    fields.sort();
    fields
}

/// A request as `h2` accepts it, but for some `:authority`.
pub(crate) fn fields(choose: &mut Choice<'_>) -> Vec<Field> {
    let method = ["GET", "POST", "PUT"][choose(3)];
    let path = ["/", "/index.html", "/SpiffeWorkloadAPI/FetchX509SVID"][choose(3)];
    let mut fields = vec![(":method", method.to_owned()), (":path", path.to_owned())];
    fields.insert(choose(2), (":scheme", ["http", "https"][choose(2)].to_owned()));
    if choose(4) > 0 {
        let authority = match choose(6) {
            // Longer than a length's first byte says.
            5 => "%2F".repeat(43 + choose(400)),
            known => AUTHORITIES[known].to_owned(),
        };
        fields.insert(choose(4), (":authority", authority));
    }
    for _ in 0..choose(6) {
        let name = NAMES[choose(NAMES.len())];
        let value = match choose(8) {
            _ if name == "te" => "trailers".to_owned(),
            0 => String::new(),
            1 => "v".repeat(choose(300)),
            // More than the whole table holds, once in a while.
            2 => "w".repeat([10, 700, 4100][choose(3)]),
            known => ["true", "application/grpc", ":authority", "%2Fa", "gzip, deflate"][known - 3]
                .to_owned(),
        };
        fields.push((name, value));
    }
    fields.into_iter().map(|(name, value)| (name.into(), value.into_bytes())).collect()
}

/// One request: its header block in frames, maybe a body, maybe other frames after it.
pub(crate) fn send(bytes: &mut Vec<u8>, stream: u32, block: &[u8], choose: &mut Choice<'_>) {
    let body = choose(2) == 0;
    let mut pieces: Vec<&[u8]> = Vec::new();
    let mut rest = block;
    while choose(3) == 0 && pieces.len() < 4 || rest.len() > 16_000 {
        let (piece, after) = rest.split_at(choose(rest.len().min(16_000) + 1));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    let last = pieces.len() - 1;
    for (at, piece) in pieces.into_iter().enumerate() {
        let ends = if at == last { END_HEADERS } else { 0 };
        if at > 0 {
            bytes.extend(frame(CONTINUATION, ends, stream, piece));
            continue;
        }
        let padding = [0, 0, 1, 255][choose(4)];
        let (mut flags, mut fragment) = (ends, Vec::new());
        if padding > 0 || choose(8) == 0 {
            flags |= PADDED;
            fragment.push(u8::try_from(padding).unwrap());
        }
        if choose(4) == 0 {
            flags |= PRIORITY;
            fragment.extend([0, 0, 0, 0, 16]);
        }
        if !body {
            flags |= END_STREAM;
        }
        fragment.extend_from_slice(piece);
        fragment.resize(fragment.len() + padding, 0);
        bytes.extend(frame(HEADERS, flags, stream, &fragment));
    }
    if body {
        // What looks like a header block within a body is none.
        bytes.extend(frame(
            DATA,
            END_STREAM,
            stream,
            &frame(HEADERS, END_HEADERS, 1, b"\x41\x02%2"),
        ));
    }
    match choose(6) {
        0 => bytes.extend(frame(PING, 0, 0, b"\x00\x00\x02\x01\x04\x00\x00\x00")),
        1 => bytes.extend(frame(UNKNOWN, END_HEADERS, stream, b"\x41\x02%2")),
        _ => {}
    }
}
