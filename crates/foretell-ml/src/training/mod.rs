//! From examples to a bundle: tune if there is a budget, then train; pure functions of examples, recipe and seed.
//!
//! ```text
//!  examples ─┬─▶ tune ──▶ Params ─┐         tune:  TPE asks ─▶ k folds on a few threads ─▶ TPE is told; the worse
//!            │                    ▼                half of the trials stops after the first folds (median pruning)
//!            └──────────────▶ train ──▶ ModelBundle
//!                             a stratified fifth is held out for the evaluation; then all of it is trained on
//! ```
//!
//! No clock and no thread of its own that outlives a call: budgets in seconds are the caller's, who answers
//! [`std::ops::ControlFlow::Break`] or says stop.

use crate::{Example, lightgbm::LightGbmError};

mod cross_validation;
mod dataset;
mod evaluation;
mod folds;
mod params;
mod space;
mod train;
mod tuner;

pub use evaluation::{Evaluation, accuracy, auc, evaluate, f1, log_loss};
pub use params::{ITERATIONS_MAX, LEAVES_MAX, Params};
pub use space::{Range, Space};
pub use train::{Recipe, train};
pub use tuner::{Trial, Tuned, TuningSettings, Watch, tune};

/// More classes than this are a mistake: each grows a tree an iteration.
pub const CLASSES_MAX: usize = 256;

/// Why nothing was learned.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TrainingError {
    /// There is nothing to learn from.
    #[error("there are no examples")]
    NoExamples,
    /// All examples are of one class, so there is nothing to tell apart.
    #[error("all examples are of class {class}")]
    OneClass {
        /// The index of the class.
        class: u32,
    },
    /// Every fold needs an example, and examples of two classes to learn from besides.
    #[error(
        "too few to cross-validate in {folds} folds: {examples} examples, of which {minority} are not of the most \
         frequent class; it takes {folds}, of which {MINORITY_MIN} are not"
    )]
    TooFew {
        /// How many examples there are.
        examples: usize,
        /// Examples that are not of the most frequent class.
        minority: usize,
        /// How many folds there are.
        folds: usize,
    },
    /// An example is of a class that there is not.
    #[error("example {example} is of class {label}, of {classes}")]
    Label {
        /// Its place among the examples.
        example: usize,
        /// Its label.
        label: u32,
        /// How many classes there are.
        classes: usize,
    },
    /// Fewer than two classes, or more than [`CLASSES_MAX`].
    #[error("{classes} classes, not 2 to {CLASSES_MAX}")]
    Classes {
        /// How many there are.
        classes: usize,
    },
    /// A parameter or a setting is out of its bounds.
    #[error("{name} is {value}, not {low} to {high}")]
    Setting {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The least it may be.
        low: f64,
        /// The most it may be.
        high: f64,
    },
    /// LightGBM made trees that our evaluator does not walk: a fault of ours.
    #[error("the model was trained, but cannot be served: {reason}")]
    Unservable {
        /// What is wrong with it.
        reason: String,
    },
    /// The caller said stop.
    #[error("the training was stopped")]
    Stopped,
    /// LightGBM failed.
    #[error("LightGBM failed")]
    LightGbm(#[from] LightGbmError),
}

/// One may be held out, and there must be another to learn from.
const MINORITY_MIN: usize = 2;

/// Refuses examples that can't be cross-validated.
///
/// # Errors
/// [`TrainingError`], with the numbers.
pub fn check_folds(
    examples: &[Example],
    classes: usize,
    folds: usize,
) -> Result<(), TrainingError> {
    let minority = dataset::check(examples, classes)?;
    if minority < MINORITY_MIN || examples.len() < folds {
        return Err(TrainingError::TooFew { examples: examples.len(), minority, folds });
    }
    Ok(())
}

/// Refuses a setting outside its bounds; NaN is outside.
fn within(name: &'static str, value: f64, low: f64, high: f64) -> Result<(), TrainingError> {
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
        Column, ColumnKind, Example, Label, ModelBundle, PipelineSpec, Scaling, Seed, Value,
        bundle::Origin,
        training::{Params, Recipe, train},
    };

    /// A number, a category (sometimes missing), another number; crossed with nothing.
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
            threshold: 0.5,
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
            train(&examples(400, 2, 1), &recipe(2), &mut |_, _| ControlFlow::Continue(())).unwrap()
        };
        BUNDLE.get_or_init(trained).clone()
    }
}
