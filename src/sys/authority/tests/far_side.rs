//! The far side of a connection: what `h2`'s server makes of the bytes of a client.

use std::{
    collections::VecDeque,
    io,
    pin::{Pin, pin},
    sync::LazyLock,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::{Builder, Runtime},
};

/// A request as it was decoded: pseudo fields, then the others, by name.
pub(crate) type Request = Vec<(String, Vec<u8>)>;

/// A connection whose client sends these pieces, pauses and hangs up; an empty piece is a pause.
pub(crate) struct Pieces {
    pieces: VecDeque<Vec<u8>>,
}

/// `h2` drops what it has not accepted when a client hangs up, and accepts one a turn.
const TURNS: usize = 300;

/// All requests that `h2` accepts from a connection, and whether it ended well.
pub(crate) fn requests(connection: impl AsyncRead + AsyncWrite + Unpin) -> (Vec<Request>, bool) {
    let mut requests = Vec::new();
    let end = finished(async {
        let mut connection = h2::server::handshake(connection).await?;
        while let Some(request) = connection.accept().await {
            let (request, mut answer) = request?;
            requests.push(fields(&request));
            answer.send_response(http::Response::new(()), true)?;
        }
        Ok::<_, h2::Error>(())
    });
    (requests, end.is_ok())
}

/// Polls until it is finished: nothing is ever waited for but what wakes itself.
pub(crate) fn finished<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().enable_all().build().unwrap());
    let _timers = RUNTIME.enter();
    let mut work = pin!(work);
    for _ in 0..1_000_000 {
        if let Poll::Ready(end) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return end;
        }
    }
    panic!("the connection does not end");
}

/// A request as it is compared.
pub(crate) fn fields(request: &http::Request<h2::RecvStream>) -> Request {
    let uri = request.uri();
    let mut fields = vec![(":method".to_owned(), request.method().as_str().as_bytes().to_vec())];
    let path = uri.path_and_query().map(|path| path.as_str());
    let authority = uri.authority().map(http::uri::Authority::as_str);
    for (name, value) in [(":path", path), (":authority", authority)] {
        fields.extend(value.map(|value| (name.to_owned(), value.as_bytes().to_vec())));
    }
    let others = request.headers().iter();
    fields.extend(others.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())));
    fields.sort();
    fields
}

// === impl Pieces ===

impl Pieces {
    /// Bytes in pieces of these sizes, over and over.
    pub(crate) fn new(mut bytes: &[u8], sizes: &[usize]) -> Self {
        let mut pieces = VecDeque::new();
        let mut sizes = sizes.iter().filter(|_| sizes.iter().any(|size| *size > 0)).cycle();
        while !bytes.is_empty() {
            let size = sizes.next().map_or(bytes.len(), |size| bytes.len().min(*size));
            let (piece, rest) = bytes.split_at(size);
            pieces.push_back(piece.to_vec());
            bytes = rest;
        }
        pieces.extend(std::iter::repeat_n(Vec::new(), TURNS));
        Self { pieces }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(mut piece) = self.pieces.pop_front() else { return Poll::Ready(Ok(())) };
        if piece.is_empty() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let rest = piece.split_off(piece.len().min(buffer.remaining()));
        buffer.put_slice(&piece);
        if !rest.is_empty() {
            self.pieces.push_front(rest);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
