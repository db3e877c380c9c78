//! What holds together, and will probably not do what its author wants.

use crate::{config::Config, processors::gather::ScoreWhen};

impl Config {
    /// What a start and `foretell doctor` warn about, each with what to do.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.events.completed.is_none() && self.gather.when == ScoreWhen::Complete {
            warnings.push(
                "[scoring] when is \"complete\", and [events] completed names no field: an observation in which one \
                 answer stays blank is never scored (counted in foretell_incomplete_observations_total when it is \
                 forgotten); name a boolean field that the last event sets, or set [scoring] when = { answers = N }"
                    .to_owned(),
            );
        }
        warnings
    }
}
