//! Questionnaire events, whose questions are defined by the configured event schema.
//!
//! ```text
//!  event schema + roles of its fields    ─▶ QuestionnaireSchema ─▶ questions, in order
//!  Avro bytes ◀─▶ QuestionnaireCodec ◀─▶ QuestionnaireEvent ◀─ JSON, CSV cells (entry)
//!                                └───────── answer: one conversion for all inputs ──────────┘
//!                                            row: the answers of an event, as encoded bytes that every reader borrows
//! ```
//!
//! Events may come from several topics ([`EventSource`]), each with a schema. [`unite`] gives each of these the questions of all,
//! so that every event has the same layout; an event of one source has no answers to the questions that its schema lacks.

use serde::{Deserialize, Serialize};

use foretell_streams::time::EventTime;

pub use crate::events::questionnaire::{
    answer::{Primitive, ReadingRules},
    codec::QuestionnaireCodec,
    derived::answer_fields,
    entry::{EntryError, time_of_json},
    identity::{EventIdentity, Fingerprint},
    moment::MomentKind,
    row::{AnswerRef, AnswerRow, AnswersRef, RowLayout, RowReader, RowType},
    schema::{MetadataFields, Question, QuestionKind, QuestionnaireSchema, position_of},
    schema_error::QuestionnaireSchemaError,
    source::{EventSchemas, EventSource},
    union::{Disunity, Problem, unite},
};

pub mod schema;

mod schema_error;

pub mod source;

mod union;

mod field_reader;

pub(in crate::events) mod spelling;

pub mod answer;

pub mod row;

pub mod derived;

pub mod moment;

mod decimal;

pub(in crate::events) mod uuid;

mod id;

mod json_schema;

pub mod entry;

pub mod codec;

pub mod identity;

/// The header of an event's record that withdraws answers: names of questions, separated by commas. In Avro, a null that was
/// given on purpose looks like a missing answer.
pub const WITHDRAWN_HEADER: &str = "foretell.withdrawn";

/// Some or all answers of one respondent, at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct QuestionnaireEvent {
    /// The topic that it comes from.
    pub source: EventSource,
    /// The id of the event; empty if it has none.
    pub event_id: String,
    /// The respondent; never empty.
    pub respondent_id: String,
    /// The time of the answers.
    pub event_time: EventTime,
    /// Whether the respondent has submitted the questionnaire.
    pub completed: bool,
    /// The answers, in the layout of the schema.
    pub answers: AnswerRow,
}

/// An owned answer, as stores hold it by the name of its question. [`AnswerRow`] has the answers of an observation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// A number; neither NaN nor infinite.
    Number(f64),
    /// A text, not empty. Also `true` and `false`, the symbol of an enum, and a `long` that is read as a category.
    Text(String),
    /// A whole number beyond 2^53 in either direction, which a 64-bit float cannot always represent. A model gets the nearest
    /// float.
    Whole(i64),
}

/// The class, of dead letters and of HTTP errors, of a value that Avro allows and its field does not: a text that is not a UUID,
/// or an outcome's respondent id that is not valid in the event schema.
pub const INVALID_VALUE: &str = "invalid_value";
/// The class of an event or an outcome without a respondent.
pub const MISSING_FIELD: &str = "missing_field";
