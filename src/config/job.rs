//! The values that a training job sets: hyperparameters, channels and flags. SageMaker has each hyperparameter as text, which its
//! SDK may have encoded as JSON before.

use crate::config::{
    ConfigError, JobValue,
    document::unknown,
    keys::{Keys, Kind},
    overrides::Override,
    source::{Source, written_form},
};

/// Keys and sections that a training job does not read, each with the reason.
const UNREAD: &[(&str, &str)] = &[
    ("broker", "it connects to no broker"),
    ("schema_registry", "it connects to no registry"),
    ("streams", "it processes no stream"),
    ("http", "it serves no HTTP"),
    ("mlflow", "it tracks nothing in MLflow"),
    ("delivery", "it delivers nothing"),
    ("actions", "it takes no actions"),
    ("quality", "it measures no live quality"),
    ("learning.tuning", "its study is that of [tuning]"),
];

/// The overrides of the values of a job.
///
/// # Errors
/// [`ConfigError`] for a key that does not exist, or that the job does not read.
pub(super) fn overrides(values: &[JobValue], keys: &Keys) -> Result<Vec<Override>, ConfigError> {
    let read = |JobValue { place, key, value }: &JobValue| Override {
        key: key.clone(),
        value: match keys.kind(key) {
            Some(Kind::Scalar) => scalar(value),
            Some(Kind::Section | Kind::Open | Kind::Value) | None => value.clone(),
        },
        source: Source::Job(place.clone()),
    };
    let overrides: Vec<Override> = values.iter().map(read).collect();
    check(&overrides, keys)?;
    Ok(overrides)
}

/// Checks that a training job reads each of the keys.
///
/// # Errors
/// [`ConfigError`] for the first that it does not read, or that does not exist.
pub(super) fn check(overrides: &[Override], keys: &Keys) -> Result<(), ConfigError> {
    for Override { key, source, .. } in overrides {
        let refuse = |problem| Err(ConfigError::At { place: source.to_string(), problem });
        if let Some(reason) = unread(key) {
            let key = written_form(key);
            return refuse(format!("{key}: it has no effect in a training job: {reason}"));
        }
        if keys.kind(key).is_none() {
            return refuse(unknown(key, &keys.without(|key| unread(key).is_some())));
        }
    }
    Ok(())
}

/// The reason why a training job does not read `key`; none if it does.
fn unread(key: &str) -> Option<&'static str> {
    let is_of = |section: &str| {
        key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    UNREAD.iter().find(|(section, _)| is_of(section)).map(|(_, reason)| *reason)
}

/// A number or a truth value as TOML has it: `"\"2\""`, JSON in a text, is 2, and `True`, as Python writes it, is true.
fn scalar(value: &str) -> String {
    let text: String = serde_json::from_str(value).unwrap_or_else(|_| value.to_owned());
    match text.trim() {
        "True" => "true".to_owned(),
        "False" => "false".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn load(key: &str, value: &str) -> Result<Config, String> {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/adult/foretell.toml");
        let job = JobValue {
            place: format!("hyperparameter {key}"),
            key: key.to_owned(),
            value: value.to_owned(),
        };
        Config::load_job(Path::new(example), &[job], &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_value_may_be_written_by_python_or_be_json_in_a_text() {
        for value in ["2", "\"2\"", " 2"] {
            assert_eq!(load("tuning.trials", value).unwrap().tuning.study.trials, 2, "{value}");
        }
        for (value, expected) in [("True", true), ("False", false), ("\"false\"", false)] {
            assert_eq!(
                load("serving.enabled", value).unwrap().serving.enabled,
                expected,
                "{value}"
            );
        }
        // A text stays one.
        let suffix = load("data.initial.label_suffix", "True").unwrap().data.initial.unwrap();
        assert_eq!(suffix.label_suffix, "True");
        let error = load("tuning.trials", "True").unwrap_err();
        assert!(error.starts_with("hyperparameter tuning.trials: [tuning] trials: "), "{error}");
    }

    #[test]
    fn a_key_that_a_job_does_not_read_is_refused() {
        let check = |key: &str, words: &str| {
            let error = load(key, "2").unwrap_err();
            let place = format!("hyperparameter {key}: ");
            assert!(error.starts_with(&place) && error.contains(words), "{error}");
        };
        check("trials", "there is no [trials]: did you mean [tuning] trials?");
        check("tuning.trails", "did you mean [tuning] trials?");
        check("learning.tuning.trials", "its study is that of [tuning]");
        check("learning.tuning", "no effect in a training job");
        check("broker.bootstrap_servers", "[broker] bootstrap_servers: it has no effect");
        check("broker.properties.sasl.password", "it connects to no broker");
        check("http.bind", "it serves no HTTP");
        check("httpd.bind", "there is no");
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/adult/foretell.toml");
        let sets = ["http.bind=a:1".to_owned()];
        let error = Config::load_job(Path::new(example), &[], &sets).unwrap_err().to_string();
        assert!(error.starts_with("--set http.bind: [http] bind: it has no effect"), "{error}");
    }

    #[test]
    fn every_unread_key_exists() {
        let keys = Keys::of_configuration();
        for (key, _) in UNREAD {
            assert!(keys.kind(key).is_some(), "{key}");
        }
    }
}
