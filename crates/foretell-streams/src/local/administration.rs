//! Operations of an administrator on topics that are in use.

use crate::{
    local::{LocalBroker, cluster::Cluster},
    record::{Offset, Topic, TopicPartition},
};

/// Operations that the [`Broker`](crate::runtime::broker::Broker) port does not have, for tests.
impl LocalBroker {
    /// Deletes a topic and creates it again, empty. The records of open transactions in it and the committed offsets of
    /// all groups for it are removed too, as in Kafka.
    pub fn recreate_topic(&self, topic: &Topic) {
        self.with(|cluster, _| cluster.recreate_topic(topic));
    }

    /// Raises the number of partitions of a topic to `partitions`. Does nothing if the topic has as many.
    pub fn add_partitions(&self, topic: &Topic, partitions: u32) {
        self.with(|cluster, _| cluster.add_partitions(topic, partitions));
    }

    /// Deletes the records of a partition before an offset, as retention does, but at most up to the last stable offset. Does
    /// nothing if the partition does not exist.
    pub fn delete_records(&self, partition: &TopicPartition, before: Offset) {
        self.with(|cluster, _| cluster.delete_records(partition, before));
    }

    /// The committed offset of a group for a partition, or `None` if the group has not committed one.
    #[must_use]
    pub fn committed(&self, group: &str, source: &TopicPartition) -> Option<Offset> {
        self.with(|cluster, _| cluster.committed(group, source))
    }

    /// The memory that all logs take, in bytes.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.with(|cluster, _| cluster.log_bytes())
    }
}

impl Cluster {
    pub(crate) fn recreate_topic(&mut self, topic: &Topic) {
        self.producers.remove_topic(topic);
        for subscription in self.groups.values_mut() {
            subscription.remove_topic(topic);
        }
        self.topics.recreate_topic(topic);
        self.changes += 1;
    }

    pub(crate) fn add_partitions(&mut self, topic: &Topic, partitions: u32) {
        self.topics.add_partitions(topic, partitions);
    }

    pub(crate) fn delete_records(&mut self, partition: &TopicPartition, before: Offset) {
        self.topics.delete_records(partition, before);
        self.changes += 1;
    }
}
