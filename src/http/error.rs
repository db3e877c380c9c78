//! Error responses: a status and `{"error": …}`. All errors of the router have this form, also those of axum's extractors,
//! of unknown paths and of panics.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
};

use axum::{
    Json,
    body::to_bytes,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::processors::gateway::GatewayError;

#[derive(Debug)]
pub(super) struct HttpError {
    status: StatusCode,
    headers: Vec<(HeaderName, &'static str)>,
    /// Fields of the body, `error` first.
    body: Vec<(String, Value)>,
}

impl HttpError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let body = vec![("error".to_owned(), Value::String(message.into()))];
        Self { status, headers: Vec::new(), body }
    }

    /// Adds a field to the body, for programs.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.body.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The body without the status: the result of one item of an array.
    pub(super) fn into_body(self) -> Value {
        Value::Object(self.body.into_iter().collect())
    }
}

/// Conditions that end by themselves last seconds.
const RETRY_AFTER_SECONDS: &str = "1";

impl From<GatewayError> for HttpError {
    fn from(error: GatewayError) -> Self {
        let message = error.to_string();
        match error {
            GatewayError::Refused(_) => Self::new(StatusCode::BAD_REQUEST, message),
            GatewayError::Unusable { class, .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, message).with("class", class)
            }
            GatewayError::Busy(_) | GatewayError::NotFollowed(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
                    .with_header(header::RETRY_AFTER, RETRY_AFTER_SECONDS)
            }
            GatewayError::Unsendable(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, message),
            GatewayError::Unavailable(_) => Self::new(StatusCode::BAD_GATEWAY, message),
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let headers: HeaderMap = headers.collect();
        (self.status, headers, Json(self.into_body())).into_response()
    }
}

/// Bound of an error message of axum.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Middleware that turns errors into JSON, and panics into errors.
pub(super) async fn in_json(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = match catch_panic(next.run(request)).await {
        Ok(response) => response,
        // The panic hook has logged the message.
        Err(_) => {
            tracing::error!(%method, path, "a handler panicked");
            return HttpError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal error: see the log of the instance",
            )
            .into_response();
        }
    };
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || is_json(response.headers()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, MESSAGE_BYTES_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let message = match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            format!("{path} does not support {method}: see the header Allow")
        }
        StatusCode::NOT_FOUND if text.is_empty() => format!("there is no {path}"),
        _ if text.is_empty() => status.canonical_reason().unwrap_or("refused").to_lowercase(),
        _ => text,
    };
    let mut headers = parts.headers;
    headers.remove(header::CONTENT_TYPE);
    headers.remove(header::CONTENT_LENGTH);
    (status, headers, Json(json!({ "error": message }))).into_response()
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/json"))
}

async fn catch_panic<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = Box::pin(future);
    poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// A complete response, for connections without a request that the router could answer. `status` may include headers.
pub(super) fn raw(status: &str, message: &str) -> String {
    let body = json!({ "error": message }).to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
