//! What no correct client sends.

use super::*;

#[test]
fn what_is_not_understood_passes_unchanged() {
    let block = request(&literal(b"\x41", "%2Fa"));
    let whole = frame(HEADERS, ALL, 3, &block);
    let odd: [(&str, Vec<u8>); 13] = [
        ("a frame is too long", frame(HEADERS, ALL, 1, &vec![0; 16_385])),
        ("padding is too long", frame(HEADERS, ALL | PADDED, 1, b"\x02\x82")),
        ("padding has no length", frame(HEADERS, ALL | PADDED, 1, b"")),
        ("priority is too short", frame(HEADERS, ALL | PRIORITY, 1, b"\0\0\0\0")),
        (
            "a stream depends on itself",
            frame(HEADERS, ALL | PRIORITY, 1, &[b"\x80\0\0\x01\0", &block[..]].concat()),
        ),
        ("a block ends within a field", frame(HEADERS, ALL, 1, b"\x82\x44\x05/a")),
        ("a block ends within a number", frame(HEADERS, ALL, 1, b"\x7f\xff")),
        ("a number does not end", frame(HEADERS, ALL, 1, b"\x7f\xff\xff\xff\xff\x01")),
        ("CONTINUATION continues nothing", frame(CONTINUATION, END_HEADERS, 1, &block)),
        (
            "a block begins within another",
            [frame(HEADERS, 0, 1, b"\x82"), frame(HEADERS, ALL, 1, &block)].concat(),
        ),
        ("a name is empty", frame(HEADERS, ALL, 1, b"\x40\x00\x01a")),
        ("an authority is empty", frame(HEADERS, ALL, 1, &request(b"\x41\x00"))),
        ("the static authority, which is empty", frame(HEADERS, ALL, 1, &request(b"\x81"))),
    ];
    for (what, odd) in odd {
        let sent = [preface(), odd.clone()].concat();
        assert_eq!(through(&sent, &[]), sent, "{what}");
        // As far as `h2` is concerned the connection has ended, but for the last three.
        if !what.contains("empty") {
            let sent = [preface(), odd, whole.clone()].concat();
            assert_eq!(through(&sent, &[7]), sent, "{what}");
        }
    }
    for end in 0..whole.len() {
        let sent = [preface(), whole[..end].to_vec()].concat();
        assert_eq!(through(&sent, &[11]), sent, "hangs up after {end} bytes");
    }
}

/// What is held is one frame at most, as much of it as came or twice that, and nothing once it has
/// been handed on.
#[test]
fn little_is_held() {
    let block = request(&literal(b"\x41", "%2Fa"));
    let whole = [preface(), frame(HEADERS, ALL, 1, &block)].concat();
    let begun = &frame(HEADERS, ALL, 3, &vec![0x82; 16_384])[..5000];
    let bytes = [&whole, begun].concat();
    // A pause after each byte.
    let mut connection = RewriteAuthority::new(Pieces::new(&bytes, &[1, 0]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _timers = runtime.enter();
    let mut context = Context::from_waker(std::task::Waker::noop());
    let (mut some, mut read, mut most) = ([0; 100], 0, 0);
    while connection.held.filled < begun.len() {
        let mut buffer = ReadBuf::new(&mut some);
        let _ = Pin::new(&mut connection).poll_read(&mut context, &mut buffer);
        read += buffer.filled().len();
        let capacity = connection.held.bytes.capacity();
        assert!(capacity <= LITTLE.max(2 * connection.held.filled), "{capacity}");
        if connection.held.filled == 0 {
            assert_eq!(capacity, 0, "idle");
        }
        most = most.max(capacity);
    }
    assert_eq!(read, whole.len() - 3);
    assert!(most >= begun.len());
}

proptest! {
    #[test]
    fn pieces_make_no_difference(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        value in "[a-z%]{0,40}",
        sizes in proptest::collection::vec(0_usize..40, 0..5),
    ) {
        let headers = frame(HEADERS, ALL, 1, &request(&literal(b"\x41", &value)));
        bytes.splice(0..0, [preface(), headers].concat());
        let whole = through(&bytes, &[]);
        prop_assert_eq!(&through(&bytes, &sizes), &whole);
        prop_assert!(whole.len() <= bytes.len());
    }

    /// Blocks of anything: nothing panics, no frame grows, and all frames are still there.
    #[test]
    fn no_header_block_is_too_odd(
        blocks in proptest::collection::vec(
            (any::<bool>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..80)), 0..5),
        sizes in proptest::collection::vec(0_usize..40, 0..3),
    ) {
        let mut sent = preface();
        for (goes_on, flags, block) in &blocks {
            let kind = if *goes_on { CONTINUATION } else { HEADERS };
            sent.extend(frame(kind, *flags, 1, block));
        }
        let got = through(&sent, &sizes);
        let (mut at, mut before) = (preface().len(), preface().len());
        for (goes_on, flags, block) in &blocks {
            let [_, a, b, c] = u32::try_from(block.len()).unwrap().to_be_bytes();
            prop_assert_eq!(&sent[before..before + 3], &[a, b, c]);
            let length = u32::from_be_bytes([0, got[at], got[at + 1], got[at + 2]]) as usize;
            prop_assert!(length <= block.len());
            let kind = if *goes_on { CONTINUATION } else { HEADERS };
            prop_assert_eq!(&got[at + 3..at + 5], &[kind, *flags]);
            at += 9 + length;
            before += 9 + block.len();
        }
        prop_assert_eq!(at, got.len());
    }
}
