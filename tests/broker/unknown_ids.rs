//! Ids of schemas that no registry has, garbage among them: their records become dead letters, whatever the registry says of
//! them, and what comes behind them is processed, also after a restart.

use foretell::app::cluster::Cluster;
use foretell_streams::{
    record::{OutputRecord, Topic},
    time::{Clock, EventTime, SystemClock},
};
use serde_json::json;
use std::{collections::BTreeMap, ops::ControlFlow};

use crate::{
    application::Application,
    process::{Http, SOON, until},
    stores::ready,
};

/// Such records, in one partition.
fn garbage(application: &Application, respondent: &str, records: &[&[u8]]) {
    let config = application.config();
    let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
    let mut publisher = cluster.broker.publish().unwrap();
    for record in records {
        let record = OutputRecord {
            topic: config.topics.questionnaire_events.clone(),
            partition: None,
            timestamp: EventTime(SystemClock::new().now().0),
            key: Some(respondent.as_bytes().to_vec()),
            value: Some(record.to_vec()),
            headers: Vec::new(),
        };
        publisher.send(record).unwrap();
    }
    publisher.flush().unwrap();
}

/// A healthy event of the same respondent, so that it comes behind.
fn is_predicted(http: &Http, respondent: &str) {
    let event = json!({"respondent_id": respondent, "completed": true, "age": 39}).to_string();
    let answer = http.post("/api/v1/events?wait=true&timeout_ms=60000", &event, None).unwrap();
    assert_eq!(answer.0, 200, "{}", answer.1);
}

/// How many dead letters there are of each class.
fn classes(application: &Application, topic: &Topic) -> BTreeMap<String, usize> {
    let config = application.config();
    let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
    let mut classes = BTreeMap::new();
    let read = cluster.read_to_end(topic, |record| {
        let class = record.headers.iter().find(|header| header.name == "foretell.error.class");
        let class = String::from_utf8_lossy(&class.unwrap().value).into_owned();
        *classes.entry(class).or_default() += 1;
        Ok(ControlFlow::Continue(()))
    });
    read.unwrap();
    classes
}

#[test]
fn an_id_that_the_registry_refuses_stops_nothing() {
    let more = [
        "schema_registry.unknown_id_wait=2s",
        "broker.session_timeout=6s",
        "broker.transaction_timeout=5s",
    ];
    let application = Application::new("unknown-ids", &more);
    application.init();
    let dead_letters = application.config().topics.dead_letters;
    // 2^31, the largest there is, one that fits, and zero.
    let ids: [&[u8]; 4] = [
        &[0, 0x80, 0, 0, 0, 2, 2],
        &[0, 0xff, 0xff, 0xff, 0xff, 2, 2],
        &[0, 0x7f, 0xff, 0xff, 0xff, 2, 2],
        &[0, 0, 0, 0, 0, 2, 2],
    ];
    let (mut process, http) = ready(&application);
    garbage(&application, "me", &ids);
    is_predicted(&http, "me");
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
    assert_eq!(classes(&application, &dead_letters), [("unknown_schema".to_owned(), 4)].into());

    // They are there before it starts, and the wait begins again.
    garbage(&application, "you", &ids);
    let (process, http) = ready(&application);
    is_predicted(&http, "you");
    until("all of them are dead-lettered", SOON, || {
        (classes(&application, &dead_letters)["unknown_schema"] == 8).then_some(())
    });
    assert!(!process.errors().contains("panicked"), "{}", process.errors());
}
