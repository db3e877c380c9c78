//! Error responses: problem details (RFC 9457). All errors of the router have this form, also those of axum's extractors, of
//! unknown paths and of panics.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
};

use axum::{
    body::to_bytes,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};

use crate::processors::gateway::GatewayError;

use crate::http::problems::problem_of;

/// The media type of problem details.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

#[derive(Debug)]
pub(super) struct HttpError {
    status: StatusCode,
    headers: Vec<(HeaderName, &'static str)>,
    detail: String,
    /// Members besides those of RFC 9457, for programs.
    members: Vec<(String, Value)>,
}

impl HttpError {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), detail: detail.into(), members: Vec::new() }
    }

    /// Adds a member to the body, for programs.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// What is wrong with this request.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The body, which is also the result of one item of an array.
    pub(super) fn into_body(self) -> Value {
        problem_body(self.status, self.detail, self.members)
    }
}

/// Problem details: `type` and `title` follow from the status, `detail` is about this request.
fn problem_body(status: StatusCode, detail: String, members: Vec<(String, Value)>) -> Value {
    let problem = problem_of(status.as_u16());
    let title = problem.map(|problem| problem.title).or(status.canonical_reason());
    let kind = problem.map_or_else(|| "about:blank".to_owned(), |problem| problem.uri());
    let mut body = Map::from_iter([
        ("type".to_owned(), kind.into()),
        ("title".to_owned(), title.unwrap_or("Error").into()),
        ("status".to_owned(), status.as_u16().into()),
        ("detail".to_owned(), detail.into()),
    ]);
    body.extend(members);
    Value::Object(body)
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
        let kind = [(header::CONTENT_TYPE, PROBLEM_JSON)];
        (self.status, headers, kind, self.into_body().to_string()).into_response()
    }
}

/// Bound of an error message of axum.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Middleware that turns errors into problem details, and panics into errors.
pub(super) async fn as_problems(request: Request, next: Next) -> Response {
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
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    (status, headers, problem_body(status, message, Vec::new()).to_string()).into_response()
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/json") || kind == PROBLEM_JSON)
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

/// A complete response, for connections without a request that the router could answer. Each of `headers` ends its line.
pub(super) fn raw(status: StatusCode, headers: &str, detail: &str) -> String {
    let body = problem_body(status, detail.to_owned(), Vec::new()).to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Type: {PROBLEM_JSON}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
