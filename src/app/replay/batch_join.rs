//! What joins, by the plain rule of `processors::outcome_join`: all of a respondent's predictions and outcomes, in order of
//! event time, at once. An implementation of its own, so that one can be held against the other.
//!
//! ```text
//!   per respondent, in order of time:   P1   O1   P2   O2        P  prediction   O  outcome
//!   an outcome is about the respondent: it is for every prediction within a window of it, whichever comes first
//! ```

use std::collections::BTreeMap;

use crate::{
    app::replay::{Action, ScheduledAction},
    processors::outcome_join::{ConflictPolicy, JoinSettings, LearnFrom},
};
use foretell_streams::time::EventTime;

/// What comes of predictions and outcomes when all windows are closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joins {
    /// Predictions with the outcome that they are learned from with.
    pub joined: usize,
    /// Further outcomes that replaced the one of an example.
    pub corrected: usize,
    /// Predictions whose outcome never comes.
    pub unlabelled: usize,
    /// Outcomes without a prediction.
    pub unmatched: usize,
}

/// Joins what `actions` say, which are in order of time. Events count only where they are scored.
#[must_use]
pub fn join(actions: &[ScheduledAction], settings: &JoinSettings) -> Joins {
    let mut respondents: BTreeMap<&str, Respondent<'_>> = BTreeMap::new();
    let mut joins = Joins::default();
    for scheduled in actions {
        let at = scheduled.at;
        match &scheduled.action {
            Action::Event { event, is_scored: true, .. } => {
                let respondent = respondents.entry(&event.respondent_id).or_default();
                respondent.predict(at, settings, &mut joins);
            }
            Action::Outcome(outcome) => {
                let respondent = respondents.entry(&outcome.respondent_id).or_default();
                respondent.hear(at, &outcome.label, settings, &mut joins);
            }
            Action::Event { is_scored: false, .. } | Action::Bad { .. } => {}
        }
    }
    for respondent in respondents.values() {
        let open = respondent.predictions.iter();
        joins.unlabelled += open.filter(|one| matches!(one.fate, JoinState::Open)).count();
        joins.unmatched += respondent.outcomes.iter().filter(|one| one.is_unmatched).count();
    }
    joins
}

#[derive(Default)]
struct Respondent<'a> {
    predictions: Vec<Predicted<'a>>,
    outcomes: Vec<Known<'a>>,
}

struct Predicted<'a> {
    at: EventTime,
    fate: JoinState<'a>,
}

enum JoinState<'a> {
    Open,
    /// It is learned from with this label.
    Learned(&'a str),
    /// Another of the respondent's is learned from.
    PassedOver,
}

/// An outcome that predictions still to come are joined with.
struct Known<'a> {
    at: EventTime,
    label: &'a str,
    is_unmatched: bool,
}

impl<'a> Respondent<'a> {
    fn predict(&mut self, at: EventTime, settings: &JoinSettings, joins: &mut Joins) {
        let is_near = |other: EventTime| is_near(at, other, settings);
        let near = self.predictions.iter().filter(|one| is_near(one.at));
        let is_full = near.count() >= settings.predictions_max;
        let is_every = settings.learn_from == LearnFrom::Every;
        let mut learned = self.predictions.iter().filter(|one| is_near(one.at));
        let is_learned = learned.any(|one| matches!(one.fate, JoinState::Learned(_)));
        let fate = if is_learned && !is_every { JoinState::PassedOver } else { JoinState::Open };
        let mut prediction = Predicted { at, fate };
        for outcome in self.outcomes.iter_mut().filter(|outcome| is_near(outcome.at)) {
            prediction.settle(outcome.label, settings, joins);
            outcome.is_unmatched = false;
        }
        if !is_every {
            self.outcomes.retain(|outcome| !is_near(outcome.at));
        }
        if is_full {
            if settings.learn_from == LearnFrom::First {
                return;
            }
            if let Some(oldest) = self.predictions.iter().position(|one| is_near(one.at)) {
                self.predictions.remove(oldest);
            }
        }
        self.predictions.push(prediction);
    }

    fn hear(&mut self, at: EventTime, label: &'a str, settings: &JoinSettings, joins: &mut Joins) {
        let mut near: Vec<&mut Predicted<'a>> =
            self.predictions.iter_mut().filter(|one| is_near(at, one.at, settings)).collect();
        let is_matched = !near.is_empty();
        let learned = near.iter().position(|one| matches!(one.fate, JoinState::Learned(_)));
        let chosen = match settings.learn_from {
            LearnFrom::Every => None,
            LearnFrom::First => Some(learned.unwrap_or(0)),
            LearnFrom::Last => Some(learned.unwrap_or(near.len().saturating_sub(1))),
        };
        for (index, prediction) in near.iter_mut().enumerate() {
            if chosen.is_none_or(|chosen| chosen == index) {
                prediction.settle(label, settings, joins);
            } else if matches!(prediction.fate, JoinState::Open) {
                prediction.fate = JoinState::PassedOver;
            }
        }
        let waits = !is_matched || settings.learn_from == LearnFrom::Every;
        let is_known = |known: &Known<'_>| known.label == label && is_near(at, known.at, settings);
        if waits && !self.outcomes.iter().any(is_known) {
            self.outcomes.push(Known { at, label, is_unmatched: !is_matched });
        }
    }
}

impl<'a> Predicted<'a> {
    fn settle(&mut self, label: &'a str, settings: &JoinSettings, joins: &mut Joins) {
        match self.fate {
            JoinState::Open | JoinState::PassedOver => joins.joined += 1,
            JoinState::Learned(known) if known == label => return,
            JoinState::Learned(_) => match settings.conflict {
                ConflictPolicy::First => return,
                ConflictPolicy::Last => joins.corrected += 1,
            },
        }
        self.fate = JoinState::Learned(label);
    }
}

fn is_near(one: EventTime, other: EventTime, settings: &JoinSettings) -> bool {
    one.since(other).max(other.since(one)) <= settings.window
}
