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
}

impl Respondent {
    /// Maximum number of predictions in an answer, which bounds the size of its record.
    pub const PREDICTIONS_MAX: usize = 20;
    /// Maximum number of outcomes in an answer.
    pub const OUTCOMES_MAX: usize = 20;

    /// Whether the stores have nothing about the respondent.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.open.is_none() && self.predictions.is_empty() && self.outcomes.is_empty()
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
