//! Schemas change on a real cluster: registered on purpose, rolled out and back instance by instance while the model
//! retrains, read while the registry is away, and held to their levels by a real registry.

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

fn ours() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas"))
}

/// The worked example's event schema in a folder of its own, where it may evolve.
struct Versions(TempDir);

impl Versions {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["v1.avsc", "subject.toml"] {
            let from = ours().join("questionnaire-event").join(name);
            fs::copy(from, folder.path().join(name)).unwrap();
        }
        Self(folder)
    }

    fn setting(&self, version: &str) -> String {
        format!("events.schema={}", self.0.path().join(format!("{version}.avsc")).display())
    }

    /// A question more, and one under another name.
    fn evolve(&self, application: &Application) {
        let folder = self.0.path().to_str().unwrap();
        let added = ["--add", "device:string", "--doc", "device=What they hold in their hands."];
        let edits = [&["schema", "evolve", folder, "--rename", "gender=sex"], &added[..]].concat();
        let told = application.start(&edits).succeed(SOON);
        assert!(told.contains("upgraded in any order"), "{told}");
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
fn a_real_registry_holds_our_schemas_to_their_levels() {
    let registry = client(&registry());
    let run = tempfile::tempdir().unwrap();
    let run = run.path().file_name().unwrap().to_str().unwrap().to_owned();
    for history in schemas::histories(ours()).unwrap() {
        let subject = format!("{}{run}-value", history.name());
        for version in &history.versions {
            let may = registry.compatible(&subject, &version.text).unwrap();
            assert_eq!(may, Compatibility::Compatible, "{subject} {}", version.name());
            registry.register(&subject, &version.text).unwrap();
            registry.set_level(&subject, history.level).unwrap();
        }
        assert!(
            registry.set_level(&subject, history.level).unwrap(),
            "{subject}: it keeps a level"
        );
        let broken = with_another_type(&history);
        let refused = registry.register(&subject, &broken);
        assert!(refused.is_err(), "{subject} took {broken}");
    }
}

/// The newest version with its first field of a type that nothing can be read as.
fn with_another_type(history: &History) -> String {
    let mut schema: Json = serde_json::from_str(&history.newest().text).unwrap();
    schema["fields"][0]["type"] = json!({"type": "array", "items": "boolean"});
    schema.to_string()
}

#[test]
fn schemas_are_registered_on_purpose() {
    let versions = Versions::new();
    let application = Application::new("purpose", QUICK).with(&[versions.setting("v1")]);
    let check = |application: &Application, words: &[&str]| {
        let told = application.start(&["schema", "check"]).succeed(SOON);
        words.iter().for_each(|words| assert!(told.contains(words), "{words:?} in {told}"));
    };
    check(&application, &["warning", "not there yet", "run `foretell schema register`"]);
    let told = application.start(&["schema", "register"]).succeed(SOON);
    assert_eq!(told.matches("1 of them new; FULL_TRANSITIVE").count(), 6, "{told}");
    check(&application, &["ours is the newest there", "7 checks: 7 ok"]);

    versions.evolve(&application);
    let evolved = application.with(&[versions.setting("v2")]);
    check(&evolved, &["2 versions, the newest a draft", "ours may follow the newest there"]);
    let told = evolved.start(&["schema", "diff"]).succeed(SOON);
    assert!(told.contains("sex: renamed, it was gender"), "{told}");
    let told = evolved.start(&["schema", "register"]).succeed(SOON);
    assert_eq!(told.matches("0 of them new").count(), 5, "{told}");
    check(&evolved, &["2 versions, all released", "ours is the newest there"]);
    // The older one is still there, and an instance may go back to it.
    check(&application, &["ours is an older one there"]);
    let pinned = fs::read_to_string(versions.0.path().join("subject.toml")).unwrap();
    assert!(pinned.contains("v2 = "), "{pinned}");
}

#[test]
fn an_upgrade_rolls_out_and_back_while_the_model_retrains() {
    let versions = Versions::new();
    let old = Application::new("rolling", QUICK);
    let old = old.with(&[versions.setting("v1"), "learning.retrain_after=400".to_owned()]);
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
    // Both versions of the program, both versions of the events, and trainings on the way.
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
    let model = until("a model that has learned from both", SOON, || trained(&http));
    assert_no_contract_violated(&http);

    // And back.
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
    // Again, for a topic that was read before the last record was there has less.
    let topics = new.topics();
    topics.check_exactly_once();
    assert_eq!(topics.completed.len(), 2400);
    assert!(topics.versions.contains(model.as_str().unwrap()), "{:?}", topics.versions);
    stop(fourth);
    stop(fifth);
}

/// The version of a model that was trained on the stream.
fn trained(http: &Http) -> Option<Json> {
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
fn a_feature_that_is_gone_is_reported_by_readiness_and_metrics() {
    let versions = Versions::new();
    let old = Application::new("gone", QUICK).with(&[versions.setting("v1")]);
    old.init();
    let folder = versions.0.path().to_str().unwrap();
    let told = old.start(&["schema", "evolve", folder, "--remove", "age"]).succeed(SOON);
    assert!(told.contains("`features.contract` says what becomes of a model"), "{told}");
    let no_age = [versions.setting("v2"), "data.initial.path=/nowhere".to_owned()];
    let new = old.with(&no_age);
    new.start(&["schema", "register"]).succeed(SOON);
    for (policy, is_ready) in [("go_on", true), ("refuse", true), ("hold_back", false)] {
        let policy = format!("features.contract={{ policy = \"{policy}\" }}");
        let mut process = new.with(&[policy]).instance("one");
        let http = process.http();
        let event = json!({"respondent_id": "me", "completed": true}).to_string();
        until("its tasks run", SOON, || {
            let (code, _) = http.post("/api/v1/events", &event, None)?;
            (code == 202 && http.metric("foretell_feature_contract_violated") > 0.0).then_some(())
        });
        let ready = until("it says so", SOON, || {
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

/// Writes an event of `schema`'s bytes under another id.
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

/// Of [`ID_FIRST`]: "me", and an event of that name, long ago.
fn datum(event: &str) -> Vec<u8> {
    let length = u8::try_from(event.len() * 2).unwrap();
    [&[4, b'm', b'e', length], event.as_bytes(), &[0, 1]].concat()
}

#[test]
fn while_the_registry_is_away_what_is_known_goes_on_after_a_restart_too() {
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
        until("it is scored", SOON, || {
            (http.metric("foretell_predictions_total") >= count).then_some(())
        });
    };
    write(&application, other, &datum("a"));
    scored(&http, 1.0);
    gateway.go_away();
    stop(process);

    let mut process = application.instance("one");
    let http = process.http();
    http.ready();
    assert!(process.errors().contains("the schema registry is away"), "{}", process.errors());
    let direct = application.with(&[format!("schema_registry.url={}", registry())]);
    write(&direct, other, &datum("b"));
    scored(&http, 1.0);
    let sent = send(&direct, "50", "1").succeed(SOON);
    assert!(sent.contains("50 of 50"), "{sent}");
    // Somebody's schema that it has never seen has to wait, and is read when the registry is back.
    let unseen = ID_FIRST.replace(r#""default":true"#, r#""default":false"#);
    let unseen = client(&registry()).register(&format!("{events}-unseen"), &unseen).unwrap();
    write(&direct, unseen, &datum("c"));
    until("it says what it waits for", SOON, || {
        let workers = at(&http.status(), "/workers").to_string();
        workers.contains("schema registry is not available").then_some(())
    });
    gateway.come_back();
    scored(&http, 52.0);
    assert_eq!(direct.topics().dead_letters, 0);
    stop(process);
}

#[test]
fn an_id_that_the_registry_does_not_know_yet_is_waited_for_and_garbage_is_not_for_ever() {
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
    until("it is asked about more than once", SOON, || {
        (gateway.asked(&format!("/schemas/ids/{late}?")) > 1).then_some(())
    });
    assert!(http.metric("foretell_dead_letters_total") < 1.0, "it waits");
    gateway.hide(0);
    until("it is scored", SOON, || {
        (http.metric("foretell_predictions_total") >= 1.0).then_some(())
    });
    let event = json!({"respondent_id": "me", "completed": true}).to_string();
    write(&application, 2_000_000_000, &datum("never"));
    let (code, prediction) =
        http.post("/api/v1/events?wait=true&timeout_ms=60000", &event, None).unwrap();
    assert_eq!(code, 200, "what is behind it goes on: {prediction}");
    let (_, metrics) = http.get("/metrics").unwrap();
    let counted = r#"foretell_dead_letters_total{class="unknown_schema"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    stop(process);
}
