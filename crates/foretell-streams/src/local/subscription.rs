//! The inputs of a group (the lead topic and its co-partitioned inputs) and its committed offsets. [`Group`] decides
//! which member owns which task.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    local::{
        group::{Group, MembershipStatus},
        session::Session,
        topics::Topics,
    },
    record::{Offset, Topic, TopicPartition},
    runtime::broker::{BrokerError, Membership},
};

/// A group with its topics and committed offsets.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) group: Group,
    lead: Topic,
    co_partitioned: Vec<Topic>,
    offsets: BTreeMap<TopicPartition, Offset>,
}

impl Subscription {
    /// A group without members for the topics of `membership`.
    ///
    /// # Errors
    /// [`BrokerError::Gone`] if a topic is missing; [`BrokerError::Fatal`] if a co-partitioned input has another number of
    /// partitions.
    pub(crate) fn new(membership: &Membership, topics: &Topics) -> Result<Self, BrokerError> {
        let Membership { lead, co_partitioned, .. } = membership;
        let tasks = partitions_of(lead, topics)?;
        for co_partitioned_input in co_partitioned {
            let partitions = partitions_of(co_partitioned_input, topics)?;
            if partitions != tasks {
                return Err(BrokerError::Fatal(format!(
                    "topic {co_partitioned_input} has {partitions} partitions and {lead} has {tasks}: records with \
                     the same key would go to different tasks; create both with the same number"
                )));
            }
        }
        Ok(Self {
            group: Group::new(tasks),
            lead: lead.clone(),
            co_partitioned: co_partitioned.clone(),
            offsets: BTreeMap::new(),
        })
    }

    /// Checks that a new member reads the topics of the group. A group without members changes to the topics of
    /// `membership` and keeps its offsets.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if the other members read other topics, or as for [`Subscription::new`].
    pub(crate) fn match_topics(
        &mut self,
        membership: &Membership,
        topics: &Topics,
    ) -> Result<(), BrokerError> {
        let Membership { group, lead, co_partitioned, .. } = membership;
        if self.lead == *lead && self.co_partitioned == *co_partitioned {
            return Ok(());
        }
        if !self.group.is_empty() {
            return Err(BrokerError::Fatal(format!(
                "group {group} reads {} with {:?}, not {lead} with {co_partitioned:?}",
                self.lead, self.co_partitioned
            )));
        }
        let offsets = std::mem::take(&mut self.offsets);
        *self = Self { offsets, ..Self::new(membership, topics)? };
        Ok(())
    }

    /// Adds a member, which is expelled at `deadline` unless it polls.
    pub(crate) fn join(&mut self, session: &Session, deadline: Duration) {
        self.group.join(&session.membership.member, session.epoch, deadline);
    }

    /// The committed offset, or `None` if nothing was committed.
    pub(crate) fn committed(&self, source: &TopicPartition) -> Option<Offset> {
        self.offsets.get(source).copied()
    }

    /// The offset to start reading at: the committed one, or the start of the log.
    pub(crate) fn start_of(&self, source: &TopicPartition, topics: &Topics) -> Offset {
        let beginning = || topics.log(source).expect("the inputs were checked").start();
        self.committed(source).unwrap_or_else(beginning)
    }

    /// Checks that a member may commit `offsets`.
    ///
    /// # Errors
    /// [`BrokerError::Abort`] if the session was expelled, or does not own one of the partitions;
    /// [`BrokerError::Fatal`] if a topic is not an input of the group.
    pub(crate) fn check_commit(
        &self,
        session: &Session,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<(), BrokerError> {
        let Membership { member, lead, co_partitioned, .. } = &session.membership;
        if self.group.status(member, session.epoch) != MembershipStatus::Joined {
            let generation = self.group.generation();
            return Err(BrokerError::Abort(format!(
                "{member} was expelled; the group is at generation {generation} without it"
            )));
        }
        for (source, _) in offsets {
            if source.topic != *lead && !co_partitioned.contains(&source.topic) {
                return Err(BrokerError::Fatal(format!("{source} is not an input of the group")));
            }
            if !self.group.owns(member, source.partition) {
                return Err(BrokerError::Abort(format!("{member} does not own {source}")));
            }
        }
        Ok(())
    }

    /// Removes the committed offsets of a deleted topic.
    pub(crate) fn remove_topic(&mut self, topic: &Topic) {
        self.offsets.retain(|source, _| source.topic != *topic);
    }

    /// Stores offsets that were checked with [`Self::check_commit`].
    pub(crate) fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) {
        self.offsets.extend(offsets.iter().cloned());
    }
}

fn partitions_of(topic: &Topic, topics: &Topics) -> Result<u32, BrokerError> {
    topics.partitions(topic).ok_or_else(|| BrokerError::Gone(topic.clone()))
}
