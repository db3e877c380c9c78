//! `[serving]` as written.

use serde::Deserialize;
#[cfg(test)]
use serde::Serialize;

/// Scoring over HTTP without the stream, by the protocols of MLflow, SageMaker and Open Inference: see
/// [Serving protocols](serving.md).
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct ServingSettings {
    /// Whether the protocols are served.
    pub enabled: bool,
    /// Maximum number of rows in a request, from 1 to 100000. A body is 1 MiB at most.
    pub rows_max: usize,
    /// Whether each row is also written as an event, before it is scored. It needs the respondent's id then.
    pub journal: bool,
}

impl Default for ServingSettings {
    fn default() -> Self {
        Self { enabled: true, rows_max: 1000, journal: false }
    }
}

/// Each row of a body of 1 MiB has 10 bytes at least.
pub(super) const ROWS_MAX: usize = 100_000;
