//! The part of a configuration that goes with a model: what the model's answers mean. `foretell serve` needs no more.
//!
//! It has whole sections, none of which can have a secret. A broker, tables of data and rules of actions are not in it.

use serde::Deserialize as _;
use toml::{Spanned, Table, Value, de::Deserializer};

use crate::config::{Config, ConfigError, check, document::Document};

/// The sections that are taken whole.
const WHOLE: [&str; 4] = ["events", "outcomes", "features", "serving"];
/// Keys of other sections that are taken: they make the name of the application.
const KEYS: [(&str, &str); 2] = [("application", "id"), ("topics", "prefix")];

/// The file of the event schema, beside the model.
pub const SCHEMA_FILE: &str = "event.avsc";

/// The file of this part of the configuration, beside the model.
pub const CONFIGURATION: &str = "foretell.toml";

/// The bounds of a request for SageMaker's batch transform, if the configuration sets none.
const SERVING: [(&str, i64); 2] = [("rows_max", 100_000), ("body_bytes_max", 6 << 20)];

const HEAD: &str = "# What the answers of this model mean: the configuration that it was made with, without the broker and the data.\n\n";

/// The sections of a document that scoring depends on, overrides included.
///
/// # Errors
/// If the document is not TOML, which its parser has checked.
pub(super) fn sections_of(document: &Document<'_>) -> Result<Table, ConfigError> {
    let root = Spanned::new(0..0, document.root().clone());
    let all =
        Table::deserialize(Deserializer::from(root)).map_err(|error| document.refuse(&error))?;
    let mut sections = Table::new();
    for (section, key) in KEYS {
        if let Some(value) = all.get(section).and_then(|section| section.get(key)) {
            let entry = [(key.to_owned(), value.clone())];
            sections.insert(section.to_owned(), Value::Table(Table::from_iter(entry)));
        }
    }
    for section in WHOLE {
        if let Some(value) = all.get(section) {
            sections.insert(section.to_owned(), value.clone());
        }
    }
    Ok(sections)
}

impl Config {
    /// The files that go with a model, by name: `foretell.toml`, and the schemas of its events.
    #[must_use]
    pub fn model_files(&self) -> Vec<(String, String)> {
        let schemas = self.event_schemas.iter().map(|schema| {
            let name =
                schema.source().companion_name().map_or_else(|| SCHEMA_FILE.to_owned(), file_of);
            (name, schema.text().to_owned())
        });
        let schemas: Vec<(String, String)> = schemas.collect();
        let mut sections = self.portable.clone();
        let mut names = schemas.iter().map(|(name, _)| Value::String(name.clone()));
        if let Some(events) = sections.get_mut("events").and_then(Value::as_table_mut) {
            events.insert("schema".to_owned(), names.next().expect("the lead has a schema"));
            let companions = events.get_mut("companions").and_then(Value::as_array_mut);
            for (companion, name) in companions.into_iter().flatten().zip(names) {
                if let Some(companion) = companion.as_table_mut() {
                    companion.insert("schema".to_owned(), name);
                }
            }
        }
        let serving = sections.entry("serving").or_insert_with(|| Value::Table(Table::new()));
        if let Some(serving) = serving.as_table_mut() {
            // There is no stream to write to, and nothing to serve but this.
            serving.retain(|key, _| key != "journal" && key != "enabled");
            for (key, value) in SERVING {
                serving.entry(key).or_insert(Value::Integer(value));
            }
        }
        let text = toml::to_string(&sections).expect("it was read from TOML");
        [(CONFIGURATION.to_owned(), HEAD.to_owned() + &text)].into_iter().chain(schemas).collect()
    }
}

/// The file of a companion's event schema, beside the model.
fn file_of(topic: &str) -> String {
    format!("{topic}.avsc")
}

/// The names of the files that [`Config::model_files`] has written beside a `foretell.toml` with this text; none if it has not
/// written it.
#[must_use]
pub fn written_with(text: &str) -> Vec<String> {
    let Some(sections) = text.strip_prefix(HEAD).and_then(|text| text.parse::<Table>().ok()) else {
        return Vec::new();
    };
    let companions = sections.get("events").and_then(|events| events.get("companions"));
    let companions = companions.and_then(Value::as_array).into_iter().flatten();
    // A schema with another name was put there by somebody else.
    let schemas = companions.filter_map(|companion| {
        let topic = companion.get("topic")?.as_str()?;
        let is_own = companion.get("schema")?.as_str()? == file_of(topic);
        (is_own && check::is_topic_name(topic)).then(|| file_of(topic))
    });
    [CONFIGURATION, SCHEMA_FILE].map(str::to_owned).into_iter().chain(schemas).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_files_make_the_same_answers_and_have_no_secrets() {
        let example = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/adult/foretell.toml"));
        let sets = [
            "http.bearer_token=secret-a",
            "broker.properties={ \"sasl.password\" = \"secret-b\" }",
            "schema_registry.password=secret-c",
            "schema_registry.username=me",
            "features.categorical=[\"hours_per_week\"]",
            "events.missing=[\"-\"]",
            "serving.rows_max=7",
            "serving.journal=true",
            "topics.prefix=team.",
        ]
        .map(str::to_owned);
        let config = Config::load(example, &sets).unwrap();
        let files = config.model_files();
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in &files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["foretell.toml", SCHEMA_FILE]);
        for absent in ["secret", "localhost", "adult.data", "[http", "[data", "[broker"] {
            assert!(!files[0].1.contains(absent), "{absent} in {}", files[0].1);
        }
        let again = Config::load(&folder.path().join("foretell.toml"), &[]).unwrap();
        assert_eq!(again.application(), "team.adult");
        assert_eq!(again.classes, config.classes);
        assert_eq!(format!("{:?}", again.pipeline), format!("{:?}", config.pipeline));
        assert_eq!(again.event_schema.questions(), config.event_schema.questions());
        let serving = (again.serving.rows_max, again.serving.body_bytes_max);
        assert!(again.serving.enabled && !again.serving.journal);
        assert_eq!(serving, (7, 6 << 20), "what is written counts, else the usual of a batch");
        assert_eq!(again.model_files(), files, "the files of the files are the same");
    }
}
