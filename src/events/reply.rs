//! The result of an event that a caller waits for: a record of the topic `replies`, which only instances read.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::events::{answered::AnsweredCodec, prediction::Prediction};
use foretell_streams::{
    codec::{Codec, CodecError, Stored},
    record::InputRecord,
};

/// The header of an event's record that requests a reply. Its value is the id of the request.
pub const REQUEST_HEADER: &str = "foretell.request";

/// Maximum length of a request id. A longer one gets no reply.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The result of one event.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The value of [`REQUEST_HEADER`].
    pub request_id: String,
    /// The respondent.
    pub respondent_id: String,
    /// The id of the event.
    pub event_id: String,
    /// The result.
    pub result: ReplyResult,
}

/// The result in a [`Reply`]. An event that could not be processed has a dead letter with the same header instead.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplyResult {
    /// The event was scored.
    Predicted(Prediction),
    /// The observation waits for more answers.
    Incomplete {
        /// The questions without an answer so far.
        missing: Vec<String>,
    },
    /// The event is a repeat, and was not used again.
    Duplicate(
        /// The prediction of the first event; none if there was none, or it is no longer stored.
        Option<Prediction>,
    ),
}

impl Reply {
    /// The format version. Instances of another release skip formats that they do not know.
    pub const FORMAT: u8 = 2;
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
    Predicted(Vec<u8>),
    Incomplete { missing: Vec<String> },
    Duplicate(Option<Vec<u8>>),
}

impl Codec<Reply> for ReplyCodec {
    fn encode(&self, reply: &Reply, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        let encoded = |prediction: &Prediction| {
            let mut bytes = Vec::new();
            self.0.encode(prediction, &mut bytes)?;
            Ok(bytes)
        };
        let result = match &reply.result {
            ReplyResult::Predicted(prediction) => StoredResult::Predicted(encoded(prediction)?),
            ReplyResult::Incomplete { missing } => {
                StoredResult::Incomplete { missing: missing.clone() }
            }
            ReplyResult::Duplicate(first) => {
                StoredResult::Duplicate(first.as_ref().map(encoded).transpose()?)
            }
        };
        let Reply { request_id, respondent_id, event_id, .. } = reply.clone();
        let stored = StoredReply { request_id, respondent_id, event_id, result };
        Stored::version(Reply::FORMAT).encode(&stored, bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Reply, CodecError> {
        let stored: StoredReply = Stored::version(Reply::FORMAT).decode(bytes)?;
        let result = match stored.result {
            StoredResult::Predicted(bytes) => ReplyResult::Predicted(self.0.decode(&bytes)?),
            StoredResult::Incomplete { missing } => ReplyResult::Incomplete { missing },
            StoredResult::Duplicate(first) => {
                ReplyResult::Duplicate(first.map(|bytes| self.0.decode(&bytes)).transpose()?)
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
