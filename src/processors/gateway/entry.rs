//! Converts JSON of clients to records: events by the configured schema, outcomes by Foretell's.

use serde_json::Value as Json;

use crate::{
    events::{
        codecs::Codecs,
        label,
        outcome::{Outcome, RESPONDENT_ID},
        questionnaire::{
            EntryError, EventIdentity, EventSchemas, QuestionnaireEvent, QuestionnaireSchema,
            WITHDRAWN_HEADER, schema::position_of, time_of_json,
        },
        respondent::RespondentQuery,
        similar_name::hint,
        topics::Topics,
    },
    processors::{event_time::TimeBounds, gateway::GatewayError},
};
use foretell_streams::{
    codec::{Codec, CodecError},
    record::{Header, OutputRecord, Topic},
    time::{EventTime, WallTime},
    topology::ProcessError,
};

/// The settings for checking and encoding entries.
#[derive(Clone)]
pub struct EntrySettings {
    /// The event schemas, in the order of their topics.
    pub schemas: EventSchemas,
    /// The configured labels.
    pub labels: Vec<String>,
    /// The bounds of event times.
    pub times: TimeBounds,
    /// The codecs of the topics.
    pub codecs: Codecs,
    /// The names of the topics.
    pub topics: Topics,
}

/// A topic that events are written to.
#[derive(Clone, Copy)]
pub(super) struct EntrySource<'e> {
    pub(super) schema: &'e QuestionnaireSchema,
    topic: &'e Topic,
    codec: &'e dyn Codec<QuestionnaireEvent>,
}

/// An event that can be written.
#[derive(Debug)]
pub struct EventEntry {
    /// The event.
    pub event: QuestionnaireEvent,
    /// Its id, or one derived from its content.
    pub id: String,
    /// The encoded record.
    pub record: OutputRecord,
}

/// An outcome that can be written.
#[derive(Debug)]
pub struct OutcomeEntry {
    /// The outcome.
    pub outcome: Outcome,
    /// The encoded record.
    pub record: OutputRecord,
}

const OUTCOME_FIELDS: [&str; 4] = ["respondent_id", "label", "outcome_time", "outcome_id"];

impl EntrySettings {
    /// The lead, or the companion that is named by its topic, with the prefix or without it.
    ///
    /// # Errors
    /// [`GatewayError::Refused`] if there is no such topic with events.
    pub(super) fn source(&self, named: Option<&str>) -> Result<EntrySource<'_>, GatewayError> {
        let named = named.unwrap_or(self.topics.questionnaire_events.as_str());
        let index =
            self.topics.source_named(&self.schemas, named).map_err(GatewayError::Refused)?;
        let schemas = self.schemas.iter().zip(self.topics.of_events());
        let mut sources = schemas.zip(self.codecs.of_events()).skip(index);
        let ((schema, topic), codec) = sources.next().expect("each source has a codec");
        Ok(EntrySource { schema, topic, codec: codec.as_ref() })
    }

    /// Checks an event of a source and encodes its record. `id` is used if the event has none.
    ///
    /// # Errors
    /// [`GatewayError::Refused`], naming the field.
    pub(super) fn event(
        &self,
        source: &EntrySource<'_>,
        json: &Json,
        id: &str,
        now: WallTime,
    ) -> Result<EventEntry, GatewayError> {
        let EntrySource { schema, topic, codec } = *source;
        let event = schema.from_json(json, id, EventTime(now.0));
        let mut event = event?;
        let withdrawn = withdrawn(schema, json, &event);
        if !schema.names_events() {
            event.event_id = String::new();
        }
        let id = match event.event_id.as_str() {
            "" => {
                let (questions, layout) = (schema.questions(), schema.layout());
                EventIdentity::of(&event, questions, layout, &withdrawn).id()
            }
            id => id.to_owned(),
        };
        self.check_time(event.event_time, now)?;
        let mut record = record(topic, &event.respondent_id, codec, &event, now)?;
        if !withdrawn.is_empty() {
            record.headers.push(header(WITHDRAWN_HEADER, &withdrawn.join(",")));
        }
        Ok(EventEntry { event, id, record })
    }

    /// Checks the id of a respondent and encodes a question about it.
    ///
    /// # Errors
    /// [`GatewayError::Refused`] if it is no id of the event schema.
    pub(super) fn query(
        &self,
        respondent_id: &str,
        now: WallTime,
    ) -> Result<(String, OutputRecord), GatewayError> {
        let respondent_id = self.schemas.lead().respondent_id(respondent_id)?.into_owned();
        let query = RespondentQuery { respondent_id };
        let codec = RespondentQuery::codec();
        let record = record(&self.topics.queries, &query.respondent_id, &codec, &query, now)?;
        Ok((query.respondent_id, record))
    }

    /// Checks an outcome and encodes its record. `id` is used if the outcome has none.
    ///
    /// # Errors
    /// [`GatewayError::Refused`], naming the field.
    pub(super) fn outcome(
        &self,
        json: &Json,
        id: Option<&str>,
        now: WallTime,
    ) -> Result<OutcomeEntry, GatewayError> {
        let refuse = |message: String| Err(GatewayError::Refused(message));
        let Json::Object(fields) = json else {
            return refuse(format!(
                "an outcome is a JSON object with {}",
                OUTCOME_FIELDS.join(", ")
            ));
        };
        if let Some(unknown) = fields.keys().find(|name| !OUTCOME_FIELDS.contains(&name.as_str())) {
            let (hint, known) = (hint(unknown, &OUTCOME_FIELDS), OUTCOME_FIELDS.join(", "));
            return refuse(format!("there is no field `{unknown}`{hint}; there are {known}"));
        }
        let given = |name: &str| fields.get(name).filter(|value| !value.is_null());
        let respondent_id = given(RESPONDENT_ID).unwrap_or(&Json::Null);
        let respondent_id =
            self.schemas.lead().respondent_id_of_json(RESPONDENT_ID, respondent_id)?;
        if respondent_id.is_empty() {
            return Err(EntryError::MissingField { field: RESPONDENT_ID.to_owned() }.into());
        }
        let label = match given("label") {
            None => return refuse("field `label` is missing".to_owned()),
            Some(label) => self.label(label)?,
        };
        let outcome_time = match given("outcome_time") {
            None => EventTime(now.0),
            Some(time) => match time_of_json(time) {
                Some(time) => time,
                None => {
                    let wanted = "a time, such as \"2026-11-28T17:05:30Z\", or a number of milliseconds since 1970";
                    return refuse(format!("field `outcome_time` is {time}: it must be {wanted}"));
                }
            },
        };
        self.check_time(outcome_time, now)?;
        let outcome_id = match given("outcome_id") {
            None => id.map(ToOwned::to_owned),
            Some(Json::String(id)) => Some(id.clone()),
            Some(other) => {
                return refuse(format!("field `outcome_id` is {other}: it must be a string"));
            }
        };
        let outcome = Outcome { respondent_id, outcome_time, label, outcome_id };
        let (topic, codec) = (&self.topics.outcomes, self.codecs.outcome.as_ref());
        let record = record(topic, &outcome.respondent_id, codec, &outcome, now)?;
        Ok(OutcomeEntry { outcome, record })
    }

    /// The configured label that the value names. Numbers and booleans are compared as text.
    fn label(&self, given: &Json) -> Result<String, GatewayError> {
        let text = match given {
            Json::String(text) => text.clone(),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => {
                given.to_string()
            }
        };
        label::class_of(&text, &self.labels).cloned().ok_or_else(|| {
            let labels = self.labels.join(", ");
            let message = format!("field `label` is {given}: it must be one of {labels}");
            GatewayError::Unusable { class: label::UNKNOWN_LABEL, message }
        })
    }

    fn check_time(&self, time: EventTime, now: WallTime) -> Result<(), GatewayError> {
        self.times.check(time, now).map(drop).map_err(|error| match error {
            ProcessError::Reject { class, message, .. } => {
                GatewayError::Unusable { class, message }
            }
            ProcessError::Retry(_) | ProcessError::State(_) => {
                GatewayError::Refused(error.to_string())
            }
        })
    }
}

/// The questions that are answered with null, which withdraws an earlier answer.
fn withdrawn(schema: &QuestionnaireSchema, json: &Json, event: &QuestionnaireEvent) -> Vec<String> {
    let questions = schema.questions();
    let nulls = json.as_object().into_iter().flatten().filter(|(_, value)| value.is_null());
    let nulls = nulls.filter_map(|(name, _)| position_of(name, questions));
    let mut indices: Vec<usize> = nulls.collect();
    indices.sort_unstable();
    indices.dedup();
    let mut answers = schema.layout().answers(&event.answers);
    indices.retain(|index| answers.at(*index).is_missing());
    indices.into_iter().map(|index| questions[index].name.clone()).collect()
}

impl From<EntryError> for GatewayError {
    fn from(error: EntryError) -> Self {
        let message = error.to_string();
        match error.class() {
            Some(class) => Self::Unusable { class, message },
            None => Self::Refused(message),
        }
    }
}

pub(super) fn record<T>(
    topic: &Topic,
    key: &str,
    codec: &dyn Codec<T>,
    value: &T,
    now: WallTime,
) -> Result<OutputRecord, GatewayError> {
    let mut bytes = Vec::new();
    codec.encode(value, &mut bytes).map_err(|error| {
        GatewayError::Refused(match error {
            // The value cannot be encoded, so it has no dead-letter class.
            CodecError::Unreadable { message, .. } => message,
            CodecError::OtherFormat { .. } | CodecError::Unavailable { .. } => error.to_string(),
        })
    })?;
    Ok(OutputRecord {
        topic: topic.clone(),
        partition: None,
        timestamp: EventTime(now.0),
        key: Some(key.as_bytes().to_vec()),
        value: Some(bytes),
        headers: Vec::new(),
    })
}

pub(super) fn header(name: &str, value: &str) -> Header {
    Header { name: name.to_owned(), value: value.as_bytes().to_vec() }
}
