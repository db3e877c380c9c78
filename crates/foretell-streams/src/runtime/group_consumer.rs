//! A consumer whose records have effects outside of the log, such as requests to a server. A transaction cannot include these, so
//! it commits an offset after the effect: at least once. (A [`Worker`](crate::runtime::Worker) runs a topology.)
//!
//! ```text
//!   not joined ──joined──▶ joined ──commit──▶ joined
//!       ▲                    │ recover:  Retry, OutOfRange ─▶ joined, as before
//!       │                    │           Abort ─────────────▶ joined, and reads again from the last commit
//!       └─────── Fenced ─────┘           Fenced without a commit since the last time, Gone, Fatal ─▶ the error
//! ```

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    record::{InputRecord, Offset, TopicPartition},
    runtime::broker::{Broker, BrokerError, Member, Membership, Rebalance},
};

/// A member of a consumer group that commits after the effects of its records, on one thread.
pub struct GroupConsumer {
    broker: Arc<dyn Broker>,
    membership: Membership,
    /// `None` while not joined.
    member: Option<Box<dyn Member>>,
    /// A change of the assignment that is not answered yet.
    pending: Option<Rebalance>,
    /// The offsets whose commit has not succeeded; each is the next to read.
    pub to_commit: BTreeMap<TopicPartition, Offset>,
    /// Whether it was fenced since its last commit.
    was_fenced: bool,
}

/// How a [`GroupConsumer`] has recovered from an error, and what its owner does then.
#[derive(Debug)]
pub enum Recovery {
    /// The broker was not available: the owner makes the same call again.
    Retry(String),
    /// It reads again from the last commit: the owner forgets the records since then.
    Rewound(String),
    /// It has dropped its member, and joins with the next call: the owner forgets all records and partitions.
    Rejoins(BrokerError),
    /// Records of this input were deleted before they were read. It continues with the oldest one.
    Skipped(TopicPartition),
}

impl GroupConsumer {
    /// A consumer that has not joined its group yet.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, membership: Membership) -> Self {
        Self {
            broker,
            membership,
            member: None,
            pending: None,
            to_commit: BTreeMap::new(),
            was_fenced: false,
        }
    }

    /// The member; joins the group if there is none.
    ///
    /// # Errors
    /// [`BrokerError`], if it cannot join.
    pub fn joined(&mut self) -> Result<&mut dyn Member, BrokerError> {
        let member = match self.member.take() {
            Some(member) => member,
            None => self.broker.join(&self.membership)?,
        };
        Ok(self.member.insert(member).as_mut())
    }

    /// The member, or `None` while not joined.
    #[must_use]
    pub fn member(&self) -> Option<&dyn Member> {
        self.member.as_deref()
    }

    /// Waits for records, as [`Member::poll`] does. A rebalance is returned until it is [`Self::answered`], so that an answer that
    /// fails is repeated: the whole group waits for it. Until then, nothing is polled.
    ///
    /// # Errors
    /// [`BrokerError`], named after the recovery.
    pub fn poll(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<Option<Rebalance>, BrokerError> {
        if self.pending.is_none() {
            self.pending = self.joined()?.poll(wait, records)?;
        }
        Ok(self.pending.clone())
    }

    /// Notes that the member has assigned or unassigned what the last rebalance said.
    pub fn answered(&mut self) {
        self.pending = None;
    }

    /// Whether it has joined, and has answered every rebalance. If not after a turn, the broker was not available.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.member.is_some() && self.pending.is_none()
    }

    /// Commits [`Self::to_commit`] and everything sent.
    ///
    /// # Errors
    /// [`BrokerError`], named after the recovery. The offsets stay to be committed.
    pub fn commit(&mut self) -> Result<(), BrokerError> {
        let offsets = self.to_commit.iter().map(|(source, offset)| (source.clone(), *offset));
        let offsets: Vec<_> = offsets.collect();
        self.joined()?.commit(&offsets)?;
        self.to_commit.clear();
        self.was_fenced = false;
        Ok(())
    }

    /// Recovers from an error of a member's call, by its name.
    ///
    /// # Errors
    /// If an operator must act.
    pub fn recover(&mut self, error: BrokerError) -> Result<Recovery, BrokerError> {
        match error {
            BrokerError::Retry(reason) => Ok(Recovery::Retry(reason)),
            BrokerError::Abort(reason) => {
                self.to_commit.clear();
                match self.member.as_mut().map_or(Ok(()), |member| member.abort()) {
                    Ok(()) => Ok(Recovery::Rewound(reason)),
                    Err(error @ (BrokerError::Gone(_) | BrokerError::Fatal(_))) => Err(error),
                    Err(error) => self.rejoin(error),
                }
            }
            BrokerError::Fenced(_) => self.rejoin(error),
            BrokerError::OutOfRange(input) => Ok(Recovery::Skipped(input)),
            BrokerError::Unsendable { .. } | BrokerError::Gone(_) | BrokerError::Fatal(_) => {
                Err(error)
            }
        }
    }

    /// Drops the member, because of `error`. The next call of [`Self::joined`] joins the group again.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if it has done so before, without a commit in between.
    pub fn rejoin(&mut self, error: BrokerError) -> Result<Recovery, BrokerError> {
        self.to_commit.clear();
        self.member = None;
        self.pending = None;
        if std::mem::replace(&mut self.was_fenced, true) {
            let member = &self.membership.member;
            return Err(BrokerError::Fatal(format!(
                "`{member}` was fenced twice without a commit in between: {error}; does another process use the same \
                 instance id? Give each process its own"
            )));
        }
        Ok(Recovery::Rejoins(error))
    }

    /// Leaves the group, if it has joined. Commits nothing.
    ///
    /// # Errors
    /// [`BrokerError`]; the member is closed all the same.
    pub fn leave(&mut self) -> Result<(), BrokerError> {
        self.member.take().map_or(Ok(()), Member::leave)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        local::LocalBroker,
        record::{OutputRecord, Partition, Topic},
        runtime::broker::{Cleanup, ProcessingGuarantee, TopicSpec},
        time::{EventTime, ManualClock, WallTime},
    };

    /// A broker with records in a topic of one partition.
    fn broker(records: usize) -> Arc<dyn Broker> {
        let broker = LocalBroker::new(Arc::new(ManualClock::at(WallTime(0))));
        let (name, cleanup) = (Topic::new("in"), Cleanup::Delete { retention: None });
        let spec =
            TopicSpec { name: name.clone(), partitions: 1, cleanup, message_bytes_max: None };
        broker.create_topics(&[spec]).unwrap();
        let mut publisher = broker.publish().unwrap();
        for _ in 0..records {
            publisher.send(OutputRecord::new(&name, None, Some(b"x"), EventTime(0))).unwrap();
        }
        publisher.flush().unwrap();
        Arc::new(broker)
    }

    fn consumer(broker: &Arc<dyn Broker>) -> GroupConsumer {
        let membership = Membership {
            group: "group".to_owned(),
            member: "reader".to_owned(),
            lead: Topic::new("in"),
            co_partitioned: Vec::new(),
            guarantee: ProcessingGuarantee::AtLeastOnce,
            commit_interval: Membership::COMMIT_INTERVAL,
        };
        GroupConsumer::new(Arc::clone(broker), membership)
    }

    fn input() -> TopicPartition {
        TopicPartition { topic: Topic::new("in"), partition: Partition(0) }
    }

    /// Joins if necessary, and returns the offsets of the next records.
    fn poll(consumer: &mut GroupConsumer) -> Result<Vec<i64>, BrokerError> {
        let mut records: Vec<InputRecord> = Vec::new();
        while let Some(rebalance) = consumer.poll(Duration::ZERO, &mut records)? {
            let member = consumer.joined()?;
            match rebalance {
                Rebalance::Assigned(tasks) => {
                    member.assign(&tasks)?;
                    member.resume(&[input()])?;
                }
                Rebalance::Revoked { tasks, .. } => member.unassign(&tasks)?,
            }
            consumer.answered();
        }
        Ok(records.iter().map(|record| record.offset.0).collect())
    }

    #[test]
    fn what_was_not_committed_is_read_again_after_an_abort() {
        let broker = broker(3);
        let mut consumer = consumer(&broker);
        assert_eq!(poll(&mut consumer).unwrap(), [0, 1, 2]);
        consumer.to_commit.insert(input(), Offset(1));
        consumer.commit().unwrap();
        assert!(consumer.to_commit.is_empty());
        consumer.to_commit.insert(input(), Offset(2));
        let recovery = consumer.recover(BrokerError::Abort("a test".to_owned())).unwrap();
        assert!(matches!(recovery, Recovery::Rewound(_)), "{recovery:?}");
        assert!(consumer.to_commit.is_empty(), "its effect is repeated");
        assert_eq!(poll(&mut consumer).unwrap(), [1, 2]);
    }

    #[test]
    fn a_rebalance_that_could_not_be_answered_is_returned_again() {
        let broker = broker(1);
        let mut consumer = consumer(&broker);
        assert!(!consumer.is_settled(), "it has not joined");
        let assigned = Some(Rebalance::Assigned(vec![Partition(0)]));
        let mut records = Vec::new();
        // The owner of the consumer tries to answer in between, and the broker is not available.
        for _ in 0..3 {
            assert_eq!(consumer.poll(Duration::ZERO, &mut records).unwrap(), assigned);
            assert!(!consumer.is_settled());
            let recovery = consumer.recover(BrokerError::Retry("a test".to_owned())).unwrap();
            assert!(matches!(recovery, Recovery::Retry(_)), "{recovery:?}");
        }
        assert_eq!(poll(&mut consumer).unwrap(), [0]);
        assert!(consumer.is_settled());
    }

    #[test]
    fn a_fenced_consumer_joins_again_and_goes_on() {
        let broker = broker(1);
        let [mut first, mut second] = [consumer(&broker), consumer(&broker)];
        assert_eq!(poll(&mut first).unwrap(), [0]);
        first.to_commit.insert(input(), Offset(1));
        assert_eq!(poll(&mut second).unwrap(), [0], "it has taken over");
        let fenced = first.commit().unwrap_err();
        assert!(matches!(fenced, BrokerError::Fenced(_)), "{fenced}");
        let recovery = first.recover(fenced).unwrap();
        assert!(matches!(recovery, Recovery::Rejoins(_)), "{recovery:?}");
        assert!(first.member().is_none() && first.to_commit.is_empty());
        assert_eq!(poll(&mut first).unwrap(), [0]);
        first.leave().unwrap();
    }

    #[test]
    fn two_that_fence_each_other_end_unless_they_commit() {
        let broker = broker(1);
        let mut consumer = consumer(&broker);
        let fenced = || BrokerError::Fenced("a test".to_owned());
        for _ in 0..3 {
            assert_eq!(poll(&mut consumer).unwrap(), [0]);
            assert!(consumer.recover(fenced()).is_ok());
            consumer.commit().unwrap();
        }
        assert!(consumer.recover(fenced()).is_ok());
        let error = consumer.recover(fenced()).unwrap_err();
        assert!(matches!(&error, BrokerError::Fatal(_)), "{error}");
        assert!(error.to_string().starts_with("`reader` was fenced twice"), "{error}");
    }

    #[test]
    fn what_needs_an_operator_is_returned() {
        let broker = broker(0);
        let mut consumer = consumer(&broker);
        for error in [BrokerError::Gone(Topic::new("in")), BrokerError::Fatal("a test".to_owned())]
        {
            let message = error.to_string();
            assert_eq!(consumer.recover(error).unwrap_err().to_string(), message);
        }
        let recovery = consumer.recover(BrokerError::OutOfRange(input())).unwrap();
        assert!(matches!(recovery, Recovery::Skipped(found) if found == input()));
    }
}
