//! Event time: it orders the inputs, advances stream time and closes windows, independent of record timestamps and of the order
//! of writing.

use std::time::Duration;

use foretell::processors::outcome_join::UnlabelledPolicy;
use foretell_streams::{
    record::{OutputRecord, Topic},
    time::EventTime,
};
use serde_json::json;

use crate::{
    fixture::{EPOCH_MS, NOW},
    scored::{
        CLOCK_TOLERANCE, GAP, GRACE, Operation, Scored, Settings, WINDOW, header, outcome, time_is,
        visit,
    },
};

/// The present, in seconds from the epoch of the tests.
const PRESENT: i64 = (NOW.0 - EPOCH_MS) / 1_000;
const DAY: i64 = 86_400;

/// The backlog of one input: respondent, time and bytes.
type Backlog = Vec<(String, i64, Vec<u8>)>;

fn queue(scored: &mut Scored, topic: &Topic, (who, _, value): &(String, i64, Vec<u8>)) {
    scored.driver.queue_record(OutputRecord {
        topic: topic.clone(),
        partition: None,
        timestamp: EventTime(NOW.0),
        key: Some(who.as_bytes().to_vec()),
        value: Some(value.clone()),
        headers: Vec::new(),
    });
}

/// Events over 30 days, each with an outcome half a window later.
fn backlogs(scored: &Scored, count: i64) -> (Backlog, Backlog) {
    let at = |index: i64| PRESENT - 31 * DAY + index * 30 * DAY / count;
    let who = |index: i64| format!("respondent-{index}");
    let answers = json!({"visits": 3, "plan": "gold", "minutes": 1.5, "done": true});
    let event = |index| (who(index), at(index), scored.event(&who(index), at(index), &answers));
    let later = |index| at(index) + WINDOW / 2;
    let label = |index: i64| if index % 3 == 0 { "yes" } else { "no" };
    let outcome =
        |index| (who(index), later(index), scored.outcome(&who(index), later(index), label(index)));
    ((0..count).map(event).collect(), (0..count).map(outcome).collect())
}

/// Case A1: written before the start, in three orders.
#[test]
fn a_backfill_joins_in_every_order_of_writing() {
    const COUNT: i64 = 3_000;
    type Order = fn(&mut Scored, Backlog, Backlog);
    let orders: [(&str, Order); 3] = [
        ("events, then outcomes", |scored, events, outcomes| {
            let topics = scored.fixture.topics.clone();
            events.iter().for_each(|one| queue(scored, &topics.questionnaire_events, one));
            outcomes.iter().for_each(|one| queue(scored, &topics.outcomes, one));
        }),
        ("interleaved", |scored, events, outcomes| {
            let topics = scored.fixture.topics.clone();
            for (event, outcome) in events.iter().zip(&outcomes) {
                queue(scored, &topics.questionnaire_events, event);
                queue(scored, &topics.outcomes, outcome);
            }
        }),
        ("outcomes, then events", |scored, events, outcomes| {
            let topics = scored.fixture.topics.clone();
            outcomes.iter().for_each(|one| queue(scored, &topics.outcomes, one));
            events.iter().for_each(|one| queue(scored, &topics.questionnaire_events, one));
        }),
    ];
    for (name, write) in orders {
        let mut scored = Scored::new(&Settings::default());
        let (events, outcomes) = backlogs(&scored, COUNT);
        write(&mut scored, events, outcomes);
        scored.driver.process().unwrap();
        scored.driver.commit();
        let joined = scored.counter("foretell_outcomes_total", Some("joined"));
        assert_eq!(joined, COUNT.unsigned_abs(), "{name}");
        assert!(scored.dead_letters().is_empty(), "{name}");
    }
}

/// Case A2: an hour is allowed, the clock's tolerance is ten seconds.
#[test]
fn one_fast_clock_does_not_affect_other_respondents() {
    let mut scored = Scored::new(&Settings::default());
    scored.apply(&visit("ann", PRESENT - 20));
    scored.apply(&visit("fast", PRESENT + 3_000));
    scored.apply(&visit("bob", PRESENT - 10));
    scored.apply(&outcome("ann", PRESENT, "yes"));
    scored.apply(&outcome("bob", PRESENT, "no"));
    let lines = scored.outputs();
    let learned: Vec<_> = lines.iter().filter(|line| line.starts_with("learned")).collect();
    assert_eq!(learned.len(), 2, "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("dead-lettered")), "{lines:?}");
    assert_eq!(scored.counter("foretell_unlabelled_total", None), 0);
    assert_eq!(scored.counter("foretell_stream_records_ahead_total", None), 1);
    let latest = EventTime(NOW.0) + CLOCK_TOLERANCE;
    assert_eq!(scored.driver.task().stream_time(), latest);
    // When stream time reaches it, the fast one is joined like any other.
    scored.driver.advance(Duration::from_secs(3_010)).unwrap();
    scored.apply(&outcome("fast", PRESENT + 3_010, "yes"));
    assert_eq!(scored.outputs().len(), 1);
}

/// The clock of an outcome may be fast, also at the head of a backlog.
#[test]
fn a_fast_outcome_does_not_delay_other_records() {
    let mut scored = Scored::new(&Settings::default());
    let topics = scored.fixture.topics.clone();
    let ahead = PRESENT + 3_000;
    let fast = ("zoe".to_owned(), ahead, scored.outcome("zoe", ahead, "yes"));
    let healthy = ("ann".to_owned(), PRESENT, scored.outcome("ann", PRESENT, "yes"));
    queue(&mut scored, &topics.outcomes, &fast);
    queue(&mut scored, &topics.outcomes, &healthy);
    scored.apply(&visit("ann", PRESENT - 5));
    let lines = scored.outputs();
    assert!(lines.iter().any(|line| line.starts_with("learned ann@")), "{lines:?}");
    assert_eq!(scored.driver.task().buffered(), 0);
    let ahead =
        scored.counter("foretell_stream_records_ahead_total", Some(topics.outcomes.as_str()));
    assert_eq!(ahead, 1);
}

/// Case A4: a topic's retention counts from when a record was written.
#[test]
fn records_about_past_events_are_kept_from_the_time_of_writing() {
    let mut scored = Scored::new(&Settings::default());
    let long_ago = PRESENT - 40 * DAY;
    scored.apply(&visit("ann", long_ago));
    scored.apply(&outcome("ann", long_ago + 5, "yes"));
    scored.apply(&outcome("ann", long_ago + 5, "never heard of"));
    scored.driver.commit();
    let records = scored.driver.read_all();
    assert!(records.len() >= 3, "{records:?}");
    for record in records {
        assert_eq!(record.timestamp, EventTime(NOW.0), "{}", record.topic);
        if record.topic == scored.fixture.topics.dead_letters {
            let arrived = (NOW.0 - 5).to_string();
            assert_eq!(header(&record, "foretell.timestamp"), arrived);
        }
    }
}

/// Case A5: a time in seconds is in 1970; it is counted, and dead-lettered if there is a bound.
#[test]
fn a_time_in_another_unit_is_counted_and_named() {
    let before_2000 = "foretell_stream_records_before_2000_total";
    let in_unit = |divide: i64, multiply: i64| {
        // `at` is in seconds from the epoch of the tests: this gives the raw milliseconds.
        let raw = NOW.0 / divide * multiply;
        (raw - EPOCH_MS) / 1_000
    };
    let (seconds, micros) = (in_unit(1_000, 1), in_unit(1, 1_000));
    let mut scored = Scored::new(&Settings::default());
    scored.apply(&visit("ann", seconds));
    scored.apply(&outcome("ann", seconds, "yes"));
    scored.apply(&visit("bob", PRESENT));
    assert_eq!(scored.dead_letters().len(), 0);
    let topics = scored.fixture.topics.clone();
    for topic in [&topics.questionnaire_events, &topics.outcomes] {
        assert_eq!(scored.counter(before_2000, Some(topic.as_str())), 1, "{topic}");
    }

    let settings = Settings { behind_max: Some(Duration::from_secs(3_600)), ..Settings::default() };
    let mut scored = Scored::new(&settings);
    let check = |scored: &mut Scored, what: Operation, class: &str, words: &str| {
        scored.apply(&what);
        let letters = scored.dead_letters();
        let [letter] = letters.as_slice() else { panic!("{letters:?}") };
        assert_eq!(header(letter, "foretell.error.class"), class);
        let message = header(letter, "foretell.error.message");
        assert!(message.contains(words), "{message}");
    };
    check(&mut scored, visit("ann", seconds), "past_time", "looks like seconds");
    check(&mut scored, outcome("ann", seconds, "yes"), "past_time", "looks like seconds");
    check(&mut scored, visit("ann", PRESENT - 3_700), "past_time", "[events] time_behind_max");
    check(&mut scored, visit("ann", micros), "future_time", "looks like microseconds");
    assert_eq!(scored.counter(before_2000, None), 0, "what is dead-lettered is counted there");
    scored.apply(&visit("ann", PRESENT - 3_500));
    assert!(scored.dead_letters().is_empty());
}

/// Case A6: the last entries of a partition expire too. The worker decides when, and has its own tests.
#[test]
fn the_windows_of_a_quiet_partition_expire() {
    let unlabelled = UnlabelledPolicy::Label("no".to_owned());
    let mut scored = Scored::new(&Settings { unlabelled, ..Settings::default() });
    scored.apply(&visit("ann", PRESENT));
    scored.apply(&outcome("bob", PRESENT, "yes"));
    scored.outputs();
    let part = Duration::from_secs(10);
    let until = u64::try_from((WINDOW + GRACE) / 10).unwrap();
    for _ in 0..until {
        scored.driver.advance(part).unwrap();
        scored.driver.advance_stream_time(part).unwrap();
        assert_eq!(scored.outputs(), [""; 0]);
    }
    scored.driver.advance(part).unwrap();
    scored.driver.advance_stream_time(part).unwrap();
    let lines = scored.outputs();
    assert!(lines.iter().any(|line| line.ends_with("no by policy 3 gold 1.5")), "{lines:?}");
    assert!(lines.iter().any(|line| line.ends_with(": unmatched_outcome")), "{lines:?}");
}

/// A head that cannot be decoded does not block the merge; one that cannot be decoded yet does.
#[test]
fn a_head_that_cannot_be_decoded_is_dead_lettered_before_the_merge() {
    let mut scored = Scored::new(&Settings::default());
    let topics = scored.fixture.topics.clone();
    let garbage = ("zoe".to_owned(), 0, vec![7; 3]);
    queue(&mut scored, &topics.outcomes, &garbage);
    let healthy = ("ann".to_owned(), 5, scored.outcome("ann", 5, "yes"));
    queue(&mut scored, &topics.outcomes, &healthy);
    scored.apply(&visit("ann", 0));
    scored.apply(&time_is(1));
    let lines = scored.outputs();
    let kinds: Vec<_> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(kinds, ["dead-lettered", "scored", "learned"], "{lines:?}");
}

#[test]
fn a_punctuation_expires_every_closed_entry() {
    // More entries than are expired at once.
    const COUNT: u64 = 10_001;
    let mut scored = Scored::new(&Settings::default());
    scored.apply(&time_is(0));
    let topic = scored.fixture.topics.questionnaire_events.clone();
    for index in 0..COUNT {
        for (kind, fields) in [("open", json!({"visits": 3})), ("scored", json!({"done": true}))] {
            let who = format!("{kind}-{index}");
            let event = scored.event(&who, 1, &fields);
            queue(&mut scored, &topic, &(who, 1, event));
        }
    }
    let closed = GAP.max(WINDOW + GRACE) + 2;
    scored.apply(&time_is(closed));
    scored.driver.commit();
    assert_eq!(scored.counter("foretell_unlabelled_total", None), COUNT);
    assert_eq!(scored.counter("foretell_incomplete_observations_total", None), COUNT + 1);
}
