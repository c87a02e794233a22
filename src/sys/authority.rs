//! Makes HTTP/2 connections on Unix sockets acceptable to `h2`.
//!
//! gRPC in Go, which kubelet uses, and in C, when they dial a path, send it percent-encoded as
//! `:authority`. `h2` takes that for no authority and resets the stream with PROTOCOL_ERROR, so
//! that kubelet could neither register us nor call us, and no Python application either. What a
//! client calls a Unix socket means nothing to us: on the way in, the value of each literal
//! `:authority` becomes one byte. All else passes as it is, to the byte.
//!
//! What is read goes straight into the reader's buffer and is rewritten there; only a frame with
//! header fields that comes in pieces is held until it is whole, in 16 KiB at most. An idle
//! connection holds no memory.

mod frames;
mod header_block;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop,
    time::{Instant, Sleep, sleep_until},
};
use tonic::transport::server::Connected;

use self::frames::{Frames, Walked};

/// How long a client may take for its preface, SETTINGS included.
const OPENING: Duration = Duration::from_secs(10);
/// So many frames cost as much of a task's turn as one read: other tasks have theirs after some
/// thousand frames.
const FRAMES_PER_UNIT: usize = 8;
/// What is held of a frame at first, in bytes; more as more of it comes.
const LITTLE: usize = 256;

/// A connection whose incoming `:authority` is rewritten, and which fails with
/// [`io::ErrorKind::TimedOut`] if the client's preface (RFC 9113 §3.4) is not whole after 10 s.
#[derive(Debug)]
pub struct RewriteAuthority<I> {
    io: I,
    frames: Frames,
    held: Held,
    opening: Option<Opening>,
}

/// A frame that must be seen whole.
#[derive(Debug, Default)]
struct Held {
    /// Longer than what it holds while more is to come.
    bytes: Vec<u8>,
    /// How many bytes of it came.
    filled: usize,
    /// How many were handed on, once all came.
    handed: Option<usize>,
}

/// The client has not sent its preface yet.
#[derive(Debug)]
struct Opening {
    until: Instant,
    /// Made once there is something to wait for.
    timer: Option<Pin<Box<Sleep>>>,
}

// === impl RewriteAuthority ===

impl<I> RewriteAuthority<I> {
    /// Wraps a connection of which nothing has been read yet. The client's time begins now.
    pub fn new(io: I) -> Self {
        let opening = Opening { until: Instant::now() + OPENING, timer: None };
        Self { io, frames: Frames::new(), held: Held::default(), opening: Some(opening) }
    }
}

impl<I: AsyncRead + Unpin> RewriteAuthority<I> {
    /// Reads, and watches the clock until the preface has come.
    fn read(
        io: &mut I,
        opening: &mut Option<Opening>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(waited) = opening else {
            return Pin::new(io).poll_read(context, buffer);
        };
        // The timer alone would not do: a client that floods leaves it no turn.
        if Instant::now() >= waited.until {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let read = Pin::new(io).poll_read(context, buffer);
        if read.is_pending() {
            let until = waited.until;
            let timer = waited.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
            if timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }

    fn walked(&mut self, context: &mut Context<'_>, frames: usize) {
        if self.opening.is_some() && self.frames.opened() {
            self.opening = None;
        }
        for _ in 0..frames / FRAMES_PER_UNIT {
            match coop::poll_proceed(context) {
                Poll::Ready(unit) => unit.made_progress(),
                Poll::Pending => break,
            }
        }
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
            if me.held.hand_on(buffer) {
                return Poll::Ready(Ok(()));
            }
            if me.held.filled == 0 {
                let before = buffer.filled().len();
                ready!(Self::read(&mut me.io, &mut me.opening, context, buffer))?;
                let read = buffer.filled_mut().get_mut(before..).unwrap_or_default();
                if read.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                let Walked { done, rest, frames } = me.frames.walk(read);
                me.held.begin(read.get(rest..).unwrap_or_default());
                buffer.set_filled(before + done);
                me.walked(context, frames);
                if done > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let mut room = ReadBuf::new(me.held.room());
                ready!(Self::read(&mut me.io, &mut me.opening, context, &mut room))?;
                let read = room.filled().len();
                if read == 0 {
                    // The client hung up within a frame; what came is `h2`'s to judge.
                    me.frames.give_up();
                }
                me.held.filled += read;
                if read == 0 || me.held.is_whole() {
                    let came = me.held.bytes.get_mut(..me.held.filled).unwrap_or_default();
                    let Walked { done, rest, frames } = me.frames.walk(came);
                    debug_assert_eq!(rest, me.held.filled, "a whole frame is left");
                    (me.held.filled, me.held.handed) = (done, Some(0));
                    me.walked(context, frames);
                }
            }
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

// === impl Held ===

impl Held {
    /// Hands on what came, if all did; false if there is nothing to hand on.
    fn hand_on(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let Some(handed) = self.handed else { return false };
        let ready = self.bytes.get(handed..self.filled).unwrap_or_default();
        let some = ready.get(..buffer.remaining()).unwrap_or(ready);
        buffer.put_slice(some);
        let handed = handed + some.len();
        if handed == self.filled {
            *self = Self::default();
        } else {
            self.handed = Some(handed);
        }
        true
    }

    fn begin(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            *self = Self { bytes: bytes.to_vec(), filled: bytes.len(), handed: None };
        }
    }

    /// How much must be seen together, as far as it is known.
    fn wanted(&self) -> usize {
        Frames::whole(self.bytes.get(..self.filled).unwrap_or_default())
    }

    fn is_whole(&self) -> bool {
        self.filled >= self.wanted()
    }

    /// Where more of the frame goes, and nothing after it.
    fn room(&mut self) -> &mut [u8] {
        let wanted = self.wanted();
        if self.bytes.len() == self.filled {
            let more = wanted.min((2 * self.filled).max(LITTLE));
            self.bytes.reserve_exact(more - self.filled);
            self.bytes.resize(more, 0);
        }
        let end = wanted.min(self.bytes.len());
        self.bytes.get_mut(self.filled..end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
