//! Reads what the instance of a demo reports about itself.

use crate::{
    app::{start::Instance, telemetry},
    config::Config,
};
use foretell_streams::record::Topic;

/// Reads the metrics and the status of the instance.
#[derive(Clone, Copy)]
pub(super) struct InstanceReader<'a> {
    pub(super) config: &'a Config,
    pub(super) instance: &'a Instance,
}

impl InstanceReader<'_> {
    /// A counter, summed over its labels.
    pub(super) fn counter(self, name: &str) -> usize {
        rounded(telemetry::total(&self.instance.registry, name))
    }

    /// Whether the model of this version serves, or none was announced.
    pub(super) fn serves(self, version: &str) -> bool {
        let model = self.instance.overview.snapshot().model;
        version.is_empty() || model.is_some_and(|model| model.version == version)
    }

    /// Number of events and outcomes that were processed and committed.
    pub(super) fn processed(self) -> usize {
        let topics = &self.config.topics;
        let of = |topic: &Topic| {
            let name = "foretell_records_processed_total";
            rounded(telemetry::total_of(&self.instance.registry, name, topic.as_str()))
        };
        topics.of_events().map(of).sum::<usize>() + of(&topics.outcomes)
    }

    /// Number of outcomes with this result.
    pub(super) fn outcomes(self, result: &str) -> usize {
        rounded(telemetry::total_of(&self.instance.registry, "foretell_outcomes_total", result))
    }

    /// Number of respondents whose uplift is counted, once for each rule.
    pub(super) fn uplift_respondents(self) -> usize {
        let rules = self.instance.overview.uplift.read();
        let respondents = rules.iter().map(|rule| rule.acted + rule.held_out).sum::<u64>();
        usize::try_from(respondents).unwrap_or(usize::MAX)
    }

    /// Number and iteration of the running training.
    pub(super) fn training(self) -> Option<(u64, u32)> {
        let progress = self.instance.overview.trainer.progress();
        progress.map(|progress| (progress.training, progress.iteration))
    }
}

fn rounded(count: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a counter's value"
    )]
    let count = count as usize;
    count
}
