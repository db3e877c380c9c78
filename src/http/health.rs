//! The probes of Kubernetes: liveness, readiness, startup.

use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use serde_json::json;

use crate::http::HttpState;

/// 200 while the process answers.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// 200 if every task is running and a model serves. The body lists features that violate the contract of the model.
pub(super) async fn readyz(State(state): State<HttpState>) -> impl IntoResponse {
    let snapshot = state.overview.snapshot();
    let [model, challenger] =
        [snapshot.model, snapshot.challenger].map(|model| model.map(|model| model.version));
    let status = if snapshot.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": snapshot.ready,
        "model": model,
        "challenger": challenger,
        "contract": snapshot.contract,
    });
    (status, Json(body))
}

/// 200 once every worker has had its first assignment.
pub(super) async fn startupz(State(state): State<HttpState>) -> impl IntoResponse {
    let workers = state.overview.board.read();
    let started = !workers.is_empty() && workers.values().all(|worker| worker.joined);
    let status = if started { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "started": started })))
}
