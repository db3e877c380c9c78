//! `init` on tables, training logs and registries: each row counts once, and nothing is written of a table that is refused.

use std::{fs, ops::ControlFlow, sync::Arc};

use crate::{
    app::{
        cluster::Cluster,
        init::{self, InitObserver},
        initial::{Prepared, example},
        learning::learning_work,
        shutdown::Shutdown,
        table::Row,
        telemetry,
    },
    config::Config,
    events::{
        labelled_example::{ExampleOrigin, LabelledExample},
        model::Model,
        questionnaire::Answer,
    },
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
    DataPolicy, Example, Label, ModelBundle, Origin, Scorer, Scratch, Value,
    training::{Trial, evaluate},
};
use foretell_streams::{
    record::{InputRecord, OutputRecord},
    time::{Clock, EventTime, SystemClock},
};

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
    assert!(steps.iter().any(|step| step.contains("warning") && step.contains("job")), "{steps:?}");
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

/// A cluster with the same registry, and no topics.
fn without_topics(cluster: &Cluster) -> Cluster {
    let registry = Arc::clone(&cluster.registry);
    Cluster { registry, ..Cluster::embedded(&crate::app::clock()) }
}

#[test]
fn no_model_is_trained_on_a_log_without_its_first_records_until_init_has_restored_them() {
    let (project, whole) = (Project::new(), Cluster::embedded(&crate::app::clock()));
    project.init(&whole, false).unwrap();
    // The same cluster without the first 25 records of the training log.
    let cluster = without_topics(&whole);
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
    let with = |registry: LocalRegistry| Cluster { registry: Arc::new(registry), ..before.clone() };
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
        project
            .publish(&cluster, [record(topic.clone(), Some(b"x".to_vec()), garbage, Vec::new())]);
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
    let cluster = without_topics(&whole);
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
