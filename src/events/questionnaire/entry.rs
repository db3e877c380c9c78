//! Events that people type in, or send as JSON, or have in a table: checked field by field, so that
//! the sender learns what is wrong with it.

use std::borrow::Cow;

use serde_json::Value;

use crate::events::questionnaire::{
    Answer, INVALID_VALUE, MISSING_FIELD, MomentKind, Question, QuestionnaireEvent,
    QuestionnaireSchema,
    answer::{self, Unfit},
    id::IdKind,
};
use foretell_streams::time::{EventTime, WallTime};

/// What is wrong with an event that was entered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Not a JSON object.
    #[error("an event is a JSON object with a value for each field")]
    NotAnObject,
    /// A field that the schema does not have, or that is ignored.
    #[error("there is no field `{field}`; there are {known}")]
    UnknownField {
        /// Its name.
        field: String,
        /// The names there are.
        known: String,
    },
    /// A field that an event can't do without. [`MISSING_FIELD`] is the class of the same in the stream.
    #[error("field `{field}` is missing or empty")]
    MissingField {
        /// Its name.
        field: String,
    },
    /// A value that the field can't have.
    #[error("field `{field}` is {found}: it must be {wanted}")]
    WrongValue {
        /// The field's name.
        field: String,
        /// The value.
        found: String,
        /// What would do.
        wanted: String,
    },
    /// A text that Avro can carry, and that the field can't have. [`INVALID_VALUE`] is the class of the same in the stream.
    #[error("field `{field}` is {found}: it must be {wanted}")]
    InvalidValue {
        /// The field's name.
        field: String,
        /// The value.
        found: String,
        /// What would do.
        wanted: String,
    },
}

impl EntryError {
    /// The class under which the same is dead-lettered in the stream; none for what can't come to that.
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
    /// An event from JSON: the fields by name, those not there without an answer. Event times are
    /// in milliseconds. `event_id` and `event_time` stand in where it has none of its own. A JSON string means what a cell
    /// of a table with that text means; only an event time in digits is a number, for a table has it in the schema's unit.
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
            event_id: String::new(),
            respondent_id: String::new(),
            event_time,
            completed: false,
            answers: vec![None; self.questions().len()],
        };
        for (name, value) in fields {
            if !value.is_null() {
                self.enter(&mut event, name, value)?;
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
        Ok(event)
    }

    /// The answer that `text` is, such as a cell of a table; none if it is blank, or a mark for that. See
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

    /// The event time that a cell of a table is: a number in the unit of the schema's field, or ISO 8601.
    ///
    /// # Errors
    /// [`EntryError`] names the field.
    pub fn parse_event_time(&self, text: &str) -> Result<EventTime, EntryError> {
        let text = text.trim();
        let number = || Some(self.time_unit.millis(answer::whole_in(text)?));
        let time = number().or_else(|| EVENT_TIME.parse(text));
        time.map(EventTime).ok_or_else(|| {
            let wanted =
                "a time, such as 2026-11-28T17:05:30Z, or a number in the unit of the event schema";
            wrong_cell(&self.fields.event_time, text, wanted)
        })
    }

    /// The one form of a respondent's id that is written as text, such as in a cell of a table or in an outcome; empty if
    /// it is blank.
    ///
    /// # Errors
    /// [`EntryError::InvalidValue`], with the event schema's name of the field.
    pub fn respondent_id<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, EntryError> {
        id_of_text(self.respondent_id, &self.fields.respondent_id, text)
    }

    /// The one form of a respondent's id in JSON, for a record with a `field` of its own for it; empty if there is none.
    ///
    /// # Errors
    /// [`EntryError`] names that field.
    pub fn respondent_id_of_json(&self, field: &str, value: &Value) -> Result<String, EntryError> {
        let id = self.respondent_id.of_json(value);
        id.map_err(|wanted| EntryError::of_value(field, value, wanted, true))
    }

    /// The event id that a cell of a table is; empty if it is blank, or if the schema has none.
    ///
    /// # Errors
    /// [`EntryError`] names the field.
    pub fn parse_event_id(&self, text: &str) -> Result<String, EntryError> {
        match &self.fields.event_id {
            Some(field) => id_of_text(self.event_id, field, text).map(Cow::into_owned),
            None => Ok(String::new()),
        }
    }

    /// A new event id, of a `name` that nobody else uses: what the field takes, also where that is no text.
    #[must_use]
    pub fn new_event_id(&self, name: &str, now: WallTime) -> String {
        self.event_id.new_id(name, now)
    }

    /// The event id that stands for a client's own `name` of a request: itself, if the field takes it.
    #[must_use]
    pub fn event_id_of_name(&self, name: &str) -> String {
        self.event_id.of_name(name)
    }

    fn enter(
        &self,
        event: &mut QuestionnaireEvent,
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
            let place = self.position(name).ok_or_else(|| self.unknown(name))?;
            let form = &self.answers[place];
            event.answers[place] = form.of_json(value).map_err(|Unfit(wanted)| {
                EntryError::of_value(name, value, &wanted, form.is_text_in_avro())
            })?;
        }
        Ok(())
    }

    fn is_known(&self, name: &str) -> bool {
        self.names().any(|known| known == name) || self.position(name).is_some()
    }

    fn unknown(&self, name: &str) -> EntryError {
        let known: Vec<_> = self.names().collect();
        EntryError::UnknownField { field: name.to_owned(), known: known.join(", ") }
    }

    /// The fields that an event may have: metadata, then questions.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let fields = &self.fields;
        let required = [fields.respondent_id.as_str(), fields.event_time.as_str()];
        let optional = [fields.event_id.as_deref(), fields.completed.as_deref()];
        let questions = self.questions().iter().map(|question| question.name.as_str());
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
    let written = || answer::flag_in(value.as_str()?.trim());
    value.as_bool().or_else(written)
}

fn id_of_text<'t>(kind: IdKind, field: &str, text: &'t str) -> Result<Cow<'t, str>, EntryError> {
    kind.of_text(text).map_err(|wanted| EntryError::InvalidValue {
        field: field.to_owned(),
        found: format!("{text:?}"),
        wanted: wanted.to_owned(),
    })
}

/// Avro carries a text only where the schema's ids are texts.
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
    use crate::events::questionnaire::{MetadataFields, ReadingRules};
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

    fn refuse(value: &Value, words: &[&str]) {
        let message = enter(value).expect_err("refused").to_string();
        for word in words {
            assert!(message.contains(word), "{message:?} says nothing of {word:?}");
        }
    }

    #[test]
    fn json_events() {
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
        assert_eq!(event.answers, expected);
        let event = enter(&json!({"who": "r", "id": "e", "at": 9, "done": true})).unwrap();
        assert_eq!((event.event_id.as_str(), event.event_time), ("e", EventTime(9)));
        assert!(event.completed);
        let event = enter(&json!({"who": "r", "trade": "cook"})).unwrap();
        assert_eq!(event.answers[2], Some(Answer::Text("cook".to_owned())), "by its earlier name");
        assert!(enter(&json!({"who": "r", "trade": null})).is_ok());
    }

    #[test]
    fn json_that_is_refused() {
        refuse(&json!([]), &["JSON object"]);
        refuse(&json!({"age": 1}), &["`who`", "missing"]);
        refuse(&json!({"who": ""}), &["`who`", "missing"]);
        refuse(&json!({"who": 3}), &["`who`", "a string"]);
        refuse(&json!({"who": "r", "wage": 1}), &["`wage`", "age, height"]);
        refuse(&json!({"who": "r", "wage": null}), &["`wage`"]);
        refuse(&json!({"who": "r", "age": 1.5}), &["`age`", "1.5", "whole"]);
        refuse(&json!({"who": "r", "age": 3_000_000_000_u64}), &["`age`", "32 bits"]);
        refuse(&json!({"who": "r", "age": "one"}), &["`age`", "\"one\"", "32 bits"]);
        refuse(&json!({"who": "r", "height": "5,5"}), &["`height`", "\"5,5\"", "a number"]);
        refuse(&json!({"who": "r", "smoker": 1}), &["`smoker`", "true or false"]);
        refuse(&json!({"who": "r", "size": "M"}), &["`size`", "S, L"]);
        refuse(&json!({"who": "r", "at": "noon"}), &["`at`", "milliseconds"]);
        refuse(&json!({"who": "r", "at": "1795885530000"}), &["`at`", "a number of milliseconds"]);
        refuse(&json!({"who": "r", "done": 1}), &["`done`", "true or false"]);
    }

    #[test]
    fn blanks_and_marks_are_missing_answers() {
        let rules = ReadingRules {
            missing: vec!["?".to_owned(), "-1".to_owned()],
            ..ReadingRules::default()
        };
        let schema = schema().read_as(&rules);
        let blank = json!({"who": " r ", "age": " ", "job": "", "smoker": "?", "size": " ? ", "height": -1.0});
        let event = schema.from_json(&blank, "", EventTime(7)).unwrap();
        assert_eq!(event.answers, vec![None; 5]);
        assert_eq!(event.respondent_id, "r");
        let padded = json!({"who": "r", "job": " cook\t", "size": " L"});
        let event = schema.from_json(&padded, "", EventTime(7)).unwrap();
        let text = |text: &str| Some(Answer::Text(text.to_owned()));
        assert_eq!(event.answers, vec![None, None, text("cook"), None, text("L")]);
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
    fn cells_of_a_table() {
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
