//! What can't work ends at once, with one line that says what to change.

use std::{fs, time::Duration};

use crate::process::{Process, example};

/// Where nobody is asked over the network.
const AT_ONCE: Duration = Duration::from_secs(10);
/// A broker is given ten seconds to answer.
const PATIENCE: Duration = Duration::from_secs(20);

fn check(arguments: &[&str], expected: &[&str]) {
    check_end(Process::start(arguments), AT_ONCE, expected);
}

fn check_end(mut process: Process, within: Duration, expected: &[&str]) {
    let status = process.end(within);
    let errors = process.errors();
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(process.output().is_empty(), "{}", process.output());
    let last = errors.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: "), "{errors}");
    for words in expected {
        assert_eq!(last.matches(words).count(), 1, "{words:?} once in {errors}");
    }
    assert!(!errors.contains("panicked") && !errors.contains('\x1b'), "{errors}");
}

#[test]
fn a_file_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = fs::read_to_string(example()).unwrap();
    let key = file("key.toml", &good.replace("bootstrap_servers", "bootstrap_server"));
    let line = good.lines().position(|line| line.starts_with("bootstrap_servers")).unwrap() + 1;
    let place = format!("key.toml:{line}: ");
    let (wrong, right) = ("[broker] bootstrap_server:", "[broker] bootstrap_servers?");
    check(&["run", "-c", &key], &[&place, wrong, right]);
    let toml = file("toml.toml", "[application]\nid = \n");
    check(&["run", "-c", &toml], &["toml.toml:2: "]);
    check(&["run", "-c", &file("empty.toml", "")], &["empty.toml", "`application`"]);
    let missing = folder.path().join("missing.toml");
    check(&["run", "-c", missing.to_str().unwrap()], &["missing.toml", "No such file"]);
    // Paths are the file's own: this one has no schema beside it.
    let far = file("far.toml", &good);
    check(&["run", "-c", &far], &["far.toml:", "[events] schema", "cannot read", "No such"]);
}

#[test]
fn a_setting_that_is_wrong() {
    let config = example();
    let set = |setting: &str, expected: &[&str]| {
        check(&["run", "-c", config, "--set", setting], expected);
    };
    set("streams", &["--set streams: expected section.key=value"]);
    set("nonsense.key=1", &["there is no [nonsense];", "streams"]);
    set("streams.nonsense=1", &["there is no [streams] nonsense;", "threads"]);
    set("streams.retrain_after=1", &["did you mean [learning] retrain_after?"]);
    set("lerning.retrain_after=1", &["did you mean [learning]?"]);
    set("streams.threads=many", &["--set streams.threads: [streams] threads: ", "\"many\""]);
    set("streams.threads=0", &["[streams] threads", "at least 1"]);
    set("streams.standby=true", &["[streams] standby", "state_dir"]);
    set("outcomes.labels=[\"yes\"]", &["[outcomes] labels"]);
    set("topics.prefix=a b", &["[topics] prefix"]);
    set("events.respondent_id=nobody", &["`nobody`", "respondent id"]);
    set("features.ignored=[\"nothing\"]", &["[features]", "no answer \"nothing\""]);
    set("schema_registry.url=registry:8081", &["[schema_registry] url", "http://"]);
    set("schema_registry.url=http://registry:port", &["[schema_registry] url", "no port"]);
}

#[test]
fn a_variable_that_is_wrong() {
    let export = |variable: &str, expected: &[&str]| {
        let first = format!("export '{variable}'");
        let process = Process::start_after(&first, &["run", "-c", example()]);
        check_end(process, AT_ONCE, expected);
    };
    export(
        "FORETELL_LERNING_RETRAIN_AFTER=5",
        &["FORETELL_LERNING_RETRAIN_AFTER: ", "FORETELL_LEARNING_RETRAIN_AFTER?"],
    );
    export("FORETELL_HTTP_PORT=8000", &["FORETELL_HTTP_PORT: "]);
    export("FORETELL_STREAMS_THREADS=0", &["FORETELL_STREAMS_THREADS: [streams] threads: "]);
    export(
        "FORETELL_TOPICS_PARTITIONS=six",
        &["FORETELL_TOPICS_PARTITIONS: [topics] partitions: ", "\"six\""],
    );
    export(
        "FORETELL_LOG=verbose",
        &["FORETELL_LOG: \"verbose\" is no level", "off, error, warn, info, debug"],
    );
    let arguments = ["run", "-c", example(), "--log", "foretell=loud"];
    check(&arguments, &["--log: \"foretell=loud\" is no level", "librdkafka=warn"]);
}

#[test]
fn what_kubernetes_sets_for_a_service_is_passed_over() {
    let first = "export FORETELL_HTTP_PORT=tcp://10.0.0.7:8000 FORETELL_HTTP_SERVICE_HOST=10.0.0.7 \
                 FORETELL_HTTP_SERVICE_PORT=8000 FORETELL_HTTP_SERVICE_PORT_HTTP=8000 \
                 FORETELL_HTTP_PORT_8000_TCP=tcp://10.0.0.7:8000 FORETELL_HTTP_PORT_8000_TCP_PROTO=tcp \
                 FORETELL_HTTP_PORT_8000_TCP_PORT=8000 FORETELL_HTTP_PORT_8000_TCP_ADDR=10.0.0.7 \
                 FORETELL_PORT=tcp://10.0.0.8:8000 FORETELL_SERVICE_HOST=10.0.0.8";
    // The next thing that is wrong is told.
    let arguments = ["run", "-c", example(), "--set", "streams.threads=0"];
    let expected = ["--set streams.threads: [streams] threads: "];
    check_end(Process::start_after(first, &arguments), AT_ONCE, &expected);
}

#[test]
fn data_that_is_not_there_is_noticed_before_the_training() {
    let config = example();
    let set = |setting: &str, expected: &[&str]| {
        check(&["demo", "--json", "-c", config, "--set", setting], expected);
    };
    for table in ["initial", "play"] {
        let path = format!("data.{table}.path=/nowhere.csv");
        set(&path, &["cannot open the data /nowhere.csv", "No such file"]);
    }
    set("data.play.label=nothing", &["nothing"]);
    set("outcomes.labels=[\"no\",\"yes\"]", &["is not one of [outcomes] labels"]);
}

#[test]
fn nobody_at_the_address() {
    let config = example();
    let start = |command| {
        let nobody = "broker.bootstrap_servers=127.0.0.1:1";
        Process::start(&[command, "-c", config, "--set", nobody])
    };
    // Side by side, since each takes the whole of its patience.
    for mut process in ["run", "init", "send"].map(start) {
        process.end(PATIENCE);
        let lines = process.errors().lines().count();
        assert_eq!(lines, 1, "one line is enough: {}", process.errors());
        let place = "--set broker.bootstrap_servers: ";
        check_end(process, PATIENCE, &[place, "no broker answers at 127.0.0.1:1", "[broker]"]);
    }
}

#[test]
fn a_mistyped_command() {
    let mut process = Process::start(&["rum"]);
    assert_eq!(process.end(AT_ONCE).code(), Some(2));
    assert!(process.errors().contains("'rum'"), "{}", process.errors());
}
