//! HTTP/2 from whoever can open a socket: nothing grows, and how it is cut changes nothing.

#![no_main]

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use libfuzzer_sys::fuzz_target;
use svid_csi::sys::RewriteAuthority;
use tokio::io::{AsyncRead, ReadBuf};

fuzz_target!(|data: &[u8]| {
    let whole = through(data, usize::MAX);
    assert!(whole.len() <= data.len());
    assert_eq!(through(data, 1), whole);
    // Whatever is rewritten once is as it should be.
    assert_eq!(through(&whole, usize::MAX), whole);
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
