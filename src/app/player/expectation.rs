//! What must come of a script, by the rules of `processors::gather` and `processors::outcome_join`, in order of time.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    app::player::{Action, EventForm, PlaySettings, Script},
    events::questionnaire::QuestionnaireEvent,
    processors::{gather::ScoreWhen, outcome_join::LearnFrom},
    streams::time::EventTime,
};

/// What joins: known where each respondent comes once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joins {
    /// Labelled examples: outcomes with the predictions that are learned from.
    pub joined: usize,
    /// Predictions whose outcome never comes.
    pub unlabelled: usize,
    /// Outcomes without a prediction.
    pub unmatched: usize,
}

/// A questionnaire that is not complete.
struct Partial {
    answered: Vec<bool>,
    is_scored: bool,
    time: EventTime,
}

/// Says of each event of a sorted script whether it is scored.
pub(super) fn mark_scored(script: &mut Script, form: &EventForm, settings: &PlaySettings) {
    let mut partials: BTreeMap<String, Partial> = BTreeMap::new();
    for scheduled in &mut script.actions {
        if let Action::Event { event, is_scored, .. } = &mut scheduled.action {
            *is_scored = gather(&mut partials, event, form, settings);
        }
    }
}

fn gather(
    partials: &mut BTreeMap<String, Partial>,
    event: &QuestionnaireEvent,
    form: &EventForm,
    settings: &PlaySettings,
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

/// What joins; none if it depends on which of a respondent's predictions still wait when an outcome comes.
pub(super) fn joins(script: &Script, settings: &PlaySettings) -> Option<Joins> {
    let mut scored: BTreeMap<&str, usize> = BTreeMap::new();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for scheduled in &script.actions {
        match &scheduled.action {
            Action::Event { event, is_scored, .. } => {
                *scored.entry(&event.respondent_id).or_default() += usize::from(*is_scored);
            }
            Action::Outcome(outcome) => {
                known.insert(&outcome.respondent_id);
            }
            Action::Bad { .. } => {}
        }
    }
    if script.is_anyone_back || scored.values().any(|times| *times > settings.predictions_max) {
        return None;
    }
    let mut joins = Joins::default();
    for (respondent, times) in &scored {
        match (known.contains(respondent), settings.learn_from) {
            (false, _) => joins.unlabelled += times,
            (true, LearnFrom::Every) => joins.joined += times,
            (true, LearnFrom::First | LearnFrom::Last) => joins.joined += (*times).min(1),
        }
    }
    let is_scored = |respondent: &&&str| scored.get(**respondent).is_some_and(|times| *times > 0);
    joins.unmatched = known.len() - known.iter().filter(is_scored).count();
    Some(joins)
}
