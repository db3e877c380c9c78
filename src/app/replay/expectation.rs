//! What must come of a script, by the rules of `processors::gather` and `processors::outcome_join`, in order of time, and
//! where a play has to wait so that it comes in that order.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    app::replay::{Action, EventForm, ReplaySettings, Script},
    events::questionnaire::QuestionnaireEvent,
    processors::{gather::ScoreWhen, outcome_join::JoinSettings},
};
use foretell_streams::time::EventTime;

/// A questionnaire that is not complete.
struct Partial {
    answered: Vec<bool>,
    is_scored: bool,
    time: EventTime,
}

/// Says of each event of a sorted script whether it is scored.
pub(super) fn mark_scored(script: &mut Script, form: &EventForm, settings: &ReplaySettings) {
    let mut partials: BTreeMap<String, Partial> = BTreeMap::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for scheduled in &mut script.actions {
        if let Action::Event { event, is_scored, prediction_id } = &mut scheduled.action {
            // A piece with the content and the time of another is a repeat.
            let is_new = seen.insert(prediction_id);
            *is_scored = is_new && gather(&mut partials, event, form, settings);
        }
    }
}

fn gather(
    partials: &mut BTreeMap<String, Partial>,
    event: &QuestionnaireEvent,
    form: &EventForm,
    settings: &ReplaySettings,
) -> bool {
    let given = event.answers.iter().map(Option::is_some);
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
    let is_scored = match form.when {
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

/// Each takes about a commit interval, so these take two minutes at most where that is 100 ms.
const WAITS_MAX: usize = 1_000;

/// Before which actions all that were sent are to be processed, so that what joins does not depend on chance: events and
/// outcomes are on two topics, and what is sent to both at once may be processed in either order. That matters only for
/// respondents who come back: which of their predictions are there when an outcome comes, and whether stream time has
/// closed a window by then.
///
/// # Errors
/// If there are too many of them to wait for; it says so.
pub(super) fn waits(script: &Script, settings: &JoinSettings) -> Result<BTreeSet<usize>, String> {
    let mut waits = BTreeSet::new();
    // What may not be processed yet, of those who come back: of each, whether an outcome was sent last.
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
            "respondents of the table come back, and to play all of their events and outcomes in order takes more than \
             {WAITS_MAX} waits: play fewer with --limit"
        ));
    }
    Ok(waits)
}
