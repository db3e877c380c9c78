//! Tuning and training: pure functions of examples, settings and seed.
//!
//! ```text
//!  examples ─┬─▶ tune ──▶ Params ─┐         tune:  a sampler proposes ─▶ k folds on a few threads ─▶ loss ─▶ sampler;
//!            │                    ▼                trials that cannot win stop after the first folds
//!            └──────────────▶ train ──▶ ModelBundle                             (median pruning, racing)
//!                             once without a stratified fifth, to evaluate on it and to choose the threshold and the
//!                             calibration, and once with all examples
//! ```
//!
//! [`train_judged`] also trains a model without a holdout, and compares it on the holdout with the model that serves.
//!
//! Nothing here reads a clock, and no thread outlives a call. Callers limit the time through callbacks that return
//! [`std::ops::ControlFlow::Break`] or `true`.

use crate::{PipelineSpec, Sample, lightgbm::LightGbmError};

mod calibration;
mod confusion;
mod cross_validation;
mod dataset;
mod domain;
mod earlier;
mod evaluation;
mod fold_metrics;
mod folds;
mod held_out;
mod metric;
mod param_value;
mod params;
mod pruning;
mod recipe;
mod sampler;
mod search;
mod searchable;
mod space;
mod threshold;
mod train;
mod tuner;

pub use calibration::{Calibration, Calibrator};
pub use confusion::ConfusionMatrix;
pub use domain::Domain;
pub use earlier::EARLIER_TRIALS_MAX;
pub(crate) use evaluation::loss_of;
pub use evaluation::{
    EvaluatedOn, Evaluation, Intervals, accuracy, auc, auc_of_class, evaluate, f1, log_loss,
};
pub use folds::FoldOrder;
pub use metric::Metric;
pub use param_value::ParamValue;
pub use params::{ITERATIONS_MAX, LEAVES_MAX, Params};
pub use recipe::Recipe;
pub use sampler::SamplerKind;
pub use searchable::{Preset, SEARCHABLE, Searchable, Values, refusal};
pub use space::Space;
pub use threshold::Threshold;
pub use train::{Holdout, Judged, train, train_judged};
pub use tuner::{Trial, Tuned, TuningSettings, Watch, best as best_trial, tune};

/// Maximum number of classes. With more than two, each iteration grows one tree per class.
pub const CLASSES_MAX: usize = 256;

/// Examples to tune on, and how to read them.
#[derive(Clone, Copy, Debug)]
pub struct TrainingData<'a> {
    /// Values and labels, in the columns of `spec`.
    pub examples: &'a Sample<'a>,
    /// Features to make of the values.
    pub spec: &'a PipelineSpec,
    /// Number of classes, 2 to [`CLASSES_MAX`]; each label is below it.
    pub classes: usize,
}

/// Reasons why tuning or training failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TrainingError {
    /// The list of examples is empty.
    #[error("there are no examples")]
    NoExamples,
    /// All examples have the same label.
    #[error("all examples are of class {class}")]
    OneClass {
        /// Index of the class.
        class: u32,
    },
    /// Too few examples to cross-validate: each fold needs one to validate on, and two classes to train on.
    #[error(
        "too few to cross-validate in {folds} folds: {examples} examples, of which {minority} are not of the most \
         frequent class; it takes {folds}, of which {MINORITY_MIN} are not"
    )]
    TooFew {
        /// Number of examples.
        examples: usize,
        /// Number of examples that are not of the most frequent class.
        minority: usize,
        /// Number of folds.
        folds: usize,
    },
    /// The label of an example is not below the number of classes.
    #[error("example {example} is of class {label}, of {classes}")]
    Label {
        /// Index of the example.
        example: usize,
        /// Label of the example.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// Fewer than two classes, or more than [`CLASSES_MAX`].
    #[error("{classes} classes, not 2 to {CLASSES_MAX}")]
    Classes {
        /// Number of classes.
        classes: usize,
    },
    /// A parameter or a setting is out of its bounds.
    #[error("{name} is {value}, not {low} to {high}")]
    Setting {
        /// Name of the parameter or setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// Smallest allowed value.
        low: f64,
        /// Largest allowed value.
        high: f64,
    },
    /// In the order of time, the examples that the first fold is trained on have one label only.
    #[error(
        "the first {examples} examples have only one label, so nothing can be learned from them in the order of time: \
         use fewer folds, or folds in shuffled order"
    )]
    OneClassFirst {
        /// Number of examples that the fold is trained on.
        examples: usize,
    },
    /// A LightGBM parameter cannot be searched, or has a value that it cannot have.
    #[error("parameter {name}: {problem}")]
    Parameter {
        /// Name of the parameter.
        name: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// LightGBM made trees that [`crate::trees`] does not support: a bug in this crate.
    #[error("the model was trained, but cannot be served: {reason}")]
    Unservable {
        /// The error of [`crate::trees::Trees::parse`] or [`crate::Scorer::new`], as text.
        reason: String,
    },
    /// The caller's callback ended the training.
    #[error("the training was stopped")]
    Stopped,
    /// A call of LightGBM failed.
    #[error("LightGBM failed")]
    LightGbm(#[from] LightGbmError),
}

/// Smallest number of examples outside the most frequent class: one may be held out, and one must be trained on.
const MINORITY_MIN: usize = 2;

/// Checks that examples can be cross-validated.
///
/// # Errors
/// [`TrainingError`] if the labels are invalid, or there are too few examples in all or of the minority classes, or in the
/// order of time the first ones have only one label.
pub fn check_folds(
    examples: &Sample<'_>,
    classes: usize,
    folds: usize,
    order: FoldOrder,
) -> Result<(), TrainingError> {
    let minority = dataset::check(examples, classes)?;
    let needed = match order {
        FoldOrder::Shuffled => folds,
        FoldOrder::Time => folds + 1,
    };
    if minority < MINORITY_MIN || examples.len() < needed {
        return Err(TrainingError::TooFew { examples: examples.len(), minority, folds: needed });
    }
    if order == FoldOrder::Time {
        let first = examples.len().div_ceil(needed);
        let mut labels = examples.labels().take(first);
        let label = labels.next();
        if labels.all(|other| Some(other) == label) {
            return Err(TrainingError::OneClassFirst { examples: first });
        }
    }
    Ok(())
}

/// Checks that a setting is within its bounds; NaN is not.
pub(crate) fn within(
    name: &'static str,
    value: f64,
    low: f64,
    high: f64,
) -> Result<(), TrainingError> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(TrainingError::Setting { name, value, low, high })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{ops::ControlFlow, sync::OnceLock};

    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use crate::{
        Column, ColumnKind, Example, Label, ModelBundle, PipelineSpec, Scaling, Seed, TrainingSet,
        Value,
        bundle::Origin,
        training::{Calibration, Params, Recipe, Threshold, train},
    };

    /// A numeric column, a categorical one with missing values, and another numeric one; no crosses.
    pub(crate) fn spec() -> PipelineSpec {
        let column = Column::new;
        let columns = vec![
            column("x", ColumnKind::Numeric),
            column("kind", ColumnKind::Categorical),
            column("noise", ColumnKind::Numeric),
        ];
        PipelineSpec::new(columns, Scaling::Standard, Vec::new()).unwrap()
    }

    /// Examples whose class depends on `x` and `kind`, with noise.
    pub(crate) fn examples(number: usize, classes: u32, seed: u64) -> Vec<Example> {
        let mut random = StdRng::seed_from_u64(seed);
        let example = |_| {
            let (x, noise) = (random.random_range(0.0..1.0), random.random_range(0.0..1.0));
            let kind = random.random_range(0..5_u8);
            let text = match kind {
                0 => Value::Missing,
                kind => Value::Text(char::from(b'a' + kind).to_string()),
            };
            let score: f64 = x + f64::from(kind % 2) + random.random_range(-0.4..0.4);
            let label = (1..classes)
                .filter(|class| score > 2.0 * f64::from(*class) / f64::from(classes))
                .count();
            let values = vec![Value::Number(x), text, Value::Number(noise)];
            Example { values, label: Label(u32::try_from(label).unwrap()) }
        };
        (0..number).map(example).collect()
    }

    pub(crate) fn recipe(classes: u32) -> Recipe {
        Recipe {
            spec: spec(),
            classes: (0..classes).map(|class| format!("class {class}")).collect(),
            threshold: Threshold::Fixed(0.5),
            calibration: Calibration::None,
            intervals: false,
            profile: false,
            params: Params {
                iterations: 12,
                num_leaves: 7,
                learning_rate: 0.2,
                min_data_in_leaf: 5,
                cat_smooth: 1.0,
                ..Params::default()
            },
            seed: Seed(3),
            origin: Origin::default(),
        }
    }

    /// A binary model of [`spec`].
    pub(crate) fn small_bundle() -> ModelBundle {
        static BUNDLE: OnceLock<ModelBundle> = OnceLock::new();
        let trained = || {
            let set = TrainingSet::of(spec().columns(), &examples(400, 2, 1));
            train(&set.sample(), &recipe(2), &mut |_, _| ControlFlow::Continue(())).unwrap()
        };
        BUNDLE.get_or_init(trained).clone()
    }
}
