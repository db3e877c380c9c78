//! The JSON schema of events, from which clients of the HTTP API generate their types.
//!
//! It has the forms that a client should write. More are read: a string means the same as a table cell with this text.

use serde_json::{Map, Value, json};

use crate::events::questionnaire::{
    MomentKind, QuestionnaireSchema,
    answer::{AnswerForm, AnswerType},
    id::IdKind,
};

impl QuestionnaireSchema {
    /// The JSON schema of an event: metadata and questions by name, and nothing else.
    #[must_use]
    pub fn json_schema(&self) -> Value {
        let fields = self.metadata();
        let mut properties = Map::new();
        properties.insert(fields.respondent_id.clone(), id_schema(self.respondent_id));
        if let Some(name) = &fields.event_id {
            properties.insert(name.clone(), nullable(id_schema(self.event_id)));
        }
        properties.insert(
            fields.event_time.clone(),
            json!({
                "type": ["integer", "string", "null"],
                "description": "Milliseconds since 1970, or ISO 8601. Default: now.",
            }),
        );
        if let Some(name) = &fields.completed {
            let description = "Whether the respondent has submitted the questionnaire.";
            let schema = json!({ "type": ["boolean", "null"], "description": description });
            properties.insert(name.clone(), schema);
        }
        properties.extend(self.answer_schemas());
        json!({
            "type": "object",
            "description": "An event: some or all answers of one respondent. A string means the same as a table cell with \
                            this text; null takes an earlier answer back.",
            "properties": properties,
            "required": [fields.respondent_id],
            "additionalProperties": false,
        })
    }

    /// The JSON schemas of the answers, by the names of the questions.
    pub fn answer_schemas(&self) -> impl Iterator<Item = (String, Value)> {
        let names = self.questions().iter().map(|question| question.name.clone());
        names.zip(self.answers.iter().map(answer_schema))
    }
}

fn id_schema(kind: IdKind) -> Value {
    match kind {
        IdKind::Text => json!({ "type": "string", "pattern": "\\S" }),
        IdKind::Int | IdKind::Long => json!({ "type": ["integer", "string"] }),
        IdKind::UuidText | IdKind::UuidBytes => json!({ "type": "string", "format": "uuid" }),
    }
}

fn answer_schema(form: &AnswerForm) -> Value {
    nullable(match &form.kind {
        AnswerType::Int => json!({ "type": "integer", "format": "int32" }),
        AnswerType::Long => json!({ "type": "integer", "format": "int64" }),
        AnswerType::Float => json!({ "type": "number", "format": "float" }),
        AnswerType::Double => json!({ "type": "number", "format": "double" }),
        AnswerType::Boolean => json!({ "type": "boolean" }),
        AnswerType::Text => json!({ "type": "string" }),
        AnswerType::Symbols(symbols) => json!({ "type": "string", "enum": symbols }),
        AnswerType::UuidText | AnswerType::UuidBytes => {
            json!({ "type": "string", "format": "uuid" })
        }
        AnswerType::Decimal(decimal) => {
            json!({ "type": "number", "description": sentence(&decimal.wanted()) })
        }
        AnswerType::Moment(kind) => moment_schema(*kind),
    })
}

fn moment_schema(kind: MomentKind) -> Value {
    json!({ "type": ["integer", "string"], "description": sentence(kind.wanted()) })
}

/// The text with a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), letters.as_str())
}

/// The schema of the same values and null.
fn nullable(mut schema: Value) -> Value {
    match &mut schema["type"] {
        Value::Array(types) => types.push(json!("null")),
        one @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Object(_)) => {
            *one = json!([one.take(), "null"]);
        }
    }
    if let Some(symbols) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        symbols.push(Value::Null);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::questionnaire::schema::MetadataFields;

    #[test]
    fn each_type_of_question_has_its_schema() {
        let avsc = r#"{"type": "record", "name": "E", "fields": [
            {"name": "who", "type": {"type": "string", "logicalType": "uuid"}},
            {"name": "at", "type": "long"},
            {"name": "age", "type": ["null", "int"], "default": null},
            {"name": "plan", "type": ["null", {"type": "enum", "name": "Plan", "symbols": ["a", "b"]}], "default": null},
            {"name": "born", "type": ["null", {"type": "int", "logicalType": "date"}], "default": null},
            {"name": "ok", "type": ["null", "boolean"], "default": null}
        ]}"#;
        let fields = MetadataFields {
            event_id: None,
            respondent_id: "who".to_owned(),
            event_time: "at".to_owned(),
            completed: None,
        };
        let schema = QuestionnaireSchema::new(avsc, &fields, &[]).unwrap().json_schema();
        let names: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["who", "at", "age", "plan", "born", "ok"]);
        assert_eq!(schema["required"], json!(["who"]));
        let property = |name: &str| &schema["properties"][name];
        assert_eq!(property("who"), &json!({"type": "string", "format": "uuid"}));
        assert_eq!(property("age"), &json!({"type": ["integer", "null"], "format": "int32"}));
        assert_eq!(
            property("plan"),
            &json!({"type": ["string", "null"], "enum": ["a", "b", null]})
        );
        assert_eq!(property("born")["type"], json!(["integer", "string", "null"]));
        assert_eq!(property("ok"), &json!({"type": ["boolean", "null"]}));
    }
}
