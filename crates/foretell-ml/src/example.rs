//! The words of the layer: what was answered, what turned out to be true, and which model said so.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One answer, as it came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Not asked, not answered, or not known.
    #[default]
    Missing,
    /// A number, in the column's own unit.
    Number(f64),
    /// A text: a category, as a rule.
    Text(String),
}

/// How a column is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnKind {
    /// Values that have an order and a distance.
    Numeric,
    /// Values that are only the same or different.
    Categorical,
}

/// One question of the questionnaire: a place in every row of values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name; it names a feature of the model, so see [`PipelineSpec::new`] for what it may contain.
    ///
    /// [`PipelineSpec::new`]: crate::PipelineSpec::new
    pub name: String,
    /// How its values are read.
    pub kind: ColumnKind,
    /// What it was called before: rows from then have it under these names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

impl Column {
    /// One that was never called anything else.
    #[must_use]
    pub fn new(name: &str, kind: ColumnKind) -> Self {
        Self { name: name.to_owned(), kind, aliases: Vec::new() }
    }

    /// Whether a row has it as `name`.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }
}

/// What turned out to be true: the index of a class in the order of the model's classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Label(pub u32);

impl Label {
    /// The label as an index into what is kept one a class.
    #[must_use]
    pub fn index(self) -> usize {
        usize::try_from(self.0).expect("32 bits fit into an index")
    }
}

/// Something to learn from: the values as scored, and what turned out to be true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// In the order of the columns.
    pub values: Vec<Value>,
    /// The class it turned out to be of.
    pub label: Label,
}

/// Names a model by its content: see [`ModelBundle::version`].
///
/// [`ModelBundle::version`]: crate::ModelBundle::version
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelVersion(String);

impl ModelVersion {
    /// The version of this name, as it was read from a record or typed by an operator.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name as text.
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

/// Where chance comes from: the same seed makes the same model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seed(pub u64);

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One probability a class, in the order of the classes; they add up to 1 but for rounding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Probabilities(Vec<f64>);

impl Probabilities {
    /// Takes one probability a class, in the order of the classes.
    #[must_use]
    pub fn new(by_class: Vec<f64>) -> Self {
        Self(by_class)
    }

    /// One a class, in the order of the classes.
    #[must_use]
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }

    /// The probability of one class; none if there is no such class.
    #[must_use]
    pub fn of(&self, label: Label) -> Option<f64> {
        self.0.get(label.index()).copied()
    }

    /// The most probable class, the first of them if there are several.
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
    fn the_most_probable_class_is_the_first_of_the_largest() {
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
