//! Warnings about configurations that are valid, and probably not intended.

use crate::{config::Config, processors::gather::ScoreWhen};
use foretell_ml::{InitialPolicy, Retention, training::Threshold};

impl Config {
    /// The warnings of a start and of `foretell doctor`, each with what to do.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.sources.is_written("scoring.retention") {
            warnings.push(
                "[scoring] retention is the former name of [sessions] gap: write that".to_owned(),
            );
        }
        if self.gather.at_session_end && self.gather.when == ScoreWhen::EveryEvent {
            warnings.push(
                "[scoring] at_session_end has no effect while when is \"every_event\": every observation was scored before \
                 its session ends; remove it"
                    .to_owned(),
            );
        }
        let needs_completion =
            self.gather.when == ScoreWhen::Complete && !self.gather.at_session_end;
        if self.events.completed.is_none() && needs_completion {
            warnings.push(
                "[scoring] when is \"complete\", and [events] completed names no field: an observation in which one \
                 answer stays blank is never scored (counted in foretell_incomplete_observations_total when it is \
                 dropped); name a boolean field that the last event sets, or set [scoring] when = { answers = N } or at_session_end = true"
                    .to_owned(),
            );
        }
        let policy = self.learning.policy;
        let is_all = policy.retention == Retention::All && policy.half_life.is_none();
        if policy.initial == InitialPolicy::Age && is_all {
            warnings.push(
                "[learning] initial is \"age\", which has no effect while all examples are used and count the same: set \
                 last, reservoir or half_life, or remove it"
                    .to_owned(),
            );
        }
        let is_set = matches!(self.learning.threshold, Threshold::Fixed(_));
        if is_set && self.classes.len() > 2 {
            warnings.push(format!(
                "[learning] threshold has no effect with {} classes: a prediction has the most probable one as its \
                 label; remove it",
                self.classes.len()
            ));
        }
        warnings
    }
}
