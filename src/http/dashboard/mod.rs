//! The dashboard at `/`: a page that is embedded in the binary, and the snapshots that it shows.
//!
//! ```text
//!   ApplicationBoard ──every second──▶ producer (while somebody watches) ──▶ changed sections ──▶ each viewer's queue
//!          └── a new viewer, GET /api/v1/dashboard ──▶ every section, and the history
//! ```

mod assets;
mod stream;

use axum::{
    Json as JsonBody,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value as Json};

use crate::{
    http::{HttpState, error::HttpError, parameters::Parameters},
    processors::instances::ApplicationBoard,
};

pub(super) use assets::{asset, page};

use stream::Viewers;

/// State of the dashboard's handlers.
#[derive(Clone)]
pub struct Dashboard {
    board: ApplicationBoard,
    viewers: Viewers,
}

/// The time after which a client that was refused may try again.
const RETRY_AFTER_SECONDS: &str = "5";

impl Dashboard {
    /// A dashboard of what `board` has, for at most `streams_max` viewers at once.
    #[must_use]
    pub fn new(board: ApplicationBoard, streams_max: usize) -> Self {
        let viewers = Viewers::new(board.clone(), streams_max);
        Self { board, viewers }
    }

    /// Ends every stream, and refuses new ones.
    pub(super) fn close(&self) {
        self.viewers.close();
    }
}

/// `GET /api/v1/dashboard`
pub(super) async fn snapshot(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Result<JsonBody<Map<String, Json>>, HttpError> {
    parameters.check(&[])?;
    Ok(JsonBody(whole(&state.dashboard.board)))
}

/// `GET /api/v1/stream`
pub(super) async fn stream(
    State(state): State<HttpState>,
    parameters: Parameters,
) -> Result<Response, HttpError> {
    parameters.check(&[])?;
    let Some(body) = state.dashboard.viewers.add() else {
        let message = "too many streams are open: close a dashboard, or raise [http] streams_max";
        return Err(HttpError::new(StatusCode::SERVICE_UNAVAILABLE, message)
            .with_header(header::RETRY_AFTER, RETRY_AFTER_SECONDS));
    };
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

/// Every section, and the history.
fn whole(board: &ApplicationBoard) -> Map<String, Json> {
    let mut snapshot = sections(board);
    snapshot.insert("history".to_owned(), Json::Object(board.history()));
    snapshot
}

/// The sections of the application; empty before the first second.
fn sections(board: &ApplicationBoard) -> Map<String, Json> {
    let application = board.read();
    let json = application.and_then(|application| serde_json::to_value(&*application).ok());
    match json {
        Some(Json::Object(sections)) => sections,
        Some(_) | None => Map::new(),
    }
}
