use std::{convert::Infallible, time::Duration};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const GO_AWAY: u8 = 0x7;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;

fn frame(kind: u8, flags: u8, stream: u8, body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags, 0, 0, 0, stream], body].concat()
}

/// A request to `:path` /a, with `authority` as given.
fn request(authority: &[u8]) -> Vec<u8> {
    // POST, http, and two literals that go into the table: `:path` and content-type.
    [b"\x83\x86\x44\x02/a", authority, b"\x5f\x10application/grpc"].concat()
}

fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(SETTINGS, 0, 0, b"").as_slice()].concat()
}

/// All that comes out for all that goes in, in pieces.
fn through(pieces: &[&[u8]]) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut client, server) = duplex(1 << 20);
        let mut server = RewriteAuthority::new(server);
        let mut out = Vec::new();
        for piece in pieces {
            client.write_all(piece).await.unwrap();
            let brief = Duration::from_millis(0);
            // Takes what is there, so that frames really come in pieces.
            let _ = tokio::time::timeout(brief, server.read_buf(&mut out)).await;
        }
        drop(client);
        server.read_to_end(&mut out).await.unwrap();
        out
    })
}

/// Literal, added to the table, as Go and C send it; plain.
fn indexed_authority(value: &str) -> Vec<u8> {
    [&[0x41, u8::try_from(value.len()).unwrap()], value.as_bytes()].concat()
}

#[test]
fn every_form_of_the_authority_is_rewritten() {
    let value = "%2Fvar%2Flib%2Fkubelet%2Fplugins%2Fcsi.svid.dev%2Fcsi.sock";
    let literal = [&[u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
    let forms: [&[u8]; 5] = [
        b"\x41",
        b"\x01",
        b"\x11",
        b"\x40\x0a:authority",
        b"\x00\x88\xb8\x3b\x53\x39\xec\x32\x7d\x7f",
    ];
    for form in forms {
        let block = request(&[form, &literal].concat());
        let wanted = request(&[form, b"\x01u"].concat());
        let sent = [preface(), frame(HEADERS, END_HEADERS, 1, &block)].concat();
        let got = through(&[&sent]);
        assert_eq!(got, [preface(), frame(HEADERS, END_HEADERS, 1, &wanted)].concat());
        let padded = [b"\x03", b"\0\0\0\0\x10".as_slice(), &block, b"\0\0\0"].concat();
        let flags = END_HEADERS | PADDED | PRIORITY;
        let got = through(&[&preface(), &frame(HEADERS, flags, 1, &padded)]);
        let wanted = [b"\0\0\0\0\x10".as_slice(), &wanted].concat();
        let wanted = frame(HEADERS, END_HEADERS | PRIORITY, 1, &wanted);
        assert_eq!(got, [preface(), wanted].concat());
    }
}

#[test]
fn what_is_not_understood_passes_unchanged() {
    let block = request(&indexed_authority("%2Fa"));
    let begun = frame(HEADERS, 0, 1, &block);
    let cut = frame(HEADERS, END_HEADERS, 1, &block[..block.len() - 1]);
    let data = frame(0, 0, 1, &frame(HEADERS, END_HEADERS, 1, &block));
    let empty = frame(HEADERS, END_HEADERS, 1, &request(b"\x41\x00"));
    let endless = frame(HEADERS, END_HEADERS, 1, b"\x7f\xff\xff\xff\xff\xff\x7f");
    let mut long = frame(HEADERS, END_HEADERS, 1, &vec![0; MAX_FRAME + 1]);
    long.extend(frame(HEADERS, END_HEADERS, 3, &block));
    let half = frame(HEADERS, END_HEADERS, 1, &block)[..20].to_vec();
    for odd in [begun, cut, data, empty, endless, long, half] {
        let sent = [preface(), odd].concat();
        assert_eq!(through(&[&sent]), sent);
    }
}

/// A server of the real stack answers a client that sends kubelet's `:authority`, and sends it
/// again by its index.
#[test]
fn a_real_server_answers() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let answered = async |wrapped: bool| {
            let (mut client, server) = tokio::net::UnixStream::pair().unwrap();
            let service = tower::service_fn(async |_| {
                Ok::<_, Infallible>(hyper::Response::new(tonic::body::Body::empty()))
            });
            let service = hyper_util::service::TowerToHyperService::new(service);
            let builder =
                hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
            let serving = async {
                if wrapped {
                    let io = hyper_util::rt::TokioIo::new(RewriteAuthority::new(server));
                    drop(builder.serve_connection(io, service).await);
                } else {
                    let io = hyper_util::rt::TokioIo::new(server);
                    drop(builder.serve_connection(io, service).await);
                }
            };
            let calling = async {
                let first = request(&indexed_authority("%2Fvar%2Fcsi.sock"));
                let again = request(b"\xc0");
                let ends = END_HEADERS | 1;
                let sent =
                    [preface(), frame(HEADERS, ends, 1, &first), frame(HEADERS, ends, 3, &again)];
                client.write_all(&sent.concat()).await.unwrap();
                let mut kinds = Vec::new();
                while kinds.iter().filter(|k| [HEADERS, RST_STREAM, GO_AWAY].contains(k)).count()
                    < 2
                {
                    let mut header = [0; HEADER];
                    client.read_exact(&mut header).await.unwrap();
                    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
                    let mut body = vec![0; length as usize];
                    client.read_exact(&mut body).await.unwrap();
                    kinds.push(header[3]);
                }
                kinds.retain(|kind| [HEADERS, RST_STREAM, GO_AWAY].contains(kind));
                kinds
            };
            tokio::select! {
                () = serving => panic!("the server hung up"),
                kinds = calling => kinds,
            }
        };
        assert_eq!(answered(true).await, [HEADERS, HEADERS]);
        assert_eq!(answered(false).await, [RST_STREAM, RST_STREAM], "no longer needed?");
    });
}

proptest! {
    #[test]
    fn pieces_make_no_difference(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        value in "[a-z%]{0,40}",
        at in any::<prop::sample::Index>(),
    ) {
        let headers = frame(HEADERS, END_HEADERS, 1, &request(&indexed_authority(&value)));
        bytes.splice(0..0, [preface(), headers].concat());
        let whole = through(&[&bytes]);
        let (a, b) = bytes.split_at(at.index(bytes.len()));
        prop_assert_eq!(&through(&[a, b]), &whole);
        prop_assert!(whole.len() <= bytes.len());
    }

    #[test]
    fn no_header_block_is_too_odd(
        flags in any::<u8>(),
        body in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let sent = frame(HEADERS, flags, 1, &body);
        if let Some(got) = header_block::rewritten(&sent) {
            prop_assert!(got.len() <= sent.len());
            let length = u32::from_be_bytes([0, got[0], got[1], got[2]]) as usize;
            prop_assert_eq!(length, got.len() - HEADER);
        }
    }
}
