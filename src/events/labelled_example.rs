//! A record of the training log: `schemas/labelled-example/v4.avsc`.

use crate::events::{
    action::{ExampleActions, ExampleActionsRef},
    answered::{AnsweredRecord, ClassProbabilities, ClassProbabilitiesRef, Features, NO_FEATURES},
    challenger::{ChallengerScore, ChallengerScoreRef, NULL, VALUE},
    questionnaire::{AnswerRow, AnswersRef, RowLayout},
};
use foretell_avro::wire::{self, Cursor, Malformed};
use foretell_streams::time::{EventTime, WallTime};

/// Where the label of an example is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelSource {
    /// The outcome.
    Outcome,
    /// The policy for predictions without an outcome.
    Policy,
    /// A later outcome: the example replaces another one.
    Correction,
}

impl LabelSource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Outcome, Self::Policy, Self::Correction];

    /// The name in metrics and in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Outcome => "outcome",
            Self::Policy => "policy",
            Self::Correction => "correction",
        }
    }
}

/// An observation as it was scored, its prediction and its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledExample {
    /// The prediction's id, or `initial-<digest of the table>-<row>`.
    pub example_id: String,
    /// The respondent.
    pub respondent_id: String,
    /// The source of the example.
    pub origin: ExampleOrigin,
    /// The event time of the observation.
    pub event_time: EventTime,
    /// The time of the outcome; none if the label is from the policy for unlabelled predictions.
    pub outcome_time: Option<EventTime>,
    /// The true class.
    pub label: String,
    /// The prediction; none in the initial data.
    pub prediction: Option<ExamplePrediction>,
    /// The score of the challenger for the same answers; none without a challenger, and in the initial data.
    pub challenger: Option<ChallengerScore>,
    /// Whether it replaces an earlier example with the same id.
    pub correction: bool,
    /// The label that a correction replaces; none if it is no correction, and in corrections of earlier releases.
    pub replaced: Option<String>,
    /// What was done about the respondent before the outcome, and what was not, in the control share of a rule.
    pub actions: ExampleActions,
    /// The answers as scored.
    pub answers: AnswerRow,
}

/// A borrowed [`LabelledExample`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "they are the fields of LabelledExample")]
pub struct LabelledExampleRef<'a> {
    pub example_id: &'a str,
    pub respondent_id: &'a str,
    pub origin: ExampleOrigin,
    pub event_time: EventTime,
    pub outcome_time: Option<EventTime>,
    pub label: &'a str,
    pub prediction: Option<ExamplePredictionRef<'a>>,
    pub challenger: Option<ChallengerScoreRef<'a>>,
    pub correction: bool,
    pub replaced: Option<&'a str>,
    pub actions: ExampleActionsRef<'a>,
    pub answers: AnswersRef<'a>,
}

/// The source of an example. The order is that of the symbols in the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExampleOrigin {
    /// The initial data, which the first model is trained on.
    Initial,
    /// A prediction of the stream and its outcome.
    Stream,
}

impl ExampleOrigin {
    const ALL: [Self; 2] = [Self::Initial, Self::Stream];
}

/// The prediction of an example.
#[derive(Clone, Debug, PartialEq)]
pub struct ExamplePrediction {
    /// The id of the prediction.
    pub prediction_id: String,
    /// The model that made it.
    pub model_version: String,
    /// The time of the prediction.
    pub predicted_at: WallTime,
    /// The probability of every class, in the model's order.
    pub probabilities: ClassProbabilities,
}

/// A borrowed [`ExamplePrediction`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "they are the fields of ExamplePrediction")]
pub struct ExamplePredictionRef<'a> {
    pub prediction_id: &'a str,
    pub model_version: &'a str,
    pub predicted_at: WallTime,
    pub probabilities: ClassProbabilitiesRef<'a>,
}

impl AnsweredRecord for LabelledExample {
    const TEMPLATE: &'static str = include_str!("../../schemas/labelled-example/v4.avsc");

    type Ref<'a> = LabelledExampleRef<'a>;

    fn borrow(&self) -> LabelledExampleRef<'_> {
        LabelledExampleRef {
            example_id: &self.example_id,
            respondent_id: &self.respondent_id,
            origin: self.origin,
            event_time: self.event_time,
            outcome_time: self.outcome_time,
            label: &self.label,
            prediction: self.prediction.as_ref().map(ExamplePrediction::borrow),
            challenger: self.challenger.as_ref().map(ChallengerScore::borrow),
            correction: self.correction,
            replaced: self.replaced.as_deref(),
            actions: self.actions.borrow(),
            answers: (&self.answers).into(),
        }
    }

    fn of(record: LabelledExampleRef<'_>) -> Self {
        Self {
            example_id: record.example_id.to_owned(),
            respondent_id: record.respondent_id.to_owned(),
            origin: record.origin,
            event_time: record.event_time,
            outcome_time: record.outcome_time,
            label: record.label.to_owned(),
            prediction: record.prediction.map(ExamplePrediction::of),
            challenger: record.challenger.map(ChallengerScore::of),
            correction: record.correction,
            replaced: record.replaced.map(str::to_owned),
            actions: record.actions.to_owned(),
            answers: record.answers.to_row(),
        }
    }

    fn write(record: LabelledExampleRef<'_>, out: &mut Vec<u8>) {
        wire::write_blob(record.example_id.as_bytes(), out);
        wire::write_blob(record.respondent_id.as_bytes(), out);
        wire::write_count(record.origin as usize, out);
        wire::write_long(record.event_time.0, out);
        match record.outcome_time {
            None => out.push(NULL),
            Some(time) => {
                out.push(VALUE);
                wire::write_long(time.0, out);
            }
        }
        wire::write_blob(record.label.as_bytes(), out);
        out.push(NO_FEATURES);
        match record.prediction {
            None => out.push(NULL),
            Some(prediction) => {
                out.push(VALUE);
                prediction.write(out);
            }
        }
        ChallengerScoreRef::write(record.challenger, out);
        out.push(u8::from(record.correction));
        match record.replaced {
            None => out.push(NULL),
            Some(label) => {
                out.push(VALUE);
                wire::write_blob(label.as_bytes(), out);
            }
        }
        record.actions.write(out);
        out.extend_from_slice(record.answers.as_bytes());
    }

    fn read(datum: &[u8]) -> Result<(LabelledExampleRef<'_>, Features<'_>), Malformed> {
        let mut cursor = Cursor::new(datum);
        let [example_id, respondent_id] = [cursor.text()?, cursor.text()?];
        let origin = ExampleOrigin::ALL[cursor.choice(ExampleOrigin::ALL.len())?];
        let event_time = EventTime(cursor.long()?);
        let outcome_time = match cursor.choice(2)? {
            0 => None,
            _ => Some(EventTime(cursor.long()?)),
        };
        let label = cursor.text()?;
        let features = Features::read(&mut cursor)?;
        let prediction = match cursor.choice(2)? {
            0 => None,
            _ => Some(ExamplePredictionRef::read(&mut cursor)?),
        };
        let challenger = ChallengerScoreRef::read(&mut cursor)?;
        let correction = cursor.boolean()?;
        let replaced = match cursor.choice(2)? {
            0 => None,
            _ => Some(cursor.text()?),
        };
        let actions = ExampleActionsRef::read(&mut cursor)?;
        let record = LabelledExampleRef {
            example_id,
            respondent_id,
            origin,
            event_time,
            outcome_time,
            label,
            prediction,
            challenger,
            correction,
            replaced,
            actions,
            answers: AnswersRef::of_bytes(cursor.rest()),
        };
        Ok((record, features))
    }

    fn check_answers(record: LabelledExampleRef<'_>, layout: &RowLayout) -> Result<(), Malformed> {
        layout.check(record.answers)
    }

    fn with_answers<'a>(
        record: LabelledExampleRef<'a>,
        answers: AnswersRef<'a>,
    ) -> LabelledExampleRef<'a> {
        LabelledExampleRef { answers, ..record }
    }
}

impl ExamplePrediction {
    fn borrow(&self) -> ExamplePredictionRef<'_> {
        ExamplePredictionRef {
            prediction_id: &self.prediction_id,
            model_version: &self.model_version,
            predicted_at: self.predicted_at,
            probabilities: self.probabilities.borrow(),
        }
    }

    fn of(record: ExamplePredictionRef<'_>) -> Self {
        Self {
            prediction_id: record.prediction_id.to_owned(),
            model_version: record.model_version.to_owned(),
            predicted_at: record.predicted_at,
            probabilities: record.probabilities.to_owned(),
        }
    }
}

impl<'a> ExamplePredictionRef<'a> {
    fn write(self, out: &mut Vec<u8>) {
        wire::write_blob(self.prediction_id.as_bytes(), out);
        wire::write_blob(self.model_version.as_bytes(), out);
        wire::write_long(self.predicted_at.0, out);
        self.probabilities.write(out);
    }

    fn read(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            prediction_id: cursor.text()?,
            model_version: cursor.text()?,
            predicted_at: WallTime(cursor.long()?),
            probabilities: ClassProbabilitiesRef::read(cursor)?,
        })
    }
}
