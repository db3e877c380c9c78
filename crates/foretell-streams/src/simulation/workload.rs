//! The simulated topology: it numbers the records of each key, keeps them in a window, and sets timers that fire by the clock
//! unless a later record of the key cancels them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    codec::{Stored, Utf8},
    record::{InputRecord, Topic},
    simulation::{fault_injector::Bug, planted_bugs},
    state::{KeyValueHandle, WindowHandle},
    time::EventTime,
    topology::{
        Context, ProcessError, Processor, Punctuation, PunctuationKind, Record, Topology,
        TopologyBuilder,
    },
};

/// The time that a record stays in the window.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// The time after which a timer fires.
const DELAY: Duration = Duration::from_secs(5);
/// Interval of the checks for timers that are due.
const TIMER_INTERVAL: Duration = Duration::from_millis(100);
/// Prefix of values that the processor rejects, so that they are dead-lettered.
pub(super) const POISON: &str = "poison";

/// The number of times that a record was numbered under each name, whether it was committed or not. A crash does not
/// reset it.
pub(super) type Attempts = Arc<Mutex<BTreeMap<String, u32>>>;

struct Workload {
    numbers: KeyValueHandle<u32>,
    window: WindowHandle<String>,
    /// The timers; their times are those of the clock at which they are due.
    timers: WindowHandle<String>,
    attempts: Attempts,
}

/// Whether a record with this value sets a timer.
pub(super) fn sets_a_timer(value: &str) -> bool {
    digest(value).is_multiple_of(2)
}

/// Whether a record with this value cancels the timers of its key.
fn cancels(value: &str) -> bool {
    digest(value).is_multiple_of(7)
}

fn digest(value: &str) -> u32 {
    value.bytes().fold(0, |sum, byte| sum * 31 % 65_521 + u32::from(byte))
}

pub(super) fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap()
}

impl Processor for Workload {
    type In = String;
    type Out = String;

    fn start(&mut self, ctx: &mut Context<'_, String>) {
        ctx.schedule(PunctuationKind::StreamTime, Duration::from_secs(1));
        ctx.schedule(PunctuationKind::WallClock, TIMER_INTERVAL);
    }

    fn process(
        &mut self,
        record: &Record<String>,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let key = text(record.key.as_deref());
        let topic = ctx.input().unwrap().source.topic.to_string();
        let mut numbers = ctx.key_value(&self.numbers);
        let mut next = |of: &str| -> Result<u32, ProcessError> {
            let number = numbers.get(of)?.unwrap_or(0) + 1;
            numbers.put(of, &number)?;
            Ok(number)
        };
        let name = format!("{key} {topic}");
        let (of_topic, of_key) = (next(&name)?, next(&key)?);
        let is_late = record.time < ctx.stream_time() - WINDOW;
        if !is_late {
            ctx.window(&self.window).add(&key, record.time, &record.value)?;
        }
        self.set_timers(&key, &record.value, ctx)?;
        if record.value.starts_with(POISON) {
            // Rejected after the writes, all of which must be rolled back.
            return Err(ProcessError::reject("poison", record.value.as_str()));
        }
        for name in [name, key] {
            *self.attempts.lock().unwrap().entry(name).or_default() += 1;
        }
        let late = if is_late { "late" } else { "kept" };
        let value = format!("{} {topic} {of_topic} {of_key} {late}", record.value);
        ctx.forward(&Record { value, ..record.clone() })
    }

    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        if let Punctuation::WallClock(_) = punctuation {
            return self.fire(ctx);
        }
        let before = ctx.stream_time() - WINDOW;
        for entry in ctx.window(&self.window).expire(before, usize::MAX)? {
            let key = Some(entry.key.into_bytes());
            let value = format!("{} closed", entry.value);
            ctx.forward(&Record { key, value, time: entry.time })?;
        }
        Ok(())
    }
}

impl Workload {
    /// Cancels the timers of a key, and sets one, if the value says so.
    fn set_timers(
        &self,
        key: &str,
        value: &str,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        if cancels(value) {
            let pending = ctx.window(&self.timers).fetch(key, EventTime::MIN, EventTime::MAX)?;
            for timer in pending {
                ctx.window(&self.timers).remove(&timer);
                let value = format!("{} cancelled", timer.value);
                let key = Some(key.as_bytes().to_vec());
                ctx.forward(&Record { key, value, time: timer.time })?;
            }
        }
        if sets_a_timer(value) {
            let due = EventTime(ctx.now().0) + DELAY;
            ctx.window(&self.timers).add(key, due, &value.to_owned())?;
        }
        Ok(())
    }

    /// Fires the timers that are due.
    fn fire(&self, ctx: &mut Context<'_, String>) -> Result<(), ProcessError> {
        let now = EventTime(ctx.now().0);
        for timer in ctx.window(&self.timers).expire(now, usize::MAX)? {
            let value = format!("{} fired {} {}", timer.value, timer.time.0, now.0);
            let key = Some(timer.key.into_bytes());
            ctx.forward(&Record { key, value, time: timer.time })?;
        }
        Ok(())
    }
}

/// The event time in a value.
pub(super) fn time_of(value: &str) -> EventTime {
    let (_, time) = value.split_once('@').unwrap();
    EventTime(time.parse().unwrap())
}

pub(super) fn topology(attempts: &Attempts, bug: Option<Bug>) -> Topology {
    let attempts = Arc::clone(attempts);
    let mut topology = TopologyBuilder::new("simulation", Topic::new("dead"));
    if bug == Some(Bug::StreamTimeAheadOfTheClock) {
        topology.clock_tolerance(Duration::MAX);
    }
    let [lead, side] = [("lead", "in"), ("side", "side")].map(|(name, topic)| {
        let time = |value: &String, _: &InputRecord, _| Ok(time_of(value));
        topology.source_timed(name, Topic::new(topic), Arc::new(Utf8), time)
    });
    let numbers = topology.key_value_store("numbers", Arc::new(Stored::version(1)));
    let window = topology.window_store("window", Arc::new(Stored::version(1)));
    let timers = topology.window_store("timers", Arc::new(Stored::version(1)));
    let stores = [numbers.id(), window.id(), timers.id()];
    let make = move || Workload {
        numbers: numbers.clone(),
        window: window.clone(),
        timers: timers.clone(),
        attempts: Arc::clone(&attempts),
    };
    let workload = topology.process("workload", &[lead, side], &stores, make);
    topology.sink("out", &[workload], Topic::new("out"), Arc::new(Utf8));
    let mut topology = topology.build();
    if bug == Some(Bug::MergeByRecordTime) {
        planted_bugs::merge_by_record_time(&mut topology);
    }
    topology
}
