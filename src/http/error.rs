//! What a caller is told when something can't be done: a status, and `{"error": …}`.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::processors::gateway::GatewayError;

pub(super) struct HttpError {
    status: StatusCode,
    message: String,
}

impl HttpError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl From<GatewayError> for HttpError {
    fn from(error: GatewayError) -> Self {
        let status = match error {
            GatewayError::Refused(_) => StatusCode::BAD_REQUEST,
            GatewayError::NoPrediction { .. } => StatusCode::GATEWAY_TIMEOUT,
            GatewayError::Broker(_) => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.message }))).into_response()
    }
}
