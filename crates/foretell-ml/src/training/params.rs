//! The LightGBM parameters that can be set, with their types and bounds.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};

use crate::{
    Seed,
    training::{
        ParamValue, TrainingError,
        searchable::{self, SEARCHABLE},
        within,
    },
};

/// Upper bound of boosting iterations; more would only overfit.
pub const ITERATIONS_MAX: u32 = 10_000;
/// Upper bound of the leaves of a tree; a larger tree is not a weak learner.
pub const LEAVES_MAX: u32 = 1024;

/// LightGBM's parameters, under LightGBM's names
/// (<https://lightgbm.readthedocs.io/en/stable/Parameters.html>).
///
/// The defaults are moderate: trees of 31 leaves, and a low learning rate with as many iterations as it needs. Two differ
/// from LightGBM's; both gave a lower log loss on a fifth held out of the Adult data's training split, all else equal:
/// `feature_fraction` 0.5, so that trees differ, .2729 instead of .2754; and `cat_smooth` 50 instead of 10, .2745
/// instead of .2782 with crossed columns (without crosses they are equally good).
///
/// There is no `is_unbalance`: it distorts probabilities (log loss .33 instead of .28) and does not improve the ranking.
/// Costs of errors belong into the decision threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// Boosting iterations, 1 to [`ITERATIONS_MAX`]: each grows one tree, or one per class if there are more than two.
    pub iterations: u32,
    /// Maximum leaves of a tree, 2 to [`LEAVES_MAX`].
    pub num_leaves: u32,
    /// Shrinkage of each tree's output, 1e-6 to 1.
    pub learning_rate: f64,
    /// Minimum number of examples in a leaf.
    pub min_data_in_leaf: u32,
    /// Share of the features that is drawn for each tree, 1e-6 to 1.
    pub feature_fraction: f64,
    /// Share of the examples that is drawn for bagging, 1e-6 to 1.
    pub bagging_fraction: f64,
    /// Iterations between two draws of examples; 0 turns bagging off.
    pub bagging_freq: u32,
    /// L1 regularisation of the leaves' values, 0 or more.
    pub lambda_l1: f64,
    /// L2 regularisation of the leaves' values, 0 or more.
    pub lambda_l2: f64,
    /// A feature with at most this many categories is split one category against the rest.
    pub max_cat_to_onehot: u32,
    /// Maximum number of categories on one side of a split.
    pub max_cat_threshold: u32,
    /// Minimum number of examples that the categories on one side of a split have together.
    pub min_data_per_group: u32,
    /// Smoothing of rare categories, 0 or more; a category with fewer examples in a leaf is not considered there.
    pub cat_smooth: f64,
    /// L2 regularisation of splits by category, 0 or more.
    pub cat_l2: f64,
    /// Maximum number of bins of a feature, 2 to 65,535.
    pub max_bin: u32,
    /// Other parameters, of those in [`SEARCHABLE`]. One that is not set has LightGBM's default.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, ParamValue>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            iterations: 250,
            num_leaves: 31,
            learning_rate: 0.05,
            min_data_in_leaf: 20,
            feature_fraction: 0.5,
            bagging_fraction: 1.0,
            bagging_freq: 1,
            lambda_l1: 0.0,
            lambda_l2: 1.0,
            max_cat_to_onehot: 4,
            max_cat_threshold: 32,
            min_data_per_group: 100,
            cat_smooth: 50.0,
            cat_l2: 10.0,
            max_bin: 255,
            extra: BTreeMap::new(),
        }
    }
}

impl Params {
    /// Checks that each parameter is within bounds that LightGBM accepts and that bound the time of a training.
    ///
    /// # Errors
    /// [`TrainingError::Setting`] for the first that is not.
    pub fn check(&self) -> Result<(), TrainingError> {
        const LARGE: f64 = 1e9;
        within("iterations", self.iterations.into(), 1.0, ITERATIONS_MAX.into())?;
        within("num_leaves", self.num_leaves.into(), 2.0, LEAVES_MAX.into())?;
        within("learning_rate", self.learning_rate, 1e-6, 1.0)?;
        within("min_data_in_leaf", self.min_data_in_leaf.into(), 0.0, LARGE)?;
        within("feature_fraction", self.feature_fraction, 1e-6, 1.0)?;
        within("bagging_fraction", self.bagging_fraction, 1e-6, 1.0)?;
        within("bagging_freq", self.bagging_freq.into(), 0.0, ITERATIONS_MAX.into())?;
        within("lambda_l1", self.lambda_l1, 0.0, LARGE)?;
        within("lambda_l2", self.lambda_l2, 0.0, LARGE)?;
        within("max_cat_to_onehot", self.max_cat_to_onehot.into(), 1.0, LARGE)?;
        within("max_cat_threshold", self.max_cat_threshold.into(), 1.0, LARGE)?;
        within("min_data_per_group", self.min_data_per_group.into(), 1.0, LARGE)?;
        within("cat_smooth", self.cat_smooth, 0.0, LARGE)?;
        within("cat_l2", self.cat_l2, 0.0, LARGE)?;
        within("max_bin", self.max_bin.into(), 2.0, 65_535.0)?;
        for (name, value) in &self.extra {
            let searchable = &SEARCHABLE[searchable::position_of(name)?];
            if searchable.default_value().is_none() {
                return Err(searchable.refuse("it is there twice".to_owned()));
            }
            searchable.check(value)?;
        }
        Ok(())
    }

    /// The value of a parameter in [`SEARCHABLE`], be it set or LightGBM's default; `None` for another name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<ParamValue> {
        let number = match name {
            "num_leaves" => self.num_leaves.into(),
            "learning_rate" => self.learning_rate,
            "min_data_in_leaf" => self.min_data_in_leaf.into(),
            "feature_fraction" => self.feature_fraction,
            "bagging_fraction" => self.bagging_fraction,
            "bagging_freq" => self.bagging_freq.into(),
            "lambda_l1" => self.lambda_l1,
            "lambda_l2" => self.lambda_l2,
            "max_cat_to_onehot" => self.max_cat_to_onehot.into(),
            "max_cat_threshold" => self.max_cat_threshold.into(),
            "min_data_per_group" => self.min_data_per_group.into(),
            "cat_smooth" => self.cat_smooth,
            "cat_l2" => self.cat_l2,
            "max_bin" => self.max_bin.into(),
            name => {
                let default = || SEARCHABLE[searchable::position_of(name).ok()?].default_value();
                return self.extra.get(name).cloned().or_else(default);
            }
        };
        Some(ParamValue::Number(number))
    }

    /// Sets a parameter in [`SEARCHABLE`] to a value that [`Searchable::check`](crate::training::Searchable::check) allows.
    pub(super) fn set(&mut self, name: &str, value: ParamValue) {
        let Some(number) = value.number() else {
            self.extra.insert(name.to_owned(), value);
            return;
        };
        match name {
            "num_leaves" => self.num_leaves = whole(number),
            "learning_rate" => self.learning_rate = number,
            "min_data_in_leaf" => self.min_data_in_leaf = whole(number),
            "feature_fraction" => self.feature_fraction = number,
            "bagging_fraction" => self.bagging_fraction = number,
            "bagging_freq" => self.bagging_freq = whole(number),
            "lambda_l1" => self.lambda_l1 = number,
            "lambda_l2" => self.lambda_l2 = number,
            "max_cat_to_onehot" => self.max_cat_to_onehot = whole(number),
            "max_cat_threshold" => self.max_cat_threshold = whole(number),
            "min_data_per_group" => self.min_data_per_group = whole(number),
            "cat_smooth" => self.cat_smooth = number,
            "cat_l2" => self.cat_l2 = number,
            "max_bin" => self.max_bin = whole(number),
            name => {
                self.extra.insert(name.to_owned(), value);
            }
        }
    }

    /// Whether trees that were added change when others are added, so that a model's first iterations are no model.
    pub(super) fn revises_trees(&self) -> bool {
        self.extra.get("boosting") == Some(&ParamValue::Text("dart".to_owned()))
    }

    /// The parameters as LightGBM reads them, for data sets and boosters: `name=value` pairs separated by blanks.
    #[must_use]
    pub fn to_lightgbm(&self, classes: usize, seed: Seed) -> String {
        let objective = match classes {
            2 => "objective=binary metric=binary_logloss".to_owned(),
            classes => format!("objective=multiclass num_class={classes} metric=multi_logloss"),
        };
        // LightGBM's seeds have 31 bits. The pre-filter would drop features that cannot be split with this trial's
        // min_data_in_leaf from a data set that all trials share.
        let seed = seed.0 % (1 << 31);
        let Self { num_leaves, learning_rate, min_data_in_leaf, max_bin, .. } = self;
        let Self { feature_fraction, bagging_fraction, bagging_freq, lambda_l1, lambda_l2, .. } =
            self;
        let Self {
            max_cat_to_onehot,
            max_cat_threshold,
            min_data_per_group,
            cat_smooth,
            cat_l2,
            ..
        } = self;
        let mut text = format!(
            "{objective} seed={seed} feature_pre_filter=false num_leaves={num_leaves} learning_rate={learning_rate} \
             min_data_in_leaf={min_data_in_leaf} feature_fraction={feature_fraction} \
             bagging_fraction={bagging_fraction} bagging_freq={bagging_freq} lambda_l1={lambda_l1} \
             lambda_l2={lambda_l2} max_cat_to_onehot={max_cat_to_onehot} \
             max_cat_threshold={max_cat_threshold} min_data_per_group={min_data_per_group} cat_smooth={cat_smooth} cat_l2={cat_l2} \
             max_bin={max_bin}"
        );
        for (name, value) in &self.extra {
            write!(text, " {name}={value}").expect("a text can be written to");
        }
        text
    }
}

#[expect(
    clippy::cast_sign_loss,
    reason = "ranges and parameters were checked: none is below 0 or above 1e9"
)]
fn whole(value: f64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::searchable::Values;

    #[test]
    fn parameters_are_written_as_lightgbm_reads_them() {
        let text = Params::default().to_lightgbm(2, Seed((1 << 31) + 5));
        assert!(text.starts_with("objective=binary metric=binary_logloss seed=5 "), "{text}");
        assert!(text.contains(" learning_rate=0.05 ") && !text.contains("is_unbalance"), "{text}");
        let text = Params::default().to_lightgbm(3, Seed(0));
        assert!(
            text.starts_with("objective=multiclass num_class=3 metric=multi_logloss "),
            "{text}"
        );
    }

    #[test]
    fn parameters_have_bounds() {
        let check = |params: Params, expected: Option<&str>| {
            let error = params.check().err().map(|error| error.to_string());
            let name = error.as_deref().and_then(|error| error.split(' ').next());
            assert_eq!(name, expected);
        };
        check(Params::default(), None);
        check(Params { iterations: 0, ..Params::default() }, Some("iterations"));
        check(Params { num_leaves: 1, ..Params::default() }, Some("num_leaves"));
        check(Params { learning_rate: f64::NAN, ..Params::default() }, Some("learning_rate"));
        check(Params { bagging_fraction: 1.1, ..Params::default() }, Some("bagging_fraction"));
        check(Params { lambda_l2: f64::INFINITY, ..Params::default() }, Some("lambda_l2"));
    }

    fn with(extra: &[(&str, ParamValue)]) -> Params {
        let extra = extra.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Params { extra: extra.collect(), ..Params::default() }
    }

    #[test]
    fn further_parameters_reach_lightgbm_and_are_left_out_of_json_if_there_are_none() {
        let text = |params: &Params| serde_json::to_string(params).unwrap();
        assert!(text(&Params::default()).ends_with("\"max_bin\":255}"));
        let depth = ParamValue::Number(6.0);
        let params = with(&[("max_depth", depth), ("boosting", ParamValue::of_text("dart"))]);
        assert_eq!(params.check(), Ok(()));
        assert!(params.to_lightgbm(2, Seed(1)).ends_with(" max_bin=255 boosting=dart max_depth=6"));
        assert_eq!(serde_json::from_str::<Params>(&text(&params)).unwrap(), params);
    }

    #[test]
    fn further_parameters_are_checked() {
        let check = |params: &Params, expected: &str| {
            let error = params.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&with(&[("max_depth", ParamValue::Number(1e9))]), "max_depth is 1000000000");
        check(&with(&[("num_threads", ParamValue::Number(8.0))]), "parameter num_threads: ");
        check(&with(&[("num_leaves", ParamValue::Number(8.0))]), "it is there twice");
        let injected = ParamValue::of_text("dart output_model=/tmp/x");
        check(&with(&[("boosting", injected)]), "is not gbdt or dart");
    }

    #[test]
    fn a_parameter_that_is_set_is_the_one_that_is_read() {
        for searchable in SEARCHABLE {
            let mut params = Params::default();
            let value = match searchable.values {
                Values::Whole(..) => ParamValue::Number(3.0),
                Values::Real(..) => ParamValue::Number(0.75),
                Values::Flag => ParamValue::Flag(true),
                Values::Text(texts) => ParamValue::Text(texts[1].to_owned()),
            };
            params.set(searchable.name, value.clone());
            assert_eq!(params.get(searchable.name), Some(value));
            let others = SEARCHABLE.iter().filter(|other| other.name != searchable.name);
            for other in others {
                assert_eq!(params.get(other.name), Params::default().get(other.name));
            }
            params.check().unwrap();
        }
    }
}
