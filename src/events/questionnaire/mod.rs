//! Questionnaire events, whose questions are known only from the schema that the user brings.
//!
//! ```text
//!  the user's .avsc + which field is what ─▶ QuestionnaireSchema ─▶ questions, in order
//!  Avro bytes ◀─▶ QuestionnaireCodec ◀─▶ QuestionnaireEvent ◀─ JSON, CSV cells (entry)
//!                                └───────── answer: one conversion for all ──────────┘
//! ```

use serde::{Deserialize, Serialize};

use foretell_streams::time::EventTime;

pub use crate::events::questionnaire::{
    answer::ReadingRules,
    codec::QuestionnaireCodec,
    entry::{EntryError, time_of_json},
    identity::{EventIdentity, Fingerprint},
    moment::MomentKind,
    schema::{
        MetadataFields, Question, QuestionKind, QuestionnaireSchema, QuestionnaireSchemaError,
        position_of,
    },
};

pub mod schema;

pub mod answer;

pub mod moment;

mod decimal;

mod uuid;

mod id;

pub mod entry;

pub mod codec;

pub mod identity;

/// The header of an event's record that takes answers back: names of questions, joined by commas. Avro can't tell a null
/// that was given on purpose from an answer that is not there.
pub const WITHDRAWN_HEADER: &str = "foretell.withdrawn";

/// A piece of a questionnaire: some or all answers of one respondent, at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuestionnaireEvent {
    /// Names this event; empty if its sender gave it no name.
    pub event_id: String,
    /// Who answers; never empty.
    pub respondent_id: String,
    /// When they answered.
    pub event_time: EventTime,
    /// The respondent has submitted the questionnaire.
    pub completed: bool,
    /// One for each of the schema's questions, in their order; none where there is no answer.
    pub answers: Vec<Option<Answer>>,
}

/// What somebody answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// A number; neither NaN nor infinite.
    Number(f64),
    /// A word, not empty: also `true` and `false`, an enum's symbol, and a `long` that is read as a category.
    Text(String),
    /// A whole number that no 64-bit float is: beyond 2^53 either way, and always then. An event carries it exactly; a
    /// model sees the nearest float.
    Whole(i64),
}

impl Answer {
    /// The answer as a model sees it: what is kept of it once its event was read.
    #[must_use]
    pub fn rounded(&self) -> Self {
        match self {
            Self::Whole(whole) => Self::Number(*whole as f64),
            Self::Number(_) | Self::Text(_) => self.clone(),
        }
    }
}

/// The class of dead letters, and of refusals over HTTP, for a value that Avro can carry and that its field can't have: a text
/// that is no UUID, an outcome's respondent that is none of the event schema's.
pub const INVALID_VALUE: &str = "invalid_value";
/// The same for an event or an outcome of nobody.
pub const MISSING_FIELD: &str = "missing_field";
