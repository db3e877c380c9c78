//! `foretell doctor` without a broker or a registry: its check results and its exit code.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    thread,
    time::Duration,
};

use serde_json::Value as Json;

use crate::process::{Process, at, example};

/// Bound for a command that waits ten seconds for a broker.
const WITHIN: Duration = Duration::from_secs(30);

const NO_CLUSTER: &[&str] = &[
    "--set",
    "broker.bootstrap_servers=127.0.0.1:1",
    "--set",
    "schema_registry.url=http://127.0.0.1:1",
    "--set",
    "http.bind=127.0.0.1:0",
];

fn doctor(more: &[&str]) -> Process {
    doctor_of(example(), more)
}

fn doctor_of(config: &str, more: &[&str]) -> Process {
    Process::start(&[&["doctor", "-c", config], NO_CLUSTER, more].concat())
}

/// Name, status and detail of each check result. Asserts that each has its four keys.
fn checks(mut process: Process, code: i32) -> Vec<(String, String, String)> {
    assert_eq!(process.end(WITHIN).code(), Some(code), "{}", process.errors());
    assert!(process.errors().is_empty(), "{}", process.errors());
    let report: Json =
        serde_json::from_str(&process.output()).expect("one object, and nothing else");
    assert_eq!(*at(&report, "/ok"), Json::Bool(code == 0), "{report}");
    let mut found = Vec::new();
    for check in at(&report, "/checks").as_array().unwrap() {
        let keys: Vec<&str> = check.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["name", "status", "detail", "fix"], "{check}");
        let text = |path: &str| at(check, path).as_str().unwrap().to_owned();
        let status = text("/status");
        assert_eq!(at(check, "/fix").is_null(), status == "ok", "{check}");
        found.push((text("/name"), status, text("/detail")));
    }
    found
}

#[test]
fn services_that_do_not_answer_and_skipped_checks_are_reported() {
    // In parallel, because each waits for its timeout.
    let (mut text, json) = (doctor(&[]), doctor(&["--json"]));
    let results = checks(json, 1);
    let results: Vec<(&str, &str)> =
        results.iter().map(|(name, status, _)| (name.as_str(), status.as_str())).collect();
    let expected = [
        ("configuration", "ok"),
        ("broker", "failed"),
        ("timeouts, transactions, topics, groups", "warning"),
        ("registry", "failed"),
        ("schemas", "warning"),
        ("model", "warning"),
        ("http", "ok"),
    ];
    assert_eq!(results, expected);

    assert_eq!(text.end(WITHIN).code(), Some(1), "{}", text.errors());
    let output = text.output();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        lines.len(),
        expected.len() + 1,
        "one line for each check, and the summary: {output}"
    );
    for words in ["no broker answers at 127.0.0.1:1", "is it running? set [broker]"] {
        assert!(lines[1].starts_with("FAILED   broker: ") && lines[1].contains(words), "{output}");
    }
    assert!(lines[3].contains("set [schema_registry] url"), "{output}");
    assert_eq!(lines[7], "7 checks: 2 ok, 3 warnings, 2 failed");
}

/// Answers one request, whose first line the thread returns.
fn answer_once(status: &'static str, body: &'static str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let serve = move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        let first = lines.next().unwrap();
        assert!(lines.any(|line| line.is_empty()), "the head ends");
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close");
        write!(stream, "{head}\r\n\r\n{body}").unwrap();
        first
    };
    (uri, thread::spawn(serve))
}

#[test]
fn the_mlflow_server_is_asked_for_the_experiment() {
    let check = |uri: &str, expected: &str, words: &str| {
        let uri = format!("mlflow.tracking_uri={uri}");
        let results = checks(doctor(&["--json", "--set", &uri]), 1);
        let (_, status, detail) = results.iter().find(|(name, ..)| name == "mlflow").unwrap();
        assert_eq!(status, expected, "{detail}");
        assert!(detail.contains(words), "{words:?} in {detail}");
    };
    check("http://127.0.0.1:1", "warning", "--set mlflow.tracking_uri: http://127.0.0.1:1: ");
    let answered = |status: &'static str, body: &'static str, expected: &str, words: &str| {
        let (uri, server) = answer_once(status, body);
        check(&uri, expected, words);
        let asked = server.join().unwrap();
        let path = "GET /api/2.0/mlflow/experiments/get-by-name?experiment_name=adult ";
        assert!(asked.starts_with(path), "{asked}");
    };
    let found = r#"{"experiment": {"experiment_id": "1"}}"#;
    answered("200 OK", found, "ok", "has the experiment \"adult\"");
    let missing = r#"{"error_code": "RESOURCE_DOES_NOT_EXIST"}"#;
    answered("404 Not Found", missing, "ok", "creates the experiment \"adult\"");
    answered("401 Unauthorized", "", "warning", "401");
    answered("200 OK", "<html>", "warning", "is tracking_uri the address of an MLflow server?");
}

#[test]
fn a_certificate_for_mlflow_that_cannot_be_read_is_a_failure_before_the_broker_is_asked() {
    let sets =
        ["--set", "mlflow.tracking_uri=https://127.0.0.1:1", "--set", "mlflow.ca_file=/nope.pem"];
    let results = checks(doctor(&[&["--json"], &sets[..]].concat()), 1);
    let (_, status, detail) = results.iter().find(|(name, ..)| name == "mlflow").unwrap();
    assert_eq!(status, "failed", "{detail}");
    assert!(detail.contains("ca_file: /nope.pem cannot be read"), "{detail}");
    for command in [&["run"][..], &["run", "--embedded"], &["demo"]] {
        let mut process =
            Process::start(&[command, &["-c", example()], NO_CLUSTER, &sets].concat());
        assert_eq!(process.end(WITHIN).code(), Some(1), "{}", process.errors());
        let errors = process.errors();
        assert!(errors.contains("ca_file: /nope.pem cannot be read"), "{command:?}: {errors}");
    }
}

#[test]
fn an_invalid_configuration_is_a_check_result() {
    let check = |process: Process, words: &str| {
        let found = checks(process, 1);
        let [(name, status, detail)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((name.as_str(), status.as_str()), ("configuration", "failed"));
        assert!(detail.contains(words), "{words} in {detail}");
    };
    check(doctor_of("/nowhere.toml", &["--json"]), "/nowhere.toml");
    let set = |setting| doctor(&["--json", "--set", setting]);
    check(set("topics.partitions=0"), "[topics] partitions");
    check(set("broker.properties.sasl.password={ file = '/nowhere' }"), "/nowhere");
    check(set("schema_registry.key_file=/key.pem"), "certificate_file");
    check(set("events.schema=/nowhere.avsc"), "/nowhere.avsc");
}

#[test]
fn properties_that_librdkafka_refuses_are_named() {
    let check = |setting: &str, words: &str| {
        let found = checks(doctor(&["--json", "--set", setting]), 1);
        let (name, status, detail) = &found[1];
        assert_eq!((name.as_str(), status.as_str()), ("broker", "failed"));
        assert!(detail.contains(words), "{words} in {detail}");
    };
    check("broker.properties.security.protokol=SSL", "security.protokol");
    check("broker.properties.security.protocol=TLS", "security.protocol");
    check("broker.properties.group.id=mine", "it follows from the application's name");
}

#[test]
fn a_failed_check_names_the_source_of_its_setting() {
    let found = checks(
        doctor(&["--json", "--set", "http.bind=256.0.0.1:1", "--set", "http.insecure=true"]),
        1,
    );
    for (name, place) in [
        ("broker", "--set broker.bootstrap_servers: "),
        ("registry", "--set schema_registry.url: "),
        ("http", "--set http.bind: "),
    ] {
        let (_, status, detail) = found.iter().find(|found| found.0 == name).unwrap();
        assert!(status == "failed" && detail.starts_with(place), "{detail}");
    }
}

#[test]
fn an_unknown_flag_is_an_error_of_usage() {
    let mut process = doctor(&["--jsn"]);
    assert_eq!(process.end(WITHIN).code(), Some(2));
    assert!(process.errors().contains("--json"), "{}", process.errors());
}

#[test]
fn questionnaires_that_are_never_complete_are_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(example()).unwrap();
    let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas");
    let config = config
        .replace("../../schemas", schemas)
        .replace("completed = ", "ignored = [\"completed\"] # ");
    let file = folder.path().join("foretell.toml");
    std::fs::write(&file, config).unwrap();
    let details = configuration_warnings(doctor_of(file.to_str().unwrap(), &["--json"]));
    assert_eq!(details.len(), 1, "{details:?}");
    for words in ["is never scored", "foretell_incomplete_observations_total", "answers = N"] {
        assert!(details[0].contains(words), "{details:?}");
    }
}

#[test]
fn a_threshold_for_more_than_two_classes_is_warned_about() {
    let labels = r#"outcomes.labels=["no","perhaps","yes"]"#;
    let threshold = ["--set", labels, "--set", "learning.threshold=0.4", "--json"];
    let details = configuration_warnings(doctor(&threshold));
    assert_eq!(details.len(), 1, "{details:?}");
    assert!(details[0].contains("[learning] threshold has no effect"), "{details:?}");
    assert_eq!(configuration_warnings(doctor(&["--set", labels, "--json"])), [""; 0]);
}

/// The warnings of the check of the configuration.
fn configuration_warnings(doctor: Process) -> Vec<String> {
    let found = checks(doctor, 1).into_iter();
    let warnings = found.filter(|(name, status, _)| name == "configuration" && status == "warning");
    warnings.map(|(_, _, detail)| detail).collect()
}
