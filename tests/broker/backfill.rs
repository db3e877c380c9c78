//! A backfill: events and outcomes that were written before the instance starts are joined by event time, whatever order
//! they were written in.

use foretell::{app::cluster::Cluster, config::Config, events::outcome::Outcome};
use foretell_streams::{
    record::{OutputRecord, Topic},
    time::EventTime,
};
use serde_json::json;

use crate::{
    application::Application,
    process::{SOON, until},
};

const EVENTS: i64 = 3_000;
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

/// [`EVENTS`] events spread over 30 days, each with an outcome an hour later.
struct Backfill {
    events: Vec<OutputRecord>,
    outcomes: Vec<OutputRecord>,
}

impl Backfill {
    fn new(config: &Config, cluster: &Cluster, now: i64) -> Self {
        let codecs = cluster.codecs(config).unwrap();
        let record = |topic: &Topic, respondent: String, value: Vec<u8>| OutputRecord {
            topic: topic.clone(),
            partition: None,
            // The time of writing, as most tools set it, not the event time.
            timestamp: EventTime(now),
            key: Some(respondent.into_bytes()),
            value: Some(value),
            headers: Vec::new(),
        };
        let (mut events, mut outcomes) = (Vec::new(), Vec::new());
        for index in 0..EVENTS {
            let respondent = format!("respondent-{index}");
            let time = now - 31 * DAY_MS + index * (30 * DAY_MS / EVENTS);
            let answers = json!({
                "respondent_id": respondent, "event_id": format!("event-{index}"),
                "completed": true, "event_time": time, "age": 20 + index % 50, "education": "Bachelors",
            });
            let event = config.event_schema.from_json(&answers, "", EventTime(time)).unwrap();
            let mut bytes = Vec::new();
            codecs.questionnaire.encode(&event, &mut bytes).unwrap();
            events.push(record(&config.topics.questionnaire_events, respondent.clone(), bytes));
            let outcome = Outcome {
                respondent_id: respondent.clone(),
                outcome_time: EventTime(time + HOUR_MS),
                label: if index % 4 == 0 { ">50K" } else { "<=50K" }.to_owned(),
                outcome_id: None,
            };
            let mut bytes = Vec::new();
            codecs.outcome.encode(&outcome, &mut bytes).unwrap();
            outcomes.push(record(&config.topics.outcomes, respondent, bytes));
        }
        Self { events, outcomes }
    }
}

fn check(name: &str, order: impl Fn(Backfill) -> Vec<OutputRecord>) {
    let application = Application::new(name, &["learning.retrain_after=1000000"]);
    application.init();
    let (config, clock) = (application.config(), foretell::app::clock());
    let cluster = Cluster::connect(&config, &clock).unwrap();
    let backfill = Backfill::new(&config, &cluster, clock.now().0);
    let mut publisher = cluster.broker.publish().unwrap();
    for record in order(backfill) {
        publisher.send(record).unwrap();
    }
    publisher.flush().unwrap();
    let mut process = application.instance("one");
    let http = process.http();
    http.ready();
    until("every outcome is joined or dead-lettered", SOON, || {
        let topics = application.topics();
        let done = topics.labelled.len() + topics.dead_letters;
        (done >= usize::try_from(EVENTS).unwrap()).then_some(())
    });
    // Read again: a topic that was read early may have missed records that another one already had.
    let topics = application.topics();
    assert_eq!(topics.dead_letters, 0, "{name}");
    assert_eq!(topics.labelled.len(), usize::try_from(EVENTS).unwrap(), "{name}");
    topics.check_exactly_once();
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
}

#[test]
fn a_backfill_of_events_then_outcomes_joins_completely() {
    check("backfill-events-first", |Backfill { events, outcomes }| [events, outcomes].concat());
}

#[test]
fn a_backfill_of_alternating_events_and_outcomes_joins_completely() {
    check("backfill-alternating", |Backfill { events, outcomes }| {
        events.into_iter().zip(outcomes).flat_map(|(event, outcome)| [event, outcome]).collect()
    });
}

#[test]
fn a_backfill_of_outcomes_then_events_joins_completely() {
    check("backfill-outcomes-first", |Backfill { events, outcomes }| [outcomes, events].concat());
}
