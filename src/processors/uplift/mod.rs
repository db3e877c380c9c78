//! Uplift: how much more often a label comes when a rule has acted than in its control share.
//!
//! ```text
//!   labelled-examples ─▶ count-uplift ─every 5 s─▶ metrics, status
//!                          [uplift]  counts by rule, group and label
//!                          [uplift-examples]  the examples that were counted, for their corrections
//! ```
//!
//! An example counts once for each rule of which it has an action, with the present version of the rule: a changed rule begins
//! anew. Both groups were due, so their only difference is chance and the action.

mod counts;
mod interval;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;

use crate::{
    events::labelled_example::{ExampleOrigin, LabelledExample},
    processors::{actions::metrics::ActionMetrics, uplift::interval::Share},
};
use foretell_streams::{
    codec::Stored,
    state::{KeyValueHandle, StateError, WindowHandle},
    topology::{
        Context, Edge, ProcessError, Processor, Punctuation, PunctuationKind, Record,
        TopologyBuilder,
    },
};

pub use counts::{CountedExample, Group, RuleCounts};
pub use interval::Difference;

/// The interval of the reports, in wall-clock time.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum number of counted examples to expire at once, which bounds the memory for a long backlog.
const EXPIRED_AT_ONCE_MAX: usize = 10_000;

/// The settings of uplift.
#[derive(Clone, Debug)]
pub struct UpliftSettings {
    /// The name and the version of each rule.
    pub rules: Vec<(String, String)>,
    /// The labels. The second of two is the one that counts; of more, each.
    pub classes: Vec<String>,
    /// The time after its first label in which a correction of an example can come.
    pub corrected_within: Duration,
}

/// The uplift of one rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleUplift {
    /// The name of the rule.
    pub rule: String,
    /// The version of the rule.
    pub version: String,
    /// The number of labelled examples on which it has acted.
    pub acted: u64,
    /// The number of labelled examples that it has held out.
    pub held_out: u64,
    /// The label that counts of two, or each of more.
    pub labels: Vec<LabelUplift>,
}

/// The uplift of one label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelUplift {
    /// The label.
    pub label: String,
    /// The share of the label among the examples on which the rule has acted.
    pub acted: Option<f64>,
    /// The share of the label among those that were held out.
    pub held_out: Option<f64>,
    /// The first less the second; none while a group has no examples.
    pub uplift: Option<Difference>,
}

/// Where the learning task publishes uplift.
#[derive(Clone, Debug, Default)]
pub struct UpliftBoard(Arc<Mutex<Vec<RuleUplift>>>);

impl UpliftBoard {
    /// The uplift of each rule, in the order of the configuration; empty on an instance without the learning task.
    #[must_use]
    pub fn read(&self) -> Vec<RuleUplift> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish(&self, uplift: Vec<RuleUplift>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = uplift;
    }
}

/// The processor of labelled examples.
#[derive(Clone)]
struct CountUplift {
    settings: Arc<UpliftSettings>,
    counts: KeyValueHandle<RuleCounts>,
    examples: WindowHandle<CountedExample>,
    board: UpliftBoard,
    metrics: ActionMetrics,
}

/// Adds the processor to the learning topology, unless there are no rules.
pub fn add_to(
    topology: &mut TopologyBuilder,
    labelled: Edge<LabelledExample>,
    settings: UpliftSettings,
    board: UpliftBoard,
    metrics: ActionMetrics,
) {
    if settings.rules.is_empty() {
        return;
    }
    let counts = topology.key_value_store("uplift", Arc::new(Stored::version(RuleCounts::FORMAT)));
    let values = Stored::version(CountedExample::FORMAT);
    let examples = topology.window_store("uplift-examples", Arc::new(values));
    let stores = [counts.id(), examples.id()];
    let settings = Arc::new(settings);
    let count = CountUplift { settings, counts, examples, board, metrics };
    topology.process("count-uplift", &[labelled], &stores, move || count.clone());
}

impl Processor for CountUplift {
    type In = LabelledExample;
    type Out = ();

    fn start(&mut self, ctx: &mut Context<'_, ()>) {
        ctx.schedule(PunctuationKind::WallClock, REPORT_INTERVAL);
    }

    fn process(
        &mut self,
        record: &Record<LabelledExample>,
        ctx: &mut Context<'_, ()>,
    ) -> Result<(), ProcessError> {
        let example = &record.value;
        // Corrections of earlier releases do not say which label they replace.
        let is_old = example.correction && example.replaced.is_none();
        if example.origin == ExampleOrigin::Initial || is_old {
            return Ok(());
        }
        let id = example.example_id.as_str();
        let known = match example.correction {
            true => ctx.window(&self.examples).fetch_all(id)?.pop(),
            false => None,
        };
        let before = known.as_ref().map(|entry| entry.value.clone()).unwrap_or_default();
        let mut now = CountedExample::default();
        for (rule, version) in &self.settings.rules {
            let mut actions = example.actions.iter();
            let action = actions.find(|one| one.rule == rule && one.rule_version == version);
            if let Some(action) = action {
                now.add(rule, version, Group::of(action.acted));
            }
        }
        if before.is_empty() && now.is_empty() {
            return Ok(());
        }
        if let Some(replaced) = &example.replaced {
            self.change(&before, |counts, group| counts.remove(group, replaced), ctx)?;
        }
        self.change(&now, |counts, group| counts.add(group, &example.label), ctx)?;
        let time = ctx.stream_time();
        let mut store = ctx.window(&self.examples);
        match known {
            Some(mut known) => {
                known.value = now;
                store.replace(&known)?;
            }
            None => store.add(id, time, &now)?,
        }
        Ok(())
    }

    fn punctuate(
        &mut self,
        _punctuation: Punctuation,
        ctx: &mut Context<'_, ()>,
    ) -> Result<(), ProcessError> {
        let mut uplift = Vec::with_capacity(self.settings.rules.len());
        for (rule, version) in &self.settings.rules {
            let counts = self.counts_of(rule, version, ctx)?;
            uplift.push(self.uplift(rule, &counts));
        }
        for rule in &uplift {
            for LabelUplift { label, uplift, .. } in &rule.labels {
                if let Some(Difference { difference, low, high }) = uplift {
                    self.metrics.uplift([&rule.rule, label], [*difference, *low, *high]);
                }
            }
        }
        self.board.publish(uplift);
        let before = ctx.stream_time() - self.settings.corrected_within;
        let mut expired = EXPIRED_AT_ONCE_MAX;
        while expired == EXPIRED_AT_ONCE_MAX {
            expired = ctx.window(&self.examples).expire(before, EXPIRED_AT_ONCE_MAX)?.len();
        }
        Ok(())
    }
}

impl CountUplift {
    /// The counts of the present version of a rule.
    fn counts_of(
        &self,
        rule: &str,
        version: &str,
        ctx: &mut Context<'_, ()>,
    ) -> Result<RuleCounts, StateError> {
        let stored = ctx.key_value(&self.counts).get(rule)?;
        Ok(stored
            .filter(|counts| counts.version == version)
            .unwrap_or_else(|| RuleCounts::new(version)))
    }

    /// Changes the counts of each rule that an example counts for.
    fn change(
        &self,
        example: &CountedExample,
        change: impl Fn(&mut RuleCounts, Group),
        ctx: &mut Context<'_, ()>,
    ) -> Result<(), StateError> {
        let is_present = |rule: &str, version: &str| {
            self.settings.rules.iter().any(|(name, present)| name == rule && present == version)
        };
        for (rule, version, group) in example.iter() {
            if !is_present(rule, version) {
                continue;
            }
            let mut counts = self.counts_of(rule, version, ctx)?;
            change(&mut counts, group);
            ctx.key_value(&self.counts).put(rule, &counts)?;
        }
        Ok(())
    }

    fn uplift(&self, rule: &str, counts: &RuleCounts) -> RuleUplift {
        let classes = match self.settings.classes.as_slice() {
            [_, positive] => std::slice::from_ref(positive),
            all => all,
        };
        let label = |label: &String| {
            let share = |group| Share { of_label: counts.of(group, label), all: counts.all(group) };
            let (acted, held_out) = (share(Group::Acted), share(Group::HeldOut));
            LabelUplift {
                label: label.clone(),
                acted: acted.rate(),
                held_out: held_out.rate(),
                uplift: Difference::of(acted, held_out),
            }
        };
        RuleUplift {
            rule: rule.to_owned(),
            version: counts.version.clone(),
            acted: counts.all(Group::Acted),
            held_out: counts.all(Group::HeldOut),
            labels: classes.iter().map(label).collect(),
        }
    }
}
