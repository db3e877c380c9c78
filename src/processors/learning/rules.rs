//! The rules of the learner, and the words of its decisions.

use crate::{
    events::decision::{DecisionOutcome, ModelComparison},
    processors::learning::job::Cause,
};
use foretell_ml::{ModelVersion, judge::Comparison};

/// The rules by which jobs become due and models are promoted.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Number of examples between two trainings; 0: none becomes due by their number.
    pub retrain_after: u64,
    /// Number of examples between two comparisons of the champion with its predecessor; 0: never.
    pub check_after: u64,
    /// Whether a candidate is promoted without a comparison.
    pub always: bool,
    /// Required improvement, in units of the metric.
    pub margin: f64,
    /// Confidence level of the intervals.
    pub confidence: f64,
}

/// A decision without its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// See [`Decision`](crate::events::decision::Decision), also for the other fields.
    pub decision_id: String,
    /// The result.
    pub outcome: DecisionOutcome,
    /// The reason in words.
    pub reason: String,
    /// The cause.
    pub cause: Cause,
    /// The number of the training.
    pub training: Option<u64>,
    /// The model that was judged.
    pub candidate: Option<ModelVersion>,
    /// The champion before the decision.
    pub champion: Option<ModelVersion>,
    /// The numbers of the comparison.
    pub comparison: Option<ModelComparison>,
    /// The offsets of its examples.
    pub offsets: Option<(i64, i64)>,
}

pub(super) fn numbers(found: &Comparison, rules: &Rules) -> ModelComparison {
    ModelComparison {
        metric: found.metric.name().to_owned(),
        examples: i64::try_from(found.examples).unwrap_or(i64::MAX),
        candidate: found.candidate,
        champion: found.champion,
        difference: found.difference,
        low: found.low,
        high: found.high,
        confidence: rules.confidence,
        margin: rules.margin,
    }
}

/// The improvement and its interval in words.
fn improvement(comparison: Option<&Comparison>) -> String {
    comparison.map_or_else(String::new, |found| {
        let Comparison { metric, difference, low, high, .. } = found;
        format!("{} improves by {difference:.4} ({low:.4} to {high:.4})", metric.name())
    })
}

pub(super) fn better(comparison: Option<&Comparison>, rules: &Rules) -> String {
    format!("{}, more than the margin of {}", improvement(comparison), rules.margin)
}

pub(super) fn worse(comparison: Option<&Comparison>) -> String {
    comparison.map_or_else(String::new, |found| {
        let (by, low, high) = (-found.difference, -found.high, -found.low);
        format!("{} is worse by {by:.4} ({low:.4} to {high:.4})", found.metric.name())
    })
}

pub(super) fn undecided(comparison: Option<&Comparison>) -> String {
    format!("{}: the difference is not certain", improvement(comparison))
}

pub(super) fn fell(comparison: Option<&Comparison>, rules: &Rules) -> String {
    format!(
        "the champion fell below its predecessor, whose {}, more than the margin of {}",
        improvement(comparison),
        rules.margin
    )
}

pub(super) fn too_few() -> String {
    "too few examples, or too few of another label than the most frequent one, to compare it with the champion".to_owned()
}
