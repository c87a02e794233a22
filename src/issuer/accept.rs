//! From a TCP connection to one that HTTP/2 can begin on.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    Metrics,
    connection::Connection,
    gate::{Gate, Place},
    limits::{HANDSHAKE, PROOF},
};

/// Lets connections in.
pub(super) struct Accept {
    pub(super) listener: TcpListener,
    pub(super) acceptor: TlsAcceptor,
    pub(super) gate: Arc<Gate>,
    pub(super) metrics: Metrics,
    pub(super) connections: mpsc::Sender<Connection>,
}

// === impl Accept ===

impl Accept {
    /// Accepts until `stop`. Handshakes run beside each other, as many as there are places for
    /// strangers.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(_) = handshakes.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => match self.gate.enter(address.ip()) {
                        Some(place) => {
                            handshakes.spawn(self.handshake(stream, place));
                        }
                        None => self.metrics.connection("refused"),
                    },
                    Err(error) => {
                        // Out of descriptors, most likely: it passes.
                        warn!(%error, "accept");
                        sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }

    fn handshake(
        &self,
        stream: TcpStream,
        place: Place,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (acceptor, metrics) = (self.acceptor.clone(), self.metrics.clone());
        let connections = self.connections.clone();
        async move {
            let deadline = Instant::now() + PROOF;
            // Answers are small, and nothing follows them.
            let _ = stream.set_nodelay(true);
            let result = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                    let connection = Connection::new(stream, place, deadline);
                    let _ended = connections.send(connection).await;
                    "accepted"
                }
                Ok(Ok(_)) => "not_h2",
                Ok(Err(error)) => {
                    debug!(%error, "handshake");
                    "handshake_failed"
                }
                Err(_elapsed) => "handshake_timeout",
            };
            metrics.connection(result);
        }
    }
}
