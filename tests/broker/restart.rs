//! The copy of the training set on disk, with real processes: after a `kill -9` a training continues from it, and gives the
//! same bytes as from the log alone.

use std::fs;

use serde_json::Value as Json;

use crate::{
    application::{Application, INITIAL},
    process::{Http, Process, SOON, at, until},
};

const FIRST: usize = 2_000;
const SECOND: usize = 200;

/// Counts of the copies, by what was done with them.
fn copies(http: &Http, result: &str) -> f64 {
    http.metric(&format!("foretell_training_set_copies_total{{result=\"{result}\"}}"))
}

/// Requests a training, checks what it was trained on, and trains it again from the log alone.
fn retrain(application: &Application, stream_examples: usize) {
    let run = |arguments: &[&str]| application.start(arguments).succeed(SOON);
    run(&["retrain", "--reason", "a test of restarts"]);
    let list: Json = serde_json::from_str(&run(&["models", "list", "--json"])).unwrap();
    let version = at(&list, "/models/0/version").as_str().unwrap();
    let shown: Json = serde_json::from_str(&run(&["models", "show", version, "--json"])).unwrap();
    assert_eq!(*at(&shown, "/lineage/initial_examples"), INITIAL);
    assert_eq!(*at(&shown, "/lineage/stream_examples"), stream_examples);
    let identical = run(&["models", "reproduce", version]);
    assert!(identical.starts_with(&format!("identical: model {version}, ")), "{identical}");
}

/// Starts the instance.
fn start(application: &Application) -> (Process, Http) {
    let mut process = application.instance("one");
    let http = process.http();
    http.ready();
    (process, http)
}

fn kill(mut process: Process) {
    process.signal("KILL");
    assert!(!process.end(SOON).success());
}

/// Sends events with outcomes, and returns the number of labelled examples from the stream.
fn send(application: &Application, count: usize, seed: &str) -> usize {
    let count = count.to_string();
    let send = ["send", "--quiet", "--limit", &count, "--rate", "400", "--outcome-delay", "1s"];
    application.start(&[&send[..], &["--seed", seed]].concat()).succeed(SOON);
    until("every outcome is joined", SOON, || {
        let topics = application.topics();
        let is_joined = topics.labelled.len() == topics.outcomes.len();
        (is_joined && !topics.outcomes.is_empty()).then_some(topics.labelled.len())
    })
}

#[test]
fn a_training_after_a_kill_continues_from_the_copy_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let state_dir = format!("streams.state_dir={}", folder.path().display());
    let application = Application::new(
        "restart",
        &[
            &state_dir,
            "broker.session_timeout=6s",
            "broker.transaction_timeout=5s",
            "learning.retrain_after=100000",
            "tuning.iterations_max=30",
            "topics.partitions=1",
        ],
    );
    application.init();
    let (process, http) = start(&application);
    let labelled = send(&application, FIRST, "1");
    retrain(&application, labelled);
    until("the training set is copied", SOON, || (copies(&http, "written") > 0.5).then_some(()));
    assert!(http.metric("foretell_training_set_bytes{place=\"disk\"}") > 0.0);
    kill(process);

    let (process, http) = start(&application);
    let labelled = send(&application, SECOND, "2");
    retrain(&application, labelled);
    assert!((copies(&http, "read") - 1.0).abs() < 0.1, "{}", process.errors());
    assert!(copies(&http, "removed") < 0.5, "{}", process.errors());
    kill(process);

    // A byte of the copy has changed.
    let name = application.config().application();
    let path = folder.path().join("training-sets").join(name).join("one/copy");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (mut process, http) = start(&application);
    retrain(&application, labelled);
    assert!((copies(&http, "removed") - 1.0).abs() < 0.1, "{}", process.errors());
    assert!(copies(&http, "read") < 0.5, "{}", process.errors());
    assert!(process.errors().contains("a checksum does not match"), "{}", process.errors());
    until("the training set is copied again", SOON, || {
        (copies(&http, "written") > 0.5).then_some(())
    });
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
}
