//! The event schema: its metadata fields and its questions.

use apache_avro::schema::{ResolvedSchema, Schema};

use crate::events::questionnaire::{
    Answer, AnswerRow, EventSource,
    answer::{AnswerForm, AnswerType, Primitive, Reading, ReadingRules},
    derived,
    field_reader::{COMPLETED, EVENT_ID, EVENT_TIME, FieldReader, IGNORED, RESPONDENT_ID},
    id::IdKind,
    moment::{MomentKind, TimeUnit},
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

/// A parsed schema of questionnaire events. If events come from several sources, it is that of one source, with the questions of
/// all.
#[derive(Clone, Debug)]
pub struct QuestionnaireSchema {
    pub(super) source: EventSource,
    pub(super) text: String,
    pub(super) fields: MetadataFields,
    pub(super) event_id: IdKind,
    pub(super) respondent_id: IdKind,
    pub(super) time_unit: TimeUnit,
    pub(super) questions: Vec<Question>,
    pub(super) answers: Vec<AnswerForm>,
    /// Whether the schema has a field for each question; another source has one for the others.
    pub(super) asked: Vec<bool>,
    pub(super) layout: RowLayout,
    /// The fields of the derived record.
    pub(super) derived: Vec<serde_json::Value>,
}

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
            source: EventSource::Lead,
            text: avsc.to_owned(),
            fields: fields.clone(),
            event_id,
            respondent_id,
            time_unit,
            asked: vec![true; questions.len()],
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

    /// The source of the events.
    #[must_use]
    pub fn source(&self) -> &EventSource {
        &self.source
    }

    /// Whether the schema has a field for the event id.
    #[must_use]
    pub fn names_events(&self) -> bool {
        self.fields.event_id.is_some()
    }

    /// Whether each question has a field in this source's schema.
    #[must_use]
    pub fn asked(&self) -> &[bool] {
        &self.asked
    }

    /// The questions of all sources, in the order of the schemas, which the answers of an event have too.
    #[must_use]
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// The type of the answers to each question, with its name.
    pub fn primitives(&self) -> impl Iterator<Item = (&str, Primitive)> {
        let names = self.questions.iter().map(|question| question.name.as_str());
        names.zip(self.answers.iter().map(|answer| answer.kind.primitive()))
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

    /// The schema that `template` becomes with the fields of the answers in it. A reader of records without answers takes all
    /// as missing.
    #[must_use]
    pub fn fill_answers(&self, template: &str) -> String {
        let names = self.questions.iter().map(|question| question.name.as_str());
        derived::fill(template, &self.derived, names)
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

pub(super) fn layout_of(answers: &[AnswerForm]) -> RowLayout {
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
