//! Why a configuration is refused.

use std::{io, path::PathBuf};

use crate::config::source::{Sources, written_form};
use crate::events::questionnaire::QuestionnaireSchemaError;
use foretell_ml::SpecError;

/// An invalid configuration. Each message says what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {what} {path}", path = path.display())]
    Unreadable {
        /// The kind of file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A key or a value is invalid. The message names a secret without its value.
    #[error("{place}: {problem}")]
    At {
        /// The file and its line, the variable, or the `--set`.
        place: String,
        /// The key, the problem, and what to change.
        problem: String,
    },
    /// The file of a secret cannot be read.
    #[error("{named}: cannot read {from}", from = from.display())]
    SecretFile {
        /// The source and the key of the secret.
        named: String,
        /// The file.
        from: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The event schema cannot be read.
    #[error("{named}: cannot read {path}", path = path.display())]
    SchemaFile {
        /// The source and the key of the schema's path.
        named: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The event schema cannot be used with the configuration.
    #[error("{named} {path}", path = path.display())]
    Schema {
        /// The source and the key of the schema's path.
        named: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<QuestionnaireSchemaError>,
    },
    /// The features do not match the event schema.
    #[error("{named}")]
    Features {
        /// The source and the name of the section.
        named: String,
        /// The cause.
        source: Box<SpecError>,
    },
}

/// The error for the value of `key` (`section.key`); `problem` says what is wrong and what to change.
pub(super) fn refused(sources: &Sources, key: &str, problem: &str) -> ConfigError {
    let problem = format!("{}: {problem}", written_form(key));
    ConfigError::At { place: sources.of(key), problem }
}
