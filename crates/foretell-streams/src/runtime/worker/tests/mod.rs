//! Workers on a [`LocalBroker`], turn by turn: each record counts once, after any failure of a worker.

mod inputs;
mod limits;
mod long_running;
mod outputs;
mod readers;
mod rejections;
mod stores;
mod waits;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    codec::{Stored, Utf8},
    local::{LocalBroker, LocalSettings},
    metrics::StreamsMetrics,
    record::{OutputRecord, Partition, Topic, TopicPartition},
    runtime::{
        StatusBoard, StopSignal, TaskState, Worker, WorkerError, WorkerParts, WorkerSettings,
        broker::{Broker, Cleanup, Membership, ProcessingGuarantee, ReadFrom, ReadTo, TopicSpec},
    },
    state::{KeyValueHandle, MemoryStores, StoreSupplier},
    time::{Clock, EventTime, ManualClock, WallTime},
    topology::{Context, ProcessError, Processor, Record, Topology, TopologyBuilder},
};

/// Forwards each word with its number among the words of its key.
struct Count {
    counts: KeyValueHandle<u32>,
}

impl Processor for Count {
    type In = String;
    type Out = String;

    fn process(
        &mut self,
        record: &Record<String>,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        let mut counts = ctx.key_value(&self.counts);
        let count = counts.get(&key)?.unwrap_or(0) + 1;
        counts.put(&key, &count)?;
        let value = format!("{} {count}", record.value);
        ctx.forward(&Record { value, ..record.clone() })
    }
}

/// A local cluster with the topics of a topology, and workers on a manual clock.
struct Harness {
    clock: Arc<ManualClock>,
    broker: LocalBroker,
    topology: Arc<Topology>,
    metrics: StreamsMetrics,
    board: StatusBoard,
    guarantee: ProcessingGuarantee,
}

const PARTITIONS: u32 = 4;
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// Longer than the transaction timeout of a local broker, shorter than its session timeout.
const TRANSACTION_OVER: Duration = Duration::from_secs(11);
const SESSION_OVER: Duration = Duration::from_secs(46);

fn topic(name: &str) -> Topic {
    Topic::new(name)
}

impl Harness {
    /// All topics exist; the counted words go to `out`.
    fn new(out: &str) -> Self {
        Self::with_settings(out, LocalSettings::default())
    }

    fn with_settings(out: &str, settings: LocalSettings) -> Self {
        let mut topology = TopologyBuilder::new("test", topic("dead"));
        let words = topology.source("words", topic("in"), Arc::new(Utf8));
        let counts = topology.key_value_store("counts", Arc::new(Stored::version(1)));
        let stores = [counts.id()];
        let counted =
            topology.process("count", &[words], &stores, move || Count { counts: counts.clone() });
        topology.sink("out", &[counted], topic(out), Arc::new(Utf8));
        Self::of(topology.build(), settings)
    }

    fn of(topology: Topology, settings: LocalSettings) -> Self {
        let topology = Arc::new(topology);
        let clock = Arc::new(ManualClock::at(WallTime(0)));
        let broker = LocalBroker::with_settings(
            Arc::<ManualClock>::clone(&clock) as Arc<dyn Clock>,
            settings,
        );
        let names = ["in", "side", "out", "dead"].map(topic);
        let names = names.into_iter().chain(topology.changelogs());
        let specs = names.map(|name| TopicSpec {
            name,
            partitions: PARTITIONS,
            cleanup: Cleanup::Delete { retention: None },
            message_bytes_max: None,
        });
        broker.create_topics(&specs.collect::<Vec<_>>()).unwrap();
        let metrics = StreamsMetrics::unregistered();
        let (board, guarantee) = (StatusBoard::default(), ProcessingGuarantee::ExactlyOnce);
        Self { clock, broker, topology, metrics, board, guarantee }
    }

    fn create(&self, name: &str, message_bytes_max: Option<u32>) {
        let cleanup = Cleanup::Delete { retention: None };
        let spec =
            TopicSpec { name: topic(name), partitions: PARTITIONS, cleanup, message_bytes_max };
        self.broker.create_topics(&[spec]).unwrap();
    }

    fn membership(&self, group: &str, member: &str) -> Membership {
        Membership {
            group: group.to_owned(),
            member: member.to_owned(),
            lead: self.topology.lead().clone(),
            co_partitioned: self.topology.co_partitioned(),
            guarantee: self.guarantee,
            commit_interval: COMMIT_INTERVAL,
        }
    }

    fn join(&self, name: &str) -> Worker {
        self.join_through(Arc::new(self.broker.clone()), name)
    }

    fn join_through(&self, broker: Arc<dyn Broker>, name: &str) -> Worker {
        self.join_with(broker, Arc::new(MemoryStores), name)
    }

    /// A worker with stores that outlive it.
    fn join_on(&self, stores: &Arc<dyn StoreSupplier>, name: &str) -> Worker {
        self.join_with(Arc::new(self.broker.clone()), Arc::clone(stores), name)
    }

    fn join_with(
        &self,
        broker: Arc<dyn Broker>,
        stores: Arc<dyn StoreSupplier>,
        name: &str,
    ) -> Worker {
        let parts = WorkerParts {
            broker,
            topology: Arc::clone(&self.topology),
            membership: self.membership("group", name),
            stores,
            settings: WorkerSettings { commit_records_max: 100, ..WorkerSettings::default() },
            clock: Arc::<ManualClock>::clone(&self.clock) as Arc<dyn Clock>,
            metrics: self.metrics.clone(),
            board: self.board.clone(),
        };
        Worker::join(parts).unwrap()
    }

    /// Writes one record to each partition, with the partition's number as its key.
    fn put(&self, word: &str) {
        self.put_with_prefix("", word);
    }

    /// Writes one record to each partition, with keys that begin with `prefix`.
    fn put_with_prefix(&self, prefix: &str, word: &str) {
        let mut publisher = self.broker.publish().unwrap();
        for number in 0..PARTITIONS {
            let record = OutputRecord {
                topic: topic("in"),
                partition: Some(Partition(i32::try_from(number).unwrap())),
                timestamp: EventTime(0),
                key: Some(format!("{prefix}{number}").into_bytes()),
                value: Some(word.as_bytes().to_vec()),
                headers: Vec::new(),
            };
            publisher.send(record).unwrap();
        }
        publisher.flush().unwrap();
    }

    /// Runs 8 turns of each worker while the clock does not advance.
    fn turn(workers: &mut [&mut Worker]) {
        for _ in 0..8 {
            for worker in &mut *workers {
                worker.turn(Duration::ZERO).unwrap();
            }
        }
    }

    /// Has `committed` and then `open` processed. No time passes after the commit of the first, so the second is not
    /// committed.
    fn leave_open(&self, worker: &mut Worker, committed: &str, open: &str) {
        self.clock.advance(COMMIT_INTERVAL);
        self.put(committed);
        Self::turn(&mut [worker]);
        self.put(open);
        Self::turn(&mut [worker]);
        self.expect_out(&[&format!("{committed} 1")]);
    }

    /// Runs turns of each worker with commits in between.
    fn run(&self, workers: &mut [&mut Worker]) {
        for _ in 0..4 {
            self.clock.advance(COMMIT_INTERVAL);
            Self::turn(workers);
        }
    }

    /// The committed values of a topic, by key, in order.
    fn read(&self, name: &str) -> BTreeMap<Vec<u8>, Vec<String>> {
        let mut records = Vec::new();
        for partition in 0..i32::try_from(PARTITIONS).unwrap() {
            let source = TopicPartition { topic: topic(name), partition: Partition(partition) };
            let mut reader = self.broker.read(&source, ReadFrom::Beginning).unwrap();
            while reader.read(Duration::ZERO, &mut records).unwrap() == ReadTo::More {}
        }
        let mut by_key = BTreeMap::<_, Vec<_>>::new();
        for record in records {
            let value = String::from_utf8(record.value.unwrap_or_default()).unwrap();
            by_key.entry(record.key.unwrap_or_default()).or_default().push(value);
        }
        by_key
    }

    /// Expects these values of each key in the output topic, once and in order.
    fn expect_out(&self, expected: &[&str]) {
        let out = self.read("out");
        let keys = (0..PARTITIONS).map(|number| number.to_string().into_bytes());
        assert!(out.keys().cloned().eq(keys), "{out:?}");
        for (key, values) in out {
            assert_eq!(values, expected, "key {key:?}");
        }
    }

    /// The number of changelog records of each key.
    fn changelog(&self) -> BTreeMap<Vec<u8>, usize> {
        let mut counts = BTreeMap::new();
        for partition in 0..i32::try_from(PARTITIONS).unwrap() {
            let source = TopicPartition {
                topic: self.topology.changelogs()[0].clone(),
                partition: Partition(partition),
            };
            let mut records = Vec::new();
            let mut reader = self.broker.read(&source, ReadFrom::Beginning).unwrap();
            while reader.read(Duration::ZERO, &mut records).unwrap() == ReadTo::More {}
            for record in records {
                *counts.entry(record.key.unwrap_or_default()).or_default() += 1;
            }
        }
        counts
    }

    /// The number of changelog records that all restores so far have read.
    fn restored(&self) -> u64 {
        self.metrics.restored_so_far()
    }

    /// The number of running tasks of a worker, as of its last published status.
    fn running(&self, name: &str) -> usize {
        let board = self.board.read();
        let tasks = board[name].tasks.iter();
        tasks.filter(|task| task.state == TaskState::Running).count()
    }
}

#[test]
fn outputs_are_visible_once_and_only_after_the_commit() {
    let harness = Harness::new("out");
    let mut worker = harness.join("a");
    harness.run(&mut [&mut worker]);
    assert_eq!(harness.running("a"), 4);
    harness.leave_open(&mut worker, "one", "two");
    harness.run(&mut [&mut worker]);
    harness.expect_out(&["one 1", "two 2"]);
    harness.run(&mut [&mut worker]);
    harness.expect_out(&["one 1", "two 2"]);
}

#[test]
fn records_of_an_aborted_transaction_are_processed_again() {
    let harness = Harness::new("out");
    let mut worker = harness.join("a");
    harness.run(&mut [&mut worker]);
    harness.leave_open(&mut worker, "one", "two");
    harness.clock.advance(TRANSACTION_OVER);
    harness.put("three");
    Harness::turn(&mut [&mut worker]);
    harness.run(&mut [&mut worker]);
    harness.expect_out(&["one 1", "two 2", "three 3"]);
}

#[test]
fn stores_move_with_their_tasks_when_a_second_worker_joins() {
    let harness = Harness::new("out");
    let mut first = harness.join("a");
    harness.put("one");
    harness.run(&mut [&mut first]);
    assert_eq!(harness.running("a"), 4);
    let mut second = harness.join("b");
    harness.put("two");
    harness.run(&mut [&mut first, &mut second]);
    assert_eq!((harness.running("a"), harness.running("b")), (2, 2));
    harness.put("three");
    harness.run(&mut [&mut second, &mut first]);
    harness.expect_out(&["one 1", "two 2", "three 3"]);
}

#[test]
fn the_successor_of_a_crashed_worker_restores_and_continues() {
    let harness = Harness::new("out");
    let mut first = harness.join("a");
    harness.run(&mut [&mut first]);
    harness.leave_open(&mut first, "one", "two");
    drop(first);
    let mut second = harness.join("b");
    harness.run(&mut [&mut second]);
    harness.expect_out(&["one 1"]);
    harness.clock.advance(SESSION_OVER);
    harness.run(&mut [&mut second]);
    assert_eq!(harness.running("b"), 4);
    harness.expect_out(&["one 1", "two 2"]);
}

/// A zombie has left a transaction open, in a cluster with a long transaction timeout. Another worker has committed behind
/// it, where a read-committed reader does not get to yet, and has crashed: the restore of the next owner has to wait.
#[test]
fn a_restore_waits_for_the_open_transaction_of_a_zombie() {
    let settings = LocalSettings {
        session_timeout: Duration::from_secs(10),
        transaction_timeout: Duration::from_secs(100),
        ..LocalSettings::default()
    };
    let harness = Harness::with_settings("out", settings);
    let mut second = harness.join("b");
    harness.run(&mut [&mut second]);
    let [changelog] = &harness.topology.changelogs()[..] else { panic!("there is one store") };
    let mut zombie = harness.broker.join(&harness.membership("zombies", "zombie")).unwrap();
    for partition in (0..i32::try_from(PARTITIONS).unwrap()).map(Partition) {
        let record = OutputRecord {
            topic: changelog.clone(),
            partition: Some(partition),
            timestamp: EventTime(0),
            key: Some(b"zombie".to_vec()),
            value: Some(b"never committed".to_vec()),
            headers: Vec::new(),
        };
        zombie.send(record.as_ref()).unwrap();
    }
    harness.put("one");
    harness.run(&mut [&mut second]);
    harness.expect_out(&["one 1"]);
    drop(second);
    let mut third = harness.join("c");
    harness.put("two");
    // A restore that waits for records takes real time in each turn.
    let wait = |third: &mut Worker, times| {
        for _ in 0..times {
            harness.clock.advance(Duration::from_secs(5));
            third.turn(Duration::ZERO).unwrap();
            third.turn(Duration::ZERO).unwrap();
        }
    };
    wait(&mut third, 5);
    assert_eq!(third.tasks.len(), 4);
    assert_eq!(harness.running("c"), 0, "the restores wait");
    let buffered: usize = third.tasks.iter().map(|(_, active)| active.task.buffered()).sum();
    assert_eq!(buffered, 0, "the inputs are paused");
    wait(&mut third, 20);
    harness.run(&mut [&mut third]);
    harness.expect_out(&["one 1", "two 2"]);
}

#[test]
fn a_fenced_worker_joins_again_with_fresh_tasks() {
    let harness = Harness::new("out");
    let mut worker = harness.join("a");
    harness.run(&mut [&mut worker]);
    harness.leave_open(&mut worker, "one", "two");
    drop(harness.join("a"));
    harness.run(&mut [&mut worker]);
    harness.expect_out(&["one 1", "two 2"]);
}

#[test]
fn two_workers_with_one_name_do_not_fence_each_other_forever() {
    let harness = Harness::new("out");
    let (mut first, mut second) = (harness.join("a"), harness.join("a"));
    let mut turns = (0..100).map(|_| first.turn(Duration::ZERO).and(second.turn(Duration::ZERO)));
    let error = turns.find_map(Result::err).expect("one of them ends");
    assert!(matches!(error, WorkerError::FencedAgain { .. }), "{error}");
}

#[test]
fn a_worker_that_is_stopped_commits_and_leaves_at_once() {
    let harness = Harness::new("out");
    let mut first = harness.join("a");
    harness.run(&mut [&mut first]);
    harness.leave_open(&mut first, "one", "two");
    let stop = StopSignal::default();
    stop.stop();
    first.run(&stop).unwrap();
    harness.expect_out(&["one 1", "two 2"]);
    let mut second = harness.join("b");
    harness.put("three");
    harness.run(&mut [&mut second]);
    harness.expect_out(&["one 1", "two 2", "three 3"]);
}
