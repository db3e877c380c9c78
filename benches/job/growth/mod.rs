//! The job as it grows: partitions and threads, predictions that wait, respondents, stores on disk, and a restore.
//!
//! ```text
//!   in this process   pending    1,000 to 1,000,000 predictions wait: CPU and allocations an event, memory an entry
//!                     keys       10,000 to 10,000,000 respondents with a part of their answers: the same
//!   on a real Kafka   scale      1 and 4 partitions, 1 and 2 threads, each beside the bare loop
//!                     disk       stores on disk beside stores in memory
//!                     restore    the changelog of 1,000,000 predictions that wait, beside consuming it bare
//! ```
//! Prints progress to stderr and a table of ratios with their bounds, and writes `target/bench/growth.json`. A missed bound does
//! not fail the run. `FORETELL_BENCH_ONLY` limits it to one of these parts. `FORETELL_BENCH_EVENTS`, `_PENDING` and `_KEYS` change
//! its size.

pub(crate) mod entries;
mod on_kafka;
mod report;
mod respondents;
mod restore;
mod waiting;

use foretell_ml::ModelBundle;

use crate::{Settings, growth::report::Report, variable};

/// The largest sizes.
struct Sizes {
    /// Events of a backlog.
    events: usize,
    /// Predictions that wait.
    pending: usize,
    /// Respondents.
    keys: usize,
}

pub(crate) fn measure(settings: &Settings, model: &ModelBundle) -> anyhow::Result<()> {
    let sizes = Sizes {
        events: settings.events,
        pending: variable("PENDING", 1_000_000)?,
        keys: variable("KEYS", 10_000_000)?,
    };
    let mut report = Report::default();
    // Memory first, while the heap is empty.
    if settings.includes("pending") {
        report.pending(&waiting::measure(model, sizes.pending)?);
    }
    if settings.includes("keys") {
        report.keys(&respondents::measure(model, sizes.keys)?);
    }
    if settings.includes("restore") {
        report.restore(&restore::measure(model, sizes.pending)?);
    }
    if settings.includes("scale") {
        report.scale(&on_kafka::scale(model, sizes.events)?);
    }
    if settings.includes("disk") {
        report.disk(&on_kafka::disk(model, sizes.events)?);
    }
    report.finish()
}

#[expect(clippy::print_stderr, reason = "a run of minutes says how far it is")]
fn progress(text: &str) {
    eprintln!("{text}");
}
