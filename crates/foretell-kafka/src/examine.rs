//! Inspects a cluster, its topics and groups, and the client's permissions; for `doctor`. It changes nothing, except that it
//! registers the transactional id that it is asked to test.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    Offset as Position, TopicPartitionList,
    admin::ResourceSpecifier,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    metadata::MetadataTopic,
    producer::Producer,
    types::RDKafkaErrorCode as Code,
};

use crate::{
    admin::{Admin, REQUEST_TIMEOUT},
    config::KafkaConfig,
    deadline::{Deadline, pause},
    logging::LogOnly,
    producer::RecordProducer,
    rebalance, token,
    transaction::is_retriable,
};
use foretell_streams::{
    record::{Partition, Topic, TopicPartition},
    runtime::broker::{Membership, ProcessingGuarantee},
    time::Clock,
};

/// Kafka's settings by name.
pub type Settings = BTreeMap<String, String>;

/// Reasons why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The cluster's ACLs do not allow the request.
    #[error("not allowed to {operation} on {resource}")]
    Refused {
        /// Missing operation, as ACLs name it: `DESCRIBE`.
        operation: &'static str,
        /// Resource, as ACLs name it: `Topic models`.
        resource: String,
    },
    /// Any other failure, as a message.
    #[error("{0}")]
    Failed(String),
}

/// State of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterInfo {
    /// Id of the cluster, if it has one.
    pub id: Option<String>,
    /// Ids of the brokers that are up.
    pub brokers: Vec<i32>,
    /// Topics that the client is allowed to see.
    pub topics: Vec<Topic>,
    /// Settings of one of the brokers.
    pub settings: Result<Settings, Unanswered>,
    /// Version of librdkafka.
    pub librdkafka: String,
}

/// State of a topic.
#[derive(Clone, Debug)]
pub struct TopicInfo {
    /// Partitions, by number.
    pub partitions: Vec<PartitionInfo>,
    /// Settings of the topic.
    pub settings: Result<Settings, Unanswered>,
    /// Whether the first partition can be fetched from.
    pub readable: Result<(), Unanswered>,
}

/// Replication of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Number of replicas.
    pub replicas: usize,
    /// Number of in-sync replicas.
    pub in_sync: usize,
    /// Whether the partition has a leader.
    pub has_leader: bool,
}

/// State of a consumer group.
#[derive(Clone, Debug)]
pub struct GroupInfo {
    /// Current number of members.
    pub members: usize,
    /// Committed offset of each partition of its inputs.
    pub positions: Vec<CommittedInfo>,
}

/// Committed offset of a group in a partition, with the offsets that the partition has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedInfo {
    /// The partition.
    pub source: TopicPartition,
    /// Offset of the next record to read; `None` if none was ever committed.
    pub committed: Option<i64>,
    /// Offset of the oldest record.
    pub first: i64,
    /// Offset after the newest record.
    pub end: i64,
}

/// Inspects one cluster. Each request takes up to 10 s.
pub struct Examiner {
    config: KafkaConfig,
    admin: Arc<Admin>,
    clock: Arc<dyn Clock>,
}

impl Examiner {
    pub(crate) fn new(config: &KafkaConfig, admin: &Arc<Admin>, clock: &Arc<dyn Clock>) -> Self {
        Self { config: config.clone(), admin: Arc::clone(admin), clock: Arc::clone(clock) }
    }

    /// State of the cluster.
    ///
    /// # Errors
    /// [`Unanswered`] if its metadata cannot be read.
    pub fn cluster(&self) -> Result<ClusterInfo, Unanswered> {
        let doing = Request { action: "read the metadata", operation: "DESCRIBE", of: "Cluster" };
        let metadata = self.admin.metadata(None).map_err(|error| doing.unanswered(&error))?;
        let brokers: Vec<i32> = metadata.brokers().iter().map(|broker| broker.id()).collect();
        let one = brokers.first().copied().unwrap_or_default();
        let doing = Request {
            action: "read the settings of a broker",
            operation: "DESCRIBE_CONFIGS",
            ..doing
        };
        let settings = self.admin.settings_of(&ResourceSpecifier::Broker(one));
        Ok(ClusterInfo {
            id: self.admin.cluster_id(),
            brokers,
            topics: metadata.topics().iter().map(|topic| Topic::new(topic.name())).collect(),
            settings: settings.map_err(|error| doing.unanswered(&error)),
            librdkafka: rdkafka::util::get_rdkafka_version().1,
        })
    }

    /// State of a topic; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Unanswered`] if its metadata cannot be read.
    pub fn topic(&self, topic: &Topic) -> Result<Option<TopicInfo>, Unanswered> {
        let of = format!("Topic {topic}");
        let doing = Request { action: "read its metadata", operation: "DESCRIBE", of: &of };
        let metadata =
            self.admin.metadata(Some(topic)).map_err(|error| doing.unanswered(&error))?;
        let named = |found: &&MetadataTopic| found.name() == topic.as_str();
        let Some(found) = metadata.topics().iter().find(named) else { return Ok(None) };
        if let Some(error) = found.error() {
            let code = Code::from(error);
            if matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic) {
                return Ok(None);
            }
            return Err(doing.unanswered(&KafkaError::MetadataFetch(code)));
        }
        let partitions = found.partitions().iter().map(|partition| PartitionInfo {
            replicas: partition.replicas().len(),
            in_sync: partition.isr().len(),
            has_leader: partition.leader() >= 0,
        });
        let described =
            Request { action: "read its settings", operation: "DESCRIBE_CONFIGS", of: &of };
        let settings = self.admin.settings_of(&ResourceSpecifier::Topic(topic.as_str()));
        let read = Request { action: "read it", operation: "READ", of: &of };
        Ok(Some(TopicInfo {
            partitions: partitions.collect(),
            settings: settings.map_err(|error| described.unanswered(&error)),
            readable: self.try_reading(topic).map_err(|error| read.unanswered(&error)),
        }))
    }

    /// Fetches once from the end of the first partition, where no records are expected.
    fn try_reading(&self, topic: &Topic) -> KafkaResult<()> {
        let config = self.config.reader();
        let consumer: BaseConsumer<LogOnly> = config.create_with_context(LogOnly::default())?;
        let read = token::install(consumer.client(), &config).and_then(|()| {
            fetch(&consumer, topic, &Deadline::within(REQUEST_TIMEOUT, &self.clock))
        });
        self.close(consumer);
        read
    }

    /// State of a group with its offsets in `topics`. This does not create the group.
    ///
    /// # Errors
    /// [`Unanswered`] if its members or offsets cannot be read.
    pub fn group(&self, group: &str, topics: &[Topic]) -> Result<GroupInfo, Unanswered> {
        let of = format!("Group {group}");
        let doing =
            Request { action: "read its members and offsets", operation: "DESCRIBE", of: &of };
        let mut config = self.config.reader();
        config.set("group.id", group);
        let consumer: BaseConsumer<LogOnly> = config
            .create_with_context(LogOnly::default())
            .map_err(|error| doing.unanswered(&error))?;
        let info = token::install(consumer.client(), &config)
            .and_then(|()| self.positions(&consumer, group, topics))
            .map_err(|error| doing.unanswered(&error));
        self.close(consumer);
        info
    }

    fn positions(
        &self,
        consumer: &BaseConsumer<LogOnly>,
        group: &str,
        topics: &[Topic],
    ) -> KafkaResult<GroupInfo> {
        let mut partitions = TopicPartitionList::new();
        for topic in topics {
            let metadata = self.admin.metadata(Some(topic))?;
            let found = metadata.topics().iter().find(|found| found.name() == topic.as_str());
            for partition in found.map_or(&[][..], |found| found.partitions()) {
                partitions.add_partition(topic.as_str(), partition.id());
            }
        }
        let listed = consumer.fetch_group_list(Some(group), REQUEST_TIMEOUT)?;
        let members = listed.groups().iter().find(|found| found.name() == group);
        let mut positions = Vec::new();
        for element in consumer.committed_offsets(partitions, REQUEST_TIMEOUT)?.elements() {
            element.error()?;
            let (topic, number) = (element.topic(), element.partition());
            let (first, end) = consumer.fetch_watermarks(topic, number, REQUEST_TIMEOUT)?;
            let committed = match element.offset() {
                Position::Offset(offset) => Some(offset),
                Position::Beginning
                | Position::End
                | Position::Stored
                | Position::Invalid
                | Position::OffsetTail(_) => None,
            };
            let source = TopicPartition { topic: Topic::new(topic), partition: Partition(number) };
            positions.push(CommittedInfo { source, committed, first, end });
        }
        Ok(GroupInfo { members: members.map_or(0, |found| found.members().len()), positions })
    }

    /// Checks that a member of a group is allowed to use transactions, by initialising its producer within the time limit
    /// `within`. No transaction is begun.
    ///
    /// # Errors
    /// [`Unanswered`] if the producer cannot be initialised.
    pub fn transactions(
        &self,
        group: &str,
        member: &str,
        within: Duration,
    ) -> Result<(), Unanswered> {
        let of = format!("TransactionalId {group}-{member}");
        let doing = Request { action: "start transactions", operation: "WRITE", of: &of };
        let membership = Membership {
            group: group.to_owned(),
            member: member.to_owned(),
            lead: Topic::new(group),
            co_partitioned: Vec::new(),
            guarantee: ProcessingGuarantee::ExactlyOnce,
            commit_interval: Membership::COMMIT_INTERVAL,
        };
        let config = self.config.transactional_producer(&membership);
        let producer = RecordProducer::new(&config, &self.admin, &self.clock)
            .map_err(|error| Unanswered::Failed(error.to_string()))?;
        let deadline = Deadline::within(within, &self.clock);
        loop {
            let step = deadline.remaining().min(Duration::from_secs(1));
            let Err(error) = producer.client().init_transactions(step) else { return Ok(()) };
            producer.serve();
            if deadline.passed() || !is_retriable(&error) {
                return Err(doing.unanswered(&error));
            }
            pause();
        }
    }

    fn close(&self, consumer: BaseConsumer<LogOnly>) {
        if let Err(error) = rebalance::close(consumer, &self.clock) {
            tracing::warn!(%error, "cannot close a consumer");
        }
    }
}

fn fetch(consumer: &BaseConsumer<LogOnly>, topic: &Topic, deadline: &Deadline) -> KafkaResult<()> {
    let (_, end) = consumer.fetch_watermarks(topic.as_str(), 0, REQUEST_TIMEOUT)?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic.as_str(), 0, Position::Offset(end))?;
    consumer.assign(&assignment)?;
    while !deadline.passed() {
        match consumer.poll(deadline.remaining()) {
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    Err(KafkaError::MessageConsumption(Code::OperationTimedOut))
}

/// A request, with the ACL that it needs.
struct Request<'a> {
    action: &'static str,
    operation: &'static str,
    of: &'a str,
}

impl Request<'_> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "of 180 codes these are refusals")]
    fn unanswered(&self, error: &KafkaError) -> Unanswered {
        let code = match error {
            KafkaError::Transaction(error) => Some(error.code()),
            other => other.rdkafka_error_code(),
        };
        match code {
            Some(
                Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed,
            ) => Unanswered::Refused { operation: self.operation, resource: self.of.to_owned() },
            Some(code) => Unanswered::Failed(format!("cannot {}: {code}", self.action)),
            None => Unanswered::Failed(format!("cannot {}: {error}", self.action)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_distinguished_from_failures() {
        let request = Request { action: "read it", operation: "READ", of: "Topic models" };
        let check = |code, expected: &str| {
            let found = request.unanswered(&KafkaError::MessageConsumption(code)).to_string();
            assert!(found.contains(expected), "{expected} in {found}");
        };
        check(Code::TopicAuthorizationFailed, "not allowed to READ on Topic models");
        check(Code::GroupAuthorizationFailed, "not allowed to");
        check(Code::OperationTimedOut, "cannot read it: ");
    }
}
