//! `/api/v1`: how this instance is, and one event into the stream.

use std::{sync::Arc, time::Duration};

use axum::{
    Json as JsonBody,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::{
    events::prediction::{FeatureValue, Prediction},
    http::{HttpState, error::HttpError},
    processors::overview::Snapshot,
};

/// `GET /api/v1/status`
pub(super) async fn status(State(state): State<HttpState>) -> JsonBody<Snapshot> {
    JsonBody(state.overview.snapshot())
}

/// `?wait=true` asks for the prediction, for at most `timeout_ms`.
#[derive(Deserialize)]
pub(super) struct EventQuery {
    #[serde(default)]
    wait: bool,
    #[serde(default = "ten_seconds")]
    timeout_ms: u64,
}

fn ten_seconds() -> u64 {
    10_000
}

/// Nobody waits longer than a minute for a prediction.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// `POST /api/v1/events`: metadata and answers, by the names of the event schema.
pub(super) async fn events(
    State(state): State<HttpState>,
    Query(query): Query<EventQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, HttpError> {
    authorize(&state, &headers)?;
    let event: Json = serde_json::from_slice(&body)
        .map_err(|error| HttpError::new(StatusCode::BAD_REQUEST, format!("not JSON: {error}")))?;
    let gateway = Arc::clone(&state.gateway);
    let wait = Duration::from_millis(query.timeout_ms).min(WAIT_MAX);
    // The gateway blocks on the broker, which async code must not.
    let answer = tokio::task::spawn_blocking(move || {
        if query.wait {
            let prediction = gateway.predict(&event, wait)?;
            Ok((StatusCode::OK, JsonBody(shown(&prediction))).into_response())
        } else {
            let event = gateway.submit(&event)?;
            let accepted =
                json!({ "event_id": event.event_id, "respondent_id": event.respondent_id });
            Ok((StatusCode::ACCEPTED, JsonBody(accepted)).into_response())
        }
    });
    let failed = |error: tokio::task::JoinError| {
        HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    };
    answer.await.map_err(failed)?
}

/// A prediction as JSON has it: answers and probabilities by name.
fn shown(prediction: &Prediction) -> Json {
    let probabilities = prediction.probabilities.iter();
    let probabilities = probabilities.map(|class| (class.label.clone(), json!(class.probability)));
    let features = prediction.features.iter().map(|feature| {
        let value = match &feature.value {
            FeatureValue::Missing => Json::Null,
            FeatureValue::Number(number) => json!(number),
            FeatureValue::Text(text) => json!(text),
        };
        (feature.name.clone(), value)
    });
    json!({
        "prediction_id": prediction.prediction_id,
        "respondent_id": prediction.respondent_id,
        "event_id": prediction.event_id,
        "event_time": prediction.event_time,
        "received_at": prediction.received_at,
        "predicted_at": prediction.predicted_at,
        "model_version": prediction.model_version,
        "label": prediction.label,
        "probabilities": probabilities.collect::<serde_json::Map<_, _>>(),
        "features": features.collect::<serde_json::Map<_, _>>(),
    })
}

fn authorize(state: &HttpState, headers: &HeaderMap) -> Result<(), HttpError> {
    let Some(token) = &state.bearer_token else { return Ok(()) };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer "));
    // Every byte is looked at, so that the time taken tells nothing of how many were right.
    let is_same = given.is_some_and(|given| {
        let differences = given.bytes().zip(token.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
        given.len() == token.len() && differences == 0
    });
    if is_same {
        return Ok(());
    }
    Err(HttpError::new(StatusCode::UNAUTHORIZED, "send the header `Authorization: Bearer <token>`"))
}
