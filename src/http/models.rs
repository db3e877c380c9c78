//! `/api/v1/models`, `/api/v1/decisions` and `/api/v1/trainings`: the models and the decisions about them, and commands to
//! the learner, which are written to a topic and carried out by whichever instance learns.

use std::{sync::Arc, time::Duration};

use axum::{
    Json as JsonBody,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Value as Json, json};
use tokio::sync::Semaphore;

use crate::{
    events::command::CommandKind,
    http::{
        HttpState,
        api::{idempotency_key, write},
        body,
        error::HttpError,
        parameters::{Named, Parameters},
    },
    processors::{
        gateway::CommandRequest,
        library::{DECISIONS_MAX, Library, LibraryError},
        model_archive::{ArchiveError, UnknownModel},
    },
};

/// The library, which one request reads at a time.
#[derive(Clone)]
pub struct LibraryAccess {
    library: Arc<Library>,
    free: Arc<Semaphore>,
}

/// Time that a request may take to read, with the wait for another one that reads. Reading goes on after it, so that a
/// later request finds more in memory.
const READ_WITHIN: Duration = Duration::from_secs(10);

const DECISIONS: u64 = 50;

pub(super) const DECISION_PARAMETERS: &[Named] = &[
    ("limit", "Maximum number of decisions, from 1 to 1000. Default: 50."),
    ("command_id", "Only the decision that answers this command; none until there is one."),
];

impl LibraryAccess {
    /// Lets requests read `library`.
    #[must_use]
    pub fn new(library: Library) -> Self {
        Self { library: Arc::new(library), free: Arc::new(Semaphore::new(1)) }
    }

    /// Reads on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Library) -> Result<T, LibraryError> + Send + 'static,
    ) -> Result<T, HttpError> {
        let (library, free) = (Arc::clone(&self.library), Arc::clone(&self.free));
        let reading = async move {
            let permit = free.acquire_owned().await.map_err(|_| unavailable("it is closed"))?;
            let task = tokio::task::spawn_blocking(move || {
                let answer = read(&library);
                drop(permit);
                answer
            });
            task.await.map_err(|_| unavailable("reading failed"))?.map_err(HttpError::from)
        };
        match tokio::time::timeout(READ_WITHIN, reading).await {
            Ok(answer) => answer,
            Err(_) => Err(unavailable("they are being read")),
        }
    }
}

fn unavailable(reason: &str) -> HttpError {
    let message = format!("the models and decisions are not available now: {reason}; try again");
    HttpError::new(StatusCode::SERVICE_UNAVAILABLE, message).with_header(header::RETRY_AFTER, "1")
}

impl From<LibraryError> for HttpError {
    fn from(error: LibraryError) -> Self {
        let message = error.to_string();
        match error {
            LibraryError::Unknown(
                UnknownModel::None { near, .. } | UnknownModel::Several { near, .. },
            ) => Self::new(StatusCode::NOT_FOUND, message).with("near", near),
            LibraryError::Unknown(UnknownModel::NoAlias { .. })
            | LibraryError::Archive(ArchiveError::Unknown(_)) => {
                Self::new(StatusCode::NOT_FOUND, message)
            }
            LibraryError::Archive(
                error @ (ArchiveError::Bundle { .. } | ArchiveError::OtherVersion { .. }),
            ) => {
                tracing::warn!(%error, "a stored model cannot be shown");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
            }
            LibraryError::Archive(ArchiveError::Broker(_)) | LibraryError::Broker(_) => {
                unavailable(&message)
            }
        }
    }
}

/// `GET /api/v1/models`
pub(super) async fn list(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Result<Response, HttpError> {
    parameters.check(&[])?;
    answer(&state.library.read(Library::summary).await?)
}

/// `GET /api/v1/models/{version}`
pub(super) async fn show(
    State(state): State<HttpState>,
    Path(version): Path<String>,
    parameters: Parameters,
) -> Result<Response, HttpError> {
    parameters.check(&[])?;
    answer(&state.library.read(move |library| library.details(Some(&version))).await?)
}

/// `GET /api/v1/decisions`
pub(super) async fn decisions(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Result<Response, HttpError> {
    parameters.check(DECISION_PARAMETERS)?;
    let max = u64::try_from(DECISIONS_MAX).unwrap_or(DECISIONS);
    let limit = usize::try_from(parameters.number("limit", DECISIONS, max)?).unwrap_or(usize::MAX);
    let command = parameters.text("command_id").map(ToOwned::to_owned);
    let mut decisions = state.library.read(Library::decisions).await?;
    if let Some(command) = command {
        decisions.retain(|decision| decision.answers(&command));
    }
    decisions.truncate(limit);
    answer(&json!({ "decisions": decisions }))
}

/// Large numbers of features make large bodies, which are small beside the bundles.
fn answer(body: &impl Serialize) -> Result<Response, HttpError> {
    let body = serde_json::to_value(body).map_err(|error| {
        HttpError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot write the answer: {error}"),
        )
    })?;
    Ok(JsonBody(body).into_response())
}

/// `POST /api/v1/models/{version}/promote`
pub(super) async fn promote(
    State(state): State<HttpState>,
    Path(version): Path<String>,
    parameters: Parameters,
    request: Request,
) -> Result<Response, HttpError> {
    parameters.check(&[])?;
    let version = state.library.read(move |library| library.version_of(&version)).await?;
    command(&state, CommandKind::Promote, Some(version), request).await
}

/// `POST /api/v1/models/rollback`
pub(super) async fn roll_back(
    State(state): State<HttpState>,
    parameters: Parameters,
    request: Request,
) -> Result<Response, HttpError> {
    parameters.check(&[])?;
    command(&state, CommandKind::RollBack, None, request).await
}

/// `POST /api/v1/trainings`
pub(super) async fn train(
    State(state): State<HttpState>,
    parameters: Parameters,
    request: Request,
) -> Result<Response, HttpError> {
    parameters.check(&[])?;
    command(&state, CommandKind::Retrain, None, request).await
}

/// Writes a command with the reason in the body.
async fn command(
    state: &HttpState,
    kind: CommandKind,
    version: Option<String>,
    request: Request,
) -> Result<Response, HttpError> {
    let key = idempotency_key(request.headers())?;
    let json: Json = body::json(request, state.read_timeout).await?;
    let request = CommandRequest::from_json(kind, version, &json)?;
    let (command, record) = state.gateway.command(request, key.as_deref())?;
    write(&state.gateway, record)?.await?;
    let accepted = json!({
        "command_id": command.command_id, "command": kind.name(),
        "model_version": command.model_version,
    });
    Ok((StatusCode::ACCEPTED, JsonBody(accepted)).into_response())
}
