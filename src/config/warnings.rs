//! Warnings about configurations that are valid, and probably not intended.

use crate::{config::Config, processors::gather::ScoreWhen};

impl Config {
    /// The warnings of a start and of `foretell doctor`, each with what to do.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.events.completed.is_none() && self.gather.when == ScoreWhen::Complete {
            warnings.push(
                "[scoring] when is \"complete\", and [events] completed names no field: an observation in which one \
                 answer stays blank is never scored (counted in foretell_incomplete_observations_total when it is \
                 dropped); name a boolean field that the last event sets, or set [scoring] when = { answers = N }"
                    .to_owned(),
            );
        }
        warnings
    }
}
