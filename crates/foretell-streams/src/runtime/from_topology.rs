//! The topics of a topology, and the membership of the group that processes it.

use crate::{
    runtime::broker::{Cleanup, Membership, ProcessingGuarantee, TopicSpec},
    topology::Topology,
};

impl Membership {
    /// Exactly-once membership of `member` in `group`, reading the topics of `topology`, with commits every
    /// [`Self::COMMIT_INTERVAL`].
    #[must_use]
    pub fn new(topology: &Topology, group: &str, member: &str) -> Self {
        Self {
            group: group.to_owned(),
            member: member.to_owned(),
            lead: topology.lead().clone(),
            co_partitioned: topology.co_partitioned(),
            guarantee: ProcessingGuarantee::ExactlyOnce,
            commit_interval: Self::COMMIT_INTERVAL,
        }
    }
}

impl TopicSpec {
    /// Returns the settings of every topic of `topology`, for
    /// [`Broker::create_topics`](crate::runtime::broker::Broker::create_topics). All have the same number of partitions;
    /// changelogs are compacted, and all other topics keep their records. Adjust settings that should differ, such as the
    /// retention, before you create the topics.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use foretell_streams::{
    ///     codec::Utf8, local::LocalBroker, record::Topic, runtime::broker::{Broker, TopicSpec},
    ///     time::SystemClock, topology::TopologyBuilder,
    /// };
    ///
    /// let mut builder = TopologyBuilder::new("copy", Topic::new("dead-letters"));
    /// let lines = builder.source("read", Topic::new("in"), Arc::new(Utf8));
    /// builder.sink("write", &[lines], Topic::new("out"), Arc::new(Utf8));
    /// let topology = builder.build();
    ///
    /// let broker = LocalBroker::new(Arc::new(SystemClock::new()));
    /// let created = broker.create_topics(&TopicSpec::all_of(&topology, 4))?;
    /// assert_eq!(created.len(), 3, "in, out and dead-letters");
    /// # Ok::<(), foretell_streams::runtime::broker::BrokerError>(())
    /// ```
    #[must_use]
    pub fn all_of(topology: &Topology, partitions: u32) -> Vec<Self> {
        let changelogs = topology.changelogs();
        let spec = |name| {
            let is_changelog = changelogs.contains(&name);
            let kept = Cleanup::Delete { retention: None };
            let cleanup = if is_changelog { Cleanup::Compact } else { kept };
            Self { name, partitions, cleanup, message_bytes_max: None }
        };
        topology.topics().into_iter().map(spec).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{codec::Utf8, record::Topic, topology::TopologyBuilder};

    #[test]
    fn only_changelogs_are_compacted() {
        let mut builder = TopologyBuilder::new("app", Topic::new("dead"));
        let read = builder.source("read", Topic::new("in"), Arc::new(Utf8));
        builder.key_value_store::<String>("store", Arc::new(Utf8));
        builder.sink("write", &[read], Topic::new("out"), Arc::new(Utf8));
        let specs = TopicSpec::all_of(&builder.build(), 3);
        let kept = Cleanup::Delete { retention: None };
        let expected = [
            ("app-store-changelog", Cleanup::Compact),
            ("dead", kept),
            ("in", kept),
            ("out", kept),
        ];
        let found: Vec<_> = specs.iter().map(|spec| (spec.name.as_str(), spec.cleanup)).collect();
        assert_eq!(found, expected);
        assert!(specs.iter().all(|spec| spec.partitions == 3));
    }
}
