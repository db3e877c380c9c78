//! Who else writes events and reads predictions: Confluent's client for Python, and Apache Avro for Java, each with
//! schemas of its own. And a registry behind TLS and credentials.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use foretell_streams::{
    record::Topic,
    time::{Clock, SystemClock},
};
use serde_json::{Value as Json, json};

use crate::{
    application::{Application, brokers, registry, secure},
    process::{Http, Process, SOON, at, tool, until},
};

const SETUP: &str = ".ci/setup broker";

/// A script in `tests/broker`, on the machine's own Python, Java or shell.
fn script(name: &str, arguments: &[&str]) -> Command {
    let path = format!("{}/tests/broker/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut command = match name.ends_with(".py") {
        true => Command::new(tool("python3", SETUP)),
        false => Command::new("bash"),
    };
    command.arg(path).args(arguments).stdin(Stdio::null());
    command
}

/// Another application on the cluster.
struct Client(&'static str);

const PYTHON: Client = Client("clients/confluent.py");
const JAVA: Client = Client("java-client.sh");

impl Client {
    fn run(&self, command: Command, arguments: &[&str]) -> Vec<Json> {
        let name = format!("{} {} (without its libraries: {SETUP})", self.0, arguments.join(" "));
        let printed = Process::spawn(name, command).succeed(SOON);
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Puts a schema under a topic's subject.
    fn register(&self, topic: &Topic, schema: &Path) {
        let (registry, schema) = (registry(), schema.to_str().unwrap());
        let arguments = ["register", &registry, topic.as_str(), schema];
        self.run(script(self.0, &arguments), &arguments);
    }

    /// Writes records, with a schema of its own if there is one.
    fn write(&self, topic: &Topic, schema: Option<&Path>, records: &[Json]) {
        let (brokers, registry) = (brokers(), registry());
        let mut arguments = vec!["write", &brokers, &registry, topic.as_str()];
        arguments.extend(schema.map(|path| path.to_str().unwrap()));
        let folder = tempfile::tempdir().unwrap();
        let lines = folder.path().join("records");
        fs::write(&lines, records.iter().map(|record| format!("{record}\n")).collect::<String>())
            .unwrap();
        let mut command = script(self.0, &arguments);
        command.stdin(File::open(lines).unwrap());
        self.run(command, &arguments);
    }

    /// What a topic has.
    fn read(&self, topic: &Topic) -> Vec<Json> {
        let (brokers, registry) = (brokers(), registry());
        let arguments = ["read", &brokers, &registry, topic.as_str()];
        self.run(script(self.0, &arguments), &arguments)
    }
}

/// A record, keyed by its respondent.
fn record(value: Json) -> Json {
    json!({"key": at(&value, "/respondent_id"), "value": value})
}

/// So many questionnaires of `who`, with these answers each.
fn events(who: &str, count: i64, answers: impl Fn(i64) -> Json) -> Vec<Json> {
    let now = SystemClock::new().now().0;
    let event = |number: i64| {
        let mut value = answers(number);
        let more = json!({
            "event_id": format!("{who}-event-{number}"), "respondent_id": format!("{who}-{number}"),
            "event_time": now + number, "completed": true,
        });
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        record(value)
    };
    (0..count).map(event).collect()
}

/// The predictions are those of the events, one each, and have these of their answers.
fn check(predictions: &[Json], events: &[Json], answers: &[&str]) {
    let by_event: BTreeMap<&str, &Json> = predictions
        .iter()
        .map(|prediction| (at(prediction, "/value/event_id").as_str().unwrap(), prediction))
        .collect();
    assert_eq!((predictions.len(), by_event.len()), (events.len(), events.len()));
    for event in events {
        let prediction = by_event[at(event, "/value/event_id").as_str().unwrap()];
        for same in ["/key", "/value/respondent_id", "/value/event_time"] {
            assert_eq!(at(prediction, same), at(event, same), "{prediction}");
        }
        for name in answers {
            let features = at(prediction, "/value/features").as_array().unwrap();
            let feature = features.iter().find(|feature| at(feature, "/name") == name).unwrap();
            let sent = event.pointer(&format!("/value/{name}")).unwrap_or(&Json::Null);
            let sent = sent.as_f64().map_or(sent.clone(), Json::from);
            assert_eq!(at(feature, "/value"), &sent, "{name} of {prediction}");
        }
        let classes = at(prediction, "/value/probabilities").as_array().unwrap();
        let labels: Vec<&Json> = classes.iter().map(|class| at(class, "/label")).collect();
        assert!(labels.contains(&at(prediction, "/value/label")), "{prediction}");
        let probability = |class: &Json| at(class, "/probability").as_f64().unwrap();
        let sum: f64 = classes.iter().map(probability).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{prediction}");
    }
}

/// Waits until so many events were scored, or something was dead-lettered.
fn until_scored(http: &Http, count: usize) {
    until("the events are scored", SOON, || {
        assert!(http.metric("foretell_dead_letters_total") < 0.5, "{:?}", http.get("/metrics"));
        let scored = http.metric("foretell_predictions_total");
        (scored >= f64::from(u32::try_from(count).unwrap())).then_some(())
    });
}

fn end(mut process: Process) {
    process.signal("TERM");
    assert!(process.end(SOON).success(), "{}", process.errors());
}

fn schema_file(folder: &Path, name: &str, schema: &Json) -> std::path::PathBuf {
    let path = folder.join(name);
    fs::write(&path, schema.to_string()).unwrap();
    path
}

/// The newest schema of the subject; then one that the serializer registers, with fewer fields in another order. The
/// outcomes come from Python too, and what is joined goes back there.
#[test]
fn python_writes_and_reads_with_confluents_serializers() {
    let application = Application::new("python", &["learning.retrain_after=100000"]);
    application.init();
    let mut process = application.instance("one");
    let http = process.http();
    http.ready();
    let topics = application.config().topics;
    let newest = events("newest", 60, |number| {
        json!({
            "age": 20 + number, "workclass": "Private", "fnlwgt": null, "education": "Masters",
            "marital_status": "Never-married", "occupation": "Sales", "relationship": "Husband",
            "race": "White", "gender": "Female", "capital_gain": 0, "capital_loss": null,
            "hours_per_week": 40, "native_country": "Österreich",
        })
    });
    PYTHON.write(&topics.questionnaire_events, None, &newest);

    let folder = tempfile::tempdir().unwrap();
    let own = json!({"type": "record", "name": "QuestionnaireEvent", "namespace": "foretell", "fields": [
        {"name": "education", "type": ["null", "string"], "default": null},
        {"name": "completed", "type": "boolean", "default": false},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
        {"name": "respondent_id", "type": "string"},
        {"name": "age", "type": ["null", "int"], "default": null},
        {"name": "event_id", "type": "string"},
    ]});
    let own = schema_file(folder.path(), "own.avsc", &own);
    let fewer = events(
        "fewer",
        40,
        |number| json!({"age": 30 + number, "education": null, "tags": ["a", "b"]}),
    );
    PYTHON.write(&topics.questionnaire_events, Some(&own), &fewer);

    let all = [newest, fewer].concat();
    until_scored(&http, all.len());
    let answers = ["age", "education", "occupation", "hours_per_week", "native_country"];
    check(&PYTHON.read(&topics.predictions), &all, &answers);

    let outcomes: Vec<Json> = all
        .iter()
        .map(|event| {
            let time = at(event, "/value/event_time").as_i64().unwrap() + 1000;
            record(
                json!({"respondent_id": at(event, "/key"), "outcome_time": time, "label": ">50K"}),
            )
        })
        .collect();
    PYTHON.write(&topics.outcomes, None, &outcomes);
    until("the outcomes are joined", SOON, || {
        let (_, metrics) = http.get("/metrics")?;
        metrics.contains("foretell_outcomes_total{result=\"joined\"} 100\n").then_some(())
    });
    let examples = PYTHON.read(&topics.labelled_examples);
    let streamed = examples.iter().filter(|example| at(example, "/value/origin") == "STREAM");
    assert_eq!(streamed.filter(|example| at(example, "/value/label") == ">50K").count(), 100);
    end(process);
}

/// Our events' schema with what Avro can do besides: a wider number, an enum, an array that nobody asked for.
fn evolved() -> Json {
    let mut schema: Json =
        serde_json::from_str(include_str!("../../schemas/questionnaire-event/v1.avsc")).unwrap();
    let fields = schema["fields"].as_array_mut().unwrap();
    for field in fields.iter_mut() {
        let gender = json!({"type": "enum", "name": "Gender", "symbols": ["Male", "Female"]});
        match field["name"].as_str().unwrap() {
            "age" => field["type"] = json!(["null", "double"]),
            "gender" => field["type"] = json!(["null", gender]),
            _ => {}
        }
    }
    fields.push(
        json!({"name": "history", "type": {"type": "array", "items": "long"}, "default": []}),
    );
    schema
}

/// Java has written since before our schema had become what it is: an int where we have a double, an enum with its
/// symbols in another order and in no union, a union the other way round, fields that we have not, and arrays and maps
/// in several blocks, each with its size.
#[test]
fn java_writes_and_reads_with_apache_avro() {
    let folder = tempfile::tempdir().unwrap();
    let ours = schema_file(folder.path(), "ours.avsc", &evolved());
    let ours = format!("events.schema={}", ours.display());
    let application = Application::new("java", &[&ours, "events.ignored=['history']"]);
    let topics = application.config().topics;
    let older = json!({"type": "record", "name": "QuestionnaireEvent", "namespace": "foretell", "fields": [
        {"name": "history", "type": {"type": "array", "items": "long"}},
        {"name": "pages", "type": {"type": "map", "values": "string"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "age", "type": "int"},
        {"name": "gender", "type": {"type": "enum", "name": "Gender", "symbols": ["Female", "Male"]}},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "education", "type": ["string", "null"]},
        {"name": "respondent_id", "type": {"type": "string", "avro.java.string": "String"}},
        {"name": "completed", "type": "boolean"},
        {"name": "event_id", "type": "string"},
    ]});
    let older = schema_file(folder.path(), "older.avsc", &older);
    JAVA.register(&topics.questionnaire_events, &older);
    application.init();
    let mut process = application.instance("one");
    let http = process.http();
    http.ready();
    let sent = events("java", 80, |number| {
        let pages: BTreeMap<String, String> =
            (0..9).map(|page| (format!("page {page}"), "x".repeat(17))).collect();
        let gender = ["Male", "Female"][usize::try_from(number % 2).unwrap()];
        let education = if number < 40 { Json::Null } else { json!("Bachelors") };
        json!({
            "history": (0..50 * number).collect::<Vec<_>>(), "pages": pages, "price": "12.34",
            "age": 18 + number, "gender": gender, "education": education,
        })
    });
    JAVA.write(&topics.questionnaire_events, Some(&older), &sent);
    until_scored(&http, sent.len());
    check(&JAVA.read(&topics.predictions), &sent, &["age", "gender", "education", "occupation"]);
    end(process);
}

/// What stands before the registry: its address, and the process, which ends when this is dropped.
fn gatekeeper(authorization: &str) -> (String, Process) {
    let (certificate, key) = (secure("broker.pem"), secure("broker.key"));
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let command = script("clients/gatekeeper.py", &[&registry(), authorization, certificate, key]);
    let gate = Process::spawn("gatekeeper.py".to_owned(), command);
    let port = until("the gatekeeper listens", SOON, || {
        gate.output().lines().next().map(|line| line.trim().to_owned())
    });
    (format!("schema_registry.url=https://127.0.0.1:{port}"), gate)
}

const PASSWORD: &str = "open sesame 4711";
const TOKEN: &str = "eyJhbGciOiJub25lIn0.4712";
const WRONG: &str = "sesame open 4713";

fn check_silent(process: &Process) {
    let basic = STANDARD.encode(format!("alice:{PASSWORD}"));
    for secret in [PASSWORD, TOKEN, WRONG, &basic] {
        let printed = process.output() + &process.errors();
        let line = printed.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a secret is told");
    }
}

fn sets(settings: &[String]) -> Vec<&str> {
    settings.iter().flat_map(|setting| ["--set", setting]).collect()
}

#[test]
fn a_registry_lets_in_who_has_the_right_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let basic = STANDARD.encode(format!("alice:{PASSWORD}"));
    let (by_password, _one) = gatekeeper(&format!("Basic {basic}"));
    let (by_token, _two) = gatekeeper(&format!("Bearer {TOKEN}"));
    let ca = format!("schema_registry.ca_file={}", secure("ca.pem").display());
    let application = Application::new("gate", &[&ca]);
    let user = [
        by_password.clone(),
        "schema_registry.username=alice".to_owned(),
        format!("schema_registry.password={{ file = '{}' }}", password.display()),
    ];
    let loud = ["--log", "trace"];

    // By name and password, from a file.
    let mut init = application.start(&[&["init"], &loud[..], &sets(&user)].concat());
    assert!(init.end(SOON).success(), "{}", init.errors());
    let mut run = application.start(&[&["run"], &loud[..], &sets(&user)].concat());
    run.http().ready();
    // By a token, from the environment.
    let exported = format!("export FORETELL_SCHEMA_REGISTRY_BEARER_TOKEN='{TOKEN}'");
    let by_token = [by_token];
    let send = ["send", "--limit", "5", "--rate", "50", "--outcome-delay", "1s"];
    let send = [&send[..], &loud[..], &sets(&by_token)].concat();
    let mut send = application.start_after(&exported, &send);
    assert!(send.end(SOON).success(), "{}", send.errors());
    assert!(send.output().contains("5 of 5 predictions came back"), "{}", send.output());
    let doctor = [&["doctor"], &loud[..], &sets(&by_token)].concat();
    let mut doctor = application.start_after(&exported, &doctor);
    assert!(doctor.end(SOON).success(), "{}", doctor.output());
    run.signal("TERM");
    assert!(run.end(SOON).success(), "{}", run.errors());
    [&init, &run, &send, &doctor].into_iter().for_each(check_silent);

    // Nobody else is let in, and is told so in one sentence.
    let refused = |first: &str, command: &str, settings: &[String], words: &[&str]| {
        let arguments = [&[command], &sets(settings)[..]].concat();
        let mut process = application.start_after(first, &arguments);
        let status = process.end(Duration::from_secs(30));
        let errors = process.errors();
        assert_eq!(status.code(), Some(1), "{errors}");
        assert!(errors.starts_with("error: ") && errors.lines().count() == 1, "{errors}");
        words.iter().for_each(|words| assert!(errors.contains(words), "{words:?} in {errors}"));
        check_silent(&process);
    };
    let denied = ["rejected the credentials", "[schema_registry] username and password", "401"];
    let url = [by_password];
    let wrong =
        [&url[..], &[user[1].clone(), format!("schema_registry.password={WRONG}")]].concat();
    for command in ["init", "run", "send"] {
        refused(":", command, &url, &denied);
        refused(":", command, &wrong, &denied);
    }
    refused(&exported, "run", &url, &denied);
    let stale = format!("export FORETELL_SCHEMA_REGISTRY_BEARER_TOKEN='{WRONG}'");
    refused(&stale, "run", &by_token, &denied);
    let stranger = format!("schema_registry.ca_file={}", secure("client.pem").display());
    let untrusted = [&user[..], &[stranger]].concat();
    refused(":", "run", &untrusted, &["certificate verify failed", "[schema_registry]", "ca_file"]);
    // The password is in a file that is not there.
    let gone = format!("schema_registry.password={{ file = '{}.gone' }}", password.display());
    let gone = [&user[..], &[gone]].concat();
    refused(":", "run", &gone, &["[schema_registry] password", "password.gone"]);
}
