//! The jobs of the learner: their arguments and results. A job is a pure function of its arguments, the training log before an
//! offset, the models that it names and the settings, so that it can be run again after a crash.

use serde::{Deserialize, Serialize};

use crate::events::command::{Command, CommandKind};
use foretell_ml::{ModelBundle, ModelVersion, judge::Comparison, training::Trial};

/// A job of the trainer thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// Trains a model, and compares it with the champion.
    Train(TrainingRequest),
    /// Compares two models.
    Judge(JudgementRequest),
    /// Checks that the model of a command can serve.
    Check(CheckRequest),
}

impl Job {
    /// Whether it is a training.
    #[must_use]
    pub fn is_training(&self) -> bool {
        matches!(self, Self::Train(_))
    }
}

/// The arguments of a training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingRequest {
    /// The number of the training; the first model has 0.
    pub training: u64,
    /// The training set is the records of `labelled-examples` before this offset.
    pub through: i64,
    /// The champion when the training was requested.
    pub parent: Option<ModelVersion>,
    /// The causes of the training.
    pub cause: Cause,
}

/// The causes of a training: triggers, reasons and requesters, each in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The triggers, such as `labelled examples`.
    pub trigger: String,
    /// The reason that was given; empty for a trigger that says everything.
    pub reason: String,
    /// The requesters of commands; empty without one.
    pub requested_by: String,
}

/// The trigger of every N examples.
pub const EXAMPLES_TRIGGER: &str = "labelled examples";
/// Maximum number of bytes of each text of a [`Cause`]: of hundreds of commands during one training, the first are named.
const CAUSE_BYTES_MAX: usize = 4_000;

impl Cause {
    /// The cause of a training after every N examples.
    #[must_use]
    pub fn examples() -> Self {
        Self { trigger: EXAMPLES_TRIGGER.to_owned(), ..Self::default() }
    }

    /// The cause of a training that a command requests. The trigger names the command, by which its sender finds the decision.
    #[must_use]
    pub fn of_command(command: &Command) -> Self {
        Self {
            trigger: format!("request {}", command.command_id),
            reason: command.reason.clone().unwrap_or_default(),
            requested_by: command.requested_by.clone().unwrap_or_default(),
        }
    }

    /// Adds another cause of the same training. Returns whether its trigger is named, for which there may be no room.
    pub(super) fn add(&mut self, other: &Self) -> bool {
        let is_named = add_text(&mut self.trigger, &other.trigger);
        if is_named {
            add_text(&mut self.reason, &other.reason);
            add_text(&mut self.requested_by, &other.requested_by);
        }
        is_named
    }
}

/// Adds a text to a list of texts, unless it is there. Returns whether it is.
fn add_text(list: &mut String, text: &str) -> bool {
    if text.is_empty() || list.split("; ").any(|known| known == text) {
        return true;
    }
    if list.len() + text.len() >= CAUSE_BYTES_MAX {
        return false;
    }
    if !list.is_empty() {
        list.push_str("; ");
    }
    list.push_str(text);
    true
}

/// The arguments of a comparison of two models on the examples of `from..through` of the training log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgementRequest {
    /// The purpose, which decides what follows from the result.
    pub purpose: Purpose,
    /// The model that may become the champion.
    pub candidate: ModelVersion,
    /// The champion.
    pub champion: ModelVersion,
    /// The first offset of the examples.
    pub from: i64,
    /// The offset after the last example.
    pub through: i64,
}

/// The purpose of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// The candidate is the challenger, which is promoted if it is better.
    Challenger,
    /// The candidate is the champion's predecessor, which replaces the champion if it is better.
    Rollback,
}

/// A command about a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRequest {
    /// The id of the command.
    pub command_id: String,
    /// The action; never [`CommandKind::Retrain`].
    pub kind: CommandKind,
    /// The model.
    pub version: ModelVersion,
    /// The reason that was given.
    pub reason: Option<String>,
    /// The requester.
    pub requested_by: Option<String>,
}

impl CheckRequest {
    /// The cause of a decision about it.
    pub(super) fn cause(&self) -> Cause {
        Cause {
            trigger: "command".to_owned(),
            reason: self.reason.clone().unwrap_or_default(),
            requested_by: self.requested_by.clone().unwrap_or_default(),
        }
    }
}

/// The result of a job.
pub type JobResult = Result<JobOutput, JobFailure>;

/// What a job has made.
#[derive(Clone, Debug, PartialEq)]
pub enum JobOutput {
    /// Of [`Job::Train`].
    Trained(Box<Trained>),
    /// Of [`Job::Judge`]. None if the examples are too few.
    Judged(Option<Comparison>),
    /// Of [`Job::Check`]: the number of the model's training.
    Checked(u64),
}

/// A new model.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The model.
    pub bundle: ModelBundle,
    /// Its comparison with the champion; none if the examples are too few, or the metric is not defined for them.
    pub comparison: Option<Comparison>,
    /// The first offset of the examples of the comparison.
    pub held_out_from: Option<i64>,
    /// The trials of its study; none if it was not tuned.
    pub trials: Vec<Trial>,
}

impl Trained {
    /// A model without a comparison and trials.
    #[must_use]
    pub fn new(bundle: ModelBundle) -> Self {
        Self { bundle, comparison: None, held_out_from: None, trials: Vec::new() }
    }
}

/// A job without a result, named for what happens next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobFailure {
    /// The broker or the registry is not available: the same job is run again.
    #[error("not available now: {0}")]
    Retry(String),
    /// The job cannot succeed; the next one may.
    #[error("{0}")]
    Failed(String),
    /// The training log lacks examples. No model is trained until an operator has restored them.
    #[error("{0}")]
    Incomplete(String),
}
