//! What a cluster says about itself, about our topics and groups, and about what we may: for `doctor`. It only
//! asks; the one thing that it leaves behind is the transactional id that it is told to try.

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
    admin::{ANSWER_WITHIN, Admin},
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

/// Settings by their names.
pub type Settings = BTreeMap<String, String>;

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The cluster's rules (ACLs) do not let us ask.
    #[error("we may not {operation} on {resource}")]
    Refused {
        /// As ACLs name it.
        operation: &'static str,
        /// As ACLs name it.
        resource: String,
    },
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// A cluster.
#[derive(Clone, Debug)]
pub struct ClusterInfo {
    /// Its own name for itself.
    pub id: Option<String>,
    /// The numbers of the brokers that are up.
    pub brokers: Vec<i32>,
    /// Every topic that we may see.
    pub topics: Vec<Topic>,
    /// The settings of one of the brokers.
    pub settings: Result<Settings, Unanswered>,
    /// The client that asked.
    pub librdkafka: String,
}

/// A topic.
#[derive(Clone, Debug)]
pub struct TopicInfo {
    /// By number.
    pub partitions: Vec<PartitionInfo>,
    /// Its settings.
    pub settings: Result<Settings, Unanswered>,
    /// Whether a record could be fetched, or there was none.
    pub readable: Result<(), Unanswered>,
}

/// Where one partition is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// On how many brokers.
    pub replicas: usize,
    /// On how many of them all of it.
    pub in_sync: usize,
    /// Whether one of them leads.
    pub has_leader: bool,
}

/// A consumer group.
#[derive(Clone, Debug)]
pub struct GroupInfo {
    /// Members now.
    pub members: usize,
    /// How far it is, one for each partition of its inputs.
    pub positions: Vec<CommittedInfo>,
}

/// How far a group is in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedInfo {
    /// Which.
    pub source: TopicPartition,
    /// The next record to read, if any was ever committed.
    pub committed: Option<i64>,
    /// The oldest record that is kept.
    pub first: i64,
    /// After the newest one.
    pub end: i64,
}

/// Asks one cluster.
pub struct Examiner {
    config: KafkaConfig,
    admin: Arc<Admin>,
    clock: Arc<dyn Clock>,
}

impl Examiner {
    pub(crate) fn new(config: &KafkaConfig, admin: &Arc<Admin>, clock: &Arc<dyn Clock>) -> Self {
        Self { config: config.clone(), admin: Arc::clone(admin), clock: Arc::clone(clock) }
    }

    /// The cluster.
    ///
    /// # Errors
    /// [`Unanswered`]
    pub fn cluster(&self) -> Result<ClusterInfo, Unanswered> {
        let doing = Asked { what: "ask for metadata", operation: "DESCRIBE", of: "Cluster" };
        let metadata = self.admin.metadata(None).map_err(|error| doing.unanswered(&error))?;
        let brokers: Vec<i32> = metadata.brokers().iter().map(|broker| broker.id()).collect();
        let one = brokers.first().copied().unwrap_or_default();
        let doing =
            Asked { what: "ask for a broker's settings", operation: "DESCRIBE_CONFIGS", ..doing };
        let settings = self.admin.settings_of(&ResourceSpecifier::Broker(one));
        Ok(ClusterInfo {
            id: self.admin.cluster_id(),
            brokers,
            topics: metadata.topics().iter().map(|topic| Topic::new(topic.name())).collect(),
            settings: settings.map_err(|error| doing.unanswered(&error)),
            librdkafka: rdkafka::util::get_rdkafka_version().1,
        })
    }

    /// A topic; none if there is none of this name.
    ///
    /// # Errors
    /// [`Unanswered`]
    pub fn topic(&self, topic: &Topic) -> Result<Option<TopicInfo>, Unanswered> {
        let of = format!("Topic {topic}");
        let doing = Asked { what: "look at it", operation: "DESCRIBE", of: &of };
        let metadata =
            self.admin.metadata(Some(topic)).map_err(|error| doing.unanswered(&error))?;
        let named = |seen: &&MetadataTopic| seen.name() == topic.as_str();
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
            Asked { what: "ask for its settings", operation: "DESCRIBE_CONFIGS", of: &of };
        let settings = self.admin.settings_of(&ResourceSpecifier::Topic(topic.as_str()));
        let read = Asked { what: "read it", operation: "READ", of: &of };
        Ok(Some(TopicInfo {
            partitions: partitions.collect(),
            settings: settings.map_err(|error| described.unanswered(&error)),
            readable: self.try_reading(topic).map_err(|error| read.unanswered(&error)),
        }))
    }

    /// One fetch from the end of the first partition, where nothing is to come.
    fn try_reading(&self, topic: &Topic) -> KafkaResult<()> {
        let config = self.config.reader();
        let consumer: BaseConsumer<LogOnly> = config.create_with_context(LogOnly)?;
        let read = token::install(consumer.client(), &config)
            .and_then(|()| fetch(&consumer, topic, &Deadline::within(ANSWER_WITHIN, &self.clock)));
        self.close(consumer);
        read
    }

    /// How far a group is in `topics`. Asking makes no group of it.
    ///
    /// # Errors
    /// [`Unanswered`]
    pub fn group(&self, group: &str, topics: &[Topic]) -> Result<GroupInfo, Unanswered> {
        let of = format!("Group {group}");
        let doing = Asked { what: "ask how far it is", operation: "DESCRIBE", of: &of };
        let mut config = self.config.reader();
        config.set("group.id", group);
        let consumer: BaseConsumer<LogOnly> =
            config.create_with_context(LogOnly).map_err(|error| doing.unanswered(&error))?;
        let seen = token::install(consumer.client(), &config)
            .and_then(|()| self.positions(&consumer, group, topics))
            .map_err(|error| doing.unanswered(&error));
        self.close(consumer);
        seen
    }

    fn positions(
        &self,
        consumer: &BaseConsumer<LogOnly>,
        group: &str,
        topics: &[Topic],
    ) -> KafkaResult<GroupInfo> {
        let mut asked = TopicPartitionList::new();
        for topic in topics {
            let metadata = self.admin.metadata(Some(topic))?;
            let found = metadata.topics().iter().find(|seen| seen.name() == topic.as_str());
            for partition in found.map_or(&[][..], |found| found.partitions()) {
                asked.add_partition(topic.as_str(), partition.id());
            }
        }
        let listed = consumer.fetch_group_list(Some(group), ANSWER_WITHIN)?;
        let members = listed.groups().iter().find(|found| found.name() == group);
        let mut positions = Vec::new();
        for element in consumer.committed_offsets(asked, ANSWER_WITHIN)?.elements() {
            element.error()?;
            let (topic, number) = (element.topic(), element.partition());
            let (first, end) = consumer.fetch_watermarks(topic, number, ANSWER_WITHIN)?;
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

    /// Whether a member of a group may begin transactions, as its producer starts within `within`. It begins
    /// none.
    ///
    /// # Errors
    /// [`Unanswered`]
    pub fn transactions(
        &self,
        group: &str,
        member: &str,
        within: Duration,
    ) -> Result<(), Unanswered> {
        let of = format!("TransactionalId {group}-{member}");
        let doing = Asked { what: "start transactions", operation: "WRITE", of: &of };
        let membership = Membership {
            group: group.to_owned(),
            member: member.to_owned(),
            lead: Topic::new(group),
            co_partitioned: Vec::new(),
            guarantee: ProcessingGuarantee::ExactlyOnce,
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
            tracing::warn!(%error, "a consumer was not closed");
        }
    }
}

fn fetch(consumer: &BaseConsumer<LogOnly>, topic: &Topic, deadline: &Deadline) -> KafkaResult<()> {
    let (_, end) = consumer.fetch_watermarks(topic.as_str(), 0, ANSWER_WITHIN)?;
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

/// A question, and what the cluster's rules must allow for it.
struct Asked<'a> {
    what: &'static str,
    operation: &'static str,
    of: &'a str,
}

impl Asked<'_> {
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
            Some(code) => Unanswered::Failed(format!("cannot {}: {code}", self.what)),
            None => Unanswered::Failed(format!("cannot {}: {error}", self.what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_reported_from_failures() {
        let asked = Asked { what: "read it", operation: "READ", of: "Topic models" };
        let check = |code, expected: &str| {
            let found = asked.unanswered(&KafkaError::MessageConsumption(code)).to_string();
            assert!(found.contains(expected), "{expected} in {found}");
        };
        check(Code::TopicAuthorizationFailed, "we may not READ on Topic models");
        check(Code::GroupAuthorizationFailed, "we may not");
        check(Code::OperationTimedOut, "cannot read it: ");
    }
}
