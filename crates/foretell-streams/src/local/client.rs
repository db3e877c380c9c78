//! The port's traits over a [`Cluster`] behind a lock: who waits, and who wakes whom.

#[cfg(test)]
use std::collections::BTreeMap;
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use crate::{
    local::{
        LocalSettings,
        cluster::{Cluster, Now},
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
    /// Told whenever [`Cluster::changes`] has changed.
    changed: Condvar,
    clock: Arc<dyn Clock>,
}

/// A worker's part in a group.
pub(crate) struct LocalMember {
    broker: LocalBroker,
    session: Session,
}

struct LocalReader {
    broker: LocalBroker,
    cursor: Cursor,
    /// Whether it has told the end that it is at once more without a look.
    has_told_end_again: bool,
}

/// The cursors of a follower.
struct LocalFollower {
    broker: LocalBroker,
    cursors: Vec<Cursor>,
}

struct LocalPublisher {
    broker: LocalBroker,
}

impl LocalBroker {
    /// A broker without topics, with default limits, whose sessions and transactions time out by `clock`. Waiting for records
    /// takes real time even with a [`ManualClock`](crate::time::ManualClock): wait for [`Duration::ZERO`] there.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_settings(clock, LocalSettings::default())
    }

    /// A broker without topics, with limits of your own.
    #[must_use]
    pub fn with_settings(clock: Arc<dyn Clock>, settings: LocalSettings) -> Self {
        let cluster = Mutex::new(Cluster::new(settings));
        Self { shared: Arc::new(Shared { cluster, changed: Condvar::new(), clock }) }
    }

    /// [`Broker::join`], for who wants to know more of the member than the port allows.
    pub(crate) fn enter(&self, membership: &Membership) -> Result<LocalMember, BrokerError> {
        let session = self.with(|cluster, now| cluster.join(membership, now))?;
        Ok(LocalMember { broker: self.clone(), session })
    }

    /// Runs one operation on the [`Cluster`], for what the port does not offer, such as an administrator's actions. Calls that
    /// wait for records are woken if it changed something.
    pub fn with<T>(&self, operation: impl FnOnce(&mut Cluster, Now) -> T) -> T {
        self.shared.apply(&mut self.shared.lock(), operation)
    }

    /// Repeats `attempt` until it says that something has come, or `wait` has passed; returns its last
    /// answer. It is made again whenever something changed or ran out of time, and holds the lock
    /// meanwhile, so nothing is missed between an attempt and the waiting after it.
    fn wait_for<T>(
        &self,
        wait: Duration,
        mut attempt: impl FnMut(&mut Cluster, Now) -> Result<(T, bool), BrokerError>,
    ) -> Result<T, BrokerError> {
        let shared = &*self.shared;
        let mut cluster = shared.lock();
        let mut left = wait;
        loop {
            let mut answer = shared.apply(&mut cluster, &mut attempt);
            let has_come = |answer: &Result<(T, bool), BrokerError>| {
                answer.as_ref().map_or(true, |(_, something_came)| *something_came)
            };
            if has_come(&answer) || left.is_zero() {
                return answer.map(|(answer, _)| answer);
            }
            let pause = left.min(cluster.idle_max(shared.now()));
            let mut seen = cluster.changes();
            let in_vain = |cluster: &mut Cluster| {
                if cluster.changes() != seen {
                    answer = shared.apply(cluster, &mut attempt);
                    seen = cluster.changes();
                }
                !has_come(&answer)
            };
            let waited = shared.changed.wait_timeout_while(cluster, pause, in_vain);
            cluster = waited.expect(NO_PANIC).0;
            if has_come(&answer) {
                return answer.map(|(answer, _)| answer);
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
        let answer = operation(cluster, self.now());
        if cluster.changes() != before {
            self.changed.notify_all();
        }
        answer
    }
}

impl Broker for LocalBroker {
    fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError> {
        Ok(Box::new(self.enter(membership)?))
    }

    fn read(
        &self,
        source: &TopicPartition,
        from: ReadFrom,
    ) -> Result<Box<dyn Reader>, BrokerError> {
        let cursor = self.with(|cluster, now| cluster.open(source, from, now))?;
        Ok(Box::new(LocalReader { broker: self.clone(), cursor, has_told_end_again: false }))
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

#[cfg(test)]
impl LocalMember {
    /// Where an abort would go back to.
    pub(crate) fn known_offsets(&self) -> BTreeMap<TopicPartition, Offset> {
        self.broker.with(|cluster, _| cluster.known_offsets(&self.session))
    }

    /// Has it forget what it was told of its commits since `known`.
    pub(crate) fn know_only(&mut self, known: BTreeMap<TopicPartition, Offset>) {
        self.session.known = known;
    }

    /// Whether a task is its own just now.
    pub(crate) fn owns(&self, task: Partition) -> bool {
        self.broker.with(|cluster, _| cluster.owns(&self.session, task))
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
            let something_came = rebalance.is_some() || records.len() > before;
            Ok((rebalance, something_came))
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
        Ok(()) // A record that was sent is in the log.
    }

    fn commit(&mut self, offsets: &[(TopicPartition, Offset)]) -> Result<(), BrokerError> {
        self.broker.with(|cluster, now| cluster.commit(&self.session, offsets, now))?;
        self.session.committed(offsets);
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
        if wait.is_zero() && cursor.knows_end && !self.has_told_end_again {
            self.has_told_end_again = true;
            return Ok(ReadTo::End);
        }
        self.has_told_end_again = false;
        self.broker.wait_for(wait, |cluster, now| cluster.read(cursor, now, records))
    }
}

impl Follower for LocalFollower {
    fn open(&mut self, source: &TopicPartition, from: ReadFrom) -> Result<Offset, BrokerError> {
        let cursor = self.broker.with(|cluster, now| cluster.open(source, from, now))?;
        let start = cursor.position;
        self.close(source)?;
        self.cursors.push(cursor);
        Ok(start)
    }

    fn close(&mut self, source: &TopicPartition) -> Result<(), BrokerError> {
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
        Ok(()) // A record that was sent is in the log.
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

    /// Longer than any test should take: who waits for so long has missed its wake-up.
    const FOR_EVER: Duration = Duration::from_secs(60);
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
        }
    }

    /// Takes `tasks`, and has their inputs flow.
    fn take(member: &mut dyn Member, tasks: &[Partition]) -> Result<(), BrokerError> {
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

    /// Starts `wait` on a thread, and lets `wake` happen once that thread is about to wait; whichever
    /// comes first, the answer must come.
    fn wakes<T: Send + 'static>(
        wait: impl FnOnce(&mpsc::Sender<()>) -> T + Send + 'static,
        wake: impl FnOnce(),
    ) -> T {
        let (ready, is_ready) = mpsc::channel();
        let (answer, answered) = mpsc::channel();
        let waiting = thread::spawn(move || answer.send(wait(&ready)).unwrap());
        is_ready.recv().unwrap();
        wake();
        let answer = answered.recv_timeout(FOR_EVER / 2).expect("nobody misses a wake-up");
        waiting.join().unwrap();
        answer
    }

    #[test]
    fn a_reader_wakes_when_a_record_is_published() {
        let broker = real_time();
        let read = {
            let broker = broker.clone();
            move |ready: &mpsc::Sender<()>| {
                let mut records = Vec::new();
                let mut reader = broker.read(&at("in", 0), ReadFrom::End).unwrap();
                assert_eq!(reader.read(FOR_EVER, &mut records).unwrap(), ReadTo::End);
                ready.send(()).unwrap();
                assert_eq!(reader.read(FOR_EVER, &mut records).unwrap(), ReadTo::End);
                records.len()
            }
        };
        let publish = || {
            let mut publisher = broker.publish().unwrap();
            publisher.send(record("in", 1, b"not this one")).unwrap();
            publisher.send(record("in", 0, b"x")).unwrap();
            publisher.flush().unwrap();
        };
        assert_eq!(wakes(read, publish), 1);
    }

    #[test]
    fn a_member_wakes_for_a_rebalance_and_for_a_commit() {
        let broker = real_time();
        let mut first = broker.join(&membership("a")).unwrap();
        let all: Vec<Partition> = (0..PARTITIONS).map(Partition).collect();
        let assigned = Some(Rebalance::Assigned(all.clone()));
        assert_eq!(first.poll(FOR_EVER, &mut Vec::new()).unwrap(), assigned);
        first.assign(&all).unwrap();
        let (left, has_left) = mpsc::channel();
        let second = {
            let broker = broker.clone();
            move |ready: &mpsc::Sender<()>| {
                let mut records = Vec::new();
                let mut member = broker.join(&membership("b")).unwrap();
                assert_eq!(
                    member.poll(FOR_EVER, &mut records).unwrap(),
                    Some(Rebalance::Assigned(Vec::new()))
                );
                member.assign(&[]).unwrap();
                ready.send(()).unwrap();
                let rebalance = member.poll(FOR_EVER, &mut records).unwrap();
                assert_eq!(rebalance, Some(Rebalance::Assigned(vec![Partition(2), Partition(3)])));
                take(member.as_mut(), &[Partition(2), Partition(3)]).unwrap();
                left.send(()).unwrap();
                assert_eq!(member.poll(FOR_EVER, &mut records).unwrap(), None);
                records.len()
            }
        };
        let wake = || {
            let rebalance = first.poll(FOR_EVER, &mut Vec::new()).unwrap();
            let Some(Rebalance::Revoked { tasks, lost: false }) = rebalance else {
                panic!("{rebalance:?}");
            };
            first.unassign(&tasks).unwrap();
            has_left.recv().unwrap();
            first.send(record("in", 3, b"x").as_ref()).unwrap();
            first.send(record("in", 3, b"y").as_ref()).unwrap();
            first.commit(&[]).unwrap();
        };
        assert_eq!(wakes(second, wake), 2);
    }

    #[test]
    fn a_member_that_waits_hears_that_it_was_expelled_or_fenced() {
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
                match member.poll(FOR_EVER, &mut records) {
                    Ok(Some(Rebalance::Revoked { lost, .. })) => format!("revoked, lost: {lost}"),
                    Err(BrokerError::Fenced(_)) => "fenced".to_owned(),
                    other => format!("{other:?}"),
                }
            }
        };
        let fenced = wakes(wait(broker.clone()), || drop(broker.join(&membership("a")).unwrap()));
        assert_eq!(fenced, "fenced");
        let expelled = wakes(wait(broker.clone()), || {
            clock.advance(LocalSettings::default().session_timeout);
            assert_eq!(broker.partitions(&Topic::new("in")).unwrap(), Some(4));
            drop(broker.read(&at("in", 0), ReadFrom::End).unwrap());
        });
        assert_eq!(expelled, "revoked, lost: true");
    }

    #[test]
    fn no_wait_is_no_wait_and_a_short_one_ends() {
        let broker = real_time();
        let mut reader = broker.read(&at("in", 0), ReadFrom::Beginning).unwrap();
        for wait in [Duration::ZERO, Duration::ZERO, Duration::from_millis(1)] {
            assert_eq!(reader.read(wait, &mut Vec::new()).unwrap(), ReadTo::End);
        }
    }

    /// A worker's life until `is_over`: copies `in/p` to `out/p`; when it is fenced it joins again.
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
            Some(Rebalance::Assigned(tasks)) => take(member, &tasks),
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
    fn three_threads_copy_exactly_once_while_workers_come_go_and_fence_each_other() {
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
                    // A guest works for a moment and leaves in order.
                    500 => {
                        let mut guest = broker.join(&membership("d")).unwrap();
                        let mut offsets = BTreeMap::new();
                        for _ in 0..5 {
                            copy_batch(&mut *guest, &mut offsets).unwrap();
                        }
                        guest.leave().unwrap();
                    }
                    // Another "a": the first is fenced, comes back, and fences this one.
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
