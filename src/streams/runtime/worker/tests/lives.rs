//! Long lives: what a worker must forget after a success, or the next failure finds it worn out.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::streams::{
    codec::{Stored, Utf8},
    local::LocalSettings,
    runtime::{
        Standby, StandbyParts, StopSignal, Worker, WorkerError,
        worker::tests::{
            PARTITIONS, World,
            stores::{AilingStores, Ailment},
            topic,
        },
    },
    state::{DiskStores, KeyValueHandle, StoreSupplier},
    time::{Clock, ManualClock},
    topology::{
        Context, ProcessError, Processor, Punctuation, PunctuationKind, Record, TopologyBuilder,
    },
};

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

/// No copy is worth the process.
#[test]
fn a_copy_that_cannot_be_emptied_is_tried_again() {
    let world = World::new("out");
    let mut worker = world.join("a");
    world.say("one");
    world.run(&mut [&mut worker]);
    let ailment = Arc::new(Ailment::default());
    let stores: Arc<dyn StoreSupplier> = Arc::new(AilingStores(Arc::clone(&ailment)));
    let mut standby = standby(&world, &stores);
    ailment.writes.store(1, Ordering::SeqCst);
    // The first restore of each empties its store, too.
    ailment.clears.store(i64::from(PARTITIONS) + 3, Ordering::SeqCst);
    let mut turn = || {
        world.clock.advance(Duration::from_secs(1));
        standby.turn().unwrap();
    };
    (0..20).for_each(|_| turn());
    assert!(ailment.clears.load(Ordering::SeqCst) < 0, "it was emptied in the end");
    assert_eq!(standby.copies().len(), PARTITIONS as usize);
}

/// Counts minutes, of which it says nothing until it is asked.
struct Minutes {
    minutes: KeyValueHandle<u32>,
}

impl Processor for Minutes {
    type In = String;
    type Out = String;

    fn start(&mut self, ctx: &mut Context<'_, String>) {
        ctx.schedule(PunctuationKind::WallClock, Duration::from_secs(60));
    }

    fn process(
        &mut self,
        record: &Record<String>,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let minutes = ctx.key_value(&self.minutes).get("minutes")?.unwrap_or(0);
        ctx.forward(&Record { value: format!("{} {minutes}", record.value), ..record.clone() })
    }

    fn punctuate(
        &mut self,
        _punctuation: Punctuation,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let mut minutes = ctx.key_value(&self.minutes);
        let next = minutes.get("minutes")?.unwrap_or(0) + 1;
        minutes.put("minutes", &next)?;
        Ok(())
    }
}

#[test]
fn what_a_punctuation_changes_alone_is_committed() {
    let mut topology = TopologyBuilder::new("test", topic("dead"));
    let words = topology.source("words", topic("in"), Arc::new(Utf8));
    let minutes = topology.key_value_store("minutes", Arc::new(Stored::version(1)));
    let stores = [minutes.id()];
    let make = move || Minutes { minutes: minutes.clone() };
    let counted = topology.process("minutes", &[words], &stores, make);
    topology.sink("out", &[counted], topic("out"), Arc::new(Utf8));
    let world = World::of(topology.build(), LocalSettings::default());
    let mut first = world.join("a");
    world.run(&mut [&mut first]);
    for _ in 0..3 {
        // Less than an idle commit apart, and never longer than a session.
        for _ in 0..2 {
            world.clock.advance(Duration::from_secs(30));
            world.run(&mut [&mut first]);
        }
    }
    let kept = world.changelog();
    assert_eq!(kept[&b"minutes"[..]], 3 * PARTITIONS as usize, "{kept:?}");
    drop(first);
    let mut second = world.join("a");
    world.say("after");
    world.run(&mut [&mut second]);
    world.expect_out(&["after 3"]);
}
