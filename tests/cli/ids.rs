//! Respondent and event ids that are numbers or UUIDs, by HTTP: an event and its outcome join, however the id is written.

use std::{fmt::Write as _, fs};

use serde_json::{Value as Json, json};

use crate::process::{Http, Process, SOON, at, until};

/// An embedded instance. `who` and `id` are the Avro types of the respondent id and the event id.
struct Instance {
    process: Process,
    http: Http,
    _folder: tempfile::TempDir,
}

impl Instance {
    fn start(who: &str, id: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let schema = format!(
            r#"{{"type":"record","name":"Visit","fields":[
            {{"name":"id","type":{id}}},{{"name":"who","type":{who}}},
            {{"name":"at","type":{{"type":"long","logicalType":"timestamp-millis"}}}},
            {{"name":"age","type":["null","double"],"default":null}},
            {{"name":"card","type":["null","long"],"default":null}},
            {{"name":"birth","type":["null",{{"type":"int","logicalType":"date"}}],"default":null}},
            {{"name":"visited_at","type":["null",{{"type":"long","logicalType":"timestamp-millis"}}],"default":null}}]}}"#
        );
        fs::write(folder.path().join("visit.avsc"), schema).unwrap();
        let mut table = "age,card,outcome\n".to_owned();
        for row in 0..200 {
            let label = if row % 2 == 0 { "FALSE" } else { "True" };
            writeln!(table, "{}.5,{row},{label}", row % 2 * 30 + row % 7).unwrap();
        }
        fs::write(folder.path().join("table.csv"), table).unwrap();
        let text = "[application]\nid = \"visits\"\n[topics]\npartitions = 3\n[events]\nschema = \"visit.avsc\"\n\
             event_id = \"id\"\nrespondent_id = \"who\"\nevent_time = \"at\"\n[scoring]\nwhen = \"every_event\"\n\
             [outcomes]\nlabels = [false, true]\nunlabelled = { label = false }\n[tuning]\ntrials = 1\n\
             iterations_max = 20\n[data.initial]\npath = \"table.csv\"\nlabel = \"outcome\"\n\
             [http]\nbind = \"127.0.0.1:0\"\n\
             [features.calendar]\nbirth = [\"year\", \"month\"]\nvisited_at = [\"weekday\", \"hour\"]\n";
        let config = folder.path().join("foretell.toml");
        fs::write(&config, text).unwrap();
        let mut process = Process::start(&["run", "--embedded", "-c", config.to_str().unwrap()]);
        let http = process.http();
        http.ready();
        Self { process, http, _folder: folder }
    }

    fn post(&self, path: &str, body: &Json, key: Option<&str>) -> (u16, Json) {
        let client = reqwest::blocking::Client::builder().timeout(SOON).build().unwrap();
        let request = client.post(format!("{}{path}", self.http.base)).json(body);
        let request =
            key.into_iter().fold(request, |request, key| request.header("Idempotency-Key", key));
        let answer = request.send().unwrap();
        (answer.status().as_u16(), answer.json().unwrap())
    }

    fn score(&self, event: &Json, key: Option<&str>) -> Json {
        let (status, body) = self.post("/api/v1/events?wait=true&timeout_ms=60000", event, key);
        assert_eq!(status, 200, "{event}: {body}");
        body
    }

    /// Sends an outcome, and waits until it is joined.
    fn join(&self, outcome: &Json) {
        let name = "foretell_outcomes_total{result=\"joined\"}";
        let before = self.http.metric(name);
        let (status, body) = self.post("/api/v1/outcomes", outcome, None);
        assert_eq!(status, 202, "{outcome}: {body}");
        until(&format!("{outcome} is joined"), SOON, || {
            (self.http.metric(name) > before).then_some(())
        });
    }

    fn assert_refused(&self, path: &str, body: &Json, class: &str, words: &str) {
        let (status, answer) = self.post(path, body, None);
        assert_eq!((status, at(&answer, "/class")), (422, &json!(class)), "{body}: {answer}");
        let error = at(&answer, "/detail").as_str().unwrap();
        assert!(error.contains(words), "{words:?} in {error:?}");
    }

    fn end(mut self) {
        self.process.signal("TERM");
        assert_eq!(self.process.end(SOON).code(), Some(0), "{}", self.process.errors());
    }
}

#[test]
fn a_numeric_id_is_the_same_respondent_in_every_notation() {
    let instance = Instance::start(r#""long""#, r#""long""#);
    let largest = i64::MAX.to_string();
    for (who, respondent, label) in [
        (json!(42), json!("0042"), json!("TRUE")),
        (json!("+43"), json!(43), json!(true)),
        (json!(" 44"), json!("44.0"), json!("False")),
        (json!(i64::MAX), json!(largest), json!(false)),
        (json!(9_007_199_254_740_993_i64), json!("9007199254740993"), json!(" true ")),
    ] {
        let scored = instance.score(&json!({"who": who, "age": "55.10"}), None);
        assert_eq!(*at(&scored, "/features/age"), 55.1, "the same as in a table");
        instance.join(&json!({"respondent_id": respondent, "label": label}));
    }
    for wrong in ["x", "1.5", "9223372036854775808"] {
        let outcome = json!({"respondent_id": wrong, "label": true});
        instance.assert_refused("/api/v1/outcomes", &outcome, "invalid_value", "`respondent_id`");
    }
    let (status, body) = instance.post("/api/v1/events", &json!({"who": 1, "age": "5,5"}), None);
    let error = at(&body, "/detail").as_str().unwrap();
    assert_eq!((status, error), (400, "field `age` is \"5,5\": it must be a number"));
    instance.end();
}

#[test]
fn events_get_uuids_if_event_ids_are_uuids() {
    let uuid = |name: &str| {
        format!(r#"{{"type":"fixed","size":16,"name":"{name}","logicalType":"uuid"}}"#)
    };
    let instance = Instance::start(&uuid("Who"), &uuid("Id"));
    let who = "0123abcd-4567-49ef-8123-456789abcdef";
    let event = json!({"who": who.to_uppercase(), "age": 30});
    let generated = at(&instance.score(&event, None), "/event_id").clone();
    assert_ne!(*at(&instance.score(&event, None), "/event_id"), generated, "another event");
    let named = instance.score(&event, Some("order 7"));
    assert_eq!(*at(&named, "/respondent_id"), who);
    let again = instance.score(&event, Some("order 7"));
    assert_eq!(at(&again, "/prediction_id"), at(&named, "/prediction_id"), "the same event");
    let many = json!([event, event]);
    let ids = |key| {
        let (status, body) = instance.post("/api/v1/events", &many, Some(key));
        assert_eq!(status, 202, "{body}");
        ["/results/0/event_id", "/results/1/event_id"].map(|path| at(&body, path).clone())
    };
    assert_eq!(ids("many"), ids("many"));
    let [first, second] = ids("many");
    assert_ne!(first, second);
    instance.join(&json!({"respondent_id": format!(" {}", who.to_uppercase()), "label": true}));
    instance.end();
}

#[test]
fn a_text_that_is_not_a_uuid_is_refused_if_ids_are_uuids() {
    let uuid = r#"{"type":"string","logicalType":"uuid"}"#;
    let instance = Instance::start(uuid, uuid);
    let who = "0123abcd-4567-49ef-8123-456789abcdef";
    for event in [json!({"who": "ann", "age": 1}), json!({"who": who, "id": "visit-1", "age": 1})] {
        instance.assert_refused("/api/v1/events", &event, "invalid_value", "it must be a UUID");
    }
    let outcome = json!({"respondent_id": "ann", "label": true});
    instance.assert_refused("/api/v1/outcomes", &outcome, "invalid_value", "it must be a UUID");
    instance.score(&json!({"who": who, "age": 1}), None);
    instance.join(&json!({"respondent_id": who.to_uppercase(), "label": true}));
    instance.end();
}
