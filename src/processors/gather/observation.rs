//! Observations, and the other results of gathering an event.

use crate::events::{
    prediction::ScoreTrigger,
    questionnaire::{AnswerRow, EventIdentity},
};
use foretell_streams::time::{EventTime, WallTime};

/// The answers of one respondent so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The respondent.
    pub respondent_id: String,
    /// The event that made it due, or the last event of a session that ended.
    pub event_id: String,
    /// The identity of that event, or of the end of its session. The id of the prediction is derived from it, so that a repeated
    /// event has the same.
    pub identity: EventIdentity,
    /// The latest event time of its events, or the event time at which its session ended.
    pub event_time: EventTime,
    /// The record timestamp of the event.
    pub received_at: WallTime,
    /// Why it is scored now.
    pub trigger: ScoreTrigger,
    /// The answers, in the layout of the schema.
    pub answers: AnswerRow,
}

/// The result of gathering an event, or of the end of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Gathered {
    /// Another event of the respondent has arrived, which is no repeat. Forwarded only if a rule of actions is cancelled by it,
    /// after the sessions that ended before the event, and before what the event makes due.
    Arrived {
        /// The respondent.
        respondent_id: String,
    },
    /// The observation is scored now.
    Due(Observation),
    /// The observation is not scored now: it waits for more answers, or only observations that are not complete are scored.
    /// Forwarded only if a caller waits for the event.
    Incomplete {
        /// The event.
        event: RequestedEvent,
        /// The questions without an answer so far.
        missing: Vec<String>,
    },
    /// The event is a repeat. Forwarded only if a caller waits for it.
    Duplicate {
        /// The event.
        event: RequestedEvent,
        /// The id of the prediction of the first one, if there is a prediction.
        prediction_id: String,
    },
}

/// An event that a caller waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedEvent {
    /// The request.
    pub request_id: String,
    /// The respondent.
    pub respondent_id: String,
    /// The event.
    pub event_id: String,
}
