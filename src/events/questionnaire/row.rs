//! The answers of one observation in one buffer, typed by the event schema.
//!
//! An [`AnswerRow`] is the Avro encoding of a record with one field `["null", T]` per question, in order. Every reader borrows
//! from it: the scorer, the feature contract, stores and sinks. [`RowLayout`] has the `T` of each question:
//!
//! | the question | T |
//! |---|---|
//! | `int`, `long`, dates and times | `long`, so that an id of 64 bits keeps every digit |
//! | `float`, `double`, decimals | `double` |
//! | `string`, `enum`, `uuid` | `string` |
//! | `boolean` | `boolean` |

use std::sync::Arc;

use crate::events::questionnaire::{
    Answer,
    spelling::{flag_in, number_in, whole_in},
};
use foretell_avro::wire::{self, Cursor, Malformed};

/// The answers of one observation, one per question of the event schema, encoded as [`RowLayout`] says. Equal answers have
/// equal bytes. A clone shares the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerRow(Arc<[u8]>);

/// A borrowed [`AnswerRow`], such as a part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswersRef<'r>(&'r [u8]);

impl<'r> AnswersRef<'r> {
    /// The row that is encoded by `bytes`; [`RowLayout::check`] checks untrusted ones.
    pub(in crate::events) fn of_bytes(bytes: &'r [u8]) -> Self {
        Self(bytes)
    }

    /// The row as it is encoded.
    #[must_use]
    pub fn as_bytes(self) -> &'r [u8] {
        self.0
    }

    /// A copy.
    #[must_use]
    pub fn to_row(self) -> AnswerRow {
        AnswerRow(self.0.into())
    }
}

impl<'r> From<&'r AnswerRow> for AnswersRef<'r> {
    fn from(row: &'r AnswerRow) -> Self {
        Self(&row.0)
    }
}

impl Default for AnswerRow {
    /// The row of a schema without questions.
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

/// A borrowed answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AnswerRef<'r> {
    /// No answer.
    Missing,
    /// A number; neither NaN nor infinite.
    Number(f64),
    /// A whole number.
    Whole(i64),
    /// A whole number that is read as a category: the digits are its text.
    Id(i64),
    /// A text, not empty; also the symbol of an enum, and a UUID.
    Text(&'r str),
    /// A boolean, which is read as a category.
    Flag(bool),
}

/// The Avro type of a question's answers in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowType {
    /// `long`, read as a number.
    Whole,
    /// `long`, read as a category.
    Id,
    /// `double`.
    Number,
    /// `string`.
    Text,
    /// `boolean`.
    Flag,
}

/// The types of the answers of a row, in the order of the questions. Reads and makes rows. A clone shares the types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowLayout(Arc<[RowType]>);

/// 2^53: a 64-bit float represents every whole number up to it exactly.
pub(super) const EXACT_WHOLE_MAX: u64 = 1 << 53;

/// Whole numbers of 64 bits lie between this and its negative, both of which 64-bit floats represent exactly: 2^63.
const WHOLE_LIMIT: f64 = 9_223_372_036_854_775_808.0;

/// The branch of a field's union, as Avro encodes its index.
const NULL: u8 = 0;
const VALUE: u8 = 2;

impl AnswerRef<'_> {
    /// Whether there is no answer.
    #[must_use]
    pub fn is_missing(self) -> bool {
        matches!(self, Self::Missing)
    }

    /// The owned answer; none if it is missing.
    #[must_use]
    pub fn to_answer(self) -> Option<Answer> {
        Some(match self {
            Self::Missing => return None,
            Self::Number(number) => Answer::Number(number),
            Self::Whole(whole) if whole.unsigned_abs() > EXACT_WHOLE_MAX => Answer::Whole(whole),
            Self::Whole(whole) => Answer::Number(whole as f64),
            Self::Id(whole) => Answer::Text(whole.to_string()),
            Self::Text(text) => Answer::Text(text.to_owned()),
            Self::Flag(flag) => Answer::Text(flag.to_string()),
        })
    }
}

impl RowLayout {
    pub(super) fn new(types: impl IntoIterator<Item = RowType>) -> Self {
        Self(types.into_iter().collect())
    }

    /// The types, in order.
    #[must_use]
    pub fn types(&self) -> &[RowType] {
        &self.0
    }

    /// The answers of a row, in order.
    #[must_use]
    pub fn answers<'r>(&'r self, row: impl Into<AnswersRef<'r>>) -> RowReader<'r> {
        let (cursor, last) = (Cursor::new(row.into().0), AnswerRef::Missing);
        RowReader { types: self.0.iter(), cursor, next: 0, last }
    }

    /// Checks that a row, which may come from elsewhere, has this layout.
    ///
    /// # Errors
    /// [`Malformed`] if it has not.
    pub fn check(&self, row: AnswersRef<'_>) -> Result<(), Malformed> {
        let mut reader = self.answers(row);
        for row_type in &*self.0 {
            reader.read(*row_type)?;
        }
        reader.cursor.finish()
    }

    /// Whether every question has an answer.
    #[must_use]
    pub fn is_complete(&self, row: &AnswerRow) -> bool {
        let mut answers = self.answers(row);
        (0..self.0.len()).all(|index| !answers.is_missing_at(index))
    }

    /// The row of owned answers, one per question; an answer that the type of its question cannot represent is missing. Stored
    /// answers may be of an earlier version of the schema.
    #[must_use]
    pub fn row_of(&self, answers: &[Option<Answer>]) -> AnswerRow {
        let mut writer = RowWriter::new(self.0.len());
        let mut text = String::new();
        for (index, row_type) in self.0.iter().enumerate() {
            let answer = answers.get(index).and_then(Option::as_ref);
            let converted = answer.and_then(|answer| row_type.convert(answer, &mut text));
            writer.push(converted.unwrap_or(AnswerRef::Missing));
        }
        writer.finish()
    }

    /// The row with another answer to the question with this index; `None` if the type of the question cannot represent it.
    #[must_use]
    pub fn replace(&self, row: &AnswerRow, index: usize, answer: &Answer) -> Option<AnswerRow> {
        let mut text = String::new();
        let new = self.0.get(index)?.convert(answer, &mut text)?;
        let replaced = |(number, old)| if number == index { new } else { old };
        Some(self.answers(row).enumerate().map(replaced).collect())
    }

    /// The row with only the answers to the questions whose index `is_kept`.
    #[must_use]
    pub fn keep(&self, row: &AnswerRow, is_kept: impl Fn(usize) -> bool) -> AnswerRow {
        let kept = |(index, answer)| if is_kept(index) { answer } else { AnswerRef::Missing };
        self.answers(row).enumerate().map(kept).collect()
    }
}

impl<'r> FromIterator<AnswerRef<'r>> for AnswerRow {
    /// The row of answers in the order of the questions, each of the type that the layout has for its question.
    fn from_iter<I: IntoIterator<Item = AnswerRef<'r>>>(answers: I) -> Self {
        let answers = answers.into_iter();
        let mut writer = RowWriter::new(answers.size_hint().0);
        answers.for_each(|answer| writer.push(answer));
        writer.finish()
    }
}

impl RowType {
    /// Converts an owned answer; `None` if this type cannot represent it. `text` owns the text that a number becomes.
    fn convert<'a>(self, answer: &'a Answer, text: &'a mut String) -> Option<AnswerRef<'a>> {
        match self {
            Self::Whole => whole_of(answer).map(AnswerRef::Whole),
            Self::Id => whole_of(answer).map(AnswerRef::Id),
            Self::Number => {
                let number = match answer {
                    Answer::Number(number) => *number,
                    Answer::Whole(whole) => *whole as f64,
                    Answer::Text(spelled) => number_in(spelled)?,
                };
                number.is_finite().then_some(AnswerRef::Number(number))
            }
            Self::Text => {
                *text = match answer {
                    Answer::Text(text) => return Some(AnswerRef::Text(text)),
                    Answer::Number(number) => number.to_string(),
                    Answer::Whole(whole) => whole.to_string(),
                };
                Some(AnswerRef::Text(text))
            }
            Self::Flag => match answer {
                Answer::Text(spelled) => flag_in(spelled).map(AnswerRef::Flag),
                Answer::Number(_) | Answer::Whole(_) => None,
            },
        }
    }
}

fn whole_of(answer: &Answer) -> Option<i64> {
    match answer {
        Answer::Whole(whole) => Some(*whole),
        Answer::Text(spelled) => whole_in(spelled),
        // Earlier releases stored numbers beyond 2^53 as the nearest float.
        Answer::Number(number) => {
            (number.fract() == 0.0 && number.abs() <= WHOLE_LIMIT).then_some(*number as i64)
        }
    }
}

/// Makes a row, one answer after the other.
#[derive(Debug)]
pub(super) struct RowWriter(Vec<u8>);

/// Bytes to reserve per question: enough for a double, and for most texts.
const RESERVED: usize = 16;

impl RowWriter {
    /// A writer of about so many answers.
    pub(super) fn new(questions: usize) -> Self {
        Self(Vec::with_capacity(questions * RESERVED))
    }

    /// Appends the answer to the next question. It must be of the type that the layout has for it.
    pub(super) fn push(&mut self, answer: AnswerRef<'_>) {
        let Self(bytes) = self;
        bytes.push(if answer.is_missing() { NULL } else { VALUE });
        match answer {
            AnswerRef::Missing => {}
            AnswerRef::Number(number) => bytes.extend_from_slice(&number.to_le_bytes()),
            AnswerRef::Whole(whole) | AnswerRef::Id(whole) => wire::write_long(whole, bytes),
            AnswerRef::Text(text) => wire::write_blob(text.as_bytes(), bytes),
            AnswerRef::Flag(flag) => bytes.push(u8::from(flag)),
        }
    }

    pub(super) fn finish(self) -> AnswerRow {
        AnswerRow(self.0.into())
    }
}

/// The answers of a row, in the order of the questions. It allocates nothing.
#[derive(Debug)]
pub struct RowReader<'r> {
    types: std::slice::Iter<'r, RowType>,
    cursor: Cursor<'r>,
    /// The index of the next answer.
    next: usize,
    /// The answer before it.
    last: AnswerRef<'r>,
}

impl<'r> RowReader<'r> {
    /// Skips to the answer with this index, which must not be less than the one before; missing beyond the last question.
    #[inline]
    pub fn at(&mut self, index: usize) -> AnswerRef<'r> {
        self.skip_to(index);
        if self.next <= index {
            return self.next().unwrap_or(AnswerRef::Missing);
        }
        self.last
    }

    /// Whether the answer with this index is missing; as [`Self::at`], without reading it.
    #[inline]
    pub fn is_missing_at(&mut self, index: usize) -> bool {
        self.skip_to(index);
        if self.next > index {
            return self.last.is_missing();
        }
        self.cursor.rest().first().is_none_or(|branch| *branch == NULL)
    }

    #[inline]
    fn skip_to(&mut self, index: usize) {
        debug_assert!(index + 1 >= self.next, "answers are read in order");
        while self.next < index {
            let Some(row_type) = self.types.next() else { return };
            self.next += 1;
            // As in `next`.
            let skipped = self.skip(*row_type);
            debug_assert!(skipped.is_ok(), "a row of another layout: {skipped:?}");
        }
    }

    #[inline]
    fn skip(&mut self, row_type: RowType) -> Result<(), Malformed> {
        if self.cursor.choice(2)? == 0 {
            return Ok(());
        }
        match row_type {
            RowType::Whole | RowType::Id => self.cursor.long().map(drop),
            RowType::Number => self.cursor.take(size_of::<f64>()).map(drop),
            RowType::Text => self.cursor.blob().map(drop),
            RowType::Flag => self.cursor.take(1).map(drop),
        }
    }

    #[inline]
    fn read(&mut self, row_type: RowType) -> Result<AnswerRef<'r>, Malformed> {
        if self.cursor.choice(2)? == 0 {
            return Ok(AnswerRef::Missing);
        }
        Ok(match row_type {
            RowType::Whole => AnswerRef::Whole(self.cursor.long()?),
            RowType::Id => AnswerRef::Id(self.cursor.long()?),
            RowType::Number => AnswerRef::Number(self.cursor.double()?),
            RowType::Text => AnswerRef::Text(self.cursor.text()?),
            RowType::Flag => AnswerRef::Flag(self.cursor.boolean()?),
        })
    }
}

impl<'r> Iterator for RowReader<'r> {
    type Item = AnswerRef<'r>;

    #[inline]
    fn next(&mut self) -> Option<AnswerRef<'r>> {
        let row_type = *self.types.next()?;
        self.next += 1;
        // A row has been made with its layout, so it can be read with it.
        let answer = self.read(row_type);
        debug_assert!(answer.is_ok(), "a row of another layout: {answer:?}");
        self.last = answer.unwrap_or(AnswerRef::Missing);
        Some(self.last)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.types.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apache_avro::{Schema, types::Value as Avro, writer::datum::GenericDatumWriter};
    use proptest::prelude::*;

    const TYPES: [RowType; 5] =
        [RowType::Whole, RowType::Id, RowType::Number, RowType::Text, RowType::Flag];

    /// A question's type with an answer of this type, as this crate and as apache-avro represent it.
    fn cell() -> impl Strategy<Value = (RowType, Option<Answer>, Avro)> {
        let number = any::<f64>().prop_filter("a finite number", |number| number.is_finite());
        let values = (0..TYPES.len(), any::<bool>(), any::<i64>(), number, ".{1,9}", any::<bool>());
        values.prop_map(|(index, is_given, whole, number, text, flag)| {
            let row_type = TYPES[index];
            let (answer, value) = match row_type {
                RowType::Whole => (AnswerRef::Whole(whole), Avro::Long(whole)),
                RowType::Id => (AnswerRef::Id(whole), Avro::Long(whole)),
                RowType::Number => (AnswerRef::Number(number), Avro::Double(number)),
                RowType::Text => (AnswerRef::Text(&text), Avro::String(text.clone())),
                RowType::Flag => (AnswerRef::Flag(flag), Avro::Boolean(flag)),
            };
            if !is_given {
                return (row_type, None, Avro::Union(0, Box::new(Avro::Null)));
            }
            (row_type, answer.to_answer(), Avro::Union(1, Box::new(value)))
        })
    }

    fn schema(types: &[RowType]) -> Schema {
        let field = |(number, row_type): (usize, &RowType)| {
            let avro = match row_type {
                RowType::Whole | RowType::Id => "long",
                RowType::Number => "double",
                RowType::Text => "string",
                RowType::Flag => "boolean",
            };
            format!(r#"{{"name":"q{number}","type":["null","{avro}"],"default":null}}"#)
        };
        let fields: Vec<String> = types.iter().enumerate().map(field).collect();
        let fields = fields.join(",");
        Schema::parse_str(&format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#))
            .unwrap()
    }

    proptest! {
        #[test]
        fn a_row_is_the_avro_record_of_its_answers(cells in prop::collection::vec(cell(), 1..9)) {
            let types: Vec<RowType> = cells.iter().map(|(row_type, ..)| *row_type).collect();
            let answers: Vec<_> = cells.iter().map(|(_, answer, _)| answer.clone()).collect();
            let layout = RowLayout::new(types.iter().copied());
            let row = layout.row_of(&answers);
            let fields = cells.iter().enumerate();
            let fields = fields.map(|(number, (.., value))| (format!("q{number}"), value.clone()));
            let record = Avro::Record(fields.collect());
            let schema = schema(&types);
            let writer = GenericDatumWriter::builder(&schema).build().unwrap();
            let datum = writer.write_value_to_vec(record).unwrap();
            prop_assert_eq!(&*row.0, &*datum);
            let read: Vec<_> = layout.answers(&row).map(AnswerRef::to_answer).collect();
            prop_assert_eq!(&read, &answers);
            prop_assert_eq!(layout.check((&row).into()), Ok(()));
            for length in 0..row.0.len() {
                prop_assert!(layout.check(AnswersRef::of_bytes(&row.0[..length])).is_err());
            }
            let longer = [&row.0, &[0][..]].concat();
            let trailing = layout.check(AnswersRef::of_bytes(&longer));
            prop_assert_eq!(trailing, Err(Malformed::Trailing(1)));
            let count = answers.iter().flatten().count();
            prop_assert_eq!(layout.is_complete(&row), count == answers.len());
            for index in 0..answers.len() {
                let mut reader = layout.answers(&row);
                prop_assert_eq!(reader.is_missing_at(index), answers[index].is_none());
                let (at, again) = (reader.at(index).to_answer(), reader.at(index).to_answer());
                prop_assert_eq!((&at, &again), (&answers[index], &answers[index]));
                prop_assert_eq!(reader.is_missing_at(index), answers[index].is_none());
                let rest: Vec<_> = layout.answers(&layout.keep(&row, |number| number >= index))
                    .map(AnswerRef::to_answer).collect();
                prop_assert!(rest[..index].iter().all(Option::is_none));
                prop_assert_eq!(&rest[index..], &answers[index..]);
            }
        }
    }

    #[test]
    fn stored_answers_are_converted_to_the_type_of_the_question() {
        let check = |row_type: RowType, answer: Answer, expected: Option<AnswerRef<'_>>| {
            let layout = RowLayout::new([row_type]);
            let row = layout.row_of(&[Some(answer.clone())]);
            let read = layout.answers(&row).at(0);
            assert_eq!(read, expected.unwrap_or(AnswerRef::Missing), "{row_type:?} {answer:?}");
            let empty = layout.row_of(&[]);
            assert_eq!(layout.replace(&empty, 0, &answer), expected.map(|_| row), "{answer:?}");
        };
        let text = |text: &str| Answer::Text(text.to_owned());
        let exact = (1 << 53) + 1;
        check(RowType::Whole, Answer::Number(39.0), Some(AnswerRef::Whole(39)));
        check(RowType::Whole, Answer::Whole(exact), Some(AnswerRef::Whole(exact)));
        check(RowType::Whole, Answer::Number(1.8e18), Some(AnswerRef::Whole(18 * 10_i64.pow(17))));
        check(RowType::Whole, Answer::Number(39.5), None);
        check(RowType::Whole, Answer::Number(1e300), None);
        check(RowType::Whole, Answer::Number(f64::NAN), None);
        check(RowType::Id, text("9007199254740993"), Some(AnswerRef::Id(exact)));
        check(RowType::Id, text("ann"), None);
        check(RowType::Number, Answer::Number(-0.0), Some(AnswerRef::Number(-0.0)));
        check(RowType::Number, text(" 7.5 "), Some(AnswerRef::Number(7.5)));
        check(RowType::Number, text("many"), None);
        check(RowType::Number, Answer::Number(f64::INFINITY), None);
        check(RowType::Text, Answer::Number(7.0), Some(AnswerRef::Text("7")));
        check(RowType::Text, Answer::Whole(exact), Some(AnswerRef::Text("9007199254740993")));
        check(RowType::Flag, text("true"), Some(AnswerRef::Flag(true)));
        check(RowType::Flag, text("yes"), None);
        check(RowType::Flag, Answer::Number(1.0), None);
    }
}
