//! The types of the fields of an event schema.

use apache_avro::schema::{
    InnerDecimalSchema, NamesRef, RecordField, RecordSchema, Schema, UuidSchema,
};

use crate::events::questionnaire::{
    QuestionnaireSchemaError,
    answer::AnswerType,
    decimal::Decimal,
    id::IdKind,
    moment::{MomentKind, TimeUnit},
};

/// The role of a field, in messages.
pub(super) const EVENT_ID: &str = "event id";
/// The role of a field, in messages.
pub(super) const RESPONDENT_ID: &str = "respondent id";
/// The role of a field, in messages.
pub(super) const EVENT_TIME: &str = "event time";
/// The role of a field, in messages.
pub(super) const COMPLETED: &str = "completed flag";
/// The role of a field, in messages.
pub(super) const IGNORED: &str = "ignored field";

/// Reads the fields of a record by their roles.
pub(super) struct FieldReader<'s> {
    pub(super) record: &'s RecordSchema,
    pub(super) names: &'s NamesRef<'s>,
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "apache_avro's enum: the other types are not supported"
)]
impl<'s> FieldReader<'s> {
    pub(super) fn field(
        &self,
        role: &'static str,
        name: &str,
    ) -> Result<&'s RecordField, QuestionnaireSchemaError> {
        let found = self.record.fields.iter().find(|field| field.name == name);
        found.ok_or_else(|| {
            let known: Vec<_> =
                self.record.fields.iter().map(|field| field.name.as_str()).collect();
            let known = known.join(", ");
            QuestionnaireSchemaError::NoSuchField { role, field: name.to_owned(), known }
        })
    }

    pub(super) fn id(
        &self,
        role: &'static str,
        name: &str,
    ) -> Result<IdKind, QuestionnaireSchemaError> {
        let field = self.field(role, name)?;
        match self.one_type(&field.schema) {
            Some(Schema::String) => Ok(IdKind::Text),
            Some(Schema::Int) => Ok(IdKind::Int),
            Some(Schema::Long) => Ok(IdKind::Long),
            Some(Schema::Uuid(UuidSchema::String)) => Ok(IdKind::UuidText),
            Some(Schema::Uuid(UuidSchema::Bytes | UuidSchema::Fixed(_))) => Ok(IdKind::UuidBytes),
            _ => Err(wrong_type(role, field, "a string, a uuid, an int or a long")),
        }
    }

    pub(super) fn time(&self, name: &str) -> Result<TimeUnit, QuestionnaireSchemaError> {
        let field = self.field(EVENT_TIME, name)?;
        match self.one_type(&field.schema) {
            Some(Schema::Long | Schema::TimestampMillis | Schema::LocalTimestampMillis) => {
                Ok(TimeUnit::Millis)
            }
            Some(Schema::TimestampMicros | Schema::LocalTimestampMicros) => Ok(TimeUnit::Micros),
            Some(Schema::TimestampNanos | Schema::LocalTimestampNanos) => Ok(TimeUnit::Nanos),
            _ => Err(wrong_type(
                EVENT_TIME,
                field,
                "a long of logical type timestamp-millis, timestamp-micros or timestamp-nanos",
            )),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<(), QuestionnaireSchemaError> {
        let field = self.field(COMPLETED, name)?;
        match self.one_type(&field.schema) {
            Some(Schema::Boolean) => Ok(()),
            _ => Err(wrong_type(COMPLETED, field, "a boolean")),
        }
    }

    pub(super) fn answer(
        &self,
        field: &RecordField,
    ) -> Result<AnswerType, QuestionnaireSchemaError> {
        match self.one_type(&field.schema) {
            Some(Schema::Int) => Ok(AnswerType::Int),
            Some(Schema::Long) => Ok(AnswerType::Long),
            Some(Schema::Float) => Ok(AnswerType::Float),
            Some(Schema::Double) => Ok(AnswerType::Double),
            Some(Schema::Boolean) => Ok(AnswerType::Boolean),
            Some(Schema::String) => Ok(AnswerType::Text),
            Some(Schema::Uuid(UuidSchema::String)) => Ok(AnswerType::UuidText),
            Some(Schema::Uuid(UuidSchema::Bytes | UuidSchema::Fixed(_))) => {
                Ok(AnswerType::UuidBytes)
            }
            Some(Schema::Decimal(decimal)) => Ok(AnswerType::Decimal(Decimal {
                precision: decimal.precision,
                scale: decimal.scale,
                size: match &decimal.inner {
                    InnerDecimalSchema::Bytes => None,
                    InnerDecimalSchema::Fixed(fixed) => Some(fixed.size),
                },
            })),
            Some(Schema::Enum(symbols)) => Ok(AnswerType::Symbols(symbols.symbols.clone())),
            other => match other.and_then(moment) {
                Some(kind) => Ok(AnswerType::Moment(kind)),
                None => Err(QuestionnaireSchemaError::UnsupportedType {
                    field: field.name.clone(),
                    found: shown(&field.schema),
                }),
            },
        }
    }

    /// The type itself, or the other type of a union with null.
    pub(super) fn one_type(&self, schema: &'s Schema) -> Option<&'s Schema> {
        match schema {
            Schema::Union(union) => {
                let mut others =
                    union.variants().iter().filter(|branch| !matches!(branch, Schema::Null));
                match (others.next(), others.next()) {
                    (Some(only), None) => self.one_type(only),
                    (_, _) => None,
                }
            }
            Schema::Ref { name } => self.names.get(name).copied(),
            schema => Some(schema),
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "apache_avro's enum: the other types are not dates or times"
)]
fn moment(schema: &Schema) -> Option<MomentKind> {
    let (millis, micros, nanos) = (1_000, 1_000_000, 1_000_000_000);
    match schema {
        Schema::Date => Some(MomentKind::Date),
        Schema::TimeMillis => Some(MomentKind::Time { per_second: millis }),
        Schema::TimeMicros => Some(MomentKind::Time { per_second: micros }),
        Schema::TimestampMillis | Schema::LocalTimestampMillis => {
            Some(MomentKind::Timestamp { per_second: millis })
        }
        Schema::TimestampMicros | Schema::LocalTimestampMicros => {
            Some(MomentKind::Timestamp { per_second: micros })
        }
        Schema::TimestampNanos | Schema::LocalTimestampNanos => {
            Some(MomentKind::Timestamp { per_second: nanos })
        }
        _ => None,
    }
}

fn wrong_type(
    role: &'static str,
    field: &RecordField,
    wanted: &'static str,
) -> QuestionnaireSchemaError {
    let (name, found) = (field.name.clone(), shown(&field.schema));
    QuestionnaireSchemaError::WrongType { role, field: name, found, wanted }
}

/// The text of a type, truncated if it is long.
fn shown(schema: &Schema) -> String {
    const CHARACTERS_MAX: usize = 120;
    let text = serde_json::to_string(schema).unwrap_or_else(|_| schema.to_string());
    text.chars().take(CHARACTERS_MAX).collect()
}
