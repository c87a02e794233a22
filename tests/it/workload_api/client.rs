//! Clients of a volume's socket.

use std::{path::Path, time::Duration};

use svid_csi_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use tokio::time::timeout;
use tonic::{
    Request, Status, Streaming,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::plugin::{connect, connect_with};

/// Ends only a test that has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// Sends the security header.
#[derive(Clone, Copy)]
pub struct Header;

pub type Api = SpiffeWorkloadApiClient<InterceptedService<Channel, Header>>;
/// Sends no header.
pub type Bare = SpiffeWorkloadApiClient<Channel>;

impl Interceptor for Header {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
        Ok(request)
    }
}

pub async fn with_header(socket: &Path) -> Api {
    SpiffeWorkloadApiClient::with_interceptor(connect(socket).await.unwrap(), Header)
}

pub async fn bare(socket: &Path) -> Bare {
    SpiffeWorkloadApiClient::new(connect(socket).await.unwrap())
}

/// A client with so small a window, in bytes, for each stream.
pub async fn with_window(socket: &Path, window: u32) -> Api {
    let endpoint = Endpoint::from_static("http://localhost").initial_stream_window_size(window);
    let channel = connect_with(endpoint, socket).await.unwrap();
    SpiffeWorkloadApiClient::with_interceptor(channel, Header)
}

/// The stream's next message.
#[track_caller]
pub fn message<T>(stream: &mut Streaming<T>) -> impl Future<Output = T> {
    let location = std::panic::Location::caller();
    async move {
        let message = timeout(DEADLINE, stream.message()).await;
        let message = message.unwrap_or_else(|_| panic!("no message came, {location}"));
        message.unwrap().unwrap_or_else(|| panic!("the stream ended with OK, {location}"))
    }
}

/// The status that the stream ends with, whatever comes before.
pub async fn ended<T>(stream: &mut Streaming<T>) -> Status {
    let end = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended with OK"),
                Err(status) => return status,
            }
        }
    };
    timeout(DEADLINE, end).await.expect("the stream goes on")
}
