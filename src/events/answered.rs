//! Records that carry the answers of an observation: predictions and labelled examples.
//!
//! Their schemas, the templates in `schemas/`, have a record `answers` with a field for each question of the event schema
//! (`questionnaire/derived.rs`), whose encoding is an [`AnswerRow`]. So a record is encoded once, when it is made; the topology
//! passes on its bytes, stores keep them, and readers borrow from them:
//!
//! ```text
//!   R          owned, for clients that read a topic
//!   R::Ref     borrowed from an R or from encoded bytes
//!   Encoded<R> the datum, which processors forward
//! ```

use std::{fmt, marker::PhantomData, sync::Arc};

use crate::events::questionnaire::{Answer, AnswersRef, QuestionnaireSchema, RowLayout};
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

/// The probability of every class, in the model's order: an encoded array.
#[derive(Clone, PartialEq)]
pub struct Probabilities(Box<[u8]>);

/// Borrowed [`Probabilities`].
#[derive(Clone, Copy, PartialEq)]
pub struct ProbabilitiesRef<'a>(&'a [u8]);

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
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let before = cursor.rest();
        cursor.items(|cursor| feature(cursor).map(drop))?;
        Ok(Self(consumed(before, cursor)))
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

fn consumed<'a>(before: &'a [u8], cursor: &Cursor<'a>) -> &'a [u8] {
    &before[..before.len() - cursor.rest().len()]
}

impl Probabilities {
    /// Borrows them.
    #[must_use]
    pub fn borrow(&self) -> ProbabilitiesRef<'_> {
        ProbabilitiesRef(&self.0)
    }

    /// The probability of every class.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = ClassProbability<'_>> {
        self.borrow().iter()
    }
}

impl<'p> FromIterator<ClassProbability<'p>> for Probabilities {
    fn from_iter<I: IntoIterator<Item = ClassProbability<'p>>>(classes: I) -> Self {
        let classes: Vec<ClassProbability<'p>> = classes.into_iter().collect();
        let mut encoded = Vec::new();
        ProbabilitiesRef::encode(classes.iter().copied(), &mut encoded);
        Self(encoded.into())
    }
}

impl<'a> ProbabilitiesRef<'a> {
    /// Encodes the probabilities into `buffer`, in place of its contents.
    pub fn encode<'p>(
        classes: impl ExactSizeIterator<Item = ClassProbability<'p>>,
        buffer: &'a mut Vec<u8>,
    ) -> Self {
        buffer.clear();
        if classes.len() > 0 {
            wire::write_count(classes.len(), buffer);
            for ClassProbability { label, probability } in classes {
                wire::write_blob(label.as_bytes(), buffer);
                buffer.extend_from_slice(&probability.to_le_bytes());
            }
        }
        wire::write_count(0, buffer);
        Self(buffer)
    }

    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let before = cursor.rest();
        cursor.items(|cursor| class(cursor).map(drop))?;
        Ok(Self(consumed(before, cursor)))
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0);
    }

    /// A copy.
    #[must_use]
    pub fn to_owned(self) -> Probabilities {
        Probabilities(self.0.into())
    }

    /// The probability of every class.
    pub fn iter(self) -> impl ExactSizeIterator<Item = ClassProbability<'a>> {
        let mut classes = Vec::new();
        let read = Cursor::new(self.0).items(|cursor| {
            classes.push(class(cursor)?);
            Ok(())
        });
        debug_assert!(read.is_ok(), "the bytes are checked when they are read");
        classes.into_iter()
    }
}

fn class<'a>(cursor: &mut Cursor<'a>) -> Result<ClassProbability<'a>, Malformed> {
    Ok(ClassProbability { label: cursor.text()?, probability: cursor.double()? })
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

impl fmt::Debug for Probabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrow().fmt(f)
    }
}

impl fmt::Debug for ProbabilitiesRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
