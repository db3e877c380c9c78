//! What is to come of what was put in: the plain sequential model that outputs and stores are held against.
//! [`Model::check`] is for exactly once; what at least once promises is in `at_least_once`.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    codec::{Codec as _, Stored},
    record::InputRecord,
    simulation::workload::{POISON, text},
    state::is_mark,
    time::EventTime,
};

/// What was put in, by key and topic, in order.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) inputs: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    pub(super) poison: BTreeSet<String>,
    /// By their event times, these come within the window, in whatever order they were written.
    pub(super) in_time: BTreeSet<String>,
}

/// What is committed in the end.
pub(super) struct Found {
    pub(super) outputs: Vec<InputRecord>,
    pub(super) dead_letters: Vec<InputRecord>,
    pub(super) stores: Stores,
    /// Windows before this are closed.
    pub(super) still_open: EventTime,
}

/// What the changelogs say.
#[derive(Debug, Default)]
pub(super) struct Stores {
    pub(super) numbers: BTreeMap<String, u32>,
    /// By key, what is in the window, and since when.
    pub(super) window: BTreeMap<String, Vec<(EventTime, String)>>,
}

/// One output.
pub(super) enum Said<'a> {
    /// A record came out, with its numbers.
    Numbered { input: &'a str, topic: &'a str, of_topic: u32, of_key: u32, is_late: bool },
    /// It left the window.
    Closed(&'a str),
}

impl Stores {
    pub(super) fn of(numbers: &[InputRecord], window: &[InputRecord]) -> Self {
        let mut stores = Self::default();
        for (key, value) in compacted(numbers) {
            let number = Stored::<u32>::version(1).decode(value).unwrap();
            stores.numbers.insert(text(Some(key)), number);
        }
        for (place, value) in compacted(window) {
            // As `state/window.rs` draws it: 1, the key's length, the key, the time, the sequence.
            let (length, rest) = place[1..].split_first_chunk::<4>().unwrap();
            let (key, rest) = rest.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
            let time = u64::from_be_bytes(*rest.first_chunk().unwrap()) ^ (1 << 63);
            let value = Stored::<String>::version(1).decode(value).unwrap();
            let entry = (EventTime(time.cast_signed()), value);
            stores.window.entry(text(Some(key))).or_default().push(entry);
        }
        stores
    }
}

/// The last value of every key.
fn compacted(changelog: &[InputRecord]) -> BTreeMap<&[u8], &[u8]> {
    let mut entries = BTreeMap::new();
    for record in changelog.iter().filter(|record| !is_mark(record)) {
        let key = record.key.as_deref().unwrap();
        match record.value.as_deref() {
            Some(value) => entries.insert(key, value),
            None => entries.remove(key),
        };
    }
    entries
}

/// What `value` says, as the workload writes it.
pub(super) fn said(value: &str) -> Said<'_> {
    let words: Vec<&str> = value.split(' ').collect();
    let [input, topic, of_topic, of_key, late] = words[..] else { return Said::Closed(words[0]) };
    let number = |text: &str| text.parse().unwrap();
    let (of_topic, of_key) = (number(of_topic), number(of_key));
    Said::Numbered { input, topic, of_topic, of_key, is_late: late == "late" }
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

    /// Says what is wrong: every input of a key came out once, in its topic's order, with its number; the numbers over
    /// both topics leave nothing out; what was kept in the window has left it once, or is there still; what
    /// had to be dead-lettered was, once; and the stores have counted all that, and nothing else.
    pub(super) fn check(&self, found: &Found) -> Result<(), String> {
        let dead: Vec<_> =
            found.dead_letters.iter().map(|record| text(record.value.as_deref())).collect();
        let unique: BTreeSet<_> = dead.iter().cloned().collect();
        if unique.len() != dead.len() || unique != self.poison {
            return Err(format!("dead-lettered: {dead:?}, not {:?}", self.poison));
        }
        for (key, records) in self.by_key(&found.outputs)? {
            self.check_key(&key, &records, found).map_err(|wrong| format!("{key}: {wrong}"))?;
        }
        let names = self.inputs.iter().flat_map(|(key, topics)| {
            let of_topic = topics.iter().map(move |(topic, inputs)| {
                (format!("{key} {topic}"), u32::try_from(inputs.len()).unwrap())
            });
            let of_key = u32::try_from(topics.values().map(Vec::len).sum::<usize>()).unwrap();
            of_topic.chain([(key.clone(), of_key)])
        });
        let numbers: BTreeMap<_, _> = names.collect();
        if found.stores.numbers != numbers {
            return Err(format!("the store says {:?}, not {numbers:?}", found.stores.numbers));
        }
        Ok(())
    }

    /// The outputs of each key, of all that were put in and no other.
    pub(super) fn by_key<'r>(
        &self,
        outputs: &'r [InputRecord],
    ) -> Result<BTreeMap<String, Vec<&'r InputRecord>>, String> {
        let mut by_key = BTreeMap::<String, Vec<&InputRecord>>::new();
        for record in outputs {
            by_key.entry(text(record.key.as_deref())).or_default().push(record);
        }
        if !by_key.keys().eq(self.inputs.keys()) {
            return Err(format!("keys: {:?}", by_key.keys()));
        }
        Ok(by_key)
    }

    fn check_key(&self, key: &str, records: &[&InputRecord], found: &Found) -> Result<(), String> {
        let mut came = BTreeMap::<String, Vec<String>>::new();
        let (mut kept, mut left, mut count) = (Vec::new(), Vec::new(), 0);
        for record in records {
            let value = text(record.value.as_deref());
            match said(&value) {
                Said::Closed(input) => left.push(input.to_owned()),
                Said::Numbered { input, topic, of_topic, of_key, is_late } => {
                    let of_this = came.entry(topic.to_owned()).or_default();
                    of_this.push(input.to_owned());
                    count += 1;
                    if of_topic as usize != of_this.len() || of_key != count {
                        let should = of_this.len();
                        return Err(format!("`{value}` should be number {should} and {count}"));
                    }
                    if !is_late {
                        kept.push(input.to_owned());
                    } else if self.in_time.contains(input) {
                        return Err(format!("`{value}` was in time"));
                    }
                }
            }
        }
        if came != self.inputs[key] {
            return Err(format!("came {came:?}, not {:?}", self.inputs[key]));
        }
        let still_there = found.stores.window.get(key);
        for (time, value) in still_there.into_iter().flatten() {
            if *time < found.still_open {
                return Err(format!("{value} should have left the window"));
            }
            left.push(value.clone());
        }
        kept.sort_unstable();
        left.sort_unstable();
        if kept != left {
            kept.retain(|value| {
                left.iter().position(|one| one == value).map(|at| left.remove(at)).is_none()
            });
            return Err(format!("kept and gone {kept:?}, there and never kept {left:?}"));
        }
        Ok(())
    }
}
