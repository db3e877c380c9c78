//! Scores over HTTP without the stream, by the protocols that clients exist for. Each protocol is translated to rows, and the
//! scores to its answer.
//!
//! ```text
//!   /invocations (MLflow, SageMaker) ─┐                     ┌▶ score (on the serving model) ─▶ the protocol's answer
//!   /v2/…/infer (Open Inference)     ─┴▶ rows by question ──┤
//!                                                           └▶ with `serving.journal`: written as events first
//! ```

mod columns;
mod formats;
pub(super) mod invocations;
mod json_rows;
mod model_server;
pub(super) mod open_inference;
pub(super) mod routes;
mod tensors;

use std::{num::NonZero, sync::Arc, thread, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value as Json, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use model_server::{ModelServer, serve_model};

use crate::{
    events::questionnaire::{AnswerRow, QuestionnaireSchema},
    http::{
        HttpMetrics,
        api::{stopping, write},
        error::HttpError,
        reasons::json_of,
    },
    processors::{
        gateway::{Gateway, GatewayError},
        model_table::Serving,
        reasons::NoReasons,
        row_scorer::{RowScore, RowScorer},
    },
};

/// Settings of the serving protocols.
#[derive(Clone, Copy, Debug)]
pub struct ServingSettings {
    /// Whether they are served.
    pub is_enabled: bool,
    /// Maximum number of rows in a request.
    pub rows_max: usize,
    /// Maximum size of a body.
    pub body_bytes_max: usize,
}

/// What the serving protocols need: a model and the schema of its answers.
#[derive(Clone)]
pub struct ServingState {
    /// The name of the application, which is that of the model.
    pub application: Arc<str>,
    /// The models.
    pub models: Serving,
    /// The event schema, with the questions of all sources.
    pub schema: Arc<QuestionnaireSchema>,
    /// Writes each row as an event; none without `serving.journal`.
    pub journal: Option<Arc<Gateway>>,
    pub settings: ServingSettings,
    pub metrics: HttpMetrics,
    /// Timeout of reading a body.
    pub read_timeout: Duration,
    /// Bounds the memory of large requests.
    pub large: LargeRequests,
}

/// The large requests of all connections: some for each core are read and scored at a time, and the others wait unread. So they take
/// the memory of a few bodies, and not of one for each connection.
#[derive(Clone, Debug)]
pub struct LargeRequests(Arc<Semaphore>);

/// One is scored while another is read.
const LARGE_PER_CORE: usize = 2;

impl LargeRequests {
    /// For a machine with this number of cores.
    #[must_use]
    pub fn for_cores(cores: usize) -> Self {
        Self(Arc::new(Semaphore::new(LARGE_PER_CORE * cores)))
    }

    /// A permit for a request that is large, or whose length is not known.
    async fn enter(&self, headers: &HeaderMap) -> Option<OwnedSemaphorePermit> {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let length: Option<usize> = length.and_then(|length| length.parse().ok());
        if length.is_some_and(|length| length <= AT_ONCE_BYTES_MAX) {
            return None;
        }
        // It is never closed.
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

/// The header of answers with the version of the model that scored.
const MODEL_VERSION: HeaderName = HeaderName::from_static("foretell-model-version");

/// Rows up to this are scored at once: they take less time than a change of threads.
const AT_ONCE_MAX: usize = 16;
/// Bodies up to this are read at once, which takes some 100 µs.
const AT_ONCE_BYTES_MAX: usize = 16 << 10;

/// A row: values by the names of fields of the event schema.
type Row = Map<String, Json>;

/// Rows with their scores.
struct Scored {
    scorer: RowScorer,
    scores: Vec<RowScore>,
    /// The reasons of each row, if they are asked for.
    reasons: Option<Vec<Json>>,
}

/// A request to score.
struct ScoreRequest {
    rows: Vec<Row>,
    scorer: RowScorer,
    /// Maximum number of reasons of each row.
    reasons: Option<usize>,
    /// The protocol, for the metric.
    protocol: &'static str,
}

impl ScoreRequest {
    async fn answer(self, state: &ServingState) -> Result<Scored, HttpError> {
        let Self { rows, scorer, reasons, protocol } = self;
        let rows_max = state.settings.rows_max;
        if rows.is_empty() || rows.len() > rows_max {
            let message = format!(
                "a request must have 1 to {rows_max} rows ([serving] rows_max), and this one has {}",
                rows.len()
            );
            return Err(invalid(message));
        }
        let count = rows.len();
        let is_long = count > AT_ONCE_MAX || reasons.is_some();
        let events = Arc::clone(&state.schema);
        let (rows, answers) = perhaps_elsewhere(is_long, move || {
            let answers = answers_of(&rows, &events)?;
            Ok((rows, answers))
        })
        .await?;
        if let Some(gateway) = &state.journal {
            journal(gateway, rows).await?;
        }
        let events = Arc::clone(&state.schema);
        let scored = perhaps_elsewhere(is_long, move || {
            let scores = scorer.score(&events, &answers);
            let reasons = reasons.map(|most| reasons_of(&scorer, &events, &answers, &scores, most));
            let reasons = reasons.transpose().map_err(|error| invalid(error.to_string()))?;
            Ok(Scored { scorer, scores, reasons })
        })
        .await?;
        state.metrics.rows_scored(protocol, count);
        Ok(scored)
    }
}

/// Runs work that `is_long` on a thread that may block: it takes milliseconds, in which no other request would be answered.
async fn perhaps_elsewhere<T: Send + 'static>(
    is_long: bool,
    work: impl FnOnce() -> Result<T, HttpError> + Send + 'static,
) -> Result<T, HttpError> {
    if !is_long {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| stopping())?
}

fn answers_of(rows: &[Row], events: &QuestionnaireSchema) -> Result<Vec<AnswerRow>, HttpError> {
    let rows = rows.iter().enumerate();
    let answers = rows.map(|(number, row)| {
        events.answers_of_json(row).map_err(|error| {
            let error = HttpError::from(GatewayError::from(error));
            error.at_row(number)
        })
    });
    answers.collect()
}

fn reasons_of(
    scorer: &RowScorer,
    events: &QuestionnaireSchema,
    answers: &[AnswerRow],
    scores: &[RowScore],
    most: usize,
) -> Result<Vec<Json>, NoReasons> {
    let rows = answers.iter().zip(scores);
    let reasons = rows.map(|(answers, score)| {
        let reasons = scorer.reasons(events, answers, score, most)?;
        Ok(json_of(&reasons, answers, events))
    });
    reasons.collect()
}

/// Writes each row as an event, and waits until the broker has them. All are checked before the first is written.
async fn journal(gateway: &Gateway, rows: Vec<Row>) -> Result<(), HttpError> {
    let mut records = Vec::new();
    for (number, row) in rows.into_iter().enumerate() {
        let entry = gateway.event(&Json::Object(row), None, None);
        records.push(entry.map_err(|error| HttpError::from(error).at_row(number))?.record);
    }
    let mut writes = Vec::new();
    for record in records {
        writes.push(write(gateway, record)?);
    }
    for written in writes {
        written.await?;
    }
    Ok(())
}

impl HttpError {
    /// The error with its detail as a further member, which clients of a protocol read.
    fn with_detail_as(self, member: &'static str) -> Self {
        let detail = self.detail().to_owned();
        self.with(member, detail)
    }

    /// The error of a row, whose number it adds.
    fn at_row(self, number: usize) -> Self {
        self.with("row", number)
    }
}

fn invalid(message: impl Into<String>) -> HttpError {
    HttpError::new(StatusCode::BAD_REQUEST, message)
}

/// Checks that the protocols are enabled.
fn enabled(state: &ServingState) -> Result<(), HttpError> {
    if state.settings.is_enabled {
        return Ok(());
    }
    let message = "the serving protocols are off: set [serving] enabled = true";
    Err(HttpError::new(StatusCode::NOT_FOUND, message))
}

/// The model that serves.
fn champion(state: &ServingState) -> Result<RowScorer, HttpError> {
    enabled(state)?;
    state.models.scorer().map(RowScorer::new).ok_or_else(|| {
        let message = "no model serves yet: try again when GET /readyz says so";
        HttpError::new(StatusCode::SERVICE_UNAVAILABLE, message)
    })
}

/// The headers of an answer.
fn headers(scorer: &RowScorer) -> [(HeaderName, HeaderValue); 1] {
    let version = HeaderValue::from_str(scorer.version());
    [(MODEL_VERSION, version.unwrap_or(HeaderValue::from_static("")))]
}

/// `GET /ping`, `GET /health`, `GET /v2/health/ready`: 200 if a model serves.
pub(super) async fn ping(State(state): State<ServingState>) -> Result<Response, HttpError> {
    let scorer = champion(&state)?;
    Ok((headers(&scorer), axum::Json(json!({ "ready": true }))).into_response())
}

/// `GET /version`: the release.
pub(super) async fn version(State(state): State<ServingState>) -> Result<String, HttpError> {
    enabled(&state)?;
    Ok(format!("{}\n", env!("CARGO_PKG_VERSION")))
}

/// `GET /execution-parameters`: what SageMaker's batch transform may send, unless the job says it.
pub(super) async fn execution_parameters(
    State(state): State<ServingState>,
) -> Result<axum::Json<Json>, HttpError> {
    enabled(&state)?;
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    Ok(axum::Json(json!({
        "MaxConcurrentTransforms": threads,
        "BatchStrategy": "MULTI_RECORD",
        // The smallest that SageMaker knows is 1.
        "MaxPayloadInMB": (state.settings.body_bytes_max >> 20).max(1),
    })))
}
