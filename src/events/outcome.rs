//! The outcome of a respondent: `schemas/outcome/v1.avsc`.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::events::questionnaire::{EntryError, INVALID_VALUE, MISSING_FIELD, QuestionnaireSchema};
use foretell_avro::{
    codec::{AvroCodec, AvroRecord, CodecSetupError},
    framing,
    registry::SchemaRegistry,
};
use foretell_streams::{
    codec::{Codec, CodecError},
    time::EventTime,
};

/// The name of the respondent's field.
pub const RESPONDENT_ID: &str = "respondent_id";

/// The true class of a respondent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The respondent.
    pub respondent_id: String,
    /// The time from which the label is true.
    pub outcome_time: EventTime,
    /// One of the configured classes.
    pub label: String,
    /// The producer's id of the outcome, if it has one.
    pub outcome_id: Option<String>,
}

impl AvroRecord for Outcome {
    const SCHEMA: &'static str = include_str!("../../schemas/outcome/v1.avsc");
}

/// Decodes outcomes, and converts their respondent ids, which are always text, to the form of the event schema.
pub struct OutcomeCodec {
    avro: AvroCodec<Outcome>,
    events: Arc<QuestionnaireSchema>,
}

impl OutcomeCodec {
    /// A codec for outcomes with the schema of `subject`, about respondents of the event schema `events`.
    ///
    /// # Errors
    /// [`CodecSetupError`], such as [`CodecSetupError::NotRegistered`].
    pub fn new(
        registry: Arc<dyn SchemaRegistry>,
        subject: &str,
        events: Arc<QuestionnaireSchema>,
    ) -> Result<Self, CodecSetupError> {
        Ok(Self { avro: AvroCodec::new(registry, subject)?, events })
    }
}

impl Codec<Outcome> for OutcomeCodec {
    fn encode(&self, outcome: &Outcome, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        self.avro.encode(outcome, bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Outcome, CodecError> {
        let mut outcome = self.avro.decode(bytes)?;
        let unreadable = |class, message| {
            let schema_id = framing::unframe(bytes).ok().map(|(id, _)| id);
            CodecError::Unreadable { class, schema_id, message }
        };
        let id = match self.events.respondent_id(&outcome.respondent_id) {
            Ok(id) if id.is_empty() => {
                let message = format!("field {RESPONDENT_ID} is missing or empty");
                return Err(unreadable(MISSING_FIELD, message));
            }
            Ok(id) if id.len() == outcome.respondent_id.len() && *id == *outcome.respondent_id => {
                return Ok(outcome);
            }
            Ok(id) => Cow::into_owned(id),
            Err(error) => return Err(unreadable(INVALID_VALUE, of_outcome(&error))),
        };
        outcome.respondent_id = id;
        Ok(outcome)
    }
}

/// The message for an outcome's respondent id that is invalid in the event schema.
fn of_outcome(error: &EntryError) -> String {
    if let EntryError::InvalidValue { field, found, wanted } = error {
        return format!(
            "field {RESPONDENT_ID} is {found}: it must be {wanted}, as {field} of the event schema is"
        );
    }
    error.to_string()
}
