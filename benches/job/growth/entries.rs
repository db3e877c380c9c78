//! One task whose stores have a number of entries: its memory when it was filled, and the cost of an event, measured in turns
//! with tasks of other sizes, so that what the machine does meanwhile is the same for all.

use std::collections::BTreeMap;

use anyhow::ensure;
use foretell_ml::ModelBundle;
use foretell_streams::record::{OutputRecord, OutputRecordRef};

use crate::{
    growth::progress,
    measure::usage::{median, resident_bytes},
    meter::{Cost, Meter},
    task::{Meters, STAGES, ScoringTask},
};

/// Events of one commit: fewer than wait in the smallest store, so that their outcomes find them committed.
pub(crate) const COMMIT_EVENTS: usize = 500;
const ROUNDS: usize = 5;

/// Makes the records of a workload of steps, each of one event.
pub(crate) trait Steps {
    /// Records that a step writes to output topics.
    const OUTPUTS: usize;

    /// The records that fill the stores with one entry.
    fn fill(&self, number: usize) -> anyhow::Result<Vec<OutputRecord>>;

    /// The records of one event with stores that are full; `number` counts on from the entries.
    fn step(&self, number: usize) -> anyhow::Result<Vec<OutputRecord>>;
}

/// What a size costs.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Grown {
    pub(crate) entries: usize,
    /// Entries of each store in the end.
    pub(crate) store_entries: BTreeMap<String, usize>,
    /// Resident memory that an entry took when the stores were filled. With few entries it says little: the heap has free pages.
    pub(crate) bytes_an_entry: f64,
    /// Bytes of its key and value in the changelogs of the filled window stores.
    pub(crate) encoded_bytes: f64,
    /// CPU of the longest commit while they were filled: tables that grow move all their items at once.
    pub(crate) longest_commit_millis: f64,
    /// CPU of an event: the median of the rounds.
    pub(crate) cost: Cost,
    /// To that of the smallest size in the same round: the median.
    pub(crate) growth: f64,
    pub(crate) stages: BTreeMap<&'static str, Cost>,
}

/// A task of one size.
pub(crate) struct Growing<S> {
    entries: usize,
    steps: S,
    task: ScoringTask,
    /// The number of the next step.
    next: usize,
    bytes_an_entry: f64,
    encoded_bytes: f64,
    longest_commit_millis: f64,
    rounds: Vec<[Cost; STAGES.len()]>,
}

impl<S: Steps> Growing<S> {
    /// Fills the stores. `store` is the name of the window store that gets the entries.
    pub(crate) fn fill(
        model: &ModelBundle,
        settings: &[String],
        entries: usize,
        store: &str,
        steps: impl FnOnce(&ScoringTask) -> anyhow::Result<S>,
    ) -> anyhow::Result<Self> {
        progress(&format!("filling a task until its {store} has {entries} entries"));
        let mut task = ScoringTask::open(model, settings)?;
        let steps = steps(&task)?;
        let changelog = format!("-{store}-changelog");
        let (before, mut encoded) = (resident_bytes()?, 0);
        let longest_commit_millis = fill(&mut task, &steps, entries, |record| {
            if record.topic.as_str().ends_with(&changelog) {
                encoded += size_of(record);
            }
        })?;
        let grown = resident_bytes()?.saturating_sub(before);
        Ok(Self {
            entries,
            steps,
            task,
            next: entries,
            bytes_an_entry: grown as f64 / entries as f64,
            encoded_bytes: encoded as f64 / entries as f64,
            longest_commit_millis,
            rounds: Vec::new(),
        })
    }

    /// Processes so many events, and returns what one cost by stage.
    pub(crate) fn run(&mut self, events: usize) -> anyhow::Result<[Cost; STAGES.len()]> {
        let (mut meters, end) = (Meters::default(), self.next + events);
        while self.next < end {
            let count = COMMIT_EVENTS.min(end - self.next);
            let mut records = Vec::new();
            for number in self.next..self.next + count {
                records.extend(self.steps.step(number)?);
            }
            let outbox = self.task.process(count, records, &mut meters)?;
            let outputs = outbox.iter().count();
            ensure!(outputs == count * S::OUTPUTS, "{outputs} outputs of {count} steps");
            self.task.commit(count, outbox, &mut meters, |_| {})?;
            self.next += count;
        }
        Ok(meters.each_ref().map(Meter::cost))
    }

    /// `first` are the rounds of the smallest size.
    fn grown(self, first: &[Cost]) -> Grown {
        let mut rounds = self.rounds;
        let growth =
            rounds.iter().zip(first).map(|(costs, first)| total(costs).micros / first.micros);
        let growth = median(growth.collect());
        rounds.sort_by(|one, other| total(one).micros.total_cmp(&total(other).micros));
        let middle = rounds[rounds.len() / 2];
        let grown = Grown {
            entries: self.entries,
            store_entries: self.task.store_entries(),
            bytes_an_entry: self.bytes_an_entry,
            encoded_bytes: self.encoded_bytes,
            longest_commit_millis: self.longest_commit_millis,
            cost: total(&middle),
            growth,
            stages: STAGES.into_iter().zip(middle).collect(),
        };
        // Freeing the task would leave pages in the heap that change the next measurement.
        std::mem::forget(self.task);
        grown
    }
}

/// Fills the stores of a task; `flushed` gets the records of the changelogs. Returns the CPU milliseconds of the longest commit.
pub(crate) fn fill(
    task: &mut ScoringTask,
    steps: &impl Steps,
    entries: usize,
    mut flushed: impl FnMut(OutputRecordRef<'_>),
) -> anyhow::Result<f64> {
    let mut longest: f64 = 0.0;
    for first in (0..entries).step_by(COMMIT_EVENTS) {
        let mut records = Vec::new();
        for number in first..entries.min(first + COMMIT_EVENTS) {
            records.extend(steps.fill(number)?);
        }
        let mut meters = Meters::default();
        // As one event, so that it is not divided by their number.
        let outbox = task.process(1, records, &mut meters)?;
        task.commit(1, outbox, &mut meters, &mut flushed)?;
        longest = longest.max(total(&meters.each_ref().map(Meter::cost)).micros / 1e3);
    }
    Ok(longest)
}

/// Bytes of a record's key and value.
pub(crate) fn size_of(record: OutputRecordRef<'_>) -> usize {
    [record.key, record.value].into_iter().flatten().map(<[u8]>::len).sum()
}

/// Measures tasks of several sizes in turns of so many events.
pub(crate) fn in_turns<S: Steps>(
    mut sizes: Vec<Growing<S>>,
    events: usize,
) -> anyhow::Result<Vec<Grown>> {
    for round in 0..ROUNDS {
        for size in &mut sizes {
            let costs = size.run(events)?;
            let micros = total(&costs).micros;
            progress(&format!("round {round}, {} entries: {micros:.2} µs an event", size.entries));
            size.rounds.push(costs);
        }
    }
    let first: Vec<Cost> = sizes[0].rounds.iter().map(total).collect();
    Ok(sizes.into_iter().map(|size| size.grown(&first)).collect())
}

fn total(stages: &[Cost; STAGES.len()]) -> Cost {
    let mut total = Cost::default();
    stages.iter().for_each(|cost| total += *cost);
    total
}

/// A number below `count` in another order than that of `number`: each comes once, for the factor has no common divisor with a
/// power of ten.
pub(crate) fn scatter(number: usize, count: usize) -> usize {
    number.wrapping_mul(7_368_787) % count
}

/// Sizes from `smallest` to `largest`, each ten times the one before.
pub(crate) fn decades(smallest: usize, largest: usize) -> impl Iterator<Item = usize> {
    let next = move |size: &usize| (size * 10 <= largest).then_some(size * 10);
    std::iter::successors(Some(smallest), next)
}
