//! Joins views with the clicks of the same user within ten minutes, by event time:
//! `cargo run -p foretell-streams --example windowed_join`.
//!
//! ```text
//!   views ──▶ join views ──┬──▶ clicked views
//!                 ╳ stores │
//!   clicks ─▶ join clicks ─┘
//! ```
//! Each side adds its records to a window store and looks up partners in the other side's store, so the order in which the
//! two records are processed does not matter.

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::{error::Error, sync::Arc, time::Duration};

use foretell_streams::{
    codec::Utf8,
    record::{OutputRecord, Topic},
    state::WindowHandle,
    time::EventTime,
    topology::{Context, ProcessError, Processor, Record, Topology, TopologyBuilder},
};

mod on_a_broker;

use on_a_broker::{Run, text};

const WINDOW: Duration = Duration::from_secs(600);
/// The time after the end of a window in which a late record is still accepted.
const GRACE: Duration = Duration::from_secs(60);
/// Bounds the work of one call. Each record adds one entry, so this removes entries faster than they are added.
const EXPIRED_MAX: usize = 100;

/// One side of the join.
struct Join {
    own: WindowHandle<String>,
    other: WindowHandle<String>,
    /// The spans before and after the time of a record in which partners are looked up.
    before: Duration,
    after: Duration,
    describe: fn(own: &str, other: &str) -> String,
}

impl Processor for Join {
    type In = String;
    type Out = String;

    fn process(
        &mut self,
        record: &Record<String>,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let (key, time) = (record.text_key()?, record.time);
        let oldest = ctx.stream_time() - WINDOW - GRACE;
        if time < oldest {
            return Err(ProcessError::reject("late", "its window has closed"));
        }
        ctx.window(&self.own).add(key, time, &record.value)?;
        ctx.window(&self.own).expire(oldest, EXPIRED_MAX)?;
        let other = ctx.window(&self.other);
        for partner in other.fetch(key, time - self.before, time + self.after)? {
            let value = (self.describe)(&record.value, &partner.value);
            ctx.forward(&Record { value, time: time.max(partner.time), ..record.clone() })?;
        }
        Ok(())
    }
}

fn topology() -> Topology {
    let mut builder = TopologyBuilder::new("clicked-views", Topic::new("dead-letters"));
    let views = builder.source("views", Topic::new("views"), Arc::new(Utf8));
    let clicks = builder.source("clicks", Topic::new("clicks"), Arc::new(Utf8));
    let shown = builder.window_store::<String>("shown", Arc::new(Utf8));
    let clicked = builder.window_store::<String>("clicked", Arc::new(Utf8));
    let stores = [shown.id(), clicked.id()];

    let (own, other) = (shown.clone(), clicked.clone());
    let views = builder.process("join views", &[views], &stores, move || Join {
        own: own.clone(),
        other: other.clone(),
        before: Duration::ZERO,
        after: WINDOW,
        describe: |view, click| format!("{view}, then {click}"),
    });
    let clicks = builder.process("join clicks", &[clicks], &stores, move || Join {
        own: clicked.clone(),
        other: shown.clone(),
        before: WINDOW,
        after: Duration::ZERO,
        describe: |click, view| format!("{view}, then {click}"),
    });
    builder.sink("clicked views", &[views, clicks], Topic::new("clicked-views"), Arc::new(Utf8));
    builder.build()
}

pub(crate) fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let record = |topic: &str, key: &str, value: &str, minute: u64| {
        let time = EventTime(1_704_067_200_000) + Duration::from_secs(60 * minute);
        OutputRecord::new(&Topic::new(topic), Some(key.as_bytes()), Some(value.as_bytes()), time)
    };
    let run = Run {
        group: "clicked-views",
        topology: topology(),
        partitions: 1,
        input: vec![
            record("views", "ann", "saw shoes at 12:00", 0),
            record("views", "bob", "saw hats at 12:01", 1),
            record("clicks", "ann", "clicked at 12:03", 3),
            // Eleven minutes after the view: no partner.
            record("clicks", "bob", "clicked at 12:12", 12),
            // Late by event time, but within the grace period.
            record("clicks", "ann", "clicked at 12:09", 9),
        ],
        outputs: vec![Topic::new("clicked-views")],
        expected: 2,
    };
    let joined = run.locally()?;
    Ok(joined
        .iter()
        .map(|record| format!("{}: {}", text(record.key.as_deref()), text(record.value.as_deref())))
        .collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    for joined in run()? {
        println!("{joined}");
    }
    Ok(())
}
