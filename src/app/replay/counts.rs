//! Counts of what a variant has done.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::events::decision::{Decision, DecisionOutcome};
use foretell_streams::record::Header;

/// Maximum number of reasons of failed trainings that are kept.
const FAILURES_MAX: usize = 5;

/// Counts of what a variant has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Predictions.
    pub predictions: u64,
    /// Trainings, with the failed ones.
    pub trainings: u64,
    /// Models that became the champion.
    pub promoted: u64,
    /// Models that were refused because they were worse.
    pub refused: u64,
    /// Decisions that a model is the challenger, or stays it.
    pub challenger: u64,
    /// Champions that were replaced by their predecessor.
    pub rolled_back: u64,
    /// Trainings and comparisons that failed.
    pub failed: u64,
    /// The reasons of the first of these.
    pub failures: Vec<String>,
    /// Dead letters by error class.
    pub dead_letters: BTreeMap<String, u64>,
}

impl Counts {
    pub(super) fn decided(&mut self, decision: &Decision) {
        self.trainings += u64::from(decision.decision_id.starts_with("training-"));
        let count = match decision.outcome {
            DecisionOutcome::Promoted => &mut self.promoted,
            DecisionOutcome::Challenger => &mut self.challenger,
            DecisionOutcome::Refused => &mut self.refused,
            DecisionOutcome::RolledBack => &mut self.rolled_back,
            DecisionOutcome::Failed => {
                if self.failures.len() < FAILURES_MAX {
                    self.failures.push(format!("{}: {}", decision.decision_id, decision.reason));
                }
                &mut self.failed
            }
        };
        *count += 1;
    }

    pub(super) fn dead_letter(&mut self, headers: &[Header]) {
        let class = headers.iter().find(|header| header.name == "foretell.error.class");
        let class = class.map(|header| String::from_utf8_lossy(&header.value).into_owned());
        *self.dead_letters.entry(class.unwrap_or_default()).or_default() += 1;
    }
}
