//! What became of an event that a caller waits for: a record of the topic `replies`, which only instances read.

use serde::{Deserialize, Serialize};

use crate::events::prediction::Prediction;
use foretell_streams::{codec::Stored, record::InputRecord};

/// The header of an event's record that asks for a reply: its bytes are the id of the request.
pub const REQUEST_HEADER: &str = "foretell.request";

/// An event with a longer id is not replied to.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// What became of one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// What [`REQUEST_HEADER`] said.
    pub request_id: String,
    /// Who answered.
    pub respondent_id: String,
    /// The event.
    pub event_id: String,
    /// What became of it.
    pub result: ReplyResult,
}

/// See [`Reply`]. An event that could not be used is not here: its dead letter has the same header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ReplyResult {
    /// It was scored.
    Predicted(Prediction),
    /// It is kept until more answers come.
    Incomplete {
        /// The questions without an answer so far.
        missing: Vec<String>,
    },
    /// It came before, and was not used again.
    Duplicate(
        /// What was predicted when it came first; none if it completed nothing then, or that is no longer known.
        Option<Prediction>,
    ),
}

impl Reply {
    /// The version of what is written. An instance of another release passes over what it does not know.
    pub const FORMAT: u8 = 1;

    /// How replies are written: by our own instances, for our own instances.
    #[must_use]
    pub fn codec() -> Stored<Self> {
        Stored::version(Self::FORMAT)
    }
}

/// The id of the request that waits for what becomes of `record`; none if no request does.
#[must_use]
pub fn request_of(record: &InputRecord) -> Option<String> {
    let header = record.headers.iter().rfind(|header| header.name == REQUEST_HEADER)?;
    if header.value.len() > REQUEST_ID_BYTES_MAX {
        return None;
    }
    String::from_utf8(header.value.clone()).ok()
}
