//! The state of the broker, without a lock and without waiting. Every operation is one method that takes the present
//! time, so the same calls give the same results, and a test can inject a fault before any of them.

mod reading;
#[cfg(test)]
mod simulation_seam;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use crate::{
    local::{
        LocalSettings,
        group::{Group, MembershipStatus},
        log::Ending,
        now::Now,
        session::Session,
        subscription::Subscription,
        topics::Topics,
        transaction::{Epoch, Producers, Transaction},
    },
    record::{InputRecord, Offset, OutputRecord, Partition, Topic, TopicPartition},
    runtime::broker::{BrokerError, Membership, Rebalance, TopicSpec},
};

/// The topics, groups and transactions of a broker.
#[derive(Debug)]
pub(crate) struct Cluster {
    settings: LocalSettings,
    pub(super) topics: Topics,
    pub(super) groups: BTreeMap<String, Subscription>,
    pub(super) producers: Producers,
    /// The number of joins so far, from which epochs are numbered.
    epochs: u64,
    /// Counts the changes for which a caller may be waiting.
    pub(super) changes: u64,
    /// No session and no transaction times out before this time.
    deadline: Duration,
}

impl Cluster {
    /// A broker without topics.
    pub(crate) fn new(settings: LocalSettings) -> Self {
        Self {
            topics: Topics::new(settings.clone()),
            settings,
            groups: BTreeMap::new(),
            producers: Producers::default(),
            epochs: 0,
            changes: 0,
            deadline: Duration::MAX,
        }
    }

    /// [`Broker::create_topics`](crate::runtime::broker::Broker::create_topics).
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if a topic has another number of partitions. The topics before it were created.
    pub(crate) fn create_topics(
        &mut self,
        topics: &[TopicSpec],
    ) -> Result<Vec<Topic>, BrokerError> {
        let mut created = Vec::new();
        for spec in topics {
            if self.topics.create(spec)? {
                created.push(spec.name.clone());
            }
        }
        Ok(created)
    }

    /// The number of partitions of a topic, or `None` if it does not exist.
    pub(crate) fn partitions(&self, topic: &Topic) -> Option<u32> {
        self.topics.partitions(topic)
    }

    /// The committed offset of a group, or `None` if it has not committed one.
    pub(crate) fn committed(&self, group: &str, source: &TopicPartition) -> Option<Offset> {
        self.groups.get(group)?.committed(source)
    }

    /// The memory of all logs, in bytes.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.topics.bytes()
    }

    /// A number that changes whenever waiting callers should try again.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Maximum time to wait before trying again: until the next timeout, and less than the session timeout of the waiting
    /// member.
    pub(crate) fn idle_max(&self, now: Now) -> Duration {
        const GRANULARITY: Duration = Duration::from_millis(1);
        let LocalSettings { session_timeout, transaction_timeout, .. } = self.settings;
        let heartbeat = session_timeout.min(transaction_timeout) / 3;
        self.deadline.saturating_sub(now.elapsed).min(heartbeat).max(GRANULARITY)
    }

    /// Joins a group and fences the earlier member of the same name: its transaction is aborted and its tasks are free.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if a topic does not exist, the co-partitioned inputs have another number of partitions than
    /// the lead, or the group reads other topics.
    pub(crate) fn join(
        &mut self,
        membership: &Membership,
        now: Now,
    ) -> Result<Session, BrokerError> {
        self.expire(now);
        self.ensure_group(membership)?;
        let epoch = Epoch(self.epochs);
        self.epochs += 1;
        let session = Session::new(membership.clone(), epoch);
        if session.is_transactional()
            && let Some(abandoned) = self.producers.init(&session.transactional_id, epoch)
        {
            self.finish(&abandoned, Ending::Aborted, now);
        }
        self.add_to_group(&session, now);
        Ok(session)
    }

    /// [`Member::poll`](crate::runtime::broker::Member::poll) without waiting: a batch of records, and a rebalance, which
    /// is repeated until it is answered.
    ///
    /// # Errors
    /// [`BrokerError::Fenced`]; [`BrokerError::OutOfRange`] once, after which that partition is read from its beginning,
    /// also after an abort, until an offset is committed.
    pub(crate) fn poll(
        &mut self,
        session: &mut Session,
        now: Now,
        records: &mut Vec<InputRecord>,
    ) -> Result<Option<Rebalance>, BrokerError> {
        self.expire(now);
        if self.status(session)? == MembershipStatus::Expelled {
            let tasks = session.tasks();
            if !tasks.is_empty() {
                // Records that were fetched before.
                session.fetch(&self.topics, records)?;
                return Ok(Some(Rebalance::Revoked { tasks, lost: true }));
            }
            self.ensure_group(&session.membership)?;
            self.add_to_group(session, now);
        }
        let deadline = now.elapsed + self.settings.session_timeout;
        let member = &session.membership.member;
        let group = &mut self.subscription_mut(session).group;
        group.keep_alive(member, deadline);
        let rebalance = group.announce(member);
        session.fetch(&self.topics, records)?;
        Ok(rebalance)
    }

    /// [`Member::assign`](crate::runtime::broker::Member::assign). A member that was expelled in the meantime may answer
    /// as well. Its next poll reports the tasks as lost.
    ///
    /// # Errors
    /// [`BrokerError::Fenced`], or [`BrokerError::Fatal`] if it does not answer the announced rebalance.
    pub(crate) fn assign(
        &mut self,
        session: &mut Session,
        tasks: &[Partition],
        now: Now,
    ) -> Result<(), BrokerError> {
        self.expire(now);
        if self.status(session)? == MembershipStatus::Joined {
            let member = &session.membership.member;
            self.subscription_mut(session).group.accept(member, tasks)?;
        }
        let subscription = &self.groups[&session.membership.group];
        if let Some(unknown) = tasks.iter().find(|task| !subscription.group.has(**task)) {
            return Err(BrokerError::Fatal(format!("task {unknown} does not exist")));
        }
        for task in tasks {
            session.add(*task, |source| subscription.start_of(source, &self.topics));
        }
        Ok(())
    }

    /// [`Member::unassign`](crate::runtime::broker::Member::unassign).
    ///
    /// # Errors
    /// [`BrokerError::Fenced`], or [`BrokerError::Fatal`] if it does not answer the announced rebalance.
    pub(crate) fn unassign(
        &mut self,
        session: &mut Session,
        tasks: &[Partition],
        now: Now,
    ) -> Result<(), BrokerError> {
        self.expire(now);
        if self.status(session)? == MembershipStatus::Joined {
            let member = &session.membership.member;
            self.subscription_mut(session).group.release(member, tasks)?;
            self.changes += 1;
        }
        session.remove(tasks);
        Ok(())
    }

    /// [`Member::pause`](crate::runtime::broker::Member::pause).
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if one of them is not assigned.
    pub(crate) fn pause(
        &mut self,
        session: &mut Session,
        inputs: &[TopicPartition],
        now: Now,
    ) -> Result<(), BrokerError> {
        self.expire(now);
        session.pause(&self.topics, inputs)
    }

    /// [`Member::resume`](crate::runtime::broker::Member::resume).
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if one of them is not assigned.
    pub(crate) fn resume(
        &mut self,
        session: &mut Session,
        inputs: &[TopicPartition],
        now: Now,
    ) -> Result<(), BrokerError> {
        self.expire(now);
        session.resume(inputs)
    }

    /// [`Member::send`](crate::runtime::broker::Member::send).
    ///
    /// # Errors
    /// [`BrokerError::Unsendable`]; [`BrokerError::Abort`] if the transaction can no longer be committed;
    /// [`BrokerError::Fenced`]; [`BrokerError::Fatal`] if the memory is full.
    pub(crate) fn send(
        &mut self,
        session: &Session,
        record: OutputRecord,
        now: Now,
    ) -> Result<(), BrokerError> {
        self.expire(now);
        if !session.is_transactional() {
            // Only transactional producers are fenced.
            return self.append(record, now);
        }
        self.status(session)?;
        let to = self.topics.route(&record)?;
        let deadline = now.elapsed + self.settings.transaction_timeout;
        let transaction = self.producers.open(&session.transactional_id, deadline)?;
        self.topics.append(&to, record, Some(transaction.id), now)?;
        transaction.partitions.insert(to);
        self.deadline = self.deadline.min(transaction.deadline);
        Ok(())
    }

    /// [`Member::commit`](crate::runtime::broker::Member::commit).
    ///
    /// # Errors
    /// [`BrokerError::Abort`] if the member was expelled, does not own all these partitions, or its transaction timed
    /// out; [`BrokerError::Fenced`]; [`BrokerError::Fatal`] for a topic that is not an input of the group.
    pub(crate) fn commit(
        &mut self,
        session: &Session,
        offsets: &[(TopicPartition, Offset)],
        now: Now,
    ) -> Result<(), BrokerError> {
        self.expire(now);
        self.status(session)?;
        if self.has_nothing_to_commit(session, offsets) {
            return Ok(());
        }
        if let Err(error) = self.subscription(session).check_commit(session, offsets) {
            if session.is_transactional() {
                self.producers.require_abort(&session.transactional_id, &error.to_string());
            }
            return Err(error);
        }
        self.commit_checked(session, offsets, now)
    }

    fn has_nothing_to_commit(
        &self,
        session: &Session,
        offsets: &[(TopicPartition, Offset)],
    ) -> bool {
        let has_sent =
            session.is_transactional() && !self.producers.is_idle(&session.transactional_id);
        offsets.is_empty() && !has_sent
    }

    /// Commits the open transaction and `offsets`, which the member may commit.
    fn commit_checked(
        &mut self,
        session: &Session,
        offsets: &[(TopicPartition, Offset)],
        now: Now,
    ) -> Result<(), BrokerError> {
        if session.is_transactional()
            && let Some(transaction) = self.producers.commit(&session.transactional_id)?
        {
            self.finish(&transaction, Ending::Committed, now);
        }
        self.subscription_mut(session).commit(offsets);
        Ok(())
    }

    /// [`Member::abort`](crate::runtime::broker::Member::abort).
    ///
    /// # Errors
    /// [`BrokerError::Fenced`].
    pub(crate) fn abort(&mut self, session: &mut Session, now: Now) -> Result<(), BrokerError> {
        self.expire(now);
        self.status(session)?;
        if session.is_transactional()
            && let Some(transaction) = self.producers.abort(&session.transactional_id)
        {
            self.finish(&transaction, Ending::Aborted, now);
        }
        let offsets: BTreeMap<_, _> = session
            .inputs()
            .map(|source| (source.clone(), self.rewind_offset(session, source)))
            .collect();
        session.rewind(&self.topics, |source| offsets[source]);
        Ok(())
    }

    /// The offset to which an abort rewinds an input.
    fn rewind_offset(&self, session: &Session, source: &TopicPartition) -> Offset {
        let known_committed = session.known_committed.get(source).copied();
        known_committed.unwrap_or_else(|| self.subscription(session).start_of(source, &self.topics))
    }

    /// [`Member::leave`](crate::runtime::broker::Member::leave). (A session that is dropped without it has crashed: the
    /// group expels it when its session times out.)
    ///
    /// # Errors
    /// [`BrokerError::Fenced`] if another member has joined under the name. That member stays.
    pub(crate) fn leave(&mut self, session: &Session, now: Now) -> Result<(), BrokerError> {
        self.expire(now);
        self.status(session)?;
        let member = &session.membership.member;
        if session.is_transactional()
            && let Some(transaction) = self.producers.retire(&session.transactional_id)
        {
            self.finish(&transaction, Ending::Aborted, now);
        }
        self.subscription_mut(session).group.leave(member);
        self.changes += 1;
        Ok(())
    }

    /// [`Publisher::send`](crate::runtime::broker::Publisher::send).
    ///
    /// # Errors
    /// [`BrokerError::Unsendable`]; [`BrokerError::Fatal`] if the memory is full.
    pub(crate) fn publish(&mut self, record: OutputRecord, now: Now) -> Result<(), BrokerError> {
        self.expire(now);
        self.append(record, now)
    }

    fn append(&mut self, record: OutputRecord, now: Now) -> Result<(), BrokerError> {
        let to = self.topics.route(&record)?;
        self.topics.append(&to, record, None, now)?;
        self.changes += 1;
        Ok(())
    }

    fn finish(&mut self, transaction: &Transaction, ending: Ending, now: Now) {
        self.topics.finish(transaction, ending, now);
        self.changes += 1;
    }

    /// Aborts transactions and expels members that have timed out. Transactions come first: a member that is expelled at
    /// the same time then leaves no open transaction that would hold back its successor.
    fn expire(&mut self, now: Now) {
        if now.elapsed < self.deadline {
            return;
        }
        for transaction in self.producers.expire(now.elapsed) {
            self.finish(&transaction, Ending::Aborted, now);
        }
        for subscription in self.groups.values_mut() {
            if subscription.group.expel(now.elapsed) {
                self.changes += 1;
            }
        }
        let groups = self.groups.values().map(|subscription| &subscription.group);
        let sessions = groups.filter_map(Group::next_deadline);
        let next = sessions.chain(self.producers.next_deadline()).min();
        self.deadline = next.unwrap_or(Duration::MAX);
    }

    fn status(&self, session: &Session) -> Result<MembershipStatus, BrokerError> {
        let Membership { group, member, .. } = &session.membership;
        let fenced =
            || Err(BrokerError::Fenced(format!("another worker has joined {group} as {member}")));
        if session.is_transactional()
            && self.producers.is_fenced(&session.transactional_id, session.epoch)
        {
            return fenced();
        }
        match self.subscription(session).group.status(member, session.epoch) {
            MembershipStatus::Fenced => fenced(),
            status @ (MembershipStatus::Joined | MembershipStatus::Expelled) => Ok(status),
        }
    }

    /// Creates the group if it does not exist, and checks that it reads the topics of `membership`.
    fn ensure_group(&mut self, membership: &Membership) -> Result<(), BrokerError> {
        match self.groups.get_mut(&membership.group) {
            Some(subscription) => subscription.match_topics(membership, &self.topics),
            None => {
                let subscription = Subscription::new(membership, &self.topics)?;
                self.groups.insert(membership.group.clone(), subscription);
                Ok(())
            }
        }
    }

    /// Adds a session to its group.
    fn add_to_group(&mut self, session: &Session, now: Now) {
        let deadline = now.elapsed + self.settings.session_timeout;
        self.subscription_mut(session).join(session, deadline);
        self.deadline = self.deadline.min(deadline);
        self.changes += 1;
    }

    fn subscription(&self, session: &Session) -> &Subscription {
        self.groups.get(&session.membership.group).expect("a session has joined its group")
    }

    fn subscription_mut(&mut self, session: &Session) -> &mut Subscription {
        self.groups.get_mut(&session.membership.group).expect("a session has joined its group")
    }
}
