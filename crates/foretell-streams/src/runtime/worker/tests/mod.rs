//! Workers on a [`LocalBroker`], turn by turn: whatever happens to a worker, each record counts once.

mod inputs;
mod lives;
mod outputs;
mod pace;
mod readers;
mod refusals;
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
        active_task::ActiveTask,
        broker::{Broker, Cleanup, Membership, ProcessingGuarantee, ReadFrom, ReadTo, TopicSpec},
    },
    state::{KeyValueHandle, MemoryStores, StoreSupplier},
    time::{Clock, EventTime, ManualClock, WallTime},
    topology::{Context, ProcessError, Processor, Record, Topology, TopologyBuilder},
};

/// Sends each word on with its number among those of its key.
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

struct World {
    clock: Arc<ManualClock>,
    broker: LocalBroker,
    topology: Arc<Topology>,
    metrics: StreamsMetrics,
    board: StatusBoard,
    guarantee: ProcessingGuarantee,
}

const PARTITIONS: u32 = 4;
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// Longer than a local transaction may be open, shorter than a session.
const TRANSACTION_OVER: Duration = Duration::from_secs(11);
const SESSION_OVER: Duration = Duration::from_secs(46);

fn topic(name: &str) -> Topic {
    Topic::new(name)
}

impl World {
    /// With all topics there; the words go to `out`.
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
        }
    }

    fn join(&self, name: &str) -> Worker {
        self.join_through(Arc::new(self.broker.clone()), name)
    }

    fn join_through(&self, broker: Arc<dyn Broker>, name: &str) -> Worker {
        self.join_with(broker, Arc::new(MemoryStores), name)
    }

    /// With stores that outlive the worker.
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
            settings: WorkerSettings {
                commit_interval: COMMIT_INTERVAL,
                commit_records_max: 100,
                ..WorkerSettings::default()
            },
            clock: Arc::<ManualClock>::clone(&self.clock) as Arc<dyn Clock>,
            metrics: self.metrics.clone(),
            board: self.board.clone(),
        };
        Worker::join(parts).unwrap()
    }

    /// One record a partition, its key the partition's number.
    fn say(&self, word: &str) {
        self.say_of("", word);
    }

    /// The same, under keys that begin with `prefix`.
    fn say_of(&self, prefix: &str, word: &str) {
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

    /// Turns each worker some times while the clock does not advance.
    fn turn(workers: &mut [&mut Worker]) {
        for _ in 0..8 {
            for worker in &mut *workers {
                worker.turn(Duration::ZERO).unwrap();
            }
        }
    }

    /// Says `committed` and then `open`, and has both processed; no time passes after the commit of
    /// the first, so that the second is not committed.
    fn leave_open(&self, worker: &mut Worker, committed: &str, open: &str) {
        self.clock.advance(COMMIT_INTERVAL);
        self.say(committed);
        Self::turn(&mut [worker]);
        self.say(open);
        Self::turn(&mut [worker]);
        self.expect_out(&[&format!("{committed} 1")]);
    }

    /// The same, and each commits now and then.
    fn run(&self, workers: &mut [&mut Worker]) {
        for _ in 0..4 {
            self.clock.advance(COMMIT_INTERVAL);
            Self::turn(workers);
        }
    }

    /// What is committed to a topic: the values of each key, in order.
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

    /// What was said of each key has come out once, in order, and was counted once.
    fn expect_out(&self, expected: &[&str]) {
        let out = self.read("out");
        let keys = (0..PARTITIONS).map(|number| number.to_string().into_bytes());
        assert!(out.keys().cloned().eq(keys), "{out:?}");
        for (key, values) in out {
            assert_eq!(values, expected, "of key {key:?}");
        }
    }

    /// How many records each key has in the changelog.
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

    /// Changelog records that all restores so far have read.
    fn restored(&self) -> u64 {
        self.metrics.restored_so_far()
    }

    /// The tasks of one worker that run, as it said at its last commit.
    fn running(&self, name: &str) -> usize {
        let board = self.board.read();
        let tasks = board[name].tasks.iter();
        tasks.filter(|task| task.state == TaskState::Running).count()
    }
}

#[test]
fn records_pass_once_and_only_when_committed() {
    let world = World::new("out");
    let mut worker = world.join("a");
    world.run(&mut [&mut worker]);
    assert_eq!(world.running("a"), 4);
    world.leave_open(&mut worker, "one", "two");
    world.run(&mut [&mut worker]);
    world.expect_out(&["one 1", "two 2"]);
    world.run(&mut [&mut worker]);
    world.expect_out(&["one 1", "two 2"]);
}

#[test]
fn an_aborted_transaction_is_done_again() {
    let world = World::new("out");
    let mut worker = world.join("a");
    world.run(&mut [&mut worker]);
    world.leave_open(&mut worker, "one", "two");
    world.clock.advance(TRANSACTION_OVER);
    world.say("three");
    World::turn(&mut [&mut worker]);
    world.run(&mut [&mut worker]);
    world.expect_out(&["one 1", "two 2", "three 3"]);
}

#[test]
fn two_workers_share_the_partitions_and_the_counts_move_along() {
    let world = World::new("out");
    let mut first = world.join("a");
    world.say("one");
    world.run(&mut [&mut first]);
    assert_eq!(world.running("a"), 4);
    let mut second = world.join("b");
    world.say("two");
    world.run(&mut [&mut first, &mut second]);
    assert_eq!((world.running("a"), world.running("b")), (2, 2));
    world.say("three");
    world.run(&mut [&mut second, &mut first]);
    world.expect_out(&["one 1", "two 2", "three 3"]);
}

#[test]
fn who_takes_over_from_a_crash_restores_and_goes_on() {
    let world = World::new("out");
    let mut first = world.join("a");
    world.run(&mut [&mut first]);
    world.leave_open(&mut first, "one", "two");
    drop(first);
    let mut second = world.join("b");
    world.run(&mut [&mut second]);
    world.expect_out(&["one 1"]);
    world.clock.advance(SESSION_OVER);
    world.run(&mut [&mut second]);
    assert_eq!(world.running("b"), 4);
    world.expect_out(&["one 1", "two 2"]);
}

/// A zombie has left a transaction open, in a cluster where they may stay open for long. Another has committed behind
/// it, where no reader of what is committed gets to yet, and is gone, too: the next reader has to wait.
#[test]
fn a_zombies_open_transaction_hides_nothing_from_a_restore() {
    let settings = LocalSettings {
        session_timeout: Duration::from_secs(10),
        transaction_timeout: Duration::from_secs(100),
        ..LocalSettings::default()
    };
    let world = World::with_settings("out", settings);
    let mut second = world.join("b");
    world.run(&mut [&mut second]);
    let [changelog] = &world.topology.changelogs()[..] else { panic!("there is one store") };
    let mut zombie = world.broker.join(&world.membership("zombies", "zombie")).unwrap();
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
    world.say("one");
    world.run(&mut [&mut second]);
    world.expect_out(&["one 1"]);
    drop(second);
    let mut third = world.join("c");
    world.say("two");
    // A restore that waits takes real time at each turn.
    let wait = |third: &mut Worker, times| {
        for _ in 0..times {
            world.clock.advance(Duration::from_secs(5));
            third.turn(Duration::ZERO).unwrap();
            third.turn(Duration::ZERO).unwrap();
        }
    };
    wait(&mut third, 5);
    assert_eq!(third.active_tasks.len(), 4);
    assert_eq!(world.running("c"), 0, "they wait");
    let buffered = |active: &ActiveTask| active.task.buffered();
    assert_eq!(third.active_tasks.values().map(buffered).sum::<usize>(), 0, "their inputs rest");
    wait(&mut third, 20);
    world.run(&mut [&mut third]);
    world.expect_out(&["one 1", "two 2"]);
}

#[test]
fn who_is_fenced_joins_again_with_fresh_tasks() {
    let world = World::new("out");
    let mut worker = world.join("a");
    world.run(&mut [&mut worker]);
    world.leave_open(&mut worker, "one", "two");
    drop(world.join("a"));
    world.run(&mut [&mut worker]);
    world.expect_out(&["one 1", "two 2"]);
}

#[test]
fn two_of_one_name_do_not_fence_each_other_for_ever() {
    let world = World::new("out");
    let (mut first, mut second) = (world.join("a"), world.join("a"));
    let mut turns = (0..100).map(|_| first.turn(Duration::ZERO).and(second.turn(Duration::ZERO)));
    let error = turns.find_map(Result::err).expect("one of them gives up");
    assert!(matches!(error, WorkerError::FencedAgain { .. }), "{error}");
}

#[test]
fn who_is_reported_to_stop_commits_and_leaves_at_once() {
    let world = World::new("out");
    let mut first = world.join("a");
    world.run(&mut [&mut first]);
    world.leave_open(&mut first, "one", "two");
    let stop = StopSignal::default();
    stop.stop();
    first.run(&stop).unwrap();
    world.expect_out(&["one 1", "two 2"]);
    let mut second = world.join("b");
    world.say("three");
    world.run(&mut [&mut second]);
    world.expect_out(&["one 1", "two 2", "three 3"]);
}
