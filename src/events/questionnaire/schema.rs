//! The event schema: its metadata fields and its questions.

use apache_avro::schema::{
    InnerDecimalSchema, NamesRef, RecordField, RecordSchema, ResolvedSchema, Schema, UuidSchema,
};

use crate::events::questionnaire::{
    Answer, AnswerRow,
    answer::{AnswerForm, AnswerType, Reading, ReadingRules},
    decimal::Decimal,
    derived,
    id::IdKind,
    moment::MomentKind,
    row::RowLayout,
    schema_error::QuestionnaireSchemaError,
};

/// The names of the metadata fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataFields {
    /// The event id (a string, a UUID or a whole number), if there is one.
    pub event_id: Option<String>,
    /// The respondent id (a string, a UUID or a whole number).
    pub respondent_id: String,
    /// The event time: a timestamp, or a `long` in milliseconds.
    pub event_time: String,
    /// The completed flag (a boolean), if there is one.
    pub completed: Option<String>,
}

/// A question of the event schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name of the field.
    pub name: String,
    /// The kind of its answers.
    pub kind: QuestionKind,
    /// The aliases of the field: its earlier names.
    pub aliases: Vec<String>,
}

impl Question {
    /// Whether `name` is the name or an alias.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }
}

/// The kind of the answers to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuestionKind {
    /// Numbers: `int`, `long`, `float`, `double`; decimals, dates and times.
    Number,
    /// Texts: `string`, `enum`, `boolean`, `uuid`.
    Text,
}

/// A parsed schema of questionnaire events.
#[derive(Clone, Debug)]
pub struct QuestionnaireSchema {
    pub(super) text: String,
    pub(super) fields: MetadataFields,
    pub(super) event_id: IdKind,
    pub(super) respondent_id: IdKind,
    pub(super) time_unit: TimeUnit,
    questions: Vec<Question>,
    pub(super) answers: Vec<AnswerForm>,
    layout: RowLayout,
    /// The fields of the derived record.
    pub(super) derived: Vec<serde_json::Value>,
}

/// The unit of event times in the schema. In an event they are always milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeUnit {
    Millis,
    Micros,
    Nanos,
}

const EVENT_ID: &str = "event id";
const RESPONDENT_ID: &str = "respondent id";
const EVENT_TIME: &str = "event time";
const COMPLETED: &str = "completed flag";
const IGNORED: &str = "ignored field";

impl QuestionnaireSchema {
    /// Parses the schema `avsc`. `fields` are its metadata, the fields in `ignored` are skipped, and all others are questions.
    ///
    /// # Errors
    /// [`QuestionnaireSchemaError`], which names the field and says what to change.
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
        let mut fields_of_answers = Vec::new();
        for field in &record.fields {
            if used.iter().any(|(_, name)| *name == field.name) {
                continue;
            }
            let kind = reader.answer(field)?;
            let value = reader.one_type(&field.schema).unwrap_or(&field.schema);
            fields_of_answers.push(derived::field(field, value, &kind));
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
            layout: layout_of(&answers),
            derived: fields_of_answers,
            answers,
        })
    }

    /// Sets the rules for reading answers. Names that are not questions have no effect.
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
        self.layout = layout_of(&self.answers);
        self
    }

    /// The unit of the answers to a question, if they are dates or times.
    #[must_use]
    pub fn moment(&self, question: &str) -> Option<MomentKind> {
        let AnswerType::Moment(kind) = self.answers[self.position(question)?].kind else {
            return None;
        };
        Some(kind)
    }

    /// Whether answers to the question may be numbers or texts of numbers.
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

    /// The metadata fields.
    #[must_use]
    pub fn metadata(&self) -> &MetadataFields {
        &self.fields
    }

    /// The questions in the order of the schema, which the answers of an event have too.
    #[must_use]
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// The layout of the answers of an event.
    #[must_use]
    pub fn layout(&self) -> &RowLayout {
        &self.layout
    }

    /// The row of answers by the names or aliases of their questions; others are not in it.
    pub fn row_by_name<N: AsRef<str>>(
        &self,
        named: impl IntoIterator<Item = (N, Option<Answer>)>,
    ) -> AnswerRow {
        let mut answers = vec![None; self.questions.len()];
        for (name, answer) in named {
            if let Some(index) = self.position(name.as_ref()) {
                answers[index] = answer;
            }
        }
        self.layout.row_of(&answers)
    }

    /// The text of the schema, for registration.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The index of the question with this name or alias.
    pub(super) fn position(&self, question: &str) -> Option<usize> {
        position_of(question, &self.questions)
    }
}

fn layout_of(answers: &[AnswerForm]) -> RowLayout {
    RowLayout::new(answers.iter().map(AnswerForm::row_type))
}

/// The index of the question with this name, or else with this alias.
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

/// The fields that the configuration names, with their roles.
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

pub(super) struct FieldReader<'s> {
    pub(super) record: &'s RecordSchema,
    pub(super) names: &'s NamesRef<'s>,
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "apache_avro's enum: the other types are not supported"
)]
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

    fn check_invalid(questions: &str, fields: &MetadataFields, ignored: &[&str], words: &[&str]) {
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
    fn errors_name_the_field() {
        let question = r#",{"name":"a","type":"int"}"#;
        let with = |change: &dyn Fn(&mut MetadataFields)| {
            let mut fields = fields();
            change(&mut fields);
            fields
        };
        check_invalid("", &fields(), &[], &["no questions"]);
        check_invalid(
            r#",{"name":"a","type":"bytes"}"#,
            &fields(),
            &[],
            &["`a`", "bytes", "ignored"],
        );
        check_invalid(
            r#",{"name":"a","type":["int","string"]}"#,
            &fields(),
            &[],
            &["`a`", "ignored"],
        );
        check_invalid(question, &fields(), &["b"], &["no field `b`", "ignored field", "who"]);
        check_invalid(question, &fields(), &["who"], &["`who`", "respondent id"]);
        check_invalid(
            question,
            &with(&|fields| fields.event_time = "a".to_owned()),
            &[],
            &["`a`", "event time", "timestamp-millis"],
        );
        check_invalid(
            question,
            &with(&|fields| fields.respondent_id = "nobody".to_owned()),
            &[],
            &["no field `nobody`", "respondent id", "who"],
        );
        check_invalid(
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
