//! gRPC over sockets of this machine.

use std::{io, path::PathBuf, time::Duration};

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Error, Uri};
use tower::service_fn;

use crate::sys::socket;

/// Connects to a Unix socket at a path of any length. Each call may take so long.
pub(super) async fn unix(path: PathBuf, patience: Duration) -> Result<Channel, Error> {
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(socket::connect_stream(path).await?)) }
    });
    Endpoint::from_static("http://localhost")
        .timeout(patience)
        .connect_with_connector(connector)
        .await
}
