//! What we ask of a schema registry. Two implementations: [`crate::client`] over HTTP, and
//! [`crate::local`] in this process.

use apache_avro::Schema;

use crate::evolution::{Level, breaches};

/// A Confluent-style schema registry. Calls may wait for the network.
pub trait SchemaRegistry: Send + Sync {
    /// The text of the Avro schema with this id, complete in itself. What an id means never changes.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] if there is none; [`RegistryError::Incompatible`] if it is not
    /// an Avro schema; else by recovery.
    fn schema(&self, id: u32) -> Result<String, RegistryError>;

    /// Adds `schema` to `subject`, and returns its id; if it is there already, only its id.
    ///
    /// # Errors
    /// [`RegistryError::Incompatible`] if the subject's rule forbids it; else by recovery.
    fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError>;

    /// The id of `schema` under `subject`; none if that subject does not hold it.
    ///
    /// # Errors
    /// [`RegistryError`] by recovery.
    fn id_of(&self, subject: &str, schema: &str) -> Result<Option<u32>, RegistryError>;

    /// The newest schema of `subject`: its id and its text; none if there is no such subject.
    ///
    /// # Errors
    /// [`RegistryError`] by recovery.
    fn latest(&self, subject: &str) -> Result<Option<(u32, String)>, RegistryError>;

    /// Whether `schema` may follow the newest schema of `subject`.
    ///
    /// # Errors
    /// [`RegistryError`] by recovery.
    fn compatible(&self, subject: &str, schema: &str) -> Result<Compatibility, RegistryError>;

    /// Says which versions of `subject` must be able to read each other from here on; false if the registry keeps no
    /// such rule for a subject.
    ///
    /// # Errors
    /// [`RegistryError`] by recovery.
    fn set_level(&self, subject: &str, level: Level) -> Result<bool, RegistryError>;
}

/// Whether a schema may follow another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compatibility {
    /// It may.
    Compatible,
    /// It may not.
    Incompatible {
        /// Why not, one sentence each.
        reasons: Vec<String>,
    },
}

/// What went wrong with a registry, named for what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// There is no such schema or subject.
    #[error("the schema registry does not have it: {0}")]
    NotFound(String),
    /// The schema does not fit: change the schema, or the subject's rule.
    #[error("the schema does not fit: {0}")]
    Incompatible(String),
    /// Nobody answers, or not now: try again.
    #[error("the schema registry is not available just now: {0}")]
    Unavailable(String),
    /// It does not accept who we are: change the credentials.
    #[error("the schema registry does not let us in: {0}")]
    Denied(String),
    /// It will go on refusing until somebody changes the settings.
    #[error("the schema registry refuses: {0}")]
    Refused(String),
}

/// What was asked for, or none if the registry does not have it.
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

/// Whether `schema` may follow `versions`, oldest first, under `level`.
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
                assert!(reasons.join(" ").contains(word), "{reasons:?} says nothing of {word}");
            }
            (verdict, expected) => panic!("{written} to {reading}: {verdict:?}, not {expected:?}"),
        }
    }

    fn record(fields: &str) -> String {
        format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
    }

    #[test]
    fn what_may_follow() {
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
