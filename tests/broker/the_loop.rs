//! The whole loop on a real Kafka and registry, by processes: two instances that share, retrain and swap; one
//! that is killed; what an outsider reads; and what a start refuses.

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

/// The shortest session that a broker in its default settings takes, and a transaction shorter than that.
const QUICK: &[&str] = &[
    "broker.session_timeout=6s",
    "broker.transaction_timeout=5s",
    "learning.retrain_after=400",
    "tuning.iterations_max=60",
];

/// The scoring partitions that are being processed by an instance.
fn scores(http: &Http) -> BTreeSet<i64> {
    let status = http.status();
    let workers = at(&status, "/workers").as_object().unwrap();
    let scoring = workers.iter().filter(|(name, _)| name.contains("-scoring-"));
    let tasks = scoring.flat_map(|(_, worker)| at(worker, "/tasks").as_array().unwrap());
    let running = tasks.filter(|task| at(task, "/state") == "running");
    running.map(|task| at(task, "/partition").as_i64().unwrap()).collect()
}

/// Waits until the two share the partitions.
fn until_shared(one: &Http, two: &Http) {
    until("the partitions are shared", SOON, || {
        let (one, two) = (scores(one), scores(two));
        let all: BTreeSet<i64> = one.union(&two).copied().collect();
        let is_fair = one.len() == PARTITIONS / 2 && two.len() == PARTITIONS / 2;
        (is_fair && all.len() == PARTITIONS).then_some(())
    });
}

/// Waits until the training log has no more to teach `instance`, and returns the model that serves there.
fn until_learned(instance: &Http, joined: usize) -> Json {
    let batches = joined / RETRAIN_AFTER * RETRAIN_AFTER;
    until(&format!("{batches} examples learned"), SOON, || {
        let model = at(&instance.status(), "/model").clone();
        (*at(&model, "/examples") == json!([INITIAL, batches])).then_some(model)
    })
}

/// Waits until every outcome has its example.
fn until_joined(application: &Application) -> Topics {
    until("every outcome joined", SOON, || {
        let topics = application.topics();
        (topics.labelled.len() == topics.outcomes.len()).then_some(())
    });
    // Again, for a topic that was read before the last record was there has less.
    application.topics()
}

fn stop(mut process: Process, http: &Http) {
    process.signal("TERM");
    let status = process.end(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0), "{}", process.errors());
    assert!(!process.errors().contains("panicked"), "{}", process.errors());
    assert!(http.get("/readyz").is_none(), "HTTP went away");
}

#[test]
fn two_processes_share_and_lose_nothing_and_double_nothing() {
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

    // The second one dies in the middle, with a transaction open.
    let mut sending = application.start(&[&send[..], &["300", "--seed", "2"]].concat());
    until("the second one scores", SOON, || {
        (two.metric("foretell_predictions_total") > by_two + 100.0).then_some(())
    });
    second.signal("KILL");
    assert!(!second.end(SOON).success());
    assert!(sending.end(SOON).success(), "{}{}", sending.output(), sending.errors());
    assert!(sending.output().contains("1500 of 1500 predictions"), "{}", sending.output());
    assert_eq!(scores(&one).len(), PARTITIONS);
    let topics = until_joined(&application);
    topics.check_exactly_once();
    assert_eq!(topics.completed.len(), 3000);
    assert!(topics.versions.len() > 1, "the trained model scored as well: {topics:?}");

    // It comes back under its name.
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
fn a_stranger_reads_the_predictions() {
    let setup = ".ci/setup broker";
    let (kcat, python) = (tool("kcat", setup), tool("python3", setup));
    let application = Application::new("stranger", &["learning.retrain_after=100000"]);
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
    let features = at(value, "/features").as_array().unwrap();
    assert_eq!(features.len(), 13);
    let age = features.iter().find(|feature| at(feature, "/name") == "age").unwrap();
    assert!(at(age, "/value").is_number(), "{age}");
    let mut fields: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    let expected = [
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
    ];
    assert_eq!(fields, expected);
}

#[test]
fn a_start_that_cannot_work_says_why() {
    let application = Application::new("refused", &[]);
    let check = |arguments: &[&str], expected: &[&str]| {
        let mut process = application.start(arguments);
        let status = process.end(Duration::from_secs(15));
        let errors = process.errors();
        assert_eq!(status.code(), Some(1), "{arguments:?}: {errors}");
        let last = errors.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: "), "{errors}");
        expected.iter().for_each(|words| assert!(last.contains(words), "{words:?} in {errors}"));
        assert!(!errors.contains("panicked") && process.output().is_empty(), "{errors}");
    };
    check(&["run"], &["does not exist", "run `foretell init` first"]);
    check(&["send"], &["does not exist", "run `foretell init` first"]);
    let nobody = "schema_registry.url=http://127.0.0.1:1";
    check(&["run", "--set", nobody], &["no schema registry answers at http://127.0.0.1:1"]);
    check(&["init", "--set", nobody], &["no schema registry answers", "[schema_registry] url"]);
    check(&["run", "--set", "schema_registry.url=x"], &["[schema_registry] url"]);
    let no_data = "data.play.path=/nowhere.csv";
    check(&["init", "--set", no_data], &["cannot open the data /nowhere.csv"]);
    let labels = r#"outcomes.labels=["no","yes"]"#;
    check(&["init", "--set", labels], &["\"<=50K\", which is not one of [outcomes] labels"]);
    // Nothing was made of data that can't be learned from.
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

/// Retention, or somebody, deletes the first records of the training log: nothing is trained without them, the champion goes on,
/// and `foretell init` mends it.
#[test]
fn a_training_log_without_its_head_trains_nothing_until_it_is_mended() {
    let application = Application::new("headless", QUICK);
    application.init();
    let log = TopicPartition {
        topic: application.config().topics.labelled_examples,
        partition: Partition(0),
    };
    Operator::new().trim(&log, Offset(500));
    let mut doctor = application.start(&["doctor"]);
    assert_eq!(doctor.end(SOON).code(), Some(1), "{}", doctor.output());
    let found = doctor.output();
    assert!(found.contains(&format!("{} of the {INITIAL}", INITIAL - 500)), "{found}");

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
    until("a training that is not refused", SOON, || {
        (http.metric("foretell_training_log_incomplete") < 0.5).then_some(())
    });
    let model = until_learned(&http, joined);
    assert_ne!(*at(&model, "/version"), first);
    stop(process, &http);
}
