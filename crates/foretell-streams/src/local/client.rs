//! The traits of the port over a [`Cluster`] behind a lock, with waiting and wake-ups.

#[cfg(test)]
use std::collections::BTreeMap;
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use crate::{
    local::{
        LocalSettings,
        cluster::Cluster,
        now::Now,
        session::{Cursor, Session},
    },
    record::{
        InputRecord, Offset, OutputRecord, OutputRecordRef, Partition, Topic, TopicPartition,
    },
    runtime::broker::{
        Broker, BrokerError, Follower, Isolation, Member, Membership, Publisher, ReadFrom, ReadTo,
        Reader, Rebalance, TopicSpec,
    },
    time::Clock,
};

/// A broker in this process. Clones share its topics and groups.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use foretell_streams::{
///     local::LocalBroker,
///     record::{OutputRecord, Partition, Topic, TopicPartition},
///     runtime::broker::{Broker, Cleanup, ReadFrom, TopicSpec},
///     time::{EventTime, SystemClock},
/// };
///
/// let broker = LocalBroker::new(Arc::new(SystemClock::new()));
/// let topic = Topic::new("greetings");
/// let cleanup = Cleanup::Delete { retention: None };
/// broker.create_topics(&[TopicSpec { name: topic.clone(), partitions: 1, cleanup, message_bytes_max: None }])?;
/// broker.publish()?.send(OutputRecord::new(&topic, None, Some(b"hello"), EventTime(0)))?;
/// let mut records = Vec::new();
/// let mut reader = broker.read(&TopicPartition { topic, partition: Partition(0) }, ReadFrom::Beginning)?;
/// reader.read(Duration::ZERO, &mut records)?;
/// assert_eq!(records[0].value.as_deref(), Some(&b"hello"[..]));
/// # Ok::<(), foretell_streams::runtime::broker::BrokerError>(())
/// ```
#[derive(Clone)]
pub struct LocalBroker {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: Mutex<Cluster>,
    /// Notified whenever [`Cluster::changes`] has changed.
    changed: Condvar,
    clock: Arc<dyn Clock>,
}

/// A worker's membership in a group.
pub(crate) struct LocalMember {
    broker: LocalBroker,
    session: Session,
}

struct LocalReader {
    broker: LocalBroker,
    cursor: Cursor,
    /// Whether the last read repeated the end without looking for new records.
    has_repeated_end: bool,
}

struct LocalFollower {
    broker: LocalBroker,
    cursors: Vec<Cursor>,
}

struct LocalPublisher {
    broker: LocalBroker,
}

impl LocalBroker {
    /// A broker without topics and with default limits. Sessions and transactions time out by `clock`. Waiting for records
    /// takes real time, even with a [`ManualClock`](crate::time::ManualClock): pass [`Duration::ZERO`] as the wait there.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_settings(clock, LocalSettings::default())
    }

    /// A broker without topics and with the given limits.
    #[must_use]
    pub fn with_settings(clock: Arc<dyn Clock>, settings: LocalSettings) -> Self {
        let cluster = Mutex::new(Cluster::new(settings));
        Self { shared: Arc::new(Shared { cluster, changed: Condvar::new(), clock }) }
    }

    /// [`Broker::join`] with the concrete type of member, which the simulation needs.
    pub(crate) fn join_as_local_member(
        &self,
        membership: &Membership,
    ) -> Result<LocalMember, BrokerError> {
        let session = self.with(|cluster, now| cluster.join(membership, now))?;
        Ok(LocalMember { broker: self.clone(), session })
    }

    /// Runs one operation on the [`Cluster`]. Callers that wait for records are woken if it changed something.
    pub(crate) fn with<T>(&self, operation: impl FnOnce(&mut Cluster, Now) -> T) -> T {
        self.shared.apply(&mut self.shared.lock(), operation)
    }

    /// Repeats `attempt` until it reports that something has arrived, or `wait` has passed. Returns the last result.
    /// `attempt` runs again after every change and every timeout, under the lock, so no change between an attempt and
    /// the wait after it is missed.
    fn wait_for<T>(
        &self,
        wait: Duration,
        mut attempt: impl FnMut(&mut Cluster, Now) -> Result<(T, bool), BrokerError>,
    ) -> Result<T, BrokerError> {
        let shared = &*self.shared;
        let mut cluster = shared.lock();
        let mut left = wait;
        loop {
            let mut result = shared.apply(&mut cluster, &mut attempt);
            let is_done = |result: &Result<(T, bool), BrokerError>| {
                result.as_ref().map_or(true, |(_, has_arrived)| *has_arrived)
            };
            if is_done(&result) || left.is_zero() {
                return result.map(|(value, _)| value);
            }
            let pause = left.min(cluster.idle_max(shared.now()));
            let mut changes = cluster.changes();
            let must_wait = |cluster: &mut Cluster| {
                if cluster.changes() != changes {
                    result = shared.apply(cluster, &mut attempt);
                    changes = cluster.changes();
                }
                !is_done(&result)
            };
            let waited = shared.changed.wait_timeout_while(cluster, pause, must_wait);
            cluster = waited.expect(NO_PANIC).0;
            if is_done(&result) {
                return result.map(|(value, _)| value);
            }
            left = left.saturating_sub(pause);
        }
    }
}

const NO_PANIC: &str = "no operation panics while it holds the lock";

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().expect(NO_PANIC)
    }

    fn now(&self) -> Now {
        Now { elapsed: self.clock.elapsed(), wall: self.clock.now() }
    }

    fn apply<T>(&self, cluster: &mut Cluster, operation: impl FnOnce(&mut Cluster, Now) -> T) -> T {
        let before = cluster.changes();
        let result = operation(cluster, self.now());
        if cluster.changes() != before {
            self.changed.notify_all();
        }
        result
    }
}

impl Broker for LocalBroker {
    fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError> {
        Ok(Box::new(self.join_as_local_member(membership)?))
    }

    fn read(
        &self,
        source: &TopicPartition,
        from: ReadFrom,
    ) -> Result<Box<dyn Reader>, BrokerError> {
        let cursor = self.with(|cluster, now| cluster.open(source, from, now))?;
        Ok(Box::new(LocalReader { broker: self.clone(), cursor, has_repeated_end: false }))
    }

    fn follow(&self) -> Result<Box<dyn Follower>, BrokerError> {
        Ok(Box::new(LocalFollower { broker: self.clone(), cursors: Vec::new() }))
    }

    fn publish(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        Ok(Box::new(LocalPublisher { broker: self.clone() }))
    }

    fn create_topics(&self, topics: &[TopicSpec]) -> Result<Vec<Topic>, BrokerError> {
        self.with(|cluster, _| cluster.create_topics(topics))
    }

    fn end(&self, source: &TopicPartition, isolation: Isolation) -> Result<Offset, BrokerError> {
        self.with(|cluster, now| cluster.end(source, isolation, now))
    }

    fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BrokerError> {
        Ok(self.with(|cluster, _| cluster.partitions(topic)))
    }
}

/// Test-only operations for the simulation, beyond the port; see `cluster/simulation_seam.rs`.
#[cfg(test)]
impl LocalMember {
    /// The offsets to which an abort would rewind.
    pub(crate) fn rewind_offsets(&self) -> BTreeMap<TopicPartition, Offset> {
        self.broker.with(|cluster, _| cluster.rewind_offsets(&self.session))
    }

    /// Makes aborts rewind to `offsets` until a later commit succeeds, as for a member that did not get the result of a
    /// commit.
    pub(crate) fn set_rewind_offsets(&mut self, offsets: BTreeMap<TopicPartition, Offset>) {
        self.session.known_committed = offsets;
    }

    /// Whether the member owns a task.
    pub(crate) fn owns(&self, task: Partition) -> bool {
        self.broker.with(|cluster, _| cluster.owns(&self.session, task))
    }

    /// [`Member::commit`] without the check that the member owns the partitions.
    pub(crate) fn commit_without_ownership_check(
        &mut self,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<(), BrokerError> {
        self.broker.with(|cluster, now| {
            cluster.commit_without_ownership_check(&self.session, offsets, now)
        })?;
        self.session.acknowledge_commit(offsets);
        Ok(())
    }
}

impl Member for LocalMember {
    fn poll(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<Option<Rebalance>, BrokerError> {
        let session = &mut self.session;
        let before = records.len();
        self.broker.wait_for(wait, |cluster, now| {
            let rebalance = cluster.poll(session, now, records)?;
            let has_arrived = rebalance.is_some() || records.len() > before;
            Ok((rebalance, has_arrived))
        })
    }

    fn assign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        self.broker.with(|cluster, now| cluster.assign(&mut self.session, tasks, now))
    }

    fn unassign(&mut self, tasks: &[Partition]) -> Result<(), BrokerError> {
        self.broker.with(|cluster, now| cluster.unassign(&mut self.session, tasks, now))
    }

    fn pause(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        self.broker.with(|cluster, now| cluster.pause(&mut self.session, inputs, now))
    }

    fn resume(&mut self, inputs: &[TopicPartition]) -> Result<(), BrokerError> {
        self.broker.with(|cluster, now| cluster.resume(&mut self.session, inputs, now))
    }

    fn position(&self, input: &TopicPartition) -> Offset {
        self.session.position(input)
    }

    fn send(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
        self.broker.with(|cluster, now| cluster.send(&self.session, record.to_owned(), now))
    }

    fn flush(&mut self) -> Result<(), BrokerError> {
        Ok(()) // `send` has appended the records to the logs.
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<(), BrokerError> {
        self.broker.with(|cluster, now| cluster.commit(&self.session, offsets, now))?;
        self.session.acknowledge_commit(offsets);
        Ok(())
    }

    fn abort(&mut self) -> Result<(), BrokerError> {
        self.broker.with(|cluster, now| cluster.abort(&mut self.session, now))
    }

    fn leave(self: Box<Self>) -> Result<(), BrokerError> {
        self.broker.with(|cluster, now| cluster.leave(&self.session, now))
    }
}

impl Reader for LocalReader {
    fn read(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<ReadTo, BrokerError> {
        let cursor = &mut self.cursor;
        if wait.is_zero() && cursor.is_end_reported && !self.has_repeated_end {
            self.has_repeated_end = true;
            return Ok(ReadTo::End);
        }
        self.has_repeated_end = false;
        self.broker.wait_for(wait, |cluster, now| cluster.read(cursor, now, records))
    }
}

impl LocalFollower {
    fn is_open(&self, source: &TopicPartition) -> bool {
        self.cursors.iter().any(|cursor| cursor.source == *source)
    }
}

impl Follower for LocalFollower {
    fn open(&mut self, source: &TopicPartition, from: ReadFrom) -> Result<Offset, BrokerError> {
        if self.is_open(source) {
            return Err(BrokerError::Fatal(format!("{source} is already followed")));
        }
        let cursor = self.broker.with(|cluster, now| cluster.open_in_range(source, from, now))?;
        let start = cursor.position;
        self.cursors.push(cursor);
        Ok(start)
    }

    fn close(&mut self, source: &TopicPartition) -> Result<(), BrokerError> {
        if !self.is_open(source) {
            return Err(BrokerError::Fatal(format!("{source} is not followed")));
        }
        self.cursors.retain(|cursor| cursor.source != *source);
        Ok(())
    }

    fn read(&mut self, wait: Duration, records: &mut Vec<InputRecord>) -> Result<(), BrokerError> {
        let cursors = &mut self.cursors;
        let before = records.len();
        self.broker.wait_for(wait, |cluster, now| {
            for cursor in cursors.iter_mut() {
                cluster.read(cursor, now, records)?;
            }
            Ok(((), records.len() > before))
        })
    }
}

impl Publisher for LocalPublisher {
    fn send(&mut self, record: OutputRecord) -> Result<(), BrokerError> {
        self.broker.with(|cluster, now| cluster.publish(record, now))
    }

    fn flush(&mut self) -> Result<(), BrokerError> {
        Ok(()) // `send` has appended the records to the logs.
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicBool, AtomicUsize, Ordering},
            mpsc,
        },
        thread,
    };

    use super::*;
    use crate::{
        runtime::broker::{Cleanup, ProcessingGuarantee},
        time::{EventTime, ManualClock, SystemClock, WallTime},
    };

    /// Longer than any test should assign: a thread that waits this long has missed its wake-up.
    const FOREVER: Duration = Duration::from_secs(60);
    const PARTITIONS: i32 = 4;

    fn broker(clock: Arc<dyn Clock>) -> LocalBroker {
        let broker = LocalBroker::new(clock);
        let spec = |name: &str| TopicSpec {
            name: Topic::new(name),
            partitions: PARTITIONS.unsigned_abs(),
            cleanup: Cleanup::Delete { retention: None },
            message_bytes_max: None,
        };
        broker.create_topics(&[spec("in"), spec("out")]).unwrap();
        broker
    }

    fn real_time() -> LocalBroker {
        broker(Arc::new(SystemClock::new()))
    }

    fn membership(member: &str) -> Membership {
        Membership {
            group: "copy".to_owned(),
            member: member.to_owned(),
            lead: Topic::new("in"),
            co_partitioned: Vec::new(),
            guarantee: ProcessingGuarantee::ExactlyOnce,
            commit_interval: Membership::COMMIT_INTERVAL,
        }
    }

    /// Assigns `tasks` and resumes their inputs.
    fn assign(member: &mut dyn Member, tasks: &[Partition]) -> Result<(), BrokerError> {
        member.assign(tasks)?;
        let inputs: Vec<_> = tasks
            .iter()
            .flat_map(|task| membership("").inputs_of(*task).collect::<Vec<_>>())
            .collect();
        member.resume(&inputs)
    }

    fn at(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition { topic: Topic::new(topic), partition: Partition(partition) }
    }

    fn record(topic: &str, partition: i32, value: &[u8]) -> OutputRecord {
        OutputRecord {
            topic: Topic::new(topic),
            partition: Some(Partition(partition)),
            timestamp: EventTime(0),
            key: None,
            value: Some(value.to_vec()),
            headers: Vec::new(),
        }
    }

    /// Runs `wait` on a thread, and `wake` once that thread is about to wait. The thread must return whether it waits
    /// before `wake` or after it.
    fn result_after_wake<T: Send + 'static>(
        wait: impl FnOnce(&mpsc::Sender<()>) -> T + Send + 'static,
        wake: impl FnOnce(),
    ) -> T {
        let (ready, is_ready) = mpsc::channel();
        let (sender, receiver) = mpsc::channel();
        let waiting = thread::spawn(move || sender.send(wait(&ready)).unwrap());
        is_ready.recv().unwrap();
        wake();
        let result = receiver.recv_timeout(FOREVER / 2).expect("no wake-up is missed");
        waiting.join().unwrap();
        result
    }

    #[test]
    fn a_reader_wakes_when_a_record_is_published() {
        let broker = real_time();
        let read = {
            let broker = broker.clone();
            move |ready: &mpsc::Sender<()>| {
                let mut records = Vec::new();
                let mut reader = broker.read(&at("in", 0), ReadFrom::End).unwrap();
                assert_eq!(reader.read(FOREVER, &mut records).unwrap(), ReadTo::End);
                ready.send(()).unwrap();
                assert_eq!(reader.read(FOREVER, &mut records).unwrap(), ReadTo::End);
                records.len()
            }
        };
        let publish = || {
            let mut publisher = broker.publish().unwrap();
            publisher.send(record("in", 1, b"not this one")).unwrap();
            publisher.send(record("in", 0, b"x")).unwrap();
            publisher.flush().unwrap();
        };
        assert_eq!(result_after_wake(read, publish), 1);
    }

    #[test]
    fn a_member_wakes_for_a_rebalance_and_for_a_commit() {
        let broker = real_time();
        let mut first = broker.join(&membership("a")).unwrap();
        let all: Vec<Partition> = (0..PARTITIONS).map(Partition).collect();
        let assigned = Some(Rebalance::Assigned(all.clone()));
        assert_eq!(first.poll(FOREVER, &mut Vec::new()).unwrap(), assigned);
        first.assign(&all).unwrap();
        let (left, has_left) = mpsc::channel();
        let second = {
            let broker = broker.clone();
            move |ready: &mpsc::Sender<()>| {
                let mut records = Vec::new();
                let mut member = broker.join(&membership("b")).unwrap();
                assert_eq!(
                    member.poll(FOREVER, &mut records).unwrap(),
                    Some(Rebalance::Assigned(Vec::new()))
                );
                member.assign(&[]).unwrap();
                ready.send(()).unwrap();
                let rebalance = member.poll(FOREVER, &mut records).unwrap();
                assert_eq!(rebalance, Some(Rebalance::Assigned(vec![Partition(2), Partition(3)])));
                assign(member.as_mut(), &[Partition(2), Partition(3)]).unwrap();
                left.send(()).unwrap();
                assert_eq!(member.poll(FOREVER, &mut records).unwrap(), None);
                records.len()
            }
        };
        let wake = || {
            let rebalance = first.poll(FOREVER, &mut Vec::new()).unwrap();
            let Some(Rebalance::Revoked { tasks, lost: false }) = rebalance else {
                panic!("{rebalance:?}");
            };
            first.unassign(&tasks).unwrap();
            has_left.recv().unwrap();
            first.send(record("in", 3, b"x").as_ref()).unwrap();
            first.send(record("in", 3, b"y").as_ref()).unwrap();
            first.commit(&[]).unwrap();
        };
        assert_eq!(result_after_wake(second, wake), 2);
    }

    #[test]
    fn a_waiting_member_wakes_when_it_is_expelled_or_fenced() {
        let clock = Arc::new(ManualClock::at(WallTime(0)));
        let time: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let broker = broker(time);
        let wait = |broker: LocalBroker| {
            move |ready: &mpsc::Sender<()>| {
                let mut member = broker.join(&membership("a")).unwrap();
                let mut records = Vec::new();
                while let Some(Rebalance::Assigned(tasks)) =
                    member.poll(Duration::ZERO, &mut records).unwrap()
                {
                    member.assign(&tasks).unwrap();
                }
                ready.send(()).unwrap();
                match member.poll(FOREVER, &mut records) {
                    Ok(Some(Rebalance::Revoked { lost, .. })) => format!("revoked, lost: {lost}"),
                    Err(BrokerError::Fenced(_)) => "fenced".to_owned(),
                    other => format!("{other:?}"),
                }
            }
        };
        let fenced = result_after_wake(wait(broker.clone()), || {
            drop(broker.join(&membership("a")).unwrap())
        });
        assert_eq!(fenced, "fenced");
        let expelled = result_after_wake(wait(broker.clone()), || {
            clock.advance(LocalSettings::default().session_timeout);
            assert_eq!(broker.partitions(&Topic::new("in")).unwrap(), Some(4));
            drop(broker.read(&at("in", 0), ReadFrom::End).unwrap());
        });
        assert_eq!(expelled, "revoked, lost: true");
    }

    #[test]
    fn a_read_without_wait_returns_at_once_and_a_short_wait_ends() {
        let broker = real_time();
        let mut reader = broker.read(&at("in", 0), ReadFrom::Beginning).unwrap();
        for wait in [Duration::ZERO, Duration::ZERO, Duration::from_millis(1)] {
            assert_eq!(reader.read(wait, &mut Vec::new()).unwrap(), ReadTo::End);
        }
    }

    /// Copies `in/p` to `out/p` until `is_over`, and joins again when fenced.
    fn copy(broker: &LocalBroker, name: &str, is_over: &AtomicBool, commits: &AtomicUsize) {
        while !is_over.load(Ordering::SeqCst) {
            let mut member = broker.join(&membership(name)).unwrap();
            let mut offsets = BTreeMap::new();
            let ended = loop {
                if is_over.load(Ordering::SeqCst) {
                    break member.leave();
                }
                match copy_batch(&mut *member, &mut offsets) {
                    Ok(()) => drop(commits.fetch_add(1, Ordering::SeqCst)),
                    Err(BrokerError::Abort(_)) => {
                        offsets.clear();
                        member.abort().unwrap();
                    }
                    Err(error) => break Err(error),
                }
            };
            match ended {
                Ok(()) | Err(BrokerError::Fenced(_)) => {}
                Err(other) => panic!("{name}: {other}"),
            }
        }
    }

    fn copy_batch(
        member: &mut dyn Member,
        offsets: &mut BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), BrokerError> {
        let mut records = Vec::new();
        let rebalance = member.poll(Duration::from_millis(5), &mut records)?;
        for read in records {
            let value = read.value.expect("every record has one");
            member.send(record("out", read.source.partition.0, &value).as_ref())?;
            offsets.insert(read.source, read.offset.next());
        }
        if let Some(Rebalance::Revoked { lost: true, .. }) = rebalance {
            offsets.clear();
            member.abort()?;
        } else {
            let committed: Vec<_> = std::mem::take(offsets).into_iter().collect();
            member.commit(&committed)?;
        }
        match rebalance {
            Some(Rebalance::Assigned(tasks)) => assign(member, &tasks),
            Some(Rebalance::Revoked { tasks, .. }) => member.unassign(&tasks),
            None => Ok(()),
        }
    }

    fn values(broker: &LocalBroker, topic: &str, partition: i32) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        let mut reader = broker.read(&at(topic, partition), ReadFrom::Beginning).unwrap();
        while reader.read(Duration::ZERO, &mut records).unwrap() == ReadTo::More {}
        records.into_iter().map(|record| record.value.unwrap()).collect()
    }

    #[test]
    fn three_threads_copy_exactly_once_while_workers_join_leave_and_fence_each_other() {
        const RECORDS: u32 = 20_000;
        let broker = real_time();
        let is_over = AtomicBool::new(false);
        let commits = AtomicUsize::new(0);
        let copied = |broker: &LocalBroker| {
            (0..PARTITIONS).map(|partition| values(broker, "out", partition).len()).sum::<usize>()
        };
        thread::scope(|scope| {
            for name in ["a", "b", "c"] {
                let (broker, is_over, commits) = (broker.clone(), &is_over, &commits);
                scope.spawn(move || copy(&broker, name, is_over, commits));
            }
            let mut publisher = broker.publish().unwrap();
            for number in 0..RECORDS {
                let partition = (number % PARTITIONS.unsigned_abs()).cast_signed();
                publisher.send(record("in", partition, &number.to_le_bytes())).unwrap();
                match number % 2_000 {
                    // A fourth member copies five batches and leaves.
                    500 => {
                        let mut fourth = broker.join(&membership("d")).unwrap();
                        let mut offsets = BTreeMap::new();
                        for _ in 0..5 {
                            copy_batch(&mut *fourth, &mut offsets).unwrap();
                        }
                        fourth.leave().unwrap();
                    }
                    // A second "a" fences the first one, which joins again and fences the second.
                    1_000 => {
                        let mut second = broker.join(&membership("a")).unwrap();
                        let mut offsets = BTreeMap::new();
                        while copy_batch(&mut *second, &mut offsets).is_ok() {}
                    }
                    _ => {}
                }
            }
            while copied(&broker) < RECORDS as usize {
                thread::yield_now();
            }
            is_over.store(true, Ordering::SeqCst);
        });
        for partition in 0..PARTITIONS {
            assert_eq!(values(&broker, "out", partition), values(&broker, "in", partition));
        }
        assert!(commits.load(Ordering::SeqCst) > 0);
    }
}
