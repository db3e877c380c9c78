//! Long-running workers and standbys: a success resets the counts of earlier failures.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    codec::{Stored, Utf8},
    local::LocalSettings,
    record::Partition,
    runtime::{
        Standby, StandbyParts, StopSignal, Worker, WorkerError,
        worker::tests::{
            Harness, PARTITIONS,
            stores::{FailingStores, StoreFailures},
            topic,
        },
    },
    state::{DiskStores, KeyValueHandle, StoreId, StoreSupplier},
    time::{Clock, ManualClock},
    topology::{
        Context, ProcessError, Processor, Punctuation, PunctuationKind, Record, TopologyBuilder,
    },
};

const TASK: Partition = Partition(0);

fn standby(harness: &Harness, stores: &Arc<dyn StoreSupplier>) -> Standby {
    Standby::new(StandbyParts {
        broker: Arc::new(harness.broker.clone()),
        topology: Arc::clone(&harness.topology),
        group: "group".to_owned(),
        stores: Arc::clone(stores),
        clock: Arc::<ManualClock>::clone(&harness.clock) as Arc<dyn Clock>,
        metrics: harness.metrics.clone(),
    })
}

/// Writes words one after the other, each after a `failure`, and expects each once in the output.
fn survive(harness: &Harness, worker: &mut Worker, mut failure: impl FnMut()) {
    let mut expected = Vec::new();
    for number in 1..=8 {
        failure();
        let word = format!("word{number}");
        harness.put(&word);
        harness.run(&mut [&mut *worker]);
        expected.push(format!("{word} {number}"));
    }
    harness.expect_out(&expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_worker_that_commits_after_each_fence_may_be_fenced_any_number_of_times() {
    let harness = Harness::new("out");
    let mut worker = harness.join("a");
    survive(&harness, &mut worker, || drop(harness.join("a")));
}

/// A second rebuild without a commit in between would end the worker.
#[test]
fn a_store_that_commits_after_each_rebuild_may_be_corrupted_any_number_of_times() {
    let harness = Harness::new("out");
    let failures = Arc::new(StoreFailures::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(FailingStores(Arc::clone(&failures)));
    let mut worker = harness.join_on(&stores, "a");
    survive(&harness, &mut worker, || failures.is_damaged.store(true, Ordering::SeqCst));
    assert!(!failures.is_damaged.load(Ordering::SeqCst), "the worker has read it");
}

#[test]
fn a_store_that_cannot_be_written_after_its_rebuild_ends_the_worker() {
    let harness = Harness::new("out");
    let failures = Arc::new(StoreFailures::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(FailingStores(Arc::clone(&failures)));
    let mut worker = harness.join_on(&stores, "a");
    harness.put("one");
    harness.run(&mut [&mut worker]);
    failures.writes.store(i64::MAX, Ordering::SeqCst);
    harness.put("two");
    harness.clock.advance(Duration::from_secs(1));
    let mut turns = (0..100).map(|_| worker.turn(Duration::ZERO));
    let error = turns.find_map(Result::err).expect("the worker ends");
    assert!(matches!(error, WorkerError::State(_)), "{error}");
    assert!(error.to_string().contains("cannot read its stores"), "{error}");
}

/// The tasks move to the worker in the process of the standby and away again, more than once.
#[test]
fn a_standby_opens_its_tasks_again_after_the_worker_has_left() {
    let harness = Harness::new("out");
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [stores, others] = folders.each_ref().map(|folder| -> Arc<dyn StoreSupplier> {
        Arc::new(DiskStores::open(folder.path()).unwrap())
    });
    let mut standby = standby(&harness, &stores);
    let mut update = || {
        for _ in 0..3 {
            harness.clock.advance(Duration::from_secs(1));
            standby.turn().unwrap();
        }
        standby.held().len()
    };
    let stop = StopSignal::default();
    stop.stop();
    let mut elsewhere = harness.join_on(&others, "elsewhere");
    let mut expected = Vec::new();
    for round in 0..3 {
        for number in 1..=2 {
            let word = format!("word{round}{number}");
            harness.put(&word);
            harness.run(&mut [&mut elsewhere]);
            expected.push(format!("{word} {}", expected.len() + 1));
            assert_eq!(update(), PARTITIONS as usize, "round {round}");
        }
        elsewhere.run(&stop).unwrap();
        let before = harness.restored();
        let mut here = harness.join_on(&stores, "here");
        harness.run(&mut [&mut here]);
        assert_eq!(harness.running("here"), PARTITIONS as usize);
        assert_eq!(harness.restored(), before, "the standby stores were complete");
        assert_eq!(update(), 0, "the worker has taken them over");
        here.run(&stop).unwrap();
        assert_eq!(update(), PARTITIONS as usize, "after round {round}");
        elsewhere = harness.join_on(&others, "elsewhere");
    }
    harness.run(&mut [&mut elsewhere]);
    harness.expect_out(&expected.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Until the corrupted stores are emptied, they lack the changes whose write failed.
#[test]
fn a_standby_that_cannot_be_emptied_is_tried_again() {
    let harness = Harness::new("out");
    let mut worker = harness.join("a");
    harness.put("one");
    harness.run(&mut [&mut worker]);
    let failures = Arc::new(StoreFailures::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(FailingStores(Arc::clone(&failures)));
    let mut standby = standby(&harness, &stores);
    let mut turns = |times| {
        for _ in 0..times {
            harness.clock.advance(Duration::from_secs(1));
            standby.turn().unwrap();
        }
        standby.held().len()
    };
    assert_eq!(turns(5), PARTITIONS as usize);
    failures.writes.store(1, Ordering::SeqCst);
    failures.clears.store(3, Ordering::SeqCst);
    harness.put("two");
    harness.run(&mut [&mut worker]);
    assert_eq!(turns(20), PARTITIONS as usize);
    let left = failures.clears.load(Ordering::SeqCst);
    assert!(left < 0, "the stores were emptied in the end");
    turns(5);
    assert_eq!(
        failures.clears.load(Ordering::SeqCst),
        left,
        "once, and then copied from the beginning"
    );
}

/// Counts seconds in a punctuation, and forwards the count only with a record.
struct Seconds {
    seconds: KeyValueHandle<u32>,
}

impl Processor for Seconds {
    type In = String;
    type Out = String;

    fn start(&mut self, ctx: &mut Context<'_, String>) {
        ctx.schedule(PunctuationKind::WallClock, Duration::from_secs(1));
    }

    fn process(
        &mut self,
        record: &Record<String>,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let seconds = ctx.key_value(&self.seconds).get("seconds")?.unwrap_or(0);
        ctx.forward(&Record { value: format!("{} {seconds}", record.value), ..record.clone() })
    }

    fn punctuate(
        &mut self,
        _punctuation: Punctuation,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let mut seconds = ctx.key_value(&self.seconds);
        let next = seconds.get("seconds")?.unwrap_or(0) + 1;
        seconds.put("seconds", &next)?;
        Ok(())
    }
}

#[test]
fn a_change_by_a_punctuation_alone_is_committed() {
    let mut topology = TopologyBuilder::new("test", topic("dead"));
    let words = topology.source("words", topic("in"), Arc::new(Utf8));
    let seconds = topology.key_value_store("seconds", Arc::new(Stored::version(1)));
    let stores = [seconds.id()];
    let make = move || Seconds { seconds: seconds.clone() };
    let counted = topology.process("seconds", &[words], &stores, make);
    topology.sink("out", &[counted], topic("out"), Arc::new(Utf8));
    let harness = Harness::of(topology.build(), LocalSettings::default());
    let mut first = harness.join("a");
    harness.run(&mut [&mut first]);
    for second in 1..=3 {
        harness.clock.advance(Duration::from_secs(1));
        harness.run(&mut [&mut first]);
        // Long before an idle worker would commit.
        assert_eq!(harness.changelog()[&b"seconds"[..]], second * PARTITIONS as usize);
    }
    drop(first);
    let mut second = harness.join("a");
    harness.put("after");
    Harness::turn(&mut [&mut second]);
    harness.run(&mut [&mut second]);
    harness.expect_out(&["after 3"]);
}

/// The first commit is aborted, and with it the marks that name the incarnations of the changelogs.
#[test]
fn a_mark_of_an_aborted_transaction_is_written_again() {
    let harness = Harness::new("out");
    let folder = tempfile::tempdir().unwrap();
    let on_disk =
        || -> Arc<dyn StoreSupplier> { Arc::new(DiskStores::open(folder.path()).unwrap()) };
    let stores = on_disk();
    let mut worker = harness.join_on(&stores, "a");
    Harness::turn(&mut [&mut worker]);
    harness.put("one");
    worker.turn(Duration::ZERO).unwrap();
    let member = worker.group.joined().unwrap().member.as_mut();
    worker.tasks.flush_changelogs(&worker.parts, member, 1).unwrap();
    worker.abort("by a test").unwrap();
    harness.run(&mut [&mut worker]);
    harness.expect_out(&["one 1"]);
    let stop = StopSignal::default();
    stop.stop();
    worker.run(&stop).unwrap();
    drop(stores);
    let mut next = harness.join_on(&on_disk(), "a");
    harness.put("two");
    harness.run(&mut [&mut next]);
    harness.expect_out(&["one 1", "two 2"]);
    assert_eq!(harness.restored(), 0, "the checkpoints name the changelogs");
}

#[test]
fn a_store_is_emptied_before_it_is_rebuilt() {
    let harness = Harness::new("out");
    let folder = tempfile::tempdir().unwrap();
    let stores: Arc<dyn StoreSupplier> = Arc::new(DiskStores::open(folder.path()).unwrap());
    let mut worker = harness.join_on(&stores, "a");
    harness.put("one");
    harness.run(&mut [&mut worker]);
    worker.tasks.open_empty(&worker.parts, TASK).unwrap();
    let task = &worker.tasks.get(TASK).task;
    assert_eq!(task.store_entries()["counts"], 0);
    assert_eq!(task.checkpoint(StoreId(0)), None);
}
