//! The settings of the outcome join.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::processors::join_window::JoinWindow;

/// The settings of the outcome join.
#[derive(Clone, Debug)]
pub struct JoinSettings {
    /// Maximum difference in event time between a prediction and its outcome.
    pub window: Duration,
    /// Stream time after the window in which both are still kept.
    pub grace: Duration,
    /// Treatment of a second, different outcome.
    pub conflict: ConflictPolicy,
    /// The predictions of a respondent that are learned from.
    pub learn_from: LearnFrom,
    /// Maximum number of predictions of one respondent that wait for outcomes inside one window.
    pub predictions_max: usize,
    /// Treatment of a prediction without an outcome.
    pub unlabelled: UnlabelledPolicy,
    /// When labelled examples are made.
    pub emit: Emit,
    /// The configured labels.
    pub classes: Vec<String>,
}

impl JoinSettings {
    /// Whether an outcome with this label replaces a different one that was learned from.
    pub fn replaces(&self, label: &str, learned: &str) -> bool {
        let place = |label| self.classes.iter().position(|class| class == label);
        match self.conflict {
            ConflictPolicy::First => false,
            ConflictPolicy::Last => true,
            ConflictPolicy::Max => place(label) > place(learned),
        }
    }

    /// The label of a prediction after all of these outcomes, in order of time; none if there are none and it gets no label.
    #[must_use]
    pub fn final_label<'l>(&self, outcomes: impl Iterator<Item = &'l str>) -> Option<String> {
        let last = outcomes.reduce(
            |learned, label| {
                if self.replaces(label, learned) { label } else { learned }
            },
        );
        match (last, &self.unlabelled) {
            (Some(label), _) => Some(label.to_owned()),
            (None, UnlabelledPolicy::Label(label)) => Some(label.clone()),
            (None, UnlabelledPolicy::Drop) => None,
        }
    }

    /// Stream time from a prediction until no label of it can come any more.
    #[must_use]
    pub fn labels_within(&self) -> Duration {
        let window = self.join_window();
        let closes = self.window + self.grace;
        match (self.emit, &self.unlabelled) {
            (Emit::OnUpdate, UnlabelledPolicy::Drop) => closes,
            // Examples are made when closed entries are removed.
            (Emit::OnClose, _) | (_, UnlabelledPolicy::Label(_)) => {
                closes + window.removal_interval()
            }
        }
    }

    /// Which times belong together.
    #[must_use]
    pub fn join_window(&self) -> JoinWindow {
        JoinWindow { window: self.window, grace: self.grace }
    }
}

/// Treatment of a second, different outcome for one prediction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictPolicy {
    /// The first outcome counts, and others are ignored.
    #[default]
    First,
    /// The last outcome counts: a correction replaces the example.
    Last,
    /// The outcome whose label is the last in `outcomes.labels` counts, such as bought after liked: a correction replaces the
    /// example.
    Max,
}

/// The predictions of a respondent inside the window that are learned from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearnFrom {
    /// The earliest prediction.
    #[default]
    First,
    /// The latest prediction.
    Last,
    /// Each prediction.
    Every,
}

/// When the labelled example of a prediction with an outcome is made, as the `EmitStrategy` of windows in Kafka Streams (KIP-825).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Emit {
    /// At once. An outcome that replaces another makes a correction.
    OnUpdate,
    /// When the window and grace of the prediction have passed, with the label that it has by then: as late as the examples
    /// without an outcome, so that those of one time come together.
    OnClose,
}

impl Emit {
    /// The one for a policy, if none is set. Where no outcome is a label, examples at once would be of those with an outcome
    /// only, and as long as the first window is open, every example would be.
    #[must_use]
    pub fn default_for(policy: &UnlabelledPolicy) -> Self {
        match policy {
            UnlabelledPolicy::Drop => Self::OnUpdate,
            UnlabelledPolicy::Label(_) => Self::OnClose,
        }
    }
}

/// Treatment of a prediction whose window closes without an outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnlabelledPolicy {
    /// It is counted and dropped.
    #[default]
    Drop,
    /// It becomes an example with this label, such as "did not buy". With `learn_from` "first" or "last", one of the predictions
    /// of a respondent inside a window does.
    Label(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_closed_windows_come_with_the_next_removal() {
        let check = |emit, unlabelled: UnlabelledPolicy, expected: u64| {
            let settings = JoinSettings {
                window: Duration::from_secs(1_000),
                grace: Duration::from_secs(100),
                conflict: ConflictPolicy::First,
                learn_from: LearnFrom::First,
                predictions_max: 1,
                unlabelled,
                emit,
                classes: Vec::new(),
            };
            assert_eq!(settings.labels_within(), Duration::from_secs(expected), "{settings:?}");
        };
        let label = || UnlabelledPolicy::Label("no".to_owned());
        check(Emit::OnUpdate, UnlabelledPolicy::Drop, 1_100);
        check(Emit::OnClose, UnlabelledPolicy::Drop, 1_150);
        check(Emit::OnUpdate, label(), 1_150);
        check(Emit::OnClose, label(), 1_150);
    }
}
