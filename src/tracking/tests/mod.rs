//! Tracking against a fake server: what MLflow has in the end, whatever fails on the way.

mod fake_server;
mod history;
mod sending;

use std::time::Duration;

use crate::{
    config::{MlflowCredentials, MlflowSettings},
    events::{
        quality::{Quality, StabilityIndex},
        trial::Trial,
    },
    processors::{learning::outputs::records_of, small_model::small_bundle},
    tracking::{
        client::{Client, TrackingError},
        mapping::{self, MODEL_VERSION, TRAINING_ID, TRIAL},
        tests::{
            fake_server::{Contents, FakeRun, FakeServer, Fault},
            history::{history, model, quality, trial},
        },
        tracker::{Entry, Tracker},
    },
};
use foretell_streams::{record::Topic, time::WallTime};

const APPLICATION: &str = "shop";
/// The bound of a wait, far longer than any wait takes.
const SOON: Duration = Duration::from_secs(60);

fn settings(server: &FakeServer) -> MlflowSettings {
    MlflowSettings {
        tracking_uri: server.uri(),
        experiment: APPLICATION.to_owned(),
        registered_model: "shop-model".to_owned(),
        credentials: MlflowCredentials::None,
        ca_file: None,
        timeout: SOON,
        trials: true,
        live_metrics: true,
        named: "x.toml: [mlflow]".to_owned(),
    }
}

fn tracker(settings: MlflowSettings) -> Tracker {
    let client = Client::new(&settings).unwrap();
    Tracker::new(client, settings, APPLICATION.to_owned(), Topic::new("labelled-examples"))
}

/// Applies an entry until the server has it.
fn apply(tracker: &mut Tracker, entry: &Entry) {
    for _ in 0..20 {
        match tracker.apply(entry) {
            Ok(()) => return,
            Err(TrackingError::Unavailable { .. }) => {}
            Err(error) => panic!("{error}: {entry:?}"),
        }
    }
    panic!("always unavailable: {entry:?}");
}

/// What the server has after the history, with these faults.
fn after_history(faults: impl FnMut(usize, &str) -> Option<Fault> + Send + 'static) -> Contents {
    let server = FakeServer::start();
    server.fail(faults);
    let mut tracker = tracker(settings(&server));
    for entry in history() {
        apply(&mut tracker, &entry);
    }
    server.contents()
}

fn run_named<'c>(contents: &'c Contents, name: &str) -> &'c FakeRun {
    contents.runs.iter().find(|run| run.name == name).unwrap_or_else(|| panic!("no run {name}"))
}

#[test]
fn a_history_becomes_runs_models_versions_and_aliases() {
    let contents = after_history(|_, _| None);
    assert_eq!(contents.experiments, [APPLICATION]);
    let trainings = contents.runs_with(TRAINING_ID);
    let shown: Vec<_> =
        trainings.iter().map(|run| (run.name.as_str(), run.status.as_str())).collect();
    let expected = [
        ("training-0", "FINISHED"),
        ("training-1", "FINISHED"),
        ("training-2", "FAILED"),
        ("study-night-tpe", "FINISHED"),
    ];
    assert_eq!(shown, expected);
    let trials = contents.runs_with(TRIAL);
    let parents: Vec<_> =
        trials.iter().map(|run| (run.tags["mlflow.parentRunId"].as_str(), &*run.status)).collect();
    // Runs in the order of their creation: 0 is training-0, 1 and 2 are its trials.
    let expected = [("0", "FINISHED"), ("0", "FAILED"), ("3", "FINISHED"), ("6", "FINISHED")];
    assert_eq!(parents, expected);
    let infinite = ("log_loss".to_owned(), 0, 15, "Infinity".to_owned());
    assert!(trials[1].metrics.contains(&infinite), "{:?}", trials[1].metrics);
    assert_eq!(trials[0].parameters["num_leaves"], "31");
    assert_eq!(trials[0].parameters["boosting"], "gbdt");

    let promoted = run_named(&contents, "training-1");
    assert_eq!(promoted.tags["foretell.decision"], "promoted");
    assert_eq!(promoted.tags["mlflow.note.content"], "**Promoted**: it's better");
    assert_eq!(promoted.parameters["num_leaves"], "7");
    assert_eq!(promoted.parameters["classes"], "no, yes");
    let has = |name: &str, step: i64| {
        promoted.metrics.iter().any(|(other, at, ..)| other == name && *at == step)
    };
    assert!(has("auc", 0) && has("live.log_loss", 7_200) && has("drift.features", 7_200));
    assert!(has("drift.features.x", 7_200) && has("drift.features.kind", 7_200));
    assert!(has("judged.difference", 200) && has("judged.difference", 300));
    assert!(has("tuning.log_loss", 0), "{:?}", promoted.metrics);
    assert_eq!(promoted.datasets.len(), 1);

    assert_eq!(contents.models.len(), 2);
    let files: Vec<&str> = contents.models[1].files.keys().map(String::as_str).collect();
    let expected = [
        "MLmodel",
        "code/foretell_model.py",
        "code/foretell_pyfunc.py",
        "conda.yaml",
        "input_example.json",
        "lineage.json",
        "model.txt",
        "pipeline.json",
        "python_env.yaml",
        "requirements.txt",
        "serving_input_example.json",
    ];
    assert_eq!(files, expected);
    assert!(contents.models.iter().all(|model| model.is_ready));
    let file = |name: &str| String::from_utf8(contents.models[1].files[name].clone()).unwrap();
    let description = file("MLmodel");
    for line in [
        "artifact_path: \"mlflow-artifacts:/1/models/1/artifacts\"",
        "    data: model.txt",
        "    loader_module: foretell_pyfunc",
        "model_id: \"1\"",
        "run_id: \"3\"",
        "utc_time_created: \"1970-01-01 00:00:00.200\"",
        r#"  outputs: "[{\"type\":\"double\",\"name\":\"no\"},{\"type\":\"double\",\"name\":\"yes\"}]""#,
    ] {
        assert!(description.lines().any(|other| other == line), "{line} in {description}");
    }
    assert!(description.contains(r#"{\"type\":\"string\",\"name\":\"kind\",\"required\":false}"#));
    assert!(file("input_example.json").starts_with(r#"{"columns":["x","kind","noise"],"data":[["#));
    assert_eq!(contents.versions.len(), 2);
    assert_eq!(contents.aliases, [("champion".to_owned(), "2".to_owned())].into());
}

#[test]
fn the_last_value_of_a_tuning_is_its_best() {
    let check = |objective: &str, values: &[f64], expected: &[f64]| {
        let server = FakeServer::start();
        let mut tracker = tracker(settings(&server));
        for (number, value) in (0..).zip(values) {
            let trial = Trial {
                objective: objective.to_owned(),
                value: Some(*value),
                failure: None,
                ..trial("training-1", number, 10)
            };
            apply(&mut tracker, &Entry::Trial(Box::new(trial)));
        }
        let contents = server.contents();
        let run = run_named(&contents, "training-1");
        let of = |name: &str| -> Vec<f64> {
            let values = run.metrics.iter().filter(|(other, ..)| other == name);
            values.map(|(.., value)| value.parse().unwrap()).collect()
        };
        assert_eq!(of(&format!("tuning.{objective}")), expected);
        assert_eq!(of(&format!("tuning.trial.{objective}")), values);
    };
    check("log_loss", &[0.5, 0.3, 0.4], &[0.5, 0.3, 0.3]);
    check("auc", &[0.7, 0.9, 0.8], &[0.7, 0.9, 0.9]);
}

#[test]
fn a_window_of_many_features_records_those_that_have_drifted_most() {
    let features = (0..1_000_u32).map(|number| StabilityIndex {
        name: format!("feature {number}"),
        psi: f64::from(number % 500),
    });
    let window = Quality { features: features.collect(), ..quality(&model(0, 20), 0, 1) };
    let names: Vec<String> =
        mapping::quality(&window).metrics.into_iter().map(|metric| metric.name).collect();
    let of_features = names.iter().filter(|name| name.starts_with("drift.features."));
    assert_eq!(of_features.count(), 20);
    for name in ["drift.features", "drift.features.feature 499", "drift.features.feature 999"] {
        assert!(names.iter().any(|other| other == name), "{name} in {names:?}");
    }
}

#[test]
fn a_request_that_is_lost_or_refused_for_a_time_adds_nothing() {
    let expected = after_history(|_, _| None);
    let check = |request: usize, fault: Fault| {
        let mut contents = after_history(move |number, _| (number == request).then_some(fault));
        assert!(contents.requests >= expected.requests);
        contents.requests = expected.requests;
        assert_eq!(contents, expected, "{fault:?} at request {request}");
    };
    for request in 0..expected.requests {
        check(request, Fault::AfterEffect);
    }
    for request in (0..expected.requests).step_by(10) {
        check(request, Fault::Status(500));
    }
}

#[test]
fn a_history_that_is_sent_again_adds_nothing() {
    let server = FakeServer::start();
    let send = || {
        let mut tracker = tracker(settings(&server));
        for entry in history() {
            apply(&mut tracker, &entry);
        }
        Contents { requests: 0, ..server.contents() }
    };
    let once = send();
    let mut twice = send();
    // The decisions about one run are written again in their order, so the last one counts as before.
    assert_eq!(twice, once);
    // A zombie created runs and a version at the same time.
    server.change(|contents| {
        let twice = |run: &&FakeRun| run.tags.contains_key(TRIAL) || run.name == "training-1";
        let mut added: Vec<FakeRun> = contents.runs.iter().filter(twice).cloned().collect();
        for run in &mut added {
            run.metrics.clear();
        }
        contents.runs.extend(added);
        contents.versions.push(contents.versions[1].clone());
    });
    twice = send();
    let kept = |contents: &Contents, tag: &str| {
        let runs = contents.runs_with(tag).into_iter().cloned();
        runs.collect::<Vec<_>>()
    };
    for tag in [TRIAL, TRAINING_ID, MODEL_VERSION] {
        assert_eq!(kept(&twice, tag), kept(&once, tag), "{tag}");
    }
    assert!(twice.versions[2].is_deleted && !twice.versions[1].is_deleted);
    assert_eq!(twice.aliases, once.aliases);
}

#[test]
fn a_training_that_is_repeated_under_its_number_has_a_run_of_its_own() {
    let server = FakeServer::start();
    let mut tracker = tracker(settings(&server));
    let again = {
        let mut bundle = small_bundle();
        bundle.threshold = 0.3;
        records_of(&bundle, "again", WallTime(90)).unwrap()
    };
    let mut entries: Vec<Entry> = history().drain(..4).collect();
    entries.push(Entry::Trial(Box::new(trial("shop-first", 0, 80))));
    entries.extend(again.map(|model| Entry::Model(Box::new(model))));
    for entry in &entries {
        apply(&mut tracker, entry);
    }
    let contents = server.contents();
    let runs = contents.runs_with(TRAINING_ID);
    assert_eq!(runs.len(), 2);
    assert_ne!(runs[0].tags[MODEL_VERSION], runs[1].tags[MODEL_VERSION]);
    let parents: Vec<_> = contents
        .runs_with(TRIAL)
        .iter()
        .map(|run| run.tags["mlflow.parentRunId"].clone())
        .collect();
    assert_eq!(parents, ["0", "0", "3"]);
    assert_eq!(contents.aliases["champion"], "2");
}
