//! The learning loop end to end, with processes on a real Kafka and registry: two instances that share partitions, retrain
//! and swap models; one that is killed; predictions read by other tools; and configurations that a start refuses.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    process::{Command, Stdio},
    time::Duration,
};

use foretell_streams::record::{Offset, Partition, TopicPartition};
use serde_json::{Value as Json, json};

use crate::{
    application::{Application, INITIAL, Topics, brokers, registry},
    operator::Operator,
    process::{Http, Process, SOON, at, tool, until},
};

const PARTITIONS: usize = 4;
const RETRAIN_AFTER: usize = 400;

/// The shortest session timeout that a broker with default settings accepts, and a shorter transaction timeout.
pub(crate) const QUICK: &[&str] = &[
    "broker.session_timeout=6s",
    "broker.transaction_timeout=5s",
    "learning.retrain_after=400",
    // A few hundred examples more make no better model: these tests are about the swap.
    "learning.judge.policy=always",
    "tuning.iterations_max=60",
];

/// The scoring partitions whose tasks run on an instance.
pub(crate) fn scoring_partitions(http: &Http) -> BTreeSet<i64> {
    let status = http.status();
    let workers = at(&status, "/workers").as_object().unwrap();
    let scoring = workers.iter().filter(|(name, _)| name.contains("-scoring-"));
    let tasks = scoring.flat_map(|(_, worker)| at(worker, "/tasks").as_array().unwrap());
    let running = tasks.filter(|task| at(task, "/state") == "running");
    running.map(|task| at(task, "/partition").as_i64().unwrap()).collect()
}

/// Waits until each of the two instances runs half of the scoring partitions.
fn until_shared(one: &Http, two: &Http) {
    until("the partitions are shared", SOON, || {
        let (one, two) = (scoring_partitions(one), scoring_partitions(two));
        let all: BTreeSet<i64> = one.union(&two).copied().collect();
        let is_balanced = one.len() == PARTITIONS / 2 && two.len() == PARTITIONS / 2;
        (is_balanced && all.len() == PARTITIONS).then_some(())
    });
}

/// Waits until `instance` serves the model of the last full batch of `joined` examples, and returns that model.
fn until_learned(instance: &Http, joined: usize) -> Json {
    let batches = joined / RETRAIN_AFTER * RETRAIN_AFTER;
    until(&format!("{batches} examples learned"), SOON, || {
        let model = at(&instance.status(), "/model").clone();
        (*at(&model, "/examples") == json!([INITIAL, batches])).then_some(model)
    })
}

/// Waits until every outcome has a labelled example.
fn until_joined(application: &Application) -> Topics {
    until("every outcome joined", SOON, || {
        let topics = application.topics();
        (topics.labelled.len() == topics.outcomes.len()).then_some(())
    });
    // Read again: a topic that was read early may have missed records that another one already had.
    application.topics()
}

fn stop(mut process: Process, http: &Http) {
    process.signal("TERM");
    let status = process.end(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0), "{}", process.errors());
    assert!(!process.errors().contains("panicked"), "{}", process.errors());
    assert!(http.get("/readyz").is_none(), "HTTP is closed");
}

#[test]
fn two_instances_share_the_load_and_survive_a_kill_exactly_once() {
    let application = Application::new("share", QUICK);
    application.init();
    let mut again = application.start(&["init"]);
    assert!(again.end(SOON).success(), "{}", again.errors());
    assert!(again.errors().contains("a model serves already"), "{}", again.errors());
    assert!(!again.errors().contains("WARN"), "{}", again.errors());

    let (mut first, mut second) = (application.instance("one"), application.instance("two"));
    let (one, two) = (first.http(), second.http());
    one.ready();
    two.ready();
    until_shared(&one, &two);
    let send = ["send", "--quiet", "--limit", "1500", "--outcome-delay", "3s", "--rate"];
    let sent = application.start(&[&send[..], &["500"]].concat()).succeed(SOON);
    assert!(sent.contains("1500 of 1500 predictions came back"), "{sent}");

    let topics = until_joined(&application);
    topics.check_exactly_once();
    assert_eq!(topics.completed.len(), 1500);
    let by_metrics = |name| [one.metric(name), two.metric(name)];
    let [by_one, by_two] = by_metrics("foretell_predictions_total");
    assert!(by_one > 300.0 && by_two > 300.0, "{by_one} and {by_two}");
    let model = until_learned(&one, topics.labelled.len());
    assert_eq!(until_learned(&two, topics.labelled.len()), model, "one model on both");

    // The second instance is killed while it scores, with a transaction open.
    let mut sending = application.start(&[&send[..], &["300", "--seed", "2"]].concat());
    until("the second one scores", SOON, || {
        (two.metric("foretell_predictions_total") > by_two + 100.0).then_some(())
    });
    second.signal("KILL");
    assert!(!second.end(SOON).success());
    assert!(sending.end(SOON).success(), "{}{}", sending.output(), sending.errors());
    assert!(sending.output().contains("1500 of 1500 predictions"), "{}", sending.output());
    assert_eq!(scoring_partitions(&one).len(), PARTITIONS);
    let topics = until_joined(&application);
    topics.check_exactly_once();
    assert_eq!(topics.completed.len(), 3000);
    assert!(topics.versions.len() > 1, "a retrained model scored too: {topics:?}");

    // It is started again under the same name.
    let mut second = application.instance("two");
    let two = second.http();
    until_shared(&one, &two);
    let model = until_learned(&two, topics.labelled.len());
    assert_eq!(until_learned(&one, topics.labelled.len()), model);
    let event = json!({"respondent_id": "me", "completed": true, "age": 39}).to_string();
    let (code, prediction) = one.post("/api/v1/events?wait=true", &event, None).unwrap();
    assert_eq!((code, at(&prediction, "/model_version")), (200, at(&model, "/version")));
    stop(second, &two);
    stop(first, &one);
}

#[test]
fn predictions_are_read_with_kcat_and_fastavro() {
    let setup = ".ci/setup broker";
    let (kcat, python) = (tool("kcat", setup), tool("python3", setup));
    let application = Application::new("kcat", &["learning.retrain_after=100000"]);
    application.init();
    let mut process = application.instance("one");
    let http = process.http();
    http.ready();
    let send = ["send", "--quiet", "--limit", "100", "--rate", "200", "--outcome-delay", "1s"];
    application.start(&send).succeed(SOON);

    let topic = application.config().topics.predictions.to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broker/read_predictions.py");
    let mut reading = Command::new(python);
    reading.arg(script).arg(kcat).args([brokers(), registry(), topic]).stdin(Stdio::null());
    let read = reading.output().unwrap();
    let errors = String::from_utf8_lossy(&read.stderr);
    assert!(read.status.success(), "{errors}\nwithout kcat or fastavro: {setup}");
    let lines = String::from_utf8(read.stdout).unwrap();
    let records: Vec<Json> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: BTreeSet<String> =
        records.iter().map(|record| at(record, "/value/event_id").to_string()).collect();
    assert_eq!((records.len(), events.len()), (100, 100));
    let status = http.status();
    for record in &records {
        check_record(record, at(&status, "/model/version"));
    }
    stop(process, &http);
}

fn check_record(record: &Json, version: &Json) {
    let value = at(record, "/value");
    assert_eq!(at(record, "/key"), at(value, "/respondent_id"));
    assert_eq!(at(value, "/model_version"), version);
    let classes = at(value, "/probabilities").as_array().unwrap();
    let labels: Vec<&Json> = classes.iter().map(|class| at(class, "/label")).collect();
    assert_eq!(labels, ["<=50K", ">50K"]);
    assert!(labels.contains(&at(value, "/label")));
    let probability = |class: &Json| at(class, "/probability").as_f64().unwrap();
    let sum: f64 = classes.iter().map(probability).sum();
    assert!((sum - 1.0).abs() < 1e-12, "{record}");
    assert_eq!(at(value, "/features"), &json!([]), "for readers of the first version");
    let answers = at(value, "/answers").as_object().unwrap();
    assert_eq!(answers.len(), 13);
    assert!(answers["age"].is_i64(), "{answers:?}");
    let mut fields: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    let expected = [
        "answers",
        "challenger",
        "event_id",
        "event_time",
        "features",
        "label",
        "model_version",
        "predicted_at",
        "prediction_id",
        "probabilities",
        "received_at",
        "respondent_id",
        "trigger",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn a_start_that_cannot_work_ends_with_its_reason() {
    let application = Application::new("refused", &[]);
    let check = |arguments: &[&str], expected: &[&str]| {
        let mut process = application.start(arguments);
        let status = process.end(Duration::from_secs(15));
        let errors = process.errors();
        assert_eq!(status.code(), Some(1), "{arguments:?}: {errors}");
        let last = errors.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: "), "{errors}");
        expected.iter().for_each(|text| assert!(last.contains(text), "{text:?} in {errors}"));
        assert!(!errors.contains("panicked") && process.output().is_empty(), "{errors}");
    };
    check(&["run"], &["does not exist", "run `foretell init` first"]);
    check(&["send"], &["does not exist", "run `foretell init` first"]);
    let unreachable = "schema_registry.url=http://127.0.0.1:1";
    check(&["run", "--set", unreachable], &["no schema registry answers at http://127.0.0.1:1"]);
    let expected = ["no schema registry answers", "[schema_registry] url"];
    check(&["init", "--set", unreachable], &expected);
    check(&["run", "--set", "schema_registry.url=x"], &["[schema_registry] url"]);
    let no_data = "data.play.path=/nowhere.csv";
    check(&["init", "--set", no_data], &["cannot open the data /nowhere.csv"]);
    let labels = r#"outcomes.labels=["no","yes"]"#;
    check(&["init", "--set", labels], &["\"<=50K\", which is not one of [outcomes] labels"]);
    // The refused `init` has created nothing.
    check(&["run"], &["does not exist", "run `foretell init` first"]);
    application.init();
    check(&["send", "--set", no_data], &["cannot open the data /nowhere.csv"]);
    check(&["run", "--set", labels], &["the model that serves has the classes", "init --force"]);
    check(&["run", "--set", "topics.partitions=8"], &["has 4 partitions", "says 8"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let bind = format!("http.bind={address}");
    check(&["run", "--set", &bind], &[&format!("cannot listen on {address}"), "set [http] bind"]);
}

/// Initial training examples are deleted, as by retention: trainings are refused and the champion goes on serving, until
/// `foretell init` writes the missing examples again.
#[test]
fn a_training_log_without_initial_examples_trains_nothing_until_init_repairs_it() {
    let application = Application::new("truncated-log", QUICK);
    application.init();
    let log = TopicPartition {
        topic: application.config().topics.labelled_examples,
        partition: Partition(0),
    };
    Operator::new().trim(&log, Offset(500));
    let mut doctor = application.start(&["doctor"]);
    assert_eq!(doctor.end(SOON).code(), Some(1), "{}", doctor.output());
    let printed = doctor.output();
    assert!(printed.contains(&format!("{} of the {INITIAL}", INITIAL - 500)), "{printed}");

    let mut process = application.instance("one");
    let http = process.http();
    http.ready();
    let first = at(&http.status(), "/model/version").clone();
    let send = |seed: &str| {
        let send = ["send", "--quiet", "--limit", "500", "--outcome-delay", "1s", "--rate", "500"];
        application.start(&[&send[..], &["--seed", seed]].concat()).succeed(SOON);
    };
    send("1");
    until("a training is refused", SOON, || {
        (http.metric("foretell_training_log_incomplete") > 0.5).then_some(())
    });
    assert_eq!(*at(&http.status(), "/model/version"), first, "the champion goes on serving");

    let mut init = application.start(&["init"]);
    assert_eq!(init.end(SOON).code(), Some(0), "{}", init.errors());
    assert!(init.errors().contains("500 of them new"), "{}", init.errors());
    send("2");
    let joined = until_joined(&application).labelled.len();
    until("a training is not refused", SOON, || {
        (http.metric("foretell_training_log_incomplete") < 0.5).then_some(())
    });
    let model = until_learned(&http, joined);
    assert_ne!(*at(&model, "/version"), first);
    stop(process, &http);
}
