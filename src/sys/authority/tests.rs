mod client;
mod encoder;
mod far_side;
mod odd;
mod opening;
mod real;

use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use self::{
    client::{arriving, frame, preface},
    encoder::Field,
    far_side::{Pieces, finished, requests},
};
use super::*;

const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// A whole request.
const ALL: u8 = END_HEADERS | END_STREAM;
const SOCKET: &str = "%2Fvar%2Flib%2Fkubelet%2Fplugins%2Fcsi.svid.dev%2Fcsi.sock";
const HUFFMAN_NAME: &[u8] = b"\x88\xb8\x3b\x53\x39\xec\x32\x7d\x7f";

/// A request to `:path` /a, with `authority` as given.
fn request(authority: &[u8]) -> Vec<u8> {
    // POST, http, and two literals that go into the table: `:path` and content-type.
    [b"\x83\x86\x44\x02/a", authority, b"\x5f\x10application/grpc"].concat()
}

/// A string as it is, after what says whose value it is.
fn literal(form: &[u8], value: &str) -> Vec<u8> {
    [form, &[u8::try_from(value.len()).unwrap()], value.as_bytes()].concat()
}

/// All that comes out for all that goes in, in pieces of these sizes.
fn through(bytes: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut connection = RewriteAuthority::new(Pieces::new(bytes, sizes));
    finished(async { connection.read_to_end(&mut out).await }).unwrap();
    out
}

#[test]
fn every_form_of_the_authority_is_rewritten() {
    let coded = [b"\x40", HUFFMAN_NAME].concat();
    let forms: [&[u8]; 7] = [
        b"\x41",
        b"\x01",
        b"\x11",
        b"\x40\x0a:authority",
        b"\x00\x0a:authority",
        b"\x10\x0a:authority",
        &coded,
    ];
    for form in forms {
        let block = request(&literal(form, SOCKET));
        let wanted = request(&literal(form, "u"));
        let sent = [preface(), frame(HEADERS, ALL, 1, &block)].concat();
        let got = through(&sent, &[]);
        assert_eq!(got, [preface(), frame(HEADERS, ALL, 1, &wanted)].concat());
        // Padding and priority stay.
        let flags = ALL | PADDED | PRIORITY;
        let padded = |block: &[u8]| [b"\x03\0\0\0\0\x10", block, b"\0\0\0"].concat();
        let sent = [preface(), frame(HEADERS, flags, 1, &padded(&block))].concat();
        let got = through(&sent, &[24, 17, 3]);
        assert_eq!(got, [preface(), frame(HEADERS, flags, 1, &padded(&wanted))].concat());
    }
}

/// An entry that was added with a literal name is named by its index, as it moves on in the table.
#[test]
fn a_name_in_the_dynamic_table_is_known() {
    // Two more entries, so that it is the 64th; the 63rd is no `:authority`.
    let first = |value| {
        let added = [literal(b"\x40\x0a:authority", value), literal(b"\x40\x01x", "%2F")].concat();
        [b"\x83\x86\x84", added.as_slice(), &literal(b"\x40\x01y", "z")].concat()
    };
    let again = |value| [b"\x83\x86\x84", literal(b"\x0f\x31", value).as_slice()].concat();
    let other = [b"\x83\x86\x84", literal(b"\x0f\x30", "%2Fc").as_slice()].concat();
    let requests_of = |a, b| {
        let first = [preface(), frame(HEADERS, ALL, 1, &first(a))];
        let later = [frame(HEADERS, ALL, 3, &again(b)), frame(HEADERS, ALL, 5, &other)];
        [first.concat(), later.concat()].concat()
    };
    let (sent, wanted) = (requests_of("%2Fa", "%2Fb"), requests_of("u", "u"));
    assert_eq!(through(&sent, &[]), wanted);
    let (arrived, well) = requests(RewriteAuthority::new(Pieces::new(&sent, &[])));
    assert!(well && arrived.len() == 3, "{arrived:?}");
}

/// A block goes on in CONTINUATION frames wherever it likes.
#[test]
fn a_block_may_be_cut_anywhere() {
    let fields = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "%2Fb")];
    let long = (":authority", "%2F".repeat(60));
    for authority in [long.1.as_str(), "%2Fb"] {
        let mut block = b"\x82\x84\x86\x40\x88\xb8\x3b\x53\x39\xec\x32\x7d\x7f".to_vec();
        if authority.len() > 127 {
            // 127 and 53.
            block.extend([0x7f, 53]);
        } else {
            block.push(4);
        }
        block.extend_from_slice(authority.as_bytes());
        for at in 0..=block.len() {
            for again in [at, (at + 1).min(block.len()), block.len()] {
                let mut sent = preface();
                sent.extend(frame(HEADERS, END_STREAM, 1, &block[..at]));
                sent.extend(frame(CONTINUATION, 0, 1, &block[at..again]));
                sent.extend(frame(CONTINUATION, END_HEADERS, 1, &block[again..]));
                // The next one finds it in the table.
                sent.extend(frame(HEADERS, ALL, 3, b"\x82\x84\x86\xbe"));
                let out = through(&sent, &[]);
                let shorter = authority.len() + usize::from(authority.len() > 127) - 1;
                assert_eq!(out.len(), sent.len() - shorter, "at {at}, {again}");
                let (arrived, well) = requests(RewriteAuthority::new(Pieces::new(&sent, &[])));
                let fields: Vec<Field> =
                    fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
                assert!(well, "at {at}, {again}");
                assert_eq!(arrived, vec![arriving(&fields); 2], "at {at}, {again}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever a client may send arrives as it was, but for `:authority`, in whatever pieces.
    #[test]
    fn a_correct_client_is_understood(
        choices in proptest::collection::vec(any::<u32>(), 1..2000),
        count in 1_u32..60,
        sizes in proptest::collection::vec(0_usize..400, 0..5),
    ) {
        let mut choices = choices.iter().cycle();
        let mut choose = |below: usize| *choices.next().unwrap() as usize % below;
        let (bytes, wanted) = client::requests(count, &mut choose);
        let out = through(&bytes, &sizes);
        prop_assert!(out.len() <= bytes.len());
        prop_assert_eq!(&through(&bytes, &[]), &out, "pieces make a difference");
        prop_assert_eq!(&through(&out, &sizes), &out, "the result is not as it should be");
        let (arrived, well) = requests(RewriteAuthority::new(Pieces::new(&bytes, &sizes)));
        prop_assert_eq!(arrived, wanted);
        prop_assert!(well);
    }
}
