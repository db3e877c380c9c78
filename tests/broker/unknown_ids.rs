//! Records with schema ids that the registry does not know or refuses: they are dead-lettered, whatever the registry answers,
//! and the records behind them are processed, also after a restart.

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

/// Writes raw values to the events topic, all with the same key and so in one partition.
fn write_values(application: &Application, respondent: &str, records: &[&[u8]]) {
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

/// Sends a valid event of the same respondent, which is behind them in the partition, and checks that it is scored.
fn assert_predicted(http: &Http, respondent: &str) {
    let event = json!({"respondent_id": respondent, "completed": true, "age": 39}).to_string();
    let answer = http.post("/api/v1/events?wait=true&timeout_ms=60000", &event, None).unwrap();
    assert_eq!(answer.0, 200, "{}", answer.1);
}

/// Number of dead letters, by class.
fn dead_letters_by_class(application: &Application, topic: &Topic) -> BTreeMap<String, usize> {
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
fn records_with_unknown_schema_ids_do_not_block_a_partition() {
    let more = [
        "schema_registry.unknown_id_wait=2s",
        "broker.session_timeout=6s",
        "broker.transaction_timeout=5s",
    ];
    let application = Application::new("unknown-ids", &more);
    application.init();
    let dead_letters = application.config().topics.dead_letters;
    // 2^31 and 2^32 - 1, which registries refuse because ids are signed 32-bit integers; 2^31 - 1; and zero.
    let ids: [&[u8]; 4] = [
        &[0, 0x80, 0, 0, 0, 2, 2],
        &[0, 0xff, 0xff, 0xff, 0xff, 2, 2],
        &[0, 0x7f, 0xff, 0xff, 0xff, 2, 2],
        &[0, 0, 0, 0, 0, 2, 2],
    ];
    let (mut process, http) = ready(&application);
    write_values(&application, "me", &ids);
    assert_predicted(&http, "me");
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
    let by_class = || dead_letters_by_class(&application, &dead_letters);
    assert_eq!(by_class(), [("unknown_schema".to_owned(), 4)].into());

    // They are written before the start, and a restarted instance waits for their ids again.
    write_values(&application, "you", &ids);
    let (process, http) = ready(&application);
    assert_predicted(&http, "you");
    until("all of them are dead-lettered", SOON, || {
        (by_class()["unknown_schema"] == 8).then_some(())
    });
    assert!(!process.errors().contains("panicked"), "{}", process.errors());
}
