//! The schemas in `schemas/`, against what the program writes and reads: every field is described,
//! every answer can be left out, and the bytes on the wire do not change without somebody meaning it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, fmt, fs, sync::Arc};

use foretell::{
    avro::{
        codec::{AvroCodec, AvroRecord},
        local::LocalRegistry,
        registry::SchemaRegistry,
    },
    events::{
        labelled_example::{ExampleOrigin, ExamplePrediction, LabelledExample},
        model::Model,
        outcome::Outcome,
        prediction::{ClassProbability, Feature, FeatureValue, Prediction},
        questionnaire::{
            Answer, MetadataFields, QuestionKind, QuestionnaireCodec, QuestionnaireEvent,
            QuestionnaireSchema,
        },
        trial::{Trial, TrialParameter},
    },
    streams::{
        codec::{Codec, Stored},
        time::{EventTime, WallTime},
    },
};
use serde_json::Value;

fn schemas() -> BTreeMap<String, String> {
    let entries = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas")).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|kind| kind == "avsc"));
    files
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn there_is_a_schema_for_each_kind_of_record() {
    let names: Vec<_> = schemas().into_keys().collect();
    let expected =
        ["labelled-example", "model", "outcome", "prediction", "questionnaire-event", "trial"];
    assert_eq!(names, expected);
}

#[test]
fn every_schema_is_valid_and_can_follow_itself() {
    for (name, text) in schemas() {
        let registry = LocalRegistry::new();
        assert_eq!(registry.register(&name, &text), Ok(1), "{name}");
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["namespace"], "foretell", "{name}");
    }
}

#[test]
fn every_record_and_field_is_described() {
    for (name, text) in schemas() {
        let mut missing = Vec::new();
        find_undescribed(&serde_json::from_str(&text).unwrap(), &name, &mut missing);
        assert!(missing.is_empty(), "without doc: {missing:?}");
    }
}

fn find_undescribed(schema: &Value, place: &str, missing: &mut Vec<String>) {
    match schema {
        Value::Array(branches) => {
            for branch in branches {
                find_undescribed(branch, place, missing);
            }
        }
        Value::Object(object) => {
            let described =
                |value: &Value| value["doc"].as_str().is_some_and(|doc| !doc.is_empty());
            if object.contains_key("name") && !described(schema) {
                missing.push(place.to_owned());
            }
            for field in object.get("fields").and_then(Value::as_array).into_iter().flatten() {
                let place = format!("{place}.{}", field["name"].as_str().unwrap());
                if !described(field) {
                    missing.push(place.clone());
                }
                find_undescribed(&field["type"], &place, missing);
            }
            for inner in ["items", "values"] {
                find_undescribed(&object.get(inner).cloned().unwrap_or_default(), place, missing);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

#[test]
fn what_may_be_null_is_null_by_default() {
    for (name, text) in schemas() {
        let schema: Value = serde_json::from_str(&text).unwrap();
        for field in schema["fields"].as_array().unwrap() {
            let Some(branches) = field["type"].as_array() else { continue };
            assert_eq!(branches[0], "null", "{name}: {field}");
            assert_eq!(field.get("default"), Some(&Value::Null), "{name}: {field}");
        }
    }
}

/// `value` is written as `golden`, twice the same, and comes back; also from a local store.
fn check<T>(value: &T, golden: &str)
where
    T: AvroRecord + Clone + PartialEq + fmt::Debug,
{
    let registry = Arc::new(LocalRegistry::new());
    registry.register("s", T::SCHEMA).unwrap();
    let codec = AvroCodec::<T>::new(registry, "s").unwrap();
    let (mut bytes, mut again) = (Vec::new(), Vec::new());
    codec.encode(value, &mut bytes).unwrap();
    codec.encode(&value.clone(), &mut again).unwrap();
    assert_eq!(bytes, again, "the same value has the same bytes");
    assert_eq!(hex(&bytes), golden.replace([' ', '\n'], ""), "{value:?}");
    assert_eq!(codec.decode(&bytes).as_ref(), Ok(value));

    let stored = Stored::version(1);
    let mut bytes = Vec::new();
    stored.encode(value, &mut bytes).unwrap();
    assert_eq!(stored.decode(&bytes).as_ref(), Ok(value), "from a store");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn features() -> Vec<Feature> {
    let feature = |name: &str, value| Feature { name: text(name), value };
    vec![
        feature("z", FeatureValue::Number(39.0)),
        feature("a", FeatureValue::Text(text("w"))),
        feature("m", FeatureValue::Missing),
    ]
}

fn probabilities() -> Vec<ClassProbability> {
    let class = |label: &str, probability| ClassProbability { label: text(label), probability };
    vec![class("no", 0.25), class("yes", 0.75)]
}

#[test]
fn outcomes() {
    let mut outcome = Outcome {
        respondent_id: text("r"),
        outcome_time: EventTime(1),
        label: text("yes"),
        outcome_id: None,
    };
    check(&outcome, "00 00000001 0272 02 06796573 00");
    outcome.outcome_id = Some(text("o"));
    check(&outcome, "00 00000001 0272 02 06796573 02026f");
}

#[test]
fn predictions() {
    let prediction = Prediction {
        prediction_id: text("p"),
        respondent_id: text("r"),
        event_id: text("e"),
        event_time: EventTime(1),
        received_at: WallTime(2),
        predicted_at: WallTime(3),
        model_version: text("v"),
        label: text("yes"),
        probabilities: probabilities(),
        features: features(),
    };
    let golden = "00 00000001 0270 0272 0265 02 04 06 0276 06796573
        04 046e6f 000000000000d03f 06796573 000000000000e83f 00
        06 027a 02 0000000000804340 0261 04 0277 026d 00 00";
    check(&prediction, golden);
}

#[test]
fn labelled_examples() {
    let mut example = LabelledExample {
        example_id: text("initial-1"),
        respondent_id: text("r"),
        origin: ExampleOrigin::Initial,
        event_time: EventTime(1),
        outcome_time: None,
        label: text("yes"),
        features: features(),
        prediction: None,
        correction: false,
    };
    let golden = "00 00000001 12696e697469616c2d31 0272 00 02 00 06796573
        06 027a 02 0000000000804340 0261 04 0277 026d 00 00 00 00";
    check(&example, golden);
    example.origin = ExampleOrigin::Stream;
    example.outcome_time = Some(EventTime(2));
    example.features.clear();
    example.prediction = Some(ExamplePrediction {
        prediction_id: text("p"),
        model_version: text("v"),
        predicted_at: WallTime(3),
        probabilities: probabilities(),
    });
    example.correction = true;
    let golden = "00 00000001 12696e697469616c2d31 0272 02 02 02 04 06796573 00
        02 0270 0276 06 04 046e6f 000000000000d03f 06796573 000000000000e83f 00 01";
    check(&example, golden);
}

#[test]
fn models() {
    let mut model = Model {
        version: text("v"),
        alias: None,
        bundle: Some(vec![0xff, 0]),
        training: 3,
        created_at: WallTime(4),
        parent: Some(text("u")),
        trigger: Some(text("labels")),
        example_count: Some(1),
        first_offset: Some(0),
        end_offset: Some(2),
        seed: Some(-1),
        metrics: BTreeMap::from([(text("log_loss"), 0.25), (text("auc"), 0.75)]),
    };
    let golden =
        "00 00000001 0276 00 02 04 ff00 06 08 02 0275 02 0c6c6162656c73 0202 0200 0204 0201
        04 06617563 000000000000e83f 106c6f675f6c6f7373 000000000000d03f 00";
    check(&model, golden);
    model = Model {
        version: text("v"),
        alias: Some(text("champion")),
        bundle: None,
        training: 0,
        created_at: WallTime(4),
        parent: None,
        trigger: None,
        example_count: None,
        first_offset: None,
        end_offset: None,
        seed: None,
        metrics: BTreeMap::new(),
    };
    check(&model, "00 00000001 0276 02 106368616d70696f6e 00 00 08 00 00 00 00 00 00 00");
}

#[test]
fn trials() {
    let parameter = |name: &str, value| TrialParameter { name: text(name), value };
    let trial = Trial {
        study: text("s"),
        number: 1,
        parameters: vec![parameter("num_leaves", 31.0), parameter("lambda_l1", 0.25)],
        log_loss: 0.25,
        auc: Some(0.75),
        iterations: 100,
        pruned: false,
        created_at: WallTime(4),
    };
    let golden = "00 00000001 0273 02
        04 146e756d5f6c6561766573 0000000000003f40 126c616d6264615f6c31 000000000000d03f 00
        000000000000d03f 02 000000000000e83f c801 00 08";
    check(&trial, golden);
}

fn example_schema() -> QuestionnaireSchema {
    let fields = MetadataFields {
        event_id: Some(text("event_id")),
        respondent_id: text("respondent_id"),
        event_time: text("event_time"),
        completed: Some(text("completed")),
    };
    QuestionnaireSchema::new(&schemas()["questionnaire-event"], &fields, &[]).unwrap()
}

#[test]
fn the_worked_example_has_thirteen_questions() {
    let schema = example_schema();
    let numbers =
        schema.questions().iter().filter(|question| question.kind == QuestionKind::Number);
    let numbers: Vec<_> = numbers.map(|question| question.name.as_str()).collect();
    assert_eq!(numbers, ["age", "fnlwgt", "capital_gain", "capital_loss", "hours_per_week"]);
    assert_eq!(schema.questions().len(), 13);
}

#[test]
fn questionnaire_events() {
    let schema = Arc::new(example_schema());
    let registry = Arc::new(LocalRegistry::new());
    registry.register("s", schema.text()).unwrap();
    let codec = QuestionnaireCodec::new(registry, "s", Arc::clone(&schema)).unwrap();
    let mut event = QuestionnaireEvent {
        event_id: text("e"),
        respondent_id: text("r"),
        event_time: EventTime(1),
        completed: true,
        answers: vec![None; 13],
    };
    event.answers[0] = Some(Answer::Number(39.0));
    event.answers[1] = Some(Answer::Text(text("State-gov")));
    let (mut bytes, mut again) = (Vec::new(), Vec::new());
    codec.encode(&event, &mut bytes).unwrap();
    codec.encode(&event, &mut again).unwrap();
    assert_eq!(bytes, again);
    let golden = "00 00000001 0265 0272 02 01 024e 021253746174652d676f76 0000000000000000000000";
    assert_eq!(hex(&bytes), golden.replace(' ', ""));
    assert_eq!(codec.decode(&bytes), Ok(event));
}
