//! Secrets are not in any output: logs, errors, check results.

use std::{fs, path::Path, time::Duration};

use crate::process::{Process, SOON, example, quick_settings};

/// A text that no output contains for another reason.
const SECRET: &str = "hunter2xyzzy";

const WITHIN: Duration = Duration::from_secs(40);

/// The worked example with a secret in every setting that can hold one. Nothing listens at its addresses.
fn config_with_secrets(folder: &Path) -> String {
    let example = example();
    let beside = Path::new(&example).parent().unwrap();
    let schema = beside.join("../../schemas/questionnaire-event/v1.avsc");
    let text = fs::read_to_string(example).unwrap();
    let text = text
        .replace("../../schemas/questionnaire-event/v1.avsc", schema.to_str().unwrap())
        .replace("\"adult.", &format!("\"{}/adult.", beside.display()))
        .replace("localhost:19092\"", "127.0.0.1:1\"")
        .replace(
            "url = \"http://localhost:18081\"",
            &format!("url = \"http://me:{SECRET}@127.0.0.1:1\""),
        )
        .replace("[http]", &format!("[http]\nbearer_token = \"{SECRET}\""));
    let properties = format!(
        "[broker.properties]\n'security.protocol' = 'SASL_PLAINTEXT'\n'sasl.mechanisms' = 'PLAIN'\n\
         'sasl.username' = 'alice'\n'sasl.password' = {{ file = 'password' }}\n'debug' = 'all'\n\
         'ssl.key.password' = '{SECRET}'\n"
    );
    fs::write(folder.join("password"), format!("{SECRET}\n")).unwrap();
    let path = folder.join("foretell.toml");
    fs::write(&path, format!("{text}\n{properties}")).unwrap();
    path.to_str().unwrap().to_owned()
}

fn assert_no_secret(process: &Process, context: &str) {
    for printed in [process.output(), process.errors()] {
        let line = printed.lines().find(|line| line.contains(SECRET));
        assert_eq!(line, None, "{context}");
    }
}

#[test]
fn commands_that_fail_print_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let config = config_with_secrets(folder.path());
    let start = |command: &str| {
        (command.to_owned(), Process::start(&["--log", "trace", command, "-c", &config]))
    };
    // In parallel, because each waits for its timeout.
    for (command, mut process) in ["doctor", "init", "run", "send"].map(start) {
        assert_eq!(process.end(WITHIN).code(), Some(1), "{}", process.errors());
        assert_no_secret(&process, &command);
        let output = process.output() + &process.errors();
        assert!(output.contains("no broker answers"), "{output}");
        assert!(process.errors().contains("librdkafka"), "librdkafka's debug lines are included");
    }
}

#[test]
fn refused_settings_print_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let config = config_with_secrets(folder.path());
    let check = |setting: String, words: &str| {
        for command in ["run", "doctor"] {
            let arguments = ["--log", "trace", command, "-c", &config, "--set", &setting];
            let mut process = Process::start(&arguments);
            assert_eq!(process.end(WITHIN).code(), Some(1), "{}", process.errors());
            assert_no_secret(&process, &setting);
            let output = process.output() + &process.errors();
            assert!(output.contains(words), "{words} in {output}");
        }
    };
    check(format!("broker.properties.security.protocol={SECRET}"), "security.protocol");
    check(format!("broker.properties.debug=all,{SECRET}"), "debug");
    check(format!("broker.properties.socket.timeout.ms={SECRET}"), "socket.timeout.ms");
    check(format!("broker.properties={{ a = {SECRET} }}"), "[broker] properties");
    check(format!("broker.properties={{ a = ['{SECRET}'] }}"), "[broker.properties] a");
    check(format!("http={{ bearer_token = {SECRET} }}"), "[http]");
    check(format!("schema_registry.password={{ fil = '{SECRET}' }}"), "[schema_registry] password");
    check(format!("schema_registry.bearer_token={SECRET}"), "[schema_registry]");
    check(format!("schema_registry.passwort={SECRET}"), "did you mean [schema_registry] password?");
    check(format!("http.bearer_tokens={SECRET}"), "did you mean [http] bearer_token?");
    check(format!("schema_registry.password:{SECRET}"), "expected section.key=value");
    check(SECRET.to_owned(), "expected section.key=value");
    check(format!("broker.bootstrap_servers=alice:{SECRET}@kafka:9092"), "host:port");
    check(format!("broker.bootstrap_servers=SASL_SSL://alice:{SECRET}@kafka:9092"), "host:port");
    check(format!("broker.bootstrap_servers=kafka:9092?password={SECRET}"), "host:port");
}

#[test]
fn invalid_addresses_print_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let config = config_with_secrets(folder.path());
    let check = |url: String| {
        for command in ["run", "doctor", "init", "send"] {
            let setting = format!("schema_registry.url={url}");
            for first in [":".to_owned(), format!("export FORETELL_SCHEMA_REGISTRY_URL='{url}'")] {
                let mut arguments = vec!["--log", "debug", command, "-c", &config];
                if first == ":" {
                    arguments.extend(["--set", &setting]);
                }
                let mut process = Process::start_after(&first, &arguments);
                assert_eq!(process.end(WITHIN).code(), Some(1), "{}", process.errors());
                assert_no_secret(&process, &url);
                let output = process.output() + &process.errors();
                let source = match first.as_str() {
                    ":" => "--set schema_registry.url: [schema_registry] url",
                    _ => "FORETELL_SCHEMA_REGISTRY_URL: [schema_registry] url",
                };
                assert!(output.contains(source), "{source} in {output}");
            }
        }
    };
    check(format!("htp://me:{SECRET}@nowhere"));
    check(format!("me:{SECRET}@nowhere:8081"));
    check(format!("http//me:{SECRET}@nowhere"));
    check(format!("http://me:pass/{SECRET}@nowhere"));
    check(format!("http://me:pass?{SECRET}@nowhere"));
    check(format!("http://nowhere/?apikey={SECRET}"));
    check(format!("https://nowhere/a?b=c&apikey={SECRET}"));
    check(format!("http://nowhere#{SECRET}"));
    check(format!("http://{SECRET}@nowhere:port"));
    check(format!("http://me:{SECRET}@"));
    check(format!("[\"http://me:{SECRET}@nowhere\"]"));
}

#[test]
fn commands_that_succeed_print_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = quick_settings(folder.path(), 2000);
    settings.push("tuning.iterations_max=20".to_owned());
    let config = config_with_secrets(folder.path());
    let mut arguments = vec!["--log", "trace", "run", "--embedded", "-c", &config];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    let mut process = Process::start(&arguments);
    let http = process.http();
    http.ready();
    let event = r#"{"respondent_id": "me", "completed": true, "age": 39}"#;
    let (code, answer) =
        http.post("/api/v1/events?wait=true", event, Some(SECRET)).expect("a response");
    assert_eq!(code, 200, "the secret is the token: {answer}");
    process.signal("INT");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
    assert_no_secret(&process, "run --embedded");
}
