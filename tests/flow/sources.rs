//! Events of one respondent from two topics, each with a schema of its own: visits, which are the lead, and orders.

use std::{fs, time::Duration};

use foretell::{
    events::{
        prediction::ScoreTrigger,
        questionnaire::{EventSource, WITHDRAWN_HEADER},
    },
    processors::{
        contract::ContractPolicy,
        gather::{ScoreWhen, StoredSession},
    },
};
use foretell_ml::{ColumnKind, Origin};
use foretell_streams::{
    codec::Codec as _,
    record::{Header, OutputRecord, Topic},
    time::EventTime,
};
use serde_json::{Value as Json, json};

use crate::{
    fixture::{Fixture, NOW, model_of},
    formats::{changelog_lines, golden, leave, left},
    scored::{GAP, Operation, Scored, Settings, default_topology, topology_of},
};

fn scored(when: ScoreWhen) -> Scored {
    Scored::new(&Settings { when, ..two_sources() })
}

fn two_sources() -> Settings {
    Settings { two_sources: true, ..Settings::default() }
}

/// Advances stream time by events that stay open.
fn time_is(at: i64) -> Operation {
    order("another-respondent", at, json!({"minutes": 1.0}))
}

fn visit(who: &'static str, at: i64, fields: Json) -> Operation {
    Operation::Event(who, at, fields)
}

fn order(who: &'static str, at: i64, fields: Json) -> Operation {
    Operation::Order(who, at, fields)
}

/// Asserts what the operations put out; the answers are visits, plan and minutes.
fn check(when: ScoreWhen, operations: &[Operation], expected: &[&str]) {
    let mut scored = scored(when);
    operations.iter().for_each(|operation| scored.apply(operation));
    assert_eq!(scored.outputs(), expected);
}

#[test]
fn the_topology_reads_both_topics_into_one_observation() {
    let drawn = topology_of(&two_sources()).describe();
    let alone = default_topology().describe();
    let more = "source orders (topic shop.orders)\n  orders --> gather\n";
    assert!(drawn.contains(more), "{drawn}");
    assert_eq!(drawn.replace(more, ""), alone, "nothing else changes");
    let topology = topology_of(&two_sources());
    assert_eq!(topology.lead().as_str(), "shop.questionnaire-events");
    assert!(topology.co_partitioned().contains(&Topic::new("shop.orders")));
}

#[test]
fn answers_of_both_sources_become_one_observation_in_either_order() {
    let (a_visit, an_order) = (
        visit("ann", 10, json!({"visits": 3, "plan": "gold"})),
        order("ann", 20, json!({"minutes": 1.5})),
    );
    let expected = ["scored ann@20 3 gold 1.5"];
    check(ScoreWhen::Complete, &[a_visit.clone(), an_order.clone()], &expected);
    check(ScoreWhen::Complete, &[an_order, a_visit], &expected);
}

#[test]
fn of_an_answer_that_both_have_the_later_event_time_counts() {
    let plan = |at, plan: &str| order("ann", at, json!({"plan": plan}));
    let visit = visit("ann", 10, json!({"visits": 3, "plan": "gold"}));
    let done = order("ann", 30, json!({"minutes": 1.0}));
    let later = [visit.clone(), plan(11, "team"), done.clone()];
    check(ScoreWhen::Complete, &later, &["scored ann@30 3 team 1"]);
    let earlier = [visit, plan(9, "team"), done];
    check(ScoreWhen::Complete, &earlier, &["scored ann@30 3 gold 1"]);
}

#[test]
fn either_source_completes_the_questionnaire() {
    let started = visit("ann", 10, json!({"visits": 3}));
    let closed = order("ann", 20, json!({"closed": true, "minutes": 2.0}));
    check(ScoreWhen::Complete, &[started.clone(), closed], &["scored ann@20 3 - 2"]);
    let done = visit("ann", 20, json!({"done": true}));
    let ordered = order("ann", 10, json!({"plan": "team"}));
    check(ScoreWhen::Complete, &[ordered.clone(), done], &["scored ann@20 - team -"]);
    // A questionnaire in one event of the companion.
    let alone = order("bob", 5, json!({"closed": true}));
    check(ScoreWhen::Complete, &[alone], &["scored bob@5 - - -"]);
    // The conditions hold over both.
    check(ScoreWhen::Answers(2), &[started, ordered], &["scored ann@10 3 team -"]);
}

#[test]
fn equal_ids_in_two_sources_are_two_events_and_a_repeat_is_recognised_in_each() {
    let (visit, order) = (
        visit("ann", 10, json!({"id": "1", "visits": 3})),
        order("ann", 10, json!({"number": "1", "minutes": 1.0})),
    );
    let mut scored = scored(ScoreWhen::EveryEvent);
    for operation in [&visit, &order, &visit, &order] {
        scored.apply(operation);
    }
    let predictions = scored.predictions();
    assert_eq!(predictions.len(), 2);
    assert_ne!(predictions[0].prediction_id, predictions[1].prediction_id);
    assert_eq!([&predictions[0].event_id, &predictions[1].event_id], ["1", "1"]);
    assert_eq!(scored.counter("foretell_duplicate_events_total", None), 2);
    // The lead's ids do not depend on whether there are companions.
    let mut alone = Scored::new(&Settings { when: ScoreWhen::EveryEvent, ..Settings::default() });
    alone.apply(&visit);
    assert_eq!(alone.predictions()[0].prediction_id, predictions[0].prediction_id);
}

fn pipe(scored: &mut Scored, topic: &Topic, value: Vec<u8>, withdrawn: &str) {
    let header = Header { name: WITHDRAWN_HEADER.to_owned(), value: withdrawn.as_bytes().to_vec() };
    let record = OutputRecord {
        topic: topic.clone(),
        partition: None,
        timestamp: EventTime(NOW.0 - 5),
        key: Some(b"ann".to_vec()),
        value: Some(value),
        headers: vec![header],
    };
    scored.driver.pipe_record(record).unwrap();
}

#[test]
fn a_source_withdraws_only_answers_that_it_has() {
    let mut scored = scored(ScoreWhen::EveryEvent);
    scored.apply(&visit("ann", 10, json!({"visits": 3})));
    scored.apply(&order("ann", 11, json!({"minutes": 1.0})));
    let orders = scored.fixture.topics.companions[0].clone();
    let value = scored.order("ann", 12, &json!({"number": "w"}));
    pipe(&mut scored, &orders, value, "visits, plan, minutes");
    let visits = scored.fixture.topics.questionnaire_events.clone();
    scored.apply(&order("ann", 13, json!({"minutes": 2.0})));
    let value = scored.event("ann", 14, &json!({"id": "w"}));
    pipe(&mut scored, &visits, value, "minutes,visits");
    let outputs = scored.outputs();
    assert_eq!(
        outputs[2..],
        ["scored ann@12 3 - -", "scored ann@13 3 - 2", "scored ann@14 - - 2"],
        "the order has no visits, and the visit no minutes"
    );
}

#[test]
fn bad_records_of_a_companion_are_dead_lettered_from_its_topic() {
    let mut scored = scored(ScoreWhen::Complete);
    let topics = scored.fixture.topics.clone();
    let orders = topics.companions[0].clone();
    // A record of the lead is no order: no field of its schema names the customer.
    let misdirected = scored.event("ann", 1, &json!({"visits": 1}));
    for (value, class) in [
        (Some(b"garbage".to_vec()), "framing"),
        (None, "tombstone"),
        (Some(misdirected), "incompatible_schema"),
    ] {
        scored.apply(&Operation::Raw(orders.clone(), "ann", value));
        let outputs = scored.outputs();
        assert_eq!(outputs.len(), 1, "{outputs:?}");
        assert!(outputs[0].starts_with("dead-lettered shop.orders@"), "{outputs:?}");
        assert!(outputs[0].ends_with(class), "{outputs:?}");
    }
    // The stream goes on.
    scored.apply(&order("ann", 5, json!({"closed": true})));
    assert_eq!(scored.outputs(), ["scored ann@5 - - -"]);
    // Records of a companion with another key are counted for its topic.
    let misplaced = scored.order("bob", 6, &json!({"closed": true}));
    scored.apply(&Operation::Raw(orders, "other", Some(misplaced)));
    assert_eq!(scored.outputs().len(), 1);
    assert_eq!(scored.counter("foretell_records_misplaced_total", Some("shop.orders")), 1);
    assert_eq!(
        scored.counter("foretell_records_misplaced_total", Some("shop.questionnaire-events")),
        0
    );
}

/// An open session whose last event is an order, and one whose last event is a visit.
fn open_sessions(scored: &mut Scored) {
    scored.apply(&visit("ann", 10, json!({"visits": 3})));
    scored.apply(&order("ann", 20, json!({"number": "7", "minutes": 1.0})));
    scored.apply(&order("bob", 10, json!({"minutes": 2.0})));
    scored.apply(&visit("bob", 20, json!({"visits": 4})));
    scored.apply(&Operation::Commit);
}

fn at_session_ends() -> Settings {
    Settings { at_session_end: true, ..two_sources() }
}

#[test]
fn open_sessions_survive_a_restart_and_end_over_both_sources() {
    let mut scored = Scored::new(&at_session_ends());
    open_sessions(&mut scored);
    scored.apply(&Operation::Restart);
    scored.apply(&time_is(20 + GAP + 1));
    scored.apply(&time_is(20 + GAP + 3));
    let mut predictions = scored.predictions();
    predictions.retain(|one| ["ann", "bob"].contains(&one.respondent_id.as_str()));
    predictions.sort_by(|one, other| one.respondent_id.cmp(&other.respondent_id));
    let [ann, bob] = &predictions[..] else { panic!("{predictions:?}") };
    assert_eq!((ann.event_id.as_str(), &ann.trigger), ("7", &ScoreTrigger::SessionEnd));
    let answers = |row| {
        scored
            .fixture
            .named_answers(row)
            .into_iter()
            .map(|(_, one)| one.is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(answers(&ann.answers), [true, false, true]);
    assert_eq!(answers(&bob.answers), [true, false, true]);
}

const SESSIONS: &str = "shop-scoring-observations-changelog";

#[test]
fn only_sessions_that_end_with_a_companion_are_stored_in_the_format_that_names_it() {
    let mut scored = Scored::new(&at_session_ends());
    open_sessions(&mut scored);
    let codec = StoredSession::codec();
    let mut formats = Vec::new();
    for value in
        scored.driver.changelog(&Topic::new(SESSIONS)).iter().filter_map(|one| one.value.as_ref())
    {
        formats.push(value[0]);
        let last = codec.decode(value).unwrap().last.unwrap();
        let is_of_companion = last.source == EventSource::companion("orders");
        assert_eq!(is_of_companion, value[0] == StoredSession::FORMAT);
        assert!(is_of_companion || last.source == EventSource::Lead);
    }
    formats.sort_unstable();
    assert_eq!(formats, [StoredSession::FORMAT_OF_LEAD, StoredSession::FORMAT]);
    let lines = changelog_lines(&scored, &[SESSIONS]);
    let kept = fs::read_to_string(golden("sessions-v4.txt")).unwrap();
    assert_eq!(
        lines, kept,
        "the format of sessions has changed: raise its number, keep reading the old one, and put what is written now into \
         golden/sessions-v5.txt"
    );
}

#[test]
fn sessions_of_the_format_with_companions_are_restored() {
    let mut scored = Scored::new(&at_session_ends());
    leave(&mut scored.driver, &left("sessions-v4.txt"));
    scored.apply(&Operation::Restart);
    scored.driver.advance(Duration::ZERO).unwrap();
    scored.apply(&visit("ann", 21, json!({"plan": "team"})));
    assert_eq!(scored.outputs(), ["scored ann@21 3 team 1"]);
}

/// A session whose end cannot be scored becomes a dead letter in place of its last event, on the topic of that.
#[test]
fn the_end_of_a_session_that_cannot_be_scored_names_the_topic_of_its_last_event() {
    let settings = Settings { policy: ContractPolicy::Refuse, ..at_session_ends() };
    let mut scored = Scored::new(&settings);
    let mut columns = Fixture::new().columns();
    columns[0].kind = ColumnKind::Categorical;
    scored.serve(&model_of(columns, &settings.classes, 9, Origin::default()));
    open_sessions(&mut scored);
    scored.apply(&time_is(20 + GAP + 1));
    scored.apply(&time_is(20 + GAP + 3));
    let mut places: Vec<String> = scored.outputs();
    places.retain(|line| line.starts_with("dead-lettered"));
    places.sort();
    // Of each topic, the first record is of the other respondent.
    let expected = ["shop.orders@0", "shop.questionnaire-events@1"];
    assert_eq!(places.len(), 2, "{places:?}");
    for (place, expected) in places.iter().zip(expected) {
        assert!(place.starts_with(&format!("dead-lettered {expected}: ")), "{places:?}");
    }
}
