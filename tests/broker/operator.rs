//! Administrative changes to topics, as an operator makes them: delete, truncate, add partitions, change settings.

use foretell_streams::record::{Offset, Topic, TopicPartition};
use rdkafka::{
    ClientConfig, Offset as Position, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier},
    client::DefaultClientContext,
};
use tokio::runtime::Runtime;

use crate::{application::brokers, process::SOON};

/// An admin client with all rights on the cluster of `FORETELL_TEST_BROKERS`.
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

    /// Deletes a topic, and waits until the broker has deleted it.
    pub(crate) fn delete(&self, topic: &Topic) {
        let answer =
            self.runtime.block_on(self.client.delete_topics(&[topic.as_str()], &options()));
        assert_succeeded(answer.unwrap().into_iter().map(|result| result.map(drop)));
    }

    /// Deletes the records before `start`, as retention does. Kafka refuses unless `cleanup.policy` includes `delete`.
    pub(crate) fn trim(&self, partition: &TopicPartition, start: Offset) {
        let mut list = TopicPartitionList::new();
        let (topic, number) = (partition.topic.as_str(), partition.partition.0);
        list.add_partition_offset(topic, number, Position::Offset(start.0)).unwrap();
        let trimmed = self.runtime.block_on(self.client.delete_records(&list, &options())).unwrap();
        trimmed.elements().iter().for_each(|element| element.error().unwrap());
    }

    /// Grows a topic to `partitions` partitions.
    pub(crate) fn add_partitions(&self, topic: &Topic, partitions: usize) {
        let grown = NewPartitions::new(topic.as_str(), partitions);
        let answer = self.runtime.block_on(self.client.create_partitions([&grown], &options()));
        assert_succeeded(answer.unwrap().into_iter().map(|result| result.map(drop)));
    }

    /// Replaces all topic-level settings by `settings`.
    pub(crate) fn set(&self, topic: &Topic, settings: &[(&str, &str)]) {
        let config = AlterConfig::new(ResourceSpecifier::Topic(topic.as_str()));
        let config = settings.iter().fold(config, |config, (name, value)| config.set(name, value));
        let answer = self.runtime.block_on(self.client.alter_configs([&config], &options()));
        let results = answer.unwrap().into_iter();
        assert_succeeded(results.map(|result| result.map(drop).map_err(|(_, code)| code)));
    }
}

fn assert_succeeded<E: std::fmt::Debug>(results: impl Iterator<Item = Result<(), E>>) {
    results.for_each(|result| result.unwrap());
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(SOON)).request_timeout(Some(SOON))
}
