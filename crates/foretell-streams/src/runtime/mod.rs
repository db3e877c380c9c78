//! Workers, standbys and topic monitors: the threads that connect tasks to a broker, and the port to that broker.
//!
//! Start with [`Worker`] and [`WorkerParts::new`].

mod active_task;
mod backlog;
pub mod broker;
mod from_topology;
mod quiet;
mod restore;
mod standby;
mod status;
mod topic_monitor;
mod worker;

pub use standby::{Standby, StandbyParts};
pub use status::{StatusBoard, TaskState, TaskStatus, WorkerStatus};
pub use topic_monitor::TopicMonitor;
pub use worker::{Repartitioned, StopSignal, Worker, WorkerError, WorkerParts, WorkerSettings};
