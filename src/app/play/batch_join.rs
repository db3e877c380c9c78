//! The rule of `processors::outcome_join` as a batch: it goes through all predictions and outcomes in the order in which they
//! arrived, and looks at every earlier one of the respondent. It is a second implementation, without a store, timers or
//! commits, so that tests and the demo can compare the two.
//!
//! ```text
//!   per respondent, in event time:   P1   O1   P2   O2        P  prediction   O  outcome
//!   an outcome belongs to every prediction of its respondent within a window around it, before or after, if the one that
//!   arrives later does so before stream time has passed window and grace after the time of the other
//!
//!   a prediction that closes without an outcome is as if one came at the end of its window: of the predictions from it up to
//!   then, the one that `learn_from` chooses is unlabelled; none is if one was learned from
//! ```

use std::{collections::BTreeMap, ops::RangeInclusive};

use crate::{
    app::play::{Action, ScheduledAction},
    processors::outcome_join::{ConflictPolicy, Emit, JoinSettings, LearnFrom, UnlabelledPolicy},
};
use foretell_streams::time::EventTime;

/// Result of a join, once all windows are closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joins {
    /// Predictions with an outcome: labelled examples.
    pub joined: usize,
    /// Corrections: later outcomes that replace the label of an example.
    pub corrected: usize,
    /// Predictions without an outcome; with a label for them, those that get it.
    pub unlabelled: usize,
    /// Outcomes without a prediction.
    pub unmatched: usize,
    /// Outcomes that arrived after their window and grace.
    pub late: usize,
}

impl Joins {
    /// Number of labelled examples, without corrections.
    #[must_use]
    pub fn examples(&self, settings: &JoinSettings) -> usize {
        match settings.unlabelled {
            UnlabelledPolicy::Drop => self.joined,
            UnlabelledPolicy::Label(_) => self.joined + self.unlabelled,
        }
    }
}

/// A labelled example, or a correction of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinedExample<'a> {
    /// The respondent.
    pub respondent_id: &'a str,
    /// Event time of the prediction.
    pub predicted: EventTime,
    /// The label.
    pub label: &'a str,
    /// Event time of the outcome; none if the label is that of the policy for predictions without an outcome.
    pub outcome_time: Option<EventTime>,
    /// Whether it replaces an example.
    pub correction: bool,
}

/// Counts the joins of `actions`, which are in the order of their arrival. Only scored events get a prediction.
#[must_use]
pub fn join<'a>(
    actions: impl IntoIterator<Item = &'a ScheduledAction>,
    settings: &'a JoinSettings,
) -> Joins {
    join_examples(actions, settings).1
}

/// The labelled examples of `actions` as well, in the order of their making; those that are made when a window closes last.
#[must_use]
pub fn join_examples<'a>(
    actions: impl IntoIterator<Item = &'a ScheduledAction>,
    settings: &'a JoinSettings,
) -> (Vec<JoinedExample<'a>>, Joins) {
    let (stream_time, joins) = (EventTime::MIN, Joins::default());
    let mut made = Made { settings, stream_time, examples: Vec::new(), joins };
    let mut respondents: BTreeMap<&str, Respondent<'_>> = BTreeMap::new();
    for ScheduledAction { at, action } in actions {
        made.stream_time = made.stream_time.max(*at);
        match action {
            Action::Event { event, is_scored: true, .. } => {
                let id = event.respondent_id.as_str();
                respondents.entry(id).or_default().add_prediction(id, *at, &mut made);
            }
            Action::Outcome(outcome) => {
                let waiting = WaitingOutcome { at: *at, label: &outcome.label, is_unmatched: true };
                let id = outcome.respondent_id.as_str();
                respondents.entry(id).or_default().add_outcome(id, waiting, &mut made);
            }
            Action::Event { is_scored: false, .. }
            | Action::OutcomeIf { .. }
            | Action::Bad { .. } => {}
        }
    }
    made.stream_time = EventTime::MAX;
    for (id, mut respondent) in respondents {
        respondent.close(id, &mut made);
        made.joins.unmatched += respondent.outcomes.iter().filter(|one| one.is_unmatched).count();
    }
    (made.examples, made.joins)
}

/// What was made so far.
struct Made<'a> {
    settings: &'a JoinSettings,
    /// The newest event time so far.
    stream_time: EventTime,
    examples: Vec<JoinedExample<'a>>,
    joins: Joins,
}

#[derive(Default)]
struct Respondent<'a> {
    /// In the order of their times.
    predictions: Vec<JoinedPrediction<'a>>,
    /// Those that later predictions are joined with, in the order of their times.
    outcomes: Vec<WaitingOutcome<'a>>,
}

struct JoinedPrediction<'a> {
    at: EventTime,
    state: JoinState<'a>,
    is_closed: bool,
}

enum JoinState<'a> {
    Open,
    /// It has an outcome with this label, of this time.
    Labelled(&'a str, EventTime),
    /// Not used: another prediction of the respondent became the example.
    Skipped,
    /// Becomes an example by the policy, if it closes without an outcome.
    Chosen,
}

/// An outcome that later predictions are joined with.
struct WaitingOutcome<'a> {
    at: EventTime,
    label: &'a str,
    is_unmatched: bool,
}

impl<'a> Made<'a> {
    /// Entries before it have closed.
    fn opens(&self) -> EventTime {
        self.stream_time - self.settings.window - self.settings.grace
    }

    /// The times of the entries that can be joined with one of `at`: those in its window that have not closed.
    fn near(&self, at: EventTime) -> RangeInclusive<EventTime> {
        let window = self.settings.window;
        (at - window).max(self.opens())..=at + window
    }

    /// The place of a label in the order of the labels.
    fn place(&self, label: &str) -> Option<usize> {
        self.settings.classes.iter().position(|class| class == label)
    }

    /// Labels a prediction with an outcome.
    fn label(
        &mut self,
        respondent_id: &'a str,
        prediction: &mut JoinedPrediction<'a>,
        outcome: &WaitingOutcome<'a>,
    ) {
        let correction = match prediction.state {
            JoinState::Labelled(known, _) if known == outcome.label => return,
            JoinState::Labelled(known, _) => match self.settings.conflict {
                ConflictPolicy::First => return,
                ConflictPolicy::Last => true,
                ConflictPolicy::Max if self.place(known) < self.place(outcome.label) => true,
                ConflictPolicy::Max => return,
            },
            JoinState::Open | JoinState::Chosen | JoinState::Skipped => false,
        };
        let counter = if correction { &mut self.joins.corrected } else { &mut self.joins.joined };
        *counter += 1;
        prediction.state = JoinState::Labelled(outcome.label, outcome.at);
        if self.settings.emit == Emit::OnUpdate {
            self.examples.push(JoinedExample {
                respondent_id,
                predicted: prediction.at,
                label: outcome.label,
                outcome_time: Some(outcome.at),
                correction,
            });
        }
    }

    /// Makes the example of a prediction that leaves, if it is held.
    fn emit_held(&mut self, respondent_id: &'a str, prediction: &JoinedPrediction<'a>) {
        if let JoinState::Labelled(label, at) = prediction.state
            && self.settings.emit == Emit::OnClose
        {
            self.examples.push(JoinedExample {
                respondent_id,
                predicted: prediction.at,
                label,
                outcome_time: Some(at),
                correction: false,
            });
        }
    }
}

impl<'a> Respondent<'a> {
    fn add_prediction(&mut self, id: &'a str, at: EventTime, made: &mut Made<'a>) {
        self.close(id, made);
        let settings = made.settings;
        let times = made.near(at);
        let near = self.predictions.iter().filter(|one| times.contains(&one.at));
        let is_full = near.clone().count() >= settings.predictions_max;
        let is_labelled = near.clone().any(|one| matches!(one.state, JoinState::Labelled(..)));
        let is_every = settings.learn_from == LearnFrom::Every;
        let state = if is_labelled && !is_every { JoinState::Skipped } else { JoinState::Open };
        let mut prediction = JoinedPrediction { at, state, is_closed: false };
        for outcome in self.outcomes.iter_mut().filter(|one| times.contains(&one.at)) {
            outcome.is_unmatched = false;
            made.label(id, &mut prediction, outcome);
        }
        if !is_every {
            self.outcomes.retain(|outcome| !times.contains(&outcome.at));
        }
        if is_full {
            if settings.learn_from == LearnFrom::First {
                made.emit_held(id, &prediction);
                return;
            }
            let oldest = self.predictions.iter().position(|one| times.contains(&one.at));
            if let Some(oldest) = oldest.map(|oldest| self.predictions.remove(oldest)) {
                made.emit_held(id, &oldest);
            }
        }
        let place = self.predictions.partition_point(|one| one.at <= at);
        self.predictions.insert(place, prediction);
    }

    fn add_outcome(&mut self, id: &'a str, outcome: WaitingOutcome<'a>, made: &mut Made<'a>) {
        self.close(id, made);
        let (at, learn_from) = (outcome.at, made.settings.learn_from);
        let times = made.near(at);
        let near = self.predictions.iter_mut().filter(|one| times.contains(&one.at));
        let mut near: Vec<&mut JoinedPrediction<'a>> = near.collect();
        let is_matched = !near.is_empty();
        if !is_matched && !times.contains(&at) {
            made.joins.late += 1;
            return;
        }
        let labelled = near.iter().position(|one| matches!(one.state, JoinState::Labelled(..)));
        let chosen = match learn_from {
            LearnFrom::Every => None,
            LearnFrom::First => Some(labelled.unwrap_or(0)),
            LearnFrom::Last => Some(labelled.unwrap_or(near.len().saturating_sub(1))),
        };
        for (index, prediction) in near.iter_mut().enumerate() {
            if chosen.is_none_or(|chosen| chosen == index) {
                made.label(id, prediction, &outcome);
            } else if prediction.is_waiting() {
                prediction.state = JoinState::Skipped;
            }
        }
        let is_known =
            |known: &WaitingOutcome<'_>| known.label == outcome.label && times.contains(&known.at);
        let waits = !is_matched || learn_from == LearnFrom::Every;
        if waits && !self.outcomes.iter().any(is_known) {
            let place = self.outcomes.partition_point(|one| one.at <= at);
            let outcome = WaitingOutcome { is_unmatched: !is_matched, ..outcome };
            self.outcomes.insert(place, outcome);
        }
    }

    /// Completes the predictions whose windows have closed since the last time, in the order of their times.
    fn close(&mut self, id: &'a str, made: &mut Made<'a>) {
        let JoinSettings { window, learn_from, unlabelled, .. } = made.settings;
        let opens = made.opens();
        for index in 0..self.predictions.len() {
            let at = self.predictions[index].at;
            if at >= opens || std::mem::replace(&mut self.predictions[index].is_closed, true) {
                continue;
            }
            made.emit_held(id, &self.predictions[index]);
            let UnlabelledPolicy::Label(label) = unlabelled else {
                made.joins.unlabelled += usize::from(self.predictions[index].is_waiting());
                continue;
            };
            if matches!(self.predictions[index].state, JoinState::Open) {
                self.choose(index, at + *window, *learn_from);
            }
            if matches!(self.predictions[index].state, JoinState::Chosen) {
                made.joins.unlabelled += 1;
                made.examples.push(JoinedExample {
                    respondent_id: id,
                    predicted: at,
                    label,
                    outcome_time: None,
                    correction: false,
                });
            }
        }
    }

    /// Chooses one of the predictions from `closing` up to the end of its window, as an outcome then would.
    fn choose(&mut self, closing: usize, end: EventTime, learn_from: LearnFrom) {
        let from = self.predictions[closing..].iter_mut().enumerate();
        let group = from.filter(|(index, one)| *index == 0 || !one.is_closed && one.at <= end);
        let mut group: Vec<&mut JoinedPrediction<'a>> = group.map(|(_, one)| one).collect();
        if learn_from == LearnFrom::Every {
            group.truncate(1);
        }
        let is_learned = group.iter().any(|one| matches!(one.state, JoinState::Labelled(..)));
        group.retain(|one| one.is_waiting());
        group.iter_mut().for_each(|one| one.state = JoinState::Skipped);
        let chosen = match learn_from {
            LearnFrom::First | LearnFrom::Every => group.into_iter().next(),
            LearnFrom::Last => group.into_iter().next_back(),
        };
        if let Some(chosen) = chosen.filter(|_| !is_learned) {
            chosen.state = JoinState::Chosen;
        }
    }
}

impl JoinedPrediction<'_> {
    fn is_waiting(&self) -> bool {
        matches!(self.state, JoinState::Open | JoinState::Chosen)
    }
}
