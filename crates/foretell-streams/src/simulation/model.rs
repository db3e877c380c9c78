//! A sequential model of the topology, with which outputs and stores are compared. [`Model::check`] checks exactly once;
//! `at_least_once` has the weaker check.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    codec::{Codec as _, Stored},
    record::InputRecord,
    simulation::workload::{POISON, sets_a_timer, text},
    state::is_mark,
    time::EventTime,
};

/// The input of a simulation.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Values by key and topic, in the order of writing.
    pub(super) inputs: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    pub(super) poison: BTreeSet<String>,
    /// Values that are in time by their event times, whatever the order of writing.
    pub(super) in_time: BTreeSet<String>,
}

/// Everything that is committed at the end of a simulation.
pub(super) struct Committed {
    pub(super) outputs: Vec<InputRecord>,
    pub(super) dead_letters: Vec<InputRecord>,
    pub(super) stores: Stores,
    /// Windows before this time are closed.
    pub(super) still_open: EventTime,
    /// Timers before this time of the clock have fired.
    pub(super) still_pending: EventTime,
}

/// The contents of the stores according to their changelogs.
#[derive(Debug, Default)]
pub(super) struct Stores {
    pub(super) numbers: BTreeMap<String, u32>,
    /// The entries of the window by key: event time and value.
    pub(super) window: BTreeMap<String, Vec<(EventTime, String)>>,
    /// The timers by key: the time at which they are due, and the value.
    pub(super) timers: BTreeMap<String, Vec<(EventTime, String)>>,
}

/// A parsed output record.
pub(super) enum Output<'a> {
    /// An input with its numbers within its topic and key, and within its key.
    Numbered { input: &'a str, topic: &'a str, of_topic: u32, of_key: u32, is_late: bool },
    /// An input that has left the window.
    Closed(&'a str),
    /// An input whose timer has fired: when it was due, and when it did.
    Fired { input: &'a str, due: i64, at: i64 },
    /// An input whose timer was cancelled.
    Cancelled(&'a str),
}

impl Stores {
    pub(super) fn of([numbers, window, timers]: [&[InputRecord]; 3]) -> Self {
        let numbers = compacted(numbers).into_iter().map(|(key, value)| {
            (text(Some(key)), Stored::<u32>::version(1).decode(value).unwrap())
        });
        let (window, timers) = (entries(window), entries(timers));
        Self { numbers: numbers.collect(), window, timers }
    }
}

/// The entries of a window store, by key.
fn entries(changelog: &[InputRecord]) -> BTreeMap<String, Vec<(EventTime, String)>> {
    let mut by_key = BTreeMap::<String, Vec<(EventTime, String)>>::new();
    for (layout, value) in compacted(changelog) {
        // The layout of `state/window.rs`: 1, length of the key, key, time, sequence.
        let (length, rest) = layout[1..].split_first_chunk::<4>().unwrap();
        let (key, rest) = rest.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
        let time = u64::from_be_bytes(*rest.first_chunk().unwrap()) ^ (1 << 63);
        let value = Stored::<String>::version(1).decode(value).unwrap();
        let entry = (EventTime(time.cast_signed()), value);
        by_key.entry(text(Some(key))).or_default().push(entry);
    }
    by_key
}

/// The last value of every key of a changelog.
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

/// Parses an output value of the workload.
pub(super) fn parse_output(value: &str) -> Output<'_> {
    let words: Vec<&str> = value.split(' ').collect();
    let (topic, of_topic, of_key, late) = match words[1..] {
        ["closed"] => return Output::Closed(words[0]),
        ["cancelled"] => return Output::Cancelled(words[0]),
        ["fired", due, at] => {
            let [due, at] = [due, at].map(|time| time.parse().unwrap());
            return Output::Fired { input: words[0], due, at };
        }
        [topic, of_topic, of_key, late] => (topic, of_topic, of_key, late),
        _ => panic!("{value}"),
    };
    let (input, is_late) = (words[0], late == "late");
    let [of_topic, of_key] = [of_topic, of_key].map(|number| number.parse().unwrap());
    Output::Numbered { input, topic, of_topic, of_key, is_late }
}

impl Model {
    /// Adds an input.
    pub(super) fn add(&mut self, topic: &str, key: &str, value: &str) {
        if value.starts_with(POISON) {
            self.poison.insert(value.to_owned());
            return;
        }
        let of_key = self.inputs.entry(key.to_owned()).or_default();
        of_key.entry(topic.to_owned()).or_default().push(value.to_owned());
    }

    /// Checks exactly once: every input of a key was output once, in its topic's order, with its number; the numbers over
    /// both topics have no gaps; each input that was added to the window has left it once or is still there; each poison
    /// value was dead-lettered once; each timer has fired once, or was cancelled once, or is pending; and the stores have counted exactly this. Returns a description of the violation.
    pub(super) fn check(&self, committed: &Committed) -> Result<(), String> {
        let dead_letters: Vec<_> =
            committed.dead_letters.iter().map(|record| text(record.value.as_deref())).collect();
        let unique: BTreeSet<_> = dead_letters.iter().cloned().collect();
        if unique.len() != dead_letters.len() || unique != self.poison {
            return Err(format!("dead letters {dead_letters:?}, expected {:?}", self.poison));
        }
        for (key, records) in self.by_key(&committed.outputs)? {
            self.check_timers(&key, &records, committed, true)?;
            self.check_key(&key, &records, committed)
                .map_err(|violation| format!("{key}: {violation}"))?;
        }
        let names = self.inputs.iter().flat_map(|(key, topics)| {
            let of_topic = topics.iter().map(move |(topic, inputs)| {
                (format!("{key} {topic}"), u32::try_from(inputs.len()).unwrap())
            });
            let of_key = u32::try_from(topics.values().map(Vec::len).sum::<usize>()).unwrap();
            of_topic.chain([(key.clone(), of_key)])
        });
        let numbers: BTreeMap<_, _> = names.collect();
        if committed.stores.numbers != numbers {
            return Err(format!(
                "numbers in the store are {:?}, expected {numbers:?}",
                committed.stores.numbers
            ));
        }
        Ok(())
    }

    /// The outputs of each key. An error if the keys differ from those of the input.
    pub(super) fn by_key<'r>(
        &self,
        outputs: &'r [InputRecord],
    ) -> Result<BTreeMap<String, Vec<&'r InputRecord>>, String> {
        let mut by_key = BTreeMap::<String, Vec<&InputRecord>>::new();
        for record in outputs {
            by_key.entry(text(record.key.as_deref())).or_default().push(record);
        }
        if !by_key.keys().eq(self.inputs.keys()) {
            return Err(format!("output has the keys {:?}", by_key.keys()));
        }
        Ok(by_key)
    }

    /// Checks that every input that sets a timer has fired it, or had it cancelled, or has it pending: once, if `is_exact`. No
    /// timer fires before it is due, and none that is due for long is pending.
    pub(super) fn check_timers(
        &self,
        key: &str,
        records: &[&InputRecord],
        committed: &Committed,
        is_exact: bool,
    ) -> Result<(), String> {
        let mut ends = BTreeMap::<String, usize>::new();
        for record in records {
            match parse_output(&text(record.value.as_deref())) {
                Output::Numbered { .. } | Output::Closed(_) => {}
                Output::Fired { input, due, at } if at < due => {
                    return Err(format!("{key}: the timer of {input} fired before it was due"));
                }
                Output::Fired { input, .. } | Output::Cancelled(input) => {
                    *ends.entry(input.to_owned()).or_default() += 1;
                }
            }
        }
        for (due, input) in committed.stores.timers.get(key).into_iter().flatten() {
            if *due < committed.still_pending {
                if is_exact {
                    return Err(format!("{key}: the timer of {input} should have fired"));
                }
                // At least once, a changelog may have a timer that was set before its record was processed again.
                continue;
            }
            *ends.entry(input.clone()).or_default() += 1;
        }
        let mut set = BTreeMap::<String, usize>::new();
        for input in self.inputs[key].values().flatten().filter(|input| sets_a_timer(input)) {
            *set.entry(input.clone()).or_default() += 1;
        }
        let is_right = if is_exact { ends == set } else { ends.keys().eq(set.keys()) };
        if is_right { Ok(()) } else { Err(format!("{key}: timers {ends:?}, expected {set:?}")) }
    }

    fn check_key(
        &self,
        key: &str,
        records: &[&InputRecord],
        committed: &Committed,
    ) -> Result<(), String> {
        let mut output = BTreeMap::<String, Vec<String>>::new();
        let (mut added, mut closed, mut count) = (Vec::new(), Vec::new(), 0);
        for record in records {
            let value = text(record.value.as_deref());
            match parse_output(&value) {
                Output::Closed(input) => closed.push(input.to_owned()),
                Output::Fired { .. } | Output::Cancelled(_) => {}
                Output::Numbered { input, topic, of_topic, of_key, is_late } => {
                    let topic_output = output.entry(topic.to_owned()).or_default();
                    topic_output.push(input.to_owned());
                    count += 1;
                    if of_topic as usize != topic_output.len() || of_key != count {
                        let expected = topic_output.len();
                        return Err(format!("`{value}` should be number {expected} and {count}"));
                    }
                    if !is_late {
                        added.push(input.to_owned());
                    } else if self.in_time.contains(input) {
                        return Err(format!("`{value}` was in time"));
                    }
                }
            }
        }
        if output != self.inputs[key] {
            return Err(format!("output {output:?}, expected {:?}", self.inputs[key]));
        }
        let stored = committed.stores.window.get(key);
        for (time, value) in stored.into_iter().flatten() {
            if *time < committed.still_open {
                return Err(format!("{value} should have left the window"));
            }
            closed.push(value.clone());
        }
        added.sort_unstable();
        closed.sort_unstable();
        if added != closed {
            added.retain(|value| {
                closed.iter().position(|one| one == value).map(|at| closed.remove(at)).is_none()
            });
            return Err(format!(
                "lost from the window {added:?}, never added to the window {closed:?}"
            ));
        }
        Ok(())
    }
}
