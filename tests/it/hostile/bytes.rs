//! Connections that break HTTP/2, byte by byte. `UPDATE_SEEDS=1` writes them to the fuzz targets'
//! seeds.

use super::wire::{
    CONTINUATION, Code, DATA, END_HEADERS, END_STREAM, Ended, FETCH_X509, GO_AWAY, HEADERS, PADDED,
    PING, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, call, frame, preface,
};

pub struct Bytes {
    pub name: &'static str,
    pub sent: Vec<u8>,
    pub wanted: Ended,
}

const WHOLE: u8 = END_HEADERS | END_STREAM;

fn after_preface(name: &'static str, wanted: Ended, frames: &[Vec<u8>]) -> Bytes {
    Bytes { name, sent: [preface(), frames.concat()].concat(), wanted }
}

/// What is malformed. Small enough for one write.
pub fn all() -> Vec<Bytes> {
    use Ended::{Answers, Closed, GoAway, Reset, Status};
    let headers = |block: &[u8]| frame(HEADERS, WHOLE, 1, block);
    let get = call(FETCH_X509, &[]);
    let protocol = || GoAway(Code::PROTOCOL_ERROR);
    let large = |size: usize| call(FETCH_X509, &[("x", &"v".repeat(size))]);
    let cases = vec![
        Bytes {
            name: "http-1",
            sent: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(9),
            wanted: Closed,
        },
        Bytes {
            name: "tls",
            sent: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03".repeat(9),
            wanted: Closed,
        },
        Bytes { name: "zeros", sent: vec![0; 4096], wanted: Closed },
        after_preface("well-formed", Answers, &[]),
        after_preface(
            "too-long-frame",
            GoAway(Code::FRAME_SIZE_ERROR),
            &[frame(0xfb, 0, 0, &vec![0; 16_385])],
        ),
        after_preface("headers-on-stream-0", protocol(), &[frame(HEADERS, WHOLE, 0, &get)]),
        after_preface("headers-on-an-even-stream", protocol(), &[frame(HEADERS, WHOLE, 2, &get)]),
        after_preface("unknown-index", protocol(), &[headers(b"\xff\x80\x10")]),
        after_preface("index-0", protocol(), &[headers(b"\x80")]),
        after_preface("endless-number", protocol(), &[headers(b"\x7f\xff\xff\xff\xff\xff\xff")]),
        after_preface("cut-field", protocol(), &[headers(b"\x83\x44\x7f/")]),
        after_preface("table-too-large", protocol(), &[headers(b"\x3f\xe1\xff\x03\x83")]),
        after_preface("bad-huffman", protocol(), &[headers(b"\x44\x84\xff\xff\xff\xff")]),
        after_preface("upper-case-name", protocol(), &[headers(b"\x83\x86\x84\x00\x01X\x01y")]),
        after_preface(
            "unknown-pseudo-field",
            protocol(),
            &[headers(b"\x83\x86\x84\x00\x02:x\x01y")],
        ),
        after_preface("no-method", Reset(Code::PROTOCOL_ERROR), &[headers(b"\x86\x84")]),
        after_preface("two-paths", Reset(Code::PROTOCOL_ERROR), &[headers(b"\x83\x86\x84\x84")]),
        after_preface(
            "connection-field",
            Reset(Code::PROTOCOL_ERROR),
            &[headers(b"\x83\x86\x84\x00\x0aconnection\x01x")],
        ),
        after_preface(
            "empty-authority",
            Reset(Code::PROTOCOL_ERROR),
            &[headers(b"\x83\x86\x84\x81")],
        ),
        after_preface(
            "padding-too-long",
            protocol(),
            &[frame(HEADERS, WHOLE | PADDED, 1, b"\xff\x83\x86\x84")],
        ),
        after_preface(
            "continues-nothing",
            protocol(),
            &[frame(CONTINUATION, END_HEADERS, 1, &get)],
        ),
        after_preface(
            "continues-another",
            protocol(),
            &[frame(HEADERS, END_STREAM, 1, b"\x83"), frame(CONTINUATION, END_HEADERS, 3, &get)],
        ),
        after_preface(
            "interrupted-block",
            protocol(),
            &[frame(HEADERS, END_STREAM, 1, b"\x83"), frame(PING, 0, 0, &[0; 8])],
        ),
        after_preface(
            "push",
            protocol(),
            &[frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02\x83\x86\x84")],
        ),
        after_preface("data-before-headers", protocol(), &[frame(DATA, 0, 1, b"x")]),
        after_preface("data-on-stream-0", protocol(), &[frame(DATA, 0, 0, b"x")]),
        after_preface("reset-of-nothing", protocol(), &[frame(RST_STREAM, 0, 1, &[0; 4])]),
        after_preface("short-ping", protocol(), &[frame(PING, 0, 0, &[0; 7])]),
        after_preface("short-settings", protocol(), &[frame(SETTINGS, 0, 0, &[0; 5])]),
        after_preface("short-priority", protocol(), &[frame(PRIORITY, 0, 1, &[0; 4])]),
        after_preface(
            "window-too-large",
            protocol(),
            &[frame(SETTINGS, 0, 0, b"\0\x04\x80\0\0\0")],
        ),
        after_preface("empty-window-update", protocol(), &[frame(WINDOW_UPDATE, 0, 0, &[0; 4])]),
        after_preface(
            "window-overflow",
            GoAway(Code::FLOW_CONTROL_ERROR),
            &[frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff")],
        ),
        after_preface("header-list-over-8k", Status(431), &[headers(&large(8 << 10))]),
        after_preface(
            "header-list-over-32k",
            GoAway(Code::ENHANCE_YOUR_CALM),
            &[
                frame(HEADERS, END_STREAM, 1, &large(40 << 10)[..16_000]),
                frame(CONTINUATION, 0, 1, &large(40 << 10)[16_000..32_000]),
                frame(CONTINUATION, END_HEADERS, 1, &large(40 << 10)[32_000..]),
            ],
        ),
        after_preface("goodbye", GoAway(Code::NO_ERROR), &[frame(GO_AWAY, 0, 0, &[0; 8])]),
        after_preface("unknown-frames", Answers, &[frame(0xfb, 0xff, 7, &[0xff; 99])]),
    ];
    if std::env::var_os("UPDATE_SEEDS").is_some() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/authority");
        for case in cases.iter().filter(|case| case.sent.len() < 2000) {
            std::fs::write(format!("{seeds}/hostile-{}", case.name), &case.sent).unwrap();
        }
    }
    cases
}

/// What is well-formed, and too much of it. Nothing is read meanwhile.
pub fn floods() -> Vec<Bytes> {
    use Ended::{Answers, GoAway, Stalled};
    let calm = || GoAway(Code::ENHANCE_YOUR_CALM);
    let get = call(FETCH_X509, &[("workload.spiffe.io", "true")]);
    let streams = |count: u32| (0..count).map(|n| 2 * n + 1);
    let reset = |n| [frame(HEADERS, END_HEADERS, n, &get), frame(RST_STREAM, 0, n, b"\0\0\0\x08")];
    let block = frame(HEADERS, END_STREAM, 1, b"\x83");
    vec![
        after_preface("rapid reset", calm(), &streams(20_000).flat_map(reset).collect::<Vec<_>>()),
        after_preface(
            "continuations",
            calm(),
            &[block.clone(), frame(CONTINUATION, 0, 1, b"").repeat(20_000)],
        ),
        after_preface(
            "continuations of a byte",
            calm(),
            &[block, frame(CONTINUATION, 0, 1, b"\x40").repeat(20_000)],
        ),
        after_preface(
            "empty data",
            calm(),
            &[frame(HEADERS, END_HEADERS, 1, &get), frame(DATA, 0, 1, b"").repeat(10_000)],
        ),
        after_preface(
            "unfinished calls",
            calm(),
            &streams(5_000).map(|n| frame(HEADERS, END_HEADERS, n, &get)).collect::<Vec<_>>(),
        ),
        after_preface(
            "priorities",
            Answers,
            &[frame(PRIORITY, 0, 1, b"\0\0\0\x03\x10").repeat(20_000)],
        ),
        after_preface(
            "window updates",
            Answers,
            &[frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\x01").repeat(20_000)],
        ),
        after_preface("unknown frames", Answers, &[frame(0xfb, 0, 0, &[0; 100]).repeat(20_000)]),
        after_preface(
            "settings",
            Stalled,
            &[frame(SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff").repeat(200_000)],
        ),
        after_preface("pings", Stalled, &[frame(PING, 0, 0, &[0; 8]).repeat(200_000)]),
    ]
}
