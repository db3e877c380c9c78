//! `/api/v1/dead-letters`: records that could not be processed, and their way back to their topics. They show what respondents
//! answered, so all of it is guarded.

use std::{sync::Arc, time::Duration};

use axum::{
    Json as JsonBody,
    extract::{Path, Request, State},
    http::{StatusCode, header},
};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::sync::Semaphore;

use crate::{
    http::{
        HttpState, body,
        error::HttpError,
        parameters::{Named, Parameters},
    },
    processors::dead_letters::{
        DeadLetters, DeadLettersError, LISTED_MAX, LetterId, NotAnId, Replayed, Wanted,
    },
};
use foretell_streams::time::EventTime;

/// The topic of dead letters, which one request reads at a time.
#[derive(Clone)]
pub struct DeadLetterAccess {
    letters: DeadLetters,
    free: Arc<Semaphore>,
}

/// Time that a request may take to read the topic, with the wait for another one that reads. A replay goes on after it.
const READ_WITHIN: Duration = Duration::from_secs(10);
const LISTED: u64 = 50;

pub(super) const PARAMETERS: &[Named] = &[
    (
        "class",
        "Only dead letters of this [class](operations.md#dead-letters). One that does not exist is refused, with those that do.",
    ),
    ("topic", "Only those whose record was in this topic, by its full name."),
    ("since", "Only those written at this time or later, in milliseconds since 1970."),
    ("limit", "Maximum number of dead letters, from 1 to 1000. Default: 50."),
];

/// The body of a replay.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Order {
    ids: Vec<String>,
    classes: Vec<String>,
    topics: Vec<String>,
    since: Option<i64>,
    all: bool,
    dry_run: bool,
}

impl DeadLetterAccess {
    /// Lets requests read and replay `letters`.
    #[must_use]
    pub fn new(letters: DeadLetters) -> Self {
        Self { letters, free: Arc::new(Semaphore::new(1)) }
    }

    /// Reads on a thread that may block.
    async fn read<T: Send + 'static, E: Into<DeadLettersError> + Send + 'static>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, E> + Send + 'static,
    ) -> Result<T, HttpError> {
        let (access, free) = (self.clone(), Arc::clone(&self.free));
        let reading = async move {
            let permit = free.acquire_owned().await.map_err(|_| unavailable("it is closed"))?;
            let task = tokio::task::spawn_blocking(move || {
                let answer = read(&access);
                drop(permit);
                answer
            });
            let read = task.await.map_err(|_| unavailable("reading failed"))?;
            read.map_err(|error| match error.into() {
                DeadLettersError::Broker(error) => unavailable(&error.to_string()),
                error @ (DeadLettersError::UnknownClass { .. }
                | DeadLettersError::UnknownTopic { .. }) => wrong(error.to_string()),
            })
        };
        match tokio::time::timeout(READ_WITHIN, reading).await {
            Ok(answer) => answer,
            Err(_) => Err(unavailable("they are still being read or replayed")),
        }
    }
}

fn unavailable(reason: &str) -> HttpError {
    let message = format!("the dead letters are not available now: {reason}; try again");
    HttpError::new(StatusCode::SERVICE_UNAVAILABLE, message).with_header(header::RETRY_AFTER, "1")
}

fn wrong(message: impl Into<String>) -> HttpError {
    HttpError::new(StatusCode::BAD_REQUEST, message)
}

/// `GET /api/v1/dead-letters`
pub(super) async fn list(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Result<JsonBody<Json>, HttpError> {
    parameters.check(PARAMETERS)?;
    let max = u64::try_from(LISTED_MAX).unwrap_or(LISTED);
    let limit = usize::try_from(parameters.number("limit", LISTED, max)?).unwrap_or(LISTED_MAX);
    let list = |name: &str| parameters.text(name).map(ToOwned::to_owned).into_iter().collect();
    let since = parameters.text("since").map(|text| {
        let time = text.parse().map(EventTime);
        time.map_err(|_| wrong(format!("parameter `since` is {text:?}: it must be a whole number")))
    });
    let wanted = Wanted {
        ids: Vec::new(),
        classes: list("class"),
        topics: list("topic"),
        since: since.transpose()?,
    };
    if wanted.is_everything() {
        let newest = state.dead_letters.read(move |access| access.letters.newest(limit)).await?;
        return Ok(JsonBody(json!({ "dead_letters": newest })));
    }
    let listing =
        state.dead_letters.read(move |access| access.letters.list(&wanted, limit)).await?;
    Ok(JsonBody(json!({ "dead_letters": listing.letters, "classes": listing.classes })))
}

/// `GET /api/v1/dead-letters/{id}`
pub(super) async fn show(
    State(state): State<HttpState>,
    Path(id): Path<String>,
    parameters: Parameters,
) -> Result<JsonBody<Json>, HttpError> {
    parameters.check(&[])?;
    let missing = format!("there is no dead letter {id:?}");
    let missing = || HttpError::new(StatusCode::NOT_FOUND, missing);
    let Ok(id) = id.parse() else { return Err(missing()) };
    let shown = state.dead_letters.read(move |access| access.letters.show(id)).await?;
    shown.map(JsonBody).ok_or_else(missing)
}

fn parsed(id: &str) -> Result<LetterId, HttpError> {
    id.parse().map_err(|error: NotAnId| wrong(error.to_string()))
}

/// `POST /api/v1/dead-letters/replay`
pub(super) async fn replay(
    State(state): State<HttpState>,
    parameters: Parameters,
    request: Request,
) -> Result<JsonBody<Replayed>, HttpError> {
    parameters.check(&[])?;
    let json: Json = body::json(request, state.read_timeout).await?;
    let order: Order = serde_json::from_value(json).map_err(|error| wrong(error.to_string()))?;
    let ids = order.ids.iter().map(|id| parsed(id)).collect::<Result<Vec<LetterId>, _>>()?;
    let since = order.since.map(EventTime);
    let wanted = Wanted { ids, classes: order.classes, topics: order.topics, since };
    if !order.all && wanted.is_everything() {
        return Err(wrong("say which: `ids`, `classes`, `topics` or `since`, or `\"all\": true`"));
    }
    let replay = move |access: &DeadLetterAccess| {
        access.letters.replay(&wanted, order.dry_run, &mut |_, _| {})
    };
    Ok(JsonBody(state.dead_letters.read(replay).await?))
}
