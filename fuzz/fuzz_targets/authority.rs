//! HTTP/2 from whoever can open a socket: nothing grows, and how it is cut changes nothing.

#![no_main]

#[path = "../../src/sys/authority/tests/far_side.rs"]
mod far_side;

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use far_side::Pieces;
use libfuzzer_sys::fuzz_target;
use svid_csi::sys::RewriteAuthority;
use tokio::io::{AsyncRead, ReadBuf};

fuzz_target!(|data: &[u8]| {
    let whole = through(data, usize::MAX);
    assert!(whole.len() <= data.len());
    assert_eq!(through(data, 1), whole);
    // What `h2` accepts without us it accepts with us too, with the same fields but `:authority`.
    let (bare, _) = far_side::requests(Pieces::new(data, &[]));
    let (ours, well) = far_side::requests(RewriteAuthority::new(Pieces::new(data, &[])));
    // Whatever is rewritten once is as it should be.
    assert!(!well || through(&whole, usize::MAX) == whole, "it is rewritten again");
    let mut ours = ours.into_iter();
    for mut wanted in bare {
        for (name, value) in &mut wanted {
            if name == ":authority" {
                "u".as_bytes().clone_into(value);
            }
        }
        assert!(ours.any(|request| request == wanted), "{wanted:?} does not arrive");
    }
});

/// A connection that hands on so many bytes at a time.
struct Cut<'a> {
    left: &'a [u8],
    size: usize,
}

// === impl Cut ===

impl AsyncRead for Cut<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let size = self.left.len().min(self.size).min(buffer.remaining());
        let (now, later) = self.left.split_at(size);
        buffer.put_slice(now);
        self.left = later;
        Poll::Ready(Ok(()))
    }
}

/// All that comes out.
fn through(data: &[u8], size: usize) -> Vec<u8> {
    let mut connection = pin!(RewriteAuthority::new(Cut { left: data, size }));
    let mut context = Context::from_waker(Waker::noop());
    let (mut out, mut memory) = (Vec::new(), [0; 4096]);
    loop {
        let mut buffer = ReadBuf::new(&mut memory);
        match connection.as_mut().poll_read(&mut context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => return out,
            Poll::Ready(Ok(())) => out.extend_from_slice(buffer.filled()),
            other => panic!("{other:?}"),
        }
    }
}
