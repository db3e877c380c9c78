//! What an administrator may do to topics that are in use.

use crate::{local::cluster::Cluster, record::Topic};

impl Cluster {
    /// Deletes a topic and makes it again, as an administrator can. What open transactions have written to it and what groups
    /// have committed of it go with it, as in Kafka.
    pub fn recreate_topic(&mut self, topic: &Topic) {
        self.producers.forget(topic);
        for subscription in self.groups.values_mut() {
            subscription.forget(topic);
        }
        self.topics.recreate_topic(topic);
        self.changes += 1;
    }

    /// Adds partitions to a topic, until it has so many, as an administrator can.
    pub fn add_partitions(&mut self, topic: &Topic, partitions: u32) {
        self.topics.add_partitions(topic, partitions);
    }
}
