//! Limits of a turn and of buffered records, and when a worker commits.

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
            active_tasks::RECORDS_PER_TURN_MAX,
            inputs::BUFFERED_MAX,
            tests::{COMMIT_INTERVAL, Harness, PARTITIONS, rejections::RejectingBroker, topic},
        },
    },
    time::{Clock, EventTime},
    topology::{Context, ProcessError, Processor, Record, TopologyBuilder},
};

/// Forwards records once it is open.
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

/// The task that gets all records.
const TASK: Partition = Partition(0);

/// A harness whose records wait at a closed gate.
fn gated() -> (Harness, Arc<AtomicBool>) {
    let is_open = Arc::new(AtomicBool::new(false));
    let mut topology = TopologyBuilder::new("test", topic("dead"));
    let words = topology.source("words", topic("in"), Arc::new(Utf8));
    let gate = Arc::clone(&is_open);
    let through = topology.process("gate", &[words], &[], move || Gate(Arc::clone(&gate)));
    topology.sink("out", &[through], topic("out"), Arc::new(Utf8));
    (Harness::of(topology.build(), LocalSettings::default()), is_open)
}

fn put(harness: &Harness, records: usize) {
    let mut publisher = harness.broker.publish().unwrap();
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
fn an_input_with_too_many_buffered_records_is_paused_until_there_is_room() {
    let (harness, is_open) = gated();
    let records = BUFFERED_MAX * 2;
    put(&harness, records);
    let mut worker = harness.join("a");
    for _ in 0..40 {
        worker.turn(Duration::ZERO).unwrap();
    }
    let batch = LocalSettings::default().batch_records_max;
    let buffered = worker.tasks.get(TASK).task.buffered();
    // One batch exceeds the limit, and another has been fetched by then.
    assert!(buffered > BUFFERED_MAX && buffered <= BUFFERED_MAX + 2 * batch, "{buffered}");
    let active = worker.tasks.get_mut(TASK);
    let input = TopicPartition { topic: topic("in"), partition: TASK };
    assert_eq!(active.input_changes(BUFFERED_MAX).pause, [], "it is paused already");
    active.set_resumed(std::slice::from_ref(&input), true);
    assert_eq!(active.input_changes(BUFFERED_MAX).pause, std::slice::from_ref(&input));
    active.set_resumed(&[input], false);
    is_open.store(true, Ordering::SeqCst);
    for _ in 0..60 {
        harness.clock.advance(Duration::from_secs(1));
        worker.turn(Duration::ZERO).unwrap();
    }
    let expected: Vec<_> = (0..records).map(|number| number.to_string()).collect();
    assert!(
        harness.read("out")[&b"0"[..]] == expected,
        "all of them are in the output, once and in order"
    );
}

#[test]
fn a_turn_processes_a_bounded_number_of_records() {
    let (harness, is_open) = gated();
    put(&harness, 2 * RECORDS_PER_TURN_MAX + 1);
    let mut worker = harness.join("a");
    for _ in 0..10 {
        worker.turn(Duration::ZERO).unwrap();
    }
    is_open.store(true, Ordering::SeqCst);
    harness.clock.advance(Duration::from_secs(1));
    for left in [RECORDS_PER_TURN_MAX + 1, 1, 0] {
        worker.turn(Duration::ZERO).unwrap();
        assert_eq!(worker.tasks.get(TASK).task.buffered(), left);
    }
}

/// The maximum of the harness is 100 records.
#[test]
fn a_commit_comes_before_its_interval_after_the_maximum_number_of_records() {
    let harness = Harness::new("out");
    let mut worker = harness.join("a");
    harness.put("first");
    Harness::turn(&mut [&mut worker]);
    harness.clock.advance(COMMIT_INTERVAL);
    Harness::turn(&mut [&mut worker]);
    for round in 1..=25 {
        harness.put("word");
        worker.turn(Duration::ZERO).unwrap();
        let out = harness.read("out").values().map(Vec::len).sum::<usize>();
        let committed = if round < 25 { 1 } else { 26 };
        assert_eq!(out, committed * PARTITIONS as usize, "{round}");
    }
}

/// Otherwise the committed offsets of inputs without records would expire.
#[test]
fn an_idle_worker_commits_every_minute() {
    let harness = Harness::new("out");
    let broker = RejectingBroker::over(&harness.broker);
    let commits = Arc::clone(&broker.commits);
    let mut worker = harness.join_through(Arc::new(broker), "a");
    harness.run(&mut [&mut worker]);
    let mut after = |seconds| {
        harness.clock.advance(Duration::from_secs(seconds));
        Harness::turn(&mut [&mut worker]);
        commits.load(Ordering::SeqCst)
    };
    let before = after(30);
    let first = after(31);
    assert_eq!([first, after(29), after(29), after(2)].map(|all| all - before), [1, 1, 1, 2]);
}

#[test]
fn a_commit_follows_the_last_batch_before_it_is_due() {
    let harness = Harness::new("out");
    let mut worker = harness.join("a");
    harness.run(&mut [&mut worker]);
    harness.clock.advance(COMMIT_INTERVAL);
    let mut put_after = |wait: Duration, word: &str| {
        harness.clock.advance(wait);
        harness.put(word);
        Harness::turn(&mut [&mut worker]);
    };
    put_after(Duration::ZERO, "one");
    harness.expect_out(&["one 1"]);
    // The next batch is expected before the commit is due.
    put_after(COMMIT_INTERVAL * 45 / 100, "two");
    harness.expect_out(&["one 1"]);
    // The next one after it.
    put_after(COMMIT_INTERVAL * 45 / 100, "three");
    harness.expect_out(&["one 1", "two 2", "three 3"]);
}

#[test]
fn each_commit_observes_its_phases() {
    let harness = Harness::new("out");
    let mut worker = harness.join("a");
    harness.run(&mut [&mut worker]);
    for word in ["one", "two"] {
        harness.clock.advance(COMMIT_INTERVAL);
        harness.put(word);
        Harness::turn(&mut [&mut worker]);
    }
    harness.expect_out(&["one 1", "two 2"]);
    let observed = harness.metrics.commit_phases_so_far();
    assert!(observed[0] >= 2, "{observed:?}");
    assert_eq!(observed, [observed[0]; 4]);
}

#[test]
fn a_poll_waits_no_longer_than_to_the_next_commit() {
    const WAIT: Duration = Duration::from_secs(1);
    let (harness, _) = gated();
    let mut worker = harness.join("a");
    harness.run(&mut [&mut worker]);
    assert_eq!(worker.poll_wait(WAIT), WAIT);
    let active = worker.tasks.get(TASK);
    assert_eq!(active.status().stream_time, None, "there was no record yet");
    let long_after = harness.clock.elapsed() + 10 * WAIT;
    assert!(
        !active.is_quiet_check_due(long_after, WAIT, WAIT),
        "no punctuation follows stream time"
    );
    let since_the_commit = COMMIT_INTERVAL / 4;
    let now = harness.clock.elapsed();
    worker.pacer.committed(now, now);
    worker.pacer.add_records(1);
    harness.clock.advance(since_the_commit);
    assert_eq!(worker.poll_wait(WAIT), COMMIT_INTERVAL - since_the_commit);
    let short = since_the_commit / 2;
    assert_eq!(worker.poll_wait(short), short);
    let record = InputRecord {
        source: TopicPartition { topic: topic("in"), partition: TASK },
        offset: Offset(0),
        timestamp: EventTime(0),
        key: None,
        value: None,
        headers: Vec::new(),
    };
    worker.tasks.get_mut(TASK).add(record);
    assert_eq!(worker.poll_wait(WAIT), Duration::ZERO);
}

#[test]
fn a_blocked_time_ends_with_the_next_processed_record() {
    let (harness, _) = gated();
    put(&harness, 1);
    let mut worker = harness.join("a");
    Harness::turn(&mut [&mut worker]);
    let active = worker.tasks.get_mut(TASK);
    assert!(active.status().blocked_since.is_some());
    active.update_blocked(1, "a", &harness.metrics, harness.clock.as_ref());
    assert_eq!(active.status().blocked_since, None, "another record waits now");
}
