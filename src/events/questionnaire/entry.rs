//! Events that people type in, or send as JSON, or have in a table: checked field by field, so that
//! whoever sends one learns what is wrong with it.

use serde_json::Value;

use crate::{
    events::questionnaire::{
        Answer, Question, QuestionnaireEvent, QuestionnaireSchema,
        schema::{AnswerType, IdKind},
    },
    streams::time::EventTime,
};

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
    /// A field that an event can't do without.
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
}

impl QuestionnaireSchema {
    /// An event from JSON: the fields by name, those not there without an answer. Event times are
    /// in milliseconds. `event_id` and `event_time` stand in where it has none of its own.
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

    /// The answer that `text` is, such as a cell of a table. Whoever has a mark for missing ones
    /// looks for it first.
    ///
    /// # Errors
    /// [`EntryError`] names the question.
    pub fn parse_answer(&self, question: &Question, text: &str) -> Result<Answer, EntryError> {
        let Some(place) = self.position(&question.name) else {
            return Err(self.unknown(&question.name));
        };
        let text = text.trim();
        let kind = &self.answers[place];
        let value = match kind {
            AnswerType::Int | AnswerType::Long | AnswerType::Real => {
                let number = text.parse().ok().and_then(serde_json::Number::from_f64);
                number.map(Value::Number)
            }
            AnswerType::Boolean => text.to_ascii_lowercase().parse().ok().map(Value::Bool),
            AnswerType::Text | AnswerType::Symbols(_) => Some(Value::String(text.to_owned())),
        };
        let answer = value.and_then(|value| answer(kind, &value));
        answer.ok_or_else(|| wrong_value(&question.name, &Value::String(text.to_owned()), kind))
    }

    fn enter(
        &self,
        event: &mut QuestionnaireEvent,
        name: &str,
        value: &Value,
    ) -> Result<(), EntryError> {
        let wrong = |wanted: &str| EntryError::WrongValue {
            field: name.to_owned(),
            found: value.to_string(),
            wanted: wanted.to_owned(),
        };
        if name == self.fields.respondent_id {
            event.respondent_id = id(self.respondent_id, value).map_err(wrong)?;
        } else if self.fields.event_id.as_deref() == Some(name) {
            event.event_id = id(self.event_id, value).map_err(wrong)?;
        } else if name == self.fields.event_time {
            let millis = value.as_i64();
            event.event_time = EventTime(millis.ok_or_else(|| wrong("milliseconds since 1970"))?);
        } else if self.fields.completed.as_deref() == Some(name) {
            event.completed = value.as_bool().ok_or_else(|| wrong("true or false"))?;
        } else {
            let place = self.position(name).ok_or_else(|| self.unknown(name))?;
            let kind = &self.answers[place];
            let answer = answer(kind, value).ok_or_else(|| wrong_value(name, value, kind))?;
            event.answers[place] = Some(answer);
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

fn id(kind: IdKind, value: &Value) -> Result<String, &'static str> {
    match (kind, value) {
        (IdKind::Text, Value::String(text)) => Ok(text.clone()),
        (IdKind::Number, Value::Number(number)) if number.is_i64() => Ok(number.to_string()),
        (IdKind::Text, _) => Err("a string"),
        (IdKind::Number, _) => Err("a whole number"),
    }
}

/// The answer in `value`, if it is one of its kind.
fn answer(kind: &AnswerType, value: &Value) -> Option<Answer> {
    match (kind, value) {
        (AnswerType::Int | AnswerType::Long | AnswerType::Real, Value::Number(number)) => {
            let number = number.as_f64()?;
            let (least, most) = match kind {
                AnswerType::Int => (f64::from(i32::MIN), f64::from(i32::MAX)),
                AnswerType::Long => (i64::MIN as f64, i64::MAX as f64),
                AnswerType::Real
                | AnswerType::Boolean
                | AnswerType::Text
                | AnswerType::Symbols(_) => (f64::MIN, f64::MAX),
            };
            let whole = matches!(kind, AnswerType::Real) || number.fract() == 0.0;
            (whole && (least..=most).contains(&number)).then_some(Answer::Number(number))
        }
        (AnswerType::Boolean, Value::Bool(flag)) => Some(Answer::Text(flag.to_string())),
        (AnswerType::Text, Value::String(text)) => Some(Answer::Text(text.clone())),
        (AnswerType::Symbols(symbols), Value::String(text)) => {
            symbols.contains(text).then(|| Answer::Text(text.clone()))
        }
        (_, _) => None,
    }
}

fn wrong_value(name: &str, value: &Value, kind: &AnswerType) -> EntryError {
    let wanted = match kind {
        AnswerType::Int => "a whole number of 32 bits".to_owned(),
        AnswerType::Long => "a whole number".to_owned(),
        AnswerType::Real => "a number".to_owned(),
        AnswerType::Boolean => "true or false".to_owned(),
        AnswerType::Text => "a string".to_owned(),
        AnswerType::Symbols(symbols) => format!("one of {}", symbols.join(", ")),
    };
    EntryError::WrongValue { field: name.to_owned(), found: value.to_string(), wanted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::questionnaire::MetadataFields;
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
        refuse(&json!({"who": "r", "age": "1"}), &["`age`"]);
        refuse(&json!({"who": "r", "size": "M"}), &["`size`", "S, L"]);
        refuse(&json!({"who": "r", "at": "noon"}), &["`at`", "milliseconds"]);
        refuse(&json!({"who": "r", "done": 1}), &["`done`", "true or false"]);
    }

    fn cell(question: &str, text: &str) -> Option<Answer> {
        let schema = schema();
        let place = schema.position(question).expect("a question");
        schema.parse_answer(&schema.questions()[place], text).ok()
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
