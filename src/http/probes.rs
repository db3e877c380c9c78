//! Health and metrics of a process without the API: `foretell deliver` and `foretell serve`.

use std::{future::Future, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::Registry;
use serde_json::json;
use tokio::net::TcpListener;

use crate::http::{HttpMetrics, Limits, Transport, error, health, metrics, server};

/// State of the handlers.
#[derive(Clone)]
pub struct ProbeState {
    /// The metrics that `/metrics` shows.
    pub registry: Registry,
    /// The metrics of HTTP itself.
    pub metrics: HttpMetrics,
    /// Whether the process does its work.
    pub is_ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Serves `/livez`, `/readyz` and `/metrics` until `stop` resolves and all current requests are answered.
pub async fn serve_probes(
    listener: TcpListener,
    state: ProbeState,
    limits: Limits,
    stop: impl Future<Output = ()> + Send,
) {
    let counted = state.metrics.clone();
    let router = probes(state)
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(from_fn(error::as_problems))
        .layer(from_fn_with_state(counted.clone(), metrics::count));
    let transport = Transport { limits, tls: None };
    server::serve(listener, router, transport, counted, stop).await;
}

/// The routes.
pub(super) fn probes(state: ProbeState) -> Router {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(shown))
        .with_state(state)
}

async fn readyz(State(state): State<ProbeState>) -> impl IntoResponse {
    let is_ready = (state.is_ready)();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": is_ready })))
}

async fn shown(State(state): State<ProbeState>) -> Response {
    metrics::in_text(&state.registry)
}
