//! The entries of the outcome store: predictions that wait for outcomes, and outcomes that wait for predictions.
//!
//! An entry is bytes that the join reads and changes in place, without decoding the prediction (format 5; formats 3 and 4 have the
//! same layout; 4 has no held predictions, and 3 no chosen ones, either):
//!
//! ```text
//!   5  0                              framed prediction    it waits for its outcome
//!   5  1  length(label)  label        [framed prediction]  it was learned from; without the prediction if it cannot be corrected
//!   5  2                              framed prediction    another prediction of the respondent was learned from
//!   5  3  outcome and its record ([`Stored`])
//!   5  4                              framed prediction    it waits, and is the one of its group that gets the label of the policy
//!   5  5  time  length(label)  label  framed prediction    its outcome was of this time; its example is held until its window closes
//! ```

use serde::{Deserialize, Serialize};

use crate::events::{outcome::Outcome, prediction::Prediction};
use foretell_streams::{
    codec::{Codec as _, CodecError, Stored},
    time::EventTime,
    topology::Original,
};

/// An entry of the outcome store.
#[derive(Clone, Debug, PartialEq)]
pub enum Pending {
    /// A prediction, unless it is not needed any more, and its state.
    Prediction(Option<Prediction>, PredictionState),
    /// An outcome, with its record while it waits for its first prediction. If every prediction is learned from, it stays for
    /// further ones.
    Outcome(Outcome, Option<Original>),
}

/// The state of a prediction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PredictionState {
    /// No outcome yet.
    Waiting,
    /// It was learned from, with this label.
    Learned(String),
    /// Another prediction of the same respondent was learned from.
    PassedOver,
    /// No outcome yet. If none comes, this prediction of its group gets the label of the policy.
    Chosen,
    /// It has an outcome, and its example is made when its window closes.
    Held {
        /// The label of the outcome.
        label: String,
        /// The time of the outcome.
        outcome_time: EventTime,
    },
}

/// A [`PredictionState`], borrowed from an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the variants of PredictionState")]
pub enum StateRef<'a> {
    Waiting,
    Learned(&'a str),
    PassedOver,
    Chosen,
    Held { label: &'a str, outcome_time: EventTime },
}

/// An entry, borrowed.
#[derive(Clone, Copy, Debug)]
pub enum PendingRef<'a> {
    /// A prediction and its state.
    Prediction {
        /// The state.
        state: StateRef<'a>,
        /// The framed record; empty if it is not needed any more.
        record: &'a [u8],
    },
    /// An outcome; [`decode_outcome`] decodes it.
    Outcome(&'a [u8]),
}

/// The format version of the entries. A changed layout needs a new version.
pub(super) const FORMAT: u8 = 5;

/// Those before, with the same layout.
const FORMATS_WITH_FEWER_STATES: [u8; 2] = [3, 4];

/// The version of an outcome in an entry.
pub(super) const OUTCOME_FORMAT: u8 = 1;

pub(super) const WAITING: u8 = 0;
pub(super) const LEARNED: u8 = 1;
const PASSED_OVER: u8 = 2;
pub(super) const OUTCOME: u8 = 3;
const CHOSEN: u8 = 4;
pub(super) const HELD: u8 = 5;

impl PredictionState {
    /// Borrows the state.
    #[must_use]
    pub fn borrow(&self) -> StateRef<'_> {
        match self {
            Self::Waiting => StateRef::Waiting,
            Self::Learned(label) => StateRef::Learned(label),
            Self::PassedOver => StateRef::PassedOver,
            Self::Chosen => StateRef::Chosen,
            Self::Held { label, outcome_time } => {
                StateRef::Held { label, outcome_time: *outcome_time }
            }
        }
    }
}

impl From<StateRef<'_>> for PredictionState {
    fn from(state: StateRef<'_>) -> Self {
        match state {
            StateRef::Waiting => Self::Waiting,
            StateRef::Learned(label) => Self::Learned(label.to_owned()),
            StateRef::PassedOver => Self::PassedOver,
            StateRef::Chosen => Self::Chosen,
            StateRef::Held { label, outcome_time } => {
                Self::Held { label: label.to_owned(), outcome_time }
            }
        }
    }
}

impl<'a> StateRef<'a> {
    /// The label of the outcome that it was joined with; none without one.
    #[must_use]
    pub fn label(self) -> Option<&'a str> {
        match self {
            Self::Learned(label) | Self::Held { label, .. } => Some(label),
            Self::Waiting | Self::PassedOver | Self::Chosen => None,
        }
    }

    /// Whether it has no outcome, and an outcome or the policy may still make an example of it.
    #[must_use]
    pub fn is_waiting(self) -> bool {
        match self {
            Self::Waiting | Self::Chosen => true,
            Self::Learned(_) | Self::PassedOver | Self::Held { .. } => false,
        }
    }

    /// Appends the beginning of an entry of a prediction, after which its framed record may follow.
    pub fn write(self, bytes: &mut Vec<u8>) {
        bytes.push(FORMAT);
        match self {
            Self::Waiting => bytes.push(WAITING),
            Self::Learned(label) => {
                bytes.push(LEARNED);
                write_label(label, bytes);
            }
            Self::PassedOver => bytes.push(PASSED_OVER),
            Self::Chosen => bytes.push(CHOSEN),
            Self::Held { label, outcome_time } => {
                bytes.push(HELD);
                bytes.extend_from_slice(&outcome_time.0.to_be_bytes());
                write_label(label, bytes);
            }
        }
    }
}

impl<'a> PendingRef<'a> {
    /// Splits an entry into its parts.
    ///
    /// # Errors
    /// [`CodecError`] if it has another format or is malformed.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let (format, rest) = bytes.split_first().ok_or_else(|| malformed("no bytes"))?;
        if *format != FORMAT && !FORMATS_WITH_FEWER_STATES.contains(format) {
            return Err(CodecError::OtherFormat { found: *format, known: FORMAT });
        }
        let (kind, rest) = rest.split_first().ok_or_else(|| malformed("no state"))?;
        Ok(match *kind {
            WAITING => Self::Prediction { state: StateRef::Waiting, record: rest },
            LEARNED => {
                let (label, record) = split_label(rest).ok_or_else(|| malformed("no label"))?;
                Self::Prediction { state: StateRef::Learned(label), record }
            }
            PASSED_OVER => Self::Prediction { state: StateRef::PassedOver, record: rest },
            OUTCOME => Self::Outcome(rest),
            CHOSEN => Self::Prediction { state: StateRef::Chosen, record: rest },
            HELD => {
                let (time, rest) = rest.split_first_chunk().ok_or_else(|| malformed("no time"))?;
                let outcome_time = EventTime(i64::from_be_bytes(*time));
                let (label, record) = split_label(rest).ok_or_else(|| malformed("no label"))?;
                Self::Prediction { state: StateRef::Held { label, outcome_time }, record }
            }
            other => return Err(malformed(&format!("unknown state {other}"))),
        })
    }

    /// Whether it is a prediction.
    #[must_use]
    pub fn is_prediction(&self) -> bool {
        matches!(self, Self::Prediction { .. })
    }

    /// Whether it is a prediction that waits for an outcome.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        match self {
            Self::Prediction { state, .. } => state.is_waiting(),
            Self::Outcome(_) => false,
        }
    }
}

/// Decodes the bytes of an outcome in an entry.
///
/// # Errors
/// [`CodecError`] if they are malformed.
pub fn decode_outcome(bytes: &[u8]) -> Result<(Outcome, Option<Original>), CodecError> {
    Stored::version(OUTCOME_FORMAT).decode(bytes)
}

/// Appends a text after its length.
fn write_label(label: &str, bytes: &mut Vec<u8>) {
    let length = u32::try_from(label.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(label.as_bytes());
}

/// Splits a text off that follows its length.
fn split_label(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (label, rest) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(label).ok()?, rest))
}

fn malformed(reason: &str) -> CodecError {
    CodecError::Unreadable { class: "malformed", schema_id: None, message: reason.to_owned() }
}
