//! gRPC messages in a body: those sent are counted, those received are admitted.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use axum::body::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

use crate::node::{Refused, Workload};

/// Compressed flag and length, before each message.
const PREFIX: usize = 5;

/// Finds where messages begin in a body, however it is cut into frames.
#[derive(Default)]
pub(super) struct Messages {
    /// Bytes of a prefix that came so far.
    prefix: [u8; PREFIX],
    had: usize,
    /// Bytes of a message that are still to come.
    rest: usize,
}

/// What a client sends in a call where it may send several messages.
pub(super) struct AdmittedBody {
    inner: Body,
    messages: Messages,
    workload: Workload,
    refusal: Refusal,
    /// The first message was admitted with its call.
    begun: bool,
}

/// Ends a call whose client sends too much.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    end: CancellationToken,
    reason: Arc<OnceLock<Refused>>,
}

// === impl Messages ===

impl Messages {
    /// How many begin in this frame.
    pub(super) fn count(&mut self, mut frame: &[u8]) -> u64 {
        let mut count = 0;
        loop {
            let skipped = self.rest.min(frame.len());
            self.rest -= skipped;
            frame = frame.get(skipped..).unwrap_or_default();
            let Some((byte, after)) = frame.split_first() else { return count };
            if let Some(slot) = self.prefix.get_mut(self.had) {
                *slot = *byte;
            }
            self.had += 1;
            frame = after;
            if self.had == PREFIX {
                let [_, a, b, c, d] = self.prefix;
                self.rest = u32::from_be_bytes([a, b, c, d]) as usize;
                self.had = 0;
                count += 1;
            }
        }
    }
}

// === impl AdmittedBody ===

impl AdmittedBody {
    pub(super) fn new(inner: Body, workload: Workload, refusal: Refusal) -> Self {
        Self { inner, messages: Messages::default(), workload, refusal, begun: false }
    }

    fn admit(&mut self, frame: &[u8]) -> Result<(), Status> {
        for _ in 0..self.messages.count(frame) {
            if std::mem::replace(&mut self.begun, true) {
                self.workload.admit_message().map_err(|refused| self.refusal.refuse(refused))?;
            }
        }
        Ok(())
    }
}

impl HttpBody for AdmittedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        let admitted = frame.data_ref().map_or(Ok(()), |data| self.admit(data));
        Poll::Ready(Some(admitted.map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

// === impl Refusal ===

impl Refusal {
    /// Ends the call that ends with `closing` besides.
    pub(super) fn new(closing: &CancellationToken) -> Self {
        Self { end: closing.child_token(), reason: Arc::default() }
    }

    pub(super) fn end(&self) -> &CancellationToken {
        &self.end
    }

    /// Why the call ended, unless it was because its volume is served no longer.
    pub(super) fn reason(&self) -> Option<Refused> {
        self.reason.get().copied()
    }

    fn refuse(&self, refused: Refused) -> Status {
        let refused = *self.reason.get_or_init(|| refused);
        self.end.cancel();
        Status::unavailable(refused.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_a_body_is_cut() {
        let mut body = Vec::new();
        for length in [0_u32, 3, 300, 0, 70_000] {
            body.push(0);
            body.extend(length.to_be_bytes());
            body.extend(std::iter::repeat_n(1, length as usize));
        }
        for cut in [1, 2, 4, 5, 6, 7, 309, 16_384, body.len()] {
            let mut messages = Messages::default();
            let count: u64 = body.chunks(cut).map(|frame| messages.count(frame)).sum();
            assert_eq!(count, 5, "cut every {cut} bytes");
        }
    }
}
