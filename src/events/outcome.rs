//! What turned out to be true: `schemas/outcome/v1.avsc`.

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

/// The field that says of whom an outcome is.
pub const RESPONDENT_ID: &str = "respondent_id";

/// What turned out to be true of a respondent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Of whom.
    pub respondent_id: String,
    /// When it became true.
    pub outcome_time: EventTime,
    /// What became true: one of the configured classes.
    pub label: String,
    /// Its sender's name for it, if there is one.
    pub outcome_id: Option<String>,
}

impl AvroRecord for Outcome {
    const SCHEMA: &'static str = include_str!("../../schemas/outcome/v1.avsc");
}

/// Reads outcomes with their respondents in the form that events have them in, whatever their type there: an outcome's is
/// always text.
pub struct OutcomeCodec {
    avro: AvroCodec<Outcome>,
    events: Arc<QuestionnaireSchema>,
}

impl OutcomeCodec {
    /// For outcomes of `subject`, about the respondents of `events`.
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
        let unusable = |class, message| {
            let schema_id = framing::unframe(bytes).ok().map(|(id, _)| id);
            CodecError::Unreadable { class, schema_id, message }
        };
        let id = match self.events.respondent_id(&outcome.respondent_id) {
            Ok(id) if id.is_empty() => {
                let message = format!("field {RESPONDENT_ID} is missing or empty");
                return Err(unusable(MISSING_FIELD, message));
            }
            Ok(id) if id.len() == outcome.respondent_id.len() && *id == *outcome.respondent_id => {
                return Ok(outcome);
            }
            Ok(id) => Cow::into_owned(id),
            Err(error) => return Err(unusable(INVALID_VALUE, of_outcome(&error))),
        };
        outcome.respondent_id = id;
        Ok(outcome)
    }
}

/// What is wrong with an outcome's respondent, by what is wrong with an event's.
fn of_outcome(error: &EntryError) -> String {
    if let EntryError::InvalidValue { field, found, wanted } = error {
        return format!(
            "field {RESPONDENT_ID} is {found}: it must be {wanted}, as {field} of the event schema is"
        );
    }
    error.to_string()
}
