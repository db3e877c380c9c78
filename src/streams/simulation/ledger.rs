//! What is simulated, and what is to come of it: a topology that numbers the records of each key and keeps
//! them in a window, and the plain sequential model that its outputs are held against.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::streams::{
    codec::{Stored, Utf8},
    record::{InputRecord, Topic},
    state::{KeyValueHandle, WindowHandle},
    time::EventTime,
    topology::{
        Context, ProcessError, Processor, Punctuation, PunctuationKind, Record, Topology,
        TopologyBuilder,
    },
};

/// How long a record stays in the window.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// What a record begins with that is to be set aside.
pub(super) const POISON: &str = "poison";

struct Ledger {
    numbers: KeyValueHandle<u32>,
    window: WindowHandle<String>,
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap()
}

impl Processor for Ledger {
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
        let key = text(record.key.as_deref());
        let topic = ctx.input().unwrap().source.topic.to_string();
        let mut numbers = ctx.key_value(&self.numbers);
        let mut next = |of: &str| -> Result<u32, ProcessError> {
            let number = numbers.get(of)?.unwrap_or(0) + 1;
            numbers.put(of, &number)?;
            Ok(number)
        };
        let (of_topic, of_key) = (next(&format!("{key} {topic}"))?, next(&key)?);
        let is_late = record.time < ctx.stream_time() - WINDOW;
        if !is_late {
            ctx.window(&self.window).add(&key, record.time, &record.value)?;
        }
        if record.value.starts_with(POISON) {
            // Now that it has written: all of it must be taken back.
            return Err(ProcessError::reject("poison", record.value.as_str()));
        }
        let late = if is_late { "late" } else { "kept" };
        let value = format!("{} {topic} {of_topic} {of_key} {late}", record.value);
        ctx.forward(&Record { value, ..record.clone() })
    }

    fn punctuate(
        &mut self,
        _punctuation: Punctuation,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let before = ctx.stream_time() - WINDOW;
        for entry in ctx.window(&self.window).expire(before, usize::MAX)? {
            let key = Some(entry.key.into_bytes());
            let value = format!("{} closed", entry.value);
            ctx.forward(&Record { key, value, time: entry.time })?;
        }
        Ok(())
    }
}

pub(super) fn topology() -> Topology {
    let mut topology = TopologyBuilder::new("simulation", Topic::new("dead"));
    let lead = topology.source("lead", Topic::new("in"), Arc::new(Utf8));
    let side = topology.source("side", Topic::new("side"), Arc::new(Utf8));
    let numbers = topology.key_value_store("numbers", Arc::new(Stored::version(1)));
    let window = topology.window_store("window", Arc::new(Stored::version(1)));
    let stores = [numbers.id(), window.id()];
    let make = move || Ledger { numbers: numbers.clone(), window: window.clone() };
    let ledger = topology.process("ledger", &[lead, side], &stores, make);
    topology.sink("out", &[ledger], Topic::new("out"), Arc::new(Utf8));
    topology.build()
}

/// The model: what was put in, by key and topic, in order.
#[derive(Debug, Default)]
pub(super) struct Model {
    inputs: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    poison: BTreeSet<String>,
}

impl Model {
    pub(super) fn put(&mut self, topic: &str, key: &str, value: &str) {
        if value.starts_with(POISON) {
            self.poison.insert(value.to_owned());
            return;
        }
        let of_key = self.inputs.entry(key.to_owned()).or_default();
        of_key.entry(topic.to_owned()).or_default().push(value.to_owned());
    }

    /// Says what is wrong with the committed outputs, and with what was set aside: every input of a key came
    /// out once, in its topic's order, with its number; the numbers over both topics leave nothing out; and what was
    /// kept in the window left it once.
    pub(super) fn check(
        &self,
        outputs: &[InputRecord],
        dead_letters: &[InputRecord],
        still_open: EventTime,
    ) -> Result<(), String> {
        let dead: Vec<_> =
            dead_letters.iter().map(|record| text(record.value.as_deref())).collect();
        let unique: BTreeSet<_> = dead.iter().cloned().collect();
        if unique.len() != dead.len() || unique != self.poison {
            return Err(format!("set aside: {dead:?}, not {:?}", self.poison));
        }
        let mut by_key = BTreeMap::<String, Vec<&InputRecord>>::new();
        for record in outputs {
            by_key.entry(text(record.key.as_deref())).or_default().push(record);
        }
        if !by_key.keys().eq(self.inputs.keys()) {
            return Err(format!("keys: {:?}", by_key.keys()));
        }
        for (key, records) in by_key {
            self.check_key(&key, &records, still_open)
                .map_err(|wrong| format!("{key}: {wrong}"))?;
        }
        Ok(())
    }

    fn check_key(
        &self,
        key: &str,
        records: &[&InputRecord],
        still_open: EventTime,
    ) -> Result<(), String> {
        let mut came = BTreeMap::<String, Vec<String>>::new();
        let (mut kept, mut closed, mut count) = (Vec::new(), Vec::new(), 0_usize);
        for record in records {
            let value = text(record.value.as_deref());
            let words: Vec<&str> = value.split(' ').collect();
            let [input, topic, of_topic, of_key, late] = words[..] else {
                closed.push(words[0].to_owned());
                continue;
            };
            let of_this = came.entry(topic.to_owned()).or_default();
            of_this.push(input.to_owned());
            count += 1;
            if of_topic != of_this.len().to_string() || of_key != count.to_string() {
                return Err(format!("`{value}` should be number {} and {count}", of_this.len()));
            }
            if late == "kept" && record.timestamp < still_open {
                kept.push(input.to_owned());
            }
        }
        if came != self.inputs[key] {
            return Err(format!("came {came:?}, not {:?}", self.inputs[key]));
        }
        kept.sort_unstable();
        closed.sort_unstable();
        if kept != closed {
            kept.retain(|value| {
                closed.iter().position(|one| one == value).map(|at| closed.remove(at)).is_none()
            });
            return Err(format!("kept and not closed {kept:?}, closed and not kept {closed:?}"));
        }
        Ok(())
    }
}
