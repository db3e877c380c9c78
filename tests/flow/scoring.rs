//! The content of predictions, and the model that makes them.

use foretell::events::{
    labelled_example::LabelledExample, prediction::Prediction, questionnaire::Answer,
};
use foretell_ml::{Origin, Scorer, Scratch, Value};
use foretell_streams::{codec::Codec as _, task::Progress, time::EventTime};
use serde_json::{Value as Json, json};

use crate::{
    fixture::{EPOCH_MS, NOW, classes, first_model, model, second_model},
    scored::{Operation, Scored, Settings, check, outcome, visit},
};

fn predict(scored: &mut Scored, fields: Json) -> Prediction {
    scored.apply(&Operation::Event("ann", 7, fields));
    scored.predictions().pop().unwrap()
}

#[test]
fn a_prediction_has_its_respondent_times_features_and_model() {
    let mut scored = Scored::new(&Settings::default());
    scored.apply(&visit("bob", 0));
    scored.predictions();
    let fields = json!({"id": "e-1", "visits": 12, "plan": "gold", "done": true});
    let prediction = predict(&mut scored, fields);
    assert_eq!(prediction.prediction_id.len(), 32, "a hash of the event's identity");
    assert_eq!(prediction.respondent_id, "ann");
    assert_eq!(prediction.event_id, "e-1");
    assert_eq!(prediction.event_time, EventTime(EPOCH_MS + 7_000));
    assert_eq!(prediction.received_at.0, NOW.0 - 5);
    assert_eq!(prediction.predicted_at, NOW);
    assert_eq!(prediction.model_version, first_model().version().as_str());
    let expected = [
        ("visits", Some(Answer::Number(12.0))),
        ("plan", Some(Answer::Text("gold".to_owned()))),
        ("minutes", None),
    ];
    assert_eq!(scored.fixture.named_answers(&prediction.answers), expected);
    // The probabilities are those of the model.
    let values = [Value::Number(12.0), Value::Text("gold".to_owned()), Value::Missing];
    let scorer = Scorer::new(first_model()).unwrap();
    let by_hand = scorer.score(&values, &mut Scratch::default());
    let said: Vec<f64> = prediction.probabilities.iter().map(|one| one.probability).collect();
    assert_eq!(said, by_hand.as_slice());
    let labels: Vec<_> = prediction.probabilities.iter().map(|one| one.label).collect();
    assert_eq!(labels, ["no", "yes"]);
    assert_eq!(prediction.label, "yes");
    let low = predict(&mut scored, json!({"visits": 1, "plan": "free", "done": true}));
    assert_eq!(low.label, "no");
    assert_eq!(
        low.event_id, low.prediction_id,
        "an event without a name is named for its identity"
    );
    assert_ne!(low.prediction_id, prediction.prediction_id);
}

#[test]
fn several_classes_are_distinguished() {
    let names = classes(&["ignored", "liked", "bought"]);
    let settings = Settings { classes: names.clone(), ..Settings::default() };
    let mut scored = Scored::without_model(&settings);
    scored.serve(&model(&names, 1, Origin::default()));
    for (visits, plan, expected) in
        [(1, "free", "ignored"), (16, "team", "liked"), (16, "gold", "bought")]
    {
        let fields = json!({"visits": visits, "plan": plan, "done": true});
        let prediction = predict(&mut scored, fields);
        let said = &prediction.probabilities;
        assert_eq!(
            said.iter().map(|one| one.label).collect::<Vec<_>>(),
            names.iter().collect::<Vec<_>>()
        );
        let sum: f64 = said.iter().map(|one| one.probability).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        assert_eq!(prediction.label, expected, "{said:?}");
    }
    scored.apply(&outcome("ann", 9, "liked"));
    assert_eq!(scored.outputs(), ["learned ann@7 liked after 2 s 1 free -"]);
}

#[test]
fn unseen_categories_and_out_of_range_values_are_scored_and_counted() {
    let counted = |fields: Json| {
        let mut scored = Scored::new(&Settings::default());
        let prediction = predict(&mut scored, fields);
        let sum: f64 = prediction.probabilities.iter().map(|one| one.probability).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{prediction:?}");
        let unseen = scored.counter("foretell_unseen_categories_total", None);
        (unseen, scored.counter("foretell_out_of_range_total", None))
    };
    assert_eq!(counted(json!({"visits": 5, "plan": "gold", "minutes": 9})), (0, 0));
    assert_eq!(counted(json!({"done": true})), (0, 0));
    assert_eq!(counted(json!({"plan": "platinum", "done": true})), (1, 0));
    assert_eq!(counted(json!({"visits": 1_000_000, "minutes": -1e300, "done": true})), (0, 2));
    assert_eq!(counted(json!({"visits": -1, "plan": " ", "done": true})), (0, 1));
}

#[test]
fn blanks_and_white_space_are_read_in_events_as_in_tables() {
    let answer = |plan: Json| {
        let mut scored = Scored::new(&Settings::default());
        let event = json!({"visits": 5, "plan": plan, "minutes": 9, "done": true});
        let prediction = predict(&mut scored, event);
        (prediction.probabilities, prediction.answers)
    };
    assert_eq!(answer(json!("")), answer(Json::Null));
    assert_eq!(answer(json!(" gold\t")), answer(json!("gold")));
    assert_ne!(answer(json!("gold")), answer(Json::Null));
}

#[test]
fn a_model_is_swapped_between_two_records() {
    let (first, second) = (first_model().version(), second_model().version());
    assert_ne!(first, second);
    let mut scored = Scored::new(&Settings::default());
    scored.apply(&visit("ann", 0));
    scored.serve(second_model());
    scored.apply(&visit("bob", 1));
    scored.apply(&outcome("ann", 2, "yes"));
    let predictions = scored.predictions();
    let versions: Vec<_> = predictions.iter().map(|one| one.model_version.as_str()).collect();
    assert_eq!(versions, [first.as_str(), second.as_str()]);
    assert_ne!(predictions[0].probabilities, predictions[1].probabilities);
    let by = |version: &str| scored.counter("foretell_predictions_total", Some(version));
    assert_eq!((by(first.as_str()), by(second.as_str())), (1, 1));
    // The example names the model that scored, not the one that serves when the outcome arrives.
    let examples = scored.driver.read(&scored.fixture.topics.labelled_examples);
    let codec = &scored.fixture.codecs.labelled_example;
    let example: LabelledExample = codec.decode(examples[0].value.as_deref().unwrap()).unwrap();
    let prediction = example.prediction.unwrap();
    assert_eq!(prediction.model_version, first.as_str());
    assert_eq!(prediction.probabilities, predictions[0].probabilities);
    assert_eq!(example.answers, predictions[0].answers);
    // A rollback: the alias moves to a bundle that is in memory.
    scored.serve(first_model());
    scored.apply(&visit("cid", 3));
    assert_eq!(scored.predictions()[0].model_version, first.as_str());
}

#[test]
fn without_a_model_events_wait() {
    let mut scored = Scored::without_model(&Settings::default());
    scored.apply(&visit("ann", 0));
    scored.apply(&visit("bob", 1));
    assert!(scored.predictions().is_empty());
    assert_eq!(scored.driver.task().buffered(), 2);
    scored.serve(first_model());
    assert_eq!(scored.driver.process().unwrap(), Progress::Idle);
    let who: Vec<_> = scored.predictions().into_iter().map(|one| one.respondent_id).collect();
    assert_eq!(who, ["ann", "bob"]);
}

#[test]
fn records_are_keyed_by_the_respondent() {
    let mut scored = check(&Settings::default(), &[], &[]);
    scored.apply(&visit("ann", 0));
    scored.apply(&outcome("ann", 5, "yes"));
    scored.driver.commit();
    for record in scored.driver.read_all() {
        assert_eq!(record.key.as_deref(), Some(&b"ann"[..]), "{}", record.topic);
        assert_eq!(record.timestamp, EventTime(NOW.0), "{}: it is kept from then on", record.topic);
    }
}
