//! Health, metrics and the API, over axum: reads snapshots, hands events to the gateway.

mod api;
mod error;
mod health;
mod metrics;

use std::{future::Future, io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    routing::{get, post},
};
use prometheus::Registry;
use tokio::net::TcpListener;

use crate::processors::{gateway::Gateway, overview::Overview};

/// What the handlers see.
#[derive(Clone)]
pub struct HttpState {
    /// Takes snapshots.
    pub overview: Overview,
    /// Takes events.
    pub gateway: Arc<Gateway>,
    /// Holds the metrics.
    pub registry: Registry,
    /// What `Authorization: Bearer` must say to change something; none: anybody may.
    pub bearer_token: Option<Arc<str>>,
}

/// One event is small; a megabyte is a questionnaire of ten thousand questions.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Every route.
pub fn router(state: HttpState) -> Router {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/startupz", get(health::startupz))
        .route("/metrics", get(metrics::metrics))
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/events", post(api::events))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(state)
}

/// A bound socket, so that a taken port is an error before anything else starts.
///
/// # Errors
/// If the address can't be bound.
pub async fn bind(address: &str) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves until `stop` resolves and the requests under way are answered.
///
/// # Errors
/// If the socket fails.
pub async fn serve(
    listener: TcpListener,
    state: HttpState,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router(state)).with_graceful_shutdown(stop).await
}
