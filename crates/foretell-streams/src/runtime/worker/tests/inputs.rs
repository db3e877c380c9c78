//! A task with two inputs merges them by event time, also if one is fetched late. Without records, its stream time
//! advances with the clock.

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
        worker::tests::{COMMIT_INTERVAL, Harness, topic},
    },
    time::{Clock, EventTime},
    topology::{
        Context, ProcessError, Processor, Punctuation, PunctuationKind, Record, TopologyBuilder,
    },
};

/// Forwards every record, and the stream time once per second of stream time.
struct ReportTime;

impl Processor for ReportTime {
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

/// Two inputs, whose values are their event times, and one output; with reports of stream time if `has_reports`.
fn topology(has_reports: bool) -> TopologyBuilder {
    let mut topology = TopologyBuilder::new("test", topic("dead"));
    let inputs = ["in", "side"].map(|name| {
        let time = |value: &String, _: &_, _| Ok(EventTime(value.parse().unwrap()));
        topology.source_timed(name, topic(name), Arc::new(Utf8), time)
    });
    if has_reports {
        let reported = topology.process("report", &inputs, &[], || ReportTime);
        topology.sink("out", &[reported], topic("out"), Arc::new(Utf8));
    } else {
        topology.sink("out", &inputs, topic("out"), Arc::new(Utf8));
    }
    topology
}

fn harness_with(has_reports: bool) -> Harness {
    let harness = Harness::of(topology(has_reports).build(), LocalSettings::default());
    harness.clock.advance(Duration::from_secs(100));
    harness
}

fn harness() -> Harness {
    harness_with(false)
}

/// A [`LocalBroker`] that reports later ends of the topic `side`, or none.
#[derive(Clone)]
struct ShiftedEnds {
    broker: LocalBroker,
    /// The number of offsets by which ends of `side` are too late.
    further: Arc<AtomicI64>,
    /// Whether it does not answer.
    is_silent: Arc<AtomicBool>,
}

impl ShiftedEnds {
    fn of(broker: &LocalBroker) -> Self {
        Self { broker: broker.clone(), further: Arc::default(), is_silent: Arc::default() }
    }
}

impl Broker for ShiftedEnds {
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
            return Err(BrokerError::Retry("no broker answers".to_owned()));
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
        // In the opposite order of the event times.
        timestamp: EventTime(100_000 - time),
        key: Some(Vec::new()),
        value: Some(time.to_string().into_bytes()),
        headers: Vec::new(),
    }
}

fn send(harness: &Harness, records: impl IntoIterator<Item = OutputRecord>) {
    let mut publisher = harness.broker.publish().unwrap();
    records.into_iter().for_each(|record| publisher.send(record).unwrap());
}

/// The output after `span`.
fn out(harness: &Harness, worker: &mut Worker, span: Duration) -> Vec<i64> {
    let end = harness.clock.elapsed() + span;
    while harness.clock.elapsed() < end {
        harness.clock.advance(COMMIT_INTERVAL);
        Harness::turn(&mut [&mut *worker]);
    }
    let values = harness.read("out").remove(&Vec::new()).unwrap_or_default();
    values.iter().map(|value| value.parse().unwrap()).collect()
}

/// A batch holds only a part of one input; later records of the other have to wait for the rest.
#[test]
fn a_backlog_is_processed_in_the_order_of_event_time() {
    let harness = harness();
    let mut publisher = harness.broker.publish().unwrap();
    for time in 0..3_000 {
        publisher.send(record("side", time)).unwrap();
    }
    for time in 5_000..5_010 {
        publisher.send(record("in", time)).unwrap();
    }
    let mut worker = harness.join("a");
    let expected: Vec<i64> = (0..3_000).chain(5_000..5_010).collect();
    assert_eq!(out(&harness, &mut worker, Duration::from_secs(1)), expected);
}

/// After the last record of an input there are a transaction marker and the records of an aborted transaction, which are
/// never delivered.
#[test]
fn a_task_waits_for_an_input_to_its_end_and_no_longer() {
    let harness = harness();
    let mut zombie = harness.broker.join(&harness.membership("zombies", "zombie")).unwrap();
    zombie.send(record("side", 1).as_ref()).unwrap();
    zombie.abort().unwrap();
    send(&harness, [record("in", 2)]);
    let mut worker = harness.join("a");
    assert_eq!(out(&harness, &mut worker, COMMIT_INTERVAL * 3), [2]);
    // From then on the task waits for no input.
    send(&harness, [record("in", 3)]);
    assert_eq!(out(&harness, &mut worker, COMMIT_INTERVAL * 2), [2, 3]);
}

/// The records that the broker reports are not delivered: the status says what the task waits for, until a bound.
#[test]
fn a_wait_for_an_input_is_visible_and_bounded() {
    let harness = harness();
    let broker = ShiftedEnds::of(&harness.broker);
    broker.further.store(2, Ordering::SeqCst);
    send(&harness, [record("in", 2)]);
    let mut worker = harness.join_through(Arc::new(broker), "a");
    assert!(out(&harness, &mut worker, Duration::from_secs(200)).is_empty());
    let status = &harness.board.read()["a"];
    let reasons: Vec<_> = status.tasks.iter().filter_map(|task| task.blocked_by.clone()).collect();
    assert_eq!(reasons, ["waiting for records of side/0 before offset 2"]);
    assert_eq!(out(&harness, &mut worker, Duration::from_secs(101)), [2]);
    let status = &harness.board.read()["a"];
    assert!(status.tasks.iter().all(|task| task.blocked_by.is_none()));
}

/// Stream time advances at the speed of the clock, from where it was: a backfill that pauses keeps its windows.
#[test]
fn the_stream_time_of_a_quiet_partition_advances_with_the_clock() {
    let harness = harness_with(true);
    harness.clock.advance(Duration::from_secs(1_000_000));
    send(&harness, [record("in", 0), record("side", 1_000)]);
    let mut worker = harness.join("a");
    let first = out(&harness, &mut worker, Duration::from_secs(9));
    assert_eq!(first, [0, 1_000, 1_000]);
    let then = out(&harness, &mut worker, Duration::from_secs(60)).split_off(first.len());
    assert!(then.is_sorted() && then.len() >= 55, "{then:?}");
    // It catches up with the time since the last record.
    assert!((11_000..=11_200).contains(&then[0]), "{then:?}");
    assert!((68_500..=70_000).contains(then.last().unwrap()), "{then:?}");
    // A later record moves stream time as usual, and starts a new quiet period.
    send(&harness, [record("in", 500_000)]);
    let before = out(&harness, &mut worker, COMMIT_INTERVAL * 2).len();
    assert_eq!(out(&harness, &mut worker, Duration::from_secs(9)).len(), before);
    let status = &harness.board.read()["a"];
    assert_eq!(status.tasks[0].stream_time, Some(EventTime(500_000)));
}

/// Timers some time after each record, which report by how much they are late.
#[derive(Default)]
struct LateTimers {
    due: Vec<EventTime>,
}

const TIMERS_AFTER_MS: [u64; 6] = [0, 2_000, 9_900, 10_030, 15_000, 47_990];

impl Processor for LateTimers {
    type In = String;
    type Out = String;

    fn start(&mut self, ctx: &mut Context<'_, String>) {
        ctx.schedule(PunctuationKind::StreamTime, Duration::from_millis(1));
    }

    fn process(
        &mut self,
        record: &Record<String>,
        _: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        self.due.extend(TIMERS_AFTER_MS.map(|after| record.time + Duration::from_millis(after)));
        Ok(())
    }

    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let Punctuation::StreamTime(time) = punctuation else { return Ok(()) };
        for due in self.due.extract_if(.., |due| *due <= time) {
            let value = (ctx.now().0 - due.0).to_string();
            ctx.forward(&Record { key: Some(Vec::new()), value, time })?;
        }
        Ok(())
    }
}

/// Those within `quiet_after` of the last record fire when it has passed; all later ones fire in the turn in which they are due.
#[test]
fn timers_of_a_quiet_partition_are_late_until_it_is_known_to_be_quiet() {
    let mut topology = TopologyBuilder::new("test", topic("dead"));
    let time = |value: &String, _: &_, _| Ok(EventTime(value.parse().unwrap()));
    let inputs =
        ["in", "side"].map(|name| topology.source_timed(name, topic(name), Arc::new(Utf8), time));
    let timers = topology.process("timers", &inputs, &[], LateTimers::default);
    topology.sink("out", &[timers], topic("out"), Arc::new(Utf8));
    let harness = Harness::of(topology.build(), LocalSettings::default());
    harness.clock.advance(Duration::from_secs(100));
    let mut worker = harness.join("a");
    assert!(out(&harness, &mut worker, Duration::from_secs(1)).is_empty());
    // The first schedules the punctuation.
    let now = harness.clock.now().0;
    send(&harness, [record("side", 0), record("in", now)]);
    let turn = i64::try_from(COMMIT_INTERVAL.as_millis()).unwrap();
    let late = out(&harness, &mut worker, Duration::from_secs(60));
    let of_now: Vec<i64> = late.into_iter().filter(|late| *late < now / 2).collect();
    let [at_once, second, almost, rest @ ..] = &of_now[..] else { panic!("{of_now:?}") };
    assert!((0..=2 * turn).contains(at_once), "{of_now:?}");
    assert!((8_000..=8_000 + 2 * turn).contains(second), "{of_now:?}");
    assert!((100..=100 + 2 * turn).contains(almost), "{of_now:?}");
    assert!(rest.len() == 3 && rest.iter().all(|late| (0..=2 * turn).contains(late)), "{of_now:?}");
}

/// Late records and questions, which carry no time, do not hold it.
#[test]
fn records_that_do_not_advance_stream_time_do_not_keep_the_clock_from_it() {
    let harness = harness_with(true);
    harness.clock.advance(Duration::from_secs(1_000_000));
    send(&harness, [record("in", 0), record("side", 1_000)]);
    let mut worker = harness.join("a");
    for _ in 0..60 {
        out(&harness, &mut worker, Duration::from_secs(1));
        send(&harness, [record("in", 500)]);
    }
    let status = &harness.board.read()["a"];
    let stream_time = status.tasks[0].stream_time.unwrap();
    assert!((58_000..=61_000).contains(&stream_time.0), "{stream_time}");
}

#[test]
fn the_stream_time_of_a_partition_without_a_known_end_stalls() {
    let harness = harness_with(true);
    harness.clock.advance(Duration::from_secs(1_000));
    let broker = ShiftedEnds::of(&harness.broker);
    send(&harness, [record("in", 0), record("in", 1_000)]);
    let mut worker = harness.join_through(Arc::new(broker.clone()), "a");
    assert_eq!(out(&harness, &mut worker, Duration::from_secs(1)), [0, 1_000, 1_000]);
    broker.is_silent.store(true, Ordering::SeqCst);
    assert_eq!(out(&harness, &mut worker, Duration::from_secs(60)).len(), 3);
    broker.is_silent.store(false, Ordering::SeqCst);
    broker.further.store(1, Ordering::SeqCst);
    assert_eq!(out(&harness, &mut worker, Duration::from_secs(60)).len(), 3, "there is more");
    broker.further.store(0, Ordering::SeqCst);
    let values = out(&harness, &mut worker, Duration::from_secs(20));
    let last = *values.last().unwrap();
    assert!(
        values.len() > 3 && last < 30_000,
        "it has not advanced by the time of the outage: {last}"
    );
}

/// The records since the last commit are delivered again, and there may be more by now.
#[test]
fn an_abort_resets_the_backlog_and_the_quiet_period() {
    const AFTER: Duration = Duration::from_secs(10);
    let harness = harness_with(true);
    send(&harness, [record("in", 2), record("side", 3)]);
    let mut worker = harness.join("a");
    out(&harness, &mut worker, Duration::from_secs(1));
    harness.clock.advance(AFTER * 2);
    let now = harness.clock.elapsed();
    let active = worker.tasks.get(Partition(0));
    assert!(!active.needs_ends() && active.is_quiet_check_due(now, AFTER, Duration::from_secs(1)));
    worker.abort("by a test").unwrap();
    let active = worker.tasks.get(Partition(0));
    assert!(active.needs_ends() && !active.is_quiet_check_due(now, AFTER, Duration::from_secs(1)));
}
