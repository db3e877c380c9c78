//! The broker itself, without a lock and without waiting: every operation is one method that takes the
//! present time, so the same calls give the same answers, and a fault can be put before any of them.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use crate::{
    local::{
        LocalSettings,
        group::{Group, Standing},
        log::Ending,
        session::{Cursor, Session},
        subscription::Subscription,
        topics::Topics,
        transaction::{Epoch, Producers, Transaction},
    },
    record::{InputRecord, Offset, OutputRecord, Partition, Topic, TopicPartition},
    runtime::broker::{BrokerError, Isolation, Membership, ReadFrom, ReadTo, Rebalance, TopicSpec},
    time::WallTime,
};

/// The present time.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For sessions and transactions: [`Clock::elapsed`](crate::time::Clock::elapsed).
    pub elapsed: Duration,
    /// For retention.
    pub wall: WallTime,
}

/// Topics, groups, transactions.
#[derive(Debug)]
pub struct Cluster {
    settings: LocalSettings,
    pub(super) topics: Topics,
    pub(super) groups: BTreeMap<String, Subscription>,
    pub(super) producers: Producers,
    /// How many have joined so far.
    epochs: u64,
    /// Counts what somebody may be waiting for.
    pub(super) changes: u64,
    /// Nothing runs out of time before.
    deadline: Duration,
    #[cfg(test)]
    trusts_everybody: bool,
}

impl Cluster {
    /// A broker with no topics.
    #[must_use]
    pub fn new(settings: LocalSettings) -> Self {
        Self {
            topics: Topics::new(settings.clone()),
            settings,
            groups: BTreeMap::new(),
            producers: Producers::default(),
            epochs: 0,
            changes: 0,
            deadline: Duration::MAX,
            #[cfg(test)]
            trusts_everybody: false,
        }
    }

    /// Plants a bug for the simulation to find: commits are taken for partitions that are not the member's.
    #[cfg(test)]
    pub(crate) fn plant_trust_in_everybody(&mut self) {
        self.trusts_everybody = true;
    }

    /// [`Broker::create_topics`](crate::runtime::broker::Broker::create_topics).
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if a topic has another number of partitions; those before it were made.
    pub fn create_topics(&mut self, topics: &[TopicSpec]) -> Result<Vec<Topic>, BrokerError> {
        let mut created = Vec::new();
        for spec in topics {
            if self.topics.create(spec)? {
                created.push(spec.name.clone());
            }
        }
        Ok(created)
    }

    /// How many partitions a topic has, if it exists.
    #[must_use]
    pub fn partitions(&self, topic: &Topic) -> Option<u32> {
        self.topics.partitions(topic)
    }

    /// The offset that a group has committed.
    #[must_use]
    pub fn committed(&self, group: &str, source: &TopicPartition) -> Option<Offset> {
        self.groups.get(group)?.committed(source)
    }

    /// The memory that all logs take, in bytes.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.topics.bytes()
    }

    /// A number that changes whenever somebody who waits should look again.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How long one may wait at most before looking again: until something runs out of time, and never
    /// so long that the waiting member's own session would.
    #[must_use]
    pub fn idle_max(&self, now: Now) -> Duration {
        const GRANULARITY: Duration = Duration::from_millis(1);
        let LocalSettings { session_timeout, transaction_timeout, .. } = self.settings;
        let heartbeat = session_timeout.min(transaction_timeout) / 3;
        self.deadline.saturating_sub(now.elapsed).min(heartbeat).max(GRANULARITY)
    }

    /// Joins a group, and fences the previous member of the name: its transaction is aborted, and its tasks are free.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if a topic does not exist, the co-partitioned inputs have another number of partitions than
    /// the lead, or the group reads other topics.
    pub fn join(&mut self, membership: &Membership, now: Now) -> Result<Session, BrokerError> {
        self.expire(now);
        self.agree(membership)?;
        let epoch = Epoch(self.epochs);
        self.epochs += 1;
        let session = Session::new(membership.clone(), epoch);
        if session.is_transactional()
            && let Some(abandoned) = self.producers.init(&session.transactional_id, epoch)
        {
            self.finish(&abandoned, Ending::Aborted, now);
        }
        self.enter(&session, now);
        Ok(session)
    }

    /// [`Member::poll`](crate::runtime::broker::Member::poll), without waiting: a batch of records, and
    /// a rebalance, which is repeated until it is answered.
    ///
    /// # Errors
    /// [`BrokerError::Fenced`]; [`BrokerError::OutOfRange`] once, then that partition is read from its
    /// beginning, also after an abort, until a commit says otherwise.
    pub fn poll(
        &mut self,
        session: &mut Session,
        now: Now,
        records: &mut Vec<InputRecord>,
    ) -> Result<Option<Rebalance>, BrokerError> {
        self.expire(now);
        if self.standing(session)? == Standing::Expelled {
            let tasks = session.tasks();
            if !tasks.is_empty() {
                // It was on its way.
                session.fetch(&self.topics, records)?;
                return Ok(Some(Rebalance::Revoked { tasks, lost: true }));
            }
            self.agree(&session.membership)?;
            self.enter(session, now);
        }
        let deadline = now.elapsed + self.settings.session_timeout;
        let member = &session.membership.member;
        let group = &mut self.subscription_mut(session).group;
        group.keep_alive(member, deadline);
        let rebalance = group.announce(member);
        session.fetch(&self.topics, records)?;
        Ok(rebalance)
    }

    /// [`Member::assign`](crate::runtime::broker::Member::assign). Who was expelled meanwhile may
    /// answer, too, and hears at the next poll that the tasks are lost.
    ///
    /// # Errors
    /// [`BrokerError::Fenced`], or [`BrokerError::Fatal`] if it does not answer what `poll` said.
    pub fn assign(
        &mut self,
        session: &mut Session,
        tasks: &[Partition],
        now: Now,
    ) -> Result<(), BrokerError> {
        self.expire(now);
        if self.standing(session)? == Standing::Member {
            let member = &session.membership.member;
            self.subscription_mut(session).group.accept(member, tasks)?;
        }
        let subscription = &self.groups[&session.membership.group];
        if let Some(unknown) = tasks.iter().find(|task| !subscription.group.has(**task)) {
            return Err(BrokerError::Fatal(format!("there is no task {unknown}")));
        }
        for task in tasks {
            session.add(*task, |source| subscription.start_of(source, &self.topics));
        }
        Ok(())
    }

    /// [`Member::unassign`](crate::runtime::broker::Member::unassign).
    ///
    /// # Errors
    /// [`BrokerError::Fenced`], or [`BrokerError::Fatal`] if it does not answer what `poll` said.
    pub fn unassign(
        &mut self,
        session: &mut Session,
        tasks: &[Partition],
        now: Now,
    ) -> Result<(), BrokerError> {
        self.expire(now);
        if self.standing(session)? == Standing::Member {
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
    pub fn pause(
        &mut self,
        session: &mut Session,
        inputs: &[TopicPartition],
        now: Now,
    ) -> Result<(), BrokerError> {
        self.expire(now);
        session.set_paused(inputs, true)
    }

    /// [`Member::resume`](crate::runtime::broker::Member::resume).
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if one of them is not assigned.
    pub fn resume(
        &mut self,
        session: &mut Session,
        inputs: &[TopicPartition],
        now: Now,
    ) -> Result<(), BrokerError> {
        self.expire(now);
        session.set_paused(inputs, false)
    }

    /// [`Member::send`](crate::runtime::broker::Member::send).
    ///
    /// # Errors
    /// [`BrokerError::Unsendable`]; [`BrokerError::Abort`] if the transaction can't be committed any more;
    /// [`BrokerError::Fenced`]; [`BrokerError::Fatal`] if the broker is full.
    pub fn send(
        &mut self,
        session: &Session,
        record: OutputRecord,
        now: Now,
    ) -> Result<(), BrokerError> {
        self.expire(now);
        if !session.is_transactional() {
            // Any sender: only transactions are fenced.
            return self.append(record, now);
        }
        self.standing(session)?;
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
    /// [`BrokerError::Abort`] if the member was expelled, does not own all these partitions, or its transaction
    /// took too long; [`BrokerError::Fenced`]; [`BrokerError::Fatal`] for a topic that the group does not read.
    pub fn commit(
        &mut self,
        session: &Session,
        offsets: &[(TopicPartition, Offset)],
        now: Now,
    ) -> Result<(), BrokerError> {
        self.expire(now);
        self.standing(session)?;
        let name = &session.transactional_id;
        let is_transactional = session.is_transactional();
        if offsets.is_empty() && (!is_transactional || self.producers.is_idle(name)) {
            return Ok(());
        }
        let checked = self.subscription(session).check_commit(session, offsets);
        #[cfg(test)]
        let checked = if self.trusts_everybody { Ok(()) } else { checked };
        if let Err(error) = checked {
            if is_transactional {
                self.producers.doom(name, &error.to_string());
            }
            return Err(error);
        }
        if is_transactional && let Some(transaction) = self.producers.commit(name)? {
            self.finish(&transaction, Ending::Committed, now);
        }
        self.subscription_mut(session).commit(offsets);
        Ok(())
    }

    /// [`Member::abort`](crate::runtime::broker::Member::abort).
    ///
    /// # Errors
    /// [`BrokerError::Fenced`].
    pub fn abort(&mut self, session: &mut Session, now: Now) -> Result<(), BrokerError> {
        self.expire(now);
        self.standing(session)?;
        if session.is_transactional()
            && let Some(transaction) = self.producers.abort(&session.transactional_id)
        {
            self.finish(&transaction, Ending::Aborted, now);
        }
        let subscription = &self.groups[&session.membership.group];
        let known = session.known.clone();
        let start = |source: &TopicPartition| {
            let known = known.get(source).copied();
            known.unwrap_or_else(|| subscription.start_of(source, &self.topics))
        };
        session.rewind(&self.topics, start);
        Ok(())
    }

    /// [`Member::leave`](crate::runtime::broker::Member::leave). (A session that is dropped without it
    /// is a crash: the group finds out when its time is up.)
    ///
    /// # Errors
    /// [`BrokerError::Fenced`]: the name is another's already, and remains so.
    pub fn leave(&mut self, session: &Session, now: Now) -> Result<(), BrokerError> {
        self.expire(now);
        self.standing(session)?;
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

    /// [`Broker::read`](crate::runtime::broker::Broker::read).
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if there is no such partition; [`BrokerError::Gone`] if there is no such topic.
    pub fn open(
        &mut self,
        source: &TopicPartition,
        from: ReadFrom,
        now: Now,
    ) -> Result<Cursor, BrokerError> {
        self.expire(now);
        let Some(log) = self.topics.log(source) else {
            return Err(self.topics.missing(source));
        };
        let position = match from {
            ReadFrom::Beginning => log.start(),
            ReadFrom::Offset(offset) => offset,
            ReadFrom::End => log.stable_end(),
        };
        Ok(Cursor { source: source.clone(), position, knows_end: false })
    }

    /// [`Broker::end`](crate::runtime::broker::Broker::end).
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if there is no such partition; [`BrokerError::Gone`] if there is no such topic.
    pub fn end(
        &mut self,
        source: &TopicPartition,
        isolation: Isolation,
        now: Now,
    ) -> Result<Offset, BrokerError> {
        self.expire(now);
        let Some(log) = self.topics.log(source) else {
            return Err(self.topics.missing(source));
        };
        Ok(match isolation {
            Isolation::ReadCommitted => log.stable_end(),
            Isolation::ReadUncommitted => log.end(),
        })
    }

    /// [`Reader::read`](crate::runtime::broker::Reader::read), without waiting; also says whether that was news to the
    /// reader. That it has reached the end is news once.
    ///
    /// # Errors
    /// [`BrokerError::OutOfRange`] if the position was trimmed, or never written.
    pub fn read(
        &mut self,
        cursor: &mut Cursor,
        now: Now,
        records: &mut Vec<InputRecord>,
    ) -> Result<(ReadTo, bool), BrokerError> {
        self.expire(now);
        let before = records.len();
        let at_end = cursor.fetch(&self.topics, records)?;
        let is_news = records.len() > before || !cursor.knows_end;
        cursor.knows_end = at_end;
        Ok((if at_end { ReadTo::End } else { ReadTo::More }, is_news))
    }

    /// [`Publisher::send`](crate::runtime::broker::Publisher::send).
    ///
    /// # Errors
    /// [`BrokerError::Unsendable`]; [`BrokerError::Fatal`] if the broker is full.
    pub fn publish(&mut self, record: OutputRecord, now: Now) -> Result<(), BrokerError> {
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

    /// Ends what has run out of time. Transactions first, so that a member that is expelled in the same
    /// moment leaves nothing open that its successor would have to read past.
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

    fn standing(&self, session: &Session) -> Result<Standing, BrokerError> {
        let Membership { group, member, .. } = &session.membership;
        let fenced =
            || Err(BrokerError::Fenced(format!("another worker has joined {group} as {member}")));
        if session.is_transactional()
            && self.producers.is_fenced(&session.transactional_id, session.epoch)
        {
            return fenced();
        }
        match self.subscription(session).group.standing(member, session.epoch) {
            Standing::Fenced => fenced(),
            standing @ (Standing::Member | Standing::Expelled) => Ok(standing),
        }
    }

    /// Makes sure that the group exists, and reads what `membership` says.
    fn agree(&mut self, membership: &Membership) -> Result<(), BrokerError> {
        match self.groups.get_mut(&membership.group) {
            Some(subscription) => subscription.agree(membership, &self.topics),
            None => {
                let subscription = Subscription::new(membership, &self.topics)?;
                self.groups.insert(membership.group.clone(), subscription);
                Ok(())
            }
        }
    }

    /// Puts a session into its group.
    fn enter(&mut self, session: &Session, now: Now) {
        let deadline = now.elapsed + self.settings.session_timeout;
        self.subscription_mut(session).enter(session, deadline);
        self.deadline = self.deadline.min(deadline);
        self.changes += 1;
    }

    fn subscription(&self, session: &Session) -> &Subscription {
        self.groups.get(&session.membership.group).expect("it has been joined")
    }

    fn subscription_mut(&mut self, session: &Session) -> &mut Subscription {
        self.groups.get_mut(&session.membership.group).expect("it has been joined")
    }
}
