//! One question to the server, for `foretell doctor`.

use std::time::Duration;

use crate::{
    config::MlflowSettings,
    tracking::{
        api::MISSING,
        client::{Client, SetupError},
    },
};

/// Time limit of the question, if the configured one is longer.
const WITHIN: Duration = Duration::from_secs(10);

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probed {
    /// The experiment exists.
    Experiment,
    /// It answers, and does not have the experiment yet.
    NoExperiment,
    /// It does not answer, rejects the credentials, or the experiment is deleted; nothing is sent until that changes.
    Unavailable(String),
    /// It refuses the question: records would be refused, too.
    Refused(String),
    /// The settings cannot be used: no process starts with them.
    Invalid(String),
}

/// Checks that a client can be made of the settings. Connects to nothing.
///
/// # Errors
/// [`SetupError`].
pub fn check(settings: &MlflowSettings) -> Result<(), SetupError> {
    Client::new(settings).map(|_| ())
}

/// Asks the server for the experiment, once. It changes nothing.
#[must_use]
pub fn probe(settings: &MlflowSettings) -> Probed {
    let timeout = settings.timeout.min(WITHIN);
    let client = match Client::new(&MlflowSettings { timeout, ..settings.clone() }) {
        Ok(client) => client,
        Err(error) => return Probed::Invalid(error.to_string()),
    };
    match client.experiment_by_name(&settings.experiment) {
        Ok(_) => Probed::Experiment,
        Err(error) if error.is(MISSING) => Probed::NoExperiment,
        Err(error) if error.is_unavailable() => Probed::Unavailable(error.to_string()),
        Err(error) => Probed::Refused(error.to_string()),
    }
}
