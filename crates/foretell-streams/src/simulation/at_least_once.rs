//! What holds when outputs, changelogs and offsets are not one transaction. A commit writes the outputs first, then
//! the changelogs, then the offsets, and each is waited for; so wherever it breaks off, what is missing comes again:
//!
//! - every input comes out, and what had to be dead-lettered is dead-lettered; perhaps more than once;
//! - of each key and topic, the first time of each input is in the order in which they were put in: who repeats, starts at
//!   or before the first that is not out yet. (A real producer may give one record up after half a minute and then write the
//!   next; here it gives up all of them until it has said so);
//! - a number counts at least the inputs up to its own, and at most the times that anything was processed: a
//!   store holds what came of all committed inputs, and of some of the next ones, which then come again;
//! - an input was too late once, or has left the window, or is there still; none leaves it that never came out as kept.
//!
//! Not so where a zombie writes: nobody fences a process that stalled in the middle of a commit, and wakes to write an old
//! value over its successor's. Of such a task only the outputs are checked, and the numbers' upper bound. (Kafka
//! Streams has the same limit. Exactly once has it not.)

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    record::{InputRecord, Partition},
    simulation::{
        model::{Found, Model, Said, said},
        workload::{text, time_of},
    },
};

/// What was seen besides inputs and outputs.
pub(super) struct Seen {
    /// How often each name was counted up.
    pub(super) attempts: BTreeMap<String, u32>,
    /// Whose changelogs a zombie has written to.
    pub(super) zombie_tasks: BTreeSet<Partition>,
}

impl Seen {
    fn check_number(&self, name: &str, number: u32, at_least: usize) -> Result<(), String> {
        let at_most = self.attempts.get(name).copied().unwrap_or(0);
        if (number as usize) < at_least || number > at_most {
            return Err(format!("`{name}` is {number}, not {at_least} to {at_most}"));
        }
        Ok(())
    }
}

impl Model {
    /// Says what is wrong with it, see the module.
    pub(super) fn check_at_least_once(&self, found: &Found, seen: &Seen) -> Result<(), String> {
        let dead = found.dead_letters.iter().map(|record| text(record.value.as_deref()));
        let dead: BTreeSet<_> = dead.collect();
        if dead != self.poison {
            return Err(format!("dead-lettered: {dead:?}, not {:?}", self.poison));
        }
        for (key, records) in self.by_key(&found.outputs)? {
            let checked = self.check_key_at_least_once(&key, &records, found, seen);
            checked.map_err(|wrong| format!("{key}: {wrong}"))?;
        }
        Ok(())
    }

    fn check_key_at_least_once(
        &self,
        key: &str,
        records: &[&InputRecord],
        found: &Found,
        seen: &Seen,
    ) -> Result<(), String> {
        let (inputs, has_zombie_writes) = (&self.inputs[key], has_zombie_writes(key, seen));
        let mut came = BTreeMap::<String, Vec<String>>::new();
        let (mut times, mut kept) = (BTreeMap::new(), BTreeSet::new());
        let (mut late, mut closed) = (BTreeSet::new(), BTreeSet::new());
        for record in records {
            let value = text(record.value.as_deref());
            let (input, topic, of_topic, of_key, is_late) = match said(&value) {
                Said::Closed(input) => {
                    closed.insert(input.to_owned());
                    continue;
                }
                Said::Numbered { input, topic, of_topic, of_key, is_late } => {
                    (input.to_owned(), topic, of_topic, of_key, is_late)
                }
            };
            let place = inputs.get(topic).and_then(|all| all.iter().position(|one| *one == input));
            let place = place.ok_or_else(|| format!("`{value}` was never put in"))?;
            let at_least = if has_zombie_writes { 1 } else { place + 1 };
            seen.check_number(&format!("{key} {topic}"), of_topic, at_least)?;
            seen.check_number(key, of_key, at_least)?;
            if times.insert(input.clone(), time_of(&input)).is_none() {
                came.entry(topic.to_owned()).or_default().push(input.clone());
            }
            if is_late {
                late.insert(input)
            } else {
                kept.insert(input)
            };
        }
        if came != *inputs {
            return Err(format!("came first {came:?}, not {inputs:?}"));
        }
        let stored: BTreeSet<_> = found.stores.window.get(key).into_iter().flatten().collect();
        let stored: BTreeSet<_> = stored.iter().map(|(_, input)| input.clone()).collect();
        if let Some(input) = closed.union(&stored).find(|input| !kept.contains(*input)) {
            return Err(format!("{input} was in the window, and was never kept"));
        }
        if has_zombie_writes {
            return Ok(());
        }
        let in_time = self.in_time.iter().filter(|input| times.contains_key(*input));
        if let Some(input) = in_time.clone().find(|input| !kept.contains(*input)) {
            return Err(format!("{input} was in time, and came out as late only"));
        }
        for (topic, inputs) in inputs {
            let name = format!("{key} {topic}");
            let number = found.stores.numbers.get(&name).copied().unwrap_or(0);
            seen.check_number(&name, number, inputs.len())?;
        }
        let is_settled = |input: &String| late.contains(input) || closed.contains(input);
        let is_there = |(input, time): &(&String, &_)| {
            is_settled(input) || (**time >= found.still_open && stored.contains(*input))
        };
        match times.iter().find(|one| !is_there(one)) {
            None => Ok(()),
            Some((input, _)) => Err(format!("{input} never left the window, and is not there")),
        }
    }
}

fn has_zombie_writes(key: &str, seen: &Seen) -> bool {
    let task = key.split('-').next().unwrap();
    seen.zombie_tasks.contains(&Partition(task.parse().unwrap()))
}
