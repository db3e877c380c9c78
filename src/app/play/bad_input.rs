//! Invalid and unusual records: some that no schema accepts, and what the event schema of the user allows.

use crate::{
    app::{
        play::{Action, EventFactory, PlaySettings, Script},
        table::Row,
    },
    events::{outcome::Outcome, questionnaire::QuestionnaireEvent},
};
use foretell_streams::time::EventTime;

/// Adds each kind `times` times, spread over the script. Returns whether the schema allows events without a respondent.
pub(super) fn add(
    script: &mut Script,
    sample: &Row,
    times: u32,
    factory: &mut EventFactory,
    settings: &PlaySettings,
) -> bool {
    let (start, end) = (script.start(), script.end());
    let mut respondent_is_optional = true;
    for round in 1..=times {
        let at = start + end.since(start).mul_f64(f64::from(round) / f64::from(times + 1));
        respondent_is_optional &= add_round(script, sample, at, factory, settings);
    }
    respondent_is_optional
}

fn add_round(
    script: &mut Script,
    sample: &Row,
    at: EventTime,
    factory: &mut EventFactory,
    settings: &PlaySettings,
) -> bool {
    let mut push = |key: String, value: Vec<u8>, class| {
        script.push(at, Action::Bad { key, value, class });
    };
    push(factory.new_respondent("garbage"), b"\xff\xfe not avro at all".to_vec(), "framing");
    // The header of the wire format, with a schema id that no registry has assigned.
    let unknown = b"\x00\x7f\xff\xff\xf0\x02\x02".to_vec();
    push(factory.new_respondent("unknown-schema"), unknown, "unknown_schema");
    let key = factory.new_respondent("no-respondent");
    let without_respondent = QuestionnaireEvent {
        respondent_id: String::new(),
        ..factory.event_of(&key, at, sample.answers.clone())
    };
    let rejected = factory.encode_invalid(&without_respondent);
    let respondent_is_optional = rejected.is_some();
    if let Some((value, class)) = rejected {
        push(key, value, class);
    }
    let respondent = factory.new_respondent("unseen");
    let event = factory.event_of(&respondent, at, sample.answers.clone());
    if let Some(event) = factory.with_unseen_categories(&event) {
        script.push_event(&settings.left(event, factory), factory);
    }
    let respondent = factory.new_respondent("out-of-range");
    let event = factory.event_of(&respondent, at, sample.answers.clone());
    if let Some(event) = factory.with_large_numbers(&event) {
        script.push_event(&settings.left(event, factory), factory);
    }
    let unmatched = Outcome {
        respondent_id: factory.new_respondent("unmatched"),
        outcome_time: at,
        label: sample.label.clone(),
        outcome_id: None,
    };
    script.push(at, Action::Outcome(unmatched));
    respondent_is_optional
}
