//! The compiled form of a condition, and its evaluation.
//!
//! Names are slots, keys are sorted, and patterns are compiled. An evaluation allocates only for the results of `string()`
//! and of `+` between strings, and for the caches of the first matches of a pattern on a thread.

use std::{borrow::Cow, cmp::Ordering};

use regex::Regex;

use crate::{
    error::Undefined,
    numbers::{
        Arithmetic, compare_int_double, compare_int_uint, compare_uint_double, int_of_double,
        uint_of_double,
    },
    scope::Slot,
};

/// The value of a variable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// No value, such as a missing answer.
    Null,
    /// A bool.
    Bool(bool),
    /// An int.
    Int(i64),
    /// A double.
    Double(f64),
    /// A string.
    Text(&'a str),
}

/// The values of the variables of a [`Scope`](crate::Scope).
pub trait Values {
    /// The value of the variable with this slot, of the type that was declared, or null if the variable is nullable.
    fn value(&self, slot: Slot) -> Value<'_>;
}

/// An expression of the compiled condition.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Box<str>),
    Variable(Slot),
    /// `map[key]`, with the entries in the order of their keys.
    Entry(Box<Node>, Box<[(Box<str>, Slot)]>),
    /// Whether the variable is not null.
    Has(Slot),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<[Node]>),
    Or(Box<[Node]>),
    ExactlyOne(Box<[Node]>),
    Conditional(Box<[Node; 3]>),
    Equal(Box<[Node; 2]>),
    Compare(Comparison, Box<[Node; 2]>),
    Arithmetic(Arithmetic, Box<[Node; 2]>),
    /// Whether the value is equal to one of the others.
    In(Box<Node>, Box<[Node]>),
    /// Whether the value is one of these strings, which are sorted.
    InTexts(Box<Node>, Box<[Box<str>]>),
    /// Whether the string is one of these keys, which are sorted.
    InKeys(Box<Node>, Box<[Box<str>]>),
    Size(Box<Node>),
    Test(TextTest, Box<[Node; 2]>),
    Matches(Box<Node>, Regex),
    Convert(Conversion, Box<Node>),
}

/// An operator that compares by order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// A function of two strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

/// A function that converts to the type of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conversion {
    Double,
    Int,
    Uint,
    Text,
}

/// The value of an expression.
#[derive(Debug, PartialEq)]
enum Computed<'v> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Cow<'v, str>),
}

impl<'v> From<Value<'v>> for Computed<'v> {
    fn from(value: Value<'v>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Int(value) => Self::Int(value),
            Value::Double(value) => Self::Double(value),
            Value::Text(value) => Self::Text(Cow::Borrowed(value)),
        }
    }
}

impl Node {
    /// The value of a bool.
    pub(crate) fn truth(&self, values: &impl Values) -> Result<bool, Undefined> {
        match self {
            Self::Bool(value) => Ok(*value),
            Self::Has(slot) => Ok(values.value(*slot) != Value::Null),
            Self::Not(operand) => operand.truth(values).map(|value| !value),
            Self::And(parts) => decided_by(false, parts, values),
            Self::Or(parts) => decided_by(true, parts, values),
            Self::ExactlyOne(parts) => {
                let mut holding = 0_usize;
                for part in parts {
                    holding += usize::from(part.truth(values)?);
                }
                Ok(holding == 1)
            }
            Self::Equal(parts) => {
                let [left, right] = &**parts;
                Ok(left.value(values)?.equals(&right.value(values)?))
            }
            Self::Compare(comparison, parts) => {
                let [left, right] = &**parts;
                let (left, right) = (left.value(values)?, right.value(values)?);
                if !left.has_order_with(&right) {
                    return Err(Undefined::NoSuchOverload);
                }
                // NaN is neither less than nor greater than anything.
                Ok(left.order(&right).is_some_and(|order| comparison.holds(order)))
            }
            Self::In(element, list) => {
                let element = element.value(values)?;
                let mut is_in = false;
                for other in list {
                    is_in |= element.equals(&other.value(values)?);
                }
                Ok(is_in)
            }
            Self::InTexts(element, texts) => {
                // Null is not one of them.
                let Computed::Text(text) = element.value(values)? else { return Ok(false) };
                Ok(is_one_of(&text, texts))
            }
            Self::InKeys(element, keys) => Ok(is_one_of(&element.text(values)?, keys)),
            Self::Test(test, parts) => {
                let [target, argument] = &**parts;
                let (target, argument) = (target.text(values)?, argument.text(values)?);
                Ok(match test {
                    TextTest::StartsWith => target.starts_with(&*argument),
                    TextTest::EndsWith => target.ends_with(&*argument),
                    TextTest::Contains => target.contains(&*argument),
                })
            }
            Self::Matches(target, pattern) => Ok(pattern.is_match(&target.text(values)?)),
            Self::Null
            | Self::Int(_)
            | Self::Uint(_)
            | Self::Double(_)
            | Self::Text(_)
            | Self::Variable(_)
            | Self::Entry(..)
            | Self::Negate(_)
            | Self::Conditional(_)
            | Self::Arithmetic(..)
            | Self::Size(_)
            | Self::Convert(..) => {
                let Computed::Bool(value) = self.value(values)? else {
                    return Err(Undefined::NoSuchOverload);
                };
                Ok(value)
            }
        }
    }

    fn value<'v>(&'v self, values: &'v impl Values) -> Result<Computed<'v>, Undefined> {
        Ok(match self {
            Self::Null => Computed::Null,
            Self::Int(value) => Computed::Int(*value),
            Self::Uint(value) => Computed::Uint(*value),
            Self::Double(value) => Computed::Double(*value),
            Self::Text(value) => Computed::Text(Cow::Borrowed(value)),
            Self::Variable(slot) => values.value(*slot).into(),
            Self::Entry(key, entries) => {
                let key = key.text(values)?;
                let found = entries.binary_search_by(|(other, _)| (**other).cmp(&key));
                let (_, slot) = &entries[found.map_err(|_| Undefined::NoSuchKey)?];
                values.value(*slot).into()
            }
            Self::Negate(operand) => return operand.value(values)?.negated(),
            Self::Conditional(parts) => {
                let [condition, then, otherwise] = &**parts;
                let chosen = if condition.truth(values)? { then } else { otherwise };
                return chosen.value(values);
            }
            Self::Arithmetic(operator, parts) => {
                let [left, right] = &**parts;
                return calculated(*operator, left.value(values)?, right.value(values)?);
            }
            Self::Size(operand) => {
                let characters = operand.text(values)?.chars().count();
                Computed::Int(i64::try_from(characters).map_err(|_| Undefined::Overflow)?)
            }
            Self::Convert(conversion, operand) => {
                return conversion.of(operand.value(values)?);
            }
            Self::Bool(_)
            | Self::Has(_)
            | Self::Not(_)
            | Self::And(_)
            | Self::Or(_)
            | Self::ExactlyOne(_)
            | Self::Equal(_)
            | Self::Compare(..)
            | Self::In(..)
            | Self::InTexts(..)
            | Self::InKeys(..)
            | Self::Test(..)
            | Self::Matches(..) => Computed::Bool(self.truth(values)?),
        })
    }

    fn text<'v>(&'v self, values: &'v impl Values) -> Result<Cow<'v, str>, Undefined> {
        let Computed::Text(text) = self.value(values)? else {
            return Err(Undefined::NoSuchOverload);
        };
        Ok(text)
    }
}

fn is_one_of(text: &str, sorted: &[Box<str>]) -> bool {
    sorted.binary_search_by(|other| (**other).cmp(text)).is_ok()
}

/// `&&` (decided by false) or `||` (decided by true): one part that decides absorbs the errors of all others.
fn decided_by(deciding: bool, parts: &[Node], values: &impl Values) -> Result<bool, Undefined> {
    let mut undefined = None;
    for part in parts {
        match part.truth(values) {
            Ok(value) if value == deciding => return Ok(deciding),
            Ok(_) => (),
            Err(error) => undefined = undefined.or(Some(error)),
        }
    }
    undefined.map_or(Ok(!deciding), Err)
}

fn calculated<'v>(
    operator: Arithmetic,
    left: Computed<'v>,
    right: Computed<'v>,
) -> Result<Computed<'v>, Undefined> {
    match (left, right) {
        (Computed::Int(left), Computed::Int(right)) => {
            operator.of_ints(left, right).map(Computed::Int)
        }
        (Computed::Uint(left), Computed::Uint(right)) => {
            operator.of_uints(left, right).map(Computed::Uint)
        }
        (Computed::Double(left), Computed::Double(right)) => {
            let result = operator.of_doubles(left, right);
            result.map(Computed::Double).ok_or(Undefined::NoSuchOverload)
        }
        (Computed::Text(left), Computed::Text(right)) if operator == Arithmetic::Add => {
            Ok(Computed::Text(left + right))
        }
        _ => Err(Undefined::NoSuchOverload),
    }
}

impl Computed<'_> {
    fn negated(self) -> Result<Self, Undefined> {
        match self {
            Self::Int(value) => Ok(Self::Int(value.checked_neg().ok_or(Undefined::Overflow)?)),
            Self::Double(value) => Ok(Self::Double(-value)),
            Self::Null | Self::Bool(_) | Self::Uint(_) | Self::Text(_) => {
                Err(Undefined::NoSuchOverload)
            }
        }
    }

    /// CEL's equality: values of different types are not equal, but numbers are compared by value.
    fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Text(one), Self::Text(other)) => one == other,
            _ => self.order(other) == Some(Ordering::Equal),
        }
    }

    /// Whether `<` has an overload for the two.
    fn has_order_with(&self, other: &Self) -> bool {
        let is_number =
            |value: &Self| matches!(value, Self::Int(_) | Self::Uint(_) | Self::Double(_));
        match (self, other) {
            (Self::Bool(_), Self::Bool(_)) | (Self::Text(_), Self::Text(_)) => true,
            _ => is_number(self) && is_number(other),
        }
    }

    /// The order of the two; none if there is none, as with NaN.
    fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Double(one), Self::Double(other)) => one.partial_cmp(other),
            (Self::Int(one), Self::Int(other)) => Some(one.cmp(other)),
            (Self::Int(one), Self::Double(other)) => compare_int_double(*one, *other),
            (Self::Double(one), Self::Int(other)) => {
                compare_int_double(*other, *one).map(Ordering::reverse)
            }
            (Self::Text(one), Self::Text(other)) => Some(one.cmp(other)),
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            (Self::Uint(one), Self::Uint(other)) => Some(one.cmp(other)),
            (Self::Int(one), Self::Uint(other)) => Some(compare_int_uint(*one, *other)),
            (Self::Uint(one), Self::Int(other)) => Some(compare_int_uint(*other, *one).reverse()),
            (Self::Uint(one), Self::Double(other)) => compare_uint_double(*one, *other),
            (Self::Double(one), Self::Uint(other)) => {
                compare_uint_double(*other, *one).map(Ordering::reverse)
            }
            _ => None,
        }
    }
}

impl Conversion {
    #[expect(clippy::cast_precision_loss, reason = "double() gives the nearest double")]
    fn of(self, value: Computed<'_>) -> Result<Computed<'_>, Undefined> {
        let fails = |_| Undefined::NotConvertible;
        Ok(match (self, value) {
            (_, Computed::Null | Computed::Bool(_)) if self != Self::Text => {
                return Err(Undefined::NoSuchOverload);
            }
            (_, Computed::Null) => return Err(Undefined::NoSuchOverload),
            (Self::Double, Computed::Int(value)) => Computed::Double(value as f64),
            (Self::Double, Computed::Uint(value)) => Computed::Double(value as f64),
            (Self::Double, Computed::Text(text)) => {
                Computed::Double(text.parse().map_err(|_| Undefined::NotConvertible)?)
            }
            (Self::Int, Computed::Uint(value)) => Computed::Int(value.try_into().map_err(fails)?),
            (Self::Int, Computed::Double(value)) => Computed::Int(int_of_double(value)?),
            (Self::Int, Computed::Text(text)) => {
                Computed::Int(text.parse().map_err(|_| Undefined::NotConvertible)?)
            }
            (Self::Uint, Computed::Int(value)) => Computed::Uint(value.try_into().map_err(fails)?),
            (Self::Uint, Computed::Double(value)) => Computed::Uint(uint_of_double(value)?),
            (Self::Uint, Computed::Text(text)) => {
                Computed::Uint(text.parse().map_err(|_| Undefined::NotConvertible)?)
            }
            (Self::Text, Computed::Bool(value)) => Computed::Text(value.to_string().into()),
            (Self::Text, Computed::Int(value)) => Computed::Text(value.to_string().into()),
            (Self::Text, Computed::Uint(value)) => Computed::Text(value.to_string().into()),
            (Self::Text, Computed::Double(value)) => Computed::Text(value.to_string().into()),
            (Self::Double, value @ Computed::Double(_))
            | (Self::Int, value @ Computed::Int(_))
            | (Self::Uint, value @ Computed::Uint(_))
            | (Self::Text, value @ Computed::Text(_)) => value,
            (_, Computed::Bool(_)) => return Err(Undefined::NoSuchOverload),
        })
    }
}
