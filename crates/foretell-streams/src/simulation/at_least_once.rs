//! The check of at least once, where outputs, changelogs and offsets are not one transaction. A commit writes the outputs,
//! then the changelogs, then the offsets, and waits for each. Wherever it fails, the records that are not committed are
//! processed again:
//!
//! - every input is output, and every poison value is dead-lettered, perhaps more than once;
//! - the first outputs of the inputs of a key and topic are in the order of the inputs, because reprocessing starts at or
//!   before the first input without an output. (A real producer may drop one record after half a minute and then write the
//!   next. Here it drops all records until it has reported the failure);
//! - a number counts at least the inputs up to its own, and at most the times that any record was processed: a store holds
//!   the changes of all committed inputs, and perhaps of later ones, which are processed again;
//! - a timer has fired, or was cancelled, or is pending; perhaps more than one of these, because its record was processed again;
//! - an input was late once, or has left the window, or is still there; an input that leaves the window was output as
//!   added.
//!
//! Tasks with zombie writes are an exception: a process that stalls in the middle of a commit is not fenced, and may write
//! an old value over its successor's. For these tasks only the outputs and the upper bound of the numbers are checked.
//! (Kafka Streams has the same limit. Exactly once does not have it.)

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    record::{InputRecord, Partition},
    simulation::{
        model::{Committed, Model, Output, parse_output},
        workload::{text, time_of},
    },
};

/// The history of a simulation that the check needs besides inputs and outputs.
pub(super) struct History {
    /// The number of times that each name was counted up.
    pub(super) attempts: BTreeMap<String, u32>,
    /// The tasks whose changelogs a zombie has written to.
    pub(super) zombie_tasks: BTreeSet<Partition>,
}

impl History {
    fn check_number(&self, name: &str, number: u32, at_least: usize) -> Result<(), String> {
        let at_most = self.attempts.get(name).copied().unwrap_or(0);
        if (number as usize) < at_least || number > at_most {
            return Err(format!("`{name}` is {number}, expected {at_least} to {at_most}"));
        }
        Ok(())
    }
}

impl Model {
    /// Checks at least once as described at the top of the module. Returns a description of the violation.
    pub(super) fn check_at_least_once(
        &self,
        committed: &Committed,
        history: &History,
    ) -> Result<(), String> {
        let dead_letters = committed.dead_letters.iter();
        let dead_letters: BTreeSet<_> =
            dead_letters.map(|record| text(record.value.as_deref())).collect();
        if dead_letters != self.poison {
            return Err(format!("dead letters {dead_letters:?}, expected {:?}", self.poison));
        }
        for (key, records) in self.by_key(&committed.outputs)? {
            let checked = self.check_key_at_least_once(&key, &records, committed, history);
            checked.map_err(|violation| format!("{key}: {violation}"))?;
        }
        Ok(())
    }

    fn check_key_at_least_once(
        &self,
        key: &str,
        records: &[&InputRecord],
        committed: &Committed,
        history: &History,
    ) -> Result<(), String> {
        let (inputs, has_zombie_writes) = (&self.inputs[key], has_zombie_writes(key, history));
        let mut first_outputs = BTreeMap::<String, Vec<String>>::new();
        let (mut times, mut added) = (BTreeMap::new(), BTreeSet::new());
        let (mut late, mut closed) = (BTreeSet::new(), BTreeSet::new());
        for record in records {
            let value = text(record.value.as_deref());
            let (input, topic, of_topic, of_key, is_late) = match parse_output(&value) {
                Output::Fired { .. } | Output::Cancelled(_) => continue,
                Output::Closed(input) => {
                    closed.insert(input.to_owned());
                    continue;
                }
                Output::Numbered { input, topic, of_topic, of_key, is_late } => {
                    (input.to_owned(), topic, of_topic, of_key, is_late)
                }
            };
            let index = inputs.get(topic).and_then(|all| all.iter().position(|one| *one == input));
            let index = index.ok_or_else(|| format!("`{value}` is not an input"))?;
            let at_least = if has_zombie_writes { 1 } else { index + 1 };
            history.check_number(&format!("{key} {topic}"), of_topic, at_least)?;
            history.check_number(key, of_key, at_least)?;
            if times.insert(input.clone(), time_of(&input)).is_none() {
                first_outputs.entry(topic.to_owned()).or_default().push(input.clone());
            }
            if is_late {
                late.insert(input)
            } else {
                added.insert(input)
            };
        }
        if first_outputs != *inputs {
            return Err(format!("first outputs {first_outputs:?}, expected {inputs:?}"));
        }
        let stored: BTreeSet<_> = committed.stores.window.get(key).into_iter().flatten().collect();
        let stored: BTreeSet<_> = stored.iter().map(|(_, input)| input.clone()).collect();
        if let Some(input) = closed.union(&stored).find(|input| !added.contains(*input)) {
            return Err(format!("{input} was in the window, and was never output as added"));
        }
        if has_zombie_writes {
            return Ok(());
        }
        self.check_timers(key, records, committed, false)?;
        let in_time = self.in_time.iter().filter(|input| times.contains_key(*input));
        if let Some(input) = in_time.clone().find(|input| !added.contains(*input)) {
            return Err(format!("{input} was in time, and was output as late only"));
        }
        for (topic, inputs) in inputs {
            let name = format!("{key} {topic}");
            let number = committed.stores.numbers.get(&name).copied().unwrap_or(0);
            history.check_number(&name, number, inputs.len())?;
        }
        let is_settled = |input: &String| late.contains(input) || closed.contains(input);
        let is_accounted_for = |(input, time): &(&String, &_)| {
            is_settled(input) || (**time >= committed.still_open && stored.contains(*input))
        };
        match times.iter().find(|one| !is_accounted_for(one)) {
            None => Ok(()),
            Some((input, _)) => Err(format!("{input} never left the window, and is not in it")),
        }
    }
}

fn has_zombie_writes(key: &str, history: &History) -> bool {
    let task = key.split('-').next().unwrap();
    history.zombie_tasks.contains(&Partition(task.parse().unwrap()))
}
