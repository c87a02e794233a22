//! The connection to the agent's admin socket.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use svid_csi_proto::spire::api::agent::delegatedidentity::v1::delegated_identity_client::DelegatedIdentityClient;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Uri},
};
use tower::service_fn;

use crate::{class::Class, signer::SignError, sys::socket};

/// A message that is longer is refused, and with it its call.
const MAX_MESSAGE: usize = 4 << 20;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How often a connection without traffic is tried. An agent, which is written in Go, takes more
/// than one every five minutes for an attack.
const KEEP_ALIVE: Duration = Duration::from_secs(330);
/// How long the answer may take.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(20);
/// As much of an agent's words as is shown.
const SHOWN: usize = 300;

/// A client of the Delegated Identity API.
pub(super) type Client = DelegatedIdentityClient<Channel>;

/// A client that connects when it is first used, and again after each end of its connection.
pub(super) fn client(socket: PathBuf) -> Client {
    let connector = service_fn(move |_: Uri| {
        let path = socket.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(socket::connect_stream(path).await?)) }
    });
    let channel = Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        .connect_with_connector_lazy(connector);
    Client::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

/// What a failed call means.
pub(super) fn failed(socket: &Path, status: &Status) -> SignError {
    let agent = format!("the SPIRE agent at {}", socket.display());
    let said: String = status.message().chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    match status.code() {
        // It speaks of the driver: a pod without an identity is given an empty list.
        Code::PermissionDenied => SignError::new(
            Class::NotReady,
            format!(
                "{agent} takes this driver for no delegate ({said}): its authorized_delegates must \
                 name the driver's SPIFFE ID, and a registration entry must give the driver that ID"
            ),
        ),
        Code::Unimplemented => SignError::new(
            Class::NotReady,
            format!(
                "{agent} has no Delegated Identity API: --agent-socket must name its \
                 admin_socket_path, not the Workload API's socket"
            ),
        ),
        Code::InvalidArgument | Code::OutOfRange => {
            SignError::new(Class::Internal, format!("{agent} refuses the call: {said}"))
        }
        _ => {
            SignError::new(Class::Unavailable, format!("{agent} is away: {}", cause(status, said)))
        }
    }
}

/// The innermost reason: what tonic says of a connection that failed is nothing that helps.
fn cause(status: &Status, said: String) -> String {
    let mut error = status.source();
    while let Some(deeper) = error.and_then(Error::source) {
        error = Some(deeper);
    }
    error.map_or(said, ToString::to_string)
}
