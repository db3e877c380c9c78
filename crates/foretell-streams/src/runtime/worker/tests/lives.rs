//! Long lives: what a worker must forget after a success, or the next failure finds it worn out.

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
            PARTITIONS, World,
            stores::{AilingStores, Ailment},
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

fn standby(world: &World, stores: &Arc<dyn StoreSupplier>) -> Standby {
    Standby::new(StandbyParts {
        broker: Arc::new(world.broker.clone()),
        topology: Arc::clone(&world.topology),
        group: "group".to_owned(),
        stores: Arc::clone(stores),
        clock: Arc::<ManualClock>::clone(&world.clock) as Arc<dyn Clock>,
        metrics: world.metrics.clone(),
    })
}

/// Says words one after the other, each after `trouble`; each comes out once.
fn live(world: &World, worker: &mut Worker, mut trouble: impl FnMut()) {
    let mut expected = Vec::new();
    for number in 1..=8 {
        trouble();
        let word = format!("word{number}");
        world.say(&word);
        world.run(&mut [&mut *worker]);
        expected.push(format!("{word} {number}"));
    }
    world.expect_out(&expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn who_commits_after_each_fence_may_be_fenced_for_ever() {
    let world = World::new("out");
    let mut worker = world.join("a");
    live(&world, &mut worker, || drop(world.join("a")));
}

/// It would not help to rebuild the store again, but here it does each time.
#[test]
fn a_store_that_is_used_after_each_rebuild_may_be_damaged_for_ever() {
    let world = World::new("out");
    let ailment = Arc::new(Ailment::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(AilingStores(Arc::clone(&ailment)));
    let mut worker = world.join_on(&stores, "a");
    live(&world, &mut worker, || ailment.is_damaged.store(true, Ordering::SeqCst));
    assert!(!ailment.is_damaged.load(Ordering::SeqCst), "it was met");
}

#[test]
fn a_store_that_cannot_follow_a_commit_after_its_rebuild_stops_the_worker() {
    let world = World::new("out");
    let ailment = Arc::new(Ailment::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(AilingStores(Arc::clone(&ailment)));
    let mut worker = world.join_on(&stores, "a");
    world.say("one");
    world.run(&mut [&mut worker]);
    ailment.writes.store(i64::MAX, Ordering::SeqCst);
    world.say("two");
    world.clock.advance(Duration::from_secs(1));
    let mut turns = (0..100).map(|_| worker.turn(Duration::ZERO));
    let error = turns.find_map(Result::err).expect("it stops");
    assert!(matches!(error, WorkerError::State(_)), "{error}");
    assert!(error.to_string().contains("cannot read its stores"), "{error}");
}

/// The tasks go to the worker beside the copies and away again, more than once.
#[test]
fn a_copy_that_was_taken_over_is_kept_again_when_the_worker_has_gone() {
    let world = World::new("out");
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [stores, others] = folders.each_ref().map(|folder| -> Arc<dyn StoreSupplier> {
        Arc::new(DiskStores::open(folder.path()).unwrap())
    });
    let mut standby = standby(&world, &stores);
    let mut look = || {
        for _ in 0..3 {
            world.clock.advance(Duration::from_secs(1));
            standby.turn().unwrap();
        }
        standby.copies().len()
    };
    let stop = StopSignal::default();
    stop.stop();
    let mut elsewhere = world.join_on(&others, "elsewhere");
    let mut expected = Vec::new();
    for life in 0..3 {
        for number in 1..=2 {
            let word = format!("word{life}{number}");
            world.say(&word);
            world.run(&mut [&mut elsewhere]);
            expected.push(format!("{word} {}", expected.len() + 1));
            assert_eq!(look(), PARTITIONS as usize, "life {life}");
        }
        elsewhere.run(&stop).unwrap();
        let before = world.restored();
        let mut here = world.join_on(&stores, "here");
        world.run(&mut [&mut here]);
        assert_eq!(world.running("here"), PARTITIONS as usize);
        assert_eq!(world.restored(), before, "the copies had all");
        assert_eq!(look(), 0, "they are the worker's");
        here.run(&stop).unwrap();
        assert_eq!(look(), PARTITIONS as usize, "after life {life}");
        elsewhere = world.join_on(&others, "elsewhere");
    }
    world.run(&mut [&mut elsewhere]);
    world.expect_out(&expected.iter().map(String::as_str).collect::<Vec<_>>());
}

/// No copy is worth the process. Until it is emptied it lacks what came with the damage.
#[test]
fn a_copy_that_cannot_be_emptied_is_tried_again() {
    let world = World::new("out");
    let mut worker = world.join("a");
    world.say("one");
    world.run(&mut [&mut worker]);
    let ailment = Arc::new(Ailment::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(AilingStores(Arc::clone(&ailment)));
    let mut standby = standby(&world, &stores);
    let mut turns = |times| {
        for _ in 0..times {
            world.clock.advance(Duration::from_secs(1));
            standby.turn().unwrap();
        }
        standby.copies().len()
    };
    assert_eq!(turns(5), PARTITIONS as usize);
    ailment.writes.store(1, Ordering::SeqCst);
    ailment.clears.store(3, Ordering::SeqCst);
    world.say("two");
    world.run(&mut [&mut worker]);
    assert_eq!(turns(20), PARTITIONS as usize);
    let left = ailment.clears.load(Ordering::SeqCst);
    assert!(left < 0, "it was emptied in the end");
    turns(5);
    assert_eq!(ailment.clears.load(Ordering::SeqCst), left, "once, and copied anew");
}

/// Counts seconds, of which it says nothing until it is asked.
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
fn what_a_punctuation_changes_alone_is_committed() {
    let mut topology = TopologyBuilder::new("test", topic("dead"));
    let words = topology.source("words", topic("in"), Arc::new(Utf8));
    let seconds = topology.key_value_store("seconds", Arc::new(Stored::version(1)));
    let stores = [seconds.id()];
    let make = move || Seconds { seconds: seconds.clone() };
    let counted = topology.process("seconds", &[words], &stores, make);
    topology.sink("out", &[counted], topic("out"), Arc::new(Utf8));
    let world = World::of(topology.build(), LocalSettings::default());
    let mut first = world.join("a");
    world.run(&mut [&mut first]);
    for second in 1..=3 {
        world.clock.advance(Duration::from_secs(1));
        world.run(&mut [&mut first]);
        // Long before a commit of nothing would come.
        assert_eq!(world.changelog()[&b"seconds"[..]], second * PARTITIONS as usize);
    }
    drop(first);
    let mut second = world.join("a");
    world.say("after");
    World::turn(&mut [&mut second]);
    world.run(&mut [&mut second]);
    world.expect_out(&["after 3"]);
}

/// The first commit of all is aborted, with the marks by which stores know their changelogs.
#[test]
fn a_mark_that_was_aborted_is_written_again() {
    let world = World::new("out");
    let folder = tempfile::tempdir().unwrap();
    let on_disk =
        || -> Arc<dyn StoreSupplier> { Arc::new(DiskStores::open(folder.path()).unwrap()) };
    let stores = on_disk();
    let mut worker = world.join_on(&stores, "a");
    World::turn(&mut [&mut worker]);
    world.say("one");
    worker.turn(Duration::ZERO).unwrap();
    worker.flush_changelogs(1).unwrap();
    worker.abort("of a test").unwrap();
    world.run(&mut [&mut worker]);
    world.expect_out(&["one 1"]);
    let stop = StopSignal::default();
    stop.stop();
    worker.run(&stop).unwrap();
    drop(stores);
    let mut next = world.join_on(&on_disk(), "a");
    world.say("two");
    world.run(&mut [&mut next]);
    world.expect_out(&["one 1", "two 2"]);
    assert_eq!(world.restored(), 0, "the stores know their changelogs");
}

#[test]
fn a_store_that_is_to_be_rebuilt_is_emptied_first() {
    let world = World::new("out");
    let folder = tempfile::tempdir().unwrap();
    let stores: Arc<dyn StoreSupplier> = Arc::new(DiskStores::open(folder.path()).unwrap());
    let mut worker = world.join_on(&stores, "a");
    world.say("one");
    world.run(&mut [&mut worker]);
    worker.open_empty(TASK).unwrap();
    let task = &worker.active_tasks[&TASK].task;
    assert_eq!(task.store_entries()["counts"], 0);
    assert_eq!(task.checkpoint(StoreId(0)), None);
}
