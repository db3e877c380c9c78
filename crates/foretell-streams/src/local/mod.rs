//! Running without a Kafka: [`LocalBroker`], a broker in this process with Kafka's semantics as far as the port in
//! [`crate::runtime::broker`] shows them, and [`TopologyDriver`], which drives one task by hand. Nothing is written to
//! disk or sent over the wire.
//!
//! ```text
//!   Broker  Member  Reader  Publisher    the port
//!      └──────┬┴───────┴────────┘
//!         LocalBroker (client.rs)        a lock, a condition to wait on, the clock
//!             ▼
//!          Cluster (cluster.rs)          every operation: no lock, no waiting; time is an argument
//!     ┌───────┼────────────┬─────────────┐
//!   Topics  Subscription  Producers   Session
//!     │     offsets       epochs and  what a member reads,
//!    Log      │           open trans- and how far it is
//!           Group         actions     (it goes when the member goes: a crash)
//!           who owns which task
//! ```
//!
//! Where it is like Kafka on purpose, since code gets it wrong otherwise:
//! - the end of a transaction takes an offset, and so do aborted and compacted records: offsets have holes;
//! - an open transaction holds back every later record of its partitions (the last stable offset), until it
//!   ends or times out; being expelled from the group does not end it;
//! - a task goes to its new owner only after the old one answered, left, or was expelled;
//! - group and member name make the transactional id: the next to join with them fences the last;
//! - records come together with a rebalance, and once more after a pause: what was on its way already;
//! - a reader that is not to wait tells the end that it has told before without a look at what has come since;
//! - a position before the oldest record, or after the newest, is `OutOfRange`, never silently moved;
//! - a member that is dropped without `leave` has crashed: the group finds out when its session is over.
//!
//! Where it is stricter: a commit is refused for partitions that the member does not own, not only when
//! its generation is old; a rebalance is announced by every poll until it is
//! answered, and exactly as announced; at least once, too, a name is fenced, but for what it sends.
//!
//! Where it is milder: what a fenced member owned is free at once; a transaction that timed out is told as
//! `Abort`; who polls and owns what it commits sees no `Abort` because of somebody else's rebalance.
//! It keeps everything in memory ([`LocalSettings::log_bytes_max`]).

mod administration;
mod client;
pub mod cluster;
mod driver;
mod group;
mod log;
mod session;
mod subscription;
mod topics;
mod transaction;

use std::time::Duration;

#[cfg(test)]
pub(crate) use crate::local::client::LocalMember;
pub use crate::local::{
    client::LocalBroker,
    cluster::Cluster,
    driver::TopologyDriver,
    session::{Cursor, Session},
};

/// Time-outs and limits of a [`LocalBroker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSettings {
    /// A member that has not polled for so long is expelled.
    pub session_timeout: Duration,
    /// A transaction that is open for so long is aborted. Shorter than a session, so that an
    /// expelled member's has ended when its tasks are read by others.
    pub transaction_timeout: Duration,
    /// The memory of all logs, in bytes. Beyond it, topics with a finite retention lose their oldest
    /// records; what must be kept is kept, and sending fails when it is full.
    pub log_bytes_max: u64,
    /// A log is compacted when more than half of it is new, and at least so many bytes are.
    pub compaction_bytes_min: u64,
    /// How many records one poll or read gives at most.
    pub batch_records_max: usize,
    /// How long readers can see that a key was deleted (`delete.retention.ms`).
    pub tombstone_retention: Duration,
}

impl Default for LocalSettings {
    fn default() -> Self {
        Self {
            session_timeout: Duration::from_secs(45),
            transaction_timeout: Duration::from_secs(10),
            log_bytes_max: 256 * 1024 * 1024,
            compaction_bytes_min: 1024 * 1024,
            batch_records_max: 1000,
            tombstone_retention: Duration::from_secs(3600),
        }
    }
}
