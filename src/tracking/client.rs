//! Requests to MLflow's REST API, version 2.0, and what their answers mean.
//!
//! ```text
//!   2xx                                        done
//!   no answer, 401, 403, 408, 425, 429, 5xx    Unavailable: the same call may succeed later
//!   a 4xx with one of MLflow's error codes     Refused: the same call fails again
//! ```

use std::{error::Error, fs, io::Read as _, time::Duration};

use reqwest::{
    Certificate, Method, StatusCode,
    blocking::{Body, RequestBuilder, Response},
    header, redirect,
};
use serde_json::Value as Json;

use crate::config::{MlflowCredentials, MlflowSettings};
use foretell_streams::runtime::StopSignal;

const API: &str = "api/2.0/mlflow";

/// Maximum size of a response that is read. A page of ten runs with all their metrics has less than a megabyte.
const RESPONSE_BYTES_MAX: u64 = 16 << 20;
/// Maximum length of an error message of the server, in characters.
const MESSAGE_MAX: usize = 500;

/// Invalid settings. The message shows no secret.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file with certificates cannot be used.
    #[error("{named} ca_file: {path} {problem}")]
    Certificates {
        /// Source and section.
        named: String,
        /// The file.
        path: String,
        /// Why.
        problem: String,
    },
    /// A header cannot hold the credentials, or TLS cannot be set up.
    #[error("{named}: {problem}")]
    Client {
        /// Source and section.
        named: String,
        /// Why.
        problem: String,
    },
}

/// The failure of a request, named after the recovery.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TrackingError {
    /// The server does not answer, is too busy, failed, or rejected the credentials: try again later.
    #[error("{reason}")]
    Unavailable {
        reason: String,
        /// The wait that the server asked for.
        retry_after: Option<Duration>,
    },
    /// The same request would be refused again.
    #[error("{code}: {message}")]
    Refused { code: String, message: String },
    /// This process must stop its requests: the partition is revoked, or the process stops.
    #[error("cancelled")]
    Cancelled,
}

impl TrackingError {
    pub(super) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), retry_after: None }
    }

    pub(super) fn refused(code: &str, message: impl Into<String>) -> Self {
        Self::Refused { code: code.to_owned(), message: message.into() }
    }

    /// Whether the same request may succeed later.
    pub(super) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    pub(super) fn is(&self, expected: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == expected)
    }
}

/// A client of one server.
pub(super) struct Client {
    http: reqwest::blocking::Client,
    uri: String,
    credentials: MlflowCredentials,
    /// No request begins after it is set.
    cancel: StopSignal,
}

impl Client {
    /// Checks the settings. Connects to nothing.
    ///
    /// # Errors
    /// [`SetupError`].
    pub(super) fn new(settings: &MlflowSettings) -> Result<Self, SetupError> {
        let named = || settings.named.clone();
        let mut builder = reqwest::blocking::Client::builder()
            .user_agent(concat!("foretell/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .timeout(settings.timeout)
            .pool_max_idle_per_host(1);
        if let Some(path) = &settings.ca_file {
            let refuse = |problem: String| SetupError::Certificates {
                named: named(),
                path: path.display().to_string(),
                problem,
            };
            let pem = fs::read(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
            let trusted = Certificate::from_pem_bundle(&pem);
            let trusted = trusted.map_err(|error| refuse(format!("is not PEM: {error}")))?;
            if trusted.is_empty() {
                return Err(refuse("holds no certificate".to_owned()));
            }
            builder = builder.tls_certs_merge(trusted);
        }
        let http = builder.build();
        let http = http
            .map_err(|error| SetupError::Client { named: named(), problem: error.to_string() })?;
        let uri = settings.tracking_uri.clone();
        let credentials = settings.credentials.clone();
        let client = Self { http, uri, credentials, cancel: StopSignal::default() };
        // Builds a request, which fails if a header cannot hold the credentials or the address is malformed.
        let request = client.request(Method::GET, API).build();
        request.map_err(|_| SetupError::Client {
            named: named(),
            problem: "tracking_uri is no address, or a header cannot hold the credentials"
                .to_owned(),
        })?;
        Ok(client)
    }

    /// From now on, another thread stops the requests by this signal.
    pub(super) fn stop_by(&mut self, cancel: StopSignal) {
        self.cancel = cancel;
    }

    pub(super) fn post(&self, path: &str, body: &Json) -> Result<Json, TrackingError> {
        self.call(Method::POST, path, body)
    }

    pub(super) fn patch(&self, path: &str, body: &Json) -> Result<Json, TrackingError> {
        self.call(Method::PATCH, path, body)
    }

    pub(super) fn delete(&self, path: &str, body: &Json) -> Result<Json, TrackingError> {
        self.call(Method::DELETE, path, body)
    }

    /// Stores a file; `path` is from the server's address on.
    pub(super) fn put(&self, path: &str, content: Vec<u8>) -> Result<Json, TrackingError> {
        self.send(self.request(Method::PUT, path).body(Body::from(content)))
    }

    fn call(&self, method: Method, path: &str, body: &Json) -> Result<Json, TrackingError> {
        self.send(self.request(method, &format!("{API}/{path}")).json(body))
    }

    pub(super) fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Json, TrackingError> {
        let mut address = format!("{API}/{path}");
        for (number, (name, value)) in query.iter().enumerate() {
            address.push(if number == 0 { '?' } else { '&' });
            address += name;
            address.push('=');
            address.extend(percent_encoding::utf8_percent_encode(
                value,
                percent_encoding::NON_ALPHANUMERIC,
            ));
        }
        self.send(self.request(Method::GET, &address))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}/{path}", self.uri));
        match &self.credentials {
            MlflowCredentials::None => request,
            MlflowCredentials::Basic(user, password) => {
                request.basic_auth(user, Some(password.reveal()))
            }
            MlflowCredentials::Bearer(token) => request.bearer_auth(token.reveal()),
        }
    }

    fn send(&self, request: RequestBuilder) -> Result<Json, TrackingError> {
        if self.cancel.is_stopped() {
            return Err(TrackingError::Cancelled);
        }
        let response = request.send();
        let response =
            response.map_err(|error| TrackingError::unavailable(chain(&error.without_url())))?;
        answer(response)
    }
}

/// The meaning of a response.
fn answer(response: Response) -> Result<Json, TrackingError> {
    let status = response.status();
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    let mut bytes = Vec::new();
    if let Err(error) = response.take(RESPONSE_BYTES_MAX).read_to_end(&mut bytes) {
        return Err(TrackingError::unavailable(format!("the response is incomplete: {error}")));
    }
    let body: Option<Json> = serde_json::from_slice(&bytes).ok();
    if status.is_success() {
        return match body {
            Some(body) => Ok(body),
            None if bytes.is_empty() => Ok(Json::Null),
            None => Err(TrackingError::unavailable(
                "the response is not JSON: is tracking_uri the address of an MLflow server?",
            )),
        };
    }
    let code = body.as_ref().and_then(|body| body.get("error_code")?.as_str());
    let message = body.as_ref().and_then(|body| body.get("message")?.as_str());
    let passes = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    // A body that is too large is refused by a server or proxy without an error code.
    let code = code.or((status == StatusCode::PAYLOAD_TOO_LARGE).then_some("PAYLOAD_TOO_LARGE"));
    match code.filter(|_| status.is_client_error() && !passes.contains(&status)) {
        Some(code) => Err(TrackingError::refused(code, shortened(message.unwrap_or_default()))),
        None => {
            let text = String::from_utf8_lossy(&bytes);
            let reason = format!("status {status}: {}", shortened(message.unwrap_or(&text)));
            let retry_after = retry_after.map(|seconds| Duration::from_secs(seconds.into()));
            Err(TrackingError::Unavailable { reason, retry_after })
        }
    }
}

/// One line, of at most [`MESSAGE_MAX`] characters.
fn shortened(text: &str) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    words.join(" ").chars().take(MESSAGE_MAX).collect()
}

/// The messages of an error and all its causes.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |message, cause| format!("{message}: {cause}"))
}
