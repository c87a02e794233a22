//! `/livez`, `/readyz` and `/metrics`: what runs beside gRPC for kubelet and Prometheus.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::TcpListener,
    task::{AbortHandle, JoinSet, spawn_blocking},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How many connections there may be.
const CONNECTIONS: usize = 64;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A question that may block, answered with why not.
pub type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the endpoints ask.
pub struct Checks {
    /// Whether the process does its work; if not, kubelet should restart it.
    pub live: Check,
    /// Whether a volume could be published now.
    pub ready: Check,
    /// All metrics in the OpenMetrics text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
}

/// Serves until `stop`. Whoever reaches the port may be a pod: a connection serves one request and
/// ends after [`PATIENCE`]; of more than [`CONNECTIONS`] the oldest ends, so that nobody who holds
/// connections open keeps kubelet's probe away.
pub async fn serve(listener: TcpListener, checks: Arc<Checks>, stop: CancellationToken) {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(checks);
    let mut connections = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let service = TowerToHyperService::new(router.clone());
                    let connection = http1::Builder::new()
                        .keep_alive(false)
                        .serve_connection(TokioIo::new(stream), service);
                    open.retain(|connection| !connection.is_finished());
                    if open.len() >= CONNECTIONS && let Some(oldest) = open.pop_front() {
                        oldest.abort();
                    }
                    let serve = async { drop(timeout(PATIENCE, connection).await) };
                    open.push_back(connections.spawn(serve));
                }
                Err(error) => {
                    // Out of descriptors, most likely: it passes.
                    warn!(%error, "accept");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn livez(State(checks): State<Arc<Checks>>) -> impl IntoResponse {
    answer(spawn_blocking(move || (checks.live)()).await.unwrap_or_else(|e| Err(e.to_string())))
}

async fn readyz(State(checks): State<Arc<Checks>>) -> impl IntoResponse {
    answer(spawn_blocking(move || (checks.ready)()).await.unwrap_or_else(|e| Err(e.to_string())))
}

async fn metrics(State(checks): State<Arc<Checks>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], (checks.metrics)())
}

fn answer(check: Result<(), String>) -> (StatusCode, String) {
    match check {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
