//! The one conversion from what was given to an answer: cells of a table, JSON and Avro all come through [`AnswerForm`],
//! so that a value means the same in training and in scoring.
//!
//! | given | becomes |
//! |---|---|
//! | text, without the white space around it | a word; what its type makes of it; nothing, if it is empty or a missing mark |
//! | a whole number | that number, exactly: an event carries it so. A model sees the nearest 64-bit float; where a `long` is read as a category, its digits |
//! | a JSON string | what a cell of a table with that text is |
//! | a number for a `float` | the nearest that 32 bits hold, in every writer's schema |
//! | a date or a time | what Avro carries for it: a number in the unit of the logical type |
//! | a decimal | the nearest number of 64 bits |
//! | NaN, infinite, null | nothing |

use serde_json::{Number, Value};

use crate::events::questionnaire::{Answer, decimal::Decimal, moment::MomentKind, uuid};
use foretell_avro::dynamic::Cell;

/// What the schema lets an answer be.
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
    /// 16 bytes.
    UuidBytes,
    Decimal(Decimal),
    Moment(MomentKind),
}

/// What the settings say of how answers are read; names are those of questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadingRules {
    /// Read as categories, whatever their type.
    pub categorical: Vec<String>,
    /// Read as numbers, whatever their type.
    pub numeric: Vec<String>,
    /// Texts and numbers that say that there is no answer, wherever they come from.
    pub missing: Vec<String>,
}

/// How the answers to one question are read and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnswerForm {
    pub(super) kind: AnswerType,
    pub(super) reading: Reading,
    /// See [`ReadingRules::missing`].
    pub(super) missing: Vec<String>,
}

/// As what a model reads an answer, if the settings say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reading {
    #[default]
    ByType,
    Category,
    Number,
}

/// A value that its question can't have, and what it can.
pub(super) struct Unfit(pub(super) String);

/// What somebody gave, before it is known what it means.
#[derive(Clone, Copy)]
enum Given<'a> {
    Flag(bool),
    Whole(i64),
    Real(f64),
    /// A string of an event's.
    Word(&'a str),
    /// A cell of a table or a JSON string: the text stands for a value of whatever type.
    Written(&'a str),
    Bytes(&'a [u8]),
}

/// Whole numbers below this are told apart by 64-bit floats; the next one is rounded to it.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
const EXACT_WHOLE_MAX: u64 = 1 << 53;

/// What a `long` has to be. A JSON number with a point or an exponent is a 64-bit float before we see it.
pub(super) const LONG_WANTED: &str =
    "a whole number of 64 bits; a JSON number from 2^53 on has neither a point nor an exponent";

impl AnswerForm {
    /// The answer that a cell of a table is, if it is one.
    pub(super) fn of_text(&self, text: &str) -> Result<Option<Answer>, Unfit> {
        self.answer(Given::Written(text))
    }

    /// The answer that a JSON value is, if it is one.
    pub(super) fn of_json(&self, value: &Value) -> Result<Option<Answer>, Unfit> {
        match value {
            Value::Null => Ok(None),
            Value::Bool(flag) => self.answer(Given::Flag(*flag)),
            Value::String(text) => self.answer(Given::Written(text)),
            // Above 2^63 a number of JSON's is unsigned, and no `long`.
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => self.answer(Given::Whole(whole)),
                (None, Some(real)) => self.answer(Given::Real(real)),
                (None, None) => Err(self.unfit()),
            },
            Value::Array(_) | Value::Object(_) => Err(self.unfit()),
        }
    }

    /// The answer that a field of an event is, if it is one. The schema has let nothing else through than what fits, but
    /// for what logical types demand, which Avro does not look at.
    pub(super) fn of_cell(&self, cell: Cell<'_>) -> Result<Option<Answer>, Unfit> {
        let given = match cell {
            Cell::Null | Cell::Other => return Ok(None),
            Cell::Boolean(flag) => Given::Flag(flag),
            #[cfg(test)]
            Cell::Long(whole) if planted::is(planted::Difference::RoundedIds) => {
                Given::Whole(whole as f64 as i64)
            }
            Cell::Long(whole) => Given::Whole(whole),
            Cell::Double(real) if !real.is_finite() => return Ok(None),
            Cell::Double(real) => Given::Real(real),
            #[cfg(test)]
            Cell::Text(text) if planted::is(planted::Difference::UntrimmedEvents) => {
                return Ok(Some(Answer::Text(text.to_owned())));
            }
            Cell::Text(text) => Given::Word(text),
            Cell::Bytes(bytes) => Given::Bytes(bytes),
        };
        self.answer(given)
    }

    /// Whether Avro can carry a text that is no answer to this question: then it goes to the dead letters.
    pub(super) fn is_text_in_avro(&self) -> bool {
        self.kind == AnswerType::UuidText
    }

    fn answer(&self, given: Given<'_>) -> Result<Option<Answer>, Unfit> {
        let given = match given {
            Given::Word(text) => Given::Word(text.trim()),
            Given::Written(text) => Given::Written(text.trim()),
            Given::Flag(_) | Given::Whole(_) | Given::Real(_) | Given::Bytes(_) => given,
        };
        if let Given::Word(text) | Given::Written(text) = given
            && (text.is_empty() || self.is_mark(text))
        {
            return Ok(None);
        }
        let answer = self.typed(given).ok_or_else(|| self.unfit())?;
        Ok(Some(answer).filter(|answer| !self.says_nothing(answer)))
    }

    fn typed(&self, given: Given<'_>) -> Option<Answer> {
        match &self.kind {
            AnswerType::Int => i32::try_from(whole(given)?).ok().map(|n| Answer::Number(n.into())),
            AnswerType::Long => self.long(given),
            AnswerType::Float => real(given).and_then(single).map(Answer::Number),
            AnswerType::Double => real(given).map(Answer::Number),
            AnswerType::Boolean => flag(given).map(|flag| Answer::Text(flag.to_string())),
            AnswerType::Text => {
                let text = word(given)?;
                let is_told = matches!(given, Given::Written(_));
                // Of a table or a request a person can be told; what comes later is counted where it is scored.
                if is_told && self.reading == Reading::Number && number_in(text).is_none() {
                    return None;
                }
                Some(Answer::Text(text.to_owned()))
            }
            AnswerType::Symbols(symbols) => {
                let text = word(given)?;
                symbols.iter().any(|symbol| symbol == text).then(|| Answer::Text(text.to_owned()))
            }
            AnswerType::UuidText | AnswerType::UuidBytes => {
                if let Given::Bytes(bytes) = given {
                    return uuid::shown(bytes).map(Answer::Text);
                }
                uuid::shown(&uuid::parse(word(given)?)?).map(Answer::Text)
            }
            AnswerType::Decimal(decimal) => {
                if let Given::Bytes(bytes) = given {
                    return Some(Answer::Number(decimal.number(bytes)));
                }
                // A decimal has no negative zero.
                let number = real(given)? + 0.0;
                decimal.bytes(number).map(|_| Answer::Number(number))
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
                self.long(Given::Whole(number))
            }
        }
    }

    /// As a category it is text, so that it is told apart from its neighbours by a model, too.
    fn long(&self, given: Given<'_>) -> Option<Answer> {
        let number = whole(given)?;
        Some(match self.reading {
            Reading::Category => Answer::Text(number.to_string()),
            Reading::ByType | Reading::Number if number.unsigned_abs() > EXACT_WHOLE_MAX => {
                Answer::Whole(number)
            }
            Reading::ByType | Reading::Number => Answer::Number(number as f64),
        })
    }

    fn says_nothing(&self, answer: &Answer) -> bool {
        match answer {
            Answer::Text(text) => self.is_mark(text),
            Answer::Whole(number) => {
                self.missing.iter().any(|mark| whole_in(mark) == Some(*number))
            }
            Answer::Number(number) => {
                let is_it = |mark: &String| number_in(mark).is_some_and(|mark| same(mark, *number));
                !number.is_finite() || self.missing.iter().any(is_it)
            }
        }
    }

    fn is_mark(&self, text: &str) -> bool {
        self.missing.iter().any(|mark| mark == text)
    }

    /// The cell of an answer; `blob` holds what a cell only borrows.
    pub(super) fn cell<'e>(
        &self,
        answer: Option<&'e Answer>,
        blob: &'e mut Option<Vec<u8>>,
    ) -> Cell<'e> {
        match (answer, &self.kind) {
            (None, _) => Cell::Null,
            (Some(Answer::Whole(number)), _) => Cell::Long(*number),
            (Some(Answer::Number(number)), AnswerType::Decimal(decimal)) => {
                *blob = decimal.bytes(*number);
                blob.as_deref().map_or(Cell::Double(*number), Cell::Bytes)
            }
            (Some(Answer::Number(number)), _) => Cell::Double(*number),
            (Some(Answer::Text(text)), AnswerType::Boolean) => {
                text.parse().map_or(Cell::Text(text), Cell::Boolean)
            }
            (
                Some(Answer::Text(text)),
                AnswerType::Int | AnswerType::Long | AnswerType::Moment(_),
            ) => text.parse().map_or(Cell::Text(text), Cell::Long),
            (Some(Answer::Text(text)), AnswerType::UuidBytes) => {
                *blob = uuid::parse(text).map(|bytes| bytes.to_vec());
                blob.as_deref().map_or(Cell::Text(text), Cell::Bytes)
            }
            (Some(Answer::Text(text)), _) => Cell::Text(text),
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
                "a number, for [features] numeric names it".to_owned()
            }
            AnswerType::Text => "a string".to_owned(),
            AnswerType::Symbols(symbols) => format!("one of {}", symbols.join(", ")),
            AnswerType::UuidText | AnswerType::UuidBytes => uuid::WANTED.to_owned(),
            AnswerType::Decimal(decimal) => decimal.wanted(),
            AnswerType::Moment(kind) => kind.wanted().to_owned(),
        })
    }
}

/// The finite number that a text spells, if it is one.
fn number_in(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// Whether two texts spell the same number: whole ones exactly.
pub(crate) fn is_same_number(one: &str, other: &str) -> bool {
    match (whole_in(one), whole_in(other)) {
        (Some(one), Some(other)) => one == other,
        (_, _) => number_in(one).zip(number_in(other)).is_some_and(|(one, other)| same(one, other)),
    }
}

#[expect(clippy::float_cmp, reason = "a mark is the very number, or another one")]
fn same(mark: f64, number: f64) -> bool {
    mark == number
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

/// The whole number that a float is; none where it may be another one, rounded.
fn whole_float(real: f64) -> Option<i64> {
    (real.fract() == 0.0 && real.abs() < EXACT_MAX).then_some(real as i64)
}

/// The whole number of 64 bits that a JSON number is.
pub(super) fn whole_number(number: &Number) -> Option<i64> {
    if number.is_u64() {
        return number.as_i64();
    }
    number.as_i64().or_else(|| number.as_f64().and_then(whole_float))
}

/// The whole number of 64 bits that a text spells, exactly: `39.0`, as a table says that was exported from a column with
/// gaps, and `1.8e18` are some, too.
pub(super) fn whole_in(text: &str) -> Option<i64> {
    const DIGITS_MAX: i64 = 19;
    let text = text.trim();
    let (sign, unsigned) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        None => (unsigned, 0),
        Some((mantissa, exponent)) => (mantissa, i64::from(exponent.parse::<i32>().ok()?)),
    };
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{before}{after}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_end_matches('0');
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    // How many zeros follow what is significant, up to the point.
    let zeros = exponent - length(after) + length(&digits) - length(significant);
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    if zeros < 0 || length(significant) + zeros > DIGITS_MAX {
        return None;
    }
    let power = 10_i128.pow(u32::try_from(zeros).ok()?);
    let number = significant.parse::<i128>().ok()? * power * sign;
    i64::try_from(number).ok()
}

/// The nearest number of 32 bits: what an event carries.
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

/// `true` or `false`, in any case.
pub(crate) fn flag_in(text: &str) -> Option<bool> {
    text.to_ascii_lowercase().parse().ok()
}

fn word(given: Given<'_>) -> Option<&str> {
    match given {
        Given::Word(text) | Given::Written(text) => Some(text),
        Given::Flag(_) | Given::Whole(_) | Given::Real(_) | Given::Bytes(_) => None,
    }
}

/// Differences between the ways that the property test must find.
#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Difference {
        /// Events are taken as they come, tables trimmed.
        UntrimmedEvents,
        /// A `long` that is a category goes through a 64-bit float.
        RoundedIds,
        /// A `float` in a table has more digits than one in an event.
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
