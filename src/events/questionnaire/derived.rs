//! The record of the answers in predictions and labelled examples, derived from the event schema.
//!
//! Each question is a field with the same name, doc and aliases, of type `["null", T]` with default null. [`AnswerRow`] has the
//! T of each type, and its bytes are this record. Dates and times keep their logical type.
//!
//! [`AnswerRow`]: crate::events::questionnaire::AnswerRow

use apache_avro::schema::{RecordField, ResolvedSchema, Schema};
use serde_json::{Map, Value, json};

use crate::events::questionnaire::{answer::AnswerType, field_reader::FieldReader, row::RowType};

/// The name of the field with the answers, and of the record that is its type, in the templates of the schemas.
const ANSWERS: &str = "answers";

/// The derived field of a question, whose `schema` is not a union with null.
pub(super) fn field(field: &RecordField, schema: &Schema, kind: &AnswerType) -> Value {
    let value = match (kind, kind.row_type()) {
        // `date` and `time-millis` annotate an int, which has the same bytes as a long.
        (AnswerType::Moment(_), _) => {
            serde_json::to_value(schema).unwrap_or_else(|_| json!("long"))
        }
        (_, RowType::Whole | RowType::Id) => json!("long"),
        (_, RowType::Number) => json!("double"),
        (_, RowType::Text) => json!("string"),
        (_, RowType::Flag) => json!("boolean"),
    };
    let mut derived = json!({"name": field.name, "type": ["null", value], "default": null});
    if let Some(doc) = &field.doc {
        derived["doc"] = json!(doc);
    }
    if !field.aliases.is_empty() {
        derived["aliases"] = json!(field.aliases);
    }
    derived
}

/// The fields that the questions of an event schema have in the derived record. Every field that can be an answer is taken for a
/// question, except the `others`; so versions can be compared whose metadata have other names than the configuration's.
#[must_use]
pub fn answer_fields(event_schema: &Schema, others: &[String]) -> Vec<Value> {
    let Ok(names) = ResolvedSchema::new(event_schema) else { return Vec::new() };
    let Schema::Record(record) = event_schema else { return Vec::new() };
    let reader = FieldReader { record, names: names.get_names() };
    let questions = record.fields.iter().filter(|field| !others.contains(&field.name));
    let derived = questions.filter_map(|field| {
        let kind = reader.answer(field).ok()?;
        Some(self::field(field, reader.one_type(&field.schema)?, &kind))
    });
    derived.collect()
}

/// The schema that `template` becomes with these fields in the record of the answers, whose default has no answers.
pub(super) fn fill<'q>(
    template: &str,
    fields: &[Value],
    names: impl Iterator<Item = &'q str>,
) -> String {
    let mut filled: Value = serde_json::from_str(template).expect("a template is JSON");
    let missing: Map<String, Value> = names.map(|name| (name.to_owned(), Value::Null)).collect();
    let of_record = filled["fields"].as_array_mut().into_iter().flatten();
    for field in of_record.filter(|field| field["name"] == ANSWERS) {
        field["type"]["fields"] = Value::Array(fields.to_vec());
        field["default"] = Value::Object(missing.clone());
    }
    filled.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{
        questionnaire::{Answer, AnswerRef, AnswersRef},
        small_schema::schema_of,
    };
    use apache_avro::{reader::datum::GenericDatumReader, types::Value as Avro};
    use foretell_avro::evolution::{Level, breaches, parse};

    /// The first version of each subject, and the templates of the others.
    const SUBJECTS: [[&str; 4]; 2] = [
        [
            include_str!("../../../schemas/prediction/v1.avsc"),
            include_str!("../../../schemas/prediction/v2.avsc"),
            include_str!("../../../schemas/prediction/v3.avsc"),
            include_str!("../../../schemas/prediction/v4.avsc"),
        ],
        [
            include_str!("../../../schemas/labelled-example/v1.avsc"),
            include_str!("../../../schemas/labelled-example/v2.avsc"),
            include_str!("../../../schemas/labelled-example/v3.avsc"),
            include_str!("../../../schemas/labelled-example/v4.avsc"),
        ],
    ];

    #[test]
    fn every_question_is_a_nullable_field() {
        let schema = schema_of(
            r#"{"name":"age","aliases":["years"],"doc":"In years.","type":["int","null"]},
               {"name":"ratio","type":"float"},{"name":"job","type":["null","string"],"default":null},
               {"name":"smoker","type":"boolean"},
               {"name":"born","type":["null",{"type":"int","logicalType":"date"}]},
               {"name":"seen","type":{"type":"long","logicalType":"timestamp-micros"}}"#,
        );
        let derived = |name: &str, value: Value| json!({"name": name, "type": ["null", value], "default": null});
        let mut age = derived("age", json!("long"));
        (age["doc"], age["aliases"]) = (json!("In years."), json!(["years"]));
        let born = derived("born", json!({"type": "int", "logicalType": "date"}));
        let seen = derived("seen", json!({"type": "long", "logicalType": "timestamp-micros"}));
        let rest = [("ratio", "double"), ("job", "string"), ("smoker", "boolean")];
        let [ratio, job, smoker] = rest.map(|(name, value)| derived(name, json!(value)));
        assert_eq!(schema.derived, [age, ratio, job, smoker, born, seen]);
    }

    #[test]
    fn a_row_is_a_datum_of_the_derived_record() {
        let schema = schema_of(
            r#"{"name":"age","type":"int"},{"name":"born","type":{"type":"int","logicalType":"date"}},
               {"name":"job","type":"string"}"#,
        );
        let answers = [Some(Answer::Number(39.0)), Some(Answer::Number(-700.0)), None];
        let row = schema.layout().row_of(&answers);
        assert!(schema.layout().answers(&row).next() == Some(AnswerRef::Whole(39)));
        let record = json!({"type": "record", "name": "Answers", "fields": schema.derived});
        let record = Schema::parse(&record).unwrap();
        let reader = GenericDatumReader::builder(&record).build().unwrap();
        let read = reader.read_value(&mut AnswersRef::from(&row).as_bytes()).unwrap();
        let given = |value| Avro::Union(1, Box::new(value));
        let expected = [
            ("age", given(Avro::Long(39))),
            ("born", given(Avro::Date(-700))),
            ("job", Avro::Union(0, Box::new(Avro::Null))),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(read, Avro::Record(expected.into()));
    }

    #[test]
    fn changes_of_the_questions_are_compatible_unless_a_kind_changes() {
        let check = |after: &str, is_compatible: bool| {
            for [first, second, third, fourth] in SUBJECTS {
                let before = r#"{"name":"a","type":"int"},{"name":"b","type":"string"}"#;
                let filled = |questions, template| schema_of(questions).fill_answers(template);
                let filled_before =
                    [second, third, fourth].map(|template| filled(before, template));
                let [second, third, unchanged] = &filled_before;
                let changed = filled(after, fourth);
                let versions = [first, second, third, unchanged, &changed];
                let versions = versions.map(|text| parse(text).unwrap());
                let found = breaches(Level::FullTransitive, &versions);
                assert_eq!(found.is_empty(), is_compatible, "{after}: {found:?}");
            }
        };
        // Added, removed, renamed, wider, another order.
        check(
            r#"{"name":"a","type":"int"},{"name":"b","type":"string"},{"name":"c","type":"double"}"#,
            true,
        );
        check(r#"{"name":"a","type":"int"}"#, true);
        check(r#"{"name":"a","type":"int"},{"name":"d","aliases":["b"],"type":"string"}"#, true);
        check(r#"{"name":"a","type":["null","long"]},{"name":"b","type":"string"}"#, true);
        check(r#"{"name":"b","type":"string"},{"name":"a","type":"int"}"#, true);
        check(
            r#"{"name":"a","type":"int"},{"name":"b","type":{"type":"enum","name":"E","symbols":["X"]}}"#,
            true,
        );
        // A number that was whole, and a text that was a number.
        check(r#"{"name":"a","type":"double"},{"name":"b","type":"string"}"#, false);
        check(r#"{"name":"a","type":"string"},{"name":"b","type":"string"}"#, false);
        check(r#"{"name":"a","type":"boolean"},{"name":"b","type":"string"}"#, false);
    }
}
