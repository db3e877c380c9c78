//! What somebody else does to topics, as an operator can: deletes them, cuts them off, sets them otherwise.

use foretell_streams::record::{Offset, Topic, TopicPartition};
use rdkafka::{
    ClientConfig, Offset as Position, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier},
    client::DefaultClientContext,
};
use tokio::runtime::Runtime;

use crate::{application::brokers, process::SOON};

/// Somebody with all rights on the cluster of `FORETELL_TEST_BROKERS`.
pub(crate) struct Operator {
    client: AdminClient<DefaultClientContext>,
    runtime: Runtime,
}

impl Operator {
    pub(crate) fn new() -> Self {
        let client = ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { client, runtime }
    }

    /// Deletes a topic, and waits until it is gone.
    pub(crate) fn delete(&self, topic: &Topic) {
        let answer =
            self.runtime.block_on(self.client.delete_topics(&[topic.as_str()], &options()));
        done(answer.unwrap().into_iter().map(|one| one.map(drop)));
    }

    /// Deletes what is before `start`, as retention does. Kafka does it only where the topic's policy is to delete.
    pub(crate) fn trim(&self, partition: &TopicPartition, start: Offset) {
        let mut list = TopicPartitionList::new();
        let (topic, number) = (partition.topic.as_str(), partition.partition.0);
        list.add_partition_offset(topic, number, Position::Offset(start.0)).unwrap();
        let trimmed = self.runtime.block_on(self.client.delete_records(&list, &options())).unwrap();
        trimmed.elements().iter().for_each(|element| element.error().unwrap());
    }

    /// Adds partitions to a topic, until it has so many.
    pub(crate) fn add_partitions(&self, topic: &Topic, partitions: usize) {
        let grown = NewPartitions::new(topic.as_str(), partitions);
        let answer = self.runtime.block_on(self.client.create_partitions([&grown], &options()));
        done(answer.unwrap().into_iter().map(|one| one.map(drop)));
    }

    /// These settings of a topic and no others.
    pub(crate) fn set(&self, topic: &Topic, settings: &[(&str, &str)]) {
        let all = AlterConfig::new(ResourceSpecifier::Topic(topic.as_str()));
        let all = settings.iter().fold(all, |all, (name, value)| all.set(name, value));
        let answer = self.runtime.block_on(self.client.alter_configs([&all], &options()));
        done(answer.unwrap().into_iter().map(|one| one.map(drop).map_err(|(_, code)| code)));
    }
}

fn done<E: std::fmt::Debug>(answers: impl Iterator<Item = Result<(), E>>) {
    answers.for_each(|answer| answer.unwrap());
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(SOON)).request_timeout(Some(SOON))
}
