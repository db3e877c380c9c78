//! Labelled examples in columns, and the samples of them that models are trained on.
//!
//! ```text
//!  examples ──push──▶ TrainingSet ──sample──▶ Sample: rows in order, with weights ──▶ tune, train
//!                     columns, labels               ▲
//!  stream ────add───▶ History ──────sample──────────┘
//!                     a set with event times and ids, bounded by a DataPolicy
//! ```
//!
//! Both are written to bytes and read from them as they are in memory (`encoding.rs`).
//!
//! A number takes 4 bytes where a 32-bit float is exact, else 8; a category 4 and its text once. Nothing is rounded: a
//! model has the same bytes as one that was trained on rows of [`Example`].

mod column;
mod encoding;
mod history;
mod policy;

use crate::{Column, Example, Label, ValueRef};

use self::column::Chunked;
pub(crate) use self::column::{CategoricalValues, ColumnValues, NumericValues};
pub use self::{
    history::{Arrival, History, InitialRow},
    policy::{DataPolicy, EXAMPLES_MAX, InitialPolicy, Retention},
};

/// Values and labels of examples, by column.
#[derive(Clone, Debug)]
pub struct TrainingSet {
    columns: Vec<ColumnValues>,
    labels: Chunked<u32>,
    length: usize,
}

impl TrainingSet {
    /// A set without examples.
    #[must_use]
    pub fn new(columns: &[Column]) -> Self {
        let columns = columns.iter().map(|column| ColumnValues::new(column.kind)).collect();
        Self { columns, labels: Chunked::default(), length: 0 }
    }

    /// A set of these examples, in their order.
    #[must_use]
    pub fn of(columns: &[Column], examples: &[Example]) -> Self {
        let mut set = Self::new(columns);
        for example in examples {
            set.push(&example.values, example.label);
        }
        set
    }

    /// Appends an example, and returns its row. `values` are in the order of the columns; those beyond the last are
    /// ignored, absent ones are missing.
    ///
    /// # Panics
    /// With [`EXAMPLES_MAX`] examples, more than LightGBM takes: callers bound the set, or run out of memory before.
    pub fn push<'v, V: Into<ValueRef<'v>>>(
        &mut self,
        values: impl IntoIterator<Item = V>,
        label: Label,
    ) -> u32 {
        let row = u32::try_from(self.length).ok();
        let row = row.filter(|_| self.length < EXAMPLES_MAX).expect("LightGBM takes 2^31 - 1 rows");
        self.labels.push(label.0);
        self.put(self.length, values);
        self.length += 1;
        row
    }

    /// Replaces the example of a row.
    pub fn replace<'v, V: Into<ValueRef<'v>>>(
        &mut self,
        row: u32,
        values: impl IntoIterator<Item = V>,
        label: Label,
    ) {
        self.labels.set(column::index(row), label.0);
        self.put(column::index(row), values);
    }

    fn put<'v, V: Into<ValueRef<'v>>>(&mut self, row: usize, values: impl IntoIterator<Item = V>) {
        let mut values = values.into_iter();
        for column in &mut self.columns {
            let value = values.next().map_or(ValueRef::Missing, Into::into);
            column.put(row, self.length, value);
        }
    }

    /// Keeps these rows, which ascend, and numbers them from 0.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn retain(&mut self, rows: &[u32]) {
        for column in &mut self.columns {
            column.retain(rows);
        }
        self.labels.retain(rows);
        self.length = rows.len();
    }

    /// Number of examples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no examples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Label of a row.
    #[must_use]
    pub fn label(&self, row: u32) -> Label {
        Label(self.labels.get(column::index(row)))
    }

    /// Values of a row, in the order of the columns. A numeric column has a number for a text that is one; a categorical
    /// column has texts only.
    pub fn values(&self, row: u32) -> impl Iterator<Item = ValueRef<'_>> {
        self.columns.iter().map(move |column| column.value(row))
    }

    /// All examples, in order, with equal weights.
    #[must_use]
    pub fn sample(&self) -> Sample<'_> {
        let rows = (0..u32::try_from(self.length).expect("rows have 31 bits")).collect();
        Sample { parts: vec![Part { set: self, rows, weights: Vec::new() }] }
    }

    /// Allocated bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(ColumnValues::bytes).sum::<usize>() + self.labels.bytes()
    }

    /// Bytes of the values and labels alone: 4 for a number that is a 32-bit float, 8 for another, 4 for a category and
    /// for a label, and each text once.
    #[must_use]
    pub fn raw_bytes(&self) -> usize {
        let columns = self.columns.iter().map(|column| column.raw_bytes(self.length));
        columns.sum::<usize>() + self.length * size_of::<u32>()
    }
}

/// Rows of one or two sets in order, with weights: what a model is trained on.
#[derive(Clone, Debug)]
pub struct Sample<'s> {
    parts: Vec<Part<'s>>,
}

/// The rows of one set.
#[derive(Clone, Debug)]
pub(crate) struct Part<'s> {
    set: &'s TrainingSet,
    rows: Vec<u32>,
    /// One for each row; empty if all are 1.
    weights: Vec<f32>,
}

impl<'s> Part<'s> {
    pub(crate) fn rows(&self) -> &[u32] {
        &self.rows
    }

    pub(crate) fn columns(&self) -> &'s [ColumnValues] {
        &self.set.columns
    }
}

impl<'s> Sample<'s> {
    /// The rows of each set, in order.
    pub(crate) fn parts(&self) -> &[Part<'s>] {
        &self.parts
    }

    /// Number of examples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.rows.len()).sum()
    }

    /// Whether there are no examples.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Label of each example.
    pub fn labels(&self) -> impl Iterator<Item = Label> {
        self.parts.iter().flat_map(|part| part.rows.iter().map(|row| part.set.label(*row)))
    }

    /// Values of each example, in the order of the columns.
    pub fn values(&self) -> impl Iterator<Item = impl Iterator<Item = ValueRef<'s>>> {
        self.parts.iter().flat_map(|part| part.rows.iter().map(|row| part.set.values(*row)))
    }

    /// Weight of each example; empty if all are 1.
    #[must_use]
    pub fn weights(&self) -> Vec<f32> {
        if self.parts.iter().all(|part| part.weights.is_empty()) {
            return Vec::new();
        }
        let mut weights = Vec::with_capacity(self.len());
        for part in &self.parts {
            match part.weights.as_slice() {
                [] => weights.resize(weights.len() + part.rows.len(), 1.0),
                of_part => weights.extend_from_slice(of_part),
            }
        }
        weights
    }

    /// The examples whose index `is_kept` accepts; it is called once for each, in order.
    #[must_use]
    pub fn subset(&self, mut is_kept: impl FnMut(usize) -> bool) -> Self {
        let mut next = 0;
        let part = |part: &Part<'s>| {
            let mut kept = Part { set: part.set, rows: Vec::new(), weights: Vec::new() };
            for (place, row) in part.rows.iter().enumerate() {
                if is_kept(next) {
                    kept.rows.push(*row);
                    kept.weights.extend(part.weights.get(place));
                }
                next += 1;
            }
            kept
        };
        Self { parts: self.parts.iter().map(part).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ColumnKind, Value};

    fn columns() -> [Column; 2] {
        [Column::new("x", ColumnKind::Numeric), Column::new("kind", ColumnKind::Categorical)]
    }

    fn example(x: f64, kind: &str, label: u32) -> Example {
        let values = vec![Value::Number(x), Value::Text(kind.to_owned())];
        Example { values, label: Label(label) }
    }

    fn row(set: &TrainingSet, row: u32) -> (Vec<Value>, Label) {
        (set.values(row).map(Value::from).collect(), set.label(row))
    }

    #[test]
    fn an_example_is_replaced_in_its_place() {
        let mut set = TrainingSet::of(&columns(), &[example(1.0, "a", 0), example(2.0, "b", 1)]);
        set.replace(0, &example(0.1, "c", 1).values, Label(1));
        let expected = |x, kind: &str| vec![Value::Number(x), Value::Text(kind.to_owned())];
        assert_eq!(row(&set, 0), (expected(0.1, "c"), Label(1)));
        assert_eq!(row(&set, 1), (expected(2.0, "b"), Label(1)));
        assert_eq!(set.len(), 2);
    }

    #[test]
    fn values_that_a_row_lacks_are_missing_and_others_are_ignored() {
        let mut set = TrainingSet::new(&columns());
        set.push::<&Value>([], Label(0));
        set.push(&[Value::Missing, Value::Missing, Value::Number(3.0)], Label(1));
        let nothing = vec![Value::Missing, Value::Missing];
        assert_eq!([row(&set, 0).0, row(&set, 1).0], [nothing.clone(), nothing]);
    }

    #[test]
    fn a_subset_keeps_order_and_weights() {
        let examples: Vec<Example> = (0..5).map(|n| example(f64::from(n), "a", n)).collect();
        let set = TrainingSet::of(&columns(), &examples);
        let other = TrainingSet::of(&columns(), &examples[..2]);
        let mut sample = set.sample();
        sample.parts[0].weights = vec![0.5, 0.25, 1.0, 1.0, 0.125];
        sample.parts.extend(other.sample().parts);
        assert_eq!(sample.len(), 7);
        let odd = sample.subset(|index| index % 2 == 1);
        assert_eq!(odd.labels().collect::<Vec<_>>(), [1, 3, 0].map(Label));
        assert_eq!(odd.weights(), [0.25, 1.0, 1.0]);
        assert!(set.sample().weights().is_empty(), "they are all 1");
    }
}
