//! The [`Broker`] port of foretell-streams over librdkafka, for Kafka and other brokers that speak its protocol. rdkafka is
//! not visible outside of this crate. Start with [`KafkaBroker::connect`]; `examples/word_count.rs` runs a topology.
//!
//! ```text
//!                          ┌─ join ───▶ member ── poll, assign ──▶ group ──▶ rebalance (callbacks)
//!                          │               │                         ├─────▶ start_offsets, positions
//!                          │               │                         └─────▶ partition_queues ──▶ message
//!                          ├─ read ───▶ reader ───────────────────────────▶ (one consumer)
//!                          ├─ follow ─▶ follower ─────────────────────────▶ (one consumer, a changing set of partitions)
//!   KafkaBroker ── config ─┤               │
//!                          │               └── send, commit ──▶ transaction ─┐
//!                          ├─ publish ─▶ publisher ──────────────────────────┴▶ producer ─▶ raw_produce
//!                          │                                                       └─▶ topic_limits ─┐
//!                          └─ create_topics, partitions ─▶ admin ◀───────────────────────────────────┘
//!
//!   batching: how long a member gathers records, by its guarantee and its commit interval
//!   token: the token for SASL/OAUTHBEARER, from its file
//!   logging: librdkafka's log lines and errors; the context of all clients
//!   examine: requests of `doctor`; unreachable: the reason why no broker can be reached
//!   error: the only place where a librdkafka code becomes a BrokerError, named after the recovery
//! ```

mod admin;
mod batching;
mod config;
mod deadline;
mod error;
mod examine;
mod follower;
mod group;
mod logging;
mod member;
mod message;
#[cfg(test)]
mod mock;
mod notify;
mod partition_list;
mod partition_queues;
mod positions;
mod producer;
mod publisher;
mod raw_produce;
mod reader;
mod rebalance;
mod record_limits;
mod start_offsets;
mod token;
mod topic_limits;
mod transaction;
mod unreachable;
mod watermarks;

use std::{fmt, sync::Arc};

pub use config::KafkaConfig;
pub use examine::{
    ClusterInfo, CommittedInfo, Examiner, GroupInfo, PartitionInfo, Settings, TopicInfo, Unanswered,
};
pub use unreachable::Unreachable;

use crate::{
    admin::Admin, follower::KafkaFollower, member::KafkaMember, publisher::KafkaPublisher,
    reader::KafkaReader,
};
use foretell_streams::{
    record::{Offset, Topic, TopicPartition},
    runtime::broker::{
        Broker, BrokerError, Follower, Isolation, Member, Membership, Publisher, ReadFrom, Reader,
        TopicSpec,
    },
    time::{Clock, SystemClock},
};

/// A connection to a Kafka-compatible cluster, which implements [`Broker`].
///
/// ```no_run
/// use std::sync::Arc;
/// use foretell_kafka::{KafkaBroker, KafkaConfig};
/// use foretell_streams::runtime::broker::Broker;
///
/// let config = KafkaConfig { bootstrap_servers: "localhost:9092".to_owned(), ..KafkaConfig::default() };
/// let broker: Arc<dyn Broker> = Arc::new(KafkaBroker::connect(&config)?);
/// # Ok::<(), foretell_streams::runtime::broker::BrokerError>(())
/// ```
pub struct KafkaBroker {
    config: KafkaConfig,
    admin: Arc<Admin>,
    clock: Arc<dyn Clock>,
}

impl KafkaBroker {
    /// Checks the settings, and waits up to about 10 s until a broker responds.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`], with the setting that is refused, or the reason why no broker can be reached, and what to do.
    pub fn connect(config: &KafkaConfig) -> Result<Self, BrokerError> {
        Self::reach(config).map_err(|unreachable| BrokerError::Fatal(unreachable.to_string()))
    }

    /// Like [`Self::connect`], with an error that separates the problem from its fix.
    ///
    /// # Errors
    /// [`Unreachable`] if a setting is refused, or no broker can be reached.
    pub fn reach(config: &KafkaConfig) -> Result<Self, Unreachable> {
        config.check().map_err(|error| Unreachable {
            detail: error.to_string(),
            fix: "correct it in [broker]".to_owned(),
        })?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let admin = Arc::new(Admin::connect(config, &clock)?);
        Ok(Self { config: config.clone(), admin, clock })
    }

    /// Returns an inspector of this cluster.
    #[must_use]
    pub fn examiner(&self) -> Examiner {
        Examiner::new(&self.config, &self.admin, &self.clock)
    }
}

impl fmt::Debug for KafkaBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaBroker").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Broker for KafkaBroker {
    fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError> {
        let member = KafkaMember::join(membership, &self.config, &self.admin, &self.clock)?;
        Ok(Box::new(member))
    }

    fn read(
        &self,
        source: &TopicPartition,
        from: ReadFrom,
    ) -> Result<Box<dyn Reader>, BrokerError> {
        Ok(Box::new(KafkaReader::open(source, from, &self.config, &self.admin, &self.clock)?))
    }

    fn read_changelog(
        &self,
        source: &TopicPartition,
        from: ReadFrom,
    ) -> Result<Box<dyn Reader>, BrokerError> {
        let reader = KafkaReader::open(source, from, &self.config, &self.admin, &self.clock)?;
        Ok(Box::new(reader.without_headers()))
    }

    fn follow(&self) -> Result<Box<dyn Follower>, BrokerError> {
        Ok(Box::new(KafkaFollower::new(&self.config, &self.clock)?))
    }

    fn publish(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        Ok(Box::new(KafkaPublisher::new(&self.config, &self.admin, &self.clock)?))
    }

    fn create_topics(&self, topics: &[TopicSpec]) -> Result<Vec<Topic>, BrokerError> {
        self.admin.create_topics(topics)
    }

    fn end(&self, source: &TopicPartition, isolation: Isolation) -> Result<Offset, BrokerError> {
        self.admin.end(source, isolation)
    }

    fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BrokerError> {
        self.admin.partitions(topic)
    }
}
