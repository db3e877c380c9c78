//! What drives tasks: the way out to a broker, and the workers.

mod backlog;
pub mod broker;
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
