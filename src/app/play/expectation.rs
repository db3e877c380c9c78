//! The expected result of a script, by the rules of `processors::gather` and `processors::outcome_join`, and where a
//! play has to wait so that records are processed in that order.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    app::play::{Action, EventFactory, PlaySettings, Script},
    events::questionnaire::QuestionnaireEvent,
    processors::{gather::ScoreWhen, outcome_join::JoinSettings},
};
use foretell_streams::time::EventTime;

/// The stored answers of an incomplete questionnaire.
struct Partial {
    answered: Vec<bool>,
    is_scored: bool,
    time: EventTime,
}

/// Sets `is_scored` of each event. The script is sorted by event time.
pub(super) fn mark_scored(script: &mut Script, factory: &EventFactory, settings: &PlaySettings) {
    let mut partials: BTreeMap<String, Partial> = BTreeMap::new();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for scheduled in &mut script.actions {
        if let Action::Event { event, is_scored, prediction_id } = &mut scheduled.action {
            // An event with the same content and time as another is a repeat.
            let is_new = known.insert(prediction_id);
            *is_scored = is_new && gather(&mut partials, event, factory, settings);
        }
    }
}

/// Merges an event with the earlier answers of its respondent. Returns whether the result is scored.
fn gather(
    partials: &mut BTreeMap<String, Partial>,
    event: &QuestionnaireEvent,
    factory: &EventFactory,
    settings: &PlaySettings,
) -> bool {
    let given = factory.answered(&event.answers).into_iter();
    let before = partials.remove(&event.respondent_id);
    let before = before.filter(|before| event.event_time.since(before.time) <= settings.retention);
    let (answered, was_scored): (Vec<bool>, bool) = match before {
        Some(before) => {
            let both = given.zip(&before.answered).map(|(now, then)| now || *then);
            (both.collect(), before.is_scored)
        }
        None => (given.collect(), false),
    };
    let is_complete = event.completed || answered.iter().all(|is_answered| *is_answered);
    let count = answered.iter().filter(|is_answered| **is_answered).count();
    let is_scored = match factory.when {
        ScoreWhen::Complete => is_complete,
        ScoreWhen::Answers(enough) => !was_scored && (is_complete || count >= enough),
        ScoreWhen::EveryEvent => true,
    };
    if !is_complete {
        let partial =
            Partial { answered, is_scored: was_scored || is_scored, time: event.event_time };
        partials.insert(event.respondent_id.clone(), partial);
    }
    is_scored
}

/// Each wait takes about a commit interval: two minutes for all of them, if that is 100 ms.
const WAITS_MAX: usize = 1_000;

/// Indexes of actions before which everything sent must be processed, so that the joins do not depend on timing. Events
/// and outcomes are on two topics, so records sent at the same time are processed in either order. The order matters
/// only for respondents with several rows: it decides which of their predictions exist when an outcome arrives, and
/// whether stream time has closed a window by then.
///
/// # Errors
/// If there are more than [`WAITS_MAX`].
pub(super) fn waits(script: &Script, settings: &JoinSettings) -> Result<BTreeSet<usize>, String> {
    let mut waits = BTreeSet::new();
    // Returning respondents with records that may not be processed yet, and whether the last one is an outcome.
    let mut open: BTreeMap<&str, bool> = BTreeMap::new();
    let mut oldest: Option<EventTime> = None;
    for (index, scheduled) in script.actions.iter().enumerate() {
        let (respondent, is_outcome) = match &scheduled.action {
            Action::Event { event, .. } => (event.respondent_id.as_str(), false),
            Action::Outcome(outcome) => (outcome.respondent_id.as_str(), true),
            Action::Bad { .. } => continue,
        };
        let is_other = open.get(respondent).is_some_and(|before| *before != is_outcome);
        let is_late = oldest.is_some_and(|oldest| scheduled.at > oldest + settings.grace);
        if is_other || is_late {
            waits.insert(index);
            open.clear();
            oldest = None;
        }
        if script.returning.contains(respondent) {
            open.insert(respondent, is_outcome);
            oldest.get_or_insert(scheduled.at);
        }
    }
    if waits.len() > WAITS_MAX {
        return Err(format!(
            "respondents of the table have several rows, and to process their events and outcomes in order takes more \
             than {WAITS_MAX} waits: send fewer with --limit"
        ));
    }
    Ok(waits)
}
