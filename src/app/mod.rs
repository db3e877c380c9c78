//! The composition root: connects the ports of the layers below to their implementations, and starts and stops an instance.

pub mod check_result;
pub mod cluster;
mod counted;
pub mod deliver;
pub mod demo;
pub mod doctor;
mod first_training;
pub mod generate;
mod http_server;
pub mod init;
mod initial;
mod instances;
mod learning;
pub mod library;
#[cfg(test)]
mod meaning;
mod models;
pub mod new;
pub mod open_files;
pub mod play;
pub mod plot;
pub mod replay;
#[cfg(test)]
mod respondents;
mod returning;
pub mod schemas;
pub mod send;
pub mod serve;
pub mod shutdown;
pub mod start;
pub mod table;
mod table_columns;
pub mod telemetry;
mod timed_outcomes;
pub mod times;
mod topic_changes;
mod topologies;
pub mod train;
pub mod tune;

use std::sync::Arc;

use foretell_streams::time::{Clock, SystemClock};

/// The machine's clock, from which every part of a process takes its time.
#[must_use]
pub fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}
