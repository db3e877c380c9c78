//! The identity of events, and the treatment of repeats.

use foretell::{
    events::{
        questionnaire::WITHDRAWN_HEADER,
        reply::{REQUEST_HEADER, Reply, ReplyResult},
    },
    processors::{gather::ScoreWhen, outcome_join::LearnFrom},
};
use foretell_streams::record::Header;
use serde_json::json;

use crate::scored::{
    DUPLICATES_WITHIN, GAP, Operation, PREDICTIONS_MAX, Scored, Settings, check, outcome, time_is,
    visit,
};

const DUPLICATES: &str = "foretell_duplicate_events_total";

fn named(id: &str, who: &'static str, at: i64) -> Operation {
    Operation::Event(who, at, json!({"id": id, "visits": 3, "plan": "gold", "minutes": 1.5}))
}

#[test]
fn a_repeated_event_is_scored_once() {
    // With an id, independent of its time; without one, by respondent, time and content.
    for twice in [
        [named("e-1", "ann", 0), named("e-1", "ann", 0)],
        [named("e-1", "ann", 0), named("e-1", "ann", 9)],
        [visit("ann", 0), visit("ann", 0)],
    ] {
        let scored = check(&Settings::default(), &twice, &["scored ann@0 3 gold 1.5"]);
        assert_eq!(scored.counter(DUPLICATES, None), 1, "{twice:?}");
    }
    let others = [named("e-1", "ann", 0), named("e-1", "bob", 0), named("e-2", "ann", 0)];
    let lines = ["scored ann@0 3 gold 1.5", "scored bob@0 3 gold 1.5", "scored ann@0 3 gold 1.5"];
    assert_eq!(check(&Settings::default(), &others, &lines).counter(DUPLICATES, None), 0);
}

#[test]
fn a_repeat_of_the_last_event_makes_one_complete_example() {
    let last = || Operation::Event("ann", 2, json!({"id": "3", "minutes": 1.5, "done": true}));
    let happens = [
        Operation::Event("ann", 0, json!({"id": "1", "visits": 7})),
        Operation::Event("ann", 1, json!({"id": "2", "plan": "team"})),
        last(),
        last(),
    ];
    check(&Settings::default(), &happens, &["scored ann@2 7 team 1.5"]);
    let every = Settings {
        when: ScoreWhen::EveryEvent,
        learn_from: LearnFrom::Every,
        ..Settings::default()
    };
    let mut scored = Scored::new(&every);
    for what in &happens {
        scored.apply(what);
    }
    let ids: Vec<_> = scored.predictions().into_iter().map(|one| one.prediction_id).collect();
    assert_eq!(ids.len(), 3, "one a piece");
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
}

/// After an abort, the event that comes again is not a repeat.
#[test]
fn repeats_are_recognised_after_a_commit_and_a_restart_and_not_after_an_abort() {
    let line = "scored ann@0 3 gold 1.5";
    let aborted = [visit("ann", 0), Operation::Abort, visit("ann", 0)];
    check(&Settings::default(), &aborted, &[line]);
    let restarted = [visit("ann", 0), Operation::Commit, Operation::Restart, visit("ann", 0)];
    check(&Settings::default(), &restarted, &[line]);
}

#[test]
fn an_event_is_not_a_repeat_after_the_retention() {
    let later = 2 * DUPLICATES_WITHIN + 1;
    let happens = [named("e-1", "ann", 0), time_is(later), named("e-1", "ann", later)];
    let (first, second) = ("scored ann@0 3 gold 1.5", format!("scored ann@{later} 3 gold 1.5"));
    check(&Settings::default(), &happens, &[first, &second]);
}

/// The retention is of stream time, so it depends on when a repeat arrives, not on its event time: a repeat with a much earlier
/// time is recognised.
#[test]
fn a_repeat_may_have_an_earlier_event_time() {
    let earlier = -3 * DUPLICATES_WITHIN;
    let happens = [named("e-1", "ann", 0), named("e-1", "ann", earlier)];
    let scored = check(&Settings::default(), &happens, &["scored ann@0 3 gold 1.5"]);
    assert_eq!(scored.counter(DUPLICATES, None), 1);
    // Also after stream time has advanced by the retention.
    let (first, second) = (named("e-1", "ann", 0), named("e-1", "ann", earlier));
    let happens = [first, time_is(DUPLICATES_WITHIN), second];
    check(&Settings::default(), &happens, &["scored ann@0 3 gold 1.5"]);
}

/// In a recreated topic, other events have the same offsets.
#[test]
fn ids_are_derived_from_events_and_not_from_offsets() {
    let id_of = |happens: &[Operation]| {
        let mut scored = Scored::new(&Settings::default());
        happens.iter().for_each(|what| scored.apply(what));
        scored.predictions().pop().unwrap().prediction_id
    };
    let ann = id_of(&[visit("ann", 0)]);
    assert_ne!(ann, id_of(&[visit("bob", 0)]), "at the same place");
    assert_eq!(ann, id_of(&[visit("bob", 0), visit("ann", 0)]), "at another place");
}

fn piece(at: i64, fields: serde_json::Value) -> Operation {
    Operation::Event("ann", at, fields)
}

/// The answer with the latest event time counts, independent of the order of arrival.
#[test]
fn the_answer_with_the_later_time_counts_in_every_order() {
    let pieces = [
        (5, json!({"visits": 50})),
        (0, json!({"visits": 40, "plan": "team"})),
        (3, json!({"plan": "gold"})),
    ];
    let last = piece(6, json!({"minutes": 2.5}));
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut happens: Vec<_> =
            order.iter().map(|&one| piece(pieces[one].0, pieces[one].1.clone())).collect();
        happens.push(last.clone());
        check(&Settings::default(), &happens, &["scored ann@6 50 gold 2.5"]);
    }
    // The event that completes it may be the oldest.
    let happens =
        [piece(5, json!({"visits": 50, "plan": "gold"})), piece(1, json!({"minutes": 1.0}))];
    check(&Settings::default(), &happens, &["scored ann@5 50 gold 1"]);
}

fn withdraws(names: &str) -> Vec<Header> {
    vec![Header { name: WITHDRAWN_HEADER.to_owned(), value: names.as_bytes().to_vec() }]
}

#[test]
fn an_answer_can_be_withdrawn() {
    let mut scored = Scored::new(&Settings::default());
    scored.apply(&piece(5, json!({"visits": 50, "plan": "gold"})));
    // The first name is not a question, and withdraws nothing.
    scored.event_with_headers("ann", 6, &json!({}), withdraws("unknown, plan"));
    // Given before it was withdrawn, and received later.
    scored.apply(&piece(4, json!({"plan": "team"})));
    scored.apply(&piece(8, json!({"done": true})));
    assert_eq!(scored.outputs(), ["scored ann@8 50 - -"]);
}

#[test]
fn of_two_answers_of_one_time_the_one_received_last_counts() {
    let happens = [
        piece(1, json!({"visits": 3})),
        piece(1, json!({"visits": 4})),
        piece(2, json!({"done": true})),
    ];
    check(&Settings::default(), &happens, &["scored ann@2 4 - -"]);
    // One event that withdraws an answer and gives another.
    let mut scored = Scored::new(&Settings::default());
    scored.apply(&piece(1, json!({"visits": 3})));
    scored.event_with_headers("ann", 2, &json!({"visits": 5}), withdraws("visits"));
    scored.apply(&piece(3, json!({"done": true})));
    assert_eq!(scored.outputs(), ["scored ann@3 5 - -"]);
    // Of two headers with one name the last counts, as in Kafka.
    let mut scored = Scored::new(&Settings::default());
    scored.apply(&piece(1, json!({"visits": 3, "plan": "gold"})));
    let twice = [withdraws("plan"), withdraws("visits")].concat();
    scored.event_with_headers("ann", 2, &json!({}), twice);
    scored.apply(&piece(3, json!({"done": true})));
    assert_eq!(scored.outputs(), ["scored ann@3 - gold -"]);
}

#[test]
fn fingerprints_leave_the_store_after_their_retention() {
    let entries = |times: &[i64]| {
        let mut scored = Scored::new(&Settings::default());
        times.iter().for_each(|at| scored.apply(&visit("ann", *at)));
        scored.apply(&Operation::Commit);
        scored.driver.task().store_entries()["recent-events"]
    };
    // A generation accepts events for half of the retention, and is kept for the retention after its end.
    let passed = DUPLICATES_WITHIN / 2 + DUPLICATES_WITHIN;
    assert_eq!(entries(&[0, 1, passed + 1]), entries(&[0]), "the last, and no others");
    assert!(entries(&[0, 1, passed - 1]) > entries(&[0]));
}

#[test]
fn an_expired_observation_that_was_scored_is_not_counted() {
    let settings = Settings { when: ScoreWhen::Answers(2), ..Settings::default() };
    let mut scored = Scored::new(&settings);
    scored.apply(&piece(0, json!({"visits": 50, "plan": "gold"})));
    scored.apply(&time_is(2 * GAP));
    scored.apply(&time_is(2 * GAP + GAP / 20));
    assert_eq!(scored.outputs(), ["scored ann@0 50 gold -"]);
    assert_eq!(scored.driver.task().store_entries()["observations"], 1, "the other respondent's");
    assert_eq!(scored.counter("foretell_incomplete_observations_total", None), 0);
}

#[test]
fn an_expired_observation_that_was_not_scored_is_counted() {
    let name = "foretell_incomplete_observations_total";
    let mut scored = Scored::new(&Settings::default());
    scored.apply(&piece(0, json!({"visits": 50, "plan": "gold"})));
    scored.apply(&time_is(GAP / 2));
    assert_eq!((scored.outputs().len(), scored.counter(name, None)), (0, 0));
    scored.apply(&time_is(2 * GAP));
    scored.apply(&time_is(4 * GAP));
    assert!(scored.outputs().is_empty());
    // That of ann, and two of those that advanced stream time.
    assert_eq!(scored.counter(name, None), 3);
}

#[test]
fn the_predictions_of_one_respondent_are_bounded() {
    let kiosk = |at: i64| Operation::Event("kiosk", at, json!({"visits": at, "done": true}));
    // With `first` the first are kept, else the last; with `every` each of them is learned from.
    let all: Vec<i64> = (30..40).collect();
    for (learn_from, learned) in
        [(LearnFrom::First, &[0][..]), (LearnFrom::Last, &[39][..]), (LearnFrom::Every, &all[..])]
    {
        let settings = Settings { learn_from, ..Settings::default() };
        let mut scored = Scored::new(&settings);
        for at in 0..40 {
            scored.apply(&kiosk(at));
        }
        assert_eq!(scored.predictions().len(), 40);
        assert_eq!(scored.driver.task().store_entries()["outcomes"], PREDICTIONS_MAX);
        let not_kept = scored.counter("foretell_predictions_not_kept_total", None);
        assert_eq!(not_kept, 40 - PREDICTIONS_MAX as u64);
        scored.apply(&outcome("kiosk", 40, "no"));
        let lines = scored.outputs();
        let expected = learned.iter().map(|at| format!("learned kiosk@{at} no"));
        let is_expected = |(line, expected): (&String, String)| line.starts_with(&expected);
        assert!(lines.iter().zip(expected).all(is_expected), "{lines:?}");
        assert_eq!(lines.len(), learned.len(), "{lines:?}");
    }
}

pub(crate) fn asks(id: &str) -> Vec<Header> {
    vec![Header { name: REQUEST_HEADER.to_owned(), value: id.as_bytes().to_vec() }]
}

#[test]
fn a_waiting_caller_gets_the_result_of_its_event() {
    let mut scored = Scored::new(&Settings::default());
    scored.apply(&visit("without-request", 0));
    scored.event_with_headers("ann", 1, &json!({"visits": 3}), asks("r-1"));
    let last = json!({"plan": "gold", "minutes": 1.5});
    scored.event_with_headers("ann", 2, &last, asks("r-2"));
    scored.event_with_headers("ann", 2, &last, asks("r-3"));
    scored.event_with_headers("ann", 1, &json!({"visits": 3}), asks("r-4"));
    let replies: Vec<Reply> = scored.replies();
    let ids: Vec<_> = replies.iter().map(|reply| reply.request_id.as_str()).collect();
    assert_eq!(ids, ["r-1", "r-2", "r-3", "r-4"]);
    let missing = vec!["plan".to_owned(), "minutes".to_owned()];
    assert_eq!(replies[0].result, ReplyResult::Incomplete { missing });
    let ReplyResult::Predicted(first) = &replies[1].result else { panic!("{replies:?}") };
    assert_eq!(replies[2].result, ReplyResult::Duplicate(Some(first.clone())));
    assert_eq!(replies[3].result, ReplyResult::Duplicate(None), "it completed nothing");
    assert_eq!(replies[1].event_id, replies[2].event_id);
}
