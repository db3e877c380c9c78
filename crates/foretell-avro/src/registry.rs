//! The port to a schema registry. Implementations: [`crate::client`] over HTTP and [`crate::local`] in process;
//! [`crate::caching`] and [`crate::retrying`] wrap another one.

use apache_avro::Schema;

use crate::evolution::{Level, breaches};

/// A registry with the semantics of Confluent's. Calls block, possibly on the network.
pub trait SchemaRegistry: Send + Sync {
    /// The Avro schema with this id as JSON, with referenced schemas inlined. In one registry an id never changes its
    /// meaning.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] if there is none; [`RegistryError::Incompatible`] if it is not an Avro schema; others
    /// by recovery.
    fn schema(&self, id: u32) -> Result<String, RegistryError>;

    /// Registers `schema` under `subject`, unless it already is, and returns its id.
    ///
    /// # Errors
    /// [`RegistryError::Incompatible`] if the subject's compatibility level forbids it; others by recovery.
    fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError>;

    /// The id of `schema` under `subject`; `None` if it is not registered there.
    ///
    /// # Errors
    /// [`RegistryError`] by recovery.
    fn id_of(&self, subject: &str, schema: &str) -> Result<Option<u32>, RegistryError>;

    /// Id and text of the latest version of `subject`; `None` if there is no such subject.
    ///
    /// # Errors
    /// [`RegistryError`] by recovery.
    fn latest(&self, subject: &str) -> Result<Option<(u32, String)>, RegistryError>;

    /// Ids and texts of all versions of `subject`, oldest first; empty if there is no such subject.
    ///
    /// # Errors
    /// [`RegistryError`] by recovery.
    fn versions(&self, subject: &str) -> Result<Vec<(u32, String)>, RegistryError>;

    /// Whether `schema` may become the next version of `subject`.
    ///
    /// # Errors
    /// [`RegistryError`] by recovery.
    fn compatible(&self, subject: &str, schema: &str) -> Result<Compatibility, RegistryError>;

    /// Sets the compatibility level of `subject` for later registrations. Returns false if the registry has no levels for
    /// single subjects.
    ///
    /// # Errors
    /// [`RegistryError`] by recovery.
    fn set_level(&self, subject: &str, level: Level) -> Result<bool, RegistryError>;
}

/// Result of a compatibility check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compatibility {
    /// The schema may be registered.
    Compatible,
    /// The schema breaks the compatibility level.
    Incompatible {
        /// The reasons, one sentence each.
        reasons: Vec<String>,
    },
}

/// Errors of a registry, by recovery.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// There is no such schema or subject.
    #[error("the schema registry does not have it: {0}")]
    NotFound(String),
    /// The schema breaks the compatibility level: change the schema or the level.
    #[error("the schema does not fit: {0}")]
    Incompatible(String),
    /// The registry does not respond, or cannot serve the request now: retry.
    #[error("the schema registry is not available just now: {0}")]
    Unavailable(String),
    /// The registry rejected the credentials: change them.
    #[error("the schema registry rejected the credentials: {0}")]
    Denied(String),
    /// The registry refused the request, and will until the settings are changed.
    #[error("the schema registry refuses: {0}")]
    Refused(String),
}

/// Turns [`RegistryError::NotFound`] into `None`.
pub(crate) fn found<T>(answer: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(RegistryError::NotFound(_)) => Ok(None),
        Err(
            error @ (RegistryError::Incompatible(_)
            | RegistryError::Unavailable(_)
            | RegistryError::Denied(_)
            | RegistryError::Refused(_)),
        ) => Err(error),
    }
}

/// Whether `schema` may be the next version after `versions`, oldest first, under `level`.
///
/// # Errors
/// [`RegistryError::Refused`] if one of them is not an Avro schema.
pub(crate) fn may_follow(
    level: Level,
    versions: &[&str],
    schema: &str,
) -> Result<Compatibility, RegistryError> {
    let all = versions.iter().copied().chain([schema]).map(parse);
    let all: Vec<Schema> = all.collect::<Result<_, _>>()?;
    let newest = all.len();
    let found = breaches(level, &all).into_iter();
    let found = found.filter(|breach| breach.written == newest || breach.reading == newest);
    let reasons: Vec<String> = found.map(|breach| breach.reason).collect();
    match reasons.is_empty() {
        true => Ok(Compatibility::Compatible),
        false => Ok(Compatibility::Incompatible { reasons }),
    }
}

fn parse(schema: &str) -> Result<Schema, RegistryError> {
    Schema::parse_str(schema)
        .map_err(|error| RegistryError::Refused(format!("not an Avro schema: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, reading: &str, expected: Option<&str>) {
        let verdict = may_follow(Level::Backward, &[written], reading).expect("both parse");
        match (verdict, expected) {
            (Compatibility::Compatible, None) => (),
            (Compatibility::Incompatible { reasons }, Some(word)) => {
                assert!(reasons.join(" ").contains(word), "{reasons:?} lack {word}");
            }
            (verdict, expected) => panic!("{written} to {reading}: {verdict:?}, not {expected:?}"),
        }
    }

    fn record(fields: &str) -> String {
        format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
    }

    #[test]
    fn the_next_version_must_read_the_latest_one() {
        let int = record(r#"{"name":"a","type":"int"}"#);
        let long = record(r#"{"name":"a","type":"long"}"#);
        check(&int, &int, None);
        check(&int, &long, None);
        check(&long, &int, Some("field a"));
        check(&int, &record(r#"{"name":"b","type":"int","default":0}"#), None);
        check(&int, &record(r#"{"name":"b","type":"int"}"#), Some("field b"));
        let refused = may_follow(Level::Backward, &["{"], &int);
        assert!(matches!(refused, Err(RegistryError::Refused(_))), "{refused:?}");
    }
}
