//! Questions about a respondent, and their answers. A question is a record of the topic `queries`, so it reaches the task with
//! the respondent's stores by its key, whichever instance runs it. The answer is a [`Reply`](crate::events::reply::Reply).

use serde::{Deserialize, Serialize};

use crate::events::{outcome::Outcome, prediction::Prediction, questionnaire::Answer};
use foretell_streams::{codec::Stored, time::EventTime};

/// A question about a respondent. Its record has the respondent as the key, and the header of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RespondentQuery {
    /// The respondent.
    pub respondent_id: String,
}

impl RespondentQuery {
    /// The format version. A changed field needs a new version.
    pub const FORMAT: u8 = 1;

    /// The codec of the topic.
    #[must_use]
    pub fn codec() -> Stored<Self> {
        Stored::version(Self::FORMAT)
    }
}

/// What the stores have about a respondent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Respondent {
    /// The stream time of the task.
    pub stream_time: EventTime,
    /// The observation that waits for more answers.
    pub open: Option<OpenObservation>,
    /// The newest predictions, newest first; at most [`Self::PREDICTIONS_MAX`].
    pub predictions: Vec<KeptPrediction>,
    /// The outcomes that wait for a prediction, or for further ones; newest first, at most [`Self::OUTCOMES_MAX`].
    pub outcomes: Vec<Outcome>,
    /// The newest actions: those that were cancelled, those that were due, and those that are pending last; at most [`Self::ACTIONS_MAX`].
    pub actions: Vec<RespondentAction>,
}

impl Respondent {
    /// Maximum number of predictions in an answer, which bounds the size of its record.
    pub const PREDICTIONS_MAX: usize = 20;
    /// Maximum number of outcomes in an answer.
    pub const OUTCOMES_MAX: usize = 20;
    /// Maximum number of actions in an answer.
    pub const ACTIONS_MAX: usize = 100;

    /// Whether the stores have nothing about the respondent.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        let Self { stream_time: _, open, predictions, outcomes, actions } = self;
        open.is_none() && predictions.is_empty() && outcomes.is_empty() && actions.is_empty()
    }
}

/// An action about a respondent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RespondentAction {
    /// The idempotency key.
    pub action_id: String,
    /// The prediction that caused it.
    pub prediction_id: String,
    /// The name of the rule.
    pub rule: String,
    /// The version of the rule.
    pub rule_version: String,
    /// Whether the respondent is in the control share of the rule, so that it is not done.
    pub is_control: bool,
    /// Whether it is not due yet.
    pub is_pending: bool,
    /// When it is due, or the event time at which it was, or would have been.
    pub due: EventTime,
    /// Why it was cancelled; none if it was not.
    pub cancelled: Option<String>,
}

impl RespondentAction {
    /// The state in JSON.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match (&self.cancelled, self.is_pending, self.is_control) {
            (Some(_), _, _) => "cancelled",
            (None, true, _) => "pending",
            (None, false, true) => "held_out",
            (None, false, false) => "requested",
        }
    }
}

/// An observation that waits for more answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenObservation {
    /// The latest answer to each question.
    pub answers: Vec<(String, Option<Answer>)>,
    /// The event time of its latest event.
    pub event_time: EventTime,
    /// Whether it was scored.
    pub is_scored: bool,
}

/// A prediction that is stored for its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptPrediction {
    /// The event time of its observation.
    pub event_time: EventTime,
    /// The label that it was learned with.
    pub outcome: Option<String>,
    /// Whether another prediction of the respondent was learned from instead.
    pub is_passed_over: bool,
    /// The prediction; none if it is not needed any more.
    pub prediction: Option<Prediction>,
}
