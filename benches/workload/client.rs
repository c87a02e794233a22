//! The Workload API as a client calls it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use svid_csi_proto::workload::{
    JwtsvidRequest, ValidateJwtsvidRequest, X509BundlesRequest, X509BundlesResponse,
    X509svidRequest, X509svidResponse, spiffe_workload_api_client::SpiffeWorkloadApiClient,
};
use tokio::time::Instant;
use tonic::{Request, Status, Streaming, transport::Channel};

use crate::{
    plugin::{Node, Pod, connect},
    sample::Sample,
};

/// How many calls are under way at once where many are, each on a connection of its own.
pub const WIDTH: usize = 16;

/// One connection.
#[derive(Clone)]
pub struct Client(SpiffeWorkloadApiClient<Channel>);

pub fn socket(node: &Node, pod: &Pod) -> PathBuf {
    node.target(pod).join("spiffe.sock")
}

fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

// === impl Client ===

impl Client {
    pub async fn connect(socket: &Path) -> Result<Self, tonic::transport::Error> {
        Ok(Self(SpiffeWorkloadApiClient::new(connect(socket).await?)))
    }

    pub async fn svids(&mut self) -> Result<Streaming<X509svidResponse>, Status> {
        let answer = self.0.fetch_x509svid(with_header(X509svidRequest {})).await?;
        Ok(answer.into_inner())
    }

    pub async fn bundles(&mut self) -> Result<Streaming<X509BundlesResponse>, Status> {
        let answer = self.0.fetch_x509_bundles(with_header(X509BundlesRequest {})).await?;
        Ok(answer.into_inner())
    }

    /// The first message of FetchX509SVID.
    pub async fn svid(&mut self) -> Result<X509svidResponse, Status> {
        let first = self.svids().await?.message().await?;
        first.ok_or_else(|| Status::unknown("the stream ended"))
    }

    pub async fn token(&mut self, audience: String) -> String {
        let request = JwtsvidRequest { audience: vec![audience], spiffe_id: String::new() };
        let answer = self.0.fetch_jwtsvid(with_header(request)).await.unwrap().into_inner();
        answer.svids.into_iter().next().unwrap().svid
    }

    pub async fn validate(&mut self, audience: String, svid: String) {
        let request = ValidateJwtsvidRequest { audience, svid };
        self.0.validate_jwtsvid(with_header(request)).await.unwrap();
    }
}

/// Makes `count` calls, [`WIDTH`] at once: how many a second, and each.
pub async fn wide<F>(
    socket: &Path,
    count: usize,
    call: impl Fn(Client, usize) -> F,
) -> (f64, Sample)
where
    F: Future<Output = ()>,
{
    let mut clients = Vec::new();
    for _ in 0..WIDTH {
        clients.push(Client::connect(socket).await.unwrap());
    }
    let next = Arc::new(AtomicUsize::new(0));
    let call = &call;
    let started = Instant::now();
    let tasks = clients.into_iter().map(|client| {
        let next = next.clone();
        async move {
            let mut took: Vec<Duration> = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return took;
                }
                let began = Instant::now();
                call(client.clone(), n).await;
                took.push(began.elapsed());
            }
        }
    });
    let each = futures_util::future::join_all(tasks).await.concat();
    (count as f64 / started.elapsed().as_secs_f64(), each.into_iter().collect())
}
