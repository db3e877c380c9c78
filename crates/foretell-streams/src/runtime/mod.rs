//! Workers, standbys, and monitors of topics and of the lag: the threads that connect tasks to a broker, and the port to that broker.
//! [`GroupConsumer`] is for threads of an application that read a topic without a topology.
//!
//! Start with [`Worker`] and [`WorkerParts::new`].
//!
//! ```text
//!   worker ──▶ active_task ──▶ restore, backlog, quiet      topic_monitor, lag_monitor
//!   standby ─────────────────────▶ restore                       │
//!      └────────────▶ error, status, stop_signal ◀───────────────┘       all of them ──▶ broker, the port
//! ```

mod active_task;
mod backlog;
pub mod broker;
mod error;
mod from_topology;
mod group_consumer;
mod lag_monitor;
mod quiet;
mod restore;
mod standby;
mod status;
mod stop_signal;
mod topic_monitor;
mod worker;

pub use error::{Repartitioned, WorkerError};
pub use group_consumer::{GroupConsumer, Recovery};
pub use lag_monitor::LagMonitor;
pub use standby::{Standby, StandbyParts};
pub use status::{InputStatus, StatusBoard, TaskState, TaskStatus, WorkerStatus};
pub use stop_signal::StopSignal;
pub use topic_monitor::TopicMonitor;
#[cfg(test)]
pub(crate) use worker::recovery_history::RecoveryHistory;
pub use worker::{Worker, WorkerParts, WorkerSettings};
