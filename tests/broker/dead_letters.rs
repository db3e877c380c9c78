//! `foretell dead-letters`: records that could not be processed return to their topics, each once, after the cause is mended.

use std::{collections::BTreeMap, ops::ControlFlow};

use foretell::app::cluster::Cluster;
use foretell_streams::{
    record::{Header, OutputRecord},
    time::EventTime,
};
use serde_json::{Value as Json, json};

use crate::{
    application::Application,
    process::{Http, SOON, at, until},
};

const EVENTS: u64 = 1_200;
const DAY_MS: i64 = 86_400_000;

fn print_json(application: &Application, arguments: &[&str]) -> Json {
    let printed = application.start(&[&["dead-letters"], arguments].concat()).succeed(SOON);
    serde_json::from_str(&printed).unwrap()
}

/// Writes events of three days ago, with a header.
fn write_old_events(application: &Application) {
    let (config, clock) = (application.config(), foretell::app::clock());
    let cluster = Cluster::connect(&config, &clock).unwrap();
    let codecs = cluster.codecs(&config).unwrap();
    let mut publisher = cluster.broker.publish().unwrap();
    let now = clock.now().0;
    for number in 0..EVENTS {
        let respondent = format!("respondent-{number}");
        let time = now - 3 * DAY_MS;
        let answers = json!({
            "respondent_id": respondent, "event_id": format!("event-{number}"), "completed": true,
            "event_time": time, "age": 20 + number % 50, "education": "Bachelors",
        });
        let event = config.event_schema.from_json(&answers, "", EventTime(time)).unwrap();
        let mut bytes = Vec::new();
        codecs.questionnaire.encode(&event, &mut bytes).unwrap();
        let header = Header { name: "trace".to_owned(), value: number.to_string().into_bytes() };
        let record = OutputRecord {
            topic: config.topics.questionnaire_events.clone(),
            partition: None,
            timestamp: EventTime(now),
            key: Some(respondent.into_bytes()),
            value: Some(bytes),
            headers: vec![header],
        };
        publisher.send(record).unwrap();
    }
    publisher.flush().unwrap();
}

/// How often each record is on the topic of events, by partition, key, value and headers.
fn written(application: &Application) -> BTreeMap<String, usize> {
    let config = application.config();
    let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
    let mut written = BTreeMap::new();
    let read = cluster.read_to_end(&config.topics.questionnaire_events, |record| {
        let partition = record.source.partition;
        let record =
            format!("{partition} {:?} {:?} {:?}", record.key, record.value, record.headers);
        *written.entry(record).or_default() += 1;
        Ok(ControlFlow::Continue(()))
    });
    read.unwrap();
    written
}

#[test]
fn dead_letters_return_once_after_the_cause_is_mended() {
    let application = Application::new("letters", &["learning.retrain_after=1000000"]);
    application.init();
    let strict = application.with(&["events.time_behind_max=1d".to_owned()]);
    let mut process = strict.instance("one");
    process.http().ready();
    write_old_events(&application);
    let listed = until("every event is a dead letter", SOON, || {
        let listed = print_json(&application, &["list", "--limit", "3", "--json"]);
        (listed["classes"]["past_time"]["letters"] == EVENTS).then_some(listed)
    });
    let newest = listed["letters"].as_array().unwrap();
    assert_eq!(newest.len(), 3);

    let id = at(&newest[0], "/id").as_str().unwrap();
    let shown = print_json(&application, &["show", id]);
    assert_eq!(shown["value"]["event_id"], format!("event-{}", number(&shown)));
    assert_eq!(shown["headers"], json!([["trace", number(&shown)]]));
    assert!(at(&shown, "/message").as_str().unwrap().contains("time"), "{shown}");

    // Which letters must be said.
    let mut unsaid = application.start(&["dead-letters", "replay"]);
    assert_eq!(unsaid.end(SOON).code(), Some(1));
    assert!(unsaid.errors().contains("--all"), "{}", unsaid.errors());
    let replay = ["replay", "--class", "past_time", "--json"];
    let rehearsed = print_json(&application, &[&replay[..], &["--dry-run"]].concat());
    assert_eq!(at(&rehearsed, "/replayed").as_object().unwrap().values().next().unwrap(), EVENTS);
    assert_eq!(rehearsed["dry_run"], true);
    assert!(written(&application).values().all(|times| *times == 1));

    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
    // Of several at the same time, the later ends the earlier; one is killed.
    let mut replays: Vec<_> =
        (0..3).map(|_| application.start(&[&["dead-letters"], &replay[..]].concat())).collect();
    until("one has begun", SOON, || {
        written(&application).values().any(|times| *times > 1).then_some(())
    });
    replays[2].signal("KILL");
    for replay in &mut replays {
        replay.end(SOON);
    }
    let last = print_json(&application, &replay);
    let of_last = at(&last, "/replayed").as_object().unwrap().values().next();
    let replayed = of_last.and_then(Json::as_u64).unwrap_or(0);
    assert_eq!(at(&last, "/before").as_u64().unwrap() + replayed, EVENTS, "{last}");
    let written = written(&application);
    assert_eq!(u64::try_from(written.len()).unwrap(), EVENTS, "a record came back changed");
    assert!(written.values().all(|times| *times == 2), "each came back once");

    let mut process = application.instance("one");
    let http = process.http();
    http.ready();
    until("every event is scored", SOON, || {
        let scored = application.topics().scored;
        (u64::try_from(scored.len()).unwrap() == EVENTS).then_some(())
    });
    assert!(application.topics().scored.values().all(|times| *times == 1));
    check_http(&http, id);
}

/// The same over HTTP, after everything was replayed.
fn check_http(http: &Http, id: &str) {
    let (status, body) = http.get("/api/v1/dead-letters?limit=1&class=past_time").unwrap();
    assert_eq!(status, 200, "{body}");
    let listed: Json = serde_json::from_str(&body).unwrap();
    assert_eq!(listed["classes"]["past_time"], json!({ "letters": EVENTS, "replayed": EVENTS }));
    assert_eq!(listed["dead_letters"][0]["replayed"], true);
    let (status, newest) = http.get("/api/v1/dead-letters?limit=5").unwrap();
    let newest: Json = serde_json::from_str(&newest).unwrap();
    assert_eq!(
        (status, newest["dead_letters"].as_array().map(Vec::len)),
        (200, Some(5)),
        "{newest}"
    );
    let (status, shown) = http.get(&format!("/api/v1/dead-letters/{id}")).unwrap();
    assert_eq!((status, shown.contains("\"replayed\":true")), (200, true), "{shown}");
    let (status, again) =
        http.post("/api/v1/dead-letters/replay", r#"{"all": true}"#, None).unwrap();
    assert_eq!((status, &again["before"]), (200, &json!(EVENTS)), "{again}");
    assert_eq!(again["replayed"], json!({}));
    let (status, _) = http.post("/api/v1/dead-letters/replay", "{}", None).unwrap();
    assert_eq!(status, 400);
}

/// The number of the event whose letter is shown.
fn number(shown: &Json) -> &str {
    at(shown, "/key").as_str().unwrap().trim_start_matches("respondent-")
}
