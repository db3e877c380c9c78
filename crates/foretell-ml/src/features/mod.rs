//! From answers to numbers: a specification is fitted to examples, and what it learned travels with the model.
//!
//! ```text
//!  PipelineSpec ──fit(rows)──▶ FittedPipeline ──transform(values)──▶ one f64 a feature
//!  columns, scaling, crosses,  + categories by frequency, scales      columns first, then crosses, then parts of
//!  calendar                                                           dates and times
//! ```
//!
//! Nothing that can be answered makes [`FittedPipeline::transform`] fail:
//!
//! | the value | in a numeric column | in a categorical column |
//! |---|---|---|
//! | a number | scaled | the category of its text: `1.0` is `1` |
//! | a text | the number it spells, or else missing | its code: 0 is the most frequent one |
//! | a text never seen | | the code after the last |
//! | missing, NaN, infinite | NaN, or the median if nothing was missing in training | the code after that |
//! | no such column in the row | as missing | as missing |
//!
//! A cross is the code of the pair of two codes, whatever they mean; of a pair never seen, the code after the last.
//!
//! The median, because LightGBM takes a missing number for a 0 wherever it saw none in training, and an age of 0
//! is a worse guess than the median. A code for the missing category, because LightGBM sends NaN right at every
//! split by category and so cannot learn what a missing answer says (on the Adult data's test split: log loss .2732 with the code,
//! .2739 with NaN). A code that no split knows goes right at each of them, as LightGBM's rarest categories do.

mod calendar;
mod category;
mod fitted;
mod number;
mod spec;

pub use calendar::{CalendarFeature, CalendarPart, TimeUnit, civil};
pub use fitted::{FittedError, FittedPipeline, OutOfDistribution, number_in};
pub use number::Scaling;
pub use spec::{COLUMNS_MAX, PipelineSpec, SpecError};
