//! Encodes and decodes entries of the outcome store, and copies them out of it.

use std::{
    ops::{ControlFlow, Range, RangeInclusive},
    sync::Arc,
};

use crate::{
    events::{answered::AnsweredCodec, prediction::Prediction},
    processors::outcome_join::{
        former_formats::{PendingV1, PendingV2},
        pending::{FORMAT, OUTCOME, OUTCOME_FORMAT, Pending, PendingRef, decode_outcome},
    },
};
use foretell_streams::{
    codec::{Codec, CodecError, Stored},
    state::{Position, StateError, WindowHandle},
    time::EventTime,
    topology::Context,
};

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
    use crate::{
        events::outcome::Outcome,
        processors::outcome_join::pending::{HELD, LEARNED, PredictionState, WAITING},
    };
    use foretell_streams::{time::WallTime, topology::Original};

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
