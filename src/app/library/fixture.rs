//! An application with topics and schemas on a cluster in this process, for the tests of this folder.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::{
    app::{
        cluster::Cluster,
        schemas::{self, SetLevels},
    },
    config::Config,
};

/// Its event schema has the questions `age` and `job`.
pub(super) struct Project {
    pub(super) config: Config,
    pub(super) cluster: Cluster,
    folder: TempDir,
}

const TOML: &str = r#"
    application.id = "shop"
    [events]
    schema = "event.avsc"
    respondent_id = "who"
    event_time = "at"
    [outcomes]
    labels = ["0", "1"]
    [topics]
    partitions = 1
    [tuning]
    trials = 2
    iterations_max = 30
    [data.initial]
    path = "initial.csv"
    label = "bought"
"#;

const AVSC: &str = r#"{"type":"record","name":"E","fields":[
    {"name":"who","type":"string"},{"name":"at","type":"long"},
    {"name":"age","type":["null","int"],"default":null},
    {"name":"job","type":["null","string"],"default":null}]}"#;

impl Project {
    /// With 400 initial examples, of which those from an age of 20 on are of label 1.
    pub(super) fn new() -> Self {
        let rows = (0..400).map(|number| {
            let (age, job) = (number % 40, ["a", "b", "c"][number % 3]);
            format!("{age},{job},{}\n", u8::from(age >= 20))
        });
        Self::of(&format!("age,job,bought\n{}", rows.collect::<String>()))
    }

    /// With these initial examples.
    pub(super) fn of(table: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("event.avsc", AVSC), ("foretell.toml", TOML), ("initial.csv", table)]
        {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let config = Config::load(&folder.path().join("foretell.toml"), &[]).unwrap();
        let cluster = Cluster::embedded(&crate::app::clock());
        let specs = config.topics.specs(config.partitions);
        cluster.broker.create_topics(&specs).unwrap();
        let levels = SetLevels::WithNewVersions;
        schemas::register_with(&config, cluster.registry.as_ref(), levels, &mut |_| {}).unwrap();
        Self { config, cluster, folder }
    }

    /// The same with these settings, as of `--set`.
    pub(super) fn configured(self, settings: &[&str]) -> Self {
        let settings: Vec<String> = settings.iter().map(|one| (*one).to_owned()).collect();
        let config = Config::load(&self.folder().join("foretell.toml"), &settings).unwrap();
        Self { config, ..self }
    }

    /// The folder with its files.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the table of the initial examples.
    pub(super) fn write_table(&self, table: &str) {
        fs::write(self.folder.path().join("initial.csv"), table).unwrap();
    }
}
