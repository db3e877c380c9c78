//! Records that carry the answers of an observation: predictions and labelled examples.
//!
//! Their schemas, the templates in `schemas/`, have a record `answers` with a field for each question of the event schema
//! (`questionnaire/derived.rs`), whose encoding is an [`AnswerRow`](crate::events::questionnaire::AnswerRow). So a record is
//! encoded once, when it is made; the topology passes on its bytes, stores keep them, and readers borrow from them:
//!
//! ```text
//!   R          owned, for clients that read a topic
//!   R::Ref     borrowed from an R or from encoded bytes
//!   Encoded<R> the datum, which processors forward
//! ```

use std::{fmt, marker::PhantomData, sync::Arc};

use crate::events::{
    items::{Item, Items, ItemsRef},
    questionnaire::{Answer, AnswersRef, QuestionnaireSchema, RowLayout},
};
use foretell_avro::{
    codec::CodecSetupError,
    datum::DatumCodec,
    registry::SchemaRegistry,
    wire::{self, Cursor, Malformed},
};
use foretell_streams::codec::{Codec, CodecError};

/// A record with the answers of an observation. The answers are its last field.
pub trait AnsweredRecord: Sized + Send + Sync + 'static {
    /// The schema, whose record `answers` is without fields.
    const TEMPLATE: &'static str;

    /// The record, borrowed.
    type Ref<'a>: Copy;

    /// Borrows the record.
    fn borrow(&self) -> Self::Ref<'_>;

    /// Copies a borrowed record.
    fn of(record: Self::Ref<'_>) -> Self;

    /// Appends the datum of a record.
    fn write(record: Self::Ref<'_>, out: &mut Vec<u8>);

    /// Reads a datum, without a check of the answers.
    ///
    /// # Errors
    /// [`Malformed`] if it is not a datum of the schema.
    fn read(datum: &[u8]) -> Result<(Self::Ref<'_>, Features<'_>), Malformed>;

    /// Checks that the answers of a record have this layout.
    ///
    /// # Errors
    /// [`Malformed`] if they have not.
    fn check_answers(record: Self::Ref<'_>, layout: &RowLayout) -> Result<(), Malformed>;

    /// The record with other answers.
    fn with_answers<'a>(record: Self::Ref<'a>, answers: AnswersRef<'a>) -> Self::Ref<'a>;
}

/// An encoded record of the reader schema of its codec.
pub struct Encoded<R> {
    datum: Vec<u8>,
    record: PhantomData<fn() -> R>,
}

/// The codec of a topic with records of type `R`.
pub struct AnsweredCodec<R> {
    datums: DatumCodec,
    events: Arc<QuestionnaireSchema>,
    record: PhantomData<fn() -> R>,
}

/// The answers of a record of the first version: an array of names with values. It is empty in later versions.
#[derive(Clone, Copy, Debug)]
pub struct Features<'a>(&'a [u8]);

/// The probability of every class, in the model's order.
pub type ClassProbabilities = Items<Class>;

/// Borrowed [`ClassProbabilities`].
pub type ClassProbabilitiesRef<'a> = ItemsRef<'a, Class>;

/// The items of [`ClassProbabilities`]: a class and its probability.
#[derive(Debug)]
pub enum Class {}

/// The probability of one class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassProbability<'a> {
    /// The class.
    pub label: &'a str,
    /// From 0 to 1.
    pub probability: f64,
}

/// Bytes to reserve for a record: enough for most.
const RESERVED: usize = 512;

impl<R: AnsweredRecord> Encoded<R> {
    /// Encodes a record.
    #[must_use]
    pub fn new(record: R::Ref<'_>) -> Self {
        let mut datum = Vec::with_capacity(RESERVED);
        R::write(record, &mut datum);
        Self { datum, record: PhantomData }
    }

    /// The record.
    #[must_use]
    pub fn get(&self) -> R::Ref<'_> {
        let (record, _) = R::read(&self.datum).expect("it is written by `new`");
        record
    }
}

impl<R: AnsweredRecord> AnsweredCodec<R> {
    /// A codec for `subject`, which must have the template with the questions of `events` as a version.
    ///
    /// # Errors
    /// [`CodecSetupError`], such as [`CodecSetupError::NotRegistered`].
    pub fn new(
        registry: Arc<dyn SchemaRegistry>,
        subject: &str,
        events: Arc<QuestionnaireSchema>,
    ) -> Result<Self, CodecSetupError> {
        let datums = DatumCodec::new(registry, subject, &events.fill_answers(R::TEMPLATE))?;
        Ok(Self { datums, events, record: PhantomData })
    }

    /// Appends a framed record.
    pub fn write(&self, record: R::Ref<'_>, bytes: &mut Vec<u8>) {
        self.datums.frame(bytes);
        R::write(record, bytes);
    }

    /// Passes a framed record to `visit`, borrowed from `bytes` if it was written with the reader schema.
    ///
    /// # Errors
    /// [`CodecError`] if it cannot be decoded.
    pub fn read<T>(
        &self,
        bytes: &[u8],
        visit: impl FnOnce(R::Ref<'_>) -> T,
    ) -> Result<T, CodecError> {
        self.datums.read(bytes, |datum| {
            let row;
            let (mut record, features) = R::read(datum)?;
            R::check_answers(record, self.events.layout())?;
            if !features.is_empty() {
                row = self.events.row_by_name(features.to_vec()?);
                record = R::with_answers(record, (&row).into());
            }
            Ok(visit(record))
        })
    }

    /// The event schema.
    #[must_use]
    pub fn events(&self) -> &QuestionnaireSchema {
        &self.events
    }
}

impl<R: AnsweredRecord> Codec<R> for AnsweredCodec<R> {
    fn encode(&self, record: &R, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        self.write(record.borrow(), bytes);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<R, CodecError> {
        self.read(bytes, |record| R::of(record))
    }
}

impl<R: AnsweredRecord> Codec<Encoded<R>> for AnsweredCodec<R> {
    fn encode(&self, record: &Encoded<R>, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        self.datums.frame(bytes);
        bytes.extend_from_slice(&record.datum);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Encoded<R>, CodecError> {
        self.read(bytes, |record| Encoded::new(record))
    }
}

impl<'a> Features<'a> {
    /// No features.
    pub(super) const NONE: Self = Self(&[NO_FEATURES]);

    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let before = cursor.rest();
        cursor.items(|cursor| feature(cursor).map(drop))?;
        Ok(Self(&before[..before.len() - cursor.rest().len()]))
    }

    fn is_empty(self) -> bool {
        self.0 == [0]
    }

    fn to_vec(self) -> Result<Vec<(&'a str, Option<Answer>)>, Malformed> {
        let mut features = Vec::new();
        Cursor::new(self.0).items(|cursor| {
            features.push(feature(cursor)?);
            Ok(())
        })?;
        Ok(features)
    }
}

/// Reads one feature: its name, and the union of null, double and string.
fn feature<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a str, Option<Answer>), Malformed> {
    let name = cursor.text()?;
    let answer = match cursor.choice(3)? {
        0 => None,
        1 => Some(Answer::Number(cursor.double()?)),
        _ => Some(Answer::Text(cursor.text()?.to_owned())),
    };
    Ok((name, answer))
}

impl Item for Class {
    type Ref<'a> = ClassProbability<'a>;

    fn write(ClassProbability { label, probability }: ClassProbability<'_>, out: &mut Vec<u8>) {
        wire::write_blob(label.as_bytes(), out);
        out.extend_from_slice(&probability.to_le_bytes());
    }

    fn read<'a>(cursor: &mut Cursor<'a>) -> Result<ClassProbability<'a>, Malformed> {
        Ok(ClassProbability { label: cursor.text()?, probability: cursor.double()? })
    }
}

impl<'p> FromIterator<ClassProbability<'p>> for ClassProbabilities {
    fn from_iter<I: IntoIterator<Item = ClassProbability<'p>>>(classes: I) -> Self {
        let classes: Vec<ClassProbability<'p>> = classes.into_iter().collect();
        Self::of(classes.into_iter())
    }
}

/// No features: an empty array.
pub(super) const NO_FEATURES: u8 = 0;

impl<R> Clone for Encoded<R> {
    fn clone(&self) -> Self {
        Self { datum: self.datum.clone(), record: PhantomData }
    }
}

impl<R: AnsweredRecord> fmt::Debug for Encoded<R>
where
    for<'a> R::Ref<'a>: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value as Avro};
    use proptest::prelude::*;

    use super::*;
    use crate::events::{
        action::{
            Action, ActionReasonRef, ActionReasons, ActionState, ExampleActionRef, ExampleActions,
        },
        challenger::ChallengerScore,
        labelled_example::{ExampleOrigin, ExamplePrediction, LabelledExample},
        prediction::{Prediction, ScoreTrigger},
        questionnaire::{AnswerRef, AnswerRow},
        small_schema::{codec_of, schema_of},
    };
    use foretell_avro::framing;
    use foretell_streams::time::{EventTime, WallTime};

    const QUESTIONS: &str = r#"{"name":"age","type":["null","int"]},{"name":"ratio","type":"double"},
        {"name":"job","aliases":["trade"],"type":["null","string"]},{"name":"smoker","type":"boolean"}"#;

    fn events() -> QuestionnaireSchema {
        schema_of(QUESTIONS)
    }

    fn row() -> impl Strategy<Value = AnswerRow> {
        let number = any::<f64>().prop_filter("a finite number", |number| number.is_finite());
        let cells = (
            prop::option::of(any::<i32>()),
            prop::option::of(number),
            prop::option::of(".{1,9}"),
            prop::option::of(any::<bool>()),
        );
        cells.prop_map(|(age, ratio, job, smoker)| {
            events().layout().row_of(&[
                age.map(|age| Answer::Number(age.into())),
                ratio.map(Answer::Number),
                job.map(Answer::Text),
                smoker.map(|smoker| Answer::Text(smoker.to_string())),
            ])
        })
    }

    fn probabilities() -> impl Strategy<Value = Vec<(String, f64)>> {
        prop::collection::vec((".{0,5}", 0.0..1.0_f64), 0..4)
    }

    fn encoded(classes: &[(String, f64)]) -> ClassProbabilities {
        let classes = classes.iter();
        classes
            .map(|(label, probability)| ClassProbability { label, probability: *probability })
            .collect()
    }

    prop_compose! {
        fn score()(model_version in ".{0,12}", classes in probabilities()) -> ChallengerScore {
            ChallengerScore { model_version, probabilities: encoded(&classes) }
        }
    }

    prop_compose! {
        fn prediction()(
            [prediction_id, respondent_id, event_id] in [".{0,40}", ".{0,9}", ".{0,40}"],
            times: [i64; 3], model_version in ".{0,12}", label in ".{0,5}",
            classes in probabilities(), challenger in prop::option::of(score()), trigger in prop::sample::select(&ScoreTrigger::ALL[..]),
            answers in row(),
        ) -> Prediction {
            Prediction {
                prediction_id, respondent_id, event_id,
                event_time: EventTime(times[0]),
                received_at: WallTime(times[1]),
                predicted_at: WallTime(times[2]),
                model_version, label,
                probabilities: encoded(&classes),
                challenger, trigger, answers,
            }
        }
    }

    /// Actions of an example: whether each was done, its propensity and its time.
    fn example_actions() -> impl Strategy<Value = Vec<(bool, f64, i64)>> {
        prop::collection::vec((any::<bool>(), 0.0..1.0_f64, any::<i64>()), 0..3)
    }

    fn example_action(
        (acted, propensity, acted_at): (bool, f64, i64),
    ) -> ExampleActionRef<'static> {
        let (acted_at, rule_version) = (EventTime(acted_at), "0a");
        ExampleActionRef { action_id: "a", rule: "call", rule_version, acted, propensity, acted_at }
    }

    prop_compose! {
        fn example()(
            [example_id, respondent_id, label] in [".{0,40}", ".{0,9}", ".{0,5}"],
            is_initial: bool, event_time: i64, outcome_time: Option<i64>,
            prediction in prop::option::of(prediction()), correction: bool,
            replaced in prop::option::of(".{0,5}"), actions in example_actions(),
            challenger in prop::option::of(score()), answers in row(),
        ) -> LabelledExample {
            LabelledExample {
                example_id, respondent_id,
                origin: if is_initial { ExampleOrigin::Initial } else { ExampleOrigin::Stream },
                event_time: EventTime(event_time),
                outcome_time: outcome_time.map(EventTime),
                label,
                prediction: prediction.map(|prediction| ExamplePrediction {
                    prediction_id: prediction.prediction_id,
                    model_version: prediction.model_version,
                    predicted_at: prediction.predicted_at,
                    probabilities: prediction.probabilities,
                }),
                challenger, correction, replaced,
                actions: ExampleActions::of(actions.into_iter().map(example_action)),
                answers,
            }
        }
    }

    prop_compose! {
        fn action()(
            prediction in prediction(), state in prop::sample::select(&ActionState::ALL[..]),
            [action_id, rule, reason] in [".{0,9}", ".{0,9}", ".{0,40}"], due: i64,
            propensity in 0.0..1.0_f64, contributions in prop::collection::vec(-9.0..9.0_f64, 0..4),
        ) -> Action {
            let reason_of = |contribution| ActionReasonRef { feature: "age", contribution };
            Action {
                action_id, state, rule, reason, propensity,
                respondent_id: prediction.respondent_id,
                prediction_id: prediction.prediction_id,
                rule_version: "0a".to_owned(),
                due: EventTime(due),
                event_time: prediction.event_time,
                decided_at: prediction.predicted_at,
                model_version: prediction.model_version,
                label: prediction.label,
                probabilities: prediction.probabilities,
                reasons: ActionReasons::of(contributions.into_iter().map(reason_of)),
                answers: prediction.answers,
            }
        }
    }

    /// The record as apache-avro reads its bytes, by the names of the fields.
    fn by_apache<R: AnsweredRecord>(bytes: &[u8]) -> Vec<(String, Avro)> {
        let schema = Schema::parse_str(&events().fill_answers(R::TEMPLATE)).unwrap();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let mut datum = &bytes[framing::HEADER_BYTES..];
        let Avro::Record(fields) = reader.read_value(&mut datum).unwrap() else { panic!() };
        assert_eq!(datum, [0_u8; 0], "all bytes are read");
        fields
    }

    fn text(text: &str) -> Avro {
        Avro::String(text.to_owned())
    }

    fn nullable(value: Option<Avro>) -> Avro {
        match value {
            None => Avro::Union(0, Box::new(Avro::Null)),
            Some(value) => Avro::Union(1, Box::new(value)),
        }
    }

    fn record<const N: usize>(fields: [(&str, Avro); N]) -> Avro {
        Avro::Record(fields.map(|(name, value)| (name.to_owned(), value)).into())
    }

    fn avro_classes(classes: &ClassProbabilities) -> Avro {
        let class = |ClassProbability { label, probability }| {
            record([("label", text(label)), ("probability", Avro::Double(probability))])
        };
        Avro::Array(classes.iter().map(class).collect())
    }

    fn avro_score(score: Option<&ChallengerScore>) -> Avro {
        nullable(score.map(|score| {
            record([
                ("model_version", text(&score.model_version)),
                ("probabilities", avro_classes(&score.probabilities)),
            ])
        }))
    }

    fn symbol(index: u32, name: &str) -> Avro {
        Avro::Enum(index, name.to_owned())
    }

    fn avro_example_action(action: ExampleActionRef<'_>) -> Avro {
        record([
            ("action_id", text(action.action_id)),
            ("rule", text(action.rule)),
            ("rule_version", text(action.rule_version)),
            ("acted", Avro::Boolean(action.acted)),
            ("propensity", Avro::Double(action.propensity)),
            ("acted_at", Avro::TimestampMillis(action.acted_at.0)),
        ])
    }

    fn avro_answers(row: &AnswerRow) -> Avro {
        let names = ["age", "ratio", "job", "smoker"];
        let layout = events().layout().clone();
        let answers = layout.answers(row).map(|answer| match answer {
            AnswerRef::Missing => nullable(None),
            AnswerRef::Whole(whole) | AnswerRef::Id(whole) => nullable(Some(Avro::Long(whole))),
            AnswerRef::Number(number) => nullable(Some(Avro::Double(number))),
            AnswerRef::Text(answer) => nullable(Some(text(answer))),
            AnswerRef::Flag(flag) => nullable(Some(Avro::Boolean(flag))),
        });
        let names = names.into_iter().map(str::to_owned);
        Avro::Record(names.zip(answers).collect())
    }

    fn round_trip<R: AnsweredRecord + PartialEq + fmt::Debug>(record: &R) -> Vec<u8> {
        let codec = codec_of::<R>(events());
        let mut bytes = Vec::new();
        codec.encode(record, &mut bytes).unwrap();
        assert_eq!(codec.decode(&bytes).as_ref(), Ok(record));
        let mut of_encoded = Vec::new();
        codec.encode(&Encoded::<R>::new(record.borrow()), &mut of_encoded).unwrap();
        assert_eq!(of_encoded, bytes);
        for length in 0..bytes.len() {
            let truncated: Result<R, CodecError> = codec.decode(&bytes[..length]);
            assert!(truncated.is_err(), "{length} bytes of {}", bytes.len());
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn predictions_are_records_of_their_schema(prediction in prediction()) {
            let bytes = round_trip(&prediction);
            let time = |time| Avro::TimestampMillis(time);
            let expected = record([
                ("prediction_id", text(&prediction.prediction_id)),
                ("respondent_id", text(&prediction.respondent_id)),
                ("event_id", text(&prediction.event_id)),
                ("event_time", time(prediction.event_time.0)),
                ("received_at", time(prediction.received_at.0)),
                ("predicted_at", time(prediction.predicted_at.0)),
                ("model_version", text(&prediction.model_version)),
                ("label", text(&prediction.label)),
                ("probabilities", avro_classes(&prediction.probabilities)),
                ("challenger", avro_score(prediction.challenger.as_ref())),
                ("features", Avro::Array(Vec::new())),
                ("trigger", symbol(prediction.trigger as u32, &prediction.trigger.name().to_uppercase())),
                ("answers", avro_answers(&prediction.answers)),
            ]);
            prop_assert_eq!(Avro::Record(by_apache::<Prediction>(&bytes)), expected);
        }

        #[test]
        fn labelled_examples_are_records_of_their_schema(example in example()) {
            let bytes = round_trip(&example);
            let origin = match example.origin {
                ExampleOrigin::Initial => symbol(0, "INITIAL"),
                ExampleOrigin::Stream => symbol(1, "STREAM"),
            };
            let prediction = example.prediction.as_ref().map(|prediction| record([
                ("prediction_id", text(&prediction.prediction_id)),
                ("model_version", text(&prediction.model_version)),
                ("predicted_at", Avro::TimestampMillis(prediction.predicted_at.0)),
                ("probabilities", avro_classes(&prediction.probabilities)),
            ]));
            let outcome_time = example.outcome_time.map(|time| Avro::TimestampMillis(time.0));
            let expected = record([
                ("example_id", text(&example.example_id)),
                ("respondent_id", text(&example.respondent_id)),
                ("origin", origin),
                ("event_time", Avro::TimestampMillis(example.event_time.0)),
                ("outcome_time", nullable(outcome_time)),
                ("label", text(&example.label)),
                ("features", Avro::Array(Vec::new())),
                ("prediction", nullable(prediction)),
                ("challenger", avro_score(example.challenger.as_ref())),
                ("correction", Avro::Boolean(example.correction)),
                ("replaced", nullable(example.replaced.as_deref().map(text))),
                ("actions", Avro::Array(example.actions.iter().map(avro_example_action).collect())),
                ("answers", avro_answers(&example.answers)),
            ]);
            prop_assert_eq!(Avro::Record(by_apache::<LabelledExample>(&bytes)), expected);
        }

        #[test]
        fn actions_are_records_of_their_schema(action in action()) {
            let bytes = round_trip(&action);
            let reason = |reason: ActionReasonRef<'_>| record([
                ("feature", text(reason.feature)),
                ("contribution", Avro::Double(reason.contribution)),
            ]);
            let expected = record([
                ("action_id", text(&action.action_id)),
                ("state", symbol(action.state as u32, &action.state.name().to_uppercase())),
                ("respondent_id", text(&action.respondent_id)),
                ("prediction_id", text(&action.prediction_id)),
                ("rule", text(&action.rule)),
                ("rule_version", text(&action.rule_version)),
                ("reason", text(&action.reason)),
                ("due", Avro::TimestampMillis(action.due.0)),
                ("event_time", Avro::TimestampMillis(action.event_time.0)),
                ("decided_at", Avro::TimestampMillis(action.decided_at.0)),
                ("model_version", text(&action.model_version)),
                ("label", text(&action.label)),
                ("probabilities", avro_classes(&action.probabilities)),
                ("propensity", Avro::Double(action.propensity)),
                ("reasons", Avro::Array(action.reasons.iter().map(reason).collect())),
                ("answers", avro_answers(&action.answers)),
            ]);
            prop_assert_eq!(Avro::Record(by_apache::<Action>(&bytes)), expected);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..80),
            prediction in prediction(), place: prop::sample::Index, byte: u8,
        ) {
            let codec = codec_of::<Prediction>(events());
            bytes.splice(0..0, [0, 0, 0, 0, 1]);
            let decode = |bytes: &[u8]| drop(Codec::<Prediction>::decode(&codec, bytes));
            decode(&bytes);
            drop(Codec::<LabelledExample>::decode(&codec_of::<LabelledExample>(events()), &bytes));
            bytes.clear();
            codec.encode(&prediction, &mut bytes).unwrap();
            let index = place.index(bytes.len());
            bytes[index] = byte;
            decode(&bytes);
        }
    }

    #[test]
    fn features_of_the_first_version_become_answers() {
        let codec = codec_of::<Prediction>(events());
        let mut prediction = plain_prediction();
        let mut bytes = Vec::new();
        codec.encode(&prediction, &mut bytes).unwrap();
        // The answers are null, after an empty array of features.
        let answers = [0, 0, 0, 0];
        let trigger = [0];
        assert!(bytes.ends_with(&[&[NO_FEATURES][..], &trigger, &answers].concat()));
        bytes.truncate(bytes.len() - 1 - trigger.len() - answers.len());
        let mut feature = |name: &str, value: &[u8]| {
            wire::write_count(1, &mut bytes);
            wire::write_blob(name.as_bytes(), &mut bytes);
            bytes.extend_from_slice(value);
        };
        feature("age", &[&[2][..], &39.0_f64.to_le_bytes()].concat());
        feature("trade", &[4, 2, b'x']);
        feature("gone", &[4, 2, b'y']);
        feature("ratio", &[4, 2, b'z']);
        feature("smoker", &[4, 8, b't', b'r', b'u', b'e']);
        wire::write_count(0, &mut bytes);
        bytes.extend_from_slice(&trigger);
        bytes.extend_from_slice(&answers);
        let text = |text: &str| Some(Answer::Text(text.to_owned()));
        let given = [Some(Answer::Number(39.0)), None, text("x"), text("true")];
        prediction.answers = events().layout().row_of(&given);
        assert_eq!(codec.decode(&bytes), Ok(prediction));
    }

    fn plain_prediction() -> Prediction {
        Prediction {
            prediction_id: "p".to_owned(),
            respondent_id: "r".to_owned(),
            event_id: "e".to_owned(),
            event_time: EventTime(1),
            received_at: WallTime(2),
            predicted_at: WallTime(3),
            model_version: "v".to_owned(),
            label: "yes".to_owned(),
            probabilities: encoded(&[("no".to_owned(), 0.25), ("yes".to_owned(), 0.75)]),
            challenger: None,
            trigger: ScoreTrigger::Complete,
            answers: events().layout().row_of(&[]),
        }
    }
}
