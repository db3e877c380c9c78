//! The models of an application and the decisions about them, read from their topics when they are asked for.
//!
//! ```text
//!   models ────▶ catalogue ─┬─▶ summaries ─▶ list
//!   decisions ─▶ newest ────┴─▶ details ───▶ show, difference
//! ```
//! What was read stays in memory, so that the next call reads only what was written since.

mod details;
mod difference;
mod importance;
mod summary;

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::{Mutex, PoisonError},
};

pub use details::{ModelDetails, Parameter};
pub use difference::{Change, ModelDifference, RankChange};
pub use importance::FeatureImportance;
pub use summary::{AliasSummary, LibrarySummary, ModelSummary};

use crate::{
    events::{decision::Decision, topics::TOPICS},
    processors::{
        model_archive::{ArchiveError, Catalogue, ModelArchive, UnknownModel},
        model_table::CHAMPION,
        topic_reader::TopicReader,
    },
};
use foretell_ml::ModelBundle;
use foretell_streams::{record::Offset, runtime::broker::BrokerError};

/// The topics `models` and `decisions`. One call reads at a time; others wait for it.
pub struct Library {
    archive: ModelArchive,
    decisions: TopicReader<Decision>,
    known: Mutex<Known>,
}

/// What was read so far.
#[derive(Default)]
struct Known {
    catalogue: Catalogue,
    decisions: DecisionHistory,
}

/// Maximum number of decisions in memory, the newest: of some hundred bytes each.
pub const DECISIONS_MAX: usize = 1_000;

struct DecisionHistory {
    /// Oldest first.
    newest: VecDeque<Decision>,
    next: Offset,
}

/// A question to the library that has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// No model is meant.
    #[error(transparent)]
    Unknown(#[from] UnknownModel),
    /// The model cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The broker or the registry failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl Library {
    /// Reads nothing yet.
    #[must_use]
    pub fn new(archive: ModelArchive, decisions: TopicReader<Decision>) -> Self {
        Self { archive, decisions, known: Mutex::default() }
    }

    /// All models, newest first, and the aliases.
    ///
    /// # Errors
    /// [`LibraryError::Broker`].
    pub fn summary(&self) -> Result<LibrarySummary, LibraryError> {
        self.with_catalogue(|catalogue| Ok(LibrarySummary::of(catalogue)))
    }

    /// The version that is meant by a version, a unique prefix of one, or an alias.
    ///
    /// # Errors
    /// [`LibraryError::Unknown`] or [`LibraryError::Broker`].
    pub fn version_of(&self, named: &str) -> Result<String, LibraryError> {
        self.with_catalogue(|catalogue| Ok(catalogue.find(named)?.version.clone()))
    }

    /// The bundle of such a model.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub fn bundle(&self, named: &str) -> Result<ModelBundle, LibraryError> {
        self.with_catalogue(|catalogue| {
            let version = catalogue.find(named)?.version.as_str();
            Ok(self.archive.bundle_in(catalogue, version)?)
        })
    }

    /// Everything that is known about such a model; of the champion if none is named.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub fn details(&self, named: Option<&str>) -> Result<ModelDetails, LibraryError> {
        let (summary, bundle) = self.with_catalogue(|catalogue| {
            let model = catalogue.find(named.unwrap_or(CHAMPION))?;
            let bundle = self.archive.bundle_in(catalogue, &model.version)?;
            Ok((ModelSummary::of(model, catalogue), bundle))
        })?;
        let mut decisions = self.decisions()?;
        decisions.retain(|decision| decision.concerns(&summary.version));
        Ok(ModelDetails::of(summary, &bundle, decisions))
    }

    /// The newest [`DECISIONS_MAX`] decisions, newest first.
    ///
    /// # Errors
    /// [`LibraryError::Broker`].
    pub fn decisions(&self) -> Result<Vec<Decision>, LibraryError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let history = &mut known.decisions;
        self.decisions.visit_from(TOPICS.decisions.name, history.next, |next, decision| {
            history.add(next, decision);
            ControlFlow::Continue(())
        })?;
        Ok(history.newest.iter().rev().cloned().collect())
    }

    fn with_catalogue<T>(
        &self,
        answer: impl FnOnce(&Catalogue) -> Result<T, LibraryError>,
    ) -> Result<T, LibraryError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.archive.catch_up(&mut known.catalogue)?;
        answer(&known.catalogue)
    }
}

impl Default for DecisionHistory {
    fn default() -> Self {
        Self { newest: VecDeque::new(), next: Offset(0) }
    }
}

impl DecisionHistory {
    /// At least once, a decision may be written again; the later record counts.
    fn add(&mut self, next: Offset, decision: Decision) {
        self.next = next;
        self.newest.retain(|known| known.decision_id != decision.decision_id);
        if self.newest.len() >= DECISIONS_MAX {
            self.newest.pop_front();
        }
        self.newest.push_back(decision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::decision::DecisionOutcome;
    use foretell_streams::time::WallTime;

    #[test]
    fn the_newest_decisions_are_kept_and_a_repeated_one_counts_once() {
        let mut history = DecisionHistory::default();
        for number in (0..1_100).chain([500]) {
            let decision = Decision {
                decision_id: format!("training-{number}"),
                outcome: DecisionOutcome::Refused,
                reason: String::new(),
                trigger: None,
                requested_by: None,
                training: Some(number),
                candidate: None,
                champion: None,
                comparison: None,
                first_offset: None,
                end_offset: None,
                decided_at: WallTime(0),
            };
            history.add(Offset(number + 1), decision);
        }
        let trainings = history.newest.iter().map(|decision| decision.training.unwrap());
        let expected = (100..1_100).filter(|number| *number != 500).chain([500]);
        assert_eq!(trainings.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
}
