//! What determines a model besides the examples.

use crate::{
    PipelineSpec, Seed,
    bundle::{ModelBundle, Origin},
    training::{Calibration, Params, Threshold, TrainingError, within},
};

/// Everything besides the examples that determines a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Features to make of the values.
    pub spec: PipelineSpec,
    /// Names of the classes, in the order of their labels.
    pub classes: Vec<String>,
    /// Decision threshold with two classes.
    pub threshold: Threshold,
    /// Method by which the probabilities are calibrated.
    pub calibration: Calibration,
    /// Whether the evaluation has intervals of its metrics.
    pub intervals: bool,
    /// Whether the model has a [`Profile`](crate::drift::Profile) of its training data.
    pub profile: bool,
    /// LightGBM's parameters.
    pub params: Params,
    /// Random seed of folds, LightGBM and intervals.
    pub seed: Seed,
    /// Provenance of the examples, which is copied into the bundle.
    pub origin: Origin,
}

impl Recipe {
    /// The recipe of a model. With the same examples, it gives the same bytes, on the same build of Foretell.
    #[must_use]
    pub fn of(bundle: &ModelBundle) -> Self {
        let lineage = &bundle.lineage;
        let given = Threshold::Fixed(bundle.threshold);
        Self {
            spec: bundle.pipeline.spec().clone(),
            classes: bundle.classes.clone(),
            threshold: lineage.threshold_metric.map_or(given, Threshold::Best),
            calibration: lineage.calibration,
            intervals: bundle.evaluation.intervals.is_some(),
            profile: bundle.profile.is_some(),
            params: lineage.params.clone(),
            seed: lineage.seed,
            origin: lineage.origin.clone(),
        }
    }

    /// Checks that each setting is within its bounds.
    pub(super) fn check(&self) -> Result<(), TrainingError> {
        self.params.check()?;
        match self.threshold {
            Threshold::Fixed(threshold) => within("threshold", threshold, 0.0, 1.0),
            Threshold::Best(_) => Ok(()),
        }
    }

    /// Whether anything is fitted to predictions for held-out examples.
    pub(super) fn fits_to_held_out(&self) -> bool {
        let chooses = matches!(self.threshold, Threshold::Best(_)) && self.classes.len() == 2;
        chooses || self.calibration != Calibration::None
    }
}
