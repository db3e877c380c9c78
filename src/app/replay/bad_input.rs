//! What a careless world sends besides: records that no schema takes, and what the user's schema lets be wrong.

use crate::{
    app::replay::{Action, EventForm, Script},
    events::{
        outcome::Outcome,
        questionnaire::{Answer, QuestionnaireEvent},
    },
};
use foretell_streams::time::EventTime;

/// Adds each kind `times` times, spread over the play; true if the schema lets events without a respondent be written.
pub(super) fn add(
    script: &mut Script,
    sample: &[Option<Answer>],
    label: &str,
    times: u32,
    form: &mut EventForm,
) -> bool {
    let (start, end) = (script.start(), script.end());
    let mut has_nobody = true;
    for round in 1..=times {
        let at = start + end.since(start).mul_f64(f64::from(round) / f64::from(times + 1));
        has_nobody &= add_round(script, sample, label, at, form);
    }
    has_nobody
}

fn add_round(
    script: &mut Script,
    sample: &[Option<Answer>],
    label: &str,
    at: EventTime,
    form: &mut EventForm,
) -> bool {
    let mut push = |key: String, value: Vec<u8>, class| {
        script.push(at, Action::Bad { key, value, class });
    };
    push(form.new_respondent("garbage"), b"\xff\xfe not avro at all".to_vec(), "framing");
    // The wire format's header, with a schema id that nobody has given out.
    let unknown = b"\x00\x7f\xff\xff\xf0\x02\x02".to_vec();
    push(form.new_respondent("unknown-schema"), unknown, "unknown_schema");
    let who = form.new_respondent("nobody");
    let nobody = QuestionnaireEvent {
        respondent_id: String::new(),
        ..form.event_of(&who, at, sample.to_vec())
    };
    let refused = form.refused(&nobody);
    let has_nobody = refused.is_some();
    if let Some((value, class)) = refused {
        push(who, value, class);
    }
    let who = form.new_respondent("unseen");
    let unseen = form.event_of(&who, at, sample.to_vec());
    if let Some(event) = form.with_unseen_categories(&unseen) {
        script.push_event(event, form);
    }
    let who = form.new_respondent("out-of-range");
    let large = form.event_of(&who, at, sample.to_vec());
    if let Some(event) = form.with_large_numbers(&large) {
        script.push_event(event, form);
    }
    let respondent_id = form.new_respondent("stranger");
    let for_nobody =
        Outcome { respondent_id, outcome_time: at, label: label.to_owned(), outcome_id: None };
    script.push(at, Action::Outcome(for_nobody));
    has_nobody
}
