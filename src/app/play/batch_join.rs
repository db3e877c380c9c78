//! The rule of `processors::outcome_join` as a batch: it joins all predictions and outcomes of a respondent in order of
//! event time. It is a second implementation, so that tests and the demo can compare the two.
//!
//! ```text
//!   per respondent, in order of time:   P1   O1   P2   O2        P  prediction   O  outcome
//!   an outcome belongs to every prediction of its respondent within a window around it, before or after
//! ```

use std::collections::BTreeMap;

use crate::{
    app::play::{Action, ScheduledAction},
    processors::outcome_join::{ConflictPolicy, JoinSettings, LearnFrom},
};
use foretell_streams::time::EventTime;

/// Result of a join, once all windows are closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joins {
    /// Predictions with an outcome: labelled examples.
    pub joined: usize,
    /// Corrections: later outcomes that replace the label of an example.
    pub corrected: usize,
    /// Predictions without an outcome.
    pub unlabelled: usize,
    /// Outcomes without a prediction.
    pub unmatched: usize,
}

/// Joins the predictions and outcomes of `actions`, which are in order of event time. Only scored events get a prediction.
#[must_use]
pub fn join(actions: &[ScheduledAction], settings: &JoinSettings) -> Joins {
    let mut respondents: BTreeMap<&str, Respondent<'_>> = BTreeMap::new();
    let mut joins = Joins::default();
    for scheduled in actions {
        let at = scheduled.at;
        match &scheduled.action {
            Action::Event { event, is_scored: true, .. } => {
                let respondent = respondents.entry(&event.respondent_id).or_default();
                respondent.add_prediction(at, settings, &mut joins);
            }
            Action::Outcome(outcome) => {
                let respondent = respondents.entry(&outcome.respondent_id).or_default();
                respondent.add_outcome(at, &outcome.label, settings, &mut joins);
            }
            Action::Event { is_scored: false, .. } | Action::Bad { .. } => {}
        }
    }
    for respondent in respondents.values() {
        let open = respondent.predictions.iter();
        joins.unlabelled += open.filter(|one| matches!(one.state, JoinState::Open)).count();
        joins.unmatched += respondent.outcomes.iter().filter(|one| one.is_unmatched).count();
    }
    joins
}

#[derive(Default)]
struct Respondent<'a> {
    predictions: Vec<JoinedPrediction<'a>>,
    outcomes: Vec<WaitingOutcome<'a>>,
}

struct JoinedPrediction<'a> {
    at: EventTime,
    state: JoinState<'a>,
}

enum JoinState<'a> {
    Open,
    /// Became an example with this label.
    Labelled(&'a str),
    /// Not used: another prediction of the respondent became the example.
    Skipped,
}

/// An outcome that later predictions are joined with.
struct WaitingOutcome<'a> {
    at: EventTime,
    label: &'a str,
    is_unmatched: bool,
}

impl<'a> Respondent<'a> {
    fn add_prediction(&mut self, at: EventTime, settings: &JoinSettings, joins: &mut Joins) {
        let is_near = |other: EventTime| is_near(at, other, settings);
        let near = self.predictions.iter().filter(|one| is_near(one.at));
        let is_full = near.count() >= settings.predictions_max;
        let is_every = settings.learn_from == LearnFrom::Every;
        let mut near = self.predictions.iter().filter(|one| is_near(one.at));
        let is_labelled = near.any(|one| matches!(one.state, JoinState::Labelled(_)));
        let state = if is_labelled && !is_every { JoinState::Skipped } else { JoinState::Open };
        let mut prediction = JoinedPrediction { at, state };
        for outcome in self.outcomes.iter_mut().filter(|outcome| is_near(outcome.at)) {
            prediction.label(outcome.label, settings, joins);
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

    fn add_outcome(
        &mut self,
        at: EventTime,
        label: &'a str,
        settings: &JoinSettings,
        joins: &mut Joins,
    ) {
        let mut near: Vec<&mut JoinedPrediction<'a>> =
            self.predictions.iter_mut().filter(|one| is_near(at, one.at, settings)).collect();
        let is_matched = !near.is_empty();
        let labelled = near.iter().position(|one| matches!(one.state, JoinState::Labelled(_)));
        let chosen = match settings.learn_from {
            LearnFrom::Every => None,
            LearnFrom::First => Some(labelled.unwrap_or(0)),
            LearnFrom::Last => Some(labelled.unwrap_or(near.len().saturating_sub(1))),
        };
        for (index, prediction) in near.iter_mut().enumerate() {
            if chosen.is_none_or(|chosen| chosen == index) {
                prediction.label(label, settings, joins);
            } else if matches!(prediction.state, JoinState::Open) {
                prediction.state = JoinState::Skipped;
            }
        }
        let waits = !is_matched || settings.learn_from == LearnFrom::Every;
        let is_known =
            |known: &WaitingOutcome<'_>| known.label == label && is_near(at, known.at, settings);
        if waits && !self.outcomes.iter().any(is_known) {
            self.outcomes.push(WaitingOutcome { at, label, is_unmatched: !is_matched });
        }
    }
}

impl<'a> JoinedPrediction<'a> {
    fn label(&mut self, label: &'a str, settings: &JoinSettings, joins: &mut Joins) {
        match self.state {
            JoinState::Open | JoinState::Skipped => joins.joined += 1,
            JoinState::Labelled(known) if known == label => return,
            JoinState::Labelled(_) => match settings.conflict {
                ConflictPolicy::First => return,
                ConflictPolicy::Last => joins.corrected += 1,
            },
        }
        self.state = JoinState::Labelled(label);
    }
}

fn is_near(one: EventTime, other: EventTime, settings: &JoinSettings) -> bool {
    one.since(other).max(other.since(one)) <= settings.window
}
