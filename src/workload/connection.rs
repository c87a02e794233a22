//! One connection to a volume's socket.
//!
//! When the volume is served no longer every call on it ends, and soon after that the connection,
//! whatever its client does.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    time::{Sleep, sleep},
};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use crate::node::{Arrival, ConnectionPermit, Workload};

/// How long a client has to take the status of its calls.
const GRACE: Duration = Duration::from_secs(1);

/// A connection that knows whose it is: every request on it finds its [`Workload`] among its
/// extensions.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    workload: Workload,
    end: End,
    /// Its place among the volume's connections.
    _permit: ConnectionPermit,
}

/// How far a connection is from its end.
#[derive(Debug)]
enum End {
    /// The volume is served.
    Open(Pin<Box<WaitForCancellationFutureOwned>>),
    /// It is not; what was answered is still on its way.
    Near(Pin<Box<Sleep>>),
    /// Nothing is read or written any more.
    Here,
}

// === impl Connection ===

impl From<Arrival> for Connection {
    fn from(arrival: Arrival) -> Self {
        let Arrival { stream, workload, permit } = arrival;
        let end = End::Open(Box::pin(workload.closing().clone().cancelled_owned()));
        Self { stream, workload, end, _permit: permit }
    }
}

impl Connection {
    /// The stream, unless this is the end.
    fn open(&mut self, context: &mut Context<'_>) -> Option<Pin<&mut UnixStream>> {
        self.end.poll(context).is_pending().then(|| Pin::new(&mut self.stream))
    }
}

impl Connected for Connection {
    type ConnectInfo = Workload;

    fn connect_info(&self) -> Workload {
        self.workload.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(stream) = self.open(context) else { return Poll::Ready(Ok(())) };
        stream.poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = self.open(context) else { return Poll::Ready(Err(ended())) };
        stream.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = self.open(context) else { return Poll::Ready(Err(ended())) };
        stream.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the volume is served no longer")
}

// === impl End ===

impl End {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Self::Open(closing) = self {
            ready!(closing.as_mut().poll(context));
            *self = Self::Near(Box::pin(sleep(GRACE)));
        }
        if let Self::Near(grace) = self {
            ready!(grace.as_mut().poll(context));
            *self = Self::Here;
        }
        Poll::Ready(())
    }
}
