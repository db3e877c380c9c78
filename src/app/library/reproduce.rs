//! Trains a model again from its lineage and the training log, and compares the bytes.
//!
//! ```text
//!   models ─▶ bundle ─▶ recipe, policy, seed, offset ─┬─▶ train ─▶ bundle ─▶ identical?
//!   labelled-examples before that offset ─▶ sample ───┘
//! ```
//! A training is a pure function of these, so any instance of the same build gives the same bytes.

use std::{collections::BTreeMap, ops::ControlFlow};

use anyhow::Context;
use serde_json::Value as Json;

use crate::{
    app::{cluster::Cluster, learning, telemetry},
    config::Config,
    events::labelled_example::{ExampleOrigin, LabelledExample},
    processors::{
        convert,
        initial_data::InitialData,
        learning::trainer::{Phase, Progress},
        library::Library,
        metrics::ApplicationMetrics,
    },
};
use foretell_ml::{
    Column, DataPolicy, Example, ModelBundle, Recipe, Sample, TrainingSet, judge, lightgbm,
    training::{Holdout, train, train_judged},
    training_set::{History, InitialRow},
};

/// The result of a second training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reproduction {
    /// The same bytes.
    Identical {
        /// The version.
        version: String,
        /// The number of bytes.
        bytes: usize,
    },
    /// Other bytes.
    Different {
        /// The version that was to be reproduced.
        version: String,
        /// The version that the training gave.
        found: String,
        /// Where the first difference is.
        difference: String,
    },
}

/// Trains the model again that is named by a version, a unique prefix of one, or an alias.
///
/// # Errors
/// If it cannot be reproduced here; the message says why.
pub fn reproduce(
    config: &Config,
    cluster: &Cluster,
    library: &Library,
    named: &str,
    progress: Progress<'_>,
) -> anyhow::Result<Reproduction> {
    let bundle = library.bundle(named)?;
    let version = bundle.version();
    let cannot = || format!("model {version} cannot be reproduced");
    check(config, &bundle).with_context(cannot)?;
    if bundle.lineage.origin.training == 0 {
        first(config, cluster, &bundle, progress).with_context(cannot)
    } else {
        later(config, cluster, &bundle, progress).with_context(cannot)
    }
}

/// Checks what can be known before the log is read.
fn check(config: &Config, bundle: &ModelBundle) -> anyhow::Result<()> {
    let lineage = &bundle.lineage;
    anyhow::ensure!(
        !lineage.imported,
        "it was imported: its examples and parameters are not known here"
    );
    anyhow::ensure!(
        lineage.lightgbm == lightgbm::VERSION,
        "it was trained with LightGBM {}, and this program has {}: use the release that trained it",
        lineage.lightgbm,
        lightgbm::VERSION
    );
    // The log is read as the model's columns: any question can be a number or a category.
    let questions: Vec<Column> = config.gather.questions.iter().map(convert::column_of).collect();
    let is_asked = |column: &&Column| !questions.iter().any(|question| are_same(question, column));
    let lacking: Vec<&str> = bundle
        .pipeline
        .columns()
        .iter()
        .filter(is_asked)
        .map(|column| column.name.as_str())
        .collect();
    anyhow::ensure!(
        lacking.is_empty(),
        "it has columns that the event schema, which the log is read with, does not have: {}",
        lacking.join(", ")
    );
    Ok(())
}

/// Whether both are the column of one question, which may have been renamed.
pub(super) fn are_same(question: &Column, column: &Column) -> bool {
    question.is_called(&column.name) || column.is_called(&question.name)
}

/// Trains a model of `foretell init` again: on the rows of its table, which are the initial examples of the log. If there
/// were several tables of as many rows, each is tried, the newest first.
fn first(
    config: &Config,
    cluster: &Cluster,
    bundle: &ModelBundle,
    progress: Progress<'_>,
) -> anyhow::Result<Reproduction> {
    let LoggedTables { set, tables, newest_rows } = read_tables(config, cluster, bundle, progress)?;
    let wanted = bundle.lineage.origin.initial_examples;
    anyhow::ensure!(
        !tables.is_empty(),
        "{} has no table of {wanted} initial examples, which it was trained on; the newest has {newest_rows}: records were \
         deleted, or `foretell init` has not completed",
        config.topics.labelled_examples
    );
    let recipe = Recipe::of(bundle);
    let mut newest = None;
    for rows in tables.values().rev() {
        let history = History::new(bundle.pipeline.columns(), DataPolicy::default(), recipe.seed);
        let (sample, _) = history.sample(&set, rows);
        let reproduction = compare(bundle, &train_on(&sample, bundle, &recipe, progress)?)?;
        if matches!(reproduction, Reproduction::Identical { .. }) {
            return Ok(reproduction);
        }
        newest.get_or_insert(reproduction);
    }
    newest.context("there is no table")
}

/// The tables of initial examples of the log that have as many rows as a model was trained on.
struct LoggedTables {
    /// The rows of all tables, in columns: as many as the log has initial examples.
    set: TrainingSet,
    /// By generation.
    tables: BTreeMap<u64, Vec<InitialRow>>,
    /// The number of rows of the newest table.
    newest_rows: u64,
}

fn read_tables(
    config: &Config,
    cluster: &Cluster,
    bundle: &ModelBundle,
    progress: Progress<'_>,
) -> anyhow::Result<LoggedTables> {
    let columns = bundle.pipeline.columns();
    let mut initial = InitialData::<InitialRow>::default();
    let mut found =
        LoggedTables { set: TrainingSet::new(columns), tables: BTreeMap::new(), newest_rows: 0 };
    let wanted = bundle.lineage.origin.initial_examples;
    let topic = &config.topics.labelled_examples;
    cluster.read_records(config, topic, |record, labelled: LabelledExample| {
        if !progress(Phase::Reading, 0, 1) {
            return ControlFlow::Break(());
        }
        let is_new = labelled.origin == ExampleOrigin::Initial && !initial.has(record, &labelled);
        let events = &config.event_schema;
        let example = convert::example_of(&labelled, columns, events, &bundle.classes);
        if let Some(Example { values, label }) = example.filter(|_| is_new) {
            let row = found.set.push(&values, label);
            let row = InitialRow { row, event_time: labelled.event_time.0 };
            initial.take(record, &labelled, row);
            if let Some((manifest, rows)) = initial.newest() {
                found.newest_rows = count(rows.len());
                if found.newest_rows == wanted {
                    found.tables.insert(manifest.generation, rows.values().copied().collect());
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    anyhow::ensure!(progress(Phase::Reading, 1, 1), "interrupted");
    Ok(found)
}

/// Trains a model of the learner again, on the log before its offset.
fn later(
    config: &Config,
    cluster: &Cluster,
    bundle: &ModelBundle,
    progress: Progress<'_>,
) -> anyhow::Result<Reproduction> {
    let origin = &bundle.lineage.origin;
    let metrics = ApplicationMetrics::register(&telemetry::metrics_registry()?)?;
    let codecs = cluster.codecs(config)?;
    let mut log = learning::training_log(config, cluster, &codecs, origin.policy, metrics);
    log.spec = bundle.pipeline.spec().clone();
    log.classes.clone_from(&bundle.classes);
    log.seed = bundle.lineage.seed;
    log.read_to(origin.examples_through, progress)?;
    let (sample, initial) = log.sample(origin.initial_examples)?;
    let (initial, stream) = (count(initial), count(sample.len() - initial));
    anyhow::ensure!(
        initial == origin.initial_examples && stream == origin.stream_examples,
        "it was trained on {} initial examples and {} from the stream, and {} has {initial} and {stream} before offset {}: \
         records were deleted from it",
        origin.initial_examples,
        origin.stream_examples,
        log.source,
        origin.examples_through
    );
    compare(bundle, &train_on(&sample, bundle, &Recipe::of(bundle), progress)?)
}

fn train_on(
    sample: &Sample<'_>,
    bundle: &ModelBundle,
    recipe: &Recipe,
    progress: Progress<'_>,
) -> anyhow::Result<ModelBundle> {
    let mut report = |done, of| {
        if progress(Phase::Training, done, of) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    let held_out = usize::try_from(bundle.lineage.held_out)?;
    if held_out == 0 {
        return Ok(train(sample, recipe, &mut report)?);
    }
    let kept =
        sample.len().checked_sub(held_out).context("more examples were held out than used")?;
    let holdout = Holdout {
        kept: &sample.subset(|index| index < kept),
        held_out: &sample.subset(|index| index >= kept),
        // The model does not depend on what it was compared with.
        opponent: None,
        judge: judge::Settings::default(),
    };
    Ok(train_judged(sample, &holdout, recipe, &mut report)?.bundle)
}

fn count(examples: usize) -> u64 {
    u64::try_from(examples).unwrap_or(u64::MAX)
}

fn compare(bundle: &ModelBundle, again: &ModelBundle) -> anyhow::Result<Reproduction> {
    let bytes = again.to_bytes()?;
    let version = bundle.version().as_str().to_owned();
    if bytes == bundle.to_bytes()? {
        return Ok(Reproduction::Identical { version, bytes: bytes.len() });
    }
    let found = again.version().as_str().to_owned();
    Ok(Reproduction::Different { version, found, difference: first_difference(bundle, again)? })
}

/// Where two bundles differ first: inputs before what is made of them.
fn first_difference(bundle: &ModelBundle, again: &ModelBundle) -> anyhow::Result<String> {
    let (stored, made) = (serde_json::to_value(bundle)?, serde_json::to_value(again)?);
    for part in ["lineage", "classes", "pipeline"] {
        if let Some(difference) = difference(part, &stored[part], &made[part]) {
            return Ok(difference);
        }
    }
    let lines = bundle.booster.lines().zip(again.booster.lines());
    if let Some((number, (stored, made))) =
        (1..).zip(lines).find(|(_, (stored, made))| stored != made)
    {
        return Ok(format!("trees, line {number}: {:?} and now {:?}", short(stored), short(made)));
    }
    let difference = difference("", &stored, &made);
    Ok(difference.unwrap_or_else(|| "a part that this release does not know".to_owned()))
}

/// The path of the first value that differs, and the two values.
fn difference(path: &str, stored: &Json, made: &Json) -> Option<String> {
    if stored == made {
        return None;
    }
    match (stored, made) {
        (Json::Object(stored), Json::Object(made)) => {
            let names = stored.keys().chain(made.keys());
            names.into_iter().find_map(|name| {
                let value = |of: &serde_json::Map<String, Json>| {
                    of.get(name).cloned().unwrap_or(Json::Null)
                };
                let dot = if path.is_empty() { "" } else { "." };
                difference(&format!("{path}{dot}{name}"), &value(stored), &value(made))
            })
        }
        (Json::Array(stored), Json::Array(made)) if stored.len() == made.len() => {
            let mut pairs = stored.iter().zip(made).enumerate();
            pairs.find_map(|(index, (stored, made))| {
                difference(&format!("{path}[{index}]"), stored, made)
            })
        }
        (stored, made) => {
            let (stored, made) = (stored.to_string(), made.to_string());
            Some(format!("{path}: {} and now {}", short(&stored), short(&made)))
        }
    }
}

/// The beginning of a text.
fn short(text: &str) -> &str {
    text.char_indices().nth(60).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        app::{
            init::{self, InitObserver},
            initial::example,
            library::{self, fixture::Project},
            shutdown::Shutdown,
            table::Row,
        },
        events::questionnaire::Answer,
        processors::learning::{
            job::{Cause, Job, JobOutput, TrainingRequest},
            outputs::records_of,
            trainer::Work as _,
        },
    };
    use foretell_ml::{
        InitialPolicy, ModelVersion, Retention,
        training::{Calibration, Threshold, Trial},
    };
    use foretell_streams::{
        record::{OutputRecord, Topic},
        time::{Clock, EventTime, WallTime},
    };

    struct Silent;

    impl InitObserver for Silent {
        fn step(&mut self, _: &str) {}
        fn trial(&mut self, _: &Trial, _: u32) {}
    }

    impl Project {
        fn init(&self, force: bool) {
            let (clock, shutdown) = (crate::app::clock(), Shutdown::default());
            let (config, cluster) = (&self.config, &self.cluster);
            init::init(config, cluster, &clock, &shutdown, force, &mut Silent).unwrap();
        }

        fn publish(&self, topic: &Topic, key: &str, value: Vec<u8>) {
            let mut publisher = self.cluster.broker.publish().unwrap();
            let record = OutputRecord {
                topic: topic.clone(),
                partition: None,
                timestamp: EventTime(0),
                key: Some(key.as_bytes().to_vec()),
                value: Some(value),
                headers: Vec::new(),
            };
            publisher.send(record).unwrap();
            publisher.flush().unwrap();
        }

        /// Appends examples from the stream, whose labels are the opposite of the table's.
        fn label(&self, numbers: std::ops::Range<usize>) {
            let topic = &self.config.topics.labelled_examples;
            let codec = self.cluster.codec(&self.config, topic).unwrap();
            for number in numbers {
                let age = i32::try_from(number % 40).unwrap();
                let answers = [Some(Answer::Number(age.into())), None];
                let row = Row {
                    answers: self.config.gather.layout.row_of(&answers),
                    label: i32::from(age < 20).to_string(),
                    ..Row::default()
                };
                let at = EventTime(i64::try_from(number).unwrap() * 1_000);
                let example = LabelledExample {
                    origin: ExampleOrigin::Stream,
                    ..example(format!("stream-{number}"), &row, at)
                };
                let mut bytes = Vec::new();
                codec.encode(&example, &mut bytes).unwrap();
                self.publish(topic, "stream", bytes);
            }
        }

        /// Trains as the learner does, and writes the model.
        fn train(&self, training: u64, parent: Option<ModelVersion>) -> ModelBundle {
            let (config, cluster) = (&self.config, &self.cluster);
            let metrics =
                ApplicationMetrics::register(&telemetry::metrics_registry().unwrap()).unwrap();
            let codecs = cluster.codecs(config).unwrap();
            let clock: Arc<dyn Clock> = crate::app::clock();
            let mut work = learning::learning_work(config, cluster, codecs, &clock, metrics);
            let mut through = 0;
            let topic = &config.topics.labelled_examples;
            let read = cluster.read_to_end(topic, |record| {
                through = record.offset.next().0;
                Ok(ControlFlow::Continue(()))
            });
            read.unwrap();
            let cause = Cause::examples();
            let job = Job::Train(TrainingRequest { training, through, parent, cause });
            let Ok(JobOutput::Trained(trained)) = work.run(&job, &|_, _, _| true) else {
                panic!("not trained")
            };
            self.write_model(&trained.bundle);
            trained.bundle
        }

        fn write_model(&self, bundle: &ModelBundle) {
            let topic = &self.config.topics.models;
            let codec = self.cluster.codec(&self.config, topic).unwrap();
            let [model, _] = records_of(bundle, "test", WallTime(0)).unwrap();
            let mut bytes = Vec::new();
            codec.encode(&model, &mut bytes).unwrap();
            self.publish(topic, &model.version, bytes);
        }

        fn reproduce(&self, named: &str) -> Result<Reproduction, String> {
            let (config, cluster) = (&self.config, &self.cluster);
            let library = library::open(config, cluster).unwrap();
            reproduce(config, cluster, &library, named, &|_, _, _| true)
                .map_err(|error| format!("{error:#}"))
        }

        fn check_identical(&self, named: &str) {
            let found = self.reproduce(named).unwrap();
            assert!(matches!(found, Reproduction::Identical { .. }), "{named}: {found:?}");
        }

        fn champion(&self) -> ModelBundle {
            let library = library::open(&self.config, &self.cluster).unwrap();
            library.bundle("champion").unwrap()
        }
    }

    #[test]
    fn the_first_model_is_reproduced_also_after_examples_came_and_another_table() {
        let project = Project::new();
        project.init(false);
        let first = project.champion();
        project.check_identical("champion");
        project.label(0..50);
        // Another table of as many rows, with other labels.
        let rows = (0..400).map(|number| format!("{},a,{}\n", number % 40, number % 2));
        let table = format!("age,job,bought\n{}", rows.collect::<String>());
        project.write_table(&table);
        project.init(true);
        assert_ne!(project.champion().version(), first.version());
        project.check_identical("champion");
        project.check_identical(first.version().as_str());
    }

    #[test]
    fn models_of_the_learner_are_reproduced_with_every_policy() {
        let mut project = Project::new();
        project.init(false);
        let first = project.champion().version();
        project.label(0..600);
        let policies = [
            DataPolicy::default(),
            DataPolicy { retention: Retention::Last(300), ..DataPolicy::default() },
            DataPolicy { retention: Retention::Within(200_000), ..DataPolicy::default() },
            DataPolicy {
                retention: Retention::Reservoir(250),
                half_life: Some(100_000),
                initial: InitialPolicy::Age,
            },
        ];
        let mut trained = Vec::new();
        for (training, policy) in (1..).zip(policies) {
            project.config.learning.policy = policy;
            trained.push(project.train(training, Some(first.clone())));
        }
        project.config.learning.calibration = Calibration::Isotonic;
        project.config.learning.threshold = Threshold::Best(foretell_ml::Metric::F1);
        trained.push(project.train(5, Some(first)));
        assert!(trained.iter().all(|bundle| bundle.lineage.held_out > 0), "they were judged");
        // Later examples and settings do not matter.
        project.label(600..700);
        project.config.learning.seed = 7;
        project.config.learning.policy = DataPolicy::default();
        for bundle in trained {
            project.check_identical(bundle.version().as_str());
        }
    }

    #[test]
    fn a_model_of_configured_features_is_reproduced_also_after_they_have_changed() {
        let project = Project::new().configured(&[r#"features.categorical=["age"]"#]);
        project.init(false);
        project.check_identical("champion");
        let project = project.configured(&[]);
        project.check_identical("champion");
    }

    #[test]
    fn a_model_that_was_not_made_so_is_different_and_the_first_difference_is_named() {
        let project = Project::new();
        project.init(false);
        project.label(0..200);
        let bundle = project.train(1, None);
        let check = |bundle: &ModelBundle, words: &str| {
            project.write_model(bundle);
            let found = project.reproduce(bundle.version().as_str()).unwrap();
            let Reproduction::Different { difference, .. } = found else { panic!("{found:?}") };
            assert!(difference.contains(words), "{words:?} in {difference:?}");
        };
        let mut other = bundle.clone();
        other.lineage.params.num_leaves = 3;
        check(&other, "trees, line ");
        let mut other = bundle.clone();
        other.evaluation.auc = Some(0.25);
        check(&other, "evaluation.auc: 0.25 and now ");
        let mut other = bundle;
        other.lineage.iterations += 1;
        check(&other, "lineage.iterations: ");
    }

    #[test]
    fn what_cannot_be_reproduced_is_refused_with_the_reason() {
        let project = Project::new();
        project.init(false);
        project.label(0..200);
        let bundle = project.train(1, None);
        let check = |bundle: &ModelBundle, words: &str| {
            project.write_model(bundle);
            let message = project.reproduce(bundle.version().as_str()).unwrap_err();
            assert!(message.contains("cannot be reproduced"), "{message}");
            assert!(message.contains(words), "{words:?} in {message:?}");
        };
        let mut other = bundle.clone();
        other.lineage.imported = true;
        check(&other, "imported");
        let mut other = bundle.clone();
        other.lineage.lightgbm = "3.0.0".to_owned();
        check(&other, "LightGBM 3.0.0");
        let mut other = bundle.clone();
        other.lineage.origin.stream_examples += 1;
        check(&other, "201 from the stream, and labelled-examples");
        let mut other = bundle.clone();
        other.lineage.origin.examples_through += 5_000;
        check(&other, "ends before offset");
        let mut other = project.champion();
        other.lineage.origin.initial_examples = 500;
        check(&other, "no table of 500 initial examples");
        let unknown = project.reproduce("nothing").unwrap_err();
        assert!(unknown.contains("there is no model"), "{unknown}");
    }
}
