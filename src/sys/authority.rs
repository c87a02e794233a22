//! Makes HTTP/2 connections on Unix sockets acceptable to `h2`.
//!
//! gRPC in Go, which kubelet uses, and in C, when they dial a path, send it percent-encoded as
//! `:authority`. `h2` takes that for no authority and resets the stream with PROTOCOL_ERROR, so
//! that kubelet could neither register us nor call us. What a client calls a Unix socket means
//! nothing to us: on the way in, the value of each literal `:authority` becomes one byte.

mod header_block;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// What a client sends first (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// Length, type, flags, stream (RFC 9113 §4.1).
const HEADER: usize = 9;
const HEADERS: u8 = 0x1;
/// The longest frame that `h2` accepts unless told otherwise; it refuses longer ones itself.
const MAX_FRAME: usize = 16_384;
const CHUNK: usize = 8192;

/// A connection whose incoming `:authority` is rewritten.
#[derive(Debug)]
pub struct RewriteAuthority<I> {
    io: I,
    /// How many of the next bytes pass unseen: the preface, or what is not a HEADERS frame.
    pass: usize,
    /// No HEADERS frame that `h2` would take can follow.
    verbatim: bool,
    /// Received, and not yet a whole frame header or HEADERS frame.
    raw: Vec<u8>,
    /// To be handed on.
    out: Vec<u8>,
    handed: usize,
}

// === impl RewriteAuthority ===

impl<I> RewriteAuthority<I> {
    /// Wraps a connection of which nothing has been read yet.
    pub fn new(io: I) -> Self {
        let (raw, out) = (Vec::new(), Vec::new());
        Self { io, pass: PREFACE, verbatim: false, raw, out, handed: 0 }
    }

    /// Moves what is whole from `raw` to `out`.
    fn pump(&mut self) {
        let mut rest = self.raw.as_slice();
        loop {
            let passing = if self.verbatim { rest.len() } else { self.pass.min(rest.len()) };
            let (passed, after) = rest.split_at(passing);
            self.out.extend_from_slice(passed);
            self.pass = self.pass.saturating_sub(passing);
            rest = after;
            let Some(&[a, b, c, kind, ..]) = rest.first_chunk::<HEADER>() else { break };
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > MAX_FRAME {
                self.verbatim = true;
                continue;
            }
            if kind != HEADERS {
                self.pass = HEADER + length;
                continue;
            }
            let Some((frame, after)) = rest.split_at_checked(HEADER + length) else { break };
            match header_block::rewritten(frame) {
                Some(frame) => self.out.extend_from_slice(&frame),
                None => self.out.extend_from_slice(frame),
            }
            rest = after;
        }
        let done = self.raw.len() - rest.len();
        self.raw.drain(..done);
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for RewriteAuthority<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let ready = me.out.get(me.handed..).unwrap_or_default();
            if !ready.is_empty() {
                let some = ready.get(..buffer.remaining()).unwrap_or(ready);
                buffer.put_slice(some);
                me.handed += some.len();
                if me.handed == me.out.len() {
                    me.out.clear();
                    me.handed = 0;
                }
                return Poll::Ready(Ok(()));
            }
            let mut chunk = [0; CHUNK];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut me.io).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                if me.raw.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                // The client hung up within a frame; what came is `h2`'s to judge.
                me.verbatim = true;
            }
            me.raw.extend_from_slice(read.filled());
            me.pump();
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for RewriteAuthority<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

impl<I: Connected> Connected for RewriteAuthority<I> {
    type ConnectInfo = I::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

#[cfg(test)]
mod tests;
