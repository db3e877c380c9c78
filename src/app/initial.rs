//! Writes the initial data to the training log: checks the whole table first, then appends the rows that the log lacks.
//! Each row counts once, even if `init` runs repeatedly or on several machines at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context;

use crate::{
    app::{
        cluster::Cluster,
        returning,
        table::{self, Row, Table},
    },
    config::{Config, TableSettings},
    events::{
        action::ExampleActions,
        labelled_example::{ExampleOrigin, LabelledExample},
    },
    processors::{
        convert,
        gather::GatherSettings,
        initial_data::{InitialData, Manifest},
    },
};
use foretell_ml::{Column, Example, TrainingSet, Value, training::check_folds};
use foretell_streams::{
    record::OutputRecord,
    time::{Clock, EventTime},
};

/// The checked initial data.
pub(super) struct Prepared {
    table: Table,
    /// The training set of the first model.
    pub(super) examples: TrainingSet,
    /// The examples of `[data.play]`, which the first model is evaluated on.
    pub(super) unseen: Option<Vec<Example>>,
    /// Problems that do not prevent training.
    pub(super) warnings: Vec<String>,
}

/// An event time after this is probably in another unit.
const YEAR_2200: EventTime = EventTime(7_258_118_400_000);

/// Warnings about the respondents and the event times of a table, which `send` and `demo` play as events.
fn warnings_of(config: &Config, table: &TableSettings, rows: &[Row]) -> Vec<String> {
    let path = table.path.display();
    let times = || rows.iter().filter_map(|row| row.event_time);
    let mut warnings = Vec::new();
    let is_odd = |time: &EventTime| *time < EventTime::YEAR_2000 || *time > YEAR_2200;
    if let Some(first) = times().find(is_odd) {
        let hint = match first.mistaken_unit(YEAR_2200) {
            Some(unit) => {
                format!(" ms: it looks like {unit}, and has to be in the unit of the event schema")
            }
            None => String::new(),
        };
        warnings.push(format!(
            "{path}: column {:?}: {} of {} event times are not between the years 2000 and 2200, such as {}{hint}",
            config.events.event_time,
            times().filter(is_odd).count(),
            times().count(),
            first.0,
        ));
    }
    // Rows with the same event identity are one visit.
    let visits = rows.iter().filter(|row| !row.respondent_id.is_empty()).filter_map(|row| {
        Some((row.respondent_id.as_str(), row.event_time?, row.event_id.as_str()))
    });
    let visits: BTreeSet<(&str, EventTime, &str)> = visits.collect();
    let visits = visits.into_iter().map(|(respondent, at, _)| (respondent, at));
    warnings.extend(
        returning::warning(visits, &config.join).map(|warning| format!("{path}: {warning}")),
    );
    warnings
}

fn settings_of(config: &Config) -> anyhow::Result<&TableSettings> {
    config.data.initial.as_ref().context(
        "there is no initial data: name a table of past answers and outcomes in [data.initial]",
    )
}

/// The initial examples in the training log; each is true if it equals the table's row with its number.
type LoggedRows = InitialData<bool>;

impl Prepared {
    /// Reads the tables of the configuration.
    ///
    /// # Errors
    /// If no model can be trained from them. The message names the file, and the line where one is at fault.
    pub(super) fn from(config: &Config) -> anyhow::Result<Self> {
        let written = settings_of(config)?;
        Self::of_files(config, std::slice::from_ref(&written.path))
    }

    /// As [`Self::from`], of several files with the columns of `[data.initial]`.
    ///
    /// # Errors
    /// As [`Self::from`].
    pub(super) fn of_files(config: &Config, paths: &[PathBuf]) -> anyhow::Result<Self> {
        let written = settings_of(config)?;
        let labels = &config.classes;
        let mut tables = paths.iter().map(|path| {
            let settings = TableSettings { path: path.clone(), ..written.clone() };
            table::of_configuration(config, "data.initial", &settings, labels)
        });
        let mut table = tables.next().context("there is no initial data: name a file")??;
        for another in tables {
            table.rows.extend(another?.rows);
        }
        let columns = config.pipeline.columns();
        let mut examples = TrainingSet::new(columns);
        for row in &table.rows {
            let Example { values, label } = example_of(config, row)?;
            examples.push(&values, label);
        }
        let path = written.path.display();
        anyhow::ensure!(!table.rows.is_empty(), "{path}: there are no rows");
        let is_there = |label: &&String| table.rows.iter().any(|row| row.label == **label);
        let (there, lacking): (Vec<_>, Vec<_>) = labels.iter().partition(is_there);
        anyhow::ensure!(
            there.len() >= 2,
            "{path}: {} rows, all of them {there:?}: a model needs at least two labels that have examples",
            table.rows.len(),
        );
        let study = &config.tuning.study;
        let folds = usize::try_from(study.folds)?;
        check_folds(&examples.sample(), labels.len(), folds, study.order).with_context(|| {
            let counts = labels.iter().map(|label| {
                let rows = table.rows.iter().filter(|row| row.label == *label).count();
                format!("{rows} of {label:?}")
            });
            let counts: Vec<String> = counts.collect();
            format!("{path}: {} rows, {}", table.rows.len(), counts.join(", "))
        })?;
        let mut warnings = Vec::new();
        for label in lacking {
            warnings.push(format!(
                "{path}: label {label:?} has no example, so it will not be predicted"
            ));
        }
        if !table.unanswered.is_empty() {
            let names = table.unanswered.join(", ");
            warnings.push(format!(
                "{path}: no column has the event schema's {names}: the first model learns nothing of it"
            ));
        }
        warnings.extend(warnings_of(config, written, &table.rows));
        let unseen = match &config.data.play {
            Some(play) => {
                let played = table::of_configuration(config, "data.play", play, labels)?;
                if play.path != written.path {
                    warnings.extend(warnings_of(config, play, &played.rows));
                }
                Some(
                    played
                        .rows
                        .iter()
                        .map(|row| example_of(config, row))
                        .collect::<Result<_, _>>()?,
                )
            }
            None => None,
        };
        Ok(Self { table, examples, unseen, warnings })
    }

    /// Appends the rows that the training log lacks, and returns a message with their number. The rows of another table
    /// are replaced only if `replace` is set.
    ///
    /// # Errors
    /// If the log has the initial examples of another table. The message says what to do.
    pub(super) fn write(
        &self,
        config: &Config,
        cluster: &Cluster,
        clock: &Arc<dyn Clock>,
        replace: bool,
    ) -> anyhow::Result<String> {
        let logged = self.logged(config, cluster)?;
        let rows = self.table.rows.len();
        let none = BTreeMap::new();
        let (generation, present) = match logged.newest() {
            None => (1, &none),
            Some((newest, present)) if newest.generation == 0 => {
                let is_this_table = present.values().all(|is_same| *is_same);
                if is_this_table && present.len() == rows {
                    return Ok(format!(
                        "{rows} initial examples in the training log, 0 of them new"
                    ));
                }
                anyhow::ensure!(is_this_table || replace, "{}", other_table(config));
                (1, &none)
            }
            Some((newest, present)) if newest.table == self.table.digest => {
                (newest.generation, present)
            }
            Some((newest, _)) => {
                anyhow::ensure!(replace, "{}", other_table(config));
                (newest.generation + 1, &none)
            }
        };
        let manifest = Manifest {
            generation,
            table: self.table.digest.clone(),
            examples: u64::try_from(rows)?,
        };
        let topic = &config.topics.labelled_examples;
        let codec = cluster.codec::<LabelledExample>(config, topic)?;
        let mut publisher = cluster.broker.publish()?;
        let now = EventTime(clock.now().0);
        let mut written = 0;
        for (number, row) in (0_u64..).zip(&self.table.rows) {
            if present.contains_key(&number) {
                continue;
            }
            let example = example(manifest.example_id(number), row, now);
            let mut bytes = Vec::new();
            codec.encode(&example, &mut bytes)?;
            publisher.send(OutputRecord {
                topic: topic.clone(),
                partition: None,
                timestamp: now,
                key: Some(example.example_id.into_bytes()),
                value: Some(bytes),
                headers: vec![manifest.header()],
            })?;
            written += 1;
        }
        publisher.flush()?;
        let replaced = if generation > 1 && written > 0 { ", instead of those before" } else { "" };
        Ok(format!("{rows} initial examples in the training log, {written} of them new{replaced}"))
    }

    fn logged(&self, config: &Config, cluster: &Cluster) -> anyhow::Result<LoggedRows> {
        let questions = &config.gather.questions;
        let columns: Vec<Column> = questions.iter().map(convert::column_of).collect();
        let mut logged = LoggedRows::default();
        cluster.read_records(
            config,
            &config.topics.labelled_examples,
            |record, example: LabelledExample| {
                if example.origin == ExampleOrigin::Initial {
                    let row = example.example_id.rsplit('-').next().map(str::parse::<usize>);
                    let row = row.and_then(|number| self.table.rows.get(number.ok()?));
                    let is_same = row.is_some_and(|row| {
                        let layout = &config.gather.layout;
                        let values =
                            convert::values_in_order(&columns, questions, layout, &row.answers);
                        let written =
                            convert::values_in_order(&columns, questions, layout, &example.answers);
                        let mut pairs = values.into_iter().zip(written);
                        row.label == example.label
                            && pairs.all(|(value, written)| is_same_value(&value, &written))
                    });
                    logged.take(record, &example, is_same);
                }
                ControlFlow::Continue(())
            },
        )?;
        Ok(logged)
    }
}

fn other_table(config: &Config) -> String {
    format!(
        "the initial examples in {} are of another table than [data.initial] names: trainings would continue to learn from \
         them. Name that table, or replace them and make another first model with `foretell init --force`",
        config.topics.labelled_examples
    )
}

pub(super) fn example(example_id: String, row: &Row, now: EventTime) -> LabelledExample {
    LabelledExample {
        respondent_id: example_id.clone(),
        example_id,
        origin: ExampleOrigin::Initial,
        event_time: now,
        outcome_time: None,
        label: row.label.clone(),
        prediction: None,
        challenger: None,
        correction: false,
        replaced: None,
        actions: ExampleActions::default(),
        answers: row.answers.clone(),
    }
}

/// Whether a `written` value, maybe by an earlier release, is this `value` of the table. Earlier releases did not round the
/// numbers of `float` fields to 32 bits, and wrote a `long` that is a category as a number.
fn is_same_value(value: &Value, written: &Value) -> bool {
    let same = |one: f64, other: f64| (one as f32).to_bits() == (other as f32).to_bits();
    match (value, written) {
        (Value::Missing, Value::Missing) => true,
        (Value::Number(value), Value::Number(written)) => same(*value, *written),
        (Value::Text(value), Value::Text(written)) => value == written,
        (Value::Text(text), Value::Number(number)) | (Value::Number(number), Value::Text(text)) => {
            text.parse().is_ok_and(|parsed| same(parsed, *number))
        }
        (Value::Missing, _) | (_, Value::Missing) => false,
    }
}

fn example_of(config: &Config, row: &Row) -> anyhow::Result<Example> {
    let (columns, classes) = (config.pipeline.columns(), &config.classes);
    let GatherSettings { questions, layout, .. } = &config.gather;
    let label = convert::label_of(&row.label, classes);
    let label = label.with_context(|| format!("label {:?} is unknown", row.label))?;
    Ok(Example {
        values: convert::values_in_order(columns, questions, layout, &row.answers),
        label,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        app::{init, init::InitObserver, learning::learning_work, shutdown::Shutdown, telemetry},
        events::{model::Model, questionnaire::Answer},
        processors::{
            learning::{
                job::{Cause, Job, JobFailure, JobOutput, TrainingRequest},
                trainer::Work as _,
                work::LearningWork,
            },
            metrics::ApplicationMetrics,
        },
    };
    use foretell_avro::{local::LocalRegistry, registry::SchemaRegistry as _};
    use foretell_ml::{
        DataPolicy, Label, ModelBundle, Origin, Scorer, Scratch,
        training::{Trial, evaluate},
    };
    use foretell_streams::{record::InputRecord, time::SystemClock};

    /// A folder with an event schema, a table of 400 rows and a configuration.
    struct Project {
        folder: tempfile::TempDir,
        clock: Arc<dyn Clock>,
    }

    #[derive(Default)]
    struct Steps(Vec<String>);

    impl InitObserver for Steps {
        fn step(&mut self, line: &str) {
            self.0.push(line.to_owned());
        }

        fn trial(&mut self, _trial: &Trial, _of: u32) {}
    }

    const TOML: &str = r#"
        application.id = "shop"
        [events]
        schema = "event.avsc"
        respondent_id = "who"
        event_time = "at"
        [outcomes]
        labels = [0, 1]
        [tuning]
        trials = 1
        folds = 2
        iterations_max = 5
        [data.initial]
        path = "initial.csv"
        label = "out"
    "#;

    impl Project {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let avsc = r#"{"type":"record","name":"R","fields":[
                {"name":"who","type":"string"},{"name":"at","type":"long"},
                {"name":"age","type":["null","int"],"default":null},
                {"name":"job","type":["null","string"],"default":null}]}"#;
            fs::write(folder.path().join("event.avsc"), avsc).unwrap();
            fs::write(folder.path().join("foretell.toml"), TOML).unwrap();
            let project = Self { folder, clock: Arc::new(SystemClock::new()) };
            project.table(|age| i32::from(age >= 20));
            project
        }

        fn table(&self, label: impl Fn(i32) -> i32) {
            let ages = (0..400).map(|row| row % 40);
            let rows: String = ages.map(|age| format!("{age},{}\n", label(age))).collect();
            fs::write(self.folder.path().join("initial.csv"), format!("age,out\n{rows}")).unwrap();
        }

        fn config(&self, sets: &[&str]) -> Config {
            let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
            Config::load(&self.folder.path().join("foretell.toml"), &sets).unwrap()
        }

        fn init(&self, cluster: &Cluster, force: bool) -> anyhow::Result<Vec<String>> {
            self.init_with(cluster, force, &[])
        }

        fn init_with(
            &self,
            cluster: &Cluster,
            force: bool,
            sets: &[&str],
        ) -> anyhow::Result<Vec<String>> {
            let mut steps = Steps::default();
            let (config, shutdown) = (self.config(sets), Shutdown::default());
            init::init(&config, cluster, &self.clock, &shutdown, force, &mut steps)?;
            Ok(steps.0)
        }

        fn work(&self, cluster: &Cluster, sets: &[&str]) -> LearningWork {
            let config = self.config(sets);
            let registry = telemetry::metrics_registry().unwrap();
            let metrics = ApplicationMetrics::register(&registry).unwrap();
            let codecs = cluster.codecs(&config).unwrap();
            let mut work = learning_work(&config, cluster, codecs, &self.clock, metrics);
            work.settings.tuning.study.trials = 0;
            work
        }

        /// Trains a model on every record of the log.
        fn train(&self, cluster: &Cluster, sets: &[&str]) -> Result<ModelBundle, JobFailure> {
            let records = self.records(cluster);
            let through = records.last().map_or(0, |record| record.offset.next().0);
            let cause = Cause::examples();
            let request = TrainingRequest { training: 1, through, parent: None, cause };
            match self.work(cluster, sets).run(&Job::Train(request), &|_, _, _| true)? {
                JobOutput::Trained(trained) => Ok(trained.bundle),
                other @ (JobOutput::Judged(_) | JobOutput::Checked(_)) => panic!("{other:?}"),
            }
        }

        fn records(&self, cluster: &Cluster) -> Vec<InputRecord> {
            let mut records = Vec::new();
            let read = cluster.read_to_end(&self.config(&[]).topics.labelled_examples, |record| {
                records.push(record.clone());
                Ok(ControlFlow::Continue(()))
            });
            read.unwrap();
            records
        }

        fn publish(&self, cluster: &Cluster, records: impl IntoIterator<Item = OutputRecord>) {
            let mut publisher = cluster.broker.publish().unwrap();
            for record in records {
                publisher.send(record).unwrap();
            }
            publisher.flush().unwrap();
        }

        /// The record of a labelled example from the stream.
        fn labelled(&self, cluster: &Cluster, number: usize, age: i32, label: i32) -> OutputRecord {
            let config = self.config(&[]);
            let row = Row {
                answers: config.gather.layout.row_of(&[Some(Answer::Number(age.into())), None]),
                label: label.to_string(),
                ..Row::default()
            };
            let example = LabelledExample {
                origin: ExampleOrigin::Stream,
                ..example(format!("stream-{number}"), &row, EventTime(0))
            };
            let topic = config.topics.labelled_examples.clone();
            let mut bytes = Vec::new();
            cluster.codec(&config, &topic).unwrap().encode(&example, &mut bytes).unwrap();
            record(topic, None, Some(bytes), Vec::new())
        }
    }

    fn record(
        topic: foretell_streams::record::Topic,
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        headers: Vec<foretell_streams::record::Header>,
    ) -> OutputRecord {
        OutputRecord { topic, partition: None, timestamp: EventTime(0), key, value, headers }
    }

    /// The probability of the second label at an age.
    fn second_at(bundle: &ModelBundle, age: f64) -> f64 {
        let values = [Value::Number(age), Value::Missing];
        Scorer::new(bundle).unwrap().score(&values, &mut Scratch::default()).as_slice()[1]
    }

    #[test]
    fn an_unusable_table_is_rejected_before_anything_is_written() {
        let (project, cluster) = (Project::new(), Cluster::embedded(&crate::app::clock()));
        let check_rejected = |words: &[&str]| {
            let message = format!("{:#}", project.init(&cluster, false).expect_err("rejected"));
            for word in words {
                assert!(message.contains(word), "{word:?} is not in {message:?}");
            }
            let topic = &project.config(&[]).topics.labelled_examples;
            assert_eq!(cluster.broker.partitions(topic).unwrap(), None, "{topic}");
        };
        project.table(|_| 0);
        check_rejected(&["initial.csv", "400 rows", "at least two"]);
        project.table(|age| if age == 30 { 2 } else { age % 2 });
        check_rejected(&["initial.csv", "line 32", "\"2\"", "0, 1"]);
        fs::remove_file(project.folder.path().join("initial.csv")).unwrap();
        check_rejected(&["initial.csv"]);
    }

    #[test]
    fn another_table_is_rejected_or_with_force_replaces_the_first() {
        let (project, cluster) = (Project::new(), Cluster::embedded(&crate::app::clock()));
        project.table(|age| i32::from(age < 20));
        project.init(&cluster, false).unwrap();
        assert!(second_at(&project.train(&cluster, &[]).unwrap(), 35.0) < 0.5);
        // The same rows with other labels.
        project.table(|age| i32::from(age >= 20));
        let message = project.init(&cluster, false).unwrap_err().to_string();
        assert!(message.contains("another table") && message.contains("--force"), "{message}");
        let steps = project.init(&cluster, true).unwrap();
        assert!(steps.iter().any(|step| step.contains("400 of them new, instead")), "{steps:?}");
        let bundle = project.train(&cluster, &[]).unwrap();
        assert_eq!(bundle.lineage.origin.initial_examples, 400);
        assert!(second_at(&bundle, 35.0) > 0.5 && second_at(&bundle, 5.0) < 0.5);
        let steps = project.init(&cluster, false).unwrap();
        assert!(steps.iter().any(|step| step.contains("0 of them new")), "{steps:?}");
        // The first table again: the newest generation counts.
        project.table(|age| i32::from(age < 20));
        project.init(&cluster, true).unwrap();
        assert!(second_at(&project.train(&cluster, &[]).unwrap(), 35.0) < 0.5);
    }

    #[test]
    fn warnings_name_columns_and_labels_without_examples() {
        let (project, cluster) = (Project::new(), Cluster::embedded(&crate::app::clock()));
        let steps = project.init(&cluster, false).unwrap();
        assert!(
            steps.iter().any(|step| step.contains("warning") && step.contains("job")),
            "{steps:?}"
        );
        let config = project.config(&["outcomes.labels=[0, 1, 2]"]);
        let warnings = Prepared::from(&config).unwrap().warnings;
        assert!(warnings.iter().any(|line| line.contains("\"2\"")), "{warnings:?}");
    }

    #[test]
    fn three_concurrent_inits_count_each_row_once() {
        let (project, cluster) = (Project::new(), Cluster::embedded(&crate::app::clock()));
        std::thread::scope(|scope| {
            let threads = [0; 3].map(|_| scope.spawn(|| project.init(&cluster, false)));
            for thread in threads {
                thread.join().unwrap().unwrap();
            }
        });
        let bundle = project.train(&cluster, &[]).unwrap();
        assert_eq!(bundle.lineage.origin.initial_examples, 400);
        let alone = Cluster::embedded(&crate::app::clock());
        project.init(&alone, false).unwrap();
        let trained = |cluster: &Cluster| {
            let bundle = project.train(cluster, &[]).unwrap();
            (bundle.booster.clone(), bundle.pipeline)
        };
        assert_eq!(trained(&cluster), trained(&alone), "the same examples in the same order");
    }

    #[test]
    fn no_model_is_trained_on_a_log_without_its_first_records_until_init_has_restored_them() {
        let (project, whole) = (Project::new(), Cluster::embedded(&crate::app::clock()));
        project.init(&whole, false).unwrap();
        // The same cluster without the first 25 records of the training log.
        let cluster = Cluster {
            registry: Arc::clone(&whole.registry),
            ..Cluster::embedded(&crate::app::clock())
        };
        let config = project.config(&[]);
        cluster.broker.create_topics(&config.topics.specs(1)).unwrap();
        let kept = project.records(&whole).into_iter().skip(25);
        let topic = &config.topics.labelled_examples;
        project.publish(&cluster, kept.map(|r| record(topic.clone(), r.key, r.value, r.headers)));
        project.publish(&cluster, [project.labelled(&cluster, 0, 30, 1)]);
        let error = project.train(&cluster, &[]).unwrap_err();
        let JobFailure::Incomplete(why) = &error else { panic!("{error}") };
        assert!(why.contains("375 of the 400") && why.contains("foretell init"), "{why}");
        let config = project.config(&["topics.partitions=1"]);
        let prepared = Prepared::from(&config).unwrap();
        let line = prepared.write(&config, &cluster, &project.clock, false).unwrap();
        assert!(line.contains("25 of them new"), "{line}");
        let origin = project.train(&cluster, &[]).unwrap().lineage.origin;
        assert_eq!((origin.initial_examples, origin.stream_examples), (400, 1));
    }

    /// The topics are as before, and registering the schemas again gives them the ids that records name, or others.
    #[test]
    fn a_registry_that_lost_its_schemas_makes_init_train_nothing_in_vain() {
        let (project, before) = (Project::new(), Cluster::embedded(&crate::app::clock()));
        project.init(&before, false).unwrap();
        let models = project.config(&[]).topics.models;
        let records = |cluster: &Cluster| {
            let mut models_written = 0;
            let count = |_: &InputRecord| {
                models_written += 1;
                Ok(ControlFlow::Continue(()))
            };
            cluster.read_to_end(&models, count).unwrap();
            (models_written, project.records(cluster).len())
        };
        let written = records(&before);
        let with =
            |registry: LocalRegistry| Cluster { registry: Arc::new(registry), ..before.clone() };
        let same_ids = with(LocalRegistry::new());
        let steps = project.init(&same_ids, false).unwrap();
        assert!(steps.iter().any(|step| step.contains("a model serves already")), "{steps:?}");
        assert_eq!(records(&same_ids), written);

        let registry = LocalRegistry::new();
        for size in 1..100 {
            let schema = format!(r#"{{"type":"fixed","name":"F{size}","size":{size}}}"#);
            registry.register(&format!("other-{size}"), &schema).unwrap();
        }
        let other_ids = with(registry);
        let error = format!("{:#}", project.init(&other_ids, false).unwrap_err());
        for words in ["which model serves", "restore the schema registry", "--force"] {
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(records(&other_ids), written, "nothing is trained or written");
        project.init(&other_ids, true).unwrap();
        let steps = project.init(&other_ids, false).unwrap();
        assert!(steps.iter().any(|step| step.contains("a model serves already")), "{steps:?}");
    }

    #[test]
    fn records_that_cannot_be_decoded_are_skipped() {
        let (project, cluster) = (Project::new(), Cluster::embedded(&crate::app::clock()));
        project.init(&cluster, false).unwrap();
        let topics = project.config(&[]).topics;
        for topic in [&topics.models, &topics.trials, &topics.labelled_examples] {
            let garbage = Some(b"not Avro".to_vec());
            project.publish(
                &cluster,
                [record(topic.clone(), Some(b"x".to_vec()), garbage, Vec::new())],
            );
        }
        assert!(project.init(&cluster, false).is_ok());
        assert!(project.init(&cluster, true).is_ok());
        let mut models = 0;
        let skipped = cluster.read_values(&project.config(&[]), &topics.models, |_: Model| {
            models += 1;
            ControlFlow::Continue(())
        });
        assert_eq!((skipped.unwrap(), models), (1, 4));
        assert_eq!(project.train(&cluster, &[]).unwrap().lineage.origin.initial_examples, 400);
    }

    #[test]
    fn rows_written_by_an_earlier_release_count_once() {
        let (project, whole) = (Project::new(), Cluster::embedded(&crate::app::clock()));
        project.init(&whole, false).unwrap();
        let cluster = Cluster {
            registry: Arc::clone(&whole.registry),
            ..Cluster::embedded(&crate::app::clock())
        };
        let config = project.config(&[]);
        cluster.broker.create_topics(&config.topics.specs(config.partitions)).unwrap();
        let topic = &config.topics.labelled_examples;
        let codec = cluster.codec::<LabelledExample>(&config, topic).unwrap();
        // Two concurrent runs of an earlier release: no manifest header, and ids with the row number alone.
        for _ in 0..2 {
            let old = project.records(&whole).into_iter().zip(0..).map(|(found, number)| {
                let mut example = codec.decode(&found.value.unwrap()).unwrap();
                example.example_id = format!("initial-{number}");
                let mut bytes = Vec::new();
                codec.encode(&example, &mut bytes).unwrap();
                record(topic.clone(), None, Some(bytes), Vec::new())
            });
            project.publish(&cluster, old);
        }
        assert_eq!(project.train(&cluster, &[]).unwrap().lineage.origin.initial_examples, 400);
        let steps = project.init(&cluster, false).unwrap();
        assert!(steps.iter().any(|step| step.contains("0 of them new")), "{steps:?}");
        project.table(|age| i32::from(age < 20));
        assert!(project.init(&cluster, false).is_err());
    }

    /// The stream has the opposite labels of the table.
    #[test]
    fn stream_examples_replace_initial_data_that_age() {
        let (project, cluster) = (Project::new(), Cluster::embedded(&crate::app::clock()));
        project.init(&cluster, false).unwrap();
        let drifted = (0..600).map(|number| {
            let age = i32::try_from(number % 40).unwrap();
            project.labelled(&cluster, number, age, i32::from(age < 20))
        });
        project.publish(&cluster, drifted);
        let current = (0..40_u8).map(|age| Example {
            values: vec![Value::Number(age.into()), Value::Missing],
            label: Label(u32::from(age < 20)),
        });
        let current: Vec<Example> = current.collect();
        let trained = |sets: &[&str]| {
            let bundle = project.train(&cluster, sets).unwrap();
            let Origin { initial_examples, stream_examples, .. } = bundle.lineage.origin;
            let auc = evaluate(&Scorer::new(&bundle).unwrap(), &current).auc.unwrap();
            (initial_examples, stream_examples, auc)
        };
        let keep = trained(&["learning.last=300"]);
        assert_eq!((keep.0, keep.1), (400, 300));
        let age = trained(&["learning.last=300", "learning.initial=\"age\""]);
        assert_eq!((age.0, age.1), (0, 300));
        assert!(age.2 > 0.95 && keep.2 < 0.7, "{age:?} {keep:?}");
        let some = trained(&["learning.last=750", "learning.initial=\"age\""]);
        assert_eq!((some.0, some.1), (150, 600), "the oldest are replaced first");
        assert_eq!(project.work(&cluster, &[]).log.policy, DataPolicy::default());
    }

    #[test]
    fn the_configured_threshold_decides_the_label() {
        let age = [Value::Number(35.0), Value::Missing];
        let check = |sets: &[&str], threshold: f64, label: u32| {
            let (project, cluster) = (Project::new(), Cluster::embedded(&crate::app::clock()));
            project.init_with(&cluster, false, sets).unwrap();
            let mut bundles = vec![project.train(&cluster, sets).unwrap()];
            let config = project.config(sets);
            let read = cluster.read_values(&config, &config.topics.models, |model: Model| {
                bundles.extend(model.bundle.map(|bytes| ModelBundle::from_bytes(&bytes).unwrap()));
                ControlFlow::Continue(())
            });
            assert_eq!((read.unwrap(), bundles.len()), (0, 2), "a first model and a retrained one");
            for bundle in bundles {
                assert_eq!(bundle.threshold.to_bits(), threshold.to_bits());
                let scorer = Scorer::new(&bundle).unwrap();
                let probabilities = scorer.score(&age, &mut Scratch::default());
                let second = probabilities.as_slice()[1];
                assert!(second > 0.5 && second < 0.99, "{second}");
                assert_eq!(scorer.decide(&probabilities), Label(label), "{sets:?}");
            }
        };
        check(&["learning.threshold=0.5"], 0.5, 1);
        check(&["learning.threshold=0.99"], 0.99, 0);
    }
}
