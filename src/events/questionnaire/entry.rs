//! Events in JSON and in tables, checked field by field, so that an error names the field.

use std::borrow::Cow;

use serde_json::Value;

use crate::events::{
    questionnaire::{
        Answer, AnswerRow, INVALID_VALUE, MISSING_FIELD, MomentKind, Question, QuestionnaireEvent,
        QuestionnaireSchema,
        answer::{self, Unfit},
        id::IdKind,
        spelling,
    },
    similar_name,
};
use foretell_streams::time::{EventTime, WallTime};

/// An invalid event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The value is not a JSON object.
    #[error("an event is a JSON object with a value for each field")]
    NotAnObject,
    /// A field that the schema does not have, or that is ignored.
    #[error(
        "there is no field `{field}`{}; there are {}",
        similar_name::hint(field, known), known.join(", ")
    )]
    UnknownField {
        /// The name of the field.
        field: String,
        /// The known names.
        known: Vec<String>,
    },
    /// A required field is missing. Its class in the stream is [`MISSING_FIELD`].
    #[error("field `{field}` is missing or empty")]
    MissingField {
        /// The name of the field.
        field: String,
    },
    /// A value is not valid for its field.
    #[error("field `{field}` is {found}: it must be {wanted}")]
    WrongValue {
        /// The name of the field.
        field: String,
        /// The value.
        found: String,
        /// The valid values.
        wanted: String,
    },
    /// A text is valid in Avro and not for its field. Its class in the stream is [`INVALID_VALUE`].
    #[error("field `{field}` is {found}: it must be {wanted}")]
    InvalidValue {
        /// The name of the field.
        field: String,
        /// The value.
        found: String,
        /// The valid values.
        wanted: String,
    },
}

impl EntryError {
    /// The dead-letter class of the same error in the stream; none if it cannot occur there.
    #[must_use]
    pub fn class(&self) -> Option<&'static str> {
        match self {
            Self::MissingField { .. } => Some(MISSING_FIELD),
            Self::InvalidValue { .. } => Some(INVALID_VALUE),
            Self::NotAnObject | Self::UnknownField { .. } | Self::WrongValue { .. } => None,
        }
    }

    fn of_value(field: &str, value: &Value, wanted: &str, is_text_in_avro: bool) -> Self {
        let (field, found, wanted) = (field.to_owned(), value.to_string(), wanted.to_owned());
        if is_text_in_avro && value.is_string() {
            return Self::InvalidValue { field, found, wanted };
        }
        Self::WrongValue { field, found, wanted }
    }
}

impl QuestionnaireSchema {
    /// Converts a JSON object with the fields by name; missing fields have no answer. Event times are in milliseconds. `event_id`
    /// and `event_time` are used if the object has none. A JSON string is read as a table cell with this text, except for event
    /// times in digits, which a table has in the unit of the schema.
    ///
    /// # Errors
    /// [`EntryError`] names the field.
    pub fn from_json(
        &self,
        value: &Value,
        event_id: &str,
        event_time: EventTime,
    ) -> Result<QuestionnaireEvent, EntryError> {
        let Value::Object(fields) = value else {
            return Err(EntryError::NotAnObject);
        };
        let mut event = QuestionnaireEvent {
            source: self.source().clone(),
            event_id: String::new(),
            respondent_id: String::new(),
            event_time,
            completed: false,
            answers: AnswerRow::default(),
        };
        let mut answers = vec![None; self.questions().len()];
        for (name, value) in fields {
            if !value.is_null() {
                self.enter(&mut event, &mut answers, name, value)?;
            } else if !self.is_known(name) {
                return Err(self.unknown(name));
            }
        }
        if event.respondent_id.is_empty() {
            return Err(EntryError::MissingField { field: self.fields.respondent_id.clone() });
        }
        if event.event_id.is_empty() {
            event_id.clone_into(&mut event.event_id);
        }
        event.answers = self.layout().row_of(&answers);
        Ok(event)
    }

    /// Converts the answers among the fields of an event, by name; metadata is not read.
    ///
    /// # Errors
    /// [`EntryError`] names the field.
    pub fn answers_of_json<'v>(
        &self,
        fields: impl IntoIterator<Item = (&'v String, &'v Value)>,
    ) -> Result<AnswerRow, EntryError> {
        let mut answers = vec![None; self.questions().len()];
        for (name, value) in fields {
            match self.position(name) {
                Some(place) => answers[place] = self.answer_of_json(place, name, value)?,
                None if self.is_known(name) => {}
                None => {
                    let known = self.questions().iter().map(|question| question.name.clone());
                    let (field, known) = (name.clone(), known.collect());
                    return Err(EntryError::UnknownField { field, known });
                }
            }
        }
        Ok(self.layout().row_of(&answers))
    }

    fn answer_of_json(
        &self,
        place: usize,
        name: &str,
        value: &Value,
    ) -> Result<Option<Answer>, EntryError> {
        let form = &self.answers[place];
        form.of_json(value).map_err(|Unfit(wanted)| {
            EntryError::of_value(name, value, &wanted, form.is_text_in_avro())
        })
    }

    /// Converts a text such as a table cell to an answer; none if it is blank or means "no answer". See
    /// [`crate::events::questionnaire::answer`].
    ///
    /// # Errors
    /// [`EntryError`] names the question.
    pub fn parse_answer(
        &self,
        question: &Question,
        text: &str,
    ) -> Result<Option<Answer>, EntryError> {
        let Some(place) = self.position(&question.name) else {
            return Err(self.unknown(&question.name));
        };
        self.answers[place].of_text(text).map_err(|Unfit(wanted)| EntryError::WrongValue {
            field: question.name.clone(),
            found: format!("{:?}", text.trim()),
            wanted,
        })
    }

    /// Converts a table cell to an event time: a number in the unit of the schema's field, or ISO 8601.
    ///
    /// # Errors
    /// [`EntryError`] names the field.
    pub fn parse_event_time(&self, text: &str) -> Result<EventTime, EntryError> {
        let text = text.trim();
        let number = || Some(self.time_unit.millis(spelling::whole_in(text)?));
        let time = number().or_else(|| EVENT_TIME.parse(text));
        time.map(EventTime).ok_or_else(|| {
            let wanted =
                "a time, such as 2026-11-28T17:05:30Z, or a number in the unit of the event schema";
            wrong_cell(&self.fields.event_time, text, wanted)
        })
    }

    /// The canonical form of a respondent id in a text, such as a table cell or an outcome; empty if it is blank.
    ///
    /// # Errors
    /// [`EntryError::InvalidValue`], with the name of the field in the event schema.
    pub fn respondent_id<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, EntryError> {
        id_of_text(self.respondent_id, &self.fields.respondent_id, text)
    }

    /// The canonical form of a respondent id in JSON, in the field `field` of a record; empty if it is missing.
    ///
    /// # Errors
    /// [`EntryError`] names that field.
    pub fn respondent_id_of_json(&self, field: &str, value: &Value) -> Result<String, EntryError> {
        let id = self.respondent_id.of_json(value);
        id.map_err(|wanted| EntryError::of_value(field, value, wanted, true))
    }

    /// Converts a table cell to an event id; empty if it is blank or the schema has no event id.
    ///
    /// # Errors
    /// [`EntryError`] names the field.
    pub fn parse_event_id(&self, text: &str) -> Result<String, EntryError> {
        match &self.fields.event_id {
            Some(field) => id_of_text(self.event_id, field, text).map(Cow::into_owned),
            None => Ok(String::new()),
        }
    }

    /// A new event id in the type of the field, from a unique `name`.
    #[must_use]
    pub fn new_event_id(&self, name: &str, now: WallTime) -> String {
        self.event_id.new_id(name, now)
    }

    /// The event id for a client's `name` of a request: the name itself if it is valid for the field, else an id derived from it.
    #[must_use]
    pub fn event_id_of_name(&self, name: &str) -> String {
        self.event_id.of_name(name)
    }

    fn enter(
        &self,
        event: &mut QuestionnaireEvent,
        answers: &mut [Option<Answer>],
        name: &str,
        value: &Value,
    ) -> Result<(), EntryError> {
        let wrong = |wanted: &str| EntryError::of_value(name, value, wanted, false);
        if name == self.fields.respondent_id {
            event.respondent_id = id_of_json(self.respondent_id, name, value)?;
        } else if self.fields.event_id.as_deref() == Some(name) {
            event.event_id = id_of_json(self.event_id, name, value)?;
        } else if name == self.fields.event_time {
            event.event_time = time_of_json(value).ok_or_else(|| {
                wrong("a time, such as \"2026-11-28T17:05:30Z\", or a number of milliseconds since 1970")
            })?;
        } else if self.fields.completed.as_deref() == Some(name) {
            event.completed = flag_of_json(value).ok_or_else(|| wrong("true or false"))?;
        } else {
            let place = self.asked_position(name).ok_or_else(|| self.unknown(name))?;
            answers[place] = self.answer_of_json(place, name, value)?;
        }
        Ok(())
    }

    /// Whether `name` is a question of any source, an alias of one, or a metadata field.
    #[must_use]
    pub fn has_field(&self, name: &str) -> bool {
        self.position(name).is_some() || self.is_known(name)
    }

    fn is_known(&self, name: &str) -> bool {
        self.names().any(|known| known == name) || self.asked_position(name).is_some()
    }

    /// The index of the question with this name or alias, if this source asks it.
    fn asked_position(&self, name: &str) -> Option<usize> {
        self.position(name).filter(|index| self.asked()[*index])
    }

    fn unknown(&self, name: &str) -> EntryError {
        let known = self.names().map(ToOwned::to_owned).collect();
        EntryError::UnknownField { field: name.to_owned(), known }
    }

    /// The names of the fields of an event: metadata, then the questions of this source.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let fields = &self.fields;
        let required = [fields.respondent_id.as_str(), fields.event_time.as_str()];
        let optional = [fields.event_id.as_deref(), fields.completed.as_deref()];
        let asked = self.questions().iter().zip(self.asked());
        let asked = asked.filter(|(_, is_asked)| **is_asked);
        let questions = asked.map(|(question, _)| question.name.as_str());
        required.into_iter().chain(optional.into_iter().flatten()).chain(questions)
    }
}

/// Milliseconds since 1970.
const EVENT_TIME: MomentKind = MomentKind::Timestamp { per_second: 1_000 };

/// A time in JSON: a number of milliseconds since 1970, or ISO 8601.
#[must_use]
pub fn time_of_json(value: &Value) -> Option<EventTime> {
    let millis = match value {
        Value::Number(number) => answer::whole_number(number),
        Value::String(text) => EVENT_TIME.parse(text.trim()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    millis.map(EventTime)
}

fn flag_of_json(value: &Value) -> Option<bool> {
    let written = || spelling::flag_in(value.as_str()?.trim());
    value.as_bool().or_else(written)
}

fn id_of_text<'t>(kind: IdKind, field: &str, text: &'t str) -> Result<Cow<'t, str>, EntryError> {
    kind.of_text(text).map_err(|wanted| EntryError::InvalidValue {
        field: field.to_owned(),
        found: format!("{text:?}"),
        wanted: wanted.to_owned(),
    })
}

/// Avro allows a text only if the ids of the schema are texts.
fn id_of_json(kind: IdKind, field: &str, value: &Value) -> Result<String, EntryError> {
    let is_text_in_avro = matches!(kind, IdKind::Text | IdKind::UuidText);
    kind.of_json(value)
        .map_err(|wanted| EntryError::of_value(field, value, wanted, is_text_in_avro))
}

fn wrong_cell(field: &str, text: &str, wanted: &str) -> EntryError {
    let found = format!("{text:?}");
    EntryError::WrongValue { field: field.to_owned(), found, wanted: wanted.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::questionnaire::{AnswerRef, MetadataFields, ReadingRules};
    use serde_json::json;

    fn schema() -> QuestionnaireSchema {
        let avsc = r#"{"type":"record","name":"R","fields":[
            {"name":"id","type":"string"},{"name":"who","type":"string"},{"name":"at","type":"long"},
            {"name":"done","type":"boolean"},{"name":"age","type":["null","int"]},
            {"name":"height","type":["null","double"]},{"name":"job","aliases":["trade"],"type":["null","string"]},
            {"name":"smoker","type":["null","boolean"]},
            {"name":"size","type":{"type":"enum","name":"S","symbols":["S","L"]}}]}"#;
        let fields = MetadataFields {
            event_id: Some("id".to_owned()),
            respondent_id: "who".to_owned(),
            event_time: "at".to_owned(),
            completed: Some("done".to_owned()),
        };
        QuestionnaireSchema::new(avsc, &fields, &[]).expect("a schema")
    }

    fn enter(value: &Value) -> Result<QuestionnaireEvent, EntryError> {
        schema().from_json(value, "made-up", EventTime(7))
    }

    fn answers(event: &QuestionnaireEvent) -> Vec<Option<Answer>> {
        schema().layout().answers(&event.answers).map(AnswerRef::to_answer).collect()
    }

    fn check_invalid(value: &Value, words: &[&str]) {
        let message = enter(value).expect_err("refused").to_string();
        for word in words {
            assert!(message.contains(word), "{message:?} says nothing of {word:?}");
        }
    }

    #[test]
    fn events_in_json_are_converted() {
        let event = enter(&json!({"who": "r", "age": 30, "smoker": true, "job": null})).unwrap();
        assert_eq!(event.event_id, "made-up");
        assert_eq!((event.event_time, event.completed), (EventTime(7), false));
        let expected = vec![
            Some(Answer::Number(30.0)),
            None,
            None,
            Some(Answer::Text("true".to_owned())),
            None,
        ];
        assert_eq!(answers(&event), expected);
        let event = enter(&json!({"who": "r", "id": "e", "at": 9, "done": true})).unwrap();
        assert_eq!((event.event_id.as_str(), event.event_time), ("e", EventTime(9)));
        assert!(event.completed);
        let event = enter(&json!({"who": "r", "trade": "cook"})).unwrap();
        assert_eq!(
            answers(&event)[2],
            Some(Answer::Text("cook".to_owned())),
            "by its earlier name"
        );
        assert!(enter(&json!({"who": "r", "trade": null})).is_ok());
    }

    #[test]
    fn invalid_json_is_rejected_with_the_field() {
        check_invalid(&json!([]), &["JSON object"]);
        check_invalid(&json!({"age": 1}), &["`who`", "missing"]);
        check_invalid(&json!({"who": ""}), &["`who`", "missing"]);
        check_invalid(&json!({"who": 3}), &["`who`", "a string"]);
        check_invalid(&json!({"who": "r", "wage": 1}), &["`wage`", "age, height"]);
        check_invalid(&json!({"who": "r", "wage": null}), &["`wage`"]);
        check_invalid(&json!({"who": "r", "age": 1.5}), &["`age`", "1.5", "whole"]);
        check_invalid(&json!({"who": "r", "age": 3_000_000_000_u64}), &["`age`", "32 bits"]);
        check_invalid(&json!({"who": "r", "age": "one"}), &["`age`", "\"one\"", "32 bits"]);
        check_invalid(&json!({"who": "r", "height": "5,5"}), &["`height`", "\"5,5\"", "a number"]);
        check_invalid(&json!({"who": "r", "smoker": 1}), &["`smoker`", "true or false"]);
        check_invalid(&json!({"who": "r", "size": "M"}), &["`size`", "S, L"]);
        check_invalid(&json!({"who": "r", "at": "noon"}), &["`at`", "milliseconds"]);
        check_invalid(
            &json!({"who": "r", "at": "1795885530000"}),
            &["`at`", "a number of milliseconds"],
        );
        check_invalid(&json!({"who": "r", "done": 1}), &["`done`", "true or false"]);
    }

    #[test]
    fn blanks_and_configured_texts_are_missing_answers() {
        let rules = ReadingRules {
            missing: vec!["?".to_owned(), "-1".to_owned()],
            ..ReadingRules::default()
        };
        let schema = schema().read_as(&rules);
        let blank = json!({"who": " r ", "age": " ", "job": "", "smoker": "?", "size": " ? ", "height": -1.0});
        let event = schema.from_json(&blank, "", EventTime(7)).unwrap();
        assert_eq!(answers(&event), vec![None; 5]);
        assert_eq!(event.respondent_id, "r");
        let padded = json!({"who": "r", "job": " cook\t", "size": " L"});
        let event = schema.from_json(&padded, "", EventTime(7)).unwrap();
        let text = |text: &str| Some(Answer::Text(text.to_owned()));
        assert_eq!(answers(&event), vec![None, None, text("cook"), None, text("L")]);
    }

    #[test]
    fn times_are_numbers_or_iso_8601() {
        let event = enter(&json!({"who": "r", "at": "2026-11-28T17:05:30Z"})).unwrap();
        assert_eq!(event.event_time, EventTime(1_795_885_530_000));
    }

    fn cell(question: &str, text: &str) -> Option<Answer> {
        let schema = schema();
        let place = schema.position(question).expect("a question");
        schema.parse_answer(&schema.questions()[place], text).ok().flatten()
    }

    #[test]
    fn table_cells_are_converted() {
        let text = |text: &str| Some(Answer::Text(text.to_owned()));
        assert_eq!(cell("age", " 39 "), Some(Answer::Number(39.0)));
        assert_eq!(cell("age", "39.5"), None);
        assert_eq!(cell("age", "old"), None);
        assert_eq!(cell("height", "1.8"), Some(Answer::Number(1.8)));
        assert_eq!(cell("height", "NaN"), None);
        assert_eq!(cell("height", "inf"), None);
        assert_eq!(cell("job", " State-gov"), text("State-gov"));
        assert_eq!(cell("smoker", "True"), text("true"));
        assert_eq!(cell("smoker", "yes"), None);
        assert_eq!(cell("size", "L"), text("L"));
        assert_eq!(cell("size", "M"), None);
    }
}
