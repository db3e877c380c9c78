//! Errors: why a condition is refused and where, and why it has no value.

use thiserror::Error;

/// A condition that is refused: it does not parse, or names or types are wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}, at line {line}, column {column}")]
pub struct ConditionError {
    /// The line in the condition, from 1.
    pub line: usize,
    /// The column in the line, in characters, from 1. It is one after the last character if something is missing at the end.
    pub column: usize,
    /// What is wrong and, where there is one, the nearest right name.
    pub message: String,
}

/// Why a condition has no value, neither true nor false: CEL's errors of evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Undefined {
    /// An operator or a function has no overload for a value: the value is null, such as a missing answer.
    #[error("a value is missing")]
    NoSuchOverload,
    /// A map has no such key.
    #[error("a map has no such key")]
    NoSuchKey,
    /// The result of an operator does not fit the type.
    #[error("integer overflow")]
    Overflow,
    /// A whole number is divided by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// A value cannot be converted to the type, such as `int("x")`.
    #[error("a value cannot be converted")]
    NotConvertible,
}

/// A [`ConditionError`] whose position is a byte offset.
#[derive(Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) at: usize,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }

    /// Converts the offset in `text` to a line and a column.
    pub(crate) fn locate(self, text: &str) -> ConditionError {
        let before = &text[..self.at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ConditionError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: self.message,
        }
    }
}
