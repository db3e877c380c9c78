//! What a group reads, the lead topic and its co-partitioned inputs, and how far it has committed. Who reads which
//! task is for [`Group`] to decide.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    local::{
        group::{Group, Standing},
        session::Session,
        topics::Topics,
    },
    record::{Offset, Topic, TopicPartition},
    runtime::broker::{BrokerError, Membership},
};

/// A group with its topics and its offsets.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) group: Group,
    lead: Topic,
    co_partitioned: Vec<Topic>,
    offsets: BTreeMap<TopicPartition, Offset>,
}

impl Subscription {
    /// Nobody yet, about to read what `membership` says.
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
                    "topic {co_partitioned_input} has {partitions} partitions, {lead} has {tasks}: records of one \
                     key would not meet in one task"
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

    /// Makes sure that who joins reads what the others read. A group that nobody is in may go over
    /// to other topics; its offsets stay.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if the others read something else, or as for [`Subscription::new`].
    pub(crate) fn agree(
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

    /// Adds a member, to be expelled at `deadline` unless it polls.
    pub(crate) fn enter(&mut self, session: &Session, deadline: Duration) {
        self.group.join(&session.membership.member, session.epoch, deadline);
    }

    /// The committed offset.
    pub(crate) fn committed(&self, source: &TopicPartition) -> Option<Offset> {
        self.offsets.get(source).copied()
    }

    /// Where to read on: from the committed offset, or from the beginning.
    pub(crate) fn start_of(&self, source: &TopicPartition, topics: &Topics) -> Offset {
        let beginning = || topics.log(source).expect("the inputs were checked").start();
        self.committed(source).unwrap_or_else(beginning)
    }

    /// Whether a member may commit `offsets`.
    ///
    /// # Errors
    /// [`BrokerError::Abort`] if it is no member any more, or does not own one of these partitions;
    /// [`BrokerError::Fatal`] if that is no input of the group.
    pub(crate) fn check_commit(
        &self,
        session: &Session,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<(), BrokerError> {
        let Membership { member, lead, co_partitioned, .. } = &session.membership;
        if self.group.standing(member, session.epoch) != Standing::Member {
            let generation = self.group.generation();
            return Err(BrokerError::Abort(format!(
                "{member} was expelled, and the group is at generation {generation} without it"
            )));
        }
        for (source, _) in offsets {
            if source.topic != *lead && !co_partitioned.contains(&source.topic) {
                return Err(BrokerError::Fatal(format!("{source} is no input of the group")));
            }
            if !self.group.owns(member, source.partition) {
                return Err(BrokerError::Abort(format!("{member} does not own {source}")));
            }
        }
        Ok(())
    }

    /// `topic` is not there any more, and what was committed of it neither.
    pub(crate) fn forget(&mut self, topic: &Topic) {
        self.offsets.retain(|source, _| source.topic != *topic);
    }

    /// Stores offsets that were checked.
    pub(crate) fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) {
        self.offsets.extend(offsets.iter().cloned());
    }
}

fn partitions_of(topic: &Topic, topics: &Topics) -> Result<u32, BrokerError> {
    topics.partitions(topic).ok_or_else(|| BrokerError::Gone(topic.clone()))
}
