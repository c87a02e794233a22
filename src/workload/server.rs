//! The gRPC server behind every volume's socket.

use std::io;

use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::connection::Connection;
use crate::{node::Arrival, sys::RewriteAuthority};

/// Serves every connection to a volume's socket, whichever volume's it is. A handler finds the
/// [`Workload`](crate::node::Workload) among its request's extensions.
pub struct Server {
    arrivals: mpsc::Receiver<Arrival>,
    routes: Routes,
}

// === impl Server ===

impl Server {
    /// Serves these connections; nothing is answered before [`Server::run`].
    pub fn new(arrivals: mpsc::Receiver<Arrival>) -> Self {
        let routes = Routes::builder();
        Self { arrivals, routes: routes.routes() }
    }

    /// Serves until `stop`, then finishes the calls under way. Streams end only once the node
    /// closes the sockets: do that before.
    pub async fn run(self, stop: CancellationToken) -> Result<(), tonic::transport::Error> {
        let incoming = ReceiverStream::new(self.arrivals)
            .map(|arrival| Ok::<_, io::Error>(RewriteAuthority::new(Connection::from(arrival))));
        tonic::transport::Server::builder()
            .add_routes(self.routes)
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await
    }
}
