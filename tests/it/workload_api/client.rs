//! Clients of a volume's socket.

use std::{io::Write, os::unix::net::UnixStream, path::Path, time::Duration};

use svid_csi::sys::socket;
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

/// A connection with this many streams, whose client reads no byte of what comes on them.
pub struct Silent(#[expect(dead_code, reason = "held open")] UnixStream);

pub async fn silent(path: &Path, streams: u32) -> Silent {
    let mut stream = socket::connect(path).unwrap();
    stream.set_nonblocking(false).unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let mut frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
    };
    frame(4, 0, 0, &[]);
    let mut block = vec![0x83, 0x86];
    let mut field = |prefix: &[u8], parts: &[&str]| {
        block.extend_from_slice(prefix);
        for part in parts {
            block.push(u8::try_from(part.len()).unwrap());
            block.extend_from_slice(part.as_bytes());
        }
    };
    // `:path` and `:authority` by their numbers in HPACK's table, the others by name.
    field(&[0x04], &["/SpiffeWorkloadAPI/FetchX509SVID"]);
    field(&[0x01], &["localhost"]);
    field(&[0x00], &["content-type", "application/grpc"]);
    field(&[0x00], &["te", "trailers"]);
    field(&[0x00], &["workload.spiffe.io", "true"]);
    for stream in 0..streams {
        frame(1, 4, 2 * stream + 1, &block);
        frame(0, 1, 2 * stream + 1, &[0; 5]);
    }
    stream.write_all(&bytes).unwrap();
    Silent(stream)
}
