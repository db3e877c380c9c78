//! The status and the metric of a blocked task.

use std::{sync::Arc, time::Duration};

use crate::{
    codec::Utf8,
    local::LocalSettings,
    runtime::worker::tests::{Harness, topic},
    time::{Clock, WallTime},
    topology::{
        Context, ProcessError, Processor, Punctuation, PunctuationKind, Record, TopologyBuilder,
    },
};

/// Blocks every record for a quarter of an hour. Its punctuation always fails.
struct Wait;

const AVAILABLE_AT: WallTime = WallTime(15 * 60 * 1_000);

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
        match ctx.now() < AVAILABLE_AT {
            true => Err(ProcessError::Retry("the model is not available".to_owned())),
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
        Err(ProcessError::reject("failing", "always"))
    }
}

#[test]
fn a_blocked_task_shows_why_and_since_when() {
    let mut topology = TopologyBuilder::new("test", topic("dead"));
    let words = topology.source("words", topic("in"), Arc::new(Utf8));
    let waited = topology.process("wait", &[words], &[], || Wait);
    topology.sink("out", &[waited], topic("out"), Arc::new(Utf8));
    let harness = Harness::of(topology.build(), LocalSettings::default());
    let mut worker = harness.join("a");
    Harness::turn(&mut [&mut worker]);
    harness.clock.advance(Duration::from_secs(30));
    harness.put("word");
    Harness::turn(&mut [&mut worker]);
    let since = harness.clock.now();
    let blocked = || harness.metrics.blocked_seconds("a", "2");
    for minutes in 0..3 {
        let status = harness.board.read()["a"].clone();
        for task in &status.tasks {
            assert_eq!(task.blocked_by.as_deref(), Some("the model is not available"));
            assert_eq!(task.blocked_since, Some(since), "{minutes}");
        }
        assert_eq!(blocked(), 60 * minutes);
        // In steps shorter than a session.
        for _ in 0..6 {
            harness.clock.advance(Duration::from_secs(10));
            Harness::turn(&mut [&mut worker]);
        }
    }
    assert!(harness.metrics.punctuations_failed_so_far() >= u64::from(super::PARTITIONS));
    while harness.clock.now() < AVAILABLE_AT {
        harness.clock.advance(Duration::from_secs(30));
        Harness::turn(&mut [&mut worker]);
    }
    harness.run(&mut [&mut worker]);
    harness.expect_out(&["word 1"]);
    assert_eq!(blocked(), 0);
    let status = harness.board.read()["a"].clone();
    assert!(status.tasks.iter().all(|task| task.blocked_since.is_none()));
}

/// The metric of a task that was closed is reset.
#[test]
fn a_closed_task_is_not_blocked() {
    let mut topology = TopologyBuilder::new("test", topic("dead"));
    let words = topology.source("words", topic("in"), Arc::new(Utf8));
    topology.process("wait", &[words], &[], || Wait);
    let harness = Harness::of(topology.build(), LocalSettings::default());
    let mut worker = harness.join("a");
    harness.put("word");
    Harness::turn(&mut [&mut worker]);
    for _ in 0..3 {
        harness.clock.advance(Duration::from_secs(10));
        Harness::turn(&mut [&mut worker]);
    }
    assert_eq!(harness.metrics.blocked_seconds("a", "0"), 30);
    drop(worker);
    assert_eq!(harness.metrics.blocked_seconds("a", "0"), 0);
}
