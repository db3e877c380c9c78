//! What every instance tells the others, so that any of them can show the whole application.
//!
//! ```text
//!   counters, status ──▶ report, every 3 s ──▶ instances (topic) ──▶ table of every instance ─┐
//!        └── every second ──▶ own report ─────────────────────────────────────────────────────┴▶ application ─▶ dashboard
//!                                                                                                  └▶ history (15 min)
//! ```
//! Instances need not reach each other, for the reports go through the log, as questions about respondents do.

mod application;
mod history;
mod report;
mod table;

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value as Json};

pub use application::{Application, Latency, LiveNumbers, Rates, ShownInstance};
pub use history::{HISTORY_INTERVAL, HISTORY_POINTS_MAX, History};
pub use report::{Buckets, Counters, InstanceReport, RECENT_MAX, REPORT_BYTES_MAX, Recent, Sample};
pub use table::{InstanceTable, REPORT_INTERVAL};

/// Where an instance publishes what it knows about the application. Clones share the board.
#[derive(Clone, Debug, Default)]
pub struct ApplicationBoard(Arc<Mutex<Published>>);

#[derive(Debug, Default)]
struct Published {
    application: Option<Arc<Application>>,
    history: History,
}

impl ApplicationBoard {
    /// Replaces the application, and adds it to the history.
    pub fn publish(&self, application: Application) {
        let mut published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        published.history.add(&application.live);
        published.application = Some(Arc::new(application));
    }

    /// The application as of the last second; none before the first report.
    #[must_use]
    pub fn read(&self) -> Option<Arc<Application>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).application.clone()
    }

    /// The history by the name of the number, as lists of the same length, oldest first.
    #[must_use]
    pub fn history(&self) -> Map<String, Json> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).history.columns()
    }
}
