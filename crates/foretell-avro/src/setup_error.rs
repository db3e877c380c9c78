//! Errors of creating a codec.

use crate::registry::RegistryError;

/// Reasons why a codec cannot be created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecSetupError {
    /// The schema is not registered under the subject: register it first.
    #[error("subject {subject} does not hold this schema: run `foretell init`")]
    NotRegistered {
        /// Name of the subject.
        subject: String,
    },
    /// The registry failed; see [`RegistryError`] for the recovery.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The schema is invalid, or lacks a requested field.
    #[error("the schema for subject {subject} is not valid: {reason}")]
    Schema {
        /// Subject of the schema.
        subject: String,
        /// Description of the problem.
        reason: String,
    },
}
