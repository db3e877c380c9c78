//! Schema evolution on a real cluster: explicit registration, a rolling upgrade and downgrade while the model retrains,
//! a registry outage, and compatibility levels as a real registry enforces them.

use std::{fs, path::Path};

use foretell::{
    app::{
        cluster::Cluster,
        schemas::{self, History},
    },
    events::topics::subject,
};
use foretell_avro::{
    framing,
    registry::{Compatibility, SchemaRegistry},
};
use foretell_streams::{record::OutputRecord, time::EventTime};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::{
    application::{Application, registry},
    gateway::Gateway,
    process::{Http, Process, SOON, at, until},
    registry::client,
};

const QUICK: &[&str] =
    &["broker.session_timeout=6s", "broker.transaction_timeout=5s", "tuning.iterations_max=60"];

fn schemas_folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas"))
}

/// A copy of the worked example's event schema in a temporary folder, where it may evolve.
struct SchemaFolder(TempDir);

impl SchemaFolder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["v1.avsc", "subject.toml"] {
            let from = schemas_folder().join("questionnaire-event").join(name);
            fs::copy(from, folder.path().join(name)).unwrap();
        }
        Self(folder)
    }

    /// The setting that makes `version` the event schema.
    fn setting(&self, version: &str) -> String {
        format!("events.schema={}", self.0.path().join(format!("{version}.avsc")).display())
    }

    /// Makes v2: adds a question and renames another.
    fn evolve(&self, application: &Application) {
        let folder = self.0.path().to_str().unwrap();
        let added = ["--add", "device:string", "--doc", "device=Phone, tablet or desktop."];
        let edits = [&["schema", "evolve", folder, "--rename", "gender=sex"], &added[..]].concat();
        let printed = application.start(&edits).succeed(SOON);
        assert!(printed.contains("upgraded in any order"), "{printed}");
    }
}

fn stop(mut process: Process) {
    process.signal("TERM");
    let status = process.end(SOON);
    assert_eq!(status.code(), Some(0), "{}", process.errors());
}

fn send(application: &Application, limit: &str, seed: &str) -> Process {
    let send = ["send", "--quiet", "--outcome-delay", "1s", "--rate", "300"];
    application.start(&[&send[..], &["--limit", limit, "--seed", seed]].concat())
}

#[test]
fn a_real_registry_accepts_every_version_and_refuses_an_incompatible_one() {
    let registry = client(&registry());
    let run = tempfile::tempdir().unwrap();
    let run = run.path().file_name().unwrap().to_str().unwrap().to_owned();
    for history in schemas::histories(schemas_folder()).unwrap() {
        let subject = format!("{}{run}-value", history.name());
        for version in &history.versions {
            let answer = registry.compatible(&subject, &version.text).unwrap();
            assert_eq!(answer, Compatibility::Compatible, "{subject} {}", version.name());
            registry.register(&subject, &version.text).unwrap();
            registry.set_level(&subject, history.level).unwrap();
        }
        assert!(
            registry.set_level(&subject, history.level).unwrap(),
            "{subject}: the level can be set again"
        );
        let incompatible = with_first_field_retyped(&history);
        let answer = registry.register(&subject, &incompatible);
        assert!(answer.is_err(), "{subject} accepted {incompatible}");
    }
}

/// The newest version with the type of its first field changed to one that is not compatible with any other.
fn with_first_field_retyped(history: &History) -> String {
    let mut schema: Json = serde_json::from_str(&history.newest().text).unwrap();
    schema["fields"][0]["type"] = json!({"type": "array", "items": "boolean"});
    schema.to_string()
}

#[test]
fn schemas_are_registered_by_a_command_only() {
    let versions = SchemaFolder::new();
    let application = Application::new("registered", QUICK).with(&[versions.setting("v1")]);
    let check = |application: &Application, expected: &[&str]| {
        let printed = application.start(&["schema", "check"]).succeed(SOON);
        for text in expected {
            assert!(printed.contains(text), "{text:?} in {printed}");
        }
    };
    check(
        &application,
        &["warning", "the registry has no such subject yet", "run `foretell schema register`"],
    );
    let printed = application.start(&["schema", "register"]).succeed(SOON);
    assert_eq!(printed.matches("1 of them new; FULL_TRANSITIVE").count(), 10, "{printed}");
    check(&application, &["the local schema is the newest version", "11 checks: 11 ok"]);

    versions.evolve(&application);
    let evolved = application.with(&[versions.setting("v2")]);
    check(
        &evolved,
        &[
            "2 versions, the newest a draft",
            "the local schema is not registered; it may follow the newest",
        ],
    );
    let printed = evolved.start(&["schema", "diff"]).succeed(SOON);
    assert!(printed.contains("sex: renamed, it was gender"), "{printed}");
    let printed = evolved.start(&["schema", "register"]).succeed(SOON);
    assert_eq!(
        printed.matches("1 of them new").count(),
        4,
        "events and what has answers: {printed}"
    );
    assert_eq!(printed.matches("0 of them new").count(), 6, "{printed}");
    check(&evolved, &["2 versions, all released", "the local schema is the newest version"]);
    // The older version stays registered, so an instance may be downgraded to it.
    check(&application, &["the local schema is an older version"]);
    let released = fs::read_to_string(versions.0.path().join("subject.toml")).unwrap();
    assert!(released.contains("v2 = "), "{released}");
}

#[test]
fn a_rolling_upgrade_and_downgrade_lose_nothing_while_the_model_retrains() {
    let versions = SchemaFolder::new();
    let old = Application::new("rolling", QUICK);
    let learning = ["learning.retrain_after=400", "learning.judge.policy=always"];
    let old = old.with(&[versions.setting("v1")]).with(&learning.map(str::to_owned));
    old.init();
    let mut first = old.instance("one");
    first.http().ready();
    let sent = send(&old, "300", "1").succeed(SOON);
    assert!(sent.contains("300 of 300 predictions came back"), "{sent}");

    versions.evolve(&old);
    let new = old.with(&[versions.setting("v2")]);
    new.start(&["schema", "register"]).succeed(SOON);
    let mut second = new.instance("two");
    let http = second.http();
    http.ready();
    // Instances with either schema process events of either schema, and models are trained meanwhile.
    let (mut from_old, mut from_new) = (send(&old, "700", "2"), send(&new, "700", "3"));
    for sending in [&mut from_old, &mut from_new] {
        assert!(sending.end(SOON).success(), "{}{}", sending.output(), sending.errors());
        assert!(sending.output().contains("700 of 700"), "{}", sending.output());
    }
    stop(first);
    let mut third = new.instance("one");
    third.http().ready();
    let sent = send(&new, "300", "4").succeed(SOON);
    assert!(sent.contains("300 of 300"), "{sent}");
    let model = until("a model trained on the stream", SOON, || retrained_version(&http));
    assert_no_contract_violated(&http);

    // The downgrade.
    stop(second);
    let mut fourth = old.instance("two");
    fourth.http().ready();
    let sent = send(&old, "300", "5").succeed(SOON);
    assert!(sent.contains("300 of 300"), "{sent}");
    stop(third);
    let mut fifth = old.instance("one");
    let http = fifth.http();
    http.ready();
    let sent = send(&old, "100", "6").succeed(SOON);
    assert!(sent.contains("100 of 100"), "{sent}");

    until("every outcome joined", SOON, || {
        let topics = new.topics();
        (topics.labelled.len() == topics.outcomes.len()).then_some(())
    });
    // Read again: a topic that was read early may have missed records that another one already had.
    let topics = new.topics();
    topics.check_exactly_once();
    assert_eq!(topics.completed.len(), 2400);
    assert!(topics.versions.contains(model.as_str().unwrap()), "{:?}", topics.versions);
    stop(fourth);
    stop(fifth);
}

/// The version of the serving model, if it was trained on the stream.
fn retrained_version(http: &Http) -> Option<Json> {
    let status = http.status();
    let model = at(&status, "/model");
    (*at(model, "/training") != json!(0)).then(|| at(model, "/version").clone())
}

fn assert_no_contract_violated(http: &Http) {
    let (_, ready) = http.get("/readyz").unwrap();
    let ready: Json = serde_json::from_str(&ready).unwrap();
    assert_eq!(*at(&ready, "/contract"), json!([]));
}

#[test]
fn a_removed_feature_is_reported_by_readiness_and_metrics() {
    let versions = SchemaFolder::new();
    let old = Application::new("gone", QUICK).with(&[versions.setting("v1")]);
    old.init();
    let folder = versions.0.path().to_str().unwrap();
    let printed = old.start(&["schema", "evolve", folder, "--remove", "age"]).succeed(SOON);
    assert!(printed.contains("`features.contract` decides about a model"), "{printed}");
    let no_age = [versions.setting("v2"), "data.initial.path=/nowhere".to_owned()];
    let new = old.with(&no_age);
    new.start(&["schema", "register"]).succeed(SOON);
    for (policy, is_ready) in [("go_on", true), ("refuse", true), ("hold_back", false)] {
        let policy = format!("features.contract={{ policy = \"{policy}\" }}");
        let mut process = new.with(&[policy]).instance("one");
        let http = process.http();
        let event = json!({"respondent_id": "me", "completed": true}).to_string();
        until("the contract is violated", SOON, || {
            let (code, _) = http.post("/api/v1/events", &event, None)?;
            (code == 202 && http.metric("foretell_feature_contract_violated") > 0.0).then_some(())
        });
        let ready = until("readiness follows the policy", SOON, || {
            let (code, ready) = http.get("/readyz")?;
            let ready: Json = serde_json::from_str(&ready).ok()?;
            ((code == 200) == is_ready).then_some(ready)
        });
        assert_eq!(*at(&ready, "/contract"), json!([{"feature": "age", "problem": "gone"}]));
        assert!(process.errors().contains("a feature violates the feature contract"));
        process.signal("TERM");
        assert!(process.end(SOON).success(), "{}", process.errors());
    }
}

/// Writes an event whose value is the Avro `datum` under schema id `id`.
fn write(application: &Application, id: u32, datum: &[u8]) {
    let config = application.config();
    let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
    let mut bytes = Vec::new();
    framing::frame(id, &mut bytes);
    bytes.extend_from_slice(datum);
    let mut publisher = cluster.broker.publish().unwrap();
    publisher
        .send(OutputRecord {
            topic: config.topics.questionnaire_events.clone(),
            partition: None,
            timestamp: EventTime(foretell::app::clock().now().0),
            key: Some(b"me".to_vec()),
            value: Some(bytes),
            headers: Vec::new(),
        })
        .unwrap();
    publisher.flush().unwrap();
}

const ID_FIRST: &str = r#"{"type":"record","name":"QuestionnaireEvent","namespace":"foretell","fields":[
    {"name":"respondent_id","type":"string"},{"name":"event_id","type":"string"},
    {"name":"event_time","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"completed","type":"boolean","default":true}]}"#;

/// A datum of [`ID_FIRST`]: respondent "me", the given event id, event time 0, completed.
fn datum(event: &str) -> Vec<u8> {
    let length = u8::try_from(event.len() * 2).unwrap();
    [&[4, b'm', b'e', length], event.as_bytes(), &[0, 1]].concat()
}

#[test]
fn known_schemas_are_read_during_a_registry_outage_after_a_restart_too() {
    let gateway = Gateway::open();
    let folder = tempfile::tempdir().unwrap();
    let application = Application::new("away", QUICK).with(&[
        format!("schema_registry.url={}", gateway.url()),
        format!("schema_registry.cache_dir={}", folder.path().display()),
        "schema_registry.timeout=2s".to_owned(),
    ]);
    application.init();
    let events = subject(&application.config().topics.questionnaire_events);
    let other = client(&registry()).register(&format!("{events}-other"), ID_FIRST).unwrap();
    let mut process = application.instance("one");
    let http = process.http();
    http.ready();
    let scored = |http: &Http, count: f64| {
        until("the event is scored", SOON, || {
            (http.metric("foretell_predictions_total") >= count).then_some(())
        });
    };
    write(&application, other, &datum("a"));
    scored(&http, 1.0);
    gateway.begin_outage();
    stop(process);

    let mut process = application.instance("one");
    let http = process.http();
    http.ready();
    assert!(
        process.errors().contains("the schema registry does not answer"),
        "{}",
        process.errors()
    );
    let direct = application.with(&[format!("schema_registry.url={}", registry())]);
    write(&direct, other, &datum("b"));
    scored(&http, 1.0);
    let sent = send(&direct, "50", "1").succeed(SOON);
    assert!(sent.contains("50 of 50"), "{sent}");
    // An event with a schema that is not cached waits until the outage ends.
    let unseen = ID_FIRST.replace(r#""default":true"#, r#""default":false"#);
    let unseen = client(&registry()).register(&format!("{events}-unseen"), &unseen).unwrap();
    write(&direct, unseen, &datum("c"));
    until("the status names the reason of the wait", SOON, || {
        let workers = at(&http.status(), "/workers").to_string();
        workers.contains("schema registry is not available").then_some(())
    });
    gateway.end_outage();
    scored(&http, 52.0);
    assert_eq!(direct.topics().dead_letters, 0);
    stop(process);
}

/// An event over HTTP; `expected` is the code of the response.
fn post(http: &Http, path: &str, body: &Json, expected: u16) -> Json {
    let (code, response) = http.post(path, &body.to_string(), None).unwrap();
    assert_eq!(code, expected, "{response}");
    response
}

/// A prediction that waits was written with the schema of an earlier configuration. Its outcome waits while the registry is
/// away, and becomes a dead letter if the registry has lost that schema.
#[test]
fn a_waiting_prediction_is_resolved_through_the_registry() {
    let gateway = Gateway::open();
    let versions = SchemaFolder::new();
    let cache = tempfile::tempdir().unwrap();
    let old = Application::new("waiting", QUICK).with(&[
        versions.setting("v1"),
        format!("schema_registry.url={}", gateway.url()),
        format!("schema_registry.cache_dir={}", cache.path().display()),
        "schema_registry.timeout=2s".to_owned(),
        "schema_registry.unknown_id_wait=1s".to_owned(),
    ]);
    old.init();
    let mut first = old.instance("one");
    let http = first.http();
    http.ready();
    let wait = "/api/v1/events?wait=true&timeout_ms=60000";
    for who in ["ann", "bob"] {
        post(&http, wait, &json!({"respondent_id": who, "age": 39, "completed": true}), 200);
    }
    stop(first);
    let predictions = subject(&old.config().topics.predictions);
    let (id, _) = client(&registry()).latest(&predictions).unwrap().unwrap();

    versions.evolve(&old);
    let new = old.with(&[versions.setting("v2")]);
    new.start(&["schema", "register"]).succeed(SOON);
    let mut second = new.instance("one");
    let http = second.http();
    http.ready();
    // The schema is lost.
    gateway.hide(id);
    let outcome = |who: &str| json!({"respondent_id": who, "label": ">50K"});
    post(&http, "/api/v1/outcomes", &outcome("ann"), 202);
    let counted = r#"foretell_dead_letters_total{class="unknown_schema"} 1"#;
    until("the outcome is dead-lettered", SOON, || {
        let (_, metrics) = http.get("/metrics")?;
        metrics.contains(counted).then_some(())
    });
    stop(second);
    gateway.hide(0);
    let mut third = new.instance("one");
    let http = third.http();
    http.ready();
    // The registry is away.
    gateway.begin_outage();
    post(&http, "/api/v1/outcomes", &outcome("bob"), 202);
    until("the status names the reason of the wait", SOON, || {
        let workers = at(&http.status(), "/workers").to_string();
        workers.contains("schema registry is not available").then_some(())
    });
    gateway.end_outage();
    until("the outcome is joined", SOON, || {
        let (_, metrics) = http.get("/metrics")?;
        metrics.contains("foretell_outcomes_total{result=\"joined\"} 1\n").then_some(())
    });
    let topics = new.topics();
    assert_eq!((topics.labelled.len(), topics.dead_letters), (1, 1), "{topics:?}");
    stop(third);
}

/// Under the level BACKWARD, the registry accepts events whose age is a double; predictions have it as a long.
#[test]
fn a_change_that_predictions_refuse_registers_nothing() {
    let versions = SchemaFolder::new();
    let folder = versions.0.path();
    let text = fs::read_to_string(folder.join("v1.avsc")).unwrap();
    fs::write(folder.join("subject.toml"), "compatibility = \"BACKWARD\"\n").unwrap();
    let old = Application::new("kinds", QUICK).with(&[versions.setting("v1")]);
    old.start(&["schema", "register"]).succeed(SOON);
    let (before, after) = (
        r#""name": "age", "type": ["null", "int"]"#,
        r#""name": "age", "type": ["null", "double"]"#,
    );
    assert!(text.contains(before), "{text}");
    // A file outside the folder of the subject has no level of its own, so nothing but the registry knows the older version.
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("event.avsc");
    fs::write(&path, text.replace(before, after)).unwrap();
    let new = old.with(&[format!("events.schema={}", path.display())]);
    let topics = &old.config().topics;
    let registry = client(&registry());
    let count = || {
        let answered = [&topics.predictions, &topics.actions, &topics.labelled_examples];
        let topics = [&topics.questionnaire_events].into_iter().chain(answered);
        let versions = topics.map(|topic| registry.versions(&subject(topic)).unwrap().len());
        versions.collect::<Vec<_>>()
    };
    assert_eq!(count(), [1, 1, 1, 1]);
    let changed = fs::read_to_string(&path).unwrap();
    let accepted = registry.compatible(&subject(&topics.questionnaire_events), &changed);
    assert_eq!(accepted, Ok(Compatibility::Compatible));
    for command in [&["schema", "register"][..], &["init"]] {
        let mut process = new.start(command);
        assert_eq!(process.end(SOON).code(), Some(1), "{}", process.output());
        let errors = process.errors();
        for words in ["nothing was registered", "the answers to age have type long", "another name"]
        {
            assert!(errors.contains(words), "{words:?} in {errors}");
        }
    }
    assert_eq!(count(), [1, 1, 1, 1], "nothing was registered");
    let mut check = new.start(&["schema", "check"]);
    assert_eq!(check.end(SOON).code(), Some(1));
    let printed = check.output();
    assert_eq!(printed.matches("the answers to age have type long").count(), 3, "{printed}");
}

#[test]
fn an_unknown_schema_id_is_retried_for_a_bounded_time() {
    let gateway = Gateway::open();
    let application = Application::new("late", QUICK).with(&[
        format!("schema_registry.url={}", gateway.url()),
        "schema_registry.unknown_id_wait=15s".to_owned(),
    ]);
    application.init();
    let mut process = application.instance("one");
    let http = process.http();
    http.ready();
    let events = subject(&application.config().topics.questionnaire_events);
    let late = client(&registry()).register(&format!("{events}-late"), ID_FIRST).unwrap();
    gateway.hide(late);
    write(&application, late, &datum("late"));
    until("the id is requested more than once", SOON, || {
        (gateway.requests_with(&format!("/schemas/ids/{late}?")) > 1).then_some(())
    });
    assert!(http.metric("foretell_dead_letters_total") < 1.0, "the record waits");
    gateway.hide(0);
    until("the event is scored", SOON, || {
        (http.metric("foretell_predictions_total") >= 1.0).then_some(())
    });
    let event = json!({"respondent_id": "me", "completed": true}).to_string();
    write(&application, 2_000_000_000, &datum("never"));
    let (code, prediction) =
        http.post("/api/v1/events?wait=true&timeout_ms=60000", &event, None).unwrap();
    assert_eq!(code, 200, "the records behind it are processed: {prediction}");
    let (_, metrics) = http.get("/metrics").unwrap();
    let counted = r#"foretell_dead_letters_total{class="unknown_schema"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    stop(process);
}
