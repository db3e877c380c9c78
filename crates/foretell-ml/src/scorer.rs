//! Scoring with a model bundle. Any number of threads share one [`Scorer`], each with its own [`Scratch`].

use std::sync::{Arc, OnceLock};

use crate::{
    Column, Label, ModelVersion, Probabilities, ValueRef,
    bundle::{BundleError, Lineage, ModelBundle},
    drift::Profile,
    explanation::Explanation,
    features::{FittedPipeline, OutOfDistribution},
    training::{Calibrator, Evaluation},
    trees::{Contributions, NoLeafCounts, Sums, TreeShap, Trees},
};

/// A model that is ready to score rows of values. It is immutable, so it can be swapped between two records.
#[derive(Clone, Debug)]
pub struct Scorer {
    pipeline: FittedPipeline,
    trees: Trees,
    classes: Arc<[String]>,
    threshold: f64,
    calibrator: Option<Calibrator>,
    version: ModelVersion,
    lineage: Lineage,
    evaluation: Evaluation,
    profile: Option<Profile>,
    /// Made by the first explanation: 44 bytes for each split of the model and 40 for each tree, less than the trees take.
    shap: OnceLock<Result<TreeShap, NoLeafCounts>>,
}

/// Scratch memory that a thread reuses from one row to the next.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    row: Vec<f64>,
    sums: Sums,
}

impl Scorer {
    /// Parses the trees of a bundle, and checks that its parts match.
    ///
    /// # Errors
    /// [`BundleError`] if the trees are malformed or not supported, or features, classes, threshold or calibration
    /// do not match.
    pub fn new(bundle: &ModelBundle) -> Result<Self, BundleError> {
        Self::with_version(bundle, bundle.version())
    }

    /// Reads a bundle's bytes; the scorer has their version (see [`ModelBundle::with_version`]).
    ///
    /// # Errors
    /// [`BundleError`] if the bytes are no bundle, or as [`Self::new`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        let (bundle, version) = ModelBundle::with_version(bytes)?;
        Self::with_version(&bundle, version)
    }

    fn with_version(bundle: &ModelBundle, version: ModelVersion) -> Result<Self, BundleError> {
        let trees = Trees::parse(&bundle.booster)?;
        let pipeline = bundle.pipeline.clone();
        if pipeline.feature_names() != trees.feature_names() {
            return Err(BundleError::Features {
                pipeline: pipeline.features(),
                trees: trees.features(),
            });
        }
        if bundle.classes.len() != trees.classes() {
            return Err(BundleError::Classes {
                classes: bundle.classes.len(),
                trees: trees.classes(),
            });
        }
        if !(0.0..=1.0).contains(&bundle.threshold) {
            return Err(BundleError::Threshold { threshold: bundle.threshold });
        }
        let calibrator = bundle.calibrator.clone();
        if calibrator.as_ref().is_some_and(|calibrator| !calibrator.is_for(trees.classes())) {
            return Err(BundleError::Calibration { classes: trees.classes() });
        }
        let classes = bundle.classes.as_slice().into();
        let columns = pipeline.columns().len();
        Ok(Self {
            pipeline,
            trees,
            classes,
            threshold: bundle.threshold,
            calibrator,
            version,
            lineage: bundle.lineage.clone(),
            evaluation: bundle.evaluation.clone(),
            profile: bundle.profile.clone().filter(|profile| profile.columns() == columns),
            shap: OnceLock::new(),
        })
    }

    /// The probability of each class, in the order of the classes. It never fails; [`crate::features`] lists how missing,
    /// unseen and malformed values are encoded.
    pub fn score<'v, V: Into<ValueRef<'v>>>(
        &self,
        values: impl IntoIterator<Item = V>,
        scratch: &mut Scratch,
    ) -> Probabilities {
        self.score_columns(values.into_iter().map(Into::into).enumerate(), scratch).0
    }

    /// As [`Self::score`], for values in any order, each with the index of its column; columns without a value are missing.
    /// Also counts the values that are outside the training's distribution: unseen categories, out-of-range numbers, and
    /// texts in numeric columns.
    pub fn score_columns<'v>(
        &self,
        values: impl Iterator<Item = (usize, ValueRef<'v>)>,
        scratch: &mut Scratch,
    ) -> (Probabilities, OutOfDistribution) {
        let outside = self.pipeline.transform_columns(values, &mut scratch.row);
        self.trees.sums(&mut scratch.row, &mut scratch.sums);
        (self.probabilities(scratch), outside)
    }

    /// The probability of each class, from features instead of values.
    pub(crate) fn score_features(&self, features: &[f64], scratch: &mut Scratch) -> Probabilities {
        scratch.row.clear();
        scratch.row.extend_from_slice(features);
        self.trees.sums(&mut scratch.row, &mut scratch.sums);
        self.probabilities(scratch)
    }

    /// The probabilities from the sums of the trees, calibrated if the bundle has a calibration.
    fn probabilities(&self, scratch: &Scratch) -> Probabilities {
        let probabilities = Probabilities::new(self.trees.probabilities(&scratch.sums.sums));
        match &self.calibrator {
            None => probabilities,
            Some(calibrator) => calibrator.apply(&probabilities),
        }
    }

    /// Explains the log-odds of a class for values in any order, each with the index of its column, by the contributions of
    /// the columns. It takes some hundred times as long as a score, and the first explanation prepares the model for it.
    ///
    /// # Errors
    /// [`NoLeafCounts`] if the model's text does not have the numbers of training rows, such as that of an imported model.
    ///
    /// # Panics
    /// If `label` is not one of the classes.
    pub fn explain<'v>(
        &self,
        values: impl Iterator<Item = (usize, ValueRef<'v>)>,
        label: Label,
    ) -> Result<Explanation, NoLeafCounts> {
        let shap = self.shap.get_or_init(|| TreeShap::new(&self.trees));
        let shap = shap.as_ref().map_err(|error| *error)?;
        let (mut row, mut contributions) = (Vec::new(), Contributions::default());
        self.pipeline.transform_columns(values, &mut row);
        shap.contributions(&self.trees, &mut row, &mut contributions);
        let (sum, factor) = self.trees.sum_of_class(label.0 as usize);
        let features = contributions.features.chunks_exact(row.len()).nth(sum);
        let features = features.into_iter().flatten().map(|feature| factor * feature);
        Ok(Explanation::new(factor * contributions.base[sum], features, &self.pipeline))
    }

    /// The class to decide on: see [`Probabilities::decide`].
    #[must_use]
    pub fn decide(&self, probabilities: &Probabilities) -> Label {
        probabilities.decide(self.threshold)
    }

    /// Version of the model.
    #[must_use]
    pub fn version(&self) -> &ModelVersion {
        &self.version
    }

    /// Inputs of the model's training.
    #[must_use]
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Metrics of the model on held-out examples.
    #[must_use]
    pub fn evaluation(&self) -> &Evaluation {
        &self.evaluation
    }

    /// Histograms of the training data, whose columns are those of the model; `None` if an earlier release trained it.
    #[must_use]
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// Decision threshold with two classes.
    #[must_use]
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Share of the training's rows, 0 to 1, in which the column with this index was missing; `None` if it is unknown.
    #[must_use]
    pub fn missing_share(&self, column: usize) -> Option<f64> {
        self.pipeline.missing_share(column)
    }

    /// Names of the classes, in the order of their labels.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    pub(crate) fn pipeline(&self) -> &FittedPipeline {
        &self.pipeline
    }

    /// Columns, in the order of a row's values.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        self.pipeline.columns()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Value, training::tests::small_bundle};

    #[test]
    fn a_scorer_can_be_shared() {
        fn shared<T: Send + Sync>() {}
        shared::<Scorer>();
    }

    #[test]
    fn the_threshold_decides_between_two_classes() {
        let decide = |threshold: f64, probability: f64| {
            let scorer = Scorer::new(&ModelBundle { threshold, ..small_bundle() }).unwrap();
            scorer.decide(&Probabilities::new(vec![1.0 - probability, probability]))
        };
        assert_eq!(decide(0.5, 0.5), Label(1));
        assert_eq!(decide(0.5, 0.49), Label(0));
        assert_eq!(decide(0.2, 0.49), Label(1));
    }

    #[test]
    fn the_calibration_corrects_probabilities_and_decisions() {
        let calibrator = serde_json::from_str(r#"[{"platt": {"slope": 2.0, "intercept": 1.0}}]"#);
        let bundle = ModelBundle { calibrator: Some(calibrator.unwrap()), ..small_bundle() };
        let (scorer, raw) = (Scorer::new(&bundle).unwrap(), Scorer::new(&small_bundle()).unwrap());
        let mut scratch = Scratch::default();
        for number in 0..20 {
            let values = [Value::Number(f64::from(number) / 20.0)];
            let one = raw.score(&values, &mut scratch).as_slice()[1];
            let expected = 1.0 / (1.0 + (-(2.0 * (one / (1.0 - one)).ln() + 1.0)).exp());
            let found = scorer.score(&values, &mut scratch);
            assert!((found.as_slice()[1] - expected).abs() < 1e-12);
            assert_eq!(scorer.decide(&found), Label(u32::from(expected >= 0.5)));
        }
    }

    #[test]
    fn any_values_are_scored() {
        let (scorer, mut scratch) = (Scorer::new(&small_bundle()).unwrap(), Scratch::default());
        let text = |text: &str| Value::Text(text.to_owned());
        let mut check = |values: &[Value]| {
            let probabilities = scorer.score(values, &mut scratch);
            let [zero, one] = probabilities.as_slice() else { panic!("{probabilities:?}") };
            assert!(
                (zero + one - 1.0).abs() < 1e-12 && *one > 0.0 && *one < 1.0,
                "{values:?}: {probabilities:?}"
            );
        };
        check(&[]);
        check(&[Value::Number(3.0), text("a"), Value::Number(1e308)]);
        check(&[Value::Missing, Value::Missing, Value::Missing]);
        check(&[text("x"), Value::Number(f64::NAN), text(""), text("more"), text("more")]);
        check(&[Value::Number(f64::NEG_INFINITY), text("never seen"), Value::Number(-1e-320)]);
    }

    #[test]
    fn a_bundle_whose_parts_do_not_match_is_refused() {
        let bundle = small_bundle();
        let check = |bundle: ModelBundle, expected: &str| {
            let error = Scorer::new(&bundle).unwrap_err();
            assert!(format!("{error:?}").starts_with(expected), "{error:?}, not {expected}");
        };
        check(ModelBundle { booster: "tree".to_owned(), ..bundle.clone() }, "Trees");
        check(ModelBundle { classes: vec!["one".to_owned()], ..bundle.clone() }, "Classes");
        check(ModelBundle { threshold: 1.5, ..bundle.clone() }, "Threshold");
        check(ModelBundle { threshold: f64::NAN, ..bundle.clone() }, "Threshold");
        let of_three = serde_json::from_str(r#"["identity", "identity", "identity"]"#).unwrap();
        check(ModelBundle { calibrator: Some(of_three), ..bundle.clone() }, "Calibration");
        let renamed = bundle.booster.replacen("feature_names=", "feature_names=un", 1);
        check(ModelBundle { booster: renamed, ..bundle }, "Features");
    }
}
