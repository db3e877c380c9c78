//! Readers as unkind as librdkafka: records and an error from one call, and an end that is told again.

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
            PARTITIONS, World,
            stores::{AilingStores, Ailment},
        },
    },
    state::{DiskStores, MemoryStores, StoreSupplier},
    time::EventTime,
};

/// A [`LocalBroker`] whose readers stay at the first end that they tell.
struct Unkind {
    broker: LocalBroker,
    /// So many reads that bring records end with an error, too.
    errors: Arc<AtomicI64>,
    /// So many readers find that the log was cut off, and are of no use then.
    cuts: Arc<AtomicI64>,
}

struct UnkindReader {
    reader: Box<dyn Reader>,
    source: TopicPartition,
    errors: Arc<AtomicI64>,
    cuts: Arc<AtomicI64>,
    is_cut: bool,
    is_at_end: bool,
}

impl Unkind {
    fn over(broker: &LocalBroker, errors: i64) -> Arc<Self> {
        let errors = Arc::new(AtomicI64::new(errors));
        Arc::new(Self { broker: broker.clone(), errors, cuts: Arc::default() })
    }
}

impl Reader for UnkindReader {
    fn read(
        &mut self,
        wait: Duration,
        records: &mut Vec<InputRecord>,
    ) -> Result<ReadTo, BrokerError> {
        self.is_cut |= self.cuts.fetch_sub(1, Ordering::SeqCst) > 0;
        if self.is_cut {
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

impl Broker for Unkind {
    fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError> {
        self.broker.join(membership)
    }

    fn read(
        &self,
        source: &TopicPartition,
        from: ReadFrom,
    ) -> Result<Box<dyn Reader>, BrokerError> {
        let (errors, cuts) = (Arc::clone(&self.errors), Arc::clone(&self.cuts));
        let (reader, source) = (self.broker.read(source, from)?, source.clone());
        Ok(Box::new(UnkindReader { reader, source, errors, cuts, is_cut: false, is_at_end: false }))
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

/// Somebody whom nobody waits for writes to every changelog and is no more; transactions stay open for long.
fn leave_open(world: &World, name: &str) {
    let mut zombie = world.broker.join(&world.membership("zombies", name)).unwrap();
    for partition in (0..i32::try_from(PARTITIONS).unwrap()).map(Partition) {
        let record = OutputRecord {
            topic: world.topology.changelogs()[0].clone(),
            partition: Some(partition),
            timestamp: EventTime(0),
            key: Some(b"zombie".to_vec()),
            value: Some(b"never committed".to_vec()),
            headers: Vec::new(),
        };
        zombie.send(record.as_ref()).unwrap();
    }
}

fn with_long_transactions() -> World {
    let settings = LocalSettings {
        session_timeout: Duration::from_secs(10),
        transaction_timeout: Duration::from_secs(100),
        ..LocalSettings::default()
    };
    World::with_settings("out", settings)
}

fn memory() -> Arc<dyn StoreSupplier> {
    Arc::new(MemoryStores)
}

#[test]
fn records_that_come_with_an_error_are_restored() {
    let world = World::new("out");
    let mut first = world.join("a");
    for word in ["one", "two"] {
        world.say(word);
        world.run(&mut [&mut first]);
    }
    let stop = StopSignal::default();
    stop.stop();
    first.run(&stop).unwrap();
    let mut second = world.join_with(Unkind::over(&world.broker, 3), memory(), "a");
    world.say("three");
    world.run(&mut [&mut second]);
    world.expect_out(&["one 1", "two 2", "three 3"]);
}

/// What is behind a zombie's open transaction comes when that is decided, and only out of another reader.
#[test]
fn a_reader_that_stays_at_its_end_hides_nothing_from_a_restore() {
    let world = with_long_transactions();
    let mut first = world.join("a");
    world.run(&mut [&mut first]);
    leave_open(&world, "zombie");
    world.say("one");
    world.run(&mut [&mut first]);
    drop(first);
    let mut second = world.join_with(Unkind::over(&world.broker, 0), memory(), "b");
    world.say("two");
    for _ in 0..30 {
        world.clock.advance(Duration::from_secs(5));
        world.run(&mut [&mut second]);
    }
    world.expect_out(&["one 1", "two 2"]);
}

/// The mark by which a store knows its changelog comes once, with or without an error.
#[test]
fn a_mark_that_comes_with_an_error_is_no_reason_to_rebuild() {
    let world = World::new("out");
    let folder = tempfile::tempdir().unwrap();
    let on_disk =
        || -> Arc<dyn StoreSupplier> { Arc::new(DiskStores::open(folder.path()).unwrap()) };
    let stores = on_disk();
    let mut first = world.join_on(&stores, "a");
    world.say("one");
    world.run(&mut [&mut first]);
    let stop = StopSignal::default();
    stop.stop();
    first.run(&stop).unwrap();
    drop(stores);
    let unkind = Unkind::over(&world.broker, i64::from(PARTITIONS));
    let errors = Arc::clone(&unkind.errors);
    let mut second = world.join_with(unkind, on_disk(), "a");
    world.say("two");
    world.run(&mut [&mut second]);
    world.expect_out(&["one 1", "two 2"]);
    assert!(errors.load(Ordering::SeqCst) <= 0, "all marks came with one");
    assert_eq!(world.restored(), 0);
}

/// Records that were on their way when the inputs were paused wait for the restore, which begins again.
#[test]
fn a_restore_that_is_cut_off_loses_no_record_that_has_come_meanwhile() {
    let world = World::new("out");
    let ailment = Arc::new(Ailment::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(AilingStores(Arc::clone(&ailment)));
    let unkind = Unkind::over(&world.broker, 0);
    let cuts = Arc::clone(&unkind.cuts);
    let mut worker = world.join_with(unkind, stores, "a");
    world.say("one");
    world.run(&mut [&mut worker]);
    ailment.is_damaged.store(true, Ordering::SeqCst);
    cuts.store(1, Ordering::SeqCst);
    for word in ["two", "three"] {
        world.say(word);
        world.run(&mut [&mut worker]);
    }
    assert!(cuts.load(Ordering::SeqCst) <= 0, "it was cut off");
    world.expect_out(&["one 1", "two 2", "three 3"]);
}

#[test]
fn a_restore_that_takes_long_shows_how_far_it_is() {
    let world = with_long_transactions();
    let mut first = world.join("a");
    world.say("one");
    world.run(&mut [&mut first]);
    let shown = || {
        let status = world.board.read()["a"].clone();
        let restored = status.tasks.iter().map(|task| task.restored).sum::<usize>();
        let remaining = status.tasks.iter().map(|task| task.restore_remaining).sum::<u64>();
        (status.is_running(), restored, remaining)
    };
    assert_eq!(shown(), (true, 0, 0));
    let stop = StopSignal::default();
    stop.stop();
    first.run(&stop).unwrap();
    leave_open(&world, "b");
    let mut second = world.join("a");
    assert_eq!(shown(), (false, 0, 0), "it has not joined");
    World::turn(&mut [&mut second]);
    assert_eq!(shown(), (false, 0, 0));
    for _ in 0..5 {
        world.clock.advance(Duration::from_secs(1));
        World::turn(&mut [&mut second]);
    }
    // Behind each record there is the end of its transaction, and what the open one may bring.
    assert_eq!(shown(), (false, PARTITIONS as usize, 2 * u64::from(PARTITIONS)));
}
