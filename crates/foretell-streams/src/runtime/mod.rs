//! Workers, standbys and topic monitors: the threads that connect tasks to a broker, and the port to that broker.
//!
//! Start with [`Worker`] and [`WorkerParts::new`].

mod backlog;
pub mod broker;
mod from_topology;
mod presence;
mod quiet;
mod restore;
mod slot;
mod standby;
mod status;
mod worker;

pub use presence::TopicWatch;
pub use standby::{Standby, StandbyParts};
pub use status::{StatusBoard, TaskState, TaskStatus, WorkerStatus};
pub use worker::{Repartitioned, StopSignal, Worker, WorkerError, WorkerParts, WorkerSettings};
