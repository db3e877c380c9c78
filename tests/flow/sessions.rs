//! Sessions: which events belong together, when a session ends, and when it is scored then.

use std::time::Duration;

use foretell::{
    events::{
        prediction::{Prediction, ScoreTrigger},
        questionnaire::WITHDRAWN_HEADER,
        reply::{REQUEST_HEADER, ReplyResult},
    },
    processors::{
        contract::ContractPolicy,
        gather::{ScoreWhen, session::SessionRules},
    },
};
use foretell_ml::{ColumnKind, Origin};
use foretell_streams::{record::Header, time::EventTime};
use serde_json::{Value as Json, json};

use crate::{
    fixture::{EPOCH_MS, NOW, classes, first_model, model_of},
    formats::{leave, left},
    scored::{
        AHEAD_MAX, GAP, Operation, SESSIONS, Scored, Settings, check, header, time_is, visit,
    },
};

const ENDED: &str = "foretell_sessions_total";
const DROPPED: &str = "foretell_incomplete_observations_total";
const SECOND: Duration = Duration::from_secs(1);

/// Sessions are scored at their ends.
fn at_ends() -> Settings {
    Settings { at_session_end: true, ..Settings::default() }
}

fn with_rules(rules: SessionRules) -> Settings {
    Settings { sessions: rules, ..at_ends() }
}

fn piece(who: &'static str, at: i64, fields: Json) -> Operation {
    Operation::Event(who, at, fields)
}

fn visits(who: &'static str, at: i64, visits: i64) -> Operation {
    piece(who, at, json!({"visits": visits}))
}

fn plan(who: &'static str, at: i64) -> Operation {
    piece(who, at, json!({"plan": "team"}))
}

/// Two events of another respondent, the second after the next punctuation. That session stays open.
fn later(scored: &mut Scored, at: i64) {
    scored.apply(&time_is(at));
    scored.apply(&time_is(at + GAP / 10));
}

fn ended(scored: &mut Scored, end: &str) -> u64 {
    scored.driver.commit();
    scored.counter(ENDED, Some(end))
}

fn time_of(prediction: &Prediction) -> i64 {
    (prediction.event_time.0 - EPOCH_MS) / 1_000
}

#[test]
fn a_session_ends_a_gap_after_its_last_event() {
    let mut scored = Scored::new(&at_ends());
    scored.apply(&visits("ann", 0, 7));
    scored.apply(&plan("ann", GAP));
    later(&mut scored, 2 * GAP - 100);
    assert_eq!(
        (scored.outputs().len(), ended(&mut scored, "gap")),
        (0, 0),
        "the gap has not passed"
    );
    scored.apply(&time_is(2 * GAP));
    assert_eq!(scored.outputs(), [""; 0], "a session that ends now may have another event");
    scored.apply(&time_is(2 * GAP + 1));
    assert_eq!(scored.outputs(), ["scored ann@2000 7 team -"]);
    assert_eq!(ended(&mut scored, "gap"), 1);
    assert_eq!(scored.counter(DROPPED, None), 0, "it was scored");
}

#[test]
fn a_respondent_comes_back_in_a_new_session_without_the_answers_of_the_first() {
    let back = 3 * GAP;
    let happens =
        [visits("ann", 0, 7), plan("ann", back), piece("ann", back, json!({"done": true}))];
    check(&Settings::default(), &happens, &["scored ann@3000 - team -"]);
    // With scoring at the end, the first session has a prediction of its own.
    let mut scored =
        check(&at_ends(), &happens, &["scored ann@1000 7 - -", "scored ann@3000 - team -"]);
    assert_eq!((ended(&mut scored, "gap"), ended(&mut scored, "completed")), (1, 1));
}

#[test]
fn what_was_scored_before_is_not_scored_at_the_end_of_the_session() {
    let check = |when, happens: &[Operation], expected: &[&str]| {
        let mut scored = Scored::new(&Settings { when, ..at_ends() });
        happens.iter().for_each(|operation| scored.apply(operation));
        let end = 3 * GAP;
        scored.apply(&visit("bob", end));
        scored.apply(&visit("bob", end + GAP));
        let lines = scored.outputs();
        let of_ann = lines.iter().filter(|line| line.contains("ann@"));
        assert_eq!(of_ann.collect::<Vec<_>>(), expected, "{when:?}");
        scored.counter(DROPPED, None)
    };
    let started = [visits("ann", 0, 7), plan("ann", 1)];
    let done = [visits("ann", 0, 7), piece("ann", 1, json!({"done": true}))];
    let at_end = "scored ann@1001 7 team -";
    assert_eq!(check(ScoreWhen::Complete, &started, &[at_end]), 0);
    assert_eq!(check(ScoreWhen::Answers(3), &started, &[at_end]), 0);
    assert_eq!(check(ScoreWhen::Answers(2), &started, &["scored ann@1 7 team -"]), 0);
    let every = ["scored ann@0 7 - -", "scored ann@1 7 team -"];
    assert_eq!(check(ScoreWhen::EveryEvent, &started, &every), 0);
    assert_eq!(check(ScoreWhen::SessionEnd, &started, &[at_end]), 0);
    // A session that was completed is not scored at its end, and with `session_end` not at all.
    assert_eq!(check(ScoreWhen::Complete, &done, &["scored ann@1 7 - -"]), 0);
    assert_eq!(check(ScoreWhen::SessionEnd, &done, &[]), 0);
    assert_eq!(check(ScoreWhen::SessionEnd, &[visit("ann", 0)], &[]), 0);
}

#[test]
fn a_prediction_says_why_the_observation_was_scored() {
    let trigger = |when, happens: &[Operation]| {
        let mut scored = Scored::new(&Settings { when, ..at_ends() });
        happens.iter().for_each(|operation| scored.apply(operation));
        scored.predictions()[0].trigger
    };
    let two = [visits("ann", 0, 7), plan("ann", 1)];
    let ended = [visits("ann", 0, 7), time_is(2 * GAP), time_is(2 * GAP + 100)];
    assert_eq!(trigger(ScoreWhen::Complete, &[visit("ann", 0)]), ScoreTrigger::Complete);
    assert_eq!(trigger(ScoreWhen::Answers(2), &two), ScoreTrigger::Answers);
    assert_eq!(trigger(ScoreWhen::EveryEvent, &two), ScoreTrigger::Event);
    assert_eq!(trigger(ScoreWhen::EveryEvent, &[visit("ann", 0)]), ScoreTrigger::Complete);
    assert_eq!(trigger(ScoreWhen::Complete, &ended), ScoreTrigger::SessionEnd);
    assert_eq!(trigger(ScoreWhen::SessionEnd, &ended), ScoreTrigger::SessionEnd);
}

/// The id does not depend on when the end is found out, and no event has it.
#[test]
fn the_prediction_at_the_end_of_a_session_has_an_id_of_its_own_that_repeats() {
    let piece = || piece("ann", 0, json!({"id": "e-1", "visits": 7}));
    let end = |scored: &mut Scored, operations: &[Operation]| {
        operations.iter().for_each(|operation| scored.apply(operation));
        let mut predictions = scored.predictions();
        assert_eq!(predictions.len(), 1, "{predictions:?}");
        predictions.remove(0)
    };
    let ends = [time_is(2 * GAP), time_is(2 * GAP + 100)];
    let mut scored = Scored::new(&at_ends());
    scored.apply(&piece());
    let first = end(&mut scored, &ends);
    assert_eq!((first.event_id.as_str(), time_of(&first)), ("e-1", GAP));
    assert_eq!(first.received_at.0, NOW.0 - 5);
    let every = Settings { when: ScoreWhen::EveryEvent, ..Settings::default() };
    let event = end(&mut Scored::new(&every), &[piece()]);
    assert_ne!(first.prediction_id, event.prediction_id);
    // A commit that fails after the end, and a task that moves.
    let mut scored = Scored::new(&at_ends());
    scored.apply(&piece());
    scored.apply(&Operation::Commit);
    ends.iter().for_each(|operation| scored.apply(operation));
    scored.apply(&Operation::Abort);
    assert_eq!(end(&mut scored, &ends).prediction_id, first.prediction_id);
    scored.apply(&Operation::Restart);
    scored.apply(&time_is(2 * GAP + 200));
    assert!(scored.predictions().is_empty(), "it was scored before");
    let mut scored = Scored::new(&at_ends());
    for operation in [piece(), Operation::Commit, Operation::Restart] {
        scored.apply(&operation);
    }
    let moved = end(&mut scored, &ends);
    assert_eq!((moved.prediction_id, moved.answers), (first.prediction_id, first.answers));
}

#[test]
fn a_late_event_joins_its_session_and_one_between_two_sessions_merges_them() {
    let rules = SessionRules { grace: Duration::from_secs(5_000), ..SESSIONS };
    let expect = |happens: &[Operation], expected: &[&str]| {
        let mut scored = Scored::new(&with_rules(rules));
        happens.iter().for_each(|operation| scored.apply(operation));
        let end = 10 * GAP;
        scored.apply(&visit("bob", end));
        scored.apply(&visit("bob", end + GAP));
        let mut lines = scored.outputs();
        lines.retain(|line| line.contains("ann@"));
        assert_eq!(lines, expected, "{happens:?}");
    };
    let first = visits("ann", 0, 7);
    let second = plan("ann", 2 * GAP);
    let minutes = |at| piece("ann", at, json!({"minutes": 0.5}));
    let apart = ["scored ann@1000 7 - -", "scored ann@3000 - team -"];
    expect(&[first.clone(), second.clone()], &apart);
    // In whatever order they arrive.
    expect(&[second.clone(), first.clone()], &apart);
    let without_minutes = |at| visits("ann", at, 8);
    expect(&[first.clone(), second.clone(), without_minutes(GAP)], &["scored ann@3000 8 team -"]);
    expect(&[second.clone(), without_minutes(GAP), first], &["scored ann@3000 8 team -"]);
    // An earlier answer does not replace a later one, also if it arrives with the event that merges.
    let happens = [
        visits("ann", 2 * GAP, 9),
        piece("ann", 0, json!({"visits": 1, "plan": "gold"})),
        visits("ann", GAP, 5),
    ];
    expect(&happens, &["scored ann@3000 9 gold -"]);
    // Within the gap of one session only.
    expect(&[second, minutes(GAP - 1)], &["scored ann@1999 - - 0.5", "scored ann@3000 - team -"]);
}

/// Its answers are not lost, and it does not stay in the store.
#[test]
fn an_event_that_is_later_than_gap_and_grace_is_a_session_of_its_own() {
    let mut scored = Scored::new(&at_ends());
    scored.apply(&time_is(5 * GAP));
    scored.apply(&visits("ann", 4 * GAP, 7));
    assert_eq!(
        (scored.outputs().len(), ended(&mut scored, "late")),
        (0, 0),
        "not later than the gap"
    );
    scored.apply(&visits("bob", 4 * GAP - 1, 8));
    scored.apply(&plan("bob", 4 * GAP - 1));
    let expected = ["scored bob@4999 8 - -", "scored bob@4999 - team -"];
    assert_eq!(scored.outputs(), expected);
    assert_eq!(ended(&mut scored, "late"), 2);
    assert_eq!(
        scored.driver.task().store_entries()["observations"],
        2,
        "ann, and the other respondent"
    );
    // Not scored at its end, it is counted as dropped.
    let mut scored = Scored::new(&Settings::default());
    scored.apply(&time_is(5 * GAP));
    scored.apply(&visits("bob", 0, 8));
    assert_eq!((ended(&mut scored, "late"), scored.counter(DROPPED, None)), (1, 1));
    // A complete one is scored, however late it is.
    scored.apply(&visit("cem", 0));
    assert_eq!(scored.outputs(), ["scored cem@0 3 gold 1.5"]);
}

/// The result does not depend on whether a punctuation has run since the session ended.
#[test]
fn a_late_event_does_not_join_a_session_that_has_ended() {
    let mut scored = Scored::new(&Settings::default());
    scored.apply(&visits("ann", 0, 7));
    // The next punctuation is later than the end of the session.
    scored.apply(&time_is(GAP - 10));
    scored.apply(&time_is(GAP + 1));
    assert_eq!(ended(&mut scored, "gap"), 0);
    scored.apply(&plan("ann", 1));
    assert_eq!(ended(&mut scored, "gap"), 1);
    scored.apply(&piece("ann", 2, json!({"done": true})));
    assert_eq!(scored.outputs(), ["scored ann@2 - team -"]);
}

#[test]
fn a_session_that_never_ends_by_itself_ends_after_max() {
    let rules = SessionRules { max: Some(SESSIONS.gap * 2), ..SESSIONS };
    let mut scored = Scored::new(&with_rules(rules));
    let step = GAP / 2;
    for number in 0..=10 {
        scored.apply(&visits("ann", number * step, number));
    }
    // At 0 to 2000, at 2500 to 4500, and the last one at 5000 begins another.
    assert_eq!(scored.outputs(), ["scored ann@2000 4 - -", "scored ann@4500 9 - -"]);
    assert_eq!((ended(&mut scored, "max"), ended(&mut scored, "gap")), (2, 0));
    assert_eq!(scored.driver.task().store_entries()["observations"], 1);
    // Without a limit it is one session, of one entry.
    let mut scored = Scored::new(&at_ends());
    for number in 0..150 {
        scored.apply(&visits("ann", number * step, number));
    }
    assert!(scored.outputs().is_empty());
    assert_eq!(scored.driver.task().store_entries()["observations"], 1);
}

#[test]
fn a_session_ends_with_the_number_of_its_events() {
    let rules = SessionRules { events_max: Some(3), ..SESSIONS };
    let mut scored = Scored::new(&with_rules(rules));
    for number in 0..7 {
        scored.apply(&visits("ann", number, number));
        // A repeat is not counted.
        scored.apply(&visits("ann", number, number));
    }
    assert_eq!(scored.outputs(), ["scored ann@2 2 - -", "scored ann@5 5 - -"]);
    let predictions = ended(&mut scored, "events_max");
    assert_eq!((predictions, scored.counter(DROPPED, None)), (2, 0));
    // An event that completes the observation ends it as complete.
    let done = |at| piece("bob", at, json!({"done": true}));
    let happens = [visits("bob", 0, 1), visits("bob", 1, 2), done(2)];
    happens.iter().for_each(|operation| scored.apply(operation));
    assert_eq!(scored.outputs(), ["scored bob@2 2 - -"]);
    assert_eq!(ended(&mut scored, "events_max"), 2);
    // Without scoring at the end, what was not scored is counted as dropped.
    let mut scored = Scored::new(&Settings { at_session_end: false, ..with_rules(rules) });
    (0..3).for_each(|number| scored.apply(&visits("ann", number, number)));
    assert_eq!((ended(&mut scored, "events_max"), scored.counter(DROPPED, None)), (1, 1));
}

/// The customer has left, and nobody else comes. The worker decides when stream time advances, and has its own tests.
#[test]
fn a_session_ends_in_a_quiet_partition() {
    let present = (NOW.0 - EPOCH_MS) / 1_000;
    let mut scored = Scored::new(&at_ends());
    scored.apply(&visits("ann", present, 7));
    for _ in 0..GAP {
        scored.driver.advance(SECOND).unwrap();
        scored.driver.advance_stream_time(SECOND).unwrap();
    }
    assert!(scored.outputs().is_empty());
    scored.driver.advance(SECOND).unwrap();
    scored.driver.advance_stream_time(SECOND).unwrap();
    assert_eq!(scored.outputs(), [format!("scored ann@{} 7 - -", present + GAP)]);
}

/// A punctuation that fails is tried again: no session is lost, or scored twice.
#[test]
fn sessions_that_end_while_no_model_serves_are_scored_when_one_does() {
    let settings = Settings { when: ScoreWhen::SessionEnd, ..Settings::default() };
    let mut scored = Scored::without_model(&settings);
    scored.apply(&visits("ann", 0, 7));
    scored.apply(&visits("bob", 1, 8));
    for step in 0..5 {
        later(&mut scored, (3 + step) * GAP);
    }
    assert!(scored.outputs().is_empty());
    assert!(scored.counter("foretell_stream_punctuations_failed_total", None) >= 5);
    assert_eq!(ended(&mut scored, "gap"), 0, "what failed is not counted");
    assert_eq!(scored.driver.task().store_entries()["observations"], 3);
    scored.serve(first_model());
    later(&mut scored, 8 * GAP);
    assert_eq!(scored.outputs(), ["scored ann@1000 7 - -", "scored bob@1001 8 - -"]);
    later(&mut scored, 8 * GAP + 300);
    assert_eq!((scored.outputs().len(), ended(&mut scored, "gap")), (0, 2));
}

/// One that cannot be scored does not hold up those after it.
#[test]
fn an_end_of_a_session_that_is_refused_is_dead_lettered_in_place_of_its_last_event() {
    let settings = Settings { policy: ContractPolicy::Refuse, ..at_ends() };
    let mut scored = Scored::new(&settings);
    let mut columns = scored.fixture.columns();
    columns[0].kind = ColumnKind::Categorical;
    scored.serve(&model_of(columns, &classes(&["no", "yes"]), 6, Origin::default()));
    let rows = [visits("ann", 0, 7), visits("ann", 1, 8), visits("bob", 2, 9)];
    rows.iter().for_each(|operation| scored.apply(operation));
    later(&mut scored, 3 * GAP);
    let letters = scored.dead_letters();
    let keys: Vec<_> = letters.iter().map(|letter| letter.key.as_deref().unwrap()).collect();
    assert_eq!(keys, [&b"ann"[..], b"bob"]);
    let events = scored.fixture.topics.questionnaire_events.clone();
    for (letter, offset) in letters.iter().zip(["1", "2"]) {
        assert_eq!(header(letter, "foretell.error.class"), "feature_contract");
        assert_eq!(header(letter, "foretell.topic"), events.as_str());
        assert_eq!(header(letter, "foretell.offset"), offset);
        assert_eq!(letter.value, None);
        let message = header(letter, "foretell.error.message");
        assert!(message.contains("the end of a session cannot be scored"), "{message}");
    }
    assert_eq!(ended(&mut scored, "gap"), 2);
    assert_eq!(scored.counter("foretell_stream_punctuations_failed_total", None), 0);
    // The same when an event ends it.
    let rules = SessionRules { events_max: Some(1), ..SESSIONS };
    let settings = Settings { sessions: rules, ..settings };
    let mut scored = Scored::new(&settings);
    let mut columns = scored.fixture.columns();
    columns[0].kind = ColumnKind::Categorical;
    scored.serve(&model_of(columns, &classes(&["no", "yes"]), 6, Origin::default()));
    scored.apply(&visits("ann", 0, 7));
    assert_eq!(scored.dead_letters().len(), 1);
    assert_eq!(ended(&mut scored, "events_max"), 1);
}

fn asks(id: &str) -> Vec<Header> {
    vec![Header { name: REQUEST_HEADER.to_owned(), value: id.as_bytes().to_vec() }]
}

#[test]
fn a_caller_gets_the_result_of_its_event_and_not_that_of_the_session_which_it_ends() {
    let rules = SessionRules { max: Some(SESSIONS.gap / 2), events_max: Some(2), ..SESSIONS };
    let mut scored = Scored::new(&with_rules(rules));
    scored.event_with_headers("ann", 0, &json!({"visits": 3}), asks("r-1"));
    // Ends the session by its length.
    scored.event_with_headers("ann", GAP / 2 + 1, &json!({"plan": "gold"}), asks("r-2"));
    // Ends its own session by the number of its events.
    scored.event_with_headers("ann", GAP / 2 + 2, &json!({"minutes": 1.0}), asks("r-3"));
    // Ends its own session, because it is late.
    scored.event_with_headers("bob", -GAP, &json!({"visits": 1}), asks("r-4"));
    let replies = scored.replies();
    let ids: Vec<_> = replies.iter().map(|reply| reply.request_id.as_str()).collect();
    assert_eq!(ids, ["r-1", "r-2", "r-3", "r-4"]);
    let is_incomplete = |result: &ReplyResult| matches!(result, ReplyResult::Incomplete { .. });
    assert!(replies.iter().all(|reply| is_incomplete(&reply.result)), "{replies:?}");
    assert_eq!(scored.predictions().len(), 3);
    // With `session_end`, the caller of a complete event gets no prediction either.
    let mut scored = Scored::new(&Settings { when: ScoreWhen::SessionEnd, ..Settings::default() });
    let whole = json!({"visits": 3, "plan": "gold", "minutes": 1.5});
    scored.event_with_headers("ann", 0, &whole, asks("r-5"));
    let missing = Vec::new();
    assert_eq!(scored.replies()[0].result, ReplyResult::Incomplete { missing });
}

/// A change of a store that the broker rejects as too large would stop the task.
#[test]
fn an_event_that_would_make_a_session_too_large_is_dead_lettered() {
    let mut scored = Scored::new(&at_ends());
    let large = |at: i64| piece("ann", at, json!({"plan": "x".repeat(400_000)}));
    scored.apply(&visits("ann", 0, 7));
    scored.apply(&large(1));
    let value = "x".repeat(200_000).into_bytes();
    let headers = vec![Header { name: WITHDRAWN_HEADER.to_owned(), value }];
    scored.event_with_headers("ann", 2, &json!({"visits": 8}), headers);
    let letters = scored.dead_letters();
    let [letter] = letters.as_slice() else { panic!("{} dead letters", letters.len()) };
    assert_eq!(header(letter, "foretell.error.class"), "session_too_large");
    assert!(header(letter, "foretell.error.message").contains("the maximum is 524288"));
    assert!(letter.value.is_some(), "the event is kept");
    // The session goes on without it.
    scored.apply(&piece("ann", 3, json!({"plan": "gold"})));
    scored.apply(&piece("ann", 4, json!({"done": true})));
    assert_eq!(scored.outputs(), ["scored ann@4 7 gold -"]);
}

/// A clock that is fast by up to `time_ahead_max` ends no session of others, and its own event is not lost.
#[test]
fn a_clock_that_jumps_ends_no_other_session() {
    let present = (NOW.0 - EPOCH_MS) / 1_000;
    let ahead = i64::try_from(AHEAD_MAX.as_secs()).unwrap();
    let mut scored = Scored::new(&at_ends());
    scored.apply(&visits("ann", present - 100, 7));
    scored.apply(&visits("ann", present + ahead - 1, 9));
    scored.apply(&visits("bob", present + ahead - 1, 8));
    later(&mut scored, present - 100);
    assert!(scored.outputs().is_empty());
    // The first session of ann goes on, beside the one that is ahead.
    scored.apply(&piece("ann", present, json!({"plan": "gold", "minutes": 0.5})));
    assert_eq!(scored.outputs(), [format!("scored ann@{present} 7 gold 0.5")]);
    // When stream time gets there, the others end.
    scored.driver.advance(Duration::from_secs(10_000)).unwrap();
    later(&mut scored, present + 9_000);
    let end = present + ahead - 1 + GAP;
    let mut lines = scored.outputs();
    lines.retain(|line| !line.contains("another"));
    assert_eq!(lines, [format!("scored ann@{end} 9 - -"), format!("scored bob@{end} 8 - -")]);
    // Further ahead, an event is dead-lettered.
    scored.apply(&visits("ann", present + 10_000 + ahead + 1, 9));
    let letters = scored.dead_letters();
    assert_eq!(header(&letters[0], "foretell.error.class"), "future_time");
}

#[test]
fn events_before_the_epoch_have_sessions() {
    let in_1960 = -(EPOCH_MS / 1_000) - 10 * 365 * 86_400;
    let mut scored = Scored::new(&at_ends());
    scored.apply(&visits("ann", in_1960, 7));
    scored.apply(&plan("ann", in_1960 + GAP));
    scored.apply(&visits("bob", in_1960 + 3 * GAP, 8));
    assert_eq!(scored.outputs(), [format!("scored ann@{} 7 team -", in_1960 + 2 * GAP)]);
    // In a task whose stream time is that of today, each is late.
    scored.apply(&time_is(0));
    scored.apply(&visits("cem", in_1960, 9));
    let lines = scored.outputs();
    assert!(lines.contains(&format!("scored cem@{} 9 - -", in_1960 + GAP)), "{lines:?}");
    assert_eq!(ended(&mut scored, "late"), 1);
}

/// More sessions than one punctuation scores: the next ones go on.
#[test]
fn a_backlog_of_sessions_is_scored_in_parts() {
    const COUNT: usize = 10_500;
    let mut scored = Scored::new(&at_ends());
    scored.apply(&time_is(0));
    let topic = scored.fixture.topics.questionnaire_events.clone();
    for number in 0..COUNT {
        let who = format!("respondent-{number}");
        let event = scored.event(&who, 1, &json!({"visits": 3}));
        scored.driver.pipe(&topic, Some(who.as_bytes()), Some(&event), EventTime(NOW.0)).unwrap();
    }
    scored.apply(&visit("bob", 2 * GAP));
    let first = ended(&mut scored, "gap");
    assert_eq!(first, 10_000);
    scored.apply(&visit("bob", 2 * GAP + 1));
    assert_eq!(ended(&mut scored, "gap"), COUNT as u64 + 1, "and that of the other respondent");
    let predictions = scored.predictions();
    let ids: std::collections::BTreeSet<_> =
        predictions.iter().map(|one| &one.prediction_id).collect();
    assert_eq!((predictions.len(), ids.len()), (COUNT + 3, COUNT + 3));
}

#[test]
fn the_end_of_a_session_is_not_in_the_scoring_latency() {
    let mut scored = Scored::new(&at_ends());
    scored.apply(&visits("ann", 0, 7));
    scored.driver.advance(Duration::from_secs(3_600)).unwrap();
    later(&mut scored, 3 * GAP);
    assert_eq!(scored.predictions().len(), 1);
    assert_eq!(scored.observed("foretell_scoring_latency_seconds"), 0);
    scored.apply(&visit("bob", 3 * GAP));
    assert_eq!(scored.observed("foretell_scoring_latency_seconds"), 1);
}

/// Sessions of an earlier release, which has not stored what their predictions need.
#[test]
fn sessions_of_each_format_are_scored_at_their_ends() {
    let mut ids = Vec::new();
    for version in 1..=6 {
        let mut scored = Scored::new(&at_ends());
        leave(&mut scored.driver, &left(&format!("changelogs-v{version}.txt")));
        scored.apply(&Operation::Restart);
        scored.apply(&visit("bob", 3 * GAP));
        scored.apply(&visit("bob", 4 * GAP));
        let mut predictions = scored.predictions();
        predictions.retain(|one| one.trigger == ScoreTrigger::SessionEnd);
        let [ann] = predictions.as_slice() else { panic!("{version}: {predictions:?}") };
        let expected = ("ann", 10 + GAP);
        assert_eq!((ann.respondent_id.as_str(), time_of(ann)), expected, "{version}");
        ids.push(ann.prediction_id.clone());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "the id follows from respondent, time and answers");
}
