//! Overrides of the file by the environment and the flags: `FORETELL_BROKER_BOOTSTRAP_SERVERS`, or
//! `--set broker.bootstrap_servers=…`.

use std::ffi::OsString;

use crate::{
    config::{
        ConfigError,
        keys::{Keys, Kind},
        source::Source,
    },
    events::similar_name::nearest_of,
};

/// The prefix of the variables that set a key.
const PREFIX: &str = "FORETELL_";

/// Variables that stand for flags of the command line, which `cli` reads.
const COMMAND_LINE: &[&str] = &["FORETELL_CONFIG", "FORETELL_LOG", "FORETELL_LOG_FORMAT"];

/// Prefixes of the variables for tests and benchmarks, which a developer's environment may have.
const DEVELOPMENT: &[&str] = &[
    "FORETELL_BENCH_",
    "FORETELL_CHAOS_",
    "FORETELL_FUZZ_",
    "FORETELL_SIMULATION_",
    "FORETELL_SOAK_",
    "FORETELL_TEST_",
];

/// One key that is overridden.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Override {
    /// As `section.key`.
    pub(super) key: String,
    pub(super) value: String,
    pub(super) source: Source,
}

/// The overrides in `environment`, ordered by key. The variables of Kubernetes are ignored: for a Service `foretell-http` it sets
/// `FORETELL_HTTP_PORT=tcp://10.0.0.7:8000` in every pod of the namespace.
///
/// # Errors
/// [`ConfigError`] for another variable with the prefix that sets no key.
pub(super) fn from_environment(
    environment: impl Iterator<Item = (OsString, OsString)>,
    keys: &Keys,
) -> Result<Vec<Override>, ConfigError> {
    let mut found = Vec::new();
    for (name, value) in environment {
        let Some(name) = name.to_str() else { continue };
        let is_development = DEVELOPMENT.iter().any(|prefix| name.starts_with(prefix));
        if !name.starts_with(PREFIX) || COMMAND_LINE.contains(&name) || is_development {
            continue;
        }
        let refuse = |problem: String| ConfigError::At { place: name.to_owned(), problem };
        let Some(value) = value.to_str() else {
            return Err(refuse("its value is not UTF-8".to_owned()));
        };
        let key = keys.iter().find(|(key, _)| variable(key) == name.to_uppercase());
        let key = match key.map(|(key, _)| key.to_owned()) {
            Some(key) => key,
            None if is_of_kubernetes(name, value) => continue,
            None => property(name).ok_or_else(|| refuse(unknown(name, keys)))?,
        };
        let source = Source::Variable(name.to_owned());
        found.push(Override { key, value: value.to_owned(), source });
    }
    // This order sets a section before its keys.
    found.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(found)
}

/// The overrides in `sets`, each `section.key=value`, in their order.
///
/// # Errors
/// [`ConfigError`] for one without `=`. Its text after the key is not shown, because it may be a password.
pub(super) fn from_flags(sets: &[String], keys: &Keys) -> Result<Vec<Override>, ConfigError> {
    let read = |set: &String| match set.split_once('=') {
        Some((key, value)) => {
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            let source = Source::Set(key.clone());
            Ok(Override { key, value, source })
        }
        None => {
            let starts = |(key, _): &(&str, Kind)| set.starts_with(key);
            let known = keys
                .iter()
                .filter(starts)
                .max_by_key(|(key, _)| key.len())
                .map_or("", |(key, _)| key);
            Err(ConfigError::At {
                place: format!("--set {known}").trim_end().to_owned(),
                problem: "expected section.key=value".to_owned(),
            })
        }
    };
    sets.iter().map(read).collect()
}

/// The name of the variable that sets `key`.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "_"))
}

/// The librdkafka property that a variable sets. Names of properties have dots and no underscores; variables have underscores
/// in their place.
fn property(name: &str) -> Option<String> {
    let name = name.to_uppercase();
    let rest = name.strip_prefix("FORETELL_BROKER_PROPERTIES_").filter(|rest| !rest.is_empty())?;
    Some(format!("broker.properties.{}", rest.to_lowercase().replace('_', ".")))
}

/// Whether the variable has a form that Kubernetes sets for a Service, as Docker did for links: `X_SERVICE_HOST`,
/// `X_SERVICE_PORT`, `X_SERVICE_PORT_<port's name>`, `X_PORT=tcp://…`, `X_PORT_<number>_TCP=tcp://…` and
/// `X_PORT_<number>_TCP_{PROTO,PORT,ADDR}`.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_link = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    if name.ends_with("_SERVICE_HOST") {
        return !value.is_empty();
    }
    if name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return is_number(value);
    }
    if name.ends_with("_PORT") && is_link {
        return true;
    }
    let Some((_, port)) = name.rsplit_once("_PORT_") else { return false };
    let mut parts = port.split('_');
    let (number, protocol) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let suffix = parts.next();
    is_number(number)
        && ["TCP", "UDP", "SCTP"].contains(&protocol)
        && parts.next().is_none()
        && match suffix {
            None => is_link,
            Some(suffix) => ["PROTO", "PORT", "ADDR"].contains(&suffix),
        }
}

fn unknown(name: &str, keys: &Keys) -> String {
    let flags = COMMAND_LINE.iter().map(|name| (*name).to_owned());
    let known: Vec<String> = keys.iter().map(|(key, _)| variable(key)).chain(flags).collect();
    // Compared without the prefix, which all have.
    let endings = known.iter().map(|name| (&name[PREFIX.len()..], name.as_str()));
    let problem = "it sets no key of the configuration";
    match nearest_of(&name.to_uppercase()[PREFIX.len()..], endings) {
        Some(nearest) => format!("{problem}: did you mean {nearest}?"),
        None => format!(
            "{problem}: variables are {PREFIX}<SECTION>_<KEY>, such as {}",
            variable("broker.bootstrap_servers")
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn found(name: &str, value: &str) -> Result<Vec<String>, String> {
        let environment = [(OsString::from(name), OsString::from(value))];
        let found = from_environment(environment.into_iter(), &Keys::of_configuration());
        let keys = |found: Vec<Override>| found.into_iter().map(|one| one.key).collect();
        found.map(keys).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_name_sections_and_keys() {
        let check = |name: &str, expected: &[&str]| {
            assert_eq!(found(name, "x").unwrap(), expected, "{name}");
        };
        check("FORETELL_BROKER_BOOTSTRAP_SERVERS", &["broker.bootstrap_servers"]);
        check("FORETELL_SCHEMA_REGISTRY_URL", &["schema_registry.url"]);
        check("FORETELL_HTTP_BIND", &["http.bind"]);
        check("FORETELL_FEATURES_CONTRACT_POLICY", &["features.contract.policy"]);
        check("FORETELL_DATA_INITIAL_PATH", &["data.initial.path"]);
        check("FORETELL_DATA_INITIAL", &["data.initial"]);
        check("FORETELL_BROKER_PROPERTIES", &["broker.properties"]);
        check("FORETELL_BROKER_PROPERTIES_SASL_PASSWORD", &["broker.properties.sasl.password"]);
        check("FORETELL_LOG", &[]);
        check("FORETELL_TEST_BROKERS", &[]);
        check("HOME", &[]);
    }

    #[test]
    fn a_variable_names_one_key() {
        let keys = Keys::of_configuration();
        let variables: BTreeSet<String> = keys.iter().map(|(key, _)| variable(key)).collect();
        assert_eq!(variables.len(), keys.iter().count());
    }

    #[test]
    fn variables_of_kubernetes_are_ignored() {
        let check = |name: &str, value: &str| {
            assert_eq!(found(&format!("FORETELL_{name}"), value), Ok(Vec::new()), "{name}");
        };
        for service in ["", "HTTP_", "BROKER_PROPERTIES_", "ANYTHING_AT_ALL_"] {
            let check = |rest: &str, value: &str| check(&format!("{service}{rest}"), value);
            check("PORT", "tcp://10.0.0.7:8000");
            check("PORT", "udp://[fd00::7]:8000");
            check("SERVICE_HOST", "10.0.0.7");
            check("SERVICE_PORT", "8000");
            check("SERVICE_PORT_HTTP", "8000");
            check("SERVICE_PORT_MY_METRICS", "9000");
            check("PORT_8000_TCP", "tcp://10.0.0.7:8000");
            check("PORT_8000_TCP_PROTO", "tcp");
            check("PORT_8000_TCP_PORT", "8000");
            check("PORT_8000_TCP_ADDR", "10.0.0.7");
            check("PORT_53_UDP_ADDR", "10.0.0.7");
        }
    }

    #[test]
    fn a_variable_that_sets_no_key_is_an_error() {
        let check = |name: &str, words: &str| {
            let error = found(name, "5").unwrap_err();
            assert!(error.starts_with(&format!("{name}: ")) && error.contains(words), "{error}");
        };
        check("FORETELL_LERNING_RETRAIN_AFTER", "did you mean FORETELL_LEARNING_RETRAIN_AFTER?");
        check("FORETELL_LEARNING_RETRAIN_AFTR", "did you mean FORETELL_LEARNING_RETRAIN_AFTER?");
        check("FORETELL_LGO", "did you mean FORETELL_LOG?");
        check("FORETELL_HTTP_PORT", "FORETELL_<SECTION>_<KEY>");
        check("FORETELL_HTTP_PORT_8000_TCQ", "FORETELL_<SECTION>_<KEY>");
        check("FORETELL_X", "FORETELL_<SECTION>_<KEY>");
    }

    #[test]
    fn the_error_for_an_invalid_flag_does_not_show_its_value() {
        let check = |set: &str, expected: &str| {
            let error = from_flags(&[set.to_owned()], &Keys::of_configuration()).unwrap_err();
            assert_eq!(error.to_string(), format!("{expected}: expected section.key=value"));
        };
        check("streams", "--set streams");
        check("schema_registry.password:x", "--set schema_registry.password");
        check("hunter2", "--set");
    }
}
