//! Scores over HTTP without the stream, by the protocols that clients exist for. Each protocol is translated to rows, and the
//! scores to its answer.
//!
//! ```text
//!   /invocations (MLflow, SageMaker) ─┐                     ┌▶ score (on the serving model) ─▶ the protocol's answer
//!   /v2/…/infer (Open Inference)     ─┴▶ rows by question ──┤
//!                                                           └▶ with `serving.journal`: written as events first
//! ```

pub(super) mod invocations;
pub(super) mod open_inference;
pub(super) mod routes;
mod tensors;

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value as Json, json};

use crate::{
    events::questionnaire::{AnswerRow, QuestionnaireSchema},
    http::{
        HttpState,
        api::{stopping, write},
        error::HttpError,
        reasons::json_of,
    },
    processors::{
        gateway::GatewayError,
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
    /// Whether each row is also written as an event.
    pub is_journal: bool,
}

/// The header of answers with the version of the model that scored.
const MODEL_VERSION: HeaderName = HeaderName::from_static("foretell-model-version");

/// Rows up to this are scored at once: they take less time than a change of threads.
const AT_ONCE_MAX: usize = 16;

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
    async fn answer(self, state: &HttpState) -> Result<Scored, HttpError> {
        let Self { rows, scorer, reasons, protocol } = self;
        let rows_max = state.serving.rows_max;
        if rows.is_empty() || rows.len() > rows_max {
            let message = format!(
                "a request must have 1 to {rows_max} rows ([serving] rows_max), and this one has {}",
                rows.len()
            );
            return Err(invalid(message));
        }
        let count = rows.len();
        let events = state.gateway.event_schema();
        let answers = answers_of(&rows, events)?;
        if state.serving.is_journal {
            journal(state, rows).await?;
        }
        let scored = if count <= AT_ONCE_MAX && reasons.is_none() {
            let scores = scorer.score(events, &answers);
            Scored { scorer, scores, reasons: None }
        } else {
            // On a thread that may block: many rows, or their reasons, take milliseconds.
            let gateway = Arc::clone(&state.gateway);
            let work = move || {
                let events = gateway.event_schema();
                let scores = scorer.score(events, &answers);
                let reasons = reasons
                    .map(|most| reasons_of(&scorer, events, &answers, &scores, most))
                    .transpose()?;
                Ok::<Scored, NoReasons>(Scored { scorer, scores, reasons })
            };
            let scored = tokio::task::spawn_blocking(work).await.map_err(|_| stopping())?;
            scored.map_err(|error| invalid(error.to_string()))?
        };
        state.metrics.rows_scored(protocol, count);
        Ok(scored)
    }
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
async fn journal(state: &HttpState, rows: Vec<Row>) -> Result<(), HttpError> {
    let mut records = Vec::new();
    for (number, row) in rows.into_iter().enumerate() {
        let entry = state.gateway.event(&Json::Object(row), None, None);
        records.push(entry.map_err(|error| HttpError::from(error).at_row(number))?.record);
    }
    let mut writes = Vec::new();
    for record in records {
        writes.push(write(&state.gateway, record)?);
    }
    for written in writes {
        written.await?;
    }
    Ok(())
}

impl HttpError {
    /// The error of a row, whose number it adds.
    fn at_row(self, number: usize) -> Self {
        self.with("row", number)
    }
}

fn invalid(message: impl Into<String>) -> HttpError {
    HttpError::new(StatusCode::BAD_REQUEST, message)
}

/// The models, if the protocols are enabled.
fn enabled(state: &HttpState) -> Result<(), HttpError> {
    if state.serving.is_enabled {
        return Ok(());
    }
    let message = "the serving protocols are off: set [serving] enabled = true";
    Err(HttpError::new(StatusCode::NOT_FOUND, message))
}

/// The model that serves.
fn champion(state: &HttpState) -> Result<RowScorer, HttpError> {
    enabled(state)?;
    state.overview.serving.scorer().map(RowScorer::new).ok_or_else(|| {
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
pub(super) async fn ping(State(state): State<HttpState>) -> Result<Response, HttpError> {
    let scorer = champion(&state)?;
    Ok((headers(&scorer), axum::Json(json!({ "ready": true }))).into_response())
}

/// `GET /version`: the release.
pub(super) async fn version(State(state): State<HttpState>) -> Result<String, HttpError> {
    enabled(&state)?;
    Ok(format!("{}\n", env!("CARGO_PKG_VERSION")))
}
