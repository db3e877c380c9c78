//! Predictions that wait for their outcomes. In steady state, every step has an event and the outcome of an event of about as
//! many steps ago as predictions wait; as many old entries expire.

use foretell_ml::ModelBundle;
use foretell_streams::{record::OutputRecord, time::EventTime};

use crate::{
    growth::entries::{Growing, Grown, Steps, decades, in_turns, scatter},
    task::ScoringTask,
    workload::Workload,
};

const SMALLEST: usize = 1_000;
/// Milliseconds from one event to the next.
const GAP_MS: usize = 1;
/// Time in which repeated events are recognised: short, so that this store is the same at all sizes.
const DUPLICATES_WITHIN_MS: usize = 10_000;
/// More than are measured.
const STEPS_MAX: usize = 3_600_000;
/// The store's name.
pub(crate) const STORE: &str = "outcomes";

/// The workload of a task in which so many predictions wait.
pub(crate) struct Waiting {
    workload: Workload,
    start: i64,
    pending: usize,
}

impl Steps for Waiting {
    /// The prediction, and the example of the prediction that waited.
    const OUTPUTS: usize = 2;

    fn fill(&self, number: usize) -> anyhow::Result<Vec<OutputRecord>> {
        let (event, _) = self.workload.pair(number, self.at(number));
        Ok(vec![self.workload.encode_event(&event)?])
    }

    fn step(&self, number: usize) -> anyhow::Result<Vec<OutputRecord>> {
        let mut records = self.fill(number)?;
        let (_, outcome) = self.workload.pair(self.settled_at(number), self.at(number));
        records.push(self.workload.encode_outcome(&outcome)?);
        Ok(records)
    }
}

impl Waiting {
    fn at(&self, number: usize) -> EventTime {
        EventTime(self.start + i64::try_from(number * GAP_MS).expect("a run of hours"))
    }

    /// The event whose outcome comes at this step: in blocks of a tenth of those that wait, in another order than that of the
    /// events, so that neighbours in memory do not follow each other.
    fn settled_at(&self, number: usize) -> usize {
        let (step, block) = (number - self.pending, spread(self.pending));
        step / block * block + scatter(step % block, block)
    }
}

/// Milliseconds by which the delay of an outcome differs, both ways.
fn spread(pending: usize) -> usize {
    (pending / 10).max(1) * GAP_MS
}

/// Milliseconds of the window: no outcome is late, and few entries are kept longer than they wait.
fn window(pending: usize) -> usize {
    pending * GAP_MS + spread(pending) + 1_000
}

/// Milliseconds of stream time between two expiries, by which a round must be measured.
fn expiry(pending: usize) -> usize {
    (window(pending) / 20).max(1_000)
}

pub(crate) fn measure(model: &ModelBundle, largest: usize) -> anyhow::Result<Vec<Grown>> {
    let mut sizes = Vec::new();
    for pending in decades(SMALLEST, largest) {
        let settings = settings(pending, DUPLICATES_WITHIN_MS);
        let steps = |task: &ScoringTask| steps(task, pending);
        let mut size = Growing::fill(model, &settings, pending, STORE, steps)?;
        // Entries expire and repeats are forgotten by then.
        let settled = spread(pending) + 1_000 + expiry(pending) + 2 * DUPLICATES_WITHIN_MS;
        size.run(settled / GAP_MS)?;
        sizes.push(size);
    }
    in_turns(sizes, expiry(largest) / GAP_MS)
}

/// The settings of a task in which so many predictions wait.
pub(crate) fn settings(pending: usize, duplicates_within_ms: usize) -> Vec<String> {
    vec![
        format!("outcomes.window={}ms", window(pending)),
        "outcomes.grace=0s".to_owned(),
        format!("events.duplicates_within={duplicates_within_ms}ms"),
    ]
}

/// The workload of such a task. By its clock, all events are in the past.
pub(crate) fn steps(task: &ScoringTask, pending: usize) -> anyhow::Result<Waiting> {
    let workload = Workload::new(&task.config, &task.cluster)?;
    let start = task.now().0 - i64::try_from((2 * pending + STEPS_MAX) * GAP_MS)?;
    Ok(Waiting { workload, start, pending })
}
