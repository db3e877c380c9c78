//! What a change of the event schema does to the subjects that are derived from it: those of predictions and labelled examples.
//!
//! They have a nullable field for each question, so questions may be added, removed and renamed. But a field keeps its type: the
//! level is FULL_TRANSITIVE, and a consumer has typed columns. So a question whose kind changes, such as a whole number that
//! becomes a double, is refused, although a weaker level of the events allows it. It is a new question, with another name.

use std::{fmt, path::Path};

use serde_json::{Value, json};

use crate::{
    app::{
        check_result::CheckResult,
        schemas::{EventSchemaFile, History, history::parse},
    },
    config::Config,
    events::questionnaire::answer_fields,
};
use foretell_avro::evolution::{Schema, can_read};

/// The fields of the answers in one version of a schema.
#[derive(Clone, Debug)]
pub(super) struct AnswersVersion {
    name: String,
    fields: Vec<Value>,
}

/// A question whose answers have another type than in an earlier version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindChange {
    /// The name of the question.
    pub question: String,
    from: String,
    to: String,
    /// The names of the versions.
    before: String,
    after: String,
}

/// Which fields of the schemas in a folder are questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventFields {
    /// A configured event schema is in the folder: all except these, which are metadata or ignored.
    Except(Vec<String>),
    /// None: the configured event schemas are elsewhere.
    None,
    /// There is no configuration, so it is not known.
    Unknown,
}

impl EventFields {
    /// Compares the folder with those of `[events] schema` and of the companions.
    #[must_use]
    pub fn of(folder: &Path, config: Option<&Config>) -> Self {
        let Some(config) = config else { return Self::Unknown };
        let same = |folder: &Path| folder.canonicalize().ok();
        let is_of = |source: &EventSchemaFile<'_>| same(folder) == same(source.folder());
        let others: Vec<Vec<String>> = EventSchemaFile::all(config)
            .into_iter()
            .filter(is_of)
            .map(|source| source.other_fields())
            .collect();
        if others.is_empty() { Self::None } else { Self::Except(others.concat()) }
    }

    /// The names of the fields that are certainly not questions; `None` if no field is one.
    pub(super) fn others(&self) -> Option<&[String]> {
        match self {
            Self::Except(others) => Some(others),
            Self::Unknown => Some(&[]),
            Self::None => None,
        }
    }
}

impl AnswersVersion {
    /// The answers that are derived from a version of the event schema.
    pub(super) fn derived(name: String, event_schema: &Schema, others: &[String]) -> Self {
        Self { name, fields: answer_fields(event_schema, others) }
    }

    /// The answers in a version of a derived subject; without fields if the schema has no answers.
    pub(super) fn in_record(name: String, text: &str) -> Self {
        let record: Value = serde_json::from_str(text).unwrap_or_default();
        let mut fields = record["fields"].as_array().into_iter().flatten();
        let answers = fields.find(|field| field["name"] == "answers");
        let fields = answers.and_then(|answers| answers["type"]["fields"].as_array());
        Self { name, fields: fields.cloned().unwrap_or_default() }
    }

    /// The field of the same question as `field`, which is in another version.
    fn same_question(&self, field: &Value) -> Option<&Value> {
        let is_alias = |name: &Value, of: &Value| {
            of["aliases"].as_array().is_some_and(|aliases| aliases.contains(name))
        };
        let by_name = self.fields.iter().find(|other| other["name"] == field["name"]);
        by_name.or_else(|| {
            let mut others = self.fields.iter();
            others.find(|other| is_alias(&other["name"], field) || is_alias(&field["name"], other))
        })
    }
}

/// The questions of the newest version whose answers have another type than in the last earlier version that has them, however
/// long ago they were removed.
pub(super) fn kind_changes(versions: &[AnswersVersion]) -> Vec<KindChange> {
    let Some((newest, earlier)) = versions.split_last() else { return Vec::new() };
    let mut changes = Vec::new();
    for field in &newest.fields {
        let mut earlier = earlier.iter().rev();
        let last = earlier.find_map(|version| Some((version, version.same_question(field)?)));
        let Some((version, last)) = last else { continue };
        if !is_one_type(&last["type"], &field["type"]) {
            changes.push(KindChange {
                question: field["name"].as_str().unwrap_or_default().to_owned(),
                from: kind_of(last),
                to: kind_of(field),
                before: version.name.clone(),
                after: newest.name.clone(),
            });
        }
    }
    changes
}

/// Whether each type can be read as the other.
fn is_one_type(one: &Value, other: &Value) -> bool {
    let record = |kind: &Value| {
        let field = json!({"name": "answer", "type": kind});
        parse(&json!({"type": "record", "name": "Answers", "fields": [field]}).to_string()).ok()
    };
    match (record(one), record(other)) {
        (Some(one), Some(other)) => can_read(&one, &other).and(can_read(&other, &one)).is_ok(),
        (_, _) => false,
    }
}

/// The type of a field without null: its name or its logical type.
fn kind_of(field: &Value) -> String {
    let branches = field["type"].as_array().into_iter().flatten();
    let mut others = branches.filter(|branch| *branch != "null");
    let kind = others.next().unwrap_or(&field["type"]);
    let logical = kind["logicalType"].as_str().or_else(|| kind.as_str());
    logical.map_or_else(|| kind.to_string(), str::to_owned)
}

impl fmt::Display for KindChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { question, from, to, before, after } = self;
        write!(f, "the answers to {question} have type {from} in {before} and {to} in {after}")
    }
}

impl KindChange {
    /// What to do instead.
    pub const FIX: &str =
        "a kind that changes is a new question: add one with another name, and remove the old one";

    /// The change, and what to do instead.
    #[must_use]
    pub fn meaning(&self) -> String {
        format!("{self}: {}", Self::FIX)
    }
}

/// The kind changes of the newest version of a history.
#[must_use]
pub fn newest_kind_changes(history: &History, fields: &EventFields) -> Vec<KindChange> {
    fields.others().map_or_else(Vec::new, |others| kind_changes(&derived(history, others)))
}

fn derived(history: &History, others: &[String]) -> Vec<AnswersVersion> {
    let versions = history.versions.iter();
    let derived =
        versions.map(|version| AnswersVersion::derived(version.name(), &version.schema, others));
    derived.collect()
}

/// Checks the schemas that are derived from all versions of a history. A draft can be changed, a released version cannot.
#[must_use]
pub fn check_answers(history: &History, fields: &EventFields) -> Vec<CheckResult> {
    let Some(others) = fields.others() else { return Vec::new() };
    let derived = derived(history, others);
    let mut results = Vec::new();
    for count in 1..=derived.len() {
        let is_draft = count == derived.len() && history.has_draft();
        for change in kind_changes(&derived[..count]) {
            let name = format!("{} answers", history.name());
            let refused = format!("{change}, which predictions and labelled-examples refuse");
            results.push(match (fields, is_draft) {
                (EventFields::Except(_), true) => {
                    CheckResult::failed(name, refused, KindChange::FIX)
                }
                (EventFields::Except(_), false) => CheckResult::warning(
                    name,
                    refused,
                    "nothing to do if `foretell schema check` (without folders) accepts them; else add a question with another name",
                ),
                (EventFields::None | EventFields::Unknown, _) => CheckResult::warning(
                    name,
                    format!("if {} is a question, {refused}", change.question),
                    format!("name the configuration (-c), which says so; {}", KindChange::FIX),
                ),
            });
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(versions: &[&str]) -> Vec<String> {
        let derived = versions.iter().enumerate().map(|(number, fields)| {
            let who = r#"{"name":"who","type":"long"}"#;
            let text = format!(r#"{{"type":"record","name":"R","fields":[{who},{fields}]}}"#);
            let others = ["who".to_owned()];
            AnswersVersion::derived(format!("v{}", number + 1), &parse(&text).unwrap(), &others)
        });
        let derived: Vec<_> = derived.collect();
        kind_changes(&derived).iter().map(ToString::to_string).collect()
    }

    fn check(versions: &[&str], expected: Option<&str>) {
        let found = changes(versions);
        assert_eq!(found, Vec::from_iter(expected.map(str::to_owned)), "{versions:?}");
    }

    const INT: &str = r#"{"name":"a","type":["null","int"]}"#;
    const DOUBLE: &str = r#"{"name":"a","type":"double"}"#;
    const TEXT: &str = r#"{"name":"a","type":"string"}"#;
    const OTHER: &str = r#"{"name":"b","type":"string"}"#;

    #[test]
    fn a_question_keeps_the_type_of_its_answers() {
        let changed = |from: &str, to: &str| {
            format!("the answers to a have type {from} in v1 and {to} in v2")
        };
        check(&[INT], None);
        check(&[INT, r#"{"name":"a","type":"long"}"#], None);
        check(&[INT, DOUBLE], Some(&changed("long", "double")));
        check(&[TEXT, INT], Some(&changed("string", "long")));
        check(&[INT, r#"{"name":"a","type":"boolean"}"#], Some(&changed("long", "boolean")));
        let symbols = r#"{"name":"a","type":{"type":"enum","name":"E","symbols":["X"]}}"#;
        check(&[TEXT, symbols], None);
        let decimal = r#"{"name":"a","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}}"#;
        check(&[decimal, DOUBLE], None);
        let date = r#"{"name":"a","type":{"type":"int","logicalType":"date"}}"#;
        check(&[INT, date], Some(&changed("long", "date")));
        check(&[date, INT], Some(&changed("date", "long")));
        let time = |unit| {
            format!(r#"{{"name":"a","type":{{"type":"long","logicalType":"timestamp-{unit}"}}}}"#)
        };
        check(
            &[&time("millis"), &time("micros")],
            Some(&changed("timestamp-millis", "timestamp-micros")),
        );
        // What is no answer is not in the record.
        check(&[r#"{"name":"a","type":"bytes"}"#, INT], None);
    }

    #[test]
    fn a_question_is_found_by_alias_and_after_its_removal() {
        let renamed = r#"{"name":"z","aliases":["a"],"type":"double"}"#;
        let changed =
            |to: &str| Some(format!("the answers to z have type long in v1 and double in {to}"));
        check(&[INT, renamed], changed("v2").as_deref());
        check(&[INT, OTHER, renamed], changed("v3").as_deref());
        let again = "the answers to a have type long in v1 and string in v3";
        check(&[INT, OTHER, TEXT], Some(again));
        check(&[INT, OTHER, INT], None);
        // The change was made before, between the first two versions.
        check(&[INT, DOUBLE, DOUBLE], None);
        check(
            &[INT, r#"{"name":"z","aliases":["a"],"type":"int"},{"name":"y","type":"string"}"#],
            None,
        );
    }
}
