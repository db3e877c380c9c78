//! How a worker paces itself: how much one turn takes on, how much waits at most, and when it commits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    codec::Utf8,
    local::LocalSettings,
    record::{InputRecord, Offset, OutputRecord, Partition, TopicPartition},
    runtime::{
        broker::Broker,
        worker::{
            BUFFERED_MAX, RECORDS_A_TURN_MAX,
            tests::{COMMIT_INTERVAL, PARTITIONS, World, refusals::Refusing, topic},
        },
    },
    time::{Clock, EventTime},
    topology::{Context, ProcessError, Processor, Record, TopologyBuilder},
};

/// Lets records through once it is open.
struct Gate(Arc<AtomicBool>);

impl Processor for Gate {
    type In = String;
    type Out = String;

    fn process(
        &mut self,
        record: &Record<String>,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        match self.0.load(Ordering::SeqCst) {
            true => ctx.forward(record),
            false => Err(ProcessError::Retry("the gate is closed".to_owned())),
        }
    }
}

/// The task to which all records go.
const TASK: Partition = Partition(0);

/// A world whose records wait at the gate.
fn gated() -> (World, Arc<AtomicBool>) {
    let is_open = Arc::new(AtomicBool::new(false));
    let mut topology = TopologyBuilder::new("test", topic("dead"));
    let words = topology.source("words", topic("in"), Arc::new(Utf8));
    let gate = Arc::clone(&is_open);
    let through = topology.process("gate", &[words], &[], move || Gate(Arc::clone(&gate)));
    topology.sink("out", &[through], topic("out"), Arc::new(Utf8));
    (World::of(topology.build(), LocalSettings::default()), is_open)
}

fn put(world: &World, records: usize) {
    let mut publisher = world.broker.publish().unwrap();
    for number in 0..records {
        let record = OutputRecord {
            topic: topic("in"),
            partition: Some(TASK),
            timestamp: EventTime(0),
            key: Some(b"0".to_vec()),
            value: Some(number.to_string().into_bytes()),
            headers: Vec::new(),
        };
        publisher.send(record).unwrap();
    }
    publisher.flush().unwrap();
}

#[test]
fn an_input_that_overflows_rests_until_there_is_room() {
    let (world, is_open) = gated();
    let records = BUFFERED_MAX * 2;
    put(&world, records);
    let mut worker = world.join("a");
    for _ in 0..40 {
        worker.turn(Duration::ZERO).unwrap();
    }
    let batch = LocalSettings::default().batch_records_max;
    let buffered = worker.active_tasks[&TASK].task.buffered();
    // One batch makes it too much, and another is on its way by then.
    assert!(buffered > BUFFERED_MAX && buffered <= BUFFERED_MAX + 2 * batch, "{buffered}");
    let active = worker.active_tasks.get_mut(&TASK).unwrap();
    let input = TopicPartition { topic: topic("in"), partition: TASK };
    assert_eq!(active.flow(BUFFERED_MAX).pause, [], "it rests already");
    active.flows(std::slice::from_ref(&input), true);
    assert_eq!(active.flow(BUFFERED_MAX).pause, std::slice::from_ref(&input));
    active.flows(&[input], false);
    is_open.store(true, Ordering::SeqCst);
    for _ in 0..60 {
        world.clock.advance(Duration::from_secs(1));
        worker.turn(Duration::ZERO).unwrap();
    }
    let expected: Vec<_> = (0..records).map(|number| number.to_string()).collect();
    assert!(world.read("out")[&b"0"[..]] == expected, "all of them come, once and in order");
}

#[test]
fn a_turn_processes_so_many_records_and_no_more() {
    let (world, is_open) = gated();
    put(&world, 2 * RECORDS_A_TURN_MAX + 1);
    let mut worker = world.join("a");
    for _ in 0..10 {
        worker.turn(Duration::ZERO).unwrap();
    }
    is_open.store(true, Ordering::SeqCst);
    world.clock.advance(Duration::from_secs(1));
    for left in [RECORDS_A_TURN_MAX + 1, 1, 0] {
        worker.turn(Duration::ZERO).unwrap();
        assert_eq!(worker.active_tasks[&TASK].task.buffered(), left);
    }
}

/// In these worlds it comes after 100 records.
#[test]
fn a_commit_comes_before_its_time_when_there_is_much_to_commit() {
    let world = World::new("out");
    let mut worker = world.join("a");
    world.say("first");
    World::turn(&mut [&mut worker]);
    world.clock.advance(COMMIT_INTERVAL);
    World::turn(&mut [&mut worker]);
    for said in 1..=25 {
        world.say("word");
        worker.turn(Duration::ZERO).unwrap();
        let out = world.read("out").values().map(Vec::len).sum::<usize>();
        let committed = if said < 25 { 1 } else { 26 };
        assert_eq!(out, committed * PARTITIONS as usize, "{said}");
    }
}

/// The offsets of inputs to which nothing comes would expire.
#[test]
fn who_has_nothing_to_commit_commits_every_minute() {
    let world = World::new("out");
    let broker = Refusing::over(&world.broker);
    let commits = Arc::clone(&broker.commits);
    let mut worker = world.join_through(Arc::new(broker), "a");
    world.run(&mut [&mut worker]);
    let mut after = |seconds| {
        world.clock.advance(Duration::from_secs(seconds));
        World::turn(&mut [&mut worker]);
        commits.load(Ordering::SeqCst)
    };
    let before = after(30);
    let first = after(31);
    assert_eq!([first, after(29), after(29), after(2)].map(|all| all - before), [1, 1, 1, 2]);
}

#[test]
fn a_poll_waits_for_records_and_no_longer_than_to_the_next_commit() {
    const WAIT: Duration = Duration::from_secs(1);
    let (world, _) = gated();
    let mut worker = world.join("a");
    world.run(&mut [&mut worker]);
    assert_eq!(worker.patience(WAIT), WAIT);
    let active = &worker.active_tasks[&TASK];
    assert_eq!(active.status().stream_time, None, "there was no record yet");
    let long_after = world.clock.elapsed() + 10 * WAIT;
    assert!(!active.may_be_quiet(long_after, WAIT, WAIT), "nothing of it waits for stream time");
    let since_the_commit = COMMIT_INTERVAL / 4;
    worker.processed = 1;
    worker.committed_at = world.clock.elapsed();
    world.clock.advance(since_the_commit);
    assert_eq!(worker.patience(WAIT), COMMIT_INTERVAL - since_the_commit);
    let short = since_the_commit / 2;
    assert_eq!(worker.patience(short), short);
    let record = InputRecord {
        source: TopicPartition { topic: topic("in"), partition: TASK },
        offset: Offset(0),
        timestamp: EventTime(0),
        key: None,
        value: None,
        headers: Vec::new(),
    };
    worker.active_tasks.get_mut(&TASK).unwrap().add(record);
    assert_eq!(worker.patience(WAIT), Duration::ZERO);
}

#[test]
fn a_wait_ends_with_the_next_record_that_is_processed() {
    let (world, _) = gated();
    put(&world, 1);
    let mut worker = world.join("a");
    World::turn(&mut [&mut worker]);
    let active = worker.active_tasks.get_mut(&TASK).unwrap();
    assert!(active.status().blocked_since.is_some());
    active.note_wait(1, "a", &world.metrics, world.clock.as_ref());
    assert_eq!(active.status().blocked_since, None, "another record waits now");
}
