//! The result of an event that a caller waits for: a record of the topic `replies`, which only instances read.

use serde::{Deserialize, Serialize};

use crate::events::prediction::Prediction;
use foretell_streams::{codec::Stored, record::InputRecord};

/// The header of an event's record that requests a reply. Its value is the id of the request.
pub const REQUEST_HEADER: &str = "foretell.request";

/// Maximum length of a request id. A longer one gets no reply.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The result of one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    pub const FORMAT: u8 = 1;

    /// The codec of replies, which instances write and read.
    #[must_use]
    pub fn codec() -> Stored<Self> {
        Stored::version(Self::FORMAT)
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
