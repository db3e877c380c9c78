//! Running without Kafka: [`LocalBroker`], a broker in this process with the semantics of Kafka as far as the port in
//! [`crate::runtime::broker`] exposes them, and [`TopologyDriver`], which drives one task from a test. Nothing is
//! written to disk or sent over the network.
//!
//! ```text
//!   Broker  Member  Reader  Publisher    the port
//!      └──────┬┴───────┴────────┘
//!         LocalBroker (client.rs)        a lock, a condition variable, the clock
//!             ▼
//!          Cluster (cluster/)            every operation: no lock, no waiting; time is an argument
//!     ┌───────┼────────────┬─────────────┐
//!   Topics  Subscription  Producers   Session
//!     │     offsets       epochs and  positions of a member;
//!    Log      │           open trans- dropped with the member,
//!           Group         actions     as after a crash
//!           task ownership
//! ```
//!
//! Deliberately like Kafka, where applications tend to get it wrong:
//! - the end of a transaction takes an offset, and so do aborted and compacted records: offsets have gaps;
//! - an open transaction holds back every later record of its partitions (the last stable offset) until it
//!   ends or times out; expelling its member from the group does not end it;
//! - a task goes to its new owner only after the old owner has answered, left, or was expelled;
//! - group and member name make up the transactional id: a member that joins fences the earlier one of that name;
//! - records come together with a rebalance, and one batch comes after a pause: both were fetched before. So no record that
//!   was written after the pause comes until the input is resumed, and none at all after an abort;
//! - a reader that must not wait may report once more that it is at the end, without looking for new records;
//! - a position before the oldest record or after the newest one is `OutOfRange`, never moved silently;
//! - a member that is dropped without `leave` has crashed: the group expels it when its session times out.
//!
//! Stricter than Kafka: a commit is refused for partitions that the member does not own, not only when
//! its generation is old; every poll announces a rebalance until it is answered, and the answer must name exactly the
//! announced tasks; at least once, a member name is fenced as well, except for what the member sends.
//!
//! More lenient than Kafka: the tasks of a fenced member are free at once; a transaction that timed out is reported
//! as `Abort`; a member that polls and owns what it commits gets no `Abort` because of another member's rebalance.
//! All records are in memory ([`LocalSettings::log_bytes_max`]).

mod administration;
mod client;
mod cluster;
mod driver;
mod group;
mod log;
mod now;
#[cfg(test)]
mod port_contract;
mod session;
mod settings;
mod subscription;
mod topics;
mod transaction;

#[cfg(test)]
pub(crate) use crate::local::client::LocalMember;
pub use crate::local::{client::LocalBroker, driver::TopologyDriver, settings::LocalSettings};
