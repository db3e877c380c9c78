//! Drift and live quality: what a served model is given, and how good its predictions are.
//!
//! ```text
//!  training:  Sample ───▶ Profile (bins of every column and of the scores) ───▶ part of the bundle
//!                                                  │
//!  live:      values, scores ──▶ LiveCounts ───────┴──▶ psi: of each column and of the scores
//!                                    └────────────────▶ Estimate: metrics before labels arrive
//!             scores, labels ──▶ Progressive ─────────▶ LiveMetrics: metrics by test-then-train
//! ```
//!
//! [`LiveCounts`] and [`Progressive`] have a size that does not depend on the number of predictions, and can be merged, so
//! that several tasks count and one sums up.

mod counts;
mod distribution;
mod estimate;
mod histogram;
mod profile;
mod progressive;
mod stability;

pub use counts::LiveCounts;
pub use distribution::Distribution;
pub use estimate::Estimate;
pub use histogram::ScoreHistogram;
pub use profile::{
    Baseline, ColumnBaseline, PROFILE_ROWS_MAX, Profile, ProfileError, ScoreBaseline,
};
pub use progressive::{CalibrationPoint, LiveMetrics, Progressive};
pub use stability::psi;
