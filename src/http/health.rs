//! The three probes of Kubernetes: alive, ready, started.

use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use serde_json::json;

use crate::http::HttpState;

/// The process answers.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Every task is running, and a model serves; which features are not as it was fitted.
pub(super) async fn readyz(State(state): State<HttpState>) -> impl IntoResponse {
    let snapshot = state.overview.snapshot();
    let version = snapshot.model.map(|model| model.version);
    let status = if snapshot.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let contract = snapshot.contract;
    (status, Json(json!({ "ready": snapshot.ready, "model": version, "contract": contract })))
}

/// Every worker has had its first assignment.
pub(super) async fn startupz(State(state): State<HttpState>) -> impl IntoResponse {
    let workers = state.overview.board.read();
    let started = !workers.is_empty() && workers.values().all(|worker| worker.joined);
    let status = if started { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "started": started })))
}
