//! Registration of the schemas of a configuration in a registry: everything is checked before the first schema is registered.

use std::{fs, path::Path};

use foretell::{
    app::schemas::{Registered, SetLevels, register_with, schema_of},
    config::Config,
    events::topics::subject,
};
use foretell_avro::{local::LocalRegistry, registry::SchemaRegistry};
use tempfile::TempDir;

const TOML: &str = r#"
    [application]
    id = "app"
    [broker]
    bootstrap_servers = "localhost:1"
    [schema_registry]
    url = "http://localhost:1"
    [topics]
    prefix = "app."
    [events]
    schema = "event.avsc"
    respondent_id = "who"
    event_time = "at"
    [outcomes]
    labels = ["no", "yes"]
"#;

/// A configuration whose event schema has no folder of its own, so that the level of the registry counts: BACKWARD.
struct Project {
    folder: TempDir,
    registry: LocalRegistry,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("foretell.toml"), TOML).unwrap();
        Self { folder, registry: LocalRegistry::new() }
    }

    fn config(&self, questions: &str) -> Config {
        let avsc = format!(
            r#"{{"type":"record","name":"R","fields":[{{"name":"who","type":"string"}},
            {{"name":"at","type":"long"}},{{"name":"first","type":["null","int"]}}{questions}]}}"#
        );
        fs::write(self.path().join("event.avsc"), avsc).unwrap();
        Config::load(&self.path().join("foretell.toml"), &[]).unwrap()
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Registers the schemas with these questions; the numbers of new versions, or the error.
    fn register(&self, questions: &str) -> Result<Vec<usize>, String> {
        let mut new = Vec::new();
        let mut show = |registered: Registered| new.push(registered.new);
        let (config, levels) = (self.config(questions), SetLevels::WithNewVersions);
        register_with(&config, &self.registry, levels, &mut show)
            .map_err(|error| format!("{error:#}"))?;
        Ok(new)
    }

    /// The number of versions of every subject.
    fn versions(&self) -> Vec<usize> {
        let config = self.config("");
        let topics = config.topics.schemas(&config.event_schemas);
        let subjects = topics.into_iter().map(|(topic, _)| subject(topic));
        subjects.map(|name| self.registry.versions(&name).unwrap().len()).collect()
    }

    /// Registers schemas that the subject of the events accepts and the derived subjects refuse.
    fn refuse(&self, questions: &str, words: &[&str]) {
        let events = subject(&self.config("").topics.questionnaire_events);
        let text = self.config(questions).event_schema.text().to_owned();
        let accepts = self.registry.compatible(&events, &text);
        assert_eq!(accepts, Ok(foretell_avro::registry::Compatibility::Compatible), "{questions}");
        let before = self.versions();
        let error = self.register(questions).unwrap_err();
        let subjects = ["app.predictions-value: ", "app.labelled-examples-value: "];
        for words in subjects.iter().chain(words).chain(&["nothing was registered", "another name"])
        {
            assert!(error.contains(words), "{words:?} in {error}");
        }
        assert_eq!(self.versions(), before, "{questions}: nothing was registered");
    }
}

const INT: &str = r#",{"name":"a","type":["null","int"],"default":null}"#;
const DOUBLE: &str = r#",{"name":"a","type":["null","double"],"default":null}"#;
const TEXT: &str = r#",{"name":"a","type":["null","string"],"default":null}"#;

#[test]
fn nothing_is_registered_if_predictions_refuse_the_change() {
    let project = Project::new();
    assert_eq!(project.register(INT), Ok(vec![1; 10]));
    assert_eq!(project.register(INT), Ok(vec![0; 10]), "a second time");
    let changed = |to| format!("the answers to a have type long in schema 3 and {to} in the local");
    project.refuse(DOUBLE, &[&changed("double")]);
    let renamed = r#",{"name":"z","aliases":["a"],"type":["null","double"],"default":null}"#;
    project.refuse(renamed, &["the answers to z have type long in schema 3 and double"]);
    // A question with another name, and without the old one.
    let other = r#",{"name":"a_exact","type":["null","double"],"default":null}"#;
    assert_eq!(project.register(other), Ok(vec![1, 0, 1, 1, 1, 0, 0, 0, 0, 0]));
}

#[test]
fn a_question_that_was_removed_comes_back_with_its_kind_only() {
    let project = Project::new();
    project.register(INT).unwrap();
    assert_eq!(project.register(""), Ok(vec![1, 0, 1, 1, 1, 0, 0, 0, 0, 0]));
    project.refuse(TEXT, &["the answers to a have type long in schema 3 and string in the local"]);
    let long = r#",{"name":"a","type":["null","long"],"default":null}"#;
    // The answers have the type that they had at first, so their first versions are used again.
    assert_eq!(project.register(long), Ok(vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
}

#[test]
fn the_schema_of_a_topic_has_the_questions() {
    let project = Project::new();
    let config = project.config(INT);
    for name in ["predictions", "app.predictions"] {
        let text = schema_of(&config, name).unwrap();
        let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
        let fields = schema["fields"].as_array().unwrap();
        let answers = fields.iter().find(|field| field["name"] == "answers").unwrap();
        assert_eq!(answers["type"]["fields"][1]["type"], serde_json::json!(["null", "long"]));
        project.register(INT).unwrap();
        let subject = subject(&config.topics.predictions);
        let registered = project.registry.id_of(&subject, &text).unwrap();
        assert!(registered.is_some(), "it is the registered one: {text}");
    }
    let error = schema_of(&config, "replies").unwrap_err().to_string();
    assert!(error.contains("questionnaire-events, outcomes, predictions"), "{error}");
}
