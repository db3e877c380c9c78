//! Feature importance: the gain and the number of splits of each feature, those with the largest gain first.

use serde::Serialize;

use foretell_ml::{ModelBundle, trees};

/// The part of one feature in a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FeatureImportance {
    /// The name of the feature.
    pub feature: String,
    /// The sum of the gains of its splits.
    pub gain: f64,
    /// The number of its splits.
    pub splits: u64,
}

/// The features of a model; equal ones are in the order of the pipeline. Empty if the trees cannot be read.
pub(super) fn importance(bundle: &ModelBundle) -> Vec<FeatureImportance> {
    let found = trees::importance(&bundle.booster).unwrap_or_default().into_iter();
    let mut all: Vec<FeatureImportance> = found
        .map(|one| FeatureImportance { feature: one.feature, gain: one.gain, splits: one.splits })
        .collect();
    all.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    all
}
