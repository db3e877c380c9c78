//! Features, tuning, training and scoring with LightGBM, as pure functions: no streams, no clock, no I/O, and nothing
//! specific to one data set.
//!
//! ```text
//!        TrainingSet ──┬──▶ training::tune ──▶ Params
//!  examples by column  │                          │
//!                      └──▶ training::train ◀─────┘      lightgbm: the C library, training only
//!                                  │
//!                                  ▼
//!                             ModelBundle ◀──▶ bytes     bundle: pipeline + trees + threshold + calibration + lineage +
//!                                  │                     evaluation, versioned by a hash of its content
//!                                  ▼
//!        values ──────────────▶ Scorer ──▶ Probabilities ──▶ Label
//!                     │         features: values → numbers;    trees: numbers → probabilities, in Rust
//!                     └────▶ Explanation: contributions of the columns (SHAP)
//! ```
//!
//! Guarantees:
//! - **The same input gives the same bytes**: examples, recipe and seed determine a bundle, on any number of threads.
//! - **Scoring never fails**: any values give probabilities. [`Scorer::new`] refuses a bundle that cannot serve.
//! - A [`Scorer`] is immutable and can be shared; it shares nothing with a training.

pub mod bundle;
pub mod drift;
pub mod example;
pub mod explanation;
pub mod export;
pub mod features;
pub mod judge;
pub mod lightgbm;
mod random;
pub mod scorer;
pub mod training;
pub mod training_set;
pub mod trees;

pub use bundle::{BundleError, Lineage, ModelBundle, Origin};
pub use example::{
    Column, ColumnKind, Example, Label, ModelVersion, Probabilities, Seed, Value, ValueRef,
};
pub use explanation::{Contribution, Explanation};
pub use features::{
    CalendarFeature, CalendarPart, FittedPipeline, PipelineSpec, Scaling, SpecError, TimeUnit,
};
pub use judge::{Comparison, Predictions, Verdict};
pub use scorer::{Scorer, Scratch};
pub use training::{Calibration, Evaluation, Metric, Params, Recipe, Threshold, TrainingError};
pub use training_set::{DataPolicy, InitialPolicy, Retention, Sample, TrainingSet};
