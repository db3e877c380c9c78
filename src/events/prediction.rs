//! A prediction: `schemas/prediction/v4.avsc`.

use crate::events::{
    answered::{AnsweredRecord, ClassProbabilities, ClassProbabilitiesRef, Features, NO_FEATURES},
    challenger::{ChallengerScore, ChallengerScoreRef},
    questionnaire::{AnswerRow, AnswersRef, RowLayout},
};
use foretell_avro::wire::{self, Cursor, Malformed};
use foretell_streams::time::{EventTime, WallTime};

/// A model's prediction for the answers of a respondent so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The id of the prediction.
    pub prediction_id: String,
    /// The respondent.
    pub respondent_id: String,
    /// The id of the event that made the observation due.
    pub event_id: String,
    /// The time of that event.
    pub event_time: EventTime,
    /// The timestamp of the event's record.
    pub received_at: WallTime,
    /// The time of scoring.
    pub predicted_at: WallTime,
    /// The version of the model that served, the champion.
    pub model_version: String,
    /// The predicted class, by the decision threshold of the model.
    pub label: String,
    /// The probability of every class, in the model's order.
    pub probabilities: ClassProbabilities,
    /// The score of the challenger; none if there was no challenger.
    pub challenger: Option<ChallengerScore>,
    /// Why the observation was scored when it was.
    pub trigger: ScoreTrigger,
    /// The answers as scored.
    pub answers: AnswerRow,
}

/// Why an observation was scored when it was. The order is that of the symbols in the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreTrigger {
    /// The respondent has submitted, or every answer is given.
    Complete,
    /// Enough answers were given.
    Answers,
    /// Every event is scored.
    Event,
    /// The session ended before it was complete.
    SessionEnd,
}

impl ScoreTrigger {
    /// Every trigger.
    pub const ALL: [Self; 4] = [Self::Complete, Self::Answers, Self::Event, Self::SessionEnd];

    /// The name in conditions and over HTTP.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Answers => "answers",
            Self::Event => "event",
            Self::SessionEnd => "session_end",
        }
    }
}

/// A borrowed [`Prediction`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "they are the fields of Prediction")]
pub struct PredictionRef<'a> {
    pub prediction_id: &'a str,
    pub respondent_id: &'a str,
    pub event_id: &'a str,
    pub event_time: EventTime,
    pub received_at: WallTime,
    pub predicted_at: WallTime,
    pub model_version: &'a str,
    pub label: &'a str,
    pub probabilities: ClassProbabilitiesRef<'a>,
    pub challenger: Option<ChallengerScoreRef<'a>>,
    pub trigger: ScoreTrigger,
    pub answers: AnswersRef<'a>,
}

impl AnsweredRecord for Prediction {
    const TEMPLATE: &'static str = include_str!("../../schemas/prediction/v4.avsc");

    type Ref<'a> = PredictionRef<'a>;

    fn borrow(&self) -> PredictionRef<'_> {
        PredictionRef {
            prediction_id: &self.prediction_id,
            respondent_id: &self.respondent_id,
            event_id: &self.event_id,
            event_time: self.event_time,
            received_at: self.received_at,
            predicted_at: self.predicted_at,
            model_version: &self.model_version,
            label: &self.label,
            probabilities: self.probabilities.borrow(),
            challenger: self.challenger.as_ref().map(ChallengerScore::borrow),
            trigger: self.trigger,
            answers: (&self.answers).into(),
        }
    }

    fn of(record: PredictionRef<'_>) -> Self {
        Self {
            prediction_id: record.prediction_id.to_owned(),
            respondent_id: record.respondent_id.to_owned(),
            event_id: record.event_id.to_owned(),
            event_time: record.event_time,
            received_at: record.received_at,
            predicted_at: record.predicted_at,
            model_version: record.model_version.to_owned(),
            label: record.label.to_owned(),
            probabilities: record.probabilities.to_owned(),
            challenger: record.challenger.map(ChallengerScore::of),
            trigger: record.trigger,
            answers: record.answers.to_row(),
        }
    }

    fn write(record: PredictionRef<'_>, out: &mut Vec<u8>) {
        for text in [record.prediction_id, record.respondent_id, record.event_id] {
            wire::write_blob(text.as_bytes(), out);
        }
        for time in [record.event_time.0, record.received_at.0, record.predicted_at.0] {
            wire::write_long(time, out);
        }
        for text in [record.model_version, record.label] {
            wire::write_blob(text.as_bytes(), out);
        }
        record.probabilities.write(out);
        ChallengerScoreRef::write(record.challenger, out);
        out.push(NO_FEATURES);
        wire::write_count(record.trigger as usize, out);
        out.extend_from_slice(record.answers.as_bytes());
    }

    fn read(datum: &[u8]) -> Result<(PredictionRef<'_>, Features<'_>), Malformed> {
        let mut cursor = Cursor::new(datum);
        let [prediction_id, respondent_id, event_id] =
            [cursor.text()?, cursor.text()?, cursor.text()?];
        let event_time = EventTime(cursor.long()?);
        let [received_at, predicted_at] = [WallTime(cursor.long()?), WallTime(cursor.long()?)];
        let [model_version, label] = [cursor.text()?, cursor.text()?];
        let probabilities = ClassProbabilitiesRef::read(&mut cursor)?;
        let challenger = ChallengerScoreRef::read(&mut cursor)?;
        let features = Features::read(&mut cursor)?;
        let trigger = ScoreTrigger::ALL[cursor.choice(ScoreTrigger::ALL.len())?];
        let record = PredictionRef {
            prediction_id,
            respondent_id,
            event_id,
            event_time,
            received_at,
            predicted_at,
            model_version,
            label,
            probabilities,
            challenger,
            trigger,
            answers: AnswersRef::of_bytes(cursor.rest()),
        };
        Ok((record, features))
    }

    fn check_answers(record: PredictionRef<'_>, layout: &RowLayout) -> Result<(), Malformed> {
        layout.check(record.answers)
    }

    fn with_answers<'a>(record: PredictionRef<'a>, answers: AnswersRef<'a>) -> PredictionRef<'a> {
        PredictionRef { answers, ..record }
    }
}
