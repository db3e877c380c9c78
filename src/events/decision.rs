//! A decision of the learner: `schemas/decision/v1.avsc`.

use serde::{Deserialize, Serialize};

use foretell_avro::codec::AvroRecord;
use foretell_streams::time::WallTime;

/// A decision of the learner about a model, with its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// `training-<number>`, `judgement-<offset>`, `rollback-<offset>`, or the id of the command.
    pub decision_id: String,
    /// The result.
    pub outcome: DecisionOutcome,
    /// The reason in words.
    pub reason: String,
    /// The cause: labelled examples, schedule, drift, request, or a command.
    pub trigger: Option<String>,
    /// The person or the program that sent the command.
    pub requested_by: Option<String>,
    /// The number of the training.
    pub training: Option<i64>,
    /// The version of the model that was judged.
    pub candidate: Option<String>,
    /// The champion before the decision.
    pub champion: Option<String>,
    /// The numbers of the comparison, if there was one.
    pub comparison: Option<ModelComparison>,
    /// The first offset of `labelled-examples` that the comparison used.
    pub first_offset: Option<i64>,
    /// The first offset of `labelled-examples` that the decision does not depend on.
    pub end_offset: Option<i64>,
    /// The time of the decision.
    pub decided_at: WallTime,
}

impl Decision {
    /// Whether the model was judged, or was the champion before it.
    #[must_use]
    pub fn concerns(&self, version: &str) -> bool {
        [&self.candidate, &self.champion].into_iter().flatten().any(|named| named == version)
    }

    /// Whether it is the answer to a command. A training has an id of its own, and names each command that requested it among
    /// its triggers.
    #[must_use]
    pub fn answers(&self, command_id: &str) -> bool {
        let mut triggers = self.trigger.iter().flat_map(|trigger| trigger.split("; "));
        let requests = |trigger: &str| trigger.strip_prefix("request ") == Some(command_id);
        self.decision_id == command_id || triggers.any(requests)
    }
}

/// The result of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionOutcome {
    /// The candidate is the champion.
    Promoted,
    /// The candidate is scored on live traffic, and will be judged again.
    Challenger,
    /// Nothing changed.
    Refused,
    /// The champion's predecessor is the champion again.
    RolledBack,
    /// There is no candidate.
    Failed,
}

impl DecisionOutcome {
    /// The name in records, metrics and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::Challenger => "challenger",
            Self::Refused => "refused",
            Self::RolledBack => "rolled_back",
            Self::Failed => "failed",
        }
    }
}

/// Two models on the same examples, which neither was trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelComparison {
    /// `log_loss`, `auc`, `f1` or `accuracy`.
    pub metric: String,
    /// The number of examples.
    pub examples: i64,
    /// The metric of the candidate.
    pub candidate: f64,
    /// The metric of the champion, or of the model that the candidate is compared with.
    pub champion: f64,
    /// The improvement: above 0, the candidate is better.
    pub difference: f64,
    /// The lower end of the confidence interval of the improvement.
    pub low: f64,
    /// The upper end of it.
    pub high: f64,
    /// The confidence level of the interval, such as 0.95.
    pub confidence: f64,
    /// The improvement that is required.
    pub margin: f64,
}

impl AvroRecord for Decision {
    const SCHEMA: &'static str = include_str!("../../schemas/decision/v1.avsc");
}
