//! `/livez`, `/readyz` and `/metrics`: what runs beside gRPC for kubelet and Prometheus.

use std::{io, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

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

/// Serves until `stop`.
pub async fn serve(
    listener: TcpListener,
    checks: Arc<Checks>,
    stop: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(checks);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn livez(State(checks): State<Arc<Checks>>) -> impl IntoResponse {
    answer(
        spawn_blocking(move || (checks.live)())
            .await
            .unwrap_or_else(|e| Err(e.to_string())),
    )
}

async fn readyz(State(checks): State<Arc<Checks>>) -> impl IntoResponse {
    answer(
        spawn_blocking(move || (checks.ready)())
            .await
            .unwrap_or_else(|e| Err(e.to_string())),
    )
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
