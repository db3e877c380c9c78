//! The result of an event, or of a question, that a caller waits for: a record of the topic `replies`, which only instances read.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::events::{
    answered::AnsweredCodec,
    outcome::Outcome,
    prediction::Prediction,
    respondent::{KeptPrediction, OpenObservation, Respondent, RespondentAction},
};
use foretell_streams::{
    codec::{Codec, CodecError, Stored},
    record::InputRecord,
    time::EventTime,
};

/// The header of a record that requests a reply. Its value is the id of the request.
pub const REQUEST_HEADER: &str = "foretell.request";

/// Maximum length of a request id. A longer one gets no reply.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The result of one event, or of one question.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The value of [`REQUEST_HEADER`].
    pub request_id: String,
    /// The respondent.
    pub respondent_id: String,
    /// The id of the event; empty for a question.
    pub event_id: String,
    /// The result.
    pub result: ReplyResult,
}

/// The result in a [`Reply`]. An event that could not be processed has a dead letter with the same header instead.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplyResult {
    /// The event was scored.
    Predicted(Predicted),
    /// The observation waits for more answers.
    Incomplete {
        /// The questions without an answer so far.
        missing: Vec<String>,
    },
    /// The event is a repeat, and was not used again.
    Duplicate(
        /// The prediction of the first event; none if there was none, or it is no longer stored.
        Option<Predicted>,
    ),
    /// The answer to a question.
    Respondent(Respondent),
}

/// A prediction, and the actions that it has caused so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicted {
    /// The prediction.
    pub prediction: Prediction,
    /// The actions, those that are pending last.
    pub actions: Vec<RespondentAction>,
}

impl Reply {
    /// The format version. Instances of another release skip formats that they do not know.
    pub const FORMAT: u8 = 4;
}

/// The codec of replies, which instances write and read. Predictions are in it as in their topic, because the reader may have
/// another event schema.
pub struct ReplyCodec(
    /// The codec of the predictions.
    pub Arc<AnsweredCodec<Prediction>>,
);

impl ReplyCodec {
    /// The id of the request that an encoded reply is for. It does not decode the prediction, which may need the registry.
    ///
    /// # Errors
    /// [`CodecError`] if it is no reply of this format.
    pub fn request_id(bytes: &[u8]) -> Result<String, CodecError> {
        let stored: StoredReply = Stored::version(Reply::FORMAT).decode(bytes)?;
        Ok(stored.request_id)
    }
}

/// A reply, with an encoded prediction.
#[derive(Serialize, Deserialize)]
struct StoredReply {
    request_id: String,
    respondent_id: String,
    event_id: String,
    result: StoredResult,
}

#[derive(Serialize, Deserialize)]
enum StoredResult {
    Predicted(StoredPredicted),
    Incomplete { missing: Vec<String> },
    Duplicate(Option<StoredPredicted>),
    Respondent(StoredRespondent),
}

#[derive(Serialize, Deserialize)]
struct StoredPredicted {
    prediction: Vec<u8>,
    actions: Vec<RespondentAction>,
}

/// A respondent, with encoded predictions.
#[derive(Serialize, Deserialize)]
struct StoredRespondent {
    stream_time: EventTime,
    open: Option<OpenObservation>,
    predictions: Vec<StoredPrediction>,
    outcomes: Vec<Outcome>,
    actions: Vec<RespondentAction>,
}

#[derive(Serialize, Deserialize)]
struct StoredPrediction {
    event_time: EventTime,
    outcome: Option<String>,
    is_passed_over: bool,
    prediction: Option<Vec<u8>>,
}

impl Codec<Reply> for ReplyCodec {
    fn encode(&self, reply: &Reply, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        let encoded = |prediction: &Prediction| -> Result<Vec<u8>, CodecError> {
            let mut bytes = Vec::new();
            self.0.encode(prediction, &mut bytes)?;
            Ok(bytes)
        };
        let stored = |Predicted { prediction, actions }: &Predicted| -> Result<_, CodecError> {
            let (prediction, actions) = (encoded(prediction)?, actions.clone());
            Ok(StoredPredicted { prediction, actions })
        };
        let result = match &reply.result {
            ReplyResult::Predicted(predicted) => StoredResult::Predicted(stored(predicted)?),
            ReplyResult::Incomplete { missing } => {
                StoredResult::Incomplete { missing: missing.clone() }
            }
            ReplyResult::Duplicate(first) => {
                StoredResult::Duplicate(first.as_ref().map(stored).transpose()?)
            }
            ReplyResult::Respondent(respondent) => {
                let kept = |kept: &KeptPrediction| {
                    Ok(StoredPrediction {
                        event_time: kept.event_time,
                        outcome: kept.outcome.clone(),
                        is_passed_over: kept.is_passed_over,
                        prediction: kept.prediction.as_ref().map(encoded).transpose()?,
                    })
                };
                let predictions = respondent.predictions.iter().map(kept);
                StoredResult::Respondent(StoredRespondent {
                    stream_time: respondent.stream_time,
                    open: respondent.open.clone(),
                    predictions: predictions.collect::<Result<_, CodecError>>()?,
                    outcomes: respondent.outcomes.clone(),
                    actions: respondent.actions.clone(),
                })
            }
        };
        let Reply { request_id, respondent_id, event_id, .. } = reply.clone();
        let stored = StoredReply { request_id, respondent_id, event_id, result };
        Stored::version(Reply::FORMAT).encode(&stored, bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Reply, CodecError> {
        let stored: StoredReply = Stored::version(Reply::FORMAT).decode(bytes)?;
        let predicted = |StoredPredicted { prediction, actions }| -> Result<_, CodecError> {
            Ok(Predicted { prediction: self.0.decode(&prediction)?, actions })
        };
        let result = match stored.result {
            StoredResult::Predicted(stored) => ReplyResult::Predicted(predicted(stored)?),
            StoredResult::Incomplete { missing } => ReplyResult::Incomplete { missing },
            StoredResult::Duplicate(first) => {
                ReplyResult::Duplicate(first.map(predicted).transpose()?)
            }
            StoredResult::Respondent(stored) => {
                let kept = |stored: StoredPrediction| {
                    let StoredPrediction { event_time, outcome, is_passed_over, prediction } =
                        stored;
                    let prediction = prediction.map(|bytes| self.0.decode(&bytes)).transpose()?;
                    Ok(KeptPrediction { event_time, outcome, is_passed_over, prediction })
                };
                let StoredRespondent { stream_time, open, predictions, outcomes, actions } = stored;
                let predictions = predictions.into_iter().map(kept);
                let predictions = predictions.collect::<Result<_, CodecError>>()?;
                ReplyResult::Respondent(Respondent {
                    stream_time,
                    open,
                    predictions,
                    outcomes,
                    actions,
                })
            }
        };
        let StoredReply { request_id, respondent_id, event_id, .. } = stored;
        Ok(Reply { request_id, respondent_id, event_id, result })
    }
}

/// The id of the request that waits for the result of `record`, if there is one.
#[must_use]
pub fn request_of(record: &InputRecord) -> Option<String> {
    let header = record.headers.iter().rfind(|header| header.name == REQUEST_HEADER)?;
    if header.value.len() > REQUEST_ID_BYTES_MAX {
        return None;
    }
    String::from_utf8(header.value.clone()).ok()
}
