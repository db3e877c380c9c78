//! The user's table on its way into the training log: what can be wrong with it is found first; then it is written, once,
//! however often and by however many at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
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
        labelled_example::{ExampleOrigin, LabelledExample},
        questionnaire::Answer,
    },
    processors::{
        convert,
        initial_data::{InitialData, Manifest},
    },
};
use foretell_ml::{Column, Example, Value, training::check_folds};
use foretell_streams::{
    record::OutputRecord,
    time::{Clock, EventTime},
};

/// The initial data, with nothing wrong with them.
pub(super) struct Prepared {
    table: Table,
    /// What the first model learns from.
    pub(super) examples: Vec<Example>,
    /// What `send` plays, if the configuration names it.
    pub(super) unseen: Option<Vec<Example>>,
    /// What may be meant, or not.
    pub(super) warnings: Vec<String>,
}

/// A later time is rather one in another unit.
const YEAR_2200: EventTime = EventTime(7_258_118_400_000);

/// What the metadata of a table's rows tell of the events to come.
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
    // A row that repeats an event is no visit.
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

/// What the training log has of initial examples; of each, whether it is the table's row of its number.
type Found = InitialData<bool>;

impl Prepared {
    /// Reads the tables of the configuration.
    ///
    /// # Errors
    /// If nothing can be learned from them; it names the file, and the line if it is of one.
    pub(super) fn from(config: &Config) -> anyhow::Result<Self> {
        let written = config.data.initial.as_ref().context(
            "there is no initial data: name a table of past answers and outcomes in [data.initial]",
        )?;
        let labels = &config.classes;
        let table = table::of_configuration(config, "data.initial", written, labels)?;
        let examples = examples_of(config, &table.rows)?;
        let path = written.path.display();
        anyhow::ensure!(!table.rows.is_empty(), "{path}: there are no rows");
        let is_there = |label: &&String| table.rows.iter().any(|row| row.label == **label);
        let (there, lacking): (Vec<_>, Vec<_>) = labels.iter().partition(is_there);
        anyhow::ensure!(
            there.len() >= 2,
            "{path}: {} rows, all of them {there:?}: a model needs at least two labels that have examples",
            table.rows.len(),
        );
        let folds = usize::try_from(config.tuning.study.folds)?;
        check_folds(&examples, labels.len(), folds).with_context(|| {
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
                Some(examples_of(config, &played.rows)?)
            }
            None => None,
        };
        Ok(Self { table, examples, unseen, warnings })
    }

    /// Writes what is not in the training log yet, and says what that was. Another table is written only if it is to
    /// `replace` what is there.
    ///
    /// # Errors
    /// If the log has initial examples of another table; it says what to do.
    pub(super) fn write(
        &self,
        config: &Config,
        cluster: &Cluster,
        clock: &Arc<dyn Clock>,
        replace: bool,
    ) -> anyhow::Result<String> {
        let found = self.find(config, cluster)?;
        let rows = self.table.rows.len();
        let none = BTreeMap::new();
        let (generation, there) = match found.newest() {
            None => (1, &none),
            Some((newest, there)) if newest.generation == 0 => {
                let is_ours = there.values().all(|is_same| *is_same);
                if is_ours && there.len() == rows {
                    return Ok(format!(
                        "{rows} initial examples in the training log, 0 of them new"
                    ));
                }
                anyhow::ensure!(is_ours || replace, "{}", another(config));
                (1, &none)
            }
            Some((newest, there)) if newest.table == self.table.digest => {
                (newest.generation, there)
            }
            Some((newest, _)) => {
                anyhow::ensure!(replace, "{}", another(config));
                (newest.generation + 1, &none)
            }
        };
        let manifest = Manifest {
            generation,
            table: self.table.digest.clone(),
            examples: u64::try_from(rows)?,
        };
        let topic = &config.topics.labelled_examples;
        let codec = cluster.codec::<LabelledExample>(topic)?;
        let mut publisher = cluster.broker.publish()?;
        let now = EventTime(clock.now().0);
        let mut written = 0;
        for (number, row) in (0_u64..).zip(&self.table.rows) {
            if there.contains_key(&number) {
                continue;
            }
            let example = example(config, manifest.example_id(number), row, now);
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
        let instead = if generation > 1 && written > 0 { ", instead of those before" } else { "" };
        Ok(format!("{rows} initial examples in the training log, {written} of them new{instead}"))
    }

    fn find(&self, config: &Config, cluster: &Cluster) -> anyhow::Result<Found> {
        let questions = &config.gather.questions;
        let columns: Vec<Column> = questions.iter().map(convert::column_of).collect();
        let mut found = Found::default();
        cluster.read_records(
            &config.topics.labelled_examples,
            |record, example: LabelledExample| {
                if example.origin == ExampleOrigin::Initial {
                    let row = example.example_id.rsplit('-').next().map(str::parse::<usize>);
                    let row = row.and_then(|number| self.table.rows.get(number.ok()?));
                    let is_same = row.is_some_and(|row| {
                        let ours = convert::features_of(questions, &row.answers);
                        let ours = convert::values_of(&ours, &columns);
                        let theirs = convert::values_of(&example.features, &columns);
                        row.label == example.label
                            && ours.iter().zip(&theirs).all(|(ours, theirs)| is_alike(ours, theirs))
                    });
                    found.take(record, &example, is_same);
                }
                ControlFlow::Continue(())
            },
        )?;
        Ok(found)
    }
}

fn another(config: &Config) -> String {
    format!(
        "the initial examples in {} are of another table than [data.initial] names: trainings would go on learning from \
         those. Name that table, or replace them and make another first model with `foretell init --force`",
        config.topics.labelled_examples
    )
}

fn example(config: &Config, example_id: String, row: &Row, now: EventTime) -> LabelledExample {
    LabelledExample {
        respondent_id: example_id.clone(),
        example_id,
        origin: ExampleOrigin::Initial,
        event_time: now,
        outcome_time: None,
        label: row.label.clone(),
        features: convert::features_of(&config.gather.questions, &row.answers),
        prediction: None,
        correction: false,
    }
}

/// Whether an earlier release may have written one where this one writes the other: it kept numbers for `float` as they
/// stood in the table, and a `long` that is a category as a number.
fn is_alike(ours: &Value, theirs: &Value) -> bool {
    let same = |one: f64, other: f64| (one as f32).to_bits() == (other as f32).to_bits();
    match (ours, theirs) {
        (Value::Missing, Value::Missing) => true,
        (Value::Number(ours), Value::Number(theirs)) => same(*ours, *theirs),
        (Value::Text(ours), Value::Text(theirs)) => ours == theirs,
        (Value::Text(text), Value::Number(number)) | (Value::Number(number), Value::Text(text)) => {
            text.parse().is_ok_and(|parsed| same(parsed, *number))
        }
        (Value::Missing, _) | (_, Value::Missing) => false,
    }
}

fn examples_of(config: &Config, rows: &[Row]) -> anyhow::Result<Vec<Example>> {
    let columns = config.pipeline.columns();
    let classes = &config.classes;
    let places = columns.iter().map(|column| convert::place_of(column, &config.gather.questions));
    let places: Vec<Option<usize>> = places.collect();
    let answer =
        |row: &Row, place: &Option<usize>| -> Option<Answer> { row.answers[(*place)?].clone() };
    rows.iter()
        .map(|row| {
            let label = convert::label_of(&row.label, classes);
            let label = label.with_context(|| format!("label {:?} is unknown", row.label))?;
            let values = places.iter().map(|place| convert::value_of(answer(row, place).as_ref()));
            Ok(Example { values: values.collect(), label })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        app::{init, init::InitObserver, shutdown::Shutdown, telemetry},
        processors::{
            metrics::ApplicationMetrics,
            model_table::Serving,
            trainer::{TrainingFailure, TrainingJob as _, TrainingRequest},
            training_log::{InitialPolicy, ReadLog, TrainingLog},
        },
    };
    use foretell_ml::{
        Label, ModelBundle, Origin, Scorer, Scratch, Seed,
        training::{Trial, evaluate},
    };
    use foretell_streams::{
        record::{InputRecord, Partition, TopicPartition},
        time::SystemClock,
    };

    /// A folder with a schema, a table of 400 rows and a configuration of them.
    struct Place {
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

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let avsc = r#"{"type":"record","name":"R","fields":[
                {"name":"who","type":"string"},{"name":"at","type":"long"},
                {"name":"age","type":["null","int"],"default":null},
                {"name":"job","type":["null","string"],"default":null}]}"#;
            fs::write(folder.path().join("event.avsc"), avsc).unwrap();
            fs::write(folder.path().join("foretell.toml"), TOML).unwrap();
            let place = Self { folder, clock: Arc::new(SystemClock::new()) };
            place.table(|age| i32::from(age >= 20));
            place
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
            let mut steps = Steps::default();
            let (config, shutdown) = (self.config(&[]), Shutdown::default());
            init::init(&config, cluster, &self.clock, &shutdown, force, &mut steps)?;
            Ok(steps.0)
        }

        fn log(&self, cluster: &Cluster, sets: &[&str]) -> TrainingLog {
            let config = self.config(sets);
            let registry = telemetry::metrics_registry().unwrap();
            TrainingLog {
                broker: Arc::clone(&cluster.broker),
                source: TopicPartition {
                    topic: config.topics.labelled_examples.clone(),
                    partition: Partition(0),
                },
                codec: cluster.codec(&config.topics.labelled_examples).unwrap(),
                spec: config.pipeline.clone(),
                classes: config.classes.clone(),
                stream_examples_max: config.learning.stream_examples_max,
                initial: config.learning.initial,
                metrics: ApplicationMetrics::register(&registry).unwrap(),
                serving: Serving::default(),
                seed: Seed(1),
                read: ReadLog::default(),
            }
        }

        /// What a retraining makes of all that is in the log.
        fn train(&self, cluster: &Cluster, sets: &[&str]) -> Result<ModelBundle, TrainingFailure> {
            let records = self.records(cluster);
            let through = records.last().map_or(0, |record| record.offset.next().0);
            let request = TrainingRequest { training: 1, through, parent: None };
            self.log(cluster, sets).train(&request, &mut |_, _| true)
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

        /// An example from the stream.
        fn labelled(&self, cluster: &Cluster, number: usize, age: i32, label: i32) -> OutputRecord {
            let config = self.config(&[]);
            let row = Row {
                answers: vec![Some(Answer::Number(age.into())), None],
                label: label.to_string(),
                ..Row::default()
            };
            let example = LabelledExample {
                origin: ExampleOrigin::Stream,
                ..example(&config, format!("stream-{number}"), &row, EventTime(0))
            };
            let topic = config.topics.labelled_examples.clone();
            let mut bytes = Vec::new();
            cluster.codec(&topic).unwrap().encode(&example, &mut bytes).unwrap();
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

    /// How probable the second label is at an age.
    fn second_at(bundle: &ModelBundle, age: f64) -> f64 {
        let values = [Value::Number(age), Value::Missing];
        Scorer::new(bundle).unwrap().score(&values, &mut Scratch::default()).as_slice()[1]
    }

    #[test]
    fn what_can_not_be_learned_from_is_refused_before_anything_is_written() {
        let (place, cluster) = (Place::new(), Cluster::embedded(&crate::app::clock()));
        let refuse = |words: &[&str]| {
            let message = format!("{:#}", place.init(&cluster, false).expect_err("refused"));
            for word in words {
                assert!(message.contains(word), "{message:?} says nothing of {word:?}");
            }
            let topic = &place.config(&[]).topics.labelled_examples;
            assert_eq!(cluster.broker.partitions(topic).unwrap(), None, "{topic}");
        };
        place.table(|_| 0);
        refuse(&["initial.csv", "400 rows", "at least two"]);
        place.table(|age| if age == 30 { 2 } else { age % 2 });
        refuse(&["initial.csv", "line 32", "\"2\"", "0, 1"]);
        fs::remove_file(place.folder.path().join("initial.csv")).unwrap();
        refuse(&["initial.csv"]);
    }

    #[test]
    fn another_table_is_refused_or_replaces_the_one_before() {
        let (place, cluster) = (Place::new(), Cluster::embedded(&crate::app::clock()));
        place.table(|age| i32::from(age < 20));
        place.init(&cluster, false).unwrap();
        assert!(second_at(&place.train(&cluster, &[]).unwrap(), 35.0) < 0.5);
        // The labels are put right.
        place.table(|age| i32::from(age >= 20));
        let message = place.init(&cluster, false).unwrap_err().to_string();
        assert!(message.contains("another table") && message.contains("--force"), "{message}");
        let steps = place.init(&cluster, true).unwrap();
        assert!(steps.iter().any(|step| step.contains("400 of them new, instead")), "{steps:?}");
        let bundle = place.train(&cluster, &[]).unwrap();
        assert_eq!(bundle.lineage.origin.initial_examples, 400);
        assert!(second_at(&bundle, 35.0) > 0.5 && second_at(&bundle, 5.0) < 0.5);
        let steps = place.init(&cluster, false).unwrap();
        assert!(steps.iter().any(|step| step.contains("0 of them new")), "{steps:?}");
        // Back again: what is newest counts, though it was there before.
        place.table(|age| i32::from(age < 20));
        place.init(&cluster, true).unwrap();
        assert!(second_at(&place.train(&cluster, &[]).unwrap(), 35.0) < 0.5);
    }

    #[test]
    fn warnings_name_what_is_not_learned() {
        let (place, cluster) = (Place::new(), Cluster::embedded(&crate::app::clock()));
        let steps = place.init(&cluster, false).unwrap();
        assert!(
            steps.iter().any(|step| step.contains("warning") && step.contains("job")),
            "{steps:?}"
        );
        let config = place.config(&["outcomes.labels=[0, 1, 2]"]);
        let warnings = Prepared::from(&config).unwrap().warnings;
        assert!(warnings.iter().any(|line| line.contains("\"2\"")), "{warnings:?}");
    }

    #[test]
    fn three_at_once_write_once() {
        let (place, cluster) = (Place::new(), Cluster::embedded(&crate::app::clock()));
        std::thread::scope(|scope| {
            let threads = [0; 3].map(|_| scope.spawn(|| place.init(&cluster, false)));
            for thread in threads {
                thread.join().unwrap().unwrap();
            }
        });
        let bundle = place.train(&cluster, &[]).unwrap();
        assert_eq!(bundle.lineage.origin.initial_examples, 400);
        let alone = Cluster::embedded(&crate::app::clock());
        place.init(&alone, false).unwrap();
        let trained = |cluster: &Cluster| {
            let bundle = place.train(cluster, &[]).unwrap();
            (bundle.booster.clone(), bundle.pipeline)
        };
        assert_eq!(trained(&cluster), trained(&alone), "the same examples in the same order");
    }

    #[test]
    fn a_log_without_its_head_trains_nothing_until_init_has_mended_it() {
        let (place, whole) = (Place::new(), Cluster::embedded(&crate::app::clock()));
        place.init(&whole, false).unwrap();
        // The same cluster, but for the first records of the training log.
        let cluster = Cluster {
            registry: Arc::clone(&whole.registry),
            ..Cluster::embedded(&crate::app::clock())
        };
        let config = place.config(&[]);
        cluster.broker.create_topics(&config.topics.specs(1)).unwrap();
        let kept = place.records(&whole).into_iter().skip(25);
        let topic = &config.topics.labelled_examples;
        place.publish(&cluster, kept.map(|r| record(topic.clone(), r.key, r.value, r.headers)));
        place.publish(&cluster, [place.labelled(&cluster, 0, 30, 1)]);
        let refused = place.train(&cluster, &[]).unwrap_err();
        let TrainingFailure::Incomplete(why) = &refused else { panic!("{refused}") };
        assert!(why.contains("375 of the 400") && why.contains("foretell init"), "{why}");
        let config = place.config(&["topics.partitions=1"]);
        let prepared = Prepared::from(&config).unwrap();
        let line = prepared.write(&config, &cluster, &place.clock, false).unwrap();
        assert!(line.contains("25 of them new"), "{line}");
        let origin = place.train(&cluster, &[]).unwrap().lineage.origin;
        assert_eq!((origin.initial_examples, origin.stream_examples), (400, 1));
    }

    #[test]
    fn garbage_on_our_topics_is_passed_over() {
        let (place, cluster) = (Place::new(), Cluster::embedded(&crate::app::clock()));
        place.init(&cluster, false).unwrap();
        let topics = place.config(&[]).topics;
        for topic in [&topics.models, &topics.trials, &topics.labelled_examples] {
            let garbage = Some(b"no record of ours".to_vec());
            place.publish(
                &cluster,
                [record(topic.clone(), Some(b"x".to_vec()), garbage, Vec::new())],
            );
        }
        assert!(place.init(&cluster, false).is_ok());
        assert!(place.init(&cluster, true).is_ok());
        let mut models = 0;
        let passed_over = cluster.read_values(&topics.models, |_: crate::events::model::Model| {
            models += 1;
            ControlFlow::Continue(())
        });
        assert_eq!((passed_over.unwrap(), models), (1, 4));
        assert_eq!(place.train(&cluster, &[]).unwrap().lineage.origin.initial_examples, 400);
    }

    #[test]
    fn what_an_earlier_release_has_written_counts_once() {
        let (place, whole) = (Place::new(), Cluster::embedded(&crate::app::clock()));
        place.init(&whole, false).unwrap();
        let cluster = Cluster {
            registry: Arc::clone(&whole.registry),
            ..Cluster::embedded(&crate::app::clock())
        };
        let config = place.config(&[]);
        cluster.broker.create_topics(&config.topics.specs(config.partitions)).unwrap();
        let topic = &config.topics.labelled_examples;
        let codec = cluster.codec::<LabelledExample>(topic).unwrap();
        // Two at once, as they were: no header, and numbers for names.
        for _ in 0..2 {
            let old = place.records(&whole).into_iter().zip(0..).map(|(found, number)| {
                let mut example = codec.decode(&found.value.unwrap()).unwrap();
                example.example_id = format!("initial-{number}");
                let mut bytes = Vec::new();
                codec.encode(&example, &mut bytes).unwrap();
                record(topic.clone(), None, Some(bytes), Vec::new())
            });
            place.publish(&cluster, old);
        }
        assert_eq!(place.train(&cluster, &[]).unwrap().lineage.origin.initial_examples, 400);
        let steps = place.init(&cluster, false).unwrap();
        assert!(steps.iter().any(|step| step.contains("0 of them new")), "{steps:?}");
        place.table(|age| i32::from(age < 20));
        assert!(place.init(&cluster, false).is_err());
    }

    /// One concept in the table, the opposite in the stream.
    #[test]
    fn initial_data_may_age() {
        let (place, cluster) = (Place::new(), Cluster::embedded(&crate::app::clock()));
        place.init(&cluster, false).unwrap();
        let drifted = (0..600).map(|number| {
            let age = i32::try_from(number % 40).unwrap();
            place.labelled(&cluster, number, age, i32::from(age < 20))
        });
        place.publish(&cluster, drifted);
        let of_now = (0..40_u8).map(|age| Example {
            values: vec![Value::Number(age.into()), Value::Missing],
            label: Label(u32::from(age < 20)),
        });
        let of_now: Vec<Example> = of_now.collect();
        let trained = |sets: &[&str]| {
            let bundle = place.train(&cluster, sets).unwrap();
            let Origin { initial_examples, stream_examples, .. } = bundle.lineage.origin;
            let auc = evaluate(&Scorer::new(&bundle).unwrap(), &of_now).auc.unwrap();
            (initial_examples, stream_examples, auc)
        };
        let keep = trained(&["learning.stream_examples_max=300"]);
        assert_eq!((keep.0, keep.1), (400, 300));
        let age = trained(&["learning.stream_examples_max=300", "learning.initial=\"age\""]);
        assert_eq!((age.0, age.1), (0, 300));
        assert!(age.2 > 0.95 && keep.2 < 0.7, "{age:?} {keep:?}");
        let some = trained(&["learning.stream_examples_max=750", "learning.initial=\"age\""]);
        assert_eq!((some.0, some.1), (150, 600), "the oldest goes first");
        assert_eq!(place.log(&cluster, &[]).initial, InitialPolicy::Keep);
    }
}
