//! Predictions across event schemas: records of the first version, with names and values, and records of other configurations.

use std::sync::Arc;

use foretell::events::{
    answered::{AnsweredCodec, AnsweredRecord as _, ClassProbabilities},
    prediction::{Prediction, ScoreTrigger},
    questionnaire::{Answer, AnswerRef, AnswerRow, MetadataFields, QuestionnaireSchema},
};
use foretell_avro::{
    evolution::Level,
    framing,
    local::LocalRegistry,
    registry::SchemaRegistry,
    wire::{write_blob, write_count, write_long},
};
use foretell_streams::{
    codec::Codec as _,
    time::{EventTime, WallTime},
};

use crate::history;

const SUBJECT: &str = "predictions-value";

fn events(questions: &str) -> Arc<QuestionnaireSchema> {
    let text = format!(
        r#"{{"type":"record","name":"Event","namespace":"foretell","fields":[
        {{"name":"who","type":"string"}},{{"name":"at","type":"long"}},{questions}]}}"#
    );
    let fields = MetadataFields {
        event_id: None,
        respondent_id: "who".to_owned(),
        event_time: "at".to_owned(),
        completed: None,
    };
    Arc::new(QuestionnaireSchema::new(&text, &fields, &[]).unwrap())
}

/// A registry of predictions with the first version (id 1), under the level that `init` sets.
fn registry() -> Arc<LocalRegistry> {
    let registry = Arc::new(LocalRegistry::new());
    registry.set_level(SUBJECT, Level::FullTransitive).unwrap();
    registry.register(SUBJECT, &history("prediction").versions[0].text).unwrap();
    registry
}

fn codec(
    registry: &Arc<LocalRegistry>,
    events: &Arc<QuestionnaireSchema>,
) -> AnsweredCodec<Prediction> {
    registry.register(SUBJECT, &events.fill_answers(Prediction::TEMPLATE)).unwrap();
    let registry = Arc::<LocalRegistry>::clone(registry);
    AnsweredCodec::new(registry, SUBJECT, Arc::clone(events)).unwrap()
}

fn prediction(answers: AnswerRow) -> Prediction {
    Prediction {
        prediction_id: "p".to_owned(),
        respondent_id: "r".to_owned(),
        event_id: "e".to_owned(),
        event_time: EventTime(1),
        received_at: WallTime(2),
        predicted_at: WallTime(3),
        model_version: "m".to_owned(),
        label: "yes".to_owned(),
        probabilities: ClassProbabilities::from_iter([]),
        challenger: None,
        trigger: ScoreTrigger::Complete,
        answers,
    }
}

enum Value {
    Null,
    Double(f64),
    Text(&'static str),
}

/// A record of the first version.
fn first_version(features: &[(&str, Value)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    framing::frame(1, &mut bytes);
    ["p", "r", "e"].iter().for_each(|text| write_blob(text.as_bytes(), &mut bytes));
    (1..=3).for_each(|time| write_long(time, &mut bytes));
    ["m", "yes"].iter().for_each(|text| write_blob(text.as_bytes(), &mut bytes));
    write_count(0, &mut bytes);
    if !features.is_empty() {
        write_count(features.len(), &mut bytes);
    }
    for (name, value) in features {
        write_blob(name.as_bytes(), &mut bytes);
        match value {
            Value::Null => write_long(0, &mut bytes),
            Value::Double(number) => {
                write_long(1, &mut bytes);
                bytes.extend(number.to_le_bytes());
            }
            Value::Text(text) => {
                write_long(2, &mut bytes);
                write_blob(text.as_bytes(), &mut bytes);
            }
        }
    }
    write_count(0, &mut bytes);
    bytes
}

fn read(codec: &AnsweredCodec<Prediction>, bytes: &[u8]) -> Vec<Option<Answer>> {
    let read: Prediction = codec.decode(bytes).unwrap();
    let layout = codec.events().layout();
    layout.answers(&read.answers).map(AnswerRef::to_answer).collect()
}

fn text(text: &str) -> Option<Answer> {
    Some(Answer::Text(text.to_owned()))
}

#[test]
fn names_and_values_become_answers_to_the_present_questions() {
    let check = |questions: &str, features: &[(&str, Value)], expected: &[Option<Answer>]| {
        let codec = codec(&registry(), &events(questions));
        assert_eq!(read(&codec, &first_version(features)), expected, "{questions}");
    };
    let job = r#"{"name":"job","aliases":["work"],"type":["null","string"],"default":null}"#;
    check(job, &[("job", Value::Text("x"))], &[text("x")]);
    check(job, &[("work", Value::Text("x"))], &[text("x")]);
    check(job, &[("gone", Value::Double(1.0))], &[None]);
    check(job, &[("job", Value::Null)], &[None]);
    check(job, &[], &[None]);
    // A kind that has changed since.
    check(job, &[("job", Value::Double(7.5))], &[text("7.5")]);
    let age = r#"{"name":"age","type":"int"}"#;
    check(age, &[("age", Value::Double(39.0))], &[Some(Answer::Number(39.0))]);
    check(age, &[("age", Value::Double(39.5))], &[None]);
    check(age, &[("age", Value::Text("39"))], &[Some(Answer::Number(39.0))]);
    check(age, &[("age", Value::Text("old"))], &[None]);
    check(r#"{"name":"is","type":"boolean"}"#, &[("is", Value::Text("true"))], &[text("true")]);
    check(r#"{"name":"is","type":"boolean"}"#, &[("is", Value::Double(1.0))], &[None]);
}

#[test]
fn records_of_other_configurations_are_read_by_name() {
    let registry = registry();
    let old = events(r#"{"name":"age","type":"int"},{"name":"job","type":"string"}"#);
    let new = events(
        r#"{"name":"device","type":["null","string"],"default":null},
           {"name":"work","aliases":["job"],"type":"string"},{"name":"age","type":["null","long"]}"#,
    );
    let (old_codec, new_codec) = (codec(&registry, &old), codec(&registry, &new));
    let age = Some(Answer::Number(39.0));
    let mut bytes = Vec::new();
    let answers = old.layout().row_of(&[age.clone(), text("x")]);
    old_codec.encode(&prediction(answers), &mut bytes).unwrap();
    assert_eq!(read(&new_codec, &bytes), [None, text("x"), age.clone()]);
    bytes.clear();
    let answers = new.layout().row_of(&[text("phone"), text("x"), age.clone()]);
    new_codec.encode(&prediction(answers), &mut bytes).unwrap();
    assert_eq!(read(&old_codec, &bytes), [age, None]);
}

#[test]
fn questions_may_have_any_name_and_be_many() {
    let names = ["answers", "features", "label", "null", "type", "record", "class", "select", "_0"];
    let fields = names.iter().map(|name| format!(r#"{{"name":"{name}","type":"string"}}"#));
    let schema = events(&fields.collect::<Vec<_>>().join(","));
    let answers: Vec<Option<Answer>> = names.iter().map(|name| text(name)).collect();
    let check = |schema: &Arc<QuestionnaireSchema>, answers: &[Option<Answer>]| {
        let codec = codec(&registry(), schema);
        let mut bytes = Vec::new();
        codec.encode(&prediction(schema.layout().row_of(answers)), &mut bytes).unwrap();
        assert_eq!(read(&codec, &bytes), answers);
    };
    check(&schema, &answers);
    let kinds = [r#""long""#, r#""double""#, r#""string""#, r#""boolean""#];
    let fields = (0..300).map(|number| {
        format!(r#"{{"name":"q{number}","type":["null",{}],"default":null}}"#, kinds[number % 4])
    });
    let many = events(&fields.collect::<Vec<_>>().join(","));
    let answers = (0..300_u32).map(|number| match number % 8 {
        0 | 1 => Some(Answer::Number(f64::from(number))),
        2 => text(&number.to_string()),
        3 => text("true"),
        _ => None,
    });
    check(&many, &answers.collect::<Vec<_>>());
}
