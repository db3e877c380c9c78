//! Made-up tables whose truth is known: to see a model learn, and meet a change of what it has learned, without data of your
//! own. Each generator is a file. A row is a function of the settings, the seed and its number, so the same seed gives the same
//! table with every release.

pub mod agrawal;
mod change;
mod random;
pub mod recommendations;

pub use change::ConceptChange;

use std::fmt;

/// A row of a generated table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The cells, in the order of the generator's columns.
    pub cells: Vec<Cell>,
    /// What is to be predicted.
    pub label: &'static str,
}

/// A cell of a generated table.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A number.
    Number(f64),
    /// A category.
    Category(String),
}

impl fmt::Display for Cell {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(to),
            Self::Category(category) => category.fmt(to),
        }
    }
}
