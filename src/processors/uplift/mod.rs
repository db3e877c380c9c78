//! Uplift: how much more often a label comes when a rule has acted than in its control share.
//!
//! ```text
//!   labelled-examples ─▶ count-uplift ─every 5 s─▶ metrics, status
//!                          [uplift]  counts by rule, group and label
//!                          [uplift-respondents]  the respondents that were counted, and the example of each that counts
//! ```
//!
//! The unit is the respondent, because a respondent is in one group for ever: examples of one respondent are not independent. A
//! respondent counts once for a version of a rule, by the earliest of their examples that has an action of it; both groups have
//! such an example. A changed rule begins again. Both groups were due, so their only difference is chance and the action.

mod counts;
mod interval;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    events::labelled_example::{ExampleOrigin, LabelledExample},
    processors::{actions::metrics::ActionMetrics, uplift::interval::Share},
};
use foretell_streams::{
    codec::Stored,
    state::{KeyValueHandle, StateError, WindowHandle, Windowed},
    topology::{
        Context, Edge, ProcessError, Processor, Punctuation, PunctuationKind, Record,
        TopologyBuilder,
    },
};

pub use counts::{CountedRespondent, Group, RuleCounts};
pub use interval::Difference;

/// The interval of the reports, in wall-clock time.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum number of respondents that are counted, divided equally among the rules: further ones are not. With some 150 bytes for
/// each, they take 150 MB. The interval of 10,000 respondents in the control share is at most ± 1 percentage point.
const RESPONDENTS_MAX: u64 = 1_000_000;
/// Stream time after which it is checked whether the version that a respondent was counted for is still in use.
const REVISIT_AFTER: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Maximum number of respondents that a report checks.
const REVISITED_AT_ONCE_MAX: usize = 10_000;

/// The settings of uplift.
#[derive(Clone, Debug)]
pub struct UpliftSettings {
    /// The name and the version of each rule.
    pub rules: Vec<(String, String)>,
    /// The labels. The second of two is the one that counts; of more, each.
    pub classes: Vec<String>,
}

/// The uplift of one rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleUplift {
    /// The name of the rule.
    pub rule: String,
    /// The version of the rule.
    pub version: String,
    /// The number of respondents with an outcome on whom it has acted.
    pub acted: u64,
    /// The number of respondents with an outcome whom it has held out.
    pub held_out: u64,
    /// The label that counts of two, or each of more.
    pub labels: Vec<LabelUplift>,
}

/// The uplift of one label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelUplift {
    /// The label.
    pub label: String,
    /// The share of the label among the respondents on whom the rule has acted.
    pub acted: Option<f64>,
    /// The share of the label among those that were held out.
    pub held_out: Option<f64>,
    /// The first less the second; none while a group has no respondents.
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
    respondents: WindowHandle<CountedRespondent>,
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
    let counts = topology.key_value_store("uplift", Arc::new(RuleCounts::codec()));
    let values = Stored::version(CountedRespondent::FORMAT);
    let respondents = topology.window_store("uplift-respondents", Arc::new(values));
    let stores = [counts.id(), respondents.id()];
    let settings = Arc::new(settings);
    let count = CountUplift { settings, counts, respondents, board, metrics };
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
        for (rule, version) in &self.settings.rules {
            let mut actions = example.actions.iter();
            let action = actions.find(|one| one.rule == rule && one.rule_version == version);
            let now = action.map(|action| CountedRespondent {
                version: version.clone(),
                example: fingerprint([&example.example_id]),
                event_time: example.event_time,
                group: Group::of(action.acted),
                label: example.label.clone(),
            });
            self.count((rule, version), example, now, ctx)?;
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
        Ok(self.revisit(ctx)?)
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

    /// Counts a respondent for a rule, by `now` if it is the earliest of their examples, or what has become of it.
    fn count(
        &self,
        (rule, version): (&str, &str),
        example: &LabelledExample,
        now: Option<CountedRespondent>,
        ctx: &mut Context<'_, ()>,
    ) -> Result<(), StateError> {
        let id = fingerprint([rule, version, &example.respondent_id]);
        let key = format!("{id:016x}");
        let before = ctx.window(&self.respondents).fetch_all(&key)?.pop();
        let mut counts = self.counts_of(rule, version, ctx)?;
        match (before, now) {
            (None, None) => return Ok(()),
            (None, Some(now)) => {
                if counts.respondents() >= self.respondents_max() {
                    return Ok(());
                }
                counts.add(now.group, &now.label);
                let time = ctx.stream_time();
                ctx.window(&self.respondents).add(&key, time, &now)?;
            }
            (Some(before), now) => {
                let Windowed { value, .. } = &before;
                let is_same = value.example == fingerprint([&example.example_id]);
                if !is_same && now.as_ref().is_none_or(|now| now.event_time >= value.event_time) {
                    return Ok(());
                }
                counts.remove(value.group, &value.label);
                let mut store = ctx.window(&self.respondents);
                match now {
                    Some(now) => {
                        counts.add(now.group, &now.label);
                        store.replace(&Windowed { value: now, ..before })?;
                    }
                    // An earlier outcome has corrected it: the action came after that.
                    None => store.remove(&before),
                }
            }
        }
        ctx.key_value(&self.counts).put(rule, &counts)
    }

    /// Maximum number of respondents of a rule.
    fn respondents_max(&self) -> u64 {
        let rules = u64::try_from(self.settings.rules.len()).unwrap_or(u64::MAX);
        (RESPONDENTS_MAX / rules.max(1)).max(1)
    }

    /// Removes respondents that were counted for a version that is not in use any more.
    fn revisit(&self, ctx: &mut Context<'_, ()>) -> Result<(), StateError> {
        let now = ctx.stream_time();
        let mut store = ctx.window(&self.respondents);
        for entry in store.expire(now - REVISIT_AFTER, REVISITED_AT_ONCE_MAX)? {
            if self.settings.rules.iter().any(|(_, version)| *version == entry.value.version) {
                store.add(&entry.key, now, &entry.value)?;
            }
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

/// A hash of parts. Each is preceded by its length, so that different parts have different bytes.
fn fingerprint<const N: usize>(parts: [&str; N]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let hash: [u8; 32] = hash.finalize().into();
    u64::from_be_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
}
