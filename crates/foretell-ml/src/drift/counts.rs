//! Counts of the values that a model scored and of the scores that it gave.

use serde::{Deserialize, Serialize};

use crate::{
    ValueRef,
    drift::{
        Profile,
        histogram::{ScoreHistogram, add_counts, counted},
    },
};

/// Counts of predictions, in the bins of the model's [`Profile`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveCounts {
    /// Number of predictions.
    predictions: u64,
    /// Sum of the probabilities of the decided classes.
    confidence: f64,
    /// By column and bin, without missing values. Empty for a model without a profile.
    columns: Vec<Vec<u64>>,
    /// Of each class; of two classes, of the second.
    scores: Vec<ScoreHistogram>,
}

impl LiveCounts {
    /// No predictions of a model with `classes` classes.
    #[must_use]
    pub fn new(profile: Option<&Profile>, classes: usize) -> Self {
        let columns = profile.map_or_else(Vec::new, |profile| {
            (0..profile.columns()).map(|column| vec![0; profile.bins(column)]).collect()
        });
        let scores = counted(classes).map(|_| ScoreHistogram::new(classes)).collect();
        Self { predictions: 0, confidence: 0.0, columns, scores }
    }

    /// Counts the value of a column of a prediction that stands for `times` ones.
    pub fn add_value(
        &mut self,
        profile: &Profile,
        (column, value): (usize, ValueRef<'_>),
        times: u64,
    ) {
        if let Some(bin) = profile.bin(column, value) {
            self.columns[column][bin] += times;
        }
    }

    /// Counts a prediction: the probability of each class, in the order of the classes, and that of the decided class.
    /// It stands for `times` predictions.
    pub fn add_prediction(
        &mut self,
        probabilities: impl Iterator<Item = f64>,
        decided: f64,
        times: u64,
    ) {
        self.predictions += times;
        self.confidence += decided * times as f64;
        let first = if self.scores.len() == 1 { 1 } else { 0 };
        for (histogram, probability) in self.scores.iter_mut().zip(probabilities.skip(first)) {
            histogram.add(probability, times);
        }
    }

    /// Adds the counts of another task or time, of the same model.
    pub fn merge(&mut self, other: &Self) {
        self.predictions += other.predictions;
        self.confidence += other.confidence;
        for (column, more) in self.columns.iter_mut().zip(&other.columns) {
            add_counts(column, more);
        }
        for (histogram, more) in self.scores.iter_mut().zip(&other.scores) {
            histogram.merge(more);
        }
    }

    /// Sets all counts to 0.
    pub fn clear(&mut self) {
        (self.predictions, self.confidence) = (0, 0.0);
        for column in &mut self.columns {
            column.fill(0);
        }
        for histogram in &mut self.scores {
            histogram.clear();
        }
    }

    /// Number of predictions.
    #[must_use]
    pub fn predictions(&self) -> u64 {
        self.predictions
    }

    pub(super) fn confidence(&self) -> f64 {
        self.confidence
    }

    pub(super) fn scores(&self) -> &[ScoreHistogram] {
        &self.scores
    }

    /// The counts of a column's bins; the last one is that of missing values. `None` if the model has no profile.
    pub(super) fn column(&self, column: usize) -> Option<Vec<u64>> {
        let given = self.columns.get(column)?;
        let missing = self.predictions.saturating_sub(given.iter().sum());
        Some(given.iter().copied().chain([missing]).collect())
    }
}
