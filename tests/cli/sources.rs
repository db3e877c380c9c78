//! Events of one respondent on two topics, each with a schema of its own: `demo`, `run`, `replay`, `schema`, and what is refused.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value as Json, json};

use crate::{
    process::{Http, Process, SOON, at, quick_settings},
    two_sources::{self, OF_REGISTRATIONS, REGISTRATIONS},
};

/// The arguments of a command with a small first model.
fn arguments(folder: &Path, command: &[&str]) -> Vec<String> {
    let config = two_sources::write_to(folder);
    let mut settings = quick_settings(folder, 1_500);
    settings.push("tuning.iterations_max=40".to_owned());
    settings.push("learning.retrain_after=100".to_owned());
    let sets = settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]);
    let arguments = command.iter().map(|argument| (*argument).to_owned());
    arguments.chain(["-c".to_owned(), config]).chain(sets).collect()
}

fn start(arguments: &[String]) -> Process {
    Process::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The demo splits each row by source, and its checks are exact, whatever is scored.
#[test]
fn the_demo_plays_both_topics() {
    for when in ["complete", "{ answers = 5 }", "every_event", "session_end"] {
        play_both_topics(&format!("scoring.when={when}"));
    }
}

fn play_both_topics(setting: &str) {
    let folder = tempfile::tempdir().unwrap();
    let demo = ["demo", "--json", "--limit", "300", "--rate", "0", "--set", setting];
    let output = start(&arguments(folder.path(), &demo)).succeed(Duration::from_secs(300));
    let summary: Json = serde_json::from_str(&output).expect("one object, and nothing else");
    let checks = at(&summary, "/checks").as_array().unwrap();
    // A check that is not made has no result: the stream is too short for a second model.
    assert!(checks.iter().all(|check| check["ok"] != Json::Bool(false)), "{output}");
    for name in ["every event was predicted (missing 0)", "every outcome was joined"] {
        let check = checks.iter().find(|check| check["name"] == name).unwrap();
        assert_eq!(check["ok"], Json::Bool(true), "{name}: {output}");
    }
    let number = |key: &str| at(&summary, &format!("/{key}")).as_u64().unwrap();
    assert!(number("scored") >= 300 && number("joined") > 250, "{output}");
    // Each row is two events.
    assert!(number("events_sent") >= 2 * 300, "{output}");
    assert_eq!((number("predictions_missing"), number("predictions_doubled")), (0, 0), "{output}");
}

fn post(http: &Http, path: &str, body: &Json) -> (u16, Json) {
    http.post(path, &body.to_string(), None).unwrap()
}

#[test]
fn events_of_both_topics_are_written_over_http_and_become_one_prediction() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = start(&arguments(folder.path(), &["run", "--embedded"]));
    let http = process.http();
    http.ready();
    let registrations = format!("/api/v1/events?source={REGISTRATIONS}");
    let registered = json!({
        "respondent_id": "ann", "registration": 7, "registered_at": "2026-11-01T12:00:00Z",
        "age": 39, "gender": "Female", "workclass": "Private"
    });
    let (code, answer) = post(&http, &format!("{registrations}&wait=true"), &registered);
    assert_eq!(code, 202, "{answer}");
    assert_eq!(*at(&answer, "/event_id"), json!("7"));
    let missing = at(&answer, "/missing").as_array().unwrap();
    assert!(missing.contains(&json!("occupation")) && !missing.contains(&json!("age")), "{answer}");

    let answered = json!({
        "respondent_id": "ann", "event_id": "7", "event_time": "2026-11-01T12:10:00Z",
        "occupation": "Sales", "completed": true
    });
    let (code, prediction) = post(&http, "/api/v1/events?wait=true", &answered);
    assert_eq!(code, 200, "{prediction}");
    let feature = |name: &str| at(&prediction, &format!("/features/{name}")).clone();
    let features = ["age", "gender", "workclass", "occupation", "race"].map(feature);
    let expected = [json!(39), json!("Female"), json!("Private"), json!("Sales"), Json::Null];
    assert_eq!(features, expected, "{prediction}");

    // A companion may complete the questionnaire only if it has a flag, and has only its own fields.
    for (path, field) in [(registrations.as_str(), "occupation"), ("/api/v1/events", "age")] {
        let body = json!({"respondent_id": "bob", field: 3});
        let (code, answer) = post(&http, path, &body);
        assert_eq!(code, 400, "{answer}");
        let message = at(&answer, "/detail").as_str().unwrap();
        assert!(message.contains(&format!("there is no field `{field}`")), "{message}");
    }
    let (code, answer) = post(&http, "/api/v1/events?source=outcomes", &registered);
    assert_eq!(code, 400, "{answer}");
    let message = at(&answer, "/detail").as_str().unwrap();
    assert!(message.contains("there are questionnaire-events, registrations"), "{message}");
    let (code, results) = post(&http, &registrations, &json!([registered, {"age": 3}]));
    assert_eq!(code, 207, "{results}");

    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
}

#[test]
fn a_replay_plays_both_topics() {
    let folder = tempfile::tempdir().unwrap();
    let variants = folder.path().join("variants.toml");
    fs::write(&variants, "[variants.sooner]\n\"learning.retrain_after\" = 150\n").unwrap();
    let variants = variants.display().to_string();
    let replay = ["replay", "--json", "--table", "--limit", "400", "--variants", &variants];
    let arguments = arguments(folder.path(), &replay);
    let [one, other] = [(); 2].map(|()| start(&arguments).succeed(Duration::from_secs(300)));
    let report = |text: &str| -> Json {
        let mut report: Json = serde_json::from_str(text).expect("one object");
        for variant in report["variants"].as_array_mut().unwrap() {
            variant["seconds"] = Json::Null;
        }
        report["seconds"] = Json::Null;
        report
    };
    assert_eq!(report(&one)["variants"], report(&other)["variants"], "replays are repeatable");
    assert!(one.contains("400"), "{one}");
}

#[test]
fn the_schemas_of_every_topic_have_the_answers_of_both() {
    let folder = tempfile::tempdir().unwrap();
    let shown = |topic: &str| -> Json {
        let output = start(&arguments(folder.path(), &["schema", "show", topic])).succeed(SOON);
        serde_json::from_str(&output).unwrap()
    };
    assert_eq!(shown(REGISTRATIONS)["name"], "Registration");
    assert_eq!(shown("questionnaire-events")["name"], "Questionnaire");
    let predictions = shown("predictions");
    let fields = predictions["fields"].as_array().unwrap();
    let answers = fields.iter().find(|field| field["name"] == "answers").unwrap();
    let names: Vec<&str> = answers["type"]["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| field["name"].as_str().unwrap())
        .collect();
    // The lead's come first.
    assert_eq!(names.len(), 13);
    assert_eq!(names[0], "workclass");
    assert_eq!(names[9..], OF_REGISTRATIONS);
}

/// Runs a command with another companion, which must end with one line of these words.
fn refuse(companion: &str, schema: Option<&str>, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = two_sources::write_to(folder.path());
    let text = fs::read_to_string(&path).unwrap().replace(two_sources::COMPANION, companion);
    let line = text.lines().position(|line| line == "[[events.companions]]").unwrap() + 1;
    fs::write(&path, text).unwrap();
    if let Some(schema) = schema {
        fs::write(folder.path().join("registration.avsc"), schema).unwrap();
    }
    let mut process = Process::start(&["run", "-c", &path]);
    let code = process.end(SOON).code();
    let errors = process.errors();
    assert_eq!(code, Some(1), "{errors}");
    let last = errors.lines().last().unwrap_or_default();
    let place = format!("error: {path}:");
    let rest = last.strip_prefix(&place).unwrap_or_else(|| panic!("{place} is not in {last}"));
    let (found, _) = rest.split_once(':').unwrap();
    let found: usize = found.parse().unwrap();
    assert!(found >= line, "line {found} in {last}");
    for words in [&["[[events.companions]]"][..], words].concat() {
        assert!(last.contains(words), "{words:?} is not in {last}");
    }
}

#[test]
fn a_companion_that_does_not_fit_is_refused_with_its_place() {
    let good = two_sources::COMPANION;
    let topic = |name: &str| good.replace("\"registrations\"", &format!("{name:?}"));
    refuse(&topic("questionnaire-events"), None, &["topic: ", "the topic of [events] itself"]);
    refuse(&topic("outcomes"), None, &["topic: ", "outcomes is a topic of Foretell's"]);
    refuse(&topic("a b"), None, &["topic: ", "letters, digits"]);
    refuse(&topic(""), None, &["topic: ", "letters, digits"]);
    refuse(&topic("adult-scoring-outcomes-changelog"), None, &["topic: ", "a changelog"]);
    refuse(&format!("{good}{good}"), None, &["another companion has the same topic"]);
    let many: String = (0..9).map(|number| topic(&format!("t{number}"))).collect();
    refuse(&many, None, &["there are 9, and there can be 8"]);
    refuse(&good.replace("registration.avsc", "none.avsc"), None, &["schema", "cannot read"]);
    refuse(&good.replace("topic", "topik"), None, &["topik"]);

    let schema = |who: &str, more: &str| {
        format!(
            r#"{{"type":"record","name":"R","fields":[{{"name":"registration","type":"long"}},
            {{"name":"registered_at","type":"long"}},{{"name":"tags","type":"string"}},{who}{more}]}}"#
        )
    };
    let who = r#"{"name":"respondent_id","type":"string"}"#;
    let clash = schema(who, r#",{"name":"workclass","type":"int"}"#);
    let both =
        ["`workclass` is of type int", "of type string", "[events] schema", "ignored fields"];
    refuse(good, Some(&clash), &both);
    let nobody = schema(r#"{"name":"person","type":"string"}"#, r#",{"name":"age","type":"int"}"#);
    refuse(good, Some(&nobody), &["no field `respondent_id`", "respondent id", "person"]);
    let number =
        schema(r#"{"name":"respondent_id","type":"long"}"#, r#",{"name":"age","type":"int"}"#);
    refuse(good, Some(&number), &["`respondent_id` is a long", "is a string", "ids of one type"]);
    let metadata = schema(who, r#",{"name":"event_time","type":"int"}"#);
    refuse(good, Some(&metadata), &["`event_time` is called like a metadata field"]);
    refuse(good, Some(&schema(who, "")), &["has no questions"]);
    refuse(good, Some("{"), &["not a valid Avro schema"]);
}
