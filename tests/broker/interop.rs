//! Interoperability: Confluent's client for Python and Apache Avro for Java write events and read predictions, each with
//! schemas of its own, and pandas gets typed columns. And a registry behind TLS and credentials.

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

/// The command that runs a script in `tests/broker`: with Python for `.py`, else with bash.
fn script(name: &str, arguments: &[&str]) -> Command {
    let path = format!("{}/tests/broker/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut command = match name.ends_with(".py") {
        true => Command::new(tool("python3", SETUP)),
        false => Command::new("bash"),
    };
    command.arg(path).args(arguments).stdin(Stdio::null());
    command
}

/// Another client of the cluster, named by its script.
struct Client(&'static str);

const PYTHON: Client = Client("clients/confluent.py");
const JAVA: Client = Client("java-client.sh");

impl Client {
    fn run(&self, command: Command, arguments: &[&str]) -> Vec<Json> {
        let name = format!("{} {} (without its libraries: {SETUP})", self.0, arguments.join(" "));
        let printed = Process::spawn(name, command).succeed(SOON);
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Registers a schema under a topic's subject.
    fn register(&self, topic: &Topic, schema: &Path) {
        let (registry, schema) = (registry(), schema.to_str().unwrap());
        let arguments = ["register", &registry, topic.as_str(), schema];
        self.run(script(self.0, &arguments), &arguments);
    }

    /// Writes records with `schema`, or without one with the newest of the topic's subject.
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

    /// Reads all records of a topic.
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

/// `count` completed questionnaires, each of another respondent. `answers` gives the answers of each by its number.
fn events(prefix: &str, count: i64, answers: impl Fn(i64) -> Json) -> Vec<Json> {
    let now = SystemClock::new().now().0;
    let event = |number: i64| {
        let mut value = answers(number);
        let metadata = json!({
            "event_id": format!("{prefix}-event-{number}"), "event_time": now + number,
            "respondent_id": format!("{prefix}-{number}"), "completed": true,
        });
        value.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        record(value)
    };
    (0..count).map(event).collect()
}

/// Asserts that each event has one prediction, with the event's ids and time and with these of its `answers`.
fn check(predictions: &[Json], events: &[Json], answers: &[&str]) {
    let by_event: BTreeMap<&str, &Json> = predictions
        .iter()
        .map(|prediction| (at(prediction, "/value/event_id").as_str().unwrap(), prediction))
        .collect();
    assert_eq!((predictions.len(), by_event.len()), (events.len(), events.len()));
    for event in events {
        let prediction = by_event[at(event, "/value/event_id").as_str().unwrap()];
        for path in ["/key", "/value/respondent_id", "/value/event_time"] {
            assert_eq!(at(prediction, path), at(event, path), "{prediction}");
        }
        for name in answers {
            let sent = event.pointer(&format!("/value/{name}")).unwrap_or(&Json::Null);
            let sent = sent.as_f64().map_or(sent.clone(), Json::from);
            let answer = at(prediction, &format!("/value/answers/{name}"));
            let answer = answer.as_f64().map_or(answer.clone(), Json::from);
            assert_eq!(answer, sent, "{name} of {prediction}");
        }
        let classes = at(prediction, "/value/probabilities").as_array().unwrap();
        let labels: Vec<&Json> = classes.iter().map(|class| at(class, "/label")).collect();
        assert!(labels.contains(&at(prediction, "/value/label")), "{prediction}");
        let probability = |class: &Json| at(class, "/probability").as_f64().unwrap();
        let sum: f64 = classes.iter().map(probability).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{prediction}");
    }
}

/// Waits until `count` events were scored, and fails at once if a record was dead-lettered.
fn until_scored(http: &Http, count: usize) {
    until("the events are scored", SOON, || {
        assert!(http.metric("foretell_dead_letters_total") < 0.5, "{:?}", http.get("/metrics"));
        let scored = http.metric("foretell_predictions_total");
        (scored >= f64::from(u32::try_from(count).unwrap())).then_some(())
    });
}

fn stop(mut process: Process) {
    process.signal("TERM");
    assert!(process.end(SOON).success(), "{}", process.errors());
}

fn schema_file(folder: &Path, name: &str, schema: &Json) -> std::path::PathBuf {
    let path = folder.join(name);
    fs::write(&path, schema.to_string()).unwrap();
    path
}

/// Python writes with the newest schema of the subject, and with one that its serializer registers, with fewer fields in
/// another order. It writes the outcomes too, and reads predictions and labelled examples.
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
    let own_schema = json!({"type": "record", "name": "QuestionnaireEvent", "namespace": "foretell", "fields": [
        {"name": "education", "type": ["null", "string"], "default": null},
        {"name": "completed", "type": "boolean", "default": false},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
        {"name": "respondent_id", "type": "string"},
        {"name": "age", "type": ["null", "int"], "default": null},
        {"name": "event_id", "type": "string"},
    ]});
    let own_schema = schema_file(folder.path(), "own.avsc", &own_schema);
    let fewer = events(
        "fewer",
        40,
        |number| json!({"age": 30 + number, "education": null, "tags": ["a", "b"]}),
    );
    PYTHON.write(&topics.questionnaire_events, Some(&own_schema), &fewer);

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
    stop(process);
}

/// The worked example's event schema with other types: a wider number, an enum, and an array that is no question.
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

/// Java writes with an older schema than the reader schema: an int for a double, an enum with its symbols in another order
/// and in no union, a union in another order, fields that the reader schema lacks, and arrays and maps in several blocks,
/// each with its size.
#[test]
fn java_writes_and_reads_with_apache_avro() {
    let folder = tempfile::tempdir().unwrap();
    let reader_schema = schema_file(folder.path(), "reader.avsc", &evolved());
    let setting = format!("events.schema={}", reader_schema.display());
    let application = Application::new("java", &[&setting, "events.ignored=['history']"]);
    let topics = application.config().topics;
    let writer_schema = json!({"type": "record", "name": "QuestionnaireEvent", "namespace": "foretell", "fields": [
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
    let writer_schema = schema_file(folder.path(), "writer.avsc", &writer_schema);
    JAVA.register(&topics.questionnaire_events, &writer_schema);
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
    JAVA.write(&topics.questionnaire_events, Some(&writer_schema), &sent);
    until_scored(&http, sent.len());
    check(&JAVA.read(&topics.predictions), &sent, &["age", "gender", "education", "occupation"]);
    stop(process);
}

/// The example's event schema with a question of each other kind.
fn typed() -> Json {
    let mut schema: Json =
        serde_json::from_str(include_str!("../../schemas/questionnaire-event/v1.avsc")).unwrap();
    let question =
        |name: &str, kind: Json| json!({"name": name, "type": ["null", kind], "default": null});
    let logical = |kind: &str, logical: &str| json!({"type": kind, "logicalType": logical});
    let price = json!({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2});
    let plan = json!({"type": "enum", "name": "Plan", "symbols": ["FREE", "PAID"]});
    schema["fields"].as_array_mut().unwrap().extend([
        question("account", json!("long")),
        question("ratio", json!("float")),
        question("price", price),
        question("smoker", json!("boolean")),
        question("plan", plan),
        question("device", logical("string", "uuid")),
        question("born", logical("int", "date")),
        question("seen", logical("long", "timestamp-millis")),
        question("never", json!("double")),
    ]);
    schema
}

/// The cells of a CSV file without quotes, by its header and by the value of `key`.
fn rows(text: &str, key: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned));
    let header: Vec<String> = lines.next().unwrap().collect();
    let rows = lines.map(|cells| header.iter().cloned().zip(cells).collect());
    rows.map(|row: BTreeMap<String, String>| (row[key].clone(), row)).collect()
}

/// The types of columns in pandas.
const DTYPES: &[(&str, &str)] = &[
    ("age", "Int64"),
    ("workclass", "string"),
    ("account", "Int64"),
    ("ratio", "float64"),
    ("price", "float64"),
    ("smoker", "boolean"),
    ("plan", "string"),
    ("device", "string"),
    ("born", "datetime64[s]"),
    ("seen", "datetime64[ms, UTC]"),
    ("never", "float64"),
];

/// The type of a column, as pandas prints it.
fn dtype<'p>(printed: &'p str, name: &str) -> &'p str {
    let line = printed.lines().find(|line| line.split_whitespace().next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("{name} in {printed}"));
    line[name.len()..].trim()
}

/// The account of a respondent. From 2^53 on, two neighbouring numbers are the same 64-bit float.
fn account(number: i64) -> i64 {
    (1 << 53) + number
}

/// Writes twenty events with an answer of each kind.
fn post_typed(http: &Http) {
    for number in 0..20 {
        let event = json!({
            "event_id": format!("e{number}"), "respondent_id": format!("r{number}"), "completed": true,
            "age": 20 + number, "workclass": "Private", "account": account(number),
            "ratio": 0.5 + f64::from(i32::try_from(number).unwrap()), "price": 12.25,
            "smoker": number % 2 == 0, "plan": "PAID",
            "device": "123E4567-e89b-12d3-a456-426614174000",
            "born": "1990-05-17", "seen": "2026-11-28T17:05:30.250+01:00",
        });
        let (code, _) = http.post("/api/v1/events", &event.to_string(), None).unwrap();
        assert_eq!(code, 202, "{event}");
    }
}

/// pandas gets a typed column for each question, with every value as it was sent and <NA> for what was not answered.
#[test]
fn pandas_reads_predictions_into_typed_columns() {
    let folder = tempfile::tempdir().unwrap();
    let schema = schema_file(folder.path(), "typed.avsc", &typed());
    let setting = format!("events.schema={}", schema.display());
    let application = Application::new("pandas", &[&setting]);
    application.init();
    let mut process = application.instance("one");
    let http = process.http();
    http.ready();
    post_typed(&http);
    // Nothing but what is required.
    let empty = json!({"event_id": "none", "respondent_id": "none", "completed": true});
    assert_eq!(http.post("/api/v1/events", &empty.to_string(), None).unwrap().0, 202);
    until_scored(&http, 21);

    let topic = application.config().topics.predictions;
    let table = folder.path().join("answers.csv");
    let (brokers, registry) = (brokers(), registry());
    let arguments = [&brokers, &registry, topic.as_str(), table.to_str().unwrap()];
    let command = script("clients/data_frame.py", &arguments);
    let printed =
        Process::spawn(format!("data_frame.py (libraries: {SETUP})"), command).succeed(SOON);
    for (name, expected) in DTYPES {
        assert_eq!(dtype(&printed, name), *expected, "{name} in {printed}");
    }
    let (_, description) = printed.split_once("count").expect("a description");
    assert!(description.contains("mean"), "{printed}");

    let rows = rows(&fs::read_to_string(&table).unwrap(), "account");
    assert_eq!(rows.len(), 21);
    for number in 0..20 {
        let row = &rows[&account(number).to_string()];
        let expected = [
            ("age", (20 + number).to_string()),
            ("workclass", "Private".to_owned()),
            ("ratio", format!("{number}.5")),
            ("price", "12.25".to_owned()),
            ("smoker", if number % 2 == 0 { "True" } else { "False" }.to_owned()),
            ("plan", "PAID".to_owned()),
            ("device", "123e4567-e89b-12d3-a456-426614174000".to_owned()),
            ("born", "1990-05-17".to_owned()),
            ("seen", "2026-11-28 16:05:30.250+00:00".to_owned()),
            ("never", String::new()),
            ("education", String::new()),
        ];
        for (name, value) in expected {
            assert_eq!(row[name], value, "{name} in {row:?}");
        }
    }
    assert!(rows[""].values().all(String::is_empty), "{:?}", rows[""]);
    stop(process);
}

/// Starts an HTTPS proxy in front of the registry that accepts one `Authorization` header. Returns the setting of its URL,
/// and the process, which is killed when dropped.
fn authenticating_proxy(authorization: &str) -> (String, Process) {
    let (certificate, key) = (secure("broker.pem"), secure("broker.key"));
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let registry = registry();
    let arguments = [registry.as_str(), authorization, certificate, key];
    let command = script("clients/authenticating_proxy.py", &arguments);
    let proxy = Process::spawn("authenticating_proxy.py".to_owned(), command);
    let port = until("the proxy listens", SOON, || {
        proxy.output().lines().next().map(|line| line.trim().to_owned())
    });
    (format!("schema_registry.url=https://127.0.0.1:{port}"), proxy)
}

const PASSWORD: &str = "open sesame 4711";
const TOKEN: &str = "eyJhbGciOiJub25lIn0.4712";
const WRONG: &str = "sesame open 4713";

/// Asserts that the process printed none of the credentials.
fn assert_no_secret(process: &Process) {
    let basic = STANDARD.encode(format!("alice:{PASSWORD}"));
    for secret in [PASSWORD, TOKEN, WRONG, &basic] {
        let printed = process.output() + &process.errors();
        let line = printed.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a secret is printed");
    }
}

fn sets(settings: &[String]) -> Vec<&str> {
    settings.iter().flat_map(|setting| ["--set", setting]).collect()
}

#[test]
fn a_registry_is_used_with_a_password_or_a_token_and_refusals_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let basic = STANDARD.encode(format!("alice:{PASSWORD}"));
    let (by_password, _one) = authenticating_proxy(&format!("Basic {basic}"));
    let (by_token, _two) = authenticating_proxy(&format!("Bearer {TOKEN}"));
    let ca = format!("schema_registry.ca_file={}", secure("ca.pem").display());
    let application = Application::new("credentials", &[&ca]);
    let user = [
        by_password.clone(),
        "schema_registry.username=alice".to_owned(),
        format!("schema_registry.password={{ file = '{}' }}", password.display()),
    ];
    let verbose = ["--log", "trace"];

    // User name, and password from a file.
    let mut init = application.start(&[&["init"], &verbose[..], &sets(&user)].concat());
    assert!(init.end(SOON).success(), "{}", init.errors());
    let mut run = application.start(&[&["run"], &verbose[..], &sets(&user)].concat());
    run.http().ready();
    // Bearer token from the environment.
    let exported = format!("export FORETELL_SCHEMA_REGISTRY_BEARER_TOKEN='{TOKEN}'");
    let by_token = [by_token];
    let send = ["send", "--limit", "5", "--rate", "50", "--outcome-delay", "1s"];
    let send = [&send[..], &verbose[..], &sets(&by_token)].concat();
    let mut send = application.start_after(&exported, &send);
    assert!(send.end(SOON).success(), "{}", send.errors());
    assert!(send.output().contains("5 of 5 predictions came back"), "{}", send.output());
    let doctor = [&["doctor"], &verbose[..], &sets(&by_token)].concat();
    let mut doctor = application.start_after(&exported, &doctor);
    assert!(doctor.end(SOON).success(), "{}", doctor.output());
    run.signal("TERM");
    assert!(run.end(SOON).success(), "{}", run.errors());
    [&init, &run, &send, &doctor].into_iter().for_each(assert_no_secret);

    // Without the right credentials a command ends with one line that says why.
    let refused = |first: &str, command: &str, settings: &[String], expected: &[&str]| {
        let arguments = [&[command], &sets(settings)[..]].concat();
        let mut process = application.start_after(first, &arguments);
        let status = process.end(Duration::from_secs(30));
        let errors = process.errors();
        assert_eq!(status.code(), Some(1), "{errors}");
        assert!(errors.starts_with("error: ") && errors.lines().count() == 1, "{errors}");
        for text in expected {
            assert!(errors.contains(text), "{text:?} in {errors}");
        }
        assert_no_secret(&process);
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
    let other_ca = format!("schema_registry.ca_file={}", secure("client.pem").display());
    let untrusted = [&user[..], &[other_ca]].concat();
    refused(":", "run", &untrusted, &["certificate verify failed", "[schema_registry]", "ca_file"]);
    // The password's file does not exist.
    let missing = format!("schema_registry.password={{ file = '{}.gone' }}", password.display());
    let missing = [&user[..], &[missing]].concat();
    refused(":", "run", &missing, &["[schema_registry] password", "password.gone"]);
}
