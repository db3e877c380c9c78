//! Restores with readers that do what librdkafka does: return records and an error from one call, report an old end again,
//! and find their position truncated.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use crate::{
    local::{LocalBroker, LocalSettings},
    record::{InputRecord, Offset, OutputRecord, Partition, Topic, TopicPartition},
    runtime::{
        StopSignal,
        broker::{
            Broker, BrokerError, Follower, Isolation, Member, Membership, Publisher, ReadFrom,
            ReadTo, Reader, TopicSpec,
        },
        worker::tests::{
            Harness, PARTITIONS,
            stores::{FailingStores, StoreFailures},
        },
    },
    state::{DiskStores, MemoryStores, StoreSupplier},
    time::EventTime,
};

/// A [`LocalBroker`] whose readers report the first end that they find, also after later writes.
struct StaleReaders {
    broker: LocalBroker,
    /// The number of reads with records still to return an error as well.
    errors: Arc<AtomicI64>,
    /// The number of readers still to find their position truncated; such a reader never recovers.
    truncations: Arc<AtomicI64>,
}

struct StaleReader {
    reader: Box<dyn Reader>,
    source: TopicPartition,
    errors: Arc<AtomicI64>,
    truncations: Arc<AtomicI64>,
    is_truncated: bool,
    is_at_end: bool,
}

impl StaleReaders {
    fn over(broker: &LocalBroker, errors: i64) -> Arc<Self> {
        let errors = Arc::new(AtomicI64::new(errors));
        Arc::new(Self { broker: broker.clone(), errors, truncations: Arc::default() })
    }
}

impl Reader for StaleReader {
    fn read(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<ReadTo, BrokerError> {
        self.is_truncated |= self.truncations.fetch_sub(1, Ordering::SeqCst) > 0;
        if self.is_truncated {
            return Err(BrokerError::OutOfRange(self.source.clone()));
        }
        if self.is_at_end {
            return Ok(ReadTo::End);
        }
        let before = records.len();
        let read_to = self.reader.read(wait, records)?;
        if records.len() > before && self.errors.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Err(BrokerError::Retry("there were records, too".to_owned()));
        }
        self.is_at_end = read_to == ReadTo::End;
        Ok(read_to)
    }
}

impl Broker for StaleReaders {
    fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError> {
        self.broker.join(membership)
    }

    fn read(
        &self,
        source: &TopicPartition,
        from: ReadFrom,
    ) -> Result<Box<dyn Reader>, BrokerError> {
        let (errors, truncations) = (Arc::clone(&self.errors), Arc::clone(&self.truncations));
        let (reader, source) = (self.broker.read(source, from)?, source.clone());
        Ok(Box::new(StaleReader {
            reader,
            source,
            errors,
            truncations,
            is_truncated: false,
            is_at_end: false,
        }))
    }

    fn follow(&self) -> Result<Box<dyn Follower>, BrokerError> {
        self.broker.follow()
    }

    fn publish(&self) -> Result<Box<dyn Publisher>, BrokerError> {
        self.broker.publish()
    }

    fn create_topics(&self, topics: &[TopicSpec]) -> Result<Vec<Topic>, BrokerError> {
        self.broker.create_topics(topics)
    }

    fn end(&self, source: &TopicPartition, isolation: Isolation) -> Result<Offset, BrokerError> {
        self.broker.end(source, isolation)
    }

    fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BrokerError> {
        self.broker.partitions(topic)
    }
}

/// A zombie of another group writes to every changelog and leaves its transaction open.
fn leave_open(harness: &Harness, name: &str) {
    let mut zombie = harness.broker.join(&harness.membership("zombies", name)).unwrap();
    for partition in (0..i32::try_from(PARTITIONS).unwrap()).map(Partition) {
        let record = OutputRecord {
            topic: harness.topology.changelogs()[0].clone(),
            partition: Some(partition),
            timestamp: EventTime(0),
            key: Some(b"zombie".to_vec()),
            value: Some(b"never committed".to_vec()),
            headers: Vec::new(),
        };
        zombie.send(record.as_ref()).unwrap();
    }
}

fn with_long_transactions() -> Harness {
    let settings = LocalSettings {
        session_timeout: Duration::from_secs(10),
        transaction_timeout: Duration::from_secs(100),
        ..LocalSettings::default()
    };
    Harness::with_settings("out", settings)
}

fn memory() -> Arc<dyn StoreSupplier> {
    Arc::new(MemoryStores)
}

#[test]
fn records_that_are_read_with_an_error_are_restored() {
    let harness = Harness::new("out");
    let mut first = harness.join("a");
    for word in ["one", "two"] {
        harness.put(word);
        harness.run(&mut [&mut first]);
    }
    let stop = StopSignal::default();
    stop.stop();
    first.run(&stop).unwrap();
    let mut second = harness.join_with(StaleReaders::over(&harness.broker, 3), memory(), "a");
    harness.put("three");
    harness.run(&mut [&mut second]);
    harness.expect_out(&["one 1", "two 2", "three 3"]);
}

/// Records behind the open transaction of a zombie can be read once that is decided, and only by another reader.
#[test]
fn a_restore_does_not_rely_on_an_end_that_was_found_earlier() {
    let harness = with_long_transactions();
    let mut first = harness.join("a");
    harness.run(&mut [&mut first]);
    leave_open(&harness, "zombie");
    harness.put("one");
    harness.run(&mut [&mut first]);
    drop(first);
    let mut second = harness.join_with(StaleReaders::over(&harness.broker, 0), memory(), "b");
    harness.put("two");
    for _ in 0..30 {
        harness.clock.advance(Duration::from_secs(5));
        harness.run(&mut [&mut second]);
    }
    harness.expect_out(&["one 1", "two 2"]);
}

/// A reader returns the mark of a changelog once, with or without an error.
#[test]
fn a_mark_that_is_read_with_an_error_does_not_cause_a_rebuild() {
    let harness = Harness::new("out");
    let folder = tempfile::tempdir().unwrap();
    let on_disk =
        || -> Arc<dyn StoreSupplier> { Arc::new(DiskStores::open(folder.path()).unwrap()) };
    let stores = on_disk();
    let mut first = harness.join_on(&stores, "a");
    harness.put("one");
    harness.run(&mut [&mut first]);
    let stop = StopSignal::default();
    stop.stop();
    first.run(&stop).unwrap();
    drop(stores);
    let broker = StaleReaders::over(&harness.broker, i64::from(PARTITIONS));
    let errors = Arc::clone(&broker.errors);
    let mut second = harness.join_with(broker, on_disk(), "a");
    harness.put("two");
    harness.run(&mut [&mut second]);
    harness.expect_out(&["one 1", "two 2"]);
    assert!(errors.load(Ordering::SeqCst) <= 0, "each mark was read with an error");
    assert_eq!(harness.restored(), 0);
}

/// Records that were fetched when the inputs were paused wait for the restore, which starts again.
#[test]
fn a_truncated_restore_loses_no_record_that_was_fetched_meanwhile() {
    let harness = Harness::new("out");
    let failures = Arc::new(StoreFailures::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(FailingStores(Arc::clone(&failures)));
    let broker = StaleReaders::over(&harness.broker, 0);
    let truncations = Arc::clone(&broker.truncations);
    let mut worker = harness.join_with(broker, stores, "a");
    harness.put("one");
    harness.run(&mut [&mut worker]);
    failures.is_damaged.store(true, Ordering::SeqCst);
    truncations.store(1, Ordering::SeqCst);
    for word in ["two", "three"] {
        harness.put(word);
        harness.run(&mut [&mut worker]);
    }
    assert!(truncations.load(Ordering::SeqCst) <= 0, "a reader was truncated");
    harness.expect_out(&["one 1", "two 2", "three 3"]);
}

#[test]
fn a_long_restore_shows_its_progress() {
    let harness = with_long_transactions();
    let mut first = harness.join("a");
    harness.put("one");
    harness.run(&mut [&mut first]);
    let shown = || {
        let status = harness.board.read()["a"].clone();
        let restored = status.tasks.iter().map(|task| task.restored).sum::<usize>();
        let remaining = status.tasks.iter().map(|task| task.restore_remaining).sum::<u64>();
        (status.is_running(), restored, remaining)
    };
    assert_eq!(shown(), (true, 0, 0));
    let stop = StopSignal::default();
    stop.stop();
    first.run(&stop).unwrap();
    leave_open(&harness, "b");
    let mut second = harness.join("a");
    assert_eq!(shown(), (false, 0, 0), "it has no assignment yet");
    Harness::turn(&mut [&mut second]);
    assert_eq!(shown(), (false, 0, 0));
    for _ in 0..5 {
        harness.clock.advance(Duration::from_secs(1));
        Harness::turn(&mut [&mut second]);
    }
    // After each record there are the marker of its transaction and a record of the open one.
    assert_eq!(shown(), (false, PARTITIONS as usize, 2 * u64::from(PARTITIONS)));
}
