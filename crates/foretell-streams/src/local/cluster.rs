//! The broker itself, without a lock and without waiting: every operation is one method that takes the
//! present time, so the same calls give the same answers, and a fault can be put before any of them.

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        runtime::broker::{Cleanup, ProcessingGuarantee},
        time::EventTime,
    };

    const SESSION: Duration = Duration::from_secs(10);
    const TRANSACTION: Duration = Duration::from_secs(5);
    const SECOND: Duration = Duration::from_secs(1);

    /// What the simulation asks besides.
    impl Cluster {
        /// Where an abort would go back to.
        pub(crate) fn known_offsets(&self, session: &Session) -> BTreeMap<TopicPartition, Offset> {
            let subscription = self.subscription(session);
            let start = |source: &TopicPartition| {
                let known = session.known.get(source).copied();
                known.unwrap_or_else(|| subscription.start_of(source, &self.topics))
            };
            session.inputs().map(|source| (source.clone(), start(source))).collect()
        }

        /// Whether a task is the member's just now.
        pub(crate) fn owns(&self, session: &Session, task: Partition) -> bool {
            let member = &session.membership.member;
            let group = &self.subscription(session).group;
            matches!(self.standing(session), Ok(Standing::Member)) && group.owns(member, task)
        }
    }

    /// A cluster with `in`, `side` (its co-partitioned input) and `out`, of two partitions each, and the time.
    struct Bench {
        cluster: Cluster,
        elapsed: Duration,
    }

    impl Bench {
        fn new() -> Self {
            let mut cluster = Cluster::new(LocalSettings {
                session_timeout: SESSION,
                transaction_timeout: TRANSACTION,
                log_bytes_max: 1_000_000,
                ..LocalSettings::default()
            });
            let spec = |name: &str, partitions| TopicSpec {
                name: Topic::new(name),
                partitions,
                cleanup: Cleanup::Delete { retention: Some(Duration::from_secs(86_400)) },
                message_bytes_max: None,
            };
            let specs = [spec("in", 2), spec("side", 2), spec("out", 2), spec("odd", 3)];
            assert_eq!(cluster.create_topics(&specs).unwrap().len(), 4);
            assert!(cluster.create_topics(&specs).unwrap().is_empty());
            Self { cluster, elapsed: Duration::ZERO }
        }

        fn now(&self) -> Now {
            Now { elapsed: self.elapsed, wall: WallTime(0) }
        }

        fn join(&mut self, member: &str) -> Session {
            self.cluster.join(&membership(member), self.now()).unwrap()
        }

        /// Joins, and takes what there is.
        fn worker(&mut self, member: &str) -> Session {
            let mut session = self.join(member);
            self.answer_all(&mut session);
            session
        }

        fn poll(&mut self, session: &mut Session) -> Result<Option<Rebalance>, BrokerError> {
            self.cluster.poll(session, self.now(), &mut Vec::new())
        }

        /// Takes `tasks`, and has their inputs flow.
        fn assign(
            &mut self,
            session: &mut Session,
            tasks: &[Partition],
        ) -> Result<(), BrokerError> {
            let now = self.now();
            self.cluster.assign(session, tasks, now)?;
            let membership = session.membership.clone();
            let inputs = tasks.iter().flat_map(|task| membership.inputs_of(*task));
            self.cluster.resume(session, &inputs.collect::<Vec<_>>(), now)
        }

        /// Polls once and answers; returns what was lost and what was got.
        fn answer(&mut self, session: &mut Session) -> Option<Rebalance> {
            let rebalance = self.poll(session).unwrap()?;
            let now = self.now();
            match &rebalance {
                Rebalance::Assigned(tasks) => self.assign(session, tasks).unwrap(),
                Rebalance::Revoked { tasks, .. } => {
                    self.cluster.unassign(session, tasks, now).unwrap();
                }
            }
            Some(rebalance)
        }

        fn answer_all(&mut self, session: &mut Session) {
            while self.answer(session).is_some() {}
            // The last poll may have read something.
            self.abort(session).unwrap();
        }

        /// The values of one batch.
        fn batch(&mut self, session: &mut Session) -> Vec<String> {
            let mut records = Vec::new();
            let now = self.now();
            assert_eq!(self.cluster.poll(session, now, &mut records).unwrap(), None);
            records.iter().map(value_of).collect()
        }

        fn publish(&mut self, topic: &str, partition: i32, value: &str) {
            self.cluster.publish(record(topic, partition, value), self.now()).unwrap();
        }

        fn send(&mut self, session: &Session, value: &str) -> Result<(), BrokerError> {
            self.cluster.send(session, record("out", 0, value), self.now())
        }

        fn commit(
            &mut self,
            session: &Session,
            offsets: &[(TopicPartition, Offset)],
        ) -> Result<(), BrokerError> {
            self.cluster.commit(session, offsets, self.now())
        }

        fn abort(&mut self, session: &mut Session) -> Result<(), BrokerError> {
            self.cluster.abort(session, self.now())
        }

        /// What a reader of a partition sees, as `value@offset`.
        fn seen(&mut self, topic: &str, partition: i32) -> String {
            let mut records = Vec::new();
            let mut cursor =
                self.cluster.open(&at(topic, partition), ReadFrom::Beginning, self.now()).unwrap();
            let now = self.now();
            while self.cluster.read(&mut cursor, now, &mut records).unwrap().0 == ReadTo::More {}
            let show = |record: &InputRecord| format!("{}@{}", value_of(record), record.offset);
            records.iter().map(show).collect::<Vec<_>>().join(" ")
        }
    }

    fn membership(member: &str) -> Membership {
        Membership {
            group: "copy".to_owned(),
            member: member.to_owned(),
            lead: Topic::new("in"),
            co_partitioned: vec![Topic::new("side")],
            guarantee: ProcessingGuarantee::ExactlyOnce,
        }
    }

    fn at(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition { topic: Topic::new(topic), partition: Partition(partition) }
    }

    fn record(topic: &str, partition: i32, value: &str) -> OutputRecord {
        OutputRecord {
            topic: Topic::new(topic),
            partition: Some(Partition(partition)),
            timestamp: EventTime(0),
            key: None,
            value: Some(value.as_bytes().to_vec()),
            headers: Vec::new(),
        }
    }

    fn value_of(record: &InputRecord) -> String {
        String::from_utf8(record.value.clone().unwrap()).unwrap()
    }

    fn is_abort<T>(result: Result<T, BrokerError>) -> bool {
        matches!(result, Err(BrokerError::Abort(_)))
    }

    fn is_fenced<T>(result: Result<T, BrokerError>) -> bool {
        matches!(result, Err(BrokerError::Fenced(_)))
    }

    fn is_fatal<T>(result: Result<T, BrokerError>) -> bool {
        matches!(result, Err(BrokerError::Fatal(_)))
    }

    #[test]
    fn what_is_sent_is_seen_once_committed_and_never_once_aborted() {
        let mut bench = Bench::new();
        let mut worker = bench.worker("a");
        bench.send(&worker, "x").unwrap();
        bench.publish("out", 0, "y");
        assert_eq!(bench.seen("out", 0), "");
        bench.commit(&worker, &[]).unwrap();
        assert_eq!(bench.seen("out", 0), "x@0 y@1");
        bench.send(&worker, "z").unwrap();
        bench.abort(&mut worker).unwrap();
        bench.publish("out", 0, "w");
        assert_eq!(bench.seen("out", 0), "x@0 y@1 w@5", "markers at 2 and 4, the aborted at 3");
        bench.commit(&worker, &[]).unwrap();
        bench.abort(&mut worker).unwrap();
    }

    #[test]
    fn reading_goes_on_from_the_commit_for_the_same_worker_and_the_next() {
        let mut bench = Bench::new();
        for value in ["0", "1", "2"] {
            bench.publish("in", 1, value);
            bench.publish("side", 1, value);
        }
        let mut worker = bench.worker("a");
        assert_eq!(bench.batch(&mut worker), ["0", "1", "2", "0", "1", "2"]);
        let offsets = [(at("in", 1), Offset(2)), (at("side", 1), Offset(1))];
        bench.commit(&worker, &offsets).unwrap();
        assert_eq!(bench.batch(&mut worker), [""; 0]);
        bench.abort(&mut worker).unwrap();
        assert_eq!(bench.batch(&mut worker), ["2", "1", "2"]);
        bench.cluster.leave(&worker, bench.now()).unwrap();
        let mut next = bench.worker("b");
        assert_eq!(bench.batch(&mut next), ["2", "1", "2"]);
        assert_eq!(bench.cluster.committed("copy", &at("in", 1)), Some(Offset(2)));
    }

    #[test]
    fn the_next_under_a_name_fences_the_last_whatever_it_does() {
        let mut bench = Bench::new();
        let mut first = bench.worker("a");
        bench.send(&first, "x").unwrap();
        let other_group = Membership { group: "other".to_owned(), ..membership("a") };
        bench.cluster.join(&other_group, bench.now()).unwrap();
        bench.send(&first, "x").unwrap();
        bench.join("a");
        let now = bench.now();
        assert!(is_fenced(bench.poll(&mut first)));
        assert!(is_fenced(bench.send(&first, "y")));
        assert!(is_fenced(bench.commit(&first, &[(at("in", 0), Offset(1))])));
        assert!(is_fenced(bench.commit(&first, &[])));
        assert!(is_fenced(bench.abort(&mut first)));
        assert!(is_fenced(bench.cluster.assign(&mut first, &[], now)));
        assert!(is_fenced(bench.cluster.unassign(&mut first, &[Partition(0)], now)));
        assert!(is_fenced(bench.cluster.leave(&first, now)));
        bench.publish("out", 0, "z");
        assert_eq!(bench.seen("out", 0), "z@3");
    }

    #[test]
    fn the_fenced_ones_tasks_go_to_its_successor() {
        let mut bench = Bench::new();
        let _first = bench.worker("a");
        let mut second = bench.join("a");
        let both = vec![Partition(0), Partition(1)];
        assert_eq!(bench.answer(&mut second), Some(Rebalance::Assigned(both)));
    }

    #[test]
    fn who_does_not_poll_loses_its_tasks_and_what_it_was_doing() {
        let mut bench = Bench::new();
        bench.publish("in", 0, "0");
        let mut late = bench.worker("a");
        let mut successor = bench.join("b");
        bench.elapsed += SESSION - SECOND;
        assert_eq!(bench.answer(&mut successor), Some(Rebalance::Assigned(vec![])));
        bench.send(&late, "x").unwrap();
        bench.elapsed += SECOND;
        let both = vec![Partition(0), Partition(1)];
        assert_eq!(bench.answer(&mut successor), Some(Rebalance::Assigned(both.clone())));
        assert!(
            is_abort(bench.commit(&late, &[])),
            "also without offsets: its outputs are another's now"
        );
        assert!(is_abort(bench.commit(&late, &[(at("in", 0), Offset(1))])));
        assert!(is_abort(bench.send(&late, "y")), "not before the abort");
        let lost = Rebalance::Revoked { tasks: both, lost: true };
        assert_eq!(bench.poll(&mut late).unwrap(), Some(lost.clone()));
        bench.abort(&mut late).unwrap();
        assert_eq!(bench.answer(&mut late), Some(lost));
        assert_eq!(bench.seen("out", 0), "");
        assert_eq!(bench.answer(&mut late), Some(Rebalance::Assigned(vec![])), "it is back");
        bench.answer_all(&mut successor);
        bench.answer_all(&mut late);
        assert_eq!((late.tasks(), successor.tasks()), (vec![Partition(1)], vec![Partition(0)]));
        assert_eq!(bench.batch(&mut successor), ["0"]);
    }

    #[test]
    fn an_answer_that_comes_too_late_is_taken_and_then_told_as_lost() {
        let mut bench = Bench::new();
        let mut worker = bench.join("a");
        let Some(Rebalance::Assigned(tasks)) = bench.poll(&mut worker).unwrap() else {
            panic!("it is alone");
        };
        bench.elapsed += SESSION;
        assert!(is_fatal(bench.cluster.assign(&mut worker, &[Partition(7)], bench.now())));
        bench.cluster.assign(&mut worker, &tasks, bench.now()).unwrap();
        assert!(is_abort(bench.commit(&worker, &[(at("in", 0), Offset(0))])));
        let lost = Rebalance::Revoked { tasks, lost: true };
        assert_eq!(bench.answer(&mut worker), Some(lost));
        bench.answer_all(&mut worker);
        assert_eq!(worker.tasks().len(), 2);
    }

    #[test]
    fn a_transaction_that_takes_too_long_is_aborted_and_blocks_nobody() {
        let mut bench = Bench::new();
        let mut worker = bench.worker("a");
        bench.send(&worker, "x").unwrap();
        bench.publish("out", 0, "y");
        bench.elapsed += TRANSACTION - SECOND;
        assert_eq!(bench.seen("out", 0), "");
        bench.elapsed += SECOND;
        assert_eq!(bench.seen("out", 0), "y@1");
        assert!(is_abort(bench.send(&worker, "z")));
        assert!(is_abort(bench.commit(&worker, &[])));
        bench.abort(&mut worker).unwrap();
        bench.send(&worker, "w").unwrap();
        bench.commit(&worker, &[]).unwrap();
        assert_eq!(bench.seen("out", 0), "y@1 w@3");
    }

    #[test]
    fn a_commit_is_for_what_one_owns() {
        let mut bench = Bench::new();
        let mut worker = bench.worker("a");
        let _heir = bench.join("b");
        let Some(Rebalance::Revoked { tasks, lost: false }) = bench.poll(&mut worker).unwrap()
        else {
            panic!("one of two tasks goes to the successor");
        };
        let offsets = [(at("in", tasks[0].0), Offset(0))];
        bench.send(&worker, "x").unwrap();
        bench.commit(&worker, &offsets).unwrap();
        bench.cluster.unassign(&mut worker, &tasks, bench.now()).unwrap();
        bench.send(&worker, "y").unwrap();
        assert!(is_abort(bench.commit(&worker, &offsets)));
        assert!(is_abort(bench.commit(&worker, &[])), "nor without the offsets");
        bench.abort(&mut worker).unwrap();
        assert!(is_fatal(bench.commit(&worker, &[(at("out", 0), Offset(0))])));
        assert_eq!(bench.seen("out", 0), "x@0");
    }

    #[test]
    fn at_least_once_writes_at_once_and_rewinds_only_what_it_reads() {
        let mut bench = Bench::new();
        bench.publish("in", 0, "0");
        let guarantee = ProcessingGuarantee::AtLeastOnce;
        let membership = Membership { guarantee, ..membership("a") };
        let mut worker = bench.cluster.join(&membership, bench.now()).unwrap();
        bench.answer_all(&mut worker);
        assert_eq!(bench.batch(&mut worker), ["0"]);
        bench.send(&worker, "x").unwrap();
        bench.abort(&mut worker).unwrap();
        assert_eq!(bench.batch(&mut worker), ["0"]);
        bench.send(&worker, "x").unwrap();
        bench.commit(&worker, &[(at("in", 0), Offset(1))]).unwrap();
        bench.abort(&mut worker).unwrap();
        assert_eq!(bench.batch(&mut worker), [""; 0]);
        assert_eq!(bench.seen("out", 0), "x@0 x@1");
        bench.cluster.join(&membership, bench.now()).unwrap();
        assert!(is_fenced(bench.commit(&worker, &[(at("in", 0), Offset(1))])));
        bench.send(&worker, "zombie").unwrap();
        assert_eq!(bench.seen("out", 0), "x@0 x@1 zombie@2", "nothing fences a plain producer");
    }

    #[test]
    fn a_group_reads_topics_that_fit() {
        let mut bench = Bench::new();
        let _member = bench.join("a");
        let with = |lead: &str, co_partitioned_input: &str| Membership {
            lead: Topic::new(lead),
            co_partitioned: vec![Topic::new(co_partitioned_input)],
            ..membership("b")
        };
        for (membership, group) in [
            (with("in", "odd"), "new"),
            (with("in", "nowhere"), "new"),
            (with("nowhere", "side"), "new"),
            (with("in", "out"), "copy"),
        ] {
            let membership = Membership { group: group.to_owned(), ..membership };
            let refused = bench.cluster.join(&membership, bench.now());
            let refused = matches!(refused, Err(BrokerError::Fatal(_) | BrokerError::Gone(_)));
            assert!(refused, "{membership:?}");
        }
        bench.elapsed += SESSION;
        assert!(bench.cluster.join(&with("in", "out"), bench.now()).is_ok(), "nobody is left");
    }

    #[test]
    fn a_position_that_was_cut_off_is_reported() {
        let mut bench = Bench::new();
        let worker = bench.worker("a");
        bench.commit(&worker, &[(at("in", 0), Offset(0))]).unwrap();
        let from = ReadFrom::Offset(Offset(3));
        let mut reader = bench.cluster.open(&at("in", 0), from, bench.now()).unwrap();
        for _ in 0..100 {
            bench.publish("in", 0, &"x".repeat(50_000));
        }
        let out_of_range = |result: Result<(), BrokerError>| matches!(result, Err(BrokerError::OutOfRange(source)) if source == at("in", 0));
        let now = bench.now();
        for _ in 0..2 {
            let read = bench.cluster.read(&mut reader, now, &mut Vec::new());
            assert!(out_of_range(read.map(|_| ())), "a reader is to be made anew");
        }
        bench.cluster.leave(&worker, now).unwrap();
        let mut next = bench.join("b");
        bench.answer(&mut next);
        assert!(out_of_range(bench.poll(&mut next).map(|_| ())));
        assert!(bench.batch(&mut next).len() > 1, "a member goes on from the beginning");
        let beyond = ReadFrom::Offset(Offset(101));
        let mut beyond = bench.cluster.open(&at("in", 0), beyond, now).unwrap();
        let read = bench.cluster.read(&mut beyond, now, &mut Vec::new());
        assert!(out_of_range(read.map(|_| ())), "a checkpoint of another broker's log");
    }

    #[test]
    fn the_end_is_news_once() {
        let mut bench = Bench::new();
        let source = at("in", 0);
        let mut reader = bench.cluster.open(&source, ReadFrom::Beginning, bench.now()).unwrap();
        let now = bench.now();
        let mut read =
            |bench: &mut Bench| bench.cluster.read(&mut reader, now, &mut Vec::new()).unwrap();
        assert_eq!(read(&mut bench), (ReadTo::End, true));
        assert_eq!(read(&mut bench), (ReadTo::End, false));
        for _ in 0..1001 {
            bench.publish("in", 0, "x");
        }
        assert_eq!(read(&mut bench), (ReadTo::More, true));
        assert_eq!(read(&mut bench), (ReadTo::End, true));
        assert_eq!(read(&mut bench), (ReadTo::End, false));
        assert!(is_fatal(bench.cluster.open(&at("in", 2), ReadFrom::End, now)));
    }

    #[test]
    fn nobody_waits_past_a_deadline_or_its_own_session() {
        let mut bench = Bench::new();
        assert_eq!(bench.cluster.idle_max(bench.now()), TRANSACTION / 3);
        let worker = bench.worker("a");
        bench.elapsed += SESSION - SECOND - TRANSACTION / 3;
        bench.send(&worker, "x").unwrap();
        bench.elapsed += TRANSACTION / 3;
        assert_eq!(bench.cluster.idle_max(bench.now()), SECOND);
    }

    /// A worker that copies `in/p` to `out/p`, with all the recovery that the port asks for.
    #[derive(Debug)]
    struct Copier {
        name: String,
        session: Option<Session>,
        offsets: BTreeMap<TopicPartition, Offset>,
    }

    #[derive(Clone, Copy, Debug)]
    enum Happening {
        Step,
        Commit,
        Stop,
        Crash,
        TimePasses,
    }

    impl Copier {
        fn step(&mut self, bench: &mut Bench) {
            let Some(mut session) = self.session.take() else {
                self.session = Some(bench.join(&self.name));
                self.offsets.clear();
                return;
            };
            match self.try_step(bench, &mut session) {
                Ok(()) => self.session = Some(session),
                Err(BrokerError::Abort(_)) => {
                    bench.abort(&mut session).unwrap();
                    self.offsets.clear();
                    self.session = Some(session);
                }
                Err(BrokerError::Fenced(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }

        fn try_step(
            &mut self,
            bench: &mut Bench,
            session: &mut Session,
        ) -> Result<(), BrokerError> {
            let mut records = Vec::new();
            let now = bench.now();
            let rebalance = bench.cluster.poll(session, now, &mut records)?;
            for read in records {
                let copy = record("out", read.source.partition.0, &value_of(&read));
                bench.cluster.send(session, copy, now)?;
                self.offsets.insert(read.source, read.offset.next());
            }
            match rebalance {
                Some(Rebalance::Assigned(tasks)) => bench.assign(session, &tasks)?,
                Some(Rebalance::Revoked { tasks, lost }) => {
                    if lost || is_abort(self.try_commit(bench, session)) {
                        bench.abort(session)?;
                        self.offsets.clear();
                    }
                    bench.cluster.unassign(session, &tasks, now)?;
                }
                None => {}
            }
            Ok(())
        }

        fn try_commit(&mut self, bench: &mut Bench, session: &Session) -> Result<(), BrokerError> {
            let offsets: Vec<_> = std::mem::take(&mut self.offsets).into_iter().collect();
            bench.commit(session, &offsets)
        }

        fn commit(&mut self, bench: &mut Bench) {
            let Some(mut session) = self.session.take() else { return };
            match self.try_commit(bench, &session) {
                Ok(()) => self.session = Some(session),
                Err(BrokerError::Abort(_)) => {
                    bench.abort(&mut session).unwrap();
                    self.session = Some(session);
                }
                Err(BrokerError::Fenced(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }

        /// Stops properly: what is not committed comes again, at another's.
        fn stop(&mut self, bench: &mut Bench) {
            if let Some(session) = self.session.take() {
                let now = bench.now();
                match bench.cluster.leave(&session, now) {
                    Ok(()) | Err(BrokerError::Fenced(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }

    /// Lets four workers of three names copy while things happen to them; returns what the broker
    /// looks like in the end.
    fn copy_while(happenings: &[(Happening, usize)]) -> String {
        let mut bench = Bench::new();
        let names = ["a", "b", "c", "a"];
        let mut workers = names.map(|name| Copier {
            name: name.to_owned(),
            session: None,
            offsets: BTreeMap::new(),
        });
        let mut expected = [String::new(), String::new()];
        let mut publish = |bench: &mut Bench, number: usize| {
            let partition = number % 2;
            bench.publish("in", i32::try_from(partition).unwrap(), &number.to_string());
            expected[partition] += &format!("{number} ");
        };
        for (number, (happening, worker)) in happenings.iter().enumerate() {
            publish(&mut bench, number);
            match happening {
                Happening::Step => workers[*worker].step(&mut bench),
                Happening::Commit => workers[*worker].commit(&mut bench),
                Happening::Stop => workers[*worker].stop(&mut bench),
                Happening::Crash => workers[*worker].session = None,
                Happening::TimePasses => bench.elapsed += TRANSACTION / 2,
            }
        }
        // The workers that are still there (one "a", for there would be two) must finish the job.
        workers[3].session = None;
        for _ in 0..20 {
            bench.elapsed += SECOND;
            for worker in &mut workers[..3] {
                worker.step(&mut bench);
                worker.commit(&mut bench);
            }
        }
        for (partition, expected) in (0..).zip(expected) {
            let copied: String = bench
                .seen("out", partition)
                .split_whitespace()
                .map(|record| format!("{} ", record.split('@').next().unwrap()))
                .collect();
            assert_eq!(copied, expected);
        }
        format!("{:?}", bench.cluster)
    }

    fn happenings() -> impl Strategy<Value = Vec<(Happening, usize)>> {
        let happening = prop_oneof![
            8 => Just(Happening::Step),
            3 => Just(Happening::Commit),
            1 => Just(Happening::Stop),
            1 => Just(Happening::Crash),
            2 => Just(Happening::TimePasses),
        ];
        proptest::collection::vec((happening, 0_usize..4), 0..120)
    }

    proptest! {
        #[test]
        fn the_output_is_the_input_whatever_happens_and_the_same_every_time(steps in happenings()) {
            prop_assert_eq!(copy_while(&steps), copy_while(&steps));
        }
    }
}
