//! `foretell replay` on the topics of a real broker: it has the numbers of the instance that ran, and writes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use foretell::{
    app::cluster::Cluster,
    events::{labelled_example::LabelledExample, outcome::Outcome},
};
use foretell_streams::{
    record::{OutputRecord, Topic},
    time::EventTime,
};
use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use serde_json::Value as Json;

use crate::{
    application::{Application, brokers, registry},
    process::{SOON, at, until},
    stores::{ready, send, until_joined},
};

/// What the broker and the registry have of an application.
#[derive(Debug, PartialEq, Eq)]
struct Snapshot {
    /// The ends of all partitions.
    ends: BTreeMap<(String, i32), i64>,
    /// The committed offsets of its groups.
    committed: BTreeMap<String, String>,
    /// All groups of the cluster that are not of another test.
    groups: BTreeSet<String>,
    /// The subjects, with their versions.
    subjects: BTreeMap<String, String>,
}

fn get(path: &str) -> String {
    let answer = reqwest::blocking::get(format!("{}{path}", registry()));
    answer.and_then(reqwest::blocking::Response::text).expect("the registry answers")
}

fn consumer(group: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers()).set("group.id", group).create().unwrap()
}

impl Snapshot {
    fn of(application: &Application) -> Self {
        let prefix = application.config().topic_prefix;
        let client = consumer("replay-test");
        let metadata = client.fetch_metadata(None, SOON).unwrap();
        let mut ends = BTreeMap::new();
        let mut all = TopicPartitionList::new();
        for topic in metadata.topics().iter().filter(|topic| topic.name().starts_with(&prefix)) {
            for partition in topic.partitions() {
                let (_, end) = client.fetch_watermarks(topic.name(), partition.id(), SOON).unwrap();
                ends.insert((topic.name().to_owned(), partition.id()), end);
                all.add_partition(topic.name(), partition.id());
            }
        }
        let groups = client.fetch_group_list(None, SOON).unwrap();
        let groups = groups.groups().iter().map(|group| group.name().to_owned());
        // Tests that run at the same time have names with a prefix of their own.
        let is_ours = |group: &String| group.starts_with(&prefix) || !group.contains("-adult-");
        let groups: BTreeSet<String> = groups.filter(is_ours).collect();
        let of_group = |group: &String| {
            let committed = consumer(group).committed_offsets(all.clone(), SOON).unwrap();
            (group.clone(), format!("{committed:?}"))
        };
        let committed = groups.iter().filter(|group| group.starts_with(&prefix)).map(of_group);
        let committed = committed.collect();
        let subjects: Vec<String> = serde_json::from_str(&get("/subjects")).unwrap();
        let subjects = subjects.into_iter().filter(|subject| subject.starts_with(&prefix));
        let versions =
            |subject: String| (subject.clone(), get(&format!("/subjects/{subject}/versions")));
        Self { committed, subjects: subjects.map(versions).collect(), ends, groups }
    }
}

/// Labels and mean log loss of the training log.
fn live(application: &Application) -> (u64, f64) {
    let config = application.config();
    let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
    let (mut labels, mut loss) = (0, 0.0);
    let topic = &config.topics.labelled_examples;
    let read = cluster.read_values(&config, topic, |example: LabelledExample| {
        if let Some(prediction) = &example.prediction {
            let mut classes = prediction.probabilities.iter();
            let class = classes.find(|class| class.label == example.label).unwrap();
            loss -= class.probability.ln();
            labels += 1;
        }
        ControlFlow::Continue(())
    });
    read.unwrap();
    (labels, loss / labels as f64)
}

/// Writes an event that is not Avro, and an outcome whose label is not configured.
fn write_bad_input(application: &Application) {
    let config = application.config();
    let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
    let mut publisher = cluster.broker.publish().unwrap();
    let now = EventTime(foretell::app::clock().now().0);
    let outcome = Outcome {
        respondent_id: "bad".to_owned(),
        outcome_time: now,
        label: "neither".to_owned(),
        outcome_id: None,
    };
    let mut bytes = Vec::new();
    cluster.codecs(&config).unwrap().outcome.encode(&outcome, &mut bytes).unwrap();
    let mut write = |topic: &Topic, bytes: &[u8]| {
        publisher.send(OutputRecord::new(topic, Some(b"bad"), Some(bytes), now)).unwrap();
    };
    write(&config.topics.questionnaire_events, b"\xff no avro");
    write(&config.topics.outcomes, &bytes);
    publisher.flush().unwrap();
}

fn dead_letters(application: &Application) -> usize {
    let config = application.config();
    let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
    let mut letters = 0;
    let read = cluster.read_to_end(&config.topics.dead_letters, |_| {
        letters += 1;
        Ok(ControlFlow::Continue(()))
    });
    read.unwrap();
    letters
}

fn number(report: &Json, variant: usize, key: &str) -> f64 {
    at(report, &format!("/variants/{variant}/{key}")).as_f64().unwrap()
}

/// Runs `replay`, and parses its JSON.
fn replay(application: &Application, more: &[&str]) -> Json {
    let output = application.start(&[&["replay", "--json"], more].concat()).succeed(SOON);
    serde_json::from_str(&output).unwrap()
}

fn error_of(application: &Application, more: &[&str]) -> String {
    let mut process = application.start(&[&["replay"], more].concat());
    assert_eq!(process.end(SOON).code(), Some(1), "{}", process.output());
    process.errors()
}

const EVENTS: usize = 300;

#[test]
fn a_replay_of_the_topics_has_the_numbers_of_the_instance_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let application = Application::new(
        "replay",
        &[
            "broker.session_timeout=6s",
            "broker.transaction_timeout=5s",
            "learning.retrain_after=100000",
            "tuning.iterations_max=30",
        ],
    );
    let early = error_of(&application, &[]);
    assert!(early.contains("does not exist: run `foretell init`"), "{early}");
    application.init();
    let empty = error_of(&application, &[]);
    assert!(empty.contains("there is no history"), "{empty}");

    let (mut process, _) = ready(&application);
    send(&application, EVENTS, "1");
    until_joined(&application, EVENTS);
    write_bad_input(&application);
    until("bad input is dead-lettered", SOON, || (dead_letters(&application) == 2).then_some(()));
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());

    let before = Snapshot::of(&application);
    assert!(before.ends.len() > 10 && before.committed.len() == 2, "{before:?}");
    let variants = folder.path().join("variants.toml");
    std::fs::write(
        &variants,
        "[variants.often]\nlearning.retrain_after = 100\n[variants.frozen]\nlearning.retrain_after = 0\n",
    )
    .unwrap();
    let with_state = application.with(&[format!("streams.state_dir={}", state.display())]);
    let arguments = ["--variants", variants.to_str().unwrap()];
    let report = replay(&with_state, &arguments);
    let (labels, log_loss) = live(&application);
    for variant in [0, 2] {
        assert!((number(&report, variant, "predictions") - EVENTS as f64).abs() < 0.5, "{report}");
        assert!((number(&report, variant, "total/labels") - labels as f64).abs() < 0.5, "{report}");
        let replayed = number(&report, variant, "total/log_loss");
        assert!((replayed - log_loss).abs() < 1e-12, "{replayed} {log_loss}: {report}");
        assert!(number(&report, variant, "trainings") < 0.5, "{report}");
        let letters = at(&report, &format!("/variants/{variant}/dead_letters"));
        let letters = letters.as_object().unwrap();
        assert_eq!(letters.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), 2);
        assert_eq!(letters.len(), 2, "{report}");
    }
    assert!((number(&report, 1, "trainings") - (labels / 100) as f64).abs() < 0.5, "{report}");

    // A part of the history, and another model by its alias.
    let part = ["--from", "2020-01-01T00:00:00Z", "--model", "champion"];
    let part = replay(&application, &part);
    assert!((number(&part, 0, "predictions") - EVENTS as f64).abs() < 0.5, "{part}");
    let none = error_of(&application, &["--until", "2020-01-01T00:00:00Z"]);
    assert!(none.contains("no history between --from and --until"), "{none}");
    let unknown = error_of(&application, &["--model", "zzz"]);
    assert!(unknown.contains("--model") && unknown.contains("there is no model"), "{unknown}");

    assert_eq!(Snapshot::of(&application), before);
    assert!(!state.exists(), "state_dir is not touched");
}
