//! The section about MLflow of the configuration as written: see `raw.rs`. Its settings are checked here.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;
#[cfg(test)]
use serde::Serialize;

use crate::config::{ConfigError, Secret, error, secret, source::Sources};

/// Tracking of trainings, models and live quality in MLflow: see [MLflow](mlflow.md).
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawMlflow {
    /// Address of the MLflow tracking server, beginning with `http://` or `https://`. Unset: nothing is tracked.
    pub tracking_uri: Option<String>,
    /// Name of the experiment. Unset: `[topics] prefix` and `[application] id`.
    pub experiment: Option<String>,
    /// Name of the registered model. Unset: `[topics] prefix` and `[application] id`.
    pub registered_model: Option<String>,
    /// Token that is sent as `Authorization: Bearer`. Unset: none.
    pub token: Option<Secret>,
    /// User for HTTP Basic authentication, together with `password`. Unset: none.
    pub username: Option<String>,
    /// Password of the user; it may be empty.
    pub password: Option<Secret>,
    /// File with certificates (PEM) of certificate authorities to trust in addition to the system's, a path from the
    /// configuration's folder.
    pub ca_file: Option<PathBuf>,
    /// Time limit of one request; from 1 ms to 10 minutes. A request that uploads a model takes longest.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Whether each trial of a tuning becomes a run, a child of the run of its training.
    pub trials: bool,
    /// Whether drift and live metrics are appended to the run of their model.
    pub live_metrics: bool,
}

impl Default for RawMlflow {
    fn default() -> Self {
        Self {
            tracking_uri: None,
            experiment: None,
            registered_model: None,
            token: None,
            username: None,
            password: None,
            ca_file: None,
            timeout: Duration::from_secs(30),
            trials: true,
            live_metrics: true,
        }
    }
}

/// Where trainings are tracked.
#[derive(Clone, Debug)]
pub struct MlflowSettings {
    /// Address of the server, without a slash at its end.
    pub tracking_uri: String,
    /// Name of the experiment.
    pub experiment: String,
    /// Name of the registered model.
    pub registered_model: String,
    /// Credentials for each request.
    pub credentials: MlflowCredentials,
    /// File with further certificates.
    pub ca_file: Option<PathBuf>,
    /// Time limit of one request.
    pub timeout: Duration,
    /// Whether trials become runs.
    pub trials: bool,
    /// Whether drift and live metrics are appended to runs.
    pub live_metrics: bool,
    /// The source and the section, for errors at the start.
    pub named: String,
}

/// Credentials for an MLflow server.
#[derive(Clone, Debug)]
pub enum MlflowCredentials {
    /// No header.
    None,
    /// HTTP Basic authentication: user and password.
    Basic(String, Secret),
    /// A bearer token.
    Bearer(Secret),
}

/// Maximum of `timeout`.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

impl RawMlflow {
    /// The checked settings; none without `tracking_uri`. `application` is the default of the names.
    pub(super) fn settings(
        self,
        application: &str,
        sources: &Sources,
    ) -> Result<Option<MlflowSettings>, ConfigError> {
        let refuse = |key: &str, problem: &str| {
            Err(error::refused(sources, &format!("mlflow.{key}"), problem))
        };
        if self.timeout.as_millis() == 0 || self.timeout > TIMEOUT_MAX {
            return refuse("timeout", "it must be from 1 ms to 10 minutes, such as \"30s\"");
        }
        if self.token.is_some() && self.username.is_some() {
            return refuse("token", "there is a username, too: remove one");
        }
        if self.password.is_some() && self.username.is_none() {
            return refuse("password", "there is no username: set it, too");
        }
        if self.username.is_some() && self.password.is_none() {
            return refuse("username", "there is no password: set it, too, if it is empty to \"\"");
        }
        for (key, name) in
            [("experiment", &self.experiment), ("registered_model", &self.registered_model)]
        {
            let Some(name) = name else { continue };
            if name.trim().is_empty() || name.len() > 250 || name.chars().any(char::is_control) {
                return refuse(key, "it must have 1 to 250 bytes, without control characters");
            }
            if key == "registered_model" && name.contains(['/', ':', '"', '\'']) {
                return refuse(key, "it must have no slash, no colon and no quotes");
            }
        }
        let Some(uri) = self.tracking_uri else { return Ok(None) };
        let is_http = ["http://", "https://"].iter().any(|scheme| uri.starts_with(scheme));
        if !is_http {
            return refuse("tracking_uri", "it must begin with http:// or https://");
        }
        // The address is printed.
        if secret::without_user(&uri).is_some() || uri.contains(['?', '#']) {
            let problem = "it must have no user, no query (?…) and no fragment (#…): write credentials in username and \
                           password, or in token";
            return refuse("tracking_uri", problem);
        }
        let credentials = match (self.username.zip(self.password), self.token) {
            (Some((user, password)), _) => MlflowCredentials::Basic(user, password),
            (None, Some(token)) => MlflowCredentials::Bearer(token),
            (None, None) => MlflowCredentials::None,
        };
        Ok(Some(MlflowSettings {
            tracking_uri: uri.trim_end_matches('/').to_owned(),
            experiment: self.experiment.unwrap_or_else(|| application.to_owned()),
            registered_model: self.registered_model.unwrap_or_else(|| application.to_owned()),
            credentials,
            ca_file: self.ca_file,
            timeout: self.timeout,
            trials: self.trials,
            live_metrics: self.live_metrics,
            named: sources.named("mlflow"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn load(sets: &[&str]) -> Result<Option<MlflowSettings>, ConfigError> {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/adult/foretell.toml");
        let sets: Vec<String> = sets.iter().map(|set| format!("mlflow.{set}")).collect();
        Ok(Config::load(std::path::Path::new(example), &sets)?.mlflow)
    }

    #[test]
    fn names_are_those_of_the_application_unless_they_are_set() {
        assert!(load(&[]).unwrap().is_none());
        assert!(load(&["timeout=1s"]).unwrap().is_none());
        let settings = load(&["tracking_uri=http://a:5000/x/"]).unwrap().unwrap();
        assert_eq!(settings.tracking_uri, "http://a:5000/x");
        assert_eq!(settings.experiment, "adult");
        assert_eq!(settings.registered_model, "adult");
        assert!(settings.trials && settings.live_metrics);
        let sets = ["tracking_uri=https://a", "experiment=my team/x", "registered_model=m"];
        let settings = load(&sets).unwrap().unwrap();
        assert_eq!((&*settings.experiment, &*settings.registered_model), ("my team/x", "m"));
    }

    #[test]
    fn keys_without_a_server_are_a_warning() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/adult/foretell.toml");
        let check = |sets: &[&str], expected: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|set| format!("mlflow.{set}")).collect();
            let warnings = Config::load(std::path::Path::new(example), &sets).unwrap().warnings();
            let named = warnings.iter().filter(|warning| warning.contains("[mlflow]"));
            let named: Vec<&str> =
                named.map(|warning| warning.split(" has").next().unwrap()).collect();
            assert_eq!(named, expected, "{sets:?}");
        };
        check(&[], &[]);
        check(&["timeout=1s"], &[]);
        check(&["token=hunter2"], &["[mlflow] token"]);
        check(&["experiment=x", "ca_file=x.pem"], &["[mlflow] ca_file"]);
        check(&["token=hunter2", "tracking_uri=http://a"], &[]);
    }

    #[test]
    fn credentials_are_a_token_or_a_user() {
        let check = |sets: &[&str], expected: &str| {
            let sets = [&["tracking_uri=https://a"], sets].concat();
            let shown = format!("{:?}", load(&sets).unwrap().unwrap().credentials);
            assert_eq!(shown, expected);
        };
        check(&[], "None");
        check(&["token=hunter2"], "Bearer([hidden])");
        check(&["username=ann", "password=hunter2"], "Basic(\"ann\", [hidden])");
        check(&["username=ann", "password="], "Basic(\"ann\", [hidden])");
    }

    #[test]
    fn invalid_settings_name_the_key_and_show_no_secret() {
        let check = |sets: &[&str], expected: &str| {
            let error = load(sets).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        };
        check(&["tracking_uri=localhost:5000"], "[mlflow] tracking_uri: it must begin with http");
        check(&["tracking_uri=http://ann:hunter2@a"], "[mlflow] tracking_uri");
        check(&["tracking_uri=http://a?token=hunter2"], "[mlflow] tracking_uri");
        check(&["timeout=0s"], "[mlflow] timeout");
        check(&["timeout=11m"], "[mlflow] timeout");
        check(&["token=hunter2", "username=ann"], "[mlflow] token");
        check(&["password=hunter2"], "[mlflow] password: there is no username");
        check(&["username=ann"], "[mlflow] username: there is no password");
        check(&["experiment="], "[mlflow] experiment");
        check(&["registered_model=a/b"], "[mlflow] registered_model");
    }
}
