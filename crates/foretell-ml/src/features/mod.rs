//! The feature pipeline: a specification is fitted to examples, and the fitted pipeline is part of the model bundle.
//!
//! ```text
//!  PipelineSpec ──fit(sample)──▶ FittedPipeline ──transform(values)──▶ one f64 per feature
//!  columns, scaling, crosses,  + categories by frequency, scales      columns first, then crosses, then parts of
//!  calendar                                                           dates and times
//! ```
//!
//! [`FittedPipeline::transform`] never fails. It encodes a value as follows:
//!
//! | value | numeric column | categorical column |
//! |---|---|---|
//! | a number | scaled | the code of its text: `1.0` is `1` |
//! | a text | parsed as a number; if that fails, as missing | the code of the category; 0 is the most frequent |
//! | a text that is not in the training data | as above | n, the number of codes |
//! | missing, NaN, infinite | the median if training had no missing value, else NaN | n + 1 |
//! | absent from the row | as missing | as missing |
//!
//! A cross is the code of a pair of codes, those of unseen and missing categories included; an unseen pair has code n.
//!
//! Why the median: a LightGBM split without missing values in training takes NaN for 0, and an age of 0 is a worse guess
//! than the median. Why a code for missing categories: LightGBM sends NaN right at every split by category, so it cannot
//! learn from a missing answer (log loss on the Adult data's test split: .2732 with the code, .2739 with NaN). A code that
//! is in no split's set goes right everywhere, as LightGBM's rarest categories do.

mod calendar;
mod category;
mod columns;
mod fitted;
mod number;
mod spec;

pub use calendar::{CalendarFeature, CalendarPart, TimeUnit, civil};
pub use fitted::{FittedError, FittedPipeline, OutOfDistribution, number_in};
pub(crate) use fitted::{number_of, with_text};
pub use number::Scaling;
pub use spec::{COLUMNS_MAX, PipelineSpec, SpecError};
