//! What the user's schema says: which fields are about the event, and which are questions.

use apache_avro::schema::{
    InnerDecimalSchema, NamesRef, RecordField, RecordSchema, ResolvedSchema, Schema, UuidSchema,
};

use crate::events::questionnaire::{
    answer::{AnswerForm, AnswerType, Reading, ReadingRules},
    decimal::Decimal,
    id::IdKind,
    moment::MomentKind,
};

/// Which fields of the schema are about the event rather than answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataFields {
    /// Names the event (a string, a UUID or a whole number), if there is such a field.
    pub event_id: Option<String>,
    /// Who answers (a string, a UUID or a whole number).
    pub respondent_id: String,
    /// When they answered: a timestamp, or a `long` in milliseconds.
    pub event_time: String,
    /// Whether it is the last piece (a boolean), if there is such a field.
    pub completed: Option<String>,
}

/// A question, as far as a model cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The field's name.
    pub name: String,
    /// What an answer is.
    pub kind: QuestionKind,
    /// What the field was called before.
    pub aliases: Vec<String>,
}

impl Question {
    /// Whether it is, or was, called `name`.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }
}

/// What the answers to a question are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuestionKind {
    /// Numbers: `int`, `long`, `float`, `double`; decimals, dates and times.
    Number,
    /// Words: `string`, `enum`, `boolean`, `uuid`.
    Text,
}

/// A schema of questionnaire events, understood.
#[derive(Clone, Debug)]
pub struct QuestionnaireSchema {
    pub(super) text: String,
    pub(super) fields: MetadataFields,
    pub(super) event_id: IdKind,
    pub(super) respondent_id: IdKind,
    pub(super) time_unit: TimeUnit,
    questions: Vec<Question>,
    pub(super) answers: Vec<AnswerForm>,
}

/// What event times are in the schema; in an event they are always milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeUnit {
    Millis,
    Micros,
    Nanos,
}

/// Why a schema can't be used, and what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionnaireSchemaError {
    /// It is not Avro.
    #[error("the event schema is not a valid Avro schema: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// It is something else than a record.
    #[error("the event schema is not a record: its answers must be fields of one record")]
    NotARecord,
    /// The settings name a field that is not there.
    #[error(
        "the event schema has no field `{field}`, which the settings call the {role}; it has {known}"
    )]
    NoSuchField {
        /// What the field is to be.
        role: &'static str,
        /// Its name in the settings.
        field: String,
        /// The names that would do.
        known: String,
    },
    /// The field is there, but can't be that.
    #[error(
        "field `{field}`, which the settings call the {role}, is of type {found}: it must be {wanted}"
    )]
    WrongType {
        /// What the field is to be.
        role: &'static str,
        /// Its name.
        field: String,
        /// Its type.
        found: String,
        /// The types that would do.
        wanted: &'static str,
    },
    /// One field is to be two things.
    #[error("field `{field}` can't be the {role}: the settings call it the {other} already")]
    UsedTwice {
        /// Its name.
        field: String,
        /// One thing.
        role: &'static str,
        /// The other.
        other: &'static str,
    },
    /// A field that is no answer we understand.
    #[error(
        "field `{field}` is of type {found}, which can't be an answer: list it among the ignored \
         fields, or make it a number, a string, an enum, a boolean, a date or a time, or a union of null and one of these"
    )]
    UnsupportedType {
        /// Its name.
        field: String,
        /// Its type.
        found: String,
    },
    /// Nothing is left.
    #[error("the event schema has no questions: every field is metadata, or ignored")]
    NoQuestions,
}

const EVENT_ID: &str = "event id";
const RESPONDENT_ID: &str = "respondent id";
const EVENT_TIME: &str = "event time";
const COMPLETED: &str = "completed flag";
const IGNORED: &str = "ignored field";

impl QuestionnaireSchema {
    /// Understands the schema `avsc`, in which `fields` are metadata, `ignored` are passed over, and
    /// all others are questions.
    ///
    /// # Errors
    /// [`QuestionnaireSchemaError`] says which field is wrong and what to change.
    pub fn new(
        avsc: &str,
        fields: &MetadataFields,
        ignored: &[String],
    ) -> Result<Self, QuestionnaireSchemaError> {
        let invalid = |error: apache_avro::Error| QuestionnaireSchemaError::Invalid {
            reason: error.to_string(),
        };
        let schema = Schema::parse_str(avsc).map_err(invalid)?;
        let names = ResolvedSchema::new(&schema).map_err(invalid)?;
        let Schema::Record(record) = &schema else {
            return Err(QuestionnaireSchemaError::NotARecord);
        };
        let reader = FieldReader { record, names: names.get_names() };
        let used = roles(fields, ignored)?;
        for (role, name) in &used {
            reader.field(role, name)?;
        }
        let event_id = match &fields.event_id {
            Some(name) => reader.id(EVENT_ID, name)?,
            None => IdKind::Text,
        };
        let respondent_id = reader.id(RESPONDENT_ID, &fields.respondent_id)?;
        let time_unit = reader.time(&fields.event_time)?;
        if let Some(name) = &fields.completed {
            reader.flag(name)?;
        }
        let mut questions = Vec::new();
        let mut answers = Vec::new();
        for field in &record.fields {
            if used.iter().any(|(_, name)| *name == field.name) {
                continue;
            }
            let kind = reader.answer(field)?;
            questions.push(Question {
                name: field.name.clone(),
                kind: kind.question_kind(),
                aliases: field.aliases.clone(),
            });
            answers.push(AnswerForm { kind, reading: Reading::ByType, missing: Vec::new() });
        }
        if questions.is_empty() {
            return Err(QuestionnaireSchemaError::NoQuestions);
        }
        Ok(Self {
            text: avsc.to_owned(),
            fields: fields.clone(),
            event_id,
            respondent_id,
            time_unit,
            questions,
            answers,
        })
    }

    /// The same, with the answers read as the settings say. Names that are no questions say nothing.
    #[must_use]
    pub fn read_as(mut self, rules: &ReadingRules) -> Self {
        for (question, form) in self.questions.iter().zip(&mut self.answers) {
            form.reading = if rules.categorical.contains(&question.name) {
                Reading::Category
            } else if rules.numeric.contains(&question.name) {
                Reading::Number
            } else {
                Reading::ByType
            };
            form.missing = rules.missing.iter().map(|mark| mark.trim().to_owned()).collect();
        }
        self
    }

    /// What the numbers count that answer the question, if they are dates or times.
    #[must_use]
    pub fn moment(&self, question: &str) -> Option<MomentKind> {
        let AnswerType::Moment(kind) = self.answers[self.position(question)?].kind else {
            return None;
        };
        Some(kind)
    }

    /// Whether an answer to the question may be a number, or spell one.
    #[must_use]
    pub fn may_be_number(&self, question: &str) -> bool {
        let form = self.position(question).map(|place| &self.answers[place].kind);
        form.is_some_and(|kind| match kind {
            AnswerType::Boolean
            | AnswerType::Symbols(_)
            | AnswerType::UuidText
            | AnswerType::UuidBytes => false,
            AnswerType::Int
            | AnswerType::Long
            | AnswerType::Float
            | AnswerType::Double
            | AnswerType::Text
            | AnswerType::Decimal(_)
            | AnswerType::Moment(_) => true,
        })
    }

    /// Which of its fields are about the event.
    #[must_use]
    pub fn metadata(&self) -> &MetadataFields {
        &self.fields
    }

    /// The questions, in the schema's order; an event's answers have the same order.
    #[must_use]
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// The schema's text, as it is to be registered.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The question of this name, or of this earlier name.
    pub(super) fn position(&self, question: &str) -> Option<usize> {
        position_of(question, &self.questions)
    }
}

/// The place of the question of this name, or else of the one that had it before.
#[must_use]
pub fn position_of(name: &str, questions: &[Question]) -> Option<usize> {
    let by_name = questions.iter().position(|question| question.name == name);
    by_name.or_else(|| questions.iter().position(|question| question.is_called(name)))
}

impl AnswerType {
    fn question_kind(&self) -> QuestionKind {
        match self {
            Self::Int
            | Self::Long
            | Self::Float
            | Self::Double
            | Self::Decimal(_)
            | Self::Moment(_) => QuestionKind::Number,
            Self::Boolean | Self::Text | Self::Symbols(_) | Self::UuidText | Self::UuidBytes => {
                QuestionKind::Text
            }
        }
    }
}

/// What each field named in the settings is to be.
fn roles<'s>(
    fields: &'s MetadataFields,
    ignored: &'s [String],
) -> Result<Vec<(&'static str, &'s str)>, QuestionnaireSchemaError> {
    let named = [
        (EVENT_ID, fields.event_id.as_deref()),
        (RESPONDENT_ID, Some(fields.respondent_id.as_str())),
        (EVENT_TIME, Some(fields.event_time.as_str())),
        (COMPLETED, fields.completed.as_deref()),
    ];
    let named = named.into_iter().filter_map(|(role, name)| Some((role, name?)));
    let ignored = ignored.iter().map(|name| (IGNORED, name.as_str()));
    let mut used: Vec<(&'static str, &str)> = Vec::new();
    for (role, name) in named.chain(ignored) {
        if let Some((other, _)) = used.iter().find(|(_, known)| *known == name) {
            let field = name.to_owned();
            return Err(QuestionnaireSchemaError::UsedTwice { field, role, other });
        }
        used.push((role, name));
    }
    Ok(used)
}

struct FieldReader<'s> {
    record: &'s RecordSchema,
    names: &'s NamesRef<'s>,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "it is apache_avro's enum: all else is refused")]
impl<'s> FieldReader<'s> {
    fn field(
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

    fn id(&self, role: &'static str, name: &str) -> Result<IdKind, QuestionnaireSchemaError> {
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

    fn time(&self, name: &str) -> Result<TimeUnit, QuestionnaireSchemaError> {
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

    fn flag(&self, name: &str) -> Result<(), QuestionnaireSchemaError> {
        let field = self.field(COMPLETED, name)?;
        match self.one_type(&field.schema) {
            Some(Schema::Boolean) => Ok(()),
            _ => Err(wrong_type(COMPLETED, field, "a boolean")),
        }
    }

    fn answer(&self, field: &RecordField) -> Result<AnswerType, QuestionnaireSchemaError> {
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

    /// The type itself, or the one that is in a union with null.
    fn one_type(&self, schema: &'s Schema) -> Option<&'s Schema> {
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
    reason = "it is apache_avro's enum: nothing else is a time"
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

/// A type as it stands in the schema; long ones cut off.
fn shown(schema: &Schema) -> String {
    const CHARACTERS_MAX: usize = 120;
    let text = serde_json::to_string(schema).unwrap_or_else(|_| schema.to_string());
    text.chars().take(CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> MetadataFields {
        MetadataFields {
            event_id: Some("id".to_owned()),
            respondent_id: "who".to_owned(),
            event_time: "at".to_owned(),
            completed: None,
        }
    }

    const METADATA: &str = r#"{"name":"id","type":["null","string"]},{"name":"who","type":"long"},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}}"#;

    fn schema(
        questions: &str,
        fields: &MetadataFields,
        ignored: &[&str],
    ) -> Result<QuestionnaireSchema, QuestionnaireSchemaError> {
        let avsc = format!(r#"{{"type":"record","name":"R","fields":[{METADATA}{questions}]}}"#);
        let ignored: Vec<_> = ignored.iter().map(|&name| name.to_owned()).collect();
        QuestionnaireSchema::new(&avsc, fields, &ignored)
    }

    fn refuse(questions: &str, fields: &MetadataFields, ignored: &[&str], words: &[&str]) {
        let message = schema(questions, fields, ignored).expect_err(questions).to_string();
        for word in words {
            assert!(message.contains(word), "{message:?} says nothing of {word:?}");
        }
    }

    #[test]
    fn questions_by_type() {
        let understood = schema(
            r#",{"name":"a","type":"int"},{"name":"b","type":["null","double"]},
               {"name":"c","type":["string","null"]},{"name":"d","type":"boolean"},
               {"name":"e","type":{"type":"enum","name":"E","symbols":["X"]}},
               {"name":"f","type":["null","E"]},{"name":"g","type":"bytes"}"#,
            &fields(),
            &["g"],
        );
        let understood = understood.unwrap();
        let kinds: String = understood
            .questions()
            .iter()
            .map(|question| match question.kind {
                QuestionKind::Number => format!("{}:number ", question.name),
                QuestionKind::Text => format!("{}:text ", question.name),
            })
            .collect();
        assert_eq!(kinds, "a:number b:number c:text d:text e:text f:text ");
        assert_eq!(understood.respondent_id, IdKind::Long);
        assert_eq!(understood.time_unit, TimeUnit::Micros);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let question = r#",{"name":"a","type":"int"}"#;
        let with = |change: &dyn Fn(&mut MetadataFields)| {
            let mut fields = fields();
            change(&mut fields);
            fields
        };
        refuse("", &fields(), &[], &["no questions"]);
        refuse(r#",{"name":"a","type":"bytes"}"#, &fields(), &[], &["`a`", "bytes", "ignored"]);
        refuse(r#",{"name":"a","type":["int","string"]}"#, &fields(), &[], &["`a`", "ignored"]);
        refuse(question, &fields(), &["b"], &["no field `b`", "ignored field", "who"]);
        refuse(question, &fields(), &["who"], &["`who`", "respondent id"]);
        refuse(
            question,
            &with(&|fields| fields.event_time = "a".to_owned()),
            &[],
            &["`a`", "event time", "timestamp-millis"],
        );
        refuse(
            question,
            &with(&|fields| fields.respondent_id = "nobody".to_owned()),
            &[],
            &["no field `nobody`", "respondent id", "who"],
        );
        refuse(
            question,
            &with(&|fields| fields.completed = Some("a".to_owned())),
            &[],
            &["`a`", "a boolean"],
        );
        let text = QuestionnaireSchema::new("\"string\"", &fields(), &[]).unwrap_err();
        assert_eq!(text, QuestionnaireSchemaError::NotARecord);
        let none = QuestionnaireSchema::new("{", &fields(), &[]).unwrap_err();
        assert!(matches!(none, QuestionnaireSchemaError::Invalid { .. }));
    }
}
