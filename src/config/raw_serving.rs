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
    /// Maximum number of rows in a request, from 1 to 100000.
    pub rows_max: usize,
    /// Maximum size of the body of a request, in bytes: from 1024 to 104857600 (100 MiB). In memory it takes some ten times as much.
    /// Two requests of more than 16 KiB for each core are read at a time; others wait.
    pub body_bytes_max: usize,
    /// Whether each row is also written as an event, before it is scored. It needs the respondent's id then.
    pub journal: bool,
}

impl Default for ServingSettings {
    fn default() -> Self {
        Self { enabled: true, rows_max: 1000, body_bytes_max: 1 << 20, journal: false }
    }
}

/// A body of 6 MiB, the usual one of a batch transform, with rows of 60 bytes.
pub(super) const ROWS_MAX: usize = 100_000;
/// The bounds of the size of a body: a row of some questions, and the largest payload of a batch transform.
pub(super) const BODY_BYTES: std::ops::RangeInclusive<usize> = 1024..=100 << 20;
