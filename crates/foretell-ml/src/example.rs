//! The vocabulary of this crate: values, columns, labels, examples, probabilities and model versions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The raw value of one column.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// No value: not asked, not answered, or unknown.
    #[default]
    Missing,
    /// A number, in the column's unit.
    Number(f64),
    /// A text, usually a category. A numeric column parses it.
    Text(String),
}

/// A borrowed [`Value`], as a row of any representation gives it to a model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ValueRef<'v> {
    /// No value: not asked, not answered, or unknown.
    #[default]
    Missing,
    /// A number, in the column's unit.
    Number(f64),
    /// A whole number that names something: a categorical column takes its digits as the category, even beyond 2^53.
    Id(i64),
    /// A text, usually a category. A numeric column parses it.
    Text(&'v str),
}

impl<'v> From<&'v Value> for ValueRef<'v> {
    fn from(value: &'v Value) -> Self {
        match value {
            Value::Missing => Self::Missing,
            Value::Number(number) => Self::Number(*number),
            Value::Text(text) => Self::Text(text),
        }
    }
}

impl From<ValueRef<'_>> for Value {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Missing => Self::Missing,
            ValueRef::Number(number) => Self::Number(number),
            ValueRef::Id(id) => Self::Text(id.to_string()),
            ValueRef::Text(text) => Self::Text(text.to_owned()),
        }
    }
}

/// Kind of a column, which decides how its values become features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    /// Numbers, which have an order and a distance.
    Numeric,
    /// Categories, which are only equal or different.
    Categorical,
}

/// A column of the input: one value in every row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Name of the column and of its feature; [`PipelineSpec::new`] lists the characters that it must not contain.
    ///
    /// [`PipelineSpec::new`]: crate::PipelineSpec::new
    pub name: String,
    /// Kind of its values.
    pub kind: ColumnKind,
    /// Earlier names of the column, under which older rows and models have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

impl Column {
    /// A column without aliases.
    #[must_use]
    pub fn new(name: &str, kind: ColumnKind) -> Self {
        Self { name: name.to_owned(), kind, aliases: Vec::new() }
    }

    /// Whether `name` is the name of the column or one of its aliases.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }
}

/// The true class of an example, or the class that was decided on: an index into the model's classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Label(pub u32);

impl Label {
    /// The label as an index into a slice with one element per class.
    #[must_use]
    pub fn index(self) -> usize {
        usize::try_from(self.0).expect("32 bits fit into an index")
    }
}

/// A labelled example: values as they were scored, and the true class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Values in the order of the columns. Values beyond the last column are ignored; absent ones are missing.
    pub values: Vec<Value>,
    /// True class.
    pub label: Label,
}

/// Version of a model, a hash of its content: see [`ModelBundle::version`].
///
/// [`ModelBundle::version`]: crate::ModelBundle::version
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelVersion(String);

impl ModelVersion {
    /// A version from its text, as read from a record or typed by an operator. It is not checked.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The version as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Random seed: the same seed and input give the same model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seed(pub u64);

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One probability per class, in the order of the classes. They add up to 1, apart from rounding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Probabilities(Vec<f64>);

impl Probabilities {
    /// Wraps one probability per class, in the order of the classes.
    #[must_use]
    pub fn new(by_class: Vec<f64>) -> Self {
        Self(by_class)
    }

    /// The probabilities, in the order of the classes.
    #[must_use]
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }

    /// The probability of one class; `None` if there is no such class.
    #[must_use]
    pub fn of(&self, label: Label) -> Option<f64> {
        self.0.get(label.index()).copied()
    }

    /// The class to decide on: with two classes, class 1 if its probability is at least the threshold; with more, the most
    /// probable one.
    #[must_use]
    pub fn decide(&self, threshold: f64) -> Label {
        match self.0.as_slice() {
            [_, of_one] => Label(u32::from(*of_one >= threshold)),
            _ => self.most_probable(),
        }
    }

    /// The most probable class; the first one of a tie.
    #[must_use]
    pub fn most_probable(&self) -> Label {
        let mut best = (Label(0), f64::NEG_INFINITY);
        for (label, probability) in (0..).map(Label).zip(&self.0) {
            if *probability > best.1 {
                best = (label, *probability);
            }
        }
        best.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_probable_class_is_the_first_of_a_tie() {
        let check = |by_class: &[f64], expected: u32| {
            assert_eq!(
                Probabilities::new(by_class.to_vec()).most_probable(),
                Label(expected),
                "{by_class:?}"
            );
        };
        check(&[0.2, 0.8], 1);
        check(&[0.5, 0.5], 0);
        check(&[0.1, 0.2, 0.7], 2);
        check(&[], 0);
    }
}
