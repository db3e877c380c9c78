//! Questions about respondents, answered from the stores.

use foretell::events::{
    outcome::Outcome,
    questionnaire::Answer,
    reply::{REQUEST_HEADER, ReplyResult},
    respondent::{Respondent, RespondentQuery},
};
use foretell_streams::{
    record::{Header, OutputRecord},
    time::EventTime,
};
use serde_json::json;

use crate::{
    fixture::{EPOCH_MS, NOW},
    scored::{GAP, Operation, Scored, Settings, encoded, outcome, time_is, visit},
};

/// Pipes in a question. Its timestamp is far ahead of the events.
fn ask(scored: &mut Scored, who: &str, request: Option<&str>) {
    let query = RespondentQuery { respondent_id: who.to_owned() };
    let header =
        |id: &str| Header { name: REQUEST_HEADER.to_owned(), value: id.as_bytes().to_vec() };
    let record = OutputRecord {
        topic: scored.fixture.topics.queries.clone(),
        partition: None,
        timestamp: EventTime(NOW.0),
        key: Some(who.as_bytes().to_vec()),
        value: Some(encoded(&RespondentQuery::codec(), &query)),
        headers: request.map(header).into_iter().collect(),
    };
    scored.driver.pipe_record(record).unwrap();
}

/// What a question about a respondent is answered.
pub(crate) fn answer(scored: &mut Scored, who: &str) -> Respondent {
    ask(scored, who, Some("r"));
    let mut replies = scored.replies();
    let reply = replies.pop().unwrap();
    assert_eq!(
        (replies.len(), reply.request_id.as_str(), reply.respondent_id.as_str()),
        (0, "r", who)
    );
    let ReplyResult::Respondent(respondent) = reply.result else { panic!("{reply:?}") };
    respondent
}

fn time(seconds: i64) -> EventTime {
    EventTime(EPOCH_MS + seconds * 1_000)
}

#[test]
fn a_question_is_answered_from_the_stores() {
    let mut scored = Scored::new(&Settings::default());
    assert!(answer(&mut scored, "ann").is_unknown());
    scored.apply(&visit("ann", 10));
    scored.apply(&visit("ann", 20));
    scored.apply(&Operation::Event("ann", 30, json!({"visits": 3})));
    scored.apply(&outcome("bob", 31, "yes"));
    let ann = answer(&mut scored, "ann");
    assert_eq!(ann.stream_time, time(31), "a question does not advance stream time");
    let open = ann.open.clone().unwrap();
    assert_eq!((open.event_time, open.is_scored), (time(30), false));
    assert_eq!(open.answers, [("visits".to_owned(), Some(Answer::Number(3.0)))]);
    let shown = |respondent: &Respondent| {
        let kept = respondent.predictions.iter();
        let kept = kept.map(|kept| (kept.event_time, kept.outcome.clone(), kept.is_passed_over));
        kept.collect::<Vec<_>>()
    };
    assert_eq!(shown(&ann), [(time(20), None, false), (time(10), None, false)], "newest first");
    let predictions = scored.predictions();
    let newest = ann.predictions[0].prediction.as_ref();
    assert_eq!(newest.unwrap().respondent_id, "ann");
    assert!(predictions.is_empty() || predictions.contains(newest.unwrap()), "as published");

    scored.apply(&outcome("ann", 40, "no"));
    let ann = answer(&mut scored, "ann");
    let learned = (time(10), Some("no".to_owned()), false);
    assert_eq!(shown(&ann), [(time(20), None, true), learned]);
    assert_eq!(ann.predictions[1].prediction, None, "it is not needed any more");

    let bob = answer(&mut scored, "bob");
    assert_eq!((bob.open, bob.predictions), (None, Vec::new()));
    let waits = Outcome {
        respondent_id: "bob".to_owned(),
        outcome_time: time(31),
        label: "yes".to_owned(),
        outcome_id: None,
    };
    assert_eq!(bob.outcomes, [waits]);
}

#[test]
fn an_answer_survives_a_restart() {
    let mut scored = Scored::new(&Settings::default());
    for at in 0..8 {
        scored.apply(&visit("kiosk", at));
    }
    let before = answer(&mut scored, "kiosk");
    let times = before.predictions.iter().map(|kept| kept.event_time);
    assert_eq!(times.collect::<Vec<_>>(), (0..8).rev().map(time).collect::<Vec<_>>());
    scored.apply(&Operation::Restart);
    assert_eq!(answer(&mut scored, "kiosk"), before);
}

#[test]
fn a_question_that_nobody_waits_for_has_no_answer_and_a_malformed_one_is_a_dead_letter() {
    let mut scored = Scored::new(&Settings::default());
    ask(&mut scored, "ann", None);
    let topic = scored.fixture.topics.queries.clone();
    scored.apply(&Operation::Raw(topic, "ann", Some(b"nonsense".to_vec())));
    assert_eq!(scored.outputs(), ["dead-lettered shop.queries@1: malformed"]);
}

#[test]
fn a_session_that_stream_time_has_ended_is_not_open() {
    let mut scored = Scored::new(&Settings::default());
    scored.apply(&Operation::Event("ann", 0, json!({"visits": 3})));
    // The last punctuation before its end.
    scored.apply(&time_is(GAP));
    assert!(answer(&mut scored, "ann").open.is_some());
    scored.apply(&time_is(GAP + 1));
    assert_eq!(answer(&mut scored, "ann").open, None);
}
