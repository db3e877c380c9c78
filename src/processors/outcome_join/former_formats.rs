//! Entries of the outcome store in formats 1 and 2, which earlier releases wrote: a whole entry is one value, to be decoded.

use serde::{Deserialize, Serialize};

use crate::{
    events::{
        answered::ClassProbability,
        outcome::Outcome,
        prediction::{Prediction, ScoreTrigger},
        questionnaire::{Answer, QuestionnaireSchema},
    },
    processors::outcome_join::pending::{Pending, PredictionState},
};
use foretell_streams::{
    time::{EventTime, WallTime},
    topology::Original,
};

/// Format 2, with the features of a prediction as names and values.
#[derive(Deserialize, Serialize)]
pub(super) enum PendingV2 {
    Prediction(PredictionV2, PredictionState),
    Outcome(Outcome, Option<Original>),
}

/// Format 1, which kept records without headers.
#[derive(Deserialize, Serialize)]
pub(super) enum PendingV1 {
    Prediction(PredictionV2, PredictionState),
    Outcome(Outcome, Option<OriginalV1>),
}

/// The prediction in formats 1 and 2.
#[derive(Deserialize, Serialize)]
pub(super) struct PredictionV2 {
    prediction_id: String,
    respondent_id: String,
    event_id: String,
    event_time: EventTime,
    received_at: WallTime,
    predicted_at: WallTime,
    model_version: String,
    label: String,
    probabilities: Vec<(String, f64)>,
    features: Vec<(String, FeatureV2)>,
}

#[derive(Deserialize, Serialize)]
pub(super) enum FeatureV2 {
    Missing,
    Number(f64),
    Text(String),
}

/// A record without its headers.
#[derive(Deserialize, Serialize)]
pub(super) struct OriginalV1 {
    topic: String,
    partition: i32,
    offset: i64,
    timestamp: EventTime,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl PendingV1 {
    pub(super) const FORMAT: u8 = 1;
}

impl PendingV2 {
    pub(super) const FORMAT: u8 = 2;

    /// The entry in the present format, with the answers to the questions of `events`.
    pub(super) fn upgrade(self, events: &QuestionnaireSchema) -> Pending {
        match self {
            Self::Prediction(prediction, state) => {
                Pending::Prediction(Some(prediction.upgrade(events)), state)
            }
            Self::Outcome(outcome, original) => Pending::Outcome(outcome, original),
        }
    }
}

impl From<PendingV1> for PendingV2 {
    fn from(old: PendingV1) -> Self {
        match old {
            PendingV1::Prediction(prediction, state) => Self::Prediction(prediction, state),
            PendingV1::Outcome(outcome, original) => {
                Self::Outcome(outcome, original.map(Original::from))
            }
        }
    }
}

impl From<OriginalV1> for Original {
    fn from(old: OriginalV1) -> Self {
        let OriginalV1 { topic, partition, offset, timestamp, key, value } = old;
        Self { topic, partition, offset, timestamp, key, value, headers: Vec::new() }
    }
}

impl PredictionV2 {
    fn upgrade(self, events: &QuestionnaireSchema) -> Prediction {
        let classes = self.probabilities.iter();
        let probabilities = classes
            .map(|(label, probability)| ClassProbability { label, probability: *probability });
        let answers = self.features.into_iter().map(|(name, value)| {
            let answer = match value {
                FeatureV2::Missing => None,
                FeatureV2::Number(number) => Some(Answer::Number(number)),
                FeatureV2::Text(text) => Some(Answer::Text(text)),
            };
            (name, answer)
        });
        Prediction {
            answers: events.row_by_name(answers),
            probabilities: probabilities.collect(),
            challenger: None,
            trigger: ScoreTrigger::Complete,
            prediction_id: self.prediction_id,
            respondent_id: self.respondent_id,
            event_id: self.event_id,
            event_time: self.event_time,
            received_at: self.received_at,
            predicted_at: self.predicted_at,
            model_version: self.model_version,
            label: self.label,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::outcome_join::pending_codec::tests::{codec, prediction, states};
    use foretell_streams::codec::{Codec as _, Stored};

    #[test]
    fn entries_of_earlier_formats_are_decoded() {
        let codec = codec();
        let features = || {
            let text = FeatureV2::Text("cook".to_owned());
            vec![("job".to_owned(), text), ("age".to_owned(), FeatureV2::Number(39.0))]
        };
        let old = || {
            let Prediction { prediction_id, respondent_id, event_id, .. } = prediction();
            PredictionV2 {
                prediction_id,
                respondent_id,
                event_id,
                event_time: EventTime(1),
                received_at: WallTime(2),
                predicted_at: WallTime(3),
                model_version: "v".to_owned(),
                label: "yes".to_owned(),
                probabilities: vec![("yes".to_owned(), 0.75)],
                features: features(),
            }
        };
        for state in states() {
            let expected = Pending::Prediction(Some(prediction()), state.clone());
            let (mut first, mut second) = (Vec::new(), Vec::new());
            let pending = PendingV1::Prediction(old(), state.clone());
            Stored::version(PendingV1::FORMAT).encode(&pending, &mut first).unwrap();
            let pending = PendingV2::Prediction(old(), state);
            Stored::version(PendingV2::FORMAT).encode(&pending, &mut second).unwrap();
            for bytes in [first, second] {
                assert_eq!(codec.decode(&bytes).as_ref(), Ok(&expected));
            }
        }
    }
}
