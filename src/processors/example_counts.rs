//! Counts the labelled examples that the scoring topology writes, by the source of their label.
//!
//! ```text
//!   outcomes that were joined ─▶ outcome ─┐
//!   outcomes.unlabelled ───────▶ policy ──┴─▶ examples, one for each prediction that is learned from
//!   later outcomes ────────────▶ correction   apart: it replaces an example
//! ```

use prometheus::IntCounterVec;

use crate::events::{answered::Encoded, labelled_example::LabelledExample};
use foretell_streams::{
    metrics::{Counter, Registration},
    topology::{Context, ProcessError, Processor, Record},
};

/// The name of the metric.
pub const LABELLED_EXAMPLES: &str = "foretell_labelled_examples_total";
/// The label of the metric.
pub const SOURCE: &str = "source";
/// The label of the example is that of an outcome.
pub const OUTCOME: &str = "outcome";
/// The label of the example is that of `outcomes.unlabelled`.
pub const POLICY: &str = "policy";
/// A later outcome replaces the label of an example.
pub const CORRECTION: &str = "correction";

/// The metric of labelled examples.
#[derive(Clone, Debug)]
pub struct ExampleMetrics(IntCounterVec);

/// The processor that counts.
pub(super) struct CountExamples {
    outcome: Counter,
    policy: Counter,
    correction: Counter,
}

impl ExampleMetrics {
    /// Registers the metric through `to`.
    ///
    /// # Errors
    /// If the registry has it already.
    pub(super) fn declare(to: &Registration<'_>) -> Result<Self, prometheus::Error> {
        let counters = to.counters(
            LABELLED_EXAMPLES,
            "Labelled examples written to the training log, by the source of the label: outcome and policy \
             (outcomes.unlabelled) are examples, a correction replaces one.",
            SOURCE,
            &[OUTCOME, POLICY, CORRECTION],
        )?;
        Ok(Self(counters))
    }
}

impl CountExamples {
    pub(super) fn new(ExampleMetrics(counters): &ExampleMetrics) -> Self {
        let counter = |source| Counter::new(counters.with_label_values(&[source]));
        Self { outcome: counter(OUTCOME), policy: counter(POLICY), correction: counter(CORRECTION) }
    }
}

impl Processor for CountExamples {
    type In = Encoded<LabelledExample>;
    type Out = ();

    fn process(
        &mut self,
        record: &Record<Encoded<LabelledExample>>,
        ctx: &mut Context<'_, ()>,
    ) -> Result<(), ProcessError> {
        let example = record.value.get();
        let counter = match (example.correction, example.outcome_time) {
            (true, _) => &self.correction,
            (false, Some(_)) => &self.outcome,
            (false, None) => &self.policy,
        };
        ctx.count(counter, 1);
        Ok(())
    }
}
