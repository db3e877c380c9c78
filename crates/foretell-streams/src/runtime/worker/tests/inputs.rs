//! A task with two inputs processes them in the order of their event times, also when one comes late; and when
//! nothing comes, its stream time goes on with the clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use crate::{
    codec::Utf8,
    local::{LocalBroker, LocalSettings},
    record::{Offset, OutputRecord, Partition, Topic, TopicPartition},
    runtime::{
        Worker,
        broker::{
            Broker, BrokerError, Follower, Isolation, Member, Membership, Publisher, ReadFrom,
            Reader, TopicSpec,
        },
        worker::tests::{COMMIT_INTERVAL, World, topic},
    },
    time::{Clock, EventTime},
    topology::{
        Context, ProcessError, Processor, Punctuation, PunctuationKind, Record, TopologyBuilder,
    },
};

/// Lets everything through, and says every second of stream time what the time is.
struct Tell;

impl Processor for Tell {
    type In = String;
    type Out = String;

    fn start(&mut self, ctx: &mut Context<'_, String>) {
        ctx.schedule(PunctuationKind::StreamTime, Duration::from_secs(1));
    }

    fn process(
        &mut self,
        record: &Record<String>,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        ctx.forward(record)
    }

    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let Punctuation::StreamTime(time) = punctuation else { return Ok(()) };
        ctx.forward(&Record { key: Some(Vec::new()), value: time.0.to_string(), time })
    }
}

/// Two inputs, whose values are their event times, go through to one output.
fn topology(tells: bool) -> TopologyBuilder {
    let mut topology = TopologyBuilder::new("test", topic("dead"));
    let inputs = ["in", "side"].map(|name| {
        let time = |value: &String, _: &_, _| Ok(EventTime(value.parse().unwrap()));
        topology.source_timed(name, topic(name), Arc::new(Utf8), time)
    });
    if tells {
        let told = topology.process("tell", &inputs, &[], || Tell);
        topology.sink("out", &[told], topic("out"), Arc::new(Utf8));
    } else {
        topology.sink("out", &inputs, topic("out"), Arc::new(Utf8));
    }
    topology
}

fn world_that(tells: bool) -> World {
    let world = World::of(topology(tells).build(), LocalSettings::default());
    world.clock.advance(Duration::from_secs(100));
    world
}

fn world() -> World {
    world_that(false)
}

/// Says that partitions end further on than they do, or does not say it.
#[derive(Clone)]
struct Ends {
    broker: LocalBroker,
    further: Arc<AtomicI64>,
    is_silent: Arc<AtomicBool>,
}

impl Ends {
    fn of(broker: &LocalBroker) -> Self {
        Self { broker: broker.clone(), further: Arc::default(), is_silent: Arc::default() }
    }
}

impl Broker for Ends {
    fn join(&self, membership: &Membership) -> Result<Box<dyn Member>, BrokerError> {
        self.broker.join(membership)
    }

    fn read(
        &self,
        source: &TopicPartition,
        from: ReadFrom,
    ) -> Result<Box<dyn Reader>, BrokerError> {
        self.broker.read(source, from)
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
        if self.is_silent.load(Ordering::SeqCst) {
            return Err(BrokerError::Retry("nobody answers".to_owned()));
        }
        let Offset(end) = self.broker.end(source, isolation)?;
        let is_side = source.topic == topic("side");
        Ok(Offset(end + if is_side { self.further.load(Ordering::SeqCst) } else { 0 }))
    }

    fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BrokerError> {
        self.broker.partitions(topic)
    }
}

fn record(input: &str, time: i64) -> OutputRecord {
    OutputRecord {
        topic: topic(input),
        partition: Some(Partition(0)),
        // Another order than theirs.
        timestamp: EventTime(100_000 - time),
        key: Some(Vec::new()),
        value: Some(time.to_string().into_bytes()),
        headers: Vec::new(),
    }
}

fn send(world: &World, records: impl IntoIterator<Item = OutputRecord>) {
    let mut publisher = world.broker.publish().unwrap();
    records.into_iter().for_each(|record| publisher.send(record).unwrap());
}

/// What has come out when `span` has passed.
fn out(world: &World, worker: &mut Worker, span: Duration) -> Vec<i64> {
    let end = world.clock.elapsed() + span;
    while world.clock.elapsed() < end {
        world.clock.advance(COMMIT_INTERVAL);
        World::turn(&mut [&mut *worker]);
    }
    let values = world.read("out").remove(&Vec::new()).unwrap_or_default();
    values.iter().map(|value| value.parse().unwrap()).collect()
}

/// A batch holds less than one of the inputs has: what is later than its rest has to wait for that.
#[test]
fn a_backlog_is_processed_in_the_order_of_time() {
    let world = world();
    let mut publisher = world.broker.publish().unwrap();
    for time in 0..3_000 {
        publisher.send(record("side", time)).unwrap();
    }
    for time in 5_000..5_010 {
        publisher.send(record("in", time)).unwrap();
    }
    let mut worker = world.join("a");
    let expected: Vec<i64> = (0..3_000).chain(5_000..5_010).collect();
    assert_eq!(out(&world, &mut worker, Duration::from_secs(1)), expected);
}

/// Behind the last record of an input are the marker of a transaction and those of an aborted one: they never come, and
/// nobody waits for them.
#[test]
fn an_input_is_waited_for_to_its_end_and_no_longer() {
    let world = world();
    let mut zombie = world.broker.join(&world.membership("zombies", "zombie")).unwrap();
    zombie.send(record("side", 1).as_ref()).unwrap();
    zombie.abort().unwrap();
    send(&world, [record("in", 2)]);
    let mut worker = world.join("a");
    assert_eq!(out(&world, &mut worker, COMMIT_INTERVAL * 3), [2]);
    // From then on it waits for nobody.
    send(&world, [record("in", 3)]);
    assert_eq!(out(&world, &mut worker, COMMIT_INTERVAL * 2), [2, 3]);
}

/// What is known to be there does not come for long: the status says why nothing goes on, and after a bound it does.
#[test]
fn a_known_record_is_waited_for_visibly_and_not_for_ever() {
    let world = world();
    let broker = Ends::of(&world.broker);
    broker.further.store(2, Ordering::SeqCst);
    send(&world, [record("in", 2)]);
    let mut worker = world.join_through(Arc::new(broker), "a");
    assert!(out(&world, &mut worker, Duration::from_secs(200)).is_empty());
    let status = &world.board.read()["a"];
    let reasons: Vec<_> = status.tasks.iter().filter_map(|task| task.blocked_by.clone()).collect();
    assert_eq!(reasons, ["records of side/0 before offset 2 have still to come"]);
    assert_eq!(out(&world, &mut worker, Duration::from_secs(101)), [2]);
    let status = &world.board.read()["a"];
    assert!(status.tasks.iter().all(|task| task.blocked_by.is_none()));
}

/// It goes on at the speed of the clock, from where it was: a backfill that pauses keeps its windows.
#[test]
fn a_quiet_partition_goes_on_with_the_clock() {
    let world = world_that(true);
    world.clock.advance(Duration::from_secs(1_000_000));
    send(&world, [record("in", 0), record("side", 1_000)]);
    let mut worker = world.join("a");
    let first = out(&world, &mut worker, Duration::from_secs(10));
    assert_eq!(first, [0, 1_000, 1_000]);
    let mut then = out(&world, &mut worker, Duration::from_secs(60)).split_off(first.len());
    assert!(then.is_sorted() && then.len() >= 40, "{then:?}");
    let last = then.pop().unwrap();
    assert!((50_000..=61_000).contains(&last), "{last}");
    // A record from then on moves it as ever, and ends the quiet.
    send(&world, [record("in", 500_000)]);
    let before = out(&world, &mut worker, COMMIT_INTERVAL * 2).len();
    assert_eq!(out(&world, &mut worker, Duration::from_secs(9)).len(), before);
    let status = &world.board.read()["a"];
    assert_eq!(status.tasks[0].stream_time, Some(EventTime(500_000)));
}

#[test]
fn a_partition_whose_end_is_not_known_stands_still() {
    let world = world_that(true);
    world.clock.advance(Duration::from_secs(1_000));
    let broker = Ends::of(&world.broker);
    send(&world, [record("in", 0), record("in", 1_000)]);
    let mut worker = world.join_through(Arc::new(broker.clone()), "a");
    assert_eq!(out(&world, &mut worker, Duration::from_secs(1)), [0, 1_000, 1_000]);
    broker.is_silent.store(true, Ordering::SeqCst);
    assert_eq!(out(&world, &mut worker, Duration::from_secs(60)).len(), 3);
    broker.is_silent.store(false, Ordering::SeqCst);
    broker.further.store(1, Ordering::SeqCst);
    assert_eq!(out(&world, &mut worker, Duration::from_secs(60)).len(), 3, "there is more");
    broker.further.store(0, Ordering::SeqCst);
    let values = out(&world, &mut worker, Duration::from_secs(20));
    let last = *values.last().unwrap();
    assert!(values.len() > 3 && last < 30_000, "it has not made up for the outage: {last}");
}

/// What an abort rolls back comes again, and more may have come meanwhile: nothing that was known of the inputs holds.
#[test]
fn after_an_abort_nothing_is_known_of_the_inputs() {
    const AFTER: Duration = Duration::from_secs(10);
    let world = world_that(true);
    send(&world, [record("in", 2), record("side", 3)]);
    let mut worker = world.join("a");
    out(&world, &mut worker, Duration::from_secs(1));
    world.clock.advance(AFTER * 2);
    let now = world.clock.elapsed();
    let active = &worker.active_tasks[&Partition(0)];
    assert!(!active.wants_ends() && active.may_be_quiet(now, AFTER, Duration::from_secs(1)));
    worker.abort("of a test").unwrap();
    let active = &worker.active_tasks[&Partition(0)];
    assert!(active.wants_ends() && !active.may_be_quiet(now, AFTER, Duration::from_secs(1)));
}
