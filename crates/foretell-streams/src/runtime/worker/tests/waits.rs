//! A wait shows: why, since when, and for how long; and ends with what it was for.

use std::{sync::Arc, time::Duration};

use crate::{
    codec::Utf8,
    local::LocalSettings,
    runtime::worker::tests::{World, topic},
    time::{Clock, WallTime},
    topology::{
        Context, ProcessError, Processor, Punctuation, PunctuationKind, Record, TopologyBuilder,
    },
};

/// Can't do without something that comes after a quarter of an hour; its punctuation is never of use.
struct Wait;

const COMES_AT: WallTime = WallTime(15 * 60 * 1_000);

impl Processor for Wait {
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
        match ctx.now() < COMES_AT {
            true => Err(ProcessError::Retry("it has not come".to_owned())),
            false => {
                ctx.forward(&Record { value: format!("{} 1", record.value), ..record.clone() })
            }
        }
    }

    fn punctuate(
        &mut self,
        _punctuation: Punctuation,
        _ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        Err(ProcessError::reject("useless", "always"))
    }
}

#[test]
fn a_record_that_waits_shows_why_and_since_when() {
    let mut topology = TopologyBuilder::new("test", topic("dead"));
    let words = topology.source("words", topic("in"), Arc::new(Utf8));
    let waited = topology.process("wait", &[words], &[], || Wait);
    topology.sink("out", &[waited], topic("out"), Arc::new(Utf8));
    let world = World::of(topology.build(), LocalSettings::default());
    let mut worker = world.join("a");
    World::turn(&mut [&mut worker]);
    world.clock.advance(Duration::from_secs(30));
    world.say("word");
    World::turn(&mut [&mut worker]);
    let since = world.clock.now();
    let blocked = || world.metrics.blocked_seconds("a", "2");
    for minutes in 0..3 {
        let status = world.board.read()["a"].clone();
        for task in &status.tasks {
            assert_eq!(task.blocked_by.as_deref(), Some("it has not come"));
            assert_eq!(task.blocked_since, Some(since), "{minutes}");
        }
        assert_eq!(blocked(), 60 * minutes);
        // Not longer than a session at a time.
        for _ in 0..6 {
            world.clock.advance(Duration::from_secs(10));
            World::turn(&mut [&mut worker]);
        }
    }
    assert!(world.metrics.punctuations_failed_so_far() >= u64::from(super::PARTITIONS));
    while world.clock.now() < COMES_AT {
        world.clock.advance(Duration::from_secs(30));
        World::turn(&mut [&mut worker]);
    }
    world.run(&mut [&mut worker]);
    world.expect_out(&["word 1"]);
    assert_eq!(blocked(), 0);
    let status = world.board.read()["a"].clone();
    assert!(status.tasks.iter().all(|task| task.blocked_since.is_none()));
}

/// Who has lost a task does not go on telling that it is blocked.
#[test]
fn a_task_that_has_gone_is_not_blocked() {
    let mut topology = TopologyBuilder::new("test", topic("dead"));
    let words = topology.source("words", topic("in"), Arc::new(Utf8));
    topology.process("wait", &[words], &[], || Wait);
    let world = World::of(topology.build(), LocalSettings::default());
    let mut worker = world.join("a");
    world.say("word");
    World::turn(&mut [&mut worker]);
    for _ in 0..3 {
        world.clock.advance(Duration::from_secs(10));
        World::turn(&mut [&mut worker]);
    }
    assert_eq!(world.metrics.blocked_seconds("a", "0"), 30);
    drop(worker);
    assert_eq!(world.metrics.blocked_seconds("a", "0"), 0);
}
