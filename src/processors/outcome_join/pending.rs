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

use std::{
    ops::{ControlFlow, Range, RangeInclusive},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    events::{answered::AnsweredCodec, outcome::Outcome, prediction::Prediction},
    processors::outcome_join::former_formats::{PendingV1, PendingV2},
};
use foretell_streams::{
    codec::{Codec, CodecError, Stored},
    state::{Position, StateError, WindowHandle},
    time::EventTime,
    topology::{Context, Original},
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

/// The codec of the outcome store.
#[derive(Clone)]
pub struct PendingCodec {
    /// The codec of the predictions.
    pub predictions: Arc<AnsweredCodec<Prediction>>,
}

/// Copies of entries of the store, in one buffer that is used again.
#[derive(Default)]
pub struct PendingEntries {
    bytes: Vec<u8>,
    entries: Vec<(Position, Range<usize>)>,
}

/// The format version of the entries. A changed layout needs a new version.
const FORMAT: u8 = 5;

/// Those before, with the same layout.
const FORMATS_WITH_FEWER_STATES: [u8; 2] = [3, 4];

/// The version of an outcome in an entry.
const OUTCOME_FORMAT: u8 = 1;

const WAITING: u8 = 0;
const LEARNED: u8 = 1;
const PASSED_OVER: u8 = 2;
const OUTCOME: u8 = 3;
const CHOSEN: u8 = 4;
const HELD: u8 = 5;

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

impl Codec<Pending> for PendingCodec {
    fn encode(&self, pending: &Pending, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        match pending {
            Pending::Prediction(prediction, state) => {
                state.borrow().write(bytes);
                if let Some(prediction) = prediction {
                    self.predictions.encode(prediction, bytes)?;
                }
            }
            Pending::Outcome(outcome, original) => {
                bytes.extend_from_slice(&[FORMAT, OUTCOME]);
                Stored::version(OUTCOME_FORMAT)
                    .encode(&(outcome.clone(), original.clone()), bytes)?;
            }
        }
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Pending, CodecError> {
        match bytes.first() {
            Some(&PendingV1::FORMAT) => {
                let old: PendingV1 = Stored::version(PendingV1::FORMAT).decode(bytes)?;
                return Ok(PendingV2::from(old).upgrade(self.predictions.events()));
            }
            Some(&PendingV2::FORMAT) => {
                let old: PendingV2 = Stored::version(PendingV2::FORMAT).decode(bytes)?;
                return Ok(old.upgrade(self.predictions.events()));
            }
            Some(_) | None => {}
        }
        Ok(match PendingRef::parse(bytes)? {
            PendingRef::Prediction { state, record } => {
                let prediction = match record {
                    [] => None,
                    record => Some(self.predictions.decode(record)?),
                };
                Pending::Prediction(prediction, state.into())
            }
            PendingRef::Outcome(bytes) => {
                let (outcome, original) = decode_outcome(bytes)?;
                Pending::Outcome(outcome, original)
            }
        })
    }
}

impl PendingEntries {
    /// Copies the entries of `key` with times in `from..=to`, oldest first, in place of the present contents.
    ///
    /// # Errors
    /// [`StateError`] if one cannot be read.
    pub fn fetch<Out: 'static>(
        &mut self,
        store: &WindowHandle<Pending>,
        codec: &PendingCodec,
        key: &str,
        times: RangeInclusive<EventTime>,
        ctx: &mut Context<'_, Out>,
    ) -> Result<(), StateError> {
        self.clear();
        let mut result = Ok(());
        ctx.window(store).fetch_bytes(key, *times.start(), *times.end(), |position, bytes| {
            result = self.push(codec, position, bytes).map_err(|error| store.unreadable(error));
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result
    }

    /// Moves at most `limit` entries of all keys with times before `before` here, oldest first, in place of the present contents.
    ///
    /// # Errors
    /// [`StateError`] if one cannot be read.
    pub fn expire<Out: 'static>(
        &mut self,
        store: &WindowHandle<Pending>,
        codec: &PendingCodec,
        before: EventTime,
        limit: usize,
        ctx: &mut Context<'_, Out>,
    ) -> Result<(), StateError> {
        self.clear();
        ctx.window(store).expire_bytes(before, limit, |_, position, bytes| {
            self.push(codec, position, bytes).map_err(|error| store.unreadable(error))
        })
    }

    /// Keeps the entries for which `is_kept` is true.
    pub fn retain(&mut self, mut is_kept: impl FnMut(Position, PendingRef<'_>) -> bool) {
        let bytes = &self.bytes;
        self.entries.retain(|(position, range)| is_kept(*position, parsed(&bytes[range.clone()])));
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Position, PendingRef<'_>)> {
        let entries = self.entries.iter();
        entries.map(|(position, range)| (*position, parsed(&self.bytes[range.clone()])))
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// Adds an entry, in the present format.
    fn push(
        &mut self,
        codec: &PendingCodec,
        position: Position,
        bytes: &[u8],
    ) -> Result<(), CodecError> {
        let start = self.bytes.len();
        match PendingRef::parse(bytes) {
            Ok(_) => self.bytes.extend_from_slice(bytes),
            Err(CodecError::OtherFormat { .. }) => {
                codec.encode(&codec.decode(bytes)?, &mut self.bytes)?;
            }
            Err(error) => return Err(error),
        }
        self.entries.push((position, start..self.bytes.len()));
        Ok(())
    }
}

fn parsed(bytes: &[u8]) -> PendingRef<'_> {
    PendingRef::parse(bytes).expect("`push` has parsed it")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::events::{
        answered::{ClassProbabilities, ClassProbability},
        prediction::ScoreTrigger,
        questionnaire::Answer,
        small_schema::{codec_of, schema_of},
    };
    use foretell_streams::time::WallTime;

    pub(crate) fn codec() -> PendingCodec {
        let events = schema_of(r#"{"name":"age","type":"int"},{"name":"job","type":"string"}"#);
        PendingCodec { predictions: Arc::new(codec_of(events)) }
    }

    pub(crate) fn prediction() -> Prediction {
        let given = [Some(Answer::Number(39.0)), Some(Answer::Text("cook".to_owned()))];
        let class = ClassProbability { label: "yes", probability: 0.75 };
        Prediction {
            prediction_id: "p".to_owned(),
            respondent_id: "ann".to_owned(),
            event_id: "e".to_owned(),
            event_time: EventTime(1),
            received_at: WallTime(2),
            predicted_at: WallTime(3),
            model_version: "v".to_owned(),
            label: "yes".to_owned(),
            probabilities: ClassProbabilities::from_iter([class]),
            challenger: None,
            trigger: ScoreTrigger::Complete,
            answers: codec().predictions.events().layout().row_of(&given),
        }
    }

    fn outcome() -> Outcome {
        Outcome {
            respondent_id: "ann".to_owned(),
            outcome_time: EventTime(4),
            label: "yes".to_owned(),
            outcome_id: None,
        }
    }

    fn original() -> Original {
        Original {
            topic: "outcomes".to_owned(),
            partition: 1,
            offset: 2,
            timestamp: EventTime(3),
            key: Some(b"ann".to_vec()),
            value: None,
            headers: Vec::new(),
        }
    }

    pub(crate) fn states() -> [PredictionState; 5] {
        let label = || "yes".to_owned();
        [
            PredictionState::Waiting,
            PredictionState::Learned(label()),
            PredictionState::PassedOver,
            PredictionState::Chosen,
            PredictionState::Held { label: label(), outcome_time: EventTime(-5) },
        ]
    }

    #[test]
    fn entries_are_decoded_and_read_in_place() {
        let codec = codec();
        let predictions = states().into_iter().flat_map(|state| {
            let kept = Pending::Prediction(Some(prediction()), state.clone());
            [kept, Pending::Prediction(None, state)]
        });
        let outcomes = [None, Some(original())].map(|record| Pending::Outcome(outcome(), record));
        for pending in predictions.chain(outcomes) {
            let mut bytes = Vec::new();
            codec.encode(&pending, &mut bytes).unwrap();
            assert_eq!(codec.decode(&bytes).as_ref(), Ok(&pending));
            match (PendingRef::parse(&bytes).unwrap(), pending) {
                (PendingRef::Prediction { state, record }, Pending::Prediction(kept, expected)) => {
                    assert_eq!(state, expected.borrow());
                    assert_eq!(record.is_empty(), kept.is_none());
                }
                (PendingRef::Outcome(bytes), Pending::Outcome(outcome, record)) => {
                    assert_eq!(decode_outcome(bytes), Ok((outcome, record)));
                }
                (parsed, pending) => panic!("{parsed:?} of {pending:?}"),
            }
        }
    }

    #[test]
    fn malformed_entries_are_refused() {
        let learned = [FORMAT, LEARNED, 0, 0, 0, 2, b'y'];
        let held = [FORMAT, HELD, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 2, b'y'];
        let cut = [&learned[..], &learned[..4], &held, &held[..12], &held[..6]];
        for bytes in [&[][..], &[FORMAT], &[FORMAT, 9]].into_iter().chain(cut) {
            let parsed = PendingRef::parse(bytes).map(drop);
            assert!(matches!(parsed, Err(CodecError::Unreadable { .. })), "{bytes:?}");
        }
        let later = PendingRef::parse(&[FORMAT + 1, WAITING]).map(drop);
        assert_eq!(later, Err(CodecError::OtherFormat { found: FORMAT + 1, known: FORMAT }));
        assert!(codec().decode(&[FORMAT, WAITING, 1, 2]).is_err());
        assert!(codec().decode(&[FORMAT, OUTCOME, 1, 2]).is_err());
    }
}
