//! `/api/v1`: the status of this instance, and outcomes from clients.

use axum::{
    Json as JsonBody,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Value as Json, json};
use tokio::sync::oneshot;

use crate::{
    http::{HttpState, body, error::HttpError, parameters::Parameters},
    processors::{
        gateway::{Gateway, GatewayError},
        overview::Snapshot,
    },
};
use foretell_streams::record::OutputRecord;

/// `GET /api/v1/status`
pub(super) async fn status(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Result<JsonBody<Snapshot>, HttpError> {
    parameters.check(&[])?;
    Ok(JsonBody(state.overview.snapshot()))
}

/// `POST /api/v1/outcomes`: one outcome, or an array.
pub(super) async fn outcomes(
    State(state): State<HttpState>,
    parameters: Parameters,
    request: Request,
) -> Result<Response, HttpError> {
    parameters.check(&[])?;
    let key = idempotency_key(request.headers())?;
    let json = body::json(request, state.read_timeout).await?;
    let gateway = &state.gateway;
    let enter = |json: &Json, key: Option<&str>| {
        let entry = gateway.outcome(json, key)?;
        let outcome = entry.outcome;
        let accepted = json!({
            "respondent_id": outcome.respondent_id, "label": outcome.label,
            "outcome_time": outcome.outcome_time, "outcome_id": outcome.outcome_id,
        });
        Ok((entry.record, accepted))
    };
    if let Json::Array(items) = &json {
        return write_each(gateway, items, key.as_deref(), enter).await;
    }
    let (record, accepted) = enter(&json, key.as_deref())?;
    write(gateway, record)?.await?;
    Ok((StatusCode::ACCEPTED, JsonBody(accepted)).into_response())
}

/// Maximum number of items in a request: a body of 1 MiB with items of 1 KiB.
const ITEMS_MAX: usize = 1000;

/// Writes the valid ones of `items`, and answers with a result for each: 202 if all were written, else 207.
pub(super) async fn write_each(
    gateway: &Gateway,
    items: &[Json],
    key: Option<&str>,
    enter: impl Fn(&Json, Option<&str>) -> Result<(OutputRecord, Json), GatewayError>,
) -> Result<Response, HttpError> {
    if items.is_empty() || items.len() > ITEMS_MAX {
        let message =
            format!("an array must have 1 to {ITEMS_MAX} items, and this one has {}", items.len());
        return Err(HttpError::new(StatusCode::BAD_REQUEST, message));
    }
    // All are queued before the first wait, so that they are written together.
    let mut queued = Vec::new();
    for (number, item) in items.iter().enumerate() {
        let key = key.map(|key| format!("{key}-{number}"));
        let entered = enter(item, key.as_deref()).map_err(HttpError::from);
        let entered =
            entered.and_then(|(record, accepted)| Ok((write(gateway, record)?, accepted)));
        queued.push(entered);
    }
    let (mut results, mut status) = (Vec::new(), StatusCode::ACCEPTED);
    for entered in queued {
        let result = match entered {
            Ok((written, accepted)) => written.await.map(|()| accepted),
            Err(error) => Err(error),
        };
        results.push(result.unwrap_or_else(|error| {
            status = StatusCode::MULTI_STATUS;
            error.into_body()
        }));
    }
    Ok((status, JsonBody(json!({ "results": results }))).into_response())
}

/// Queues `record`. The future resolves when the broker has acknowledged it.
pub(super) fn write(
    gateway: &Gateway,
    record: OutputRecord,
) -> Result<impl Future<Output = Result<(), HttpError>> + use<>, HttpError> {
    let (sender, written) = oneshot::channel();
    // The receiver is gone if the client disconnected.
    gateway.write(record, Box::new(move |result| drop(sender.send(result))))?;
    Ok(async move { Ok(written.await.map_err(|_| stopping())??) })
}

/// The error if the thread that answers has ended.
pub(super) fn stopping() -> HttpError {
    GatewayError::Busy("the instance is stopping: try again").into()
}

const KEY_BYTES_MAX: usize = 255;

/// The `Idempotency-Key` that a client sends again with a repeated request
/// (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header>): a string in quotes, or without.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, HttpError> {
    let mut given = headers.get_all("idempotency-key").iter();
    let (Some(key), another) = (given.next(), given.next()) else { return Ok(None) };
    let key = key.to_str().ok().map(str::trim);
    let key = key.map(|key| {
        let inside = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
        inside.unwrap_or(key)
    });
    let is_plain =
        |key: &&str| !key.is_empty() && key.len() <= KEY_BYTES_MAX && !key.contains(['"', '\\']);
    match (key.filter(is_plain), another) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        (_, _) => {
            let message = format!(
                "the header Idempotency-Key must occur once, and have 1 to {KEY_BYTES_MAX} characters without \" and \\"
            );
            Err(HttpError::new(StatusCode::BAD_REQUEST, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idempotency_keys_are_parsed() {
        let check = |values: &[&str], expected: Option<Option<&str>>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("Idempotency-Key", value.parse().unwrap());
            }
            let key = idempotency_key(&headers).ok();
            assert_eq!(key.as_ref().map(Option::as_deref), expected, "{values:?}");
        };
        check(&[], Some(None));
        check(&["\"8e03978e-40d5\""], Some(Some("8e03978e-40d5")));
        check(&["8e03978e-40d5"], Some(Some("8e03978e-40d5")));
        check(&[""], None);
        check(&["\"\""], None);
        check(&["a\"b"], None);
        check(&["a", "b"], None);
        check(&[&"x".repeat(255)], Some(Some(&"x".repeat(255))));
        check(&[&"x".repeat(256)], None);
    }
}
