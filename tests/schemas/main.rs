//! Tests of the schemas in `schemas/`: their histories, the encoded bytes of every version, every kind of change,
//! and registration.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod answers;
mod golden;
mod matrix;
mod registration;

use std::path::Path;

use foretell::{
    app::schemas::{self, History},
    events::{
        questionnaire::{MetadataFields, QuestionKind, QuestionnaireSchema},
        topics::{TOPICS, ValueSchema},
    },
};
use serde_json::Value;

/// The histories in `schemas/`, by name.
fn histories() -> Vec<History> {
    schemas::histories(&Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")).unwrap()
}

fn history(name: &str) -> History {
    histories().into_iter().find(|history| history.name() == name).unwrap()
}

#[test]
fn every_kind_of_record_has_a_history() {
    let names: Vec<String> = histories().iter().map(History::name).collect();
    let mut expected: Vec<&str> =
        TOPICS.all().iter().filter_map(|topic| topic.schema.folder()).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
}

/// As `make schema-check`; and the schemas in use are the newest, and released.
#[test]
fn every_history_passes_its_checks() {
    for history in histories() {
        let failed: Vec<String> = history
            .check()
            .into_iter()
            .filter(|result| result.fix.is_some())
            .map(|result| result.to_string())
            .collect();
        assert!(failed.is_empty(), "{failed:?}");
        assert!(
            !history.has_draft(),
            "{0} is in use, so it must be released: add the SHA-256 of its newest version to [released] in \
             schemas/{0}/subject.toml",
            history.name()
        );
    }
    for topic in TOPICS.all() {
        let (folder, text) = match topic.schema {
            ValueSchema::Own { folder, text } => (folder, text),
            ValueSchema::Answered { folder, template } => (folder, template),
            ValueSchema::Configured { .. } | ValueSchema::None => continue,
        };
        assert_eq!(history(folder).newest().text, text, "{folder}: the newest is the one in use");
    }
}

#[test]
fn nullable_fields_have_the_default_null() {
    for history in histories() {
        let (name, text) = (history.name(), &history.newest().text);
        let schema: Value = serde_json::from_str(text).unwrap();
        assert_eq!(schema["namespace"], "foretell", "{name}");
        for field in schema["fields"].as_array().unwrap() {
            let Some(branches) = field["type"].as_array() else { continue };
            assert_eq!(branches[0], "null", "{name}: {field}");
            assert_eq!(field.get("default"), Some(&Value::Null), "{name}: {field}");
        }
    }
}

#[test]
fn the_example_for_pandas_is_the_one_that_is_tested() {
    let page = include_str!("../../docs/schemas.md");
    let (_, after) = page.split_once("```python\n").unwrap();
    let (example, _) = after.split_once("```").unwrap();
    assert!(include_str!("../broker/clients/data_frame.py").contains(example), "{example}");
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn example_schema() -> QuestionnaireSchema {
    let fields = MetadataFields {
        event_id: Some(text("event_id")),
        respondent_id: text("respondent_id"),
        event_time: text("event_time"),
        completed: Some(text("completed")),
    };
    QuestionnaireSchema::new(&history("questionnaire-event").newest().text, &fields, &[]).unwrap()
}

#[test]
fn the_worked_example_has_thirteen_questions() {
    let schema = example_schema();
    let numbers =
        schema.questions().iter().filter(|question| question.kind == QuestionKind::Number);
    let numbers: Vec<_> = numbers.map(|question| question.name.as_str()).collect();
    assert_eq!(numbers, ["age", "fnlwgt", "capital_gain", "capital_loss", "hours_per_week"]);
    assert_eq!(schema.questions().len(), 13);
}
