//! Records that cannot be processed are dead-lettered unchanged with the reason, and processing continues.

use foretell::events::questionnaire::QuestionnaireEvent;
use foretell_streams::{record::Topic, time::EventTime};
use serde_json::json;

use crate::{
    fixture::{EPOCH_MS, Fixture, NOW},
    scored::{AHEAD_MAX, Operation, Scored, Settings, encoded, header, visit},
};

/// Pipes `value` between two valid events: both are scored, and `value` is dead-lettered with this class and schema.
fn check(topic: impl Fn(&Scored) -> Topic, value: Option<Vec<u8>>, class: &str, schema_id: &str) {
    let mut scored = Scored::new(&Settings::default());
    let topic = topic(&scored);
    scored.apply(&visit("ann", 0));
    scored.apply(&Operation::Raw(topic.clone(), "key", value.clone()));
    scored.apply(&visit("bob", 1));
    let count = scored.counter("foretell_dead_letters_total", Some(class));
    assert_eq!(count, 0, "it shows when it is committed");
    let predictions = scored.predictions();
    let who: Vec<_> = predictions.iter().map(|one| one.respondent_id.as_str()).collect();
    assert_eq!(who, ["ann", "bob"], "{class}");
    let letters = scored.dead_letters();
    let [letter] = letters.as_slice() else { panic!("{class}: {letters:?}") };
    assert_eq!(letter.key.as_deref(), Some(&b"key"[..]));
    assert_eq!(letter.value, value);
    let headers = ["topic", "error.class", "schema.id"];
    let headers = headers.map(|name| header(letter, &format!("foretell.{name}")));
    assert_eq!(headers, [topic.as_str(), class, schema_id]);
    assert_ne!(header(letter, "foretell.error.message"), "", "{class}");
    assert_eq!(scored.counter("foretell_dead_letters_total", Some(class)), 1);
}

fn events(scored: &Scored) -> Topic {
    scored.fixture.topics.questionnaire_events.clone()
}

fn outcomes(scored: &Scored) -> Topic {
    scored.fixture.topics.outcomes.clone()
}

#[test]
fn bytes_that_are_not_a_record_are_dead_lettered() {
    for topic in [events, outcomes] {
        check(topic, None, "tombstone", "");
        check(topic, Some(b"garbage".to_vec()), "framing", "");
        check(topic, Some(Vec::new()), "framing", "");
        check(topic, Some(vec![0, 0, 0, 3, 231, 1]), "unknown_schema", "999");
    }
    let mut cut = Scored::new(&Settings::default()).event("ann", 0, &json!({"visits": 1}));
    cut.truncate(cut.len() - 1);
    check(events, Some(cut), "malformed", "1");
}

#[test]
fn events_without_a_respondent_are_dead_lettered() {
    let fixture = Fixture::new();
    let someone = json!({"who": "ann", "visits": 1});
    let event = fixture.schema.from_json(&someone, "", EventTime(EPOCH_MS)).unwrap();
    let anonymous = QuestionnaireEvent { respondent_id: String::new(), ..event };
    let bytes = encoded(fixture.codecs.questionnaire.as_ref(), &anonymous);
    check(events, Some(bytes), "missing_field", "1");
    let of_nobody = Scored::new(&Settings::default()).outcome(" ", 1, "yes");
    check(outcomes, Some(of_nobody), "missing_field", "2");
}

#[test]
fn a_time_far_ahead_is_dead_lettered_and_closes_no_windows() {
    let scored = Scored::new(&Settings::default());
    let ahead = (NOW.0 - EPOCH_MS) / 1_000 + AHEAD_MAX.as_secs().cast_signed() + 1;
    check(events, Some(scored.event("ann", ahead, &json!({"done": true}))), "future_time", "");
    check(outcomes, Some(scored.outcome("ann", ahead, "yes")), "future_time", "");
    let mut scored = Scored::new(&Settings::default());
    scored.apply(&visit("ann", ahead - 1));
    assert_eq!(scored.predictions().len(), 1, "a little ahead is no harm");
}

#[test]
fn an_unknown_label_is_dead_lettered() {
    let unknown = Scored::new(&Settings::default()).outcome("ann", 1, "maybe");
    check(outcomes, Some(unknown), "unknown_label", "");
}

/// It is processed, because the operator of Foretell may not control the producer; and it is counted.
#[test]
fn a_record_that_is_not_keyed_by_its_respondent_is_counted() {
    let mut scored = Scored::new(&Settings::default());
    let (events, outcomes) = (events(&scored), outcomes(&scored));
    let event = scored.event("ann", 0, &json!({"visits": 1, "done": true}));
    let outcome = scored.outcome("ann", 1, "yes");
    scored.apply(&visit("bob", 0));
    scored.apply(&Operation::Raw(events.clone(), "visit-1", Some(event)));
    scored.apply(&Operation::Raw(outcomes.clone(), "visit-1", Some(outcome)));
    let name = "foretell_records_misplaced_total";
    assert_eq!(scored.counter(name, Some(events.as_str())), 0, "it shows when it is committed");
    assert_eq!(scored.predictions().len(), 2);
    for topic in [events, outcomes] {
        assert_eq!(scored.counter(name, Some(topic.as_str())), 1, "{topic}");
    }
}
