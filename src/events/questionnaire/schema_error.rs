//! Reasons why an event schema cannot be used.

/// A schema that cannot be used; the message says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionnaireSchemaError {
    /// The text is not a valid Avro schema.
    #[error("the event schema is not a valid Avro schema: {reason}")]
    Invalid {
        /// The problem.
        reason: String,
    },
    /// The schema is not a record.
    #[error("the event schema is not a record: its answers must be fields of one record")]
    NotARecord,
    /// The configuration names a field that does not exist.
    #[error(
        "the event schema has no field `{field}`, which the settings call the {role}: name one of its \
         fields: {known}"
    )]
    NoSuchField {
        /// The role of the field.
        role: &'static str,
        /// The configured name.
        field: String,
        /// The fields that could have the role.
        known: String,
    },
    /// The type of the field is not valid for its role.
    #[error(
        "field `{field}`, which the settings call the {role}, is of type {found}: it must be {wanted}"
    )]
    WrongType {
        /// The role of the field.
        role: &'static str,
        /// The name of the field.
        field: String,
        /// The type of the field.
        found: String,
        /// The types that are valid.
        wanted: &'static str,
    },
    /// One field has two roles.
    #[error(
        "field `{field}` cannot be the {role}: the configuration uses it as the {other} already"
    )]
    UsedTwice {
        /// The name of the field.
        field: String,
        /// One role.
        role: &'static str,
        /// The other role.
        other: &'static str,
    },
    /// The type of a field is not supported for answers.
    #[error(
        "field `{field}` is of type {found}, which can't be an answer: list it among the ignored \
         fields, or make it a number, a string, an enum, a boolean, a date or a time, or a union of null and one of these"
    )]
    UnsupportedType {
        /// The name of the field.
        field: String,
        /// The type of the field.
        found: String,
    },
    /// The schema has no questions.
    #[error("the event schema has no questions: every field is metadata, or ignored")]
    NoQuestions,
}
