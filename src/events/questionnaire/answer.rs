//! Converts values to answers. Cells of a table, JSON and Avro are all converted by [`AnswerForm`], so that a value means the same
//! in training and in scoring.
//!
//! | given | becomes |
//! |---|---|
//! | text, trimmed | a text, or the value that it spells in the type of the question; no answer if it is empty or means "no answer" |
//! | a whole number | that number, exactly; for a model the nearest 64-bit float, or its digits where a `long` is read as a category |
//! | a JSON string | the same as a table cell with this text |
//! | a number for a `float` | the nearest 32-bit float, with every writer schema |
//! | a date or a time | a number in the unit of the logical type |
//! | a decimal | the nearest 64-bit float |
//! | NaN, infinity, null | no answer |

use serde_json::{Number, Value};

use crate::events::questionnaire::{
    Answer,
    decimal::Decimal,
    moment::MomentKind,
    row::{AnswerRef, EXACT_WHOLE_MAX, RowType},
    spelling::{flag_in, number_in, same, whole_in},
    uuid,
};
use foretell_avro::dynamic::Cell;

/// The type of an answer in the event schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AnswerType {
    Int,
    Long,
    Float,
    Double,
    Boolean,
    Text,
    Symbols(Vec<String>),
    /// A string of logical type `uuid`.
    UuidText,
    /// A UUID of 16 bytes.
    UuidBytes,
    Decimal(Decimal),
    Moment(MomentKind),
}

impl AnswerType {
    /// The type as Avro calls it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Int => "int".to_owned(),
            Self::Long => "long".to_owned(),
            Self::Float => "float".to_owned(),
            Self::Double => "double".to_owned(),
            Self::Boolean => "boolean".to_owned(),
            Self::Text => "string".to_owned(),
            Self::Symbols(symbols) => format!("enum of {}", symbols.join(", ")),
            Self::UuidText => "uuid (a string)".to_owned(),
            Self::UuidBytes => "uuid (bytes)".to_owned(),
            Self::Decimal(Decimal { precision, scale, .. }) => {
                format!("decimal({precision}, {scale})")
            }
            Self::Moment(kind) => kind.type_name().to_owned(),
        }
    }

    /// The type of the answers in a row, unless they are read as categories.
    pub(super) fn row_type(&self) -> RowType {
        match self {
            Self::Int | Self::Long | Self::Moment(_) => RowType::Whole,
            Self::Float | Self::Double | Self::Decimal(_) => RowType::Number,
            Self::Boolean => RowType::Flag,
            Self::Text | Self::Symbols(_) | Self::UuidText | Self::UuidBytes => RowType::Text,
        }
    }
}

/// The type of the JSON values and of the numbers that an answer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Primitive {
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    Long,
    Float,
    Double,
    Boolean,
    Text,
}

impl AnswerType {
    pub(super) fn primitive(&self) -> Primitive {
        match self {
            Self::Int => Primitive::Int,
            Self::Moment(kind) if kind.is_int() => Primitive::Int,
            Self::Long | Self::Moment(_) => Primitive::Long,
            Self::Float => Primitive::Float,
            Self::Double | Self::Decimal(_) => Primitive::Double,
            Self::Boolean => Primitive::Boolean,
            Self::Text | Self::Symbols(_) | Self::UuidText | Self::UuidBytes => Primitive::Text,
        }
    }
}

/// The configured rules for reading answers, by the names of questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadingRules {
    /// Questions that are read as categories.
    pub categorical: Vec<String>,
    /// Questions that are read as numbers.
    pub numeric: Vec<String>,
    /// Texts and numbers that mean "no answer", in every input.
    pub missing: Vec<String>,
}

/// The conversion of the answers to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnswerForm {
    pub(super) kind: AnswerType,
    pub(super) reading: Reading,
    /// See [`ReadingRules::missing`].
    pub(super) missing: Vec<String>,
}

/// The configured kind of a feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reading {
    #[default]
    ByType,
    Category,
    Number,
}

/// An invalid value; the text describes the valid ones.
pub(super) struct Unfit(pub(super) String);

/// An input value before its conversion.
#[derive(Clone, Copy)]
enum Given<'a> {
    Flag(bool),
    Whole(i64),
    Real(f64),
    /// A string of an event.
    Word(&'a str),
    /// A table cell or a JSON string, whose text spells a value of any type.
    Written(&'a str),
    Bytes(&'a [u8]),
}

/// 2^53: a 64-bit float represents every whole number below it exactly.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Description of a valid `long`. A JSON parser reads a number with a point or an exponent as a 64-bit float.
pub(super) const LONG_WANTED: &str =
    "a whole number of 64 bits; write JSON numbers from 2^53 without a point or an exponent";

impl AnswerForm {
    /// Converts a table cell; none if it means "no answer".
    pub(super) fn of_text(&self, text: &str) -> Result<Option<Answer>, Unfit> {
        self.owned(Given::Written(text))
    }

    /// Converts a JSON value; none if it means "no answer".
    pub(super) fn of_json(&self, value: &Value) -> Result<Option<Answer>, Unfit> {
        match value {
            Value::Null => Ok(None),
            Value::Bool(flag) => self.owned(Given::Flag(*flag)),
            Value::String(text) => self.owned(Given::Written(text)),
            // A JSON number from 2^63 is unsigned and not a valid `long`.
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => self.owned(Given::Whole(whole)),
                (None, Some(real)) => self.owned(Given::Real(real)),
                (None, None) => Err(self.unfit()),
            },
            Value::Array(_) | Value::Object(_) => Err(self.unfit()),
        }
    }

    /// Converts a field of an event. Schema resolution has checked the Avro type, but not the rules of logical types. `buffer`
    /// owns the text of a UUID.
    pub(super) fn of_cell<'a>(
        &self,
        cell: Cell<'a>,
        buffer: &'a mut uuid::Buffer,
    ) -> Result<AnswerRef<'a>, Unfit> {
        let given = match cell {
            Cell::Null | Cell::Other => return Ok(AnswerRef::Missing),
            Cell::Boolean(flag) => Given::Flag(flag),
            #[cfg(test)]
            Cell::Long(whole) if planted::is(planted::Difference::RoundedIds) => {
                Given::Whole(whole as f64 as i64)
            }
            Cell::Long(whole) => Given::Whole(whole),
            Cell::Double(real) if !real.is_finite() => return Ok(AnswerRef::Missing),
            Cell::Double(real) => Given::Real(real),
            #[cfg(test)]
            Cell::Text(text) if planted::is(planted::Difference::UntrimmedEvents) => {
                return Ok(AnswerRef::Text(text));
            }
            Cell::Text(text) => Given::Word(text),
            Cell::Bytes(bytes) => Given::Bytes(bytes),
        };
        self.answer(given, buffer)
    }

    /// Whether Avro allows texts that are not valid answers. Such an event is dead-lettered.
    pub(super) fn is_text_in_avro(&self) -> bool {
        self.kind == AnswerType::UuidText
    }

    /// The type of the answers in a row.
    pub(super) fn row_type(&self) -> RowType {
        match self.kind.row_type() {
            RowType::Whole
                if self.reading == Reading::Category && !matches!(self.kind, AnswerType::Int) =>
            {
                RowType::Id
            }
            row_type @ (RowType::Whole
            | RowType::Id
            | RowType::Number
            | RowType::Text
            | RowType::Flag) => row_type,
        }
    }

    fn owned(&self, given: Given<'_>) -> Result<Option<Answer>, Unfit> {
        self.answer(given, &mut [0; _]).map(AnswerRef::to_answer)
    }

    fn answer<'a>(
        &self,
        given: Given<'a>,
        buffer: &'a mut uuid::Buffer,
    ) -> Result<AnswerRef<'a>, Unfit> {
        let given = match given {
            Given::Word(text) => Given::Word(text.trim()),
            Given::Written(text) => Given::Written(text.trim()),
            Given::Flag(_) | Given::Whole(_) | Given::Real(_) | Given::Bytes(_) => given,
        };
        if let Given::Word(text) | Given::Written(text) = given
            && (text.is_empty() || self.is_mark(text))
        {
            return Ok(AnswerRef::Missing);
        }
        let answer = self.typed(given, buffer).ok_or_else(|| self.unfit())?;
        Ok(if self.says_nothing(answer) { AnswerRef::Missing } else { answer })
    }

    fn typed<'a>(&self, given: Given<'a>, buffer: &'a mut uuid::Buffer) -> Option<AnswerRef<'a>> {
        match &self.kind {
            AnswerType::Int => {
                i32::try_from(whole(given)?).ok().map(|whole| AnswerRef::Whole(whole.into()))
            }
            AnswerType::Long => whole(given).map(|whole| self.long(whole)),
            AnswerType::Float => real(given).and_then(single).map(AnswerRef::Number),
            AnswerType::Double => real(given).map(AnswerRef::Number),
            AnswerType::Boolean => flag(given).map(AnswerRef::Flag),
            AnswerType::Text => {
                let text = word(given)?;
                let is_interactive = matches!(given, Given::Written(_));
                // An error for a table or a request; the text of an event is counted when it is scored.
                if is_interactive && self.reading == Reading::Number && number_in(text).is_none() {
                    return None;
                }
                Some(AnswerRef::Text(text))
            }
            AnswerType::Symbols(symbols) => {
                let text = word(given)?;
                symbols.iter().any(|symbol| symbol == text).then_some(AnswerRef::Text(text))
            }
            AnswerType::UuidText | AnswerType::UuidBytes => {
                let bytes = if let Given::Bytes(bytes) = given {
                    bytes.try_into().ok()?
                } else {
                    uuid::parse(word(given)?)?
                };
                Some(AnswerRef::Text(uuid::write(&bytes, buffer)))
            }
            AnswerType::Decimal(decimal) => {
                if let Given::Bytes(bytes) = given {
                    return Some(AnswerRef::Number(decimal.number(bytes)));
                }
                // A decimal has no negative zero.
                let number = real(given)? + 0.0;
                decimal.bytes(number).map(|_| AnswerRef::Number(number))
            }
            AnswerType::Moment(kind) => {
                let parsed = word(given).and_then(|text| kind.parse(text));
                let number = match parsed {
                    Some(number) => number,
                    None => whole(given)?,
                };
                if kind.is_int() && i32::try_from(number).is_err() {
                    return None;
                }
                Some(self.long(number))
            }
        }
    }

    /// A `long`. As a category it is an id, so that a model distinguishes it from its neighbours.
    fn long(&self, whole: i64) -> AnswerRef<'static> {
        match self.reading {
            Reading::Category => AnswerRef::Id(whole),
            Reading::ByType | Reading::Number => AnswerRef::Whole(whole),
        }
    }

    fn says_nothing(&self, answer: AnswerRef<'_>) -> bool {
        let is_number = |number: f64| {
            self.missing.iter().any(|mark| number_in(mark).is_some_and(|mark| same(mark, number)))
        };
        match answer {
            AnswerRef::Missing => true,
            AnswerRef::Text(text) => self.is_mark(text),
            AnswerRef::Flag(flag) => self.is_mark(if flag { "true" } else { "false" }),
            AnswerRef::Id(id) => !self.missing.is_empty() && self.is_mark(&id.to_string()),
            AnswerRef::Whole(whole) if whole.unsigned_abs() > EXACT_WHOLE_MAX => {
                self.missing.iter().any(|mark| whole_in(mark) == Some(whole))
            }
            AnswerRef::Whole(whole) => is_number(whole as f64),
            AnswerRef::Number(number) => !number.is_finite() || is_number(number),
        }
    }

    fn is_mark(&self, text: &str) -> bool {
        self.missing.iter().any(|mark| mark == text)
    }

    /// The Avro cell of an answer. `blob` owns the bytes that a cell borrows.
    pub(super) fn cell<'e>(
        &self,
        answer: AnswerRef<'e>,
        blob: &'e mut Option<Vec<u8>>,
    ) -> Cell<'e> {
        match (answer, &self.kind) {
            (AnswerRef::Missing, _) => Cell::Null,
            (AnswerRef::Whole(whole) | AnswerRef::Id(whole), _) => Cell::Long(whole),
            (AnswerRef::Number(number), AnswerType::Decimal(decimal)) => {
                *blob = decimal.bytes(number);
                blob.as_deref().map_or(Cell::Double(number), Cell::Bytes)
            }
            (AnswerRef::Number(number), _) => Cell::Double(number),
            (AnswerRef::Flag(flag), _) => Cell::Boolean(flag),
            (AnswerRef::Text(text), AnswerType::UuidBytes) => {
                *blob = uuid::parse(text).map(|bytes| bytes.to_vec());
                blob.as_deref().map_or(Cell::Text(text), Cell::Bytes)
            }
            (AnswerRef::Text(text), _) => Cell::Text(text),
        }
    }

    fn unfit(&self) -> Unfit {
        Unfit(match &self.kind {
            AnswerType::Int => "a whole number of 32 bits".to_owned(),
            AnswerType::Long => LONG_WANTED.to_owned(),
            AnswerType::Float => "a number of 32 bits".to_owned(),
            AnswerType::Double => "a number".to_owned(),
            AnswerType::Boolean => "true or false".to_owned(),
            AnswerType::Text if self.reading == Reading::Number => {
                "a number, because [features] numeric names it".to_owned()
            }
            AnswerType::Text => "a string".to_owned(),
            AnswerType::Symbols(symbols) => format!("one of {}", symbols.join(", ")),
            AnswerType::UuidText | AnswerType::UuidBytes => uuid::WANTED.to_owned(),
            AnswerType::Decimal(decimal) => decimal.wanted(),
            AnswerType::Moment(kind) => kind.wanted().to_owned(),
        })
    }
}

fn real(given: Given<'_>) -> Option<f64> {
    let number = match given {
        Given::Whole(whole) => whole as f64,
        Given::Real(real) => real,
        Given::Written(text) => number_in(text)?,
        Given::Flag(_) | Given::Word(_) | Given::Bytes(_) => return None,
    };
    number.is_finite().then_some(number)
}

fn whole(given: Given<'_>) -> Option<i64> {
    match given {
        Given::Whole(whole) => Some(whole),
        Given::Real(real) => whole_float(real),
        Given::Written(text) => whole_in(text),
        Given::Flag(_) | Given::Word(_) | Given::Bytes(_) => None,
    }
}

/// The whole number of a float; none if the float may be a rounded one.
fn whole_float(real: f64) -> Option<i64> {
    (real.fract() == 0.0 && real.abs() < EXACT_MAX).then_some(real as i64)
}

/// The whole number of 64 bits of a JSON number.
pub(super) fn whole_number(number: &Number) -> Option<i64> {
    if number.is_u64() {
        return number.as_i64();
    }
    number.as_i64().or_else(|| number.as_f64().and_then(whole_float))
}

/// The nearest 32-bit float, which is what an event has.
fn single(number: f64) -> Option<f64> {
    #[cfg(test)]
    if planted::is(planted::Difference::WideFloats) {
        return Some(number);
    }
    let single = number as f32;
    single.is_finite().then(|| f64::from(single))
}

fn flag(given: Given<'_>) -> Option<bool> {
    match given {
        Given::Flag(flag) => Some(flag),
        Given::Written(text) => flag_in(text),
        Given::Whole(_) | Given::Real(_) | Given::Word(_) | Given::Bytes(_) => None,
    }
}

fn word(given: Given<'_>) -> Option<&str> {
    match given {
        Given::Word(text) | Given::Written(text) => Some(text),
        Given::Flag(_) | Given::Whole(_) | Given::Real(_) | Given::Bytes(_) => None,
    }
}

/// Differences between the conversions of inputs that the property test must find.
#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Difference {
        /// Texts of events are not trimmed, those of tables are.
        UntrimmedEvents,
        /// A `long` that is a category is converted through a 64-bit float.
        RoundedIds,
        /// A `float` in a table is not rounded to 32 bits.
        WideFloats,
    }

    thread_local! {
        static PLANTED: Cell<Option<Difference>> = const { Cell::new(None) };
    }

    pub(crate) fn plant(difference: Option<Difference>) {
        PLANTED.set(difference);
    }

    pub(super) fn is(difference: Difference) -> bool {
        PLANTED.get() == Some(difference)
    }
}
