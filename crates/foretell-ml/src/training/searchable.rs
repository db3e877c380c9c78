//! The LightGBM parameters that a study may search, with their bounds, and the reasons why it may not search others.

use crate::training::{LEAVES_MAX, ParamValue, TrainingError, within};

/// A parameter that a study may search.
#[derive(Clone, Copy, Debug)]
pub struct Searchable {
    /// Its name in LightGBM.
    pub name: &'static str,
    /// Values that it may have.
    pub values: Values,
    /// Its value where [`Params`](crate::Params) does not set it.
    pub default: Preset,
    /// What it does, for the users of the configuration.
    pub docs: &'static str,
}

/// Values that a parameter may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values {
    /// Whole numbers within these bounds.
    Whole(f64, f64),
    /// Numbers within these bounds.
    Real(f64, f64),
    /// `true` and `false`.
    Flag,
    /// One of these texts.
    Text(&'static [&'static str]),
}

/// The value of a parameter that is not set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preset {
    /// [`Params`](crate::Params) has a field for it, so it is always set.
    Field,
    Number(f64),
    Flag(bool),
    Text(&'static str),
}

/// Upper bound of parameters without a natural one.
const LARGE: f64 = 1e9;

/// Every parameter that a study may search. The first nine are in the default space. The order decides which random number
/// goes to which parameter, so new ones are added at the end.
pub const SEARCHABLE: &[Searchable] = &[
    field("num_leaves", Values::Whole(2.0, LEAVES_MAX as f64), "Leaves of one tree."),
    field(
        "learning_rate",
        Values::Real(1e-6, 1.0),
        "How much each tree contributes. Below 0.02 a study takes long and gains little.",
    ),
    field("min_data_in_leaf", Values::Whole(0.0, LARGE), "Examples that a leaf must have."),
    field(
        "feature_fraction",
        Values::Real(1e-6, 1.0),
        "Share of the features that each tree may use.",
    ),
    field(
        "bagging_fraction",
        Values::Real(1e-6, 1.0),
        "Share of the examples that each tree learns from.",
    ),
    field("lambda_l1", Values::Real(0.0, LARGE), "L1 regularisation of the leaves' values."),
    field("lambda_l2", Values::Real(0.0, LARGE), "L2 regularisation of the leaves' values."),
    field("cat_smooth", Values::Real(0.0, LARGE), "Smoothing of categories with few examples."),
    field("cat_l2", Values::Real(0.0, LARGE), "L2 regularisation of splits by category."),
    field(
        "bagging_freq",
        Values::Whole(0.0, 10_000.0),
        "Iterations between two draws of examples for `bagging_fraction`; 0: no bagging.",
    ),
    field(
        "max_cat_to_onehot",
        Values::Whole(1.0, LARGE),
        "A feature with at most this many categories is split one category against the rest.",
    ),
    field(
        "max_cat_threshold",
        Values::Whole(1.0, LARGE),
        "Maximum number of categories on one side of a split.",
    ),
    field(
        "min_data_per_group",
        Values::Whole(1.0, LARGE),
        "Examples that the categories on one side of a split must have together.",
    ),
    field(
        "max_bin",
        Values::Whole(2.0, 65_535.0),
        "Bins of a feature. Each value is a copy of the examples in memory, so it takes one value or a `choice` of up to 4.",
    ),
    number("max_depth", Values::Whole(-1.0, 64.0), -1.0, "Depth of a tree; 0 or -1: no limit."),
    number(
        "min_sum_hessian_in_leaf",
        Values::Real(0.0, LARGE),
        1e-3,
        "Sum of the second derivatives of the loss that a leaf must have.",
    ),
    number("min_gain_to_split", Values::Real(0.0, LARGE), 0.0, "Gain that a split must have."),
    number(
        "feature_fraction_bynode",
        Values::Real(1e-6, 1.0),
        1.0,
        "Share of the tree's features that each split may use.",
    ),
    number(
        "max_delta_step",
        Values::Real(0.0, LARGE),
        0.0,
        "Largest value of a leaf; 0: no limit.",
    ),
    number(
        "path_smooth",
        Values::Real(0.0, LARGE),
        0.0,
        "Smoothing of a leaf's value towards its parent's.",
    ),
    flag("extra_trees", false, "Whether splits are chosen among random thresholds."),
    text(
        "boosting",
        &["gbdt", "dart"],
        "How trees are added: `dart` drops some of the trees before, and takes much longer.",
    ),
    number("drop_rate", Values::Real(0.0, 1.0), 0.1, "Share of the trees that `dart` drops."),
    number(
        "max_drop",
        Values::Whole(-1.0, LARGE),
        50.0,
        "Trees that `dart` drops at most in an iteration; 0 or -1: no limit.",
    ),
    number(
        "skip_drop",
        Values::Real(0.0, 1.0),
        0.5,
        "Probability that `dart` drops nothing in an iteration.",
    ),
    flag("uniform_drop", false, "Whether `dart` drops each tree with the same probability."),
    flag("xgboost_dart_mode", false, "Whether `dart` weights trees as XGBoost does."),
    text(
        "data_sample_strategy",
        &["bagging", "goss"],
        "How examples are drawn: `goss` prefers those with a large loss, and needs `bagging_fraction = 1`.",
    ),
    number(
        "top_rate",
        Values::Real(0.0, 1.0),
        0.2,
        "Share of the examples with a large loss that `goss` keeps.",
    ),
    number(
        "other_rate",
        Values::Real(0.0, 1.0),
        0.1,
        "Share of the other examples that `goss` keeps; with `top_rate` at most 1.",
    ),
    flag("boost_from_average", true, "Whether the first tree begins at the mean of the labels."),
    number(
        "cegb_tradeoff",
        Values::Real(0.0, LARGE),
        1.0,
        "Weight of the penalty of splits against their gain.",
    ),
    number(
        "cegb_penalty_split",
        Values::Real(0.0, LARGE),
        0.0,
        "Penalty of a split for each of its examples.",
    ),
];

/// Why other parameters cannot be searched: the reason, and the names that LightGBM has for what it is about.
const REFUSED: &[(&str, &[&str])] = &[
    ("it follows from [outcomes] labels", &["objective", "num_class", "metric", "application"]),
    (
        "early stopping finds it: set iterations_max and early_stopping_rounds of the study",
        &[
            "num_iterations",
            "iterations",
            "n_estimators",
            "num_boost_round",
            "early_stopping_round",
        ],
    ),
    (
        "it would distort the probabilities",
        &[
            "is_unbalance",
            "scale_pos_weight",
            "pos_bagging_fraction",
            "neg_bagging_fraction",
            "sigmoid",
        ],
    ),
    (
        "[learning] seed decides it, so that a model can be reproduced",
        &[
            "seed",
            "random_state",
            "bagging_seed",
            "feature_fraction_seed",
            "extra_seed",
            "drop_seed",
            "data_random_seed",
            "objective_seed",
            "deterministic",
        ],
    ),
    (
        "training runs on one thread of the CPU for each fold, so that a model can be reproduced",
        &[
            "num_threads",
            "device_type",
            "device",
            "tree_learner",
            "num_machines",
            "machines",
            "force_col_wise",
            "force_row_wise",
            "gpu_platform_id",
            "gpu_device_id",
            "gpu_use_dp",
            "num_gpu",
            "histogram_pool_size",
        ],
    ),
    (
        "a training reads and writes no files",
        &[
            "data",
            "valid",
            "config",
            "task",
            "input_model",
            "output_model",
            "output_result",
            "snapshot_freq",
            "forcedsplits_filename",
            "forcedbins_filename",
            "save_binary",
            "verbosity",
        ],
    ),
    ("scoring does not support linear leaves", &["linear_tree", "linear_lambda"]),
    (
        "the examples are binned once for all trials of a study",
        &[
            "min_data_in_bin",
            "bin_construct_sample_cnt",
            "max_bin_by_feature",
            "is_enable_sparse",
            "enable_bundle",
            "use_missing",
            "zero_as_missing",
            "feature_pre_filter",
        ],
    ),
    (
        "it has a value for each feature",
        &[
            "monotone_constraints",
            "interaction_constraints",
            "feature_contri",
            "categorical_feature",
        ],
    ),
];

/// Other names that LightGBM has for parameters, with the names to use.
const ALIASES: &[(&str, &str)] = &[
    ("eta", "learning_rate"),
    ("shrinkage_rate", "learning_rate"),
    ("num_leaf", "num_leaves"),
    ("max_leaves", "num_leaves"),
    ("max_leaf_nodes", "num_leaves"),
    ("min_child_samples", "min_data_in_leaf"),
    ("min_samples_leaf", "min_data_in_leaf"),
    ("min_data", "min_data_in_leaf"),
    ("min_child_weight", "min_sum_hessian_in_leaf"),
    ("min_split_gain", "min_gain_to_split"),
    ("colsample_bytree", "feature_fraction"),
    ("sub_feature", "feature_fraction"),
    ("colsample_bynode", "feature_fraction_bynode"),
    ("subsample", "bagging_fraction"),
    ("sub_row", "bagging_fraction"),
    ("bagging", "bagging_fraction"),
    ("subsample_freq", "bagging_freq"),
    ("reg_alpha", "lambda_l1"),
    ("l1_regularization", "lambda_l1"),
    ("reg_lambda", "lambda_l2"),
    ("lambda", "lambda_l2"),
    ("l2_regularization", "lambda_l2"),
    ("boosting_type", "boosting"),
    ("boost", "boosting"),
    ("extra_tree", "extra_trees"),
];

const fn field(name: &'static str, values: Values, docs: &'static str) -> Searchable {
    Searchable { name, values, default: Preset::Field, docs }
}

const fn number(
    name: &'static str,
    values: Values,
    default: f64,
    docs: &'static str,
) -> Searchable {
    Searchable { name, values, default: Preset::Number(default), docs }
}

const fn flag(name: &'static str, default: bool, docs: &'static str) -> Searchable {
    Searchable { name, values: Values::Flag, default: Preset::Flag(default), docs }
}

const fn text(
    name: &'static str,
    texts: &'static [&'static str],
    docs: &'static str,
) -> Searchable {
    Searchable { name, values: Values::Text(texts), default: Preset::Text(texts[0]), docs }
}

impl Searchable {
    /// The value that a parameter without a field in [`Params`](crate::Params) has if it is not set.
    #[must_use]
    pub fn default_value(&self) -> Option<ParamValue> {
        match self.default {
            Preset::Field => None,
            Preset::Number(number) => Some(ParamValue::Number(number)),
            Preset::Flag(flag) => Some(ParamValue::Flag(flag)),
            Preset::Text(text) => Some(ParamValue::Text(text.to_owned())),
        }
    }

    /// Checks that the parameter may have a value.
    ///
    /// # Errors
    /// [`TrainingError::Setting`] for a number out of bounds, else [`TrainingError::Parameter`].
    pub fn check(&self, value: &ParamValue) -> Result<(), TrainingError> {
        match (self.values, value) {
            (Values::Whole(low, high), ParamValue::Number(number)) => {
                within(self.name, *number, low, high)?;
                if number.fract() == 0.0 {
                    return Ok(());
                }
            }
            (Values::Real(low, high), ParamValue::Number(number)) => {
                return within(self.name, *number, low, high);
            }
            (Values::Flag, ParamValue::Flag(_)) => return Ok(()),
            (Values::Text(texts), ParamValue::Text(text)) if texts.contains(&text.as_str()) => {
                return Ok(());
            }
            _ => (),
        }
        Err(self.refuse(format!("{value} is not {}", self.values_in_words())))
    }

    /// The values that it may have, for messages and documentation.
    #[must_use]
    pub fn values_in_words(&self) -> String {
        match self.values {
            Values::Whole(low, LARGE) => format!("a whole number of at least {low}"),
            Values::Real(low, LARGE) => format!("a number of at least {low}"),
            Values::Whole(low, high) => format!("a whole number from {low} to {high}"),
            Values::Real(low, high) => format!("a number from {low} to {high}"),
            Values::Flag => "true or false".to_owned(),
            Values::Text(texts) => texts.join(" or "),
        }
    }

    /// Whether its values are numbers without a fraction.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.values, Values::Whole(..))
    }

    pub(super) fn refuse(&self, problem: String) -> TrainingError {
        TrainingError::Parameter { name: self.name.to_owned(), problem }
    }
}

/// The index in [`SEARCHABLE`] of the parameter with this name.
///
/// # Errors
/// [`TrainingError::Parameter`] with the reason why it cannot be searched.
pub(super) fn position_of(name: &str) -> Result<usize, TrainingError> {
    let found = SEARCHABLE.iter().position(|searchable| searchable.name == name);
    found.ok_or_else(|| {
        let problem = refusal(name)
            .unwrap_or_else(|| "it is not a parameter that a study can search".to_owned());
        TrainingError::Parameter { name: name.to_owned(), problem }
    })
}

/// Why a study cannot search a parameter of LightGBM; `None` if it can, or LightGBM has no such parameter.
#[must_use]
pub fn refusal(name: &str) -> Option<String> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    let alias = alias.map(|(_, usual)| format!("name it {usual}"));
    let reason = || REFUSED.iter().find(|(_, names)| names.contains(&name));
    alias.or_else(|| reason().map(|(reason, _)| format!("it cannot be searched: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Params;

    #[test]
    fn every_name_is_either_searchable_or_refused_and_stands_once() {
        let mut names: Vec<&str> = SEARCHABLE.iter().map(|searchable| searchable.name).collect();
        names.extend(REFUSED.iter().flat_map(|(_, names)| names.iter().copied()));
        names.extend(ALIASES.iter().map(|(alias, _)| *alias));
        names.sort_unstable();
        let number = names.len();
        names.dedup();
        assert_eq!(names.len(), number);
        for (_, usual) in ALIASES {
            assert!(position_of(usual).is_ok(), "{usual}");
        }
    }

    #[test]
    fn a_parameter_has_its_default_unless_it_is_set() {
        for searchable in SEARCHABLE {
            let value = Params::default().get(searchable.name).unwrap();
            assert_eq!(searchable.check(&value), Ok(()), "{}", searchable.name);
            let field = serde_json::to_value(Params::default()).unwrap();
            let is_field = field.get(searchable.name).is_some();
            assert_eq!(searchable.default == Preset::Field, is_field, "{}", searchable.name);
        }
    }

    #[test]
    fn values_are_checked() {
        let check = |name: &str, value: ParamValue, expected: Option<&str>| {
            let searchable = &SEARCHABLE[position_of(name).unwrap()];
            let error = searchable.check(&value).err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), expected);
        };
        check("max_depth", ParamValue::Number(6.0), None);
        check("max_depth", ParamValue::Number(65.0), Some("max_depth is 65, not -1 to 64"));
        let expected = "parameter max_depth: 2.5 is not a whole number from -1 to 64";
        check("max_depth", ParamValue::Number(2.5), Some(expected));
        check("path_smooth", ParamValue::Number(2.5), None);
        check(
            "path_smooth",
            ParamValue::Number(f64::NAN),
            Some("path_smooth is NaN, not 0 to 1000000000"),
        );
        check("extra_trees", ParamValue::Flag(true), None);
        let expected = "parameter extra_trees: 1 is not true or false";
        check("extra_trees", ParamValue::Number(1.0), Some(expected));
        check("boosting", ParamValue::of_text("dart"), None);
        let expected = "parameter boosting: rf num_threads=8 is not gbdt or dart";
        check("boosting", ParamValue::of_text("rf num_threads=8"), Some(expected));
    }

    #[test]
    fn the_reason_of_a_refusal_is_named() {
        let check = |name: &str, expected: &str| {
            let error = position_of(name).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(
            "objective",
            "parameter objective: it cannot be searched: it follows from [outcomes] labels",
        );
        check("linear_tree", "scoring does not support linear leaves");
        check("num_threads", "one thread");
        check("eta", "parameter eta: name it learning_rate");
        check("nonsense", "is not a parameter that a study can search");
    }
}
