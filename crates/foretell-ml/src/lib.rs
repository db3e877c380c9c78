//! Learning and scoring, as pure functions: no streams, no clock, no I/O, and no word about any one data set.
//!
//! ```text
//!            examples ──┬──▶ training::tune ──▶ Params
//!  (values + label)     │                         │
//!                       └──▶ training::train ◀────┘      lightgbm: the C library, training only
//!                                  │
//!                                  ▼
//!                             ModelBundle ◀──▶ bytes     bundle: pipeline + trees + threshold + lineage + evaluation,
//!                                  │                     named by its content
//!                                  ▼
//!        values ──────────────▶ Scorer ──▶ Probabilities ──▶ Label
//!                               features: answers → numbers;   trees: numbers → probabilities, in Rust
//! ```
//!
//! What a caller may rely on:
//! - **the same input gives the same bytes**: examples, recipe and seed decide a bundle, on any number of threads;
//! - **scoring never fails**: any values give probabilities; what cannot serve is refused by [`Scorer::new`];
//! - a [`Scorer`] is immutable and shared; nothing scores with what a training holds.

pub mod bundle;
pub mod example;
pub mod features;
pub mod lightgbm;
pub mod scorer;
pub mod training;
pub mod trees;

pub use bundle::{BundleError, Lineage, ModelBundle, Origin};
pub use example::{Column, ColumnKind, Example, Label, ModelVersion, Probabilities, Seed, Value};
pub use features::{
    CalendarFeature, CalendarPart, FittedPipeline, PipelineSpec, Scaling, SpecError, TimeUnit,
};
pub use scorer::{Scorer, Scratch};
pub use training::{Evaluation, Params, Recipe, TrainingError};
