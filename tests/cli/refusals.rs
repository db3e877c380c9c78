//! Invalid configurations, arguments and data: the command ends at once, with one line that says what to change.

use std::{fs, time::Duration};

use crate::process::{Process, example};

/// Bound for commands that use no network.
const AT_ONCE: Duration = Duration::from_secs(10);
/// Bound for commands that wait ten seconds for a broker.
const WITH_BROKER: Duration = Duration::from_secs(20);

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
fn an_invalid_configuration_file_is_refused() {
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
    // Paths are relative to the file, and this one has no schema beside it.
    let far = file("far.toml", &good);
    check(&["run", "-c", &far], &["far.toml:", "[events] schema", "cannot read", "No such"]);
}

#[test]
fn a_delivery_without_a_valid_channel_is_refused() {
    let config = example();
    check(
        &["deliver", "-c", config],
        &["foretell.toml: there is no channel", "[[delivery.webhooks]]"],
    );
    let webhook = |settings: &str, expected: &[&str]| {
        let set = format!("delivery.webhooks=[{{ name = \"crm\", {settings} }}]");
        check(&["deliver", "-c", config, "--set", &set], expected);
    };
    webhook(
        "url = \"crm\"",
        &["--set delivery.webhooks: [[delivery.webhooks]] url: it must begin"],
    );
    webhook("url = \"http://h:x\"", &["--set delivery.webhooks: [[delivery.webhooks]] url"]);
    webhook("ulr = \"http://h\"", &["--set delivery.webhooks: [[delivery.webhooks]]", "`ulr`"]);
    let email = "delivery.emails=[{ name = \"m\", smtp = \"smtp://m\", from = \"a@b.example\", to = \"occupation\", \
                 subject = \"{{ labl }}\", body = \"\" }]";
    check(&["deliver", "-c", config, "--set", email], &["[[delivery.emails]]: the subject"]);
}

#[test]
fn an_invalid_setting_is_refused() {
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
    set("tuning.folds=100", &["--set tuning.folds: [tuning] folds: ", "100, not 2 to 64"]);
    set("data.initial.comment=\",\"", &["--set data.initial.comment: ", "the delimiter, too"]);
    let both = ["--set", "features.numeric=[\"age\"]", "--set", "features.categorical=[\"age\"]"];
    let expected = "--set features.numeric: [features] numeric: \"age\" is in categorical, too";
    check(&[&["run", "-c", config][..], &both].concat(), &[expected]);
    let leaves = "tuning.space.num_leaves={ low = 1, high = 9 }";
    set(leaves, &["--set tuning.space.num_leaves: ", "num_leaves is 1"]);
    set("streams.standby=true", &["[streams] standby", "state_dir"]);
    set("outcomes.labels=[\"yes\"]", &["[outcomes] labels"]);
    set("topics.prefix=a b", &["[topics] prefix"]);
    set("events.respondent_id=nobody", &["`nobody`", "respondent id"]);
    set("features.ignored=[\"nothing\"]", &["[features]", "no answer \"nothing\""]);
    set("schema_registry.url=registry:8081", &["[schema_registry] url", "http://"]);
    for section in ["mlflow", "schema_registry"] {
        let refused = |key: &str, problem: &str| {
            let place = format!("--set {section}.{key}: [{section}] {key}: {problem}");
            set(&format!("{section}.{key}=ann"), &[&place]);
        };
        refused("username", "there is no password");
        refused("password", "there is no username");
    }
    set("schema_registry.url=http://registry:port", &["[schema_registry] url", "the port after"]);
}

#[test]
fn a_value_out_of_bounds_is_refused() {
    let config = example();
    let set = |setting: &str, expected: &[&str]| {
        check(&["run", "-c", config, "--set", setting], expected);
    };
    set("streams.threads=-1", &["[streams] threads", "`-1`", "a whole number from 0 to"]);
    set("streams.commit_interval=soon", &["\"soon\"", "a duration, such as"]);
    set("scoring.when=answers", &["[scoring] when", "{ answers = 5 }"]);
    set("scoring.when={answers=99}", &["[scoring] when", "answers is 99", "from 1 to 13"]);
    set("sessions.max=1m", &["[sessions] max: it is 1m, and [sessions] gap is 1h", "at most max"]);
    let former = "[scoring] retention: it is the former name of [sessions] gap, which is set, too";
    set("scoring.retention=2h", &[former, "remove it"]);
    set("scoring.when={answers=0}", &["[scoring] when", "answers is 0", "from 1 to 13"]);
    set(
        "http.bind=banana",
        &["--set http.bind: [http] bind: \"banana\" is not an address", "\"127.0.0.1:8000\""],
    );
    set("http.bind=127.0.0.1:99999", &["[http] bind", "is not an address"]);
    set(
        "events.missing=[[1]]",
        &["[events] missing", "a text in quotes, a number, or true or false"],
    );
    set(
        "outcomes.labels=[FALSE,TRUE]",
        &["[outcomes] labels: ", "true and false in small letters"],
    );
    set("outcomes.unlabelled={label=3}", &["[outcomes] unlabelled", "label \"3\"", "<=50K, >50K"]);
    set("data.initial.delimiter=\"ä\"", &["[data.initial] delimiter", "one ASCII character"]);
    set("features.calendar={event_time=[\"hour\"]}", &["is the event time", "a field of its own"]);
    set("features.calendar={age=[\"hour\"]}", &["\"age\" is not a date or time", "has none"]);
    for zero in [
        "tuning.trials",
        "tuning.threads",
        "tuning.iterations_max",
        "tuning.early_stopping_rounds",
        "streams.commit_records_max",
        "http.waits_max",
        "sessions.events_max",
        "quality.labels_min",
        "quality.predictions_min",
    ] {
        let key = zero.rsplit_once('.').unwrap().1;
        set(&format!("{zero}=0"), &[&format!("] {key}: "), "at least 1"]);
    }
    for zero in [
        "outcomes.window",
        "scoring.retention",
        "sessions.gap",
        "quality.window",
        "tuning.time",
        "broker.session_timeout",
    ] {
        let key = zero.rsplit_once('.').unwrap().1;
        set(&format!("{zero}=0s"), &[&format!("] {key}: "), "at least 1 ms"]);
    }
    for wrong in ["nan", "-0.5", "0", "inf"] {
        let setting = format!("features.contract.mostly_missing={wrong}");
        set(&setting, &["[features.contract] mostly_missing", "above 0 and up to 1"]);
    }
    for key in ["psi_alert", "log_loss_alert"] {
        let place = format!("[quality] {key}: ");
        set(&format!("quality.{key}=-0.1"), &[&place, "not negative"]);
    }
}

#[test]
fn a_value_of_learning_out_of_bounds_is_refused() {
    let config = example();
    let set = |setting: &str, expected: &[&str]| {
        check(&["run", "-c", config, "--set", setting], expected);
    };
    set(
        "learning.last=many",
        &["--set learning.last: [learning] last", "\"many\"", "such as 2000", "such as \"30d\""],
    );
    set("learning.last=-3", &["[learning] last", "\"-3\" is neither"]);
    set("learning.last=0", &["[learning] last: it is 0: it must be from 1 to 2147483647"]);
    set("learning.last=0s", &["[learning] last", "at least 1 ms"]);
    set("learning.reservoir=0", &["[learning] reservoir: it is 0"]);
    set("learning.reservoir=3000000000", &["[learning] reservoir", "from 1 to 2147483647"]);
    set("learning.half_life=0s", &["[learning] half_life", "at least 1 ms"]);
    set("learning.half_life=soon", &["[learning] half_life", "\"soon\"", "a duration, such as"]);
    set("learning.initial=fade", &["[learning] initial", "fade", "keep", "age"]);
    check(
        &["run", "-c", config, "--set", "learning.last=9", "--set", "learning.reservoir=9"],
        &["--set learning.reservoir: [learning] reservoir: last is set, too", "remove one"],
    );
    for wrong in ["nan", "-0.5", "0", "1", "1.5"] {
        let setting = format!("learning.threshold={wrong}");
        set(&setting, &["[learning] threshold: it is ", "above 0 and below 1, such as 0.5"]);
    }
    set("learning.threshold=most", &["[learning] threshold: it is most", "or \"best\""]);
    set("learning.calibration=some", &["[learning] calibration", "some", "platt", "isotonic"]);
    for wrong in ["every day", "61 * * * *", "0 0 31 2 *"] {
        let setting = format!("learning.schedule={wrong}");
        set(&setting, &["[learning] schedule: ", "\"0 3 * * *\" (every day at 03:00 UTC)"]);
    }
    set("learning.time_max=0s", &["[learning] time_max: ", "at least 1 ms"]);
    set("learning.judge.policy=never", &["[learning.judge] policy", "better", "always"]);
    set("learning.judge.metric=rmse", &["[learning.judge] metric", "log_loss", "accuracy"]);
    set("learning.judge.margin=-1", &["[learning.judge] margin: it is -1", "0 or more"]);
    set("learning.judge.confidence=1", &["[learning.judge] confidence: ", "0.999"]);
    set("learning.judge.holdout=0", &["[learning.judge] holdout: it is 0", "0.05 to 0.9"]);
}

#[test]
fn an_invalid_environment_variable_is_refused() {
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
fn variables_that_kubernetes_sets_for_a_service_are_ignored() {
    let first = "export FORETELL_HTTP_PORT=tcp://10.0.0.7:8000 FORETELL_HTTP_SERVICE_HOST=10.0.0.7 \
                 FORETELL_HTTP_SERVICE_PORT=8000 FORETELL_HTTP_SERVICE_PORT_HTTP=8000 \
                 FORETELL_HTTP_PORT_8000_TCP=tcp://10.0.0.7:8000 FORETELL_HTTP_PORT_8000_TCP_PROTO=tcp \
                 FORETELL_HTTP_PORT_8000_TCP_PORT=8000 FORETELL_HTTP_PORT_8000_TCP_ADDR=10.0.0.7 \
                 FORETELL_PORT=tcp://10.0.0.8:8000 FORETELL_SERVICE_HOST=10.0.0.8";
    // The error is about another setting, so the variables were accepted.
    let arguments = ["run", "-c", example(), "--set", "streams.threads=0"];
    let expected = ["--set streams.threads: [streams] threads: "];
    check_end(Process::start_after(first, &arguments), AT_ONCE, &expected);
}

#[test]
fn missing_data_is_refused_before_the_training() {
    let config = example();
    let set = |setting: &str, expected: &[&str]| {
        check(&["demo", "--json", "-c", config, "--set", setting], expected);
    };
    for table in ["initial", "play"] {
        let path = format!("data.{table}.path=/nowhere.csv");
        let place = format!("--set data.{table}.path: [data.{table}] path: ");
        set(&path, &[&place, "cannot open the data /nowhere.csv", "No such file"]);
    }
    set("data.play.label=nothing", &["foretell.toml:", ": [data.play]: ", "nothing"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("people.csv");
    fs::write(&path, "respondent_id,age,income_bracket\nann,30,<=50K\n ,31,>50K\n").unwrap();
    let table = format!("{{path=\"{}\", label=\"income_bracket\"}}", path.display());
    for key in ["play", "initial"] {
        let setting = format!("data.{key}={table}");
        set(&setting, &["people.csv, line 3: ", "\"respondent_id\"", "names no respondent"]);
    }
    set("outcomes.labels=[\"no\",\"yes\"]", &["is not one of [outcomes] labels"]);
}

#[test]
fn a_missing_broker_is_reported() {
    let config = example();
    let start = |command| {
        let no_broker = "broker.bootstrap_servers=127.0.0.1:1";
        Process::start(&[command, "-c", config, "--set", no_broker])
    };
    // In parallel, because each waits for its timeout.
    for mut process in ["run", "init", "send"].map(start) {
        process.end(WITH_BROKER);
        let lines = process.errors().lines().count();
        assert_eq!(lines, 1, "one line: {}", process.errors());
        let place = "--set broker.bootstrap_servers: ";
        check_end(process, WITH_BROKER, &[place, "no broker answers at 127.0.0.1:1", "[broker]"]);
    }
}

#[test]
fn a_configuration_that_is_named_is_never_ignored() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/questionnaire-event");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/questionnaire-event/v1.avsc");
    for command in [
        &["schema", "check", folder][..],
        &["schema", "diff", file, file],
        &["schema", "evolve", folder, "--add", "x:string", "--dry-run"],
    ] {
        check(&[command, &["-c", "missing.toml"]].concat(), &["missing.toml", "No such file"]);
        let set = [command, &["-c", example(), "--set", "streams.threads=0"]].concat();
        check(&set, &["[streams] threads"]);
    }
}

#[test]
fn a_class_of_dead_letters_is_checked_before_a_broker_is_asked() {
    let no_broker = "broker.bootstrap_servers=127.0.0.1:1";
    let end = |command: &str, class: &str, words: &[&str]| {
        let command =
            ["dead-letters", command, "-c", example(), "--set", no_broker, "--class", class];
        let process = Process::start(&command);
        check_end(process, WITH_BROKER, words);
    };
    for command in ["list", "replay"] {
        let unknown = "--class: there is no class \"nonsense\" of dead letters; there are ";
        end(command, "nonsense", &[unknown, ", late_outcome, "]);
        let misspelt = "\"late_outcom\" of dead letters (did you mean late_outcome?); there are ";
        end(command, "late_outcom", &[misspelt]);
    }
    end("list", "late_outcome", &["no broker answers at 127.0.0.1:1"]);
}

#[test]
fn labels_and_marks_of_missing_values_may_be_numbers_and_booleans() {
    let config = example();
    // The error is about another setting, so these were accepted.
    for setting in [
        "events.missing=[1, -99.5, true, \"?\"]",
        "data.initial.missing=[0]",
        "outcomes.labels=[1, 2]",
        "outcomes.labels=[false, true]",
    ] {
        let arguments = ["run", "-c", config, "--set", setting, "--set", "streams.threads=0"];
        check(&arguments, &["[streams] threads"]);
    }
    let labels = ["--set", "outcomes.labels=[1, 2]", "--set", "outcomes.unlabelled={label=1}"];
    let arguments = [&["run", "-c", config, "--set", "http.bind=banana"], &labels[..]].concat();
    check(&arguments, &["[http] bind"]);
}

#[test]
fn an_argument_out_of_bounds_is_refused() {
    let refuse = |arguments: &[&str], expected: &str| {
        let mut process = Process::start(arguments);
        assert_eq!(process.end(AT_ONCE).code(), Some(2), "{arguments:?}");
        assert!(process.errors().contains(expected), "{}", process.errors());
    };
    for rate in ["-1", "0", "nan", "inf", "1e-300", "many"] {
        refuse(&["send", "--rate", rate], "it must be a number of at least 0.001");
    }
    for rate in ["-1", "nan", "inf", "1e-300"] {
        refuse(&["demo", &format!("--rate={rate}")], "it must be 0, or a number of at least 0.001");
    }
    for limit in ["0", "-1", "few"] {
        refuse(&["demo", "--limit", limit], "it must be a whole number, 1 or more");
        refuse(&["send", "--limit", limit], "it must be a whole number, 1 or more");
    }
    refuse(&["send", "--outcome-delay", "soon"], "it must be a duration, such as 500ms");
    refuse(&["demo", "--tuning-seconds", "0"], "a whole number of seconds, 1 or more");
}

#[test]
fn an_unknown_command_is_refused() {
    let mut process = Process::start(&["rum"]);
    assert_eq!(process.end(AT_ONCE).code(), Some(2));
    assert!(process.errors().contains("'rum'"), "{}", process.errors());
}

#[test]
fn an_address_that_other_hosts_reach_needs_a_token() {
    let config = example();
    let start = |sets: &[&str], expected: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let arguments: Vec<&str> = ["run", "-c", config].into_iter().chain(sets).collect();
        check(&arguments, expected);
    };
    for bind in ["0.0.0.0:8000", "[::]:8000", "192.0.2.1:8000", "box.example:8000"] {
        let set = format!("http.bind={bind:?}");
        start(
            &[&set],
            &["[http] bind: ", bind, "bearer_token", "127.0.0.1:8000", "insecure = true"],
        );
    }
    start(&["http.read_token=r"], &["[http] read_token", "bearer_token is not set"]);
    start(&["http.bearer_token=t", "http.read_token=t"], &["[http] read_token", "another token"]);
    start(&["http.bearer_token="], &["[http] bearer_token", "is empty"]);
}
