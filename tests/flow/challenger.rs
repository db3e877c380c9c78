//! The challenger: its scores in predictions and labelled examples, its swaps, and models that cannot be it.

use foretell::{
    events::{
        challenger::ChallengerScore,
        prediction::Prediction,
        reply::{Predicted, ReplyResult},
    },
    processors::{
        contract::ContractPolicy,
        learning::outputs::records_of,
        model_table::{CHALLENGER, CHAMPION, ModelTableError},
        outcome_join::{ConflictPolicy, LearnFrom, UnlabelledPolicy},
    },
};
use foretell_ml::{Column, ColumnKind, ModelBundle, Origin, Scorer, Scratch, Value};
use foretell_streams::{record::Header, task::Progress};
use serde_json::json;

use crate::{
    fixture::{NOW, classes, first_model, model, model_of, second_model},
    scored::{GRACE, Operation, Scored, Settings, WINDOW, outcome, time_is, visit},
};

/// The score of a [`visit`] by a model.
fn score_of(bundle: &ModelBundle, values: &[Value]) -> Vec<f64> {
    let scorer = Scorer::new(bundle).unwrap();
    scorer.score(values, &mut Scratch::default()).as_slice().to_vec()
}

fn visit_values() -> [Value; 3] {
    [Value::Number(3.0), Value::Text("gold".to_owned()), Value::Number(1.5)]
}

fn probabilities(score: &ChallengerScore) -> Vec<f64> {
    score.probabilities.iter().map(|class| class.probability).collect()
}

/// The versions of the champion and the challenger in a prediction.
fn versions(prediction: &Prediction) -> [Option<&str>; 2] {
    let challenger = prediction.challenger.as_ref();
    [Some(prediction.model_version.as_str()), challenger.map(|score| score.model_version.as_str())]
}

fn third_model() -> ModelBundle {
    model(&classes(&["no", "yes"]), 3, Origin::default())
}

fn version(bundle: &ModelBundle) -> String {
    bundle.version().as_str().to_owned()
}

#[test]
fn predictions_and_examples_have_the_scores_of_both_models() {
    let mut scored = Scored::new(&Settings::default());
    scored.challenge(second_model());
    scored.apply(&visit("ann", 0));
    scored.apply(&outcome("ann", 2, "yes"));
    let predictions = scored.predictions();
    let challenger = predictions[0].challenger.clone().unwrap();
    assert_eq!(challenger.model_version, version(second_model()));
    assert_eq!(probabilities(&challenger), score_of(second_model(), &visit_values()));
    let labels: Vec<_> = challenger.probabilities.iter().map(|class| class.label).collect();
    assert_eq!(labels, ["no", "yes"]);
    let examples = scored.examples();
    assert_eq!(examples[0].challenger.as_ref(), Some(&challenger));
    // Everything else is as without a challenger.
    let mut alone = Scored::new(&Settings::default());
    alone.apply(&visit("ann", 0));
    alone.apply(&outcome("ann", 2, "yes"));
    let without = Prediction { challenger: None, ..predictions[0].clone() };
    assert_eq!(alone.predictions(), [without]);
    assert_eq!(alone.examples()[0].prediction, examples[0].prediction);
    let counted = |version: &str| scored.counter("foretell_predictions_total", Some(version));
    assert_eq!(counted(&version(first_model())), 1);
    assert_eq!(counted(&version(second_model())), 0, "it did not serve");
    let info = |version: &str| scored.gauge("foretell_challenger_info", &[version]);
    assert_eq!((info(&version(second_model())), info(&version(first_model()))), (Some(1.0), None));
}

#[test]
fn challengers_are_announced_swapped_and_cleared_between_two_records() {
    let mut scored = Scored::new(&Settings::default());
    let names = [first_model(), second_model(), &third_model()].map(version);
    let [first, second, third] = names.each_ref().map(|name| Some(name.as_str()));
    scored.apply(&visit("ann", 0));
    scored.challenge(second_model());
    scored.apply(&visit("bob", 1));
    scored.challenge(&third_model());
    scored.apply(&visit("cem", 2));
    scored.clear_challenger();
    scored.apply(&visit("dee", 3));
    // Promoted: its alias is cleared after that, or not at all.
    scored.challenge(second_model());
    scored.serve(second_model());
    scored.apply(&visit("eve", 4));
    scored.clear_challenger();
    scored.apply(&visit("fay", 5));
    // Cleared before it is promoted.
    scored.challenge(&third_model());
    scored.clear_challenger();
    scored.serve(&third_model());
    scored.apply(&visit("gus", 6));
    // The champion before is the challenger of the next.
    scored.challenge(first_model());
    scored.apply(&visit("hal", 7));
    let predictions = scored.predictions();
    let expected = [
        [first, None],
        [first, second],
        [first, third],
        [first, None],
        [second, None],
        [second, None],
        [third, None],
        [third, first],
    ];
    assert_eq!(predictions.iter().map(versions).collect::<Vec<_>>(), expected);
}

#[test]
fn an_example_has_the_challenger_of_its_prediction() {
    let settings = Settings { conflict: ConflictPolicy::Last, ..Settings::default() };
    let mut scored = Scored::new(&settings);
    scored.challenge(second_model());
    scored.apply(&visit("ann", 0));
    scored.apply(&outcome("bob", 1, "no"));
    scored.apply(&visit("bob", 2));
    scored.apply(&Operation::Commit);
    scored.apply(&Operation::Restart);
    let predictions = scored.predictions();
    scored.challenge(&third_model());
    scored.apply(&outcome("ann", 3, "yes"));
    scored.clear_challenger();
    // A correction.
    scored.apply(&outcome("bob", 4, "yes"));
    let examples = scored.examples();
    let labels: Vec<_> = examples.iter().map(|example| example.label.as_str()).collect();
    assert_eq!(labels, ["no", "yes", "yes"]);
    let [ann, bob] = [&predictions[0].challenger, &predictions[1].challenger];
    assert!(ann.as_ref().is_some_and(|score| score.model_version == version(second_model())));
    let challengers: Vec<_> = examples.iter().map(|example| &example.challenger).collect();
    assert_eq!(challengers, [bob, ann, bob]);
    assert!(examples[2].correction);
}

#[test]
fn every_way_to_an_example_keeps_the_challenger() {
    let unlabelled = UnlabelledPolicy::Label("no".to_owned());
    for learn_from in [LearnFrom::First, LearnFrom::Last, LearnFrom::Every] {
        let settings =
            Settings { learn_from, unlabelled: unlabelled.clone(), ..Settings::default() };
        let mut scored = Scored::new(&settings);
        scored.challenge(second_model());
        scored.apply(&visit("ann", 0));
        scored.apply(&visit("ann", 1));
        scored.apply(&outcome("ann", 2, "yes"));
        scored.apply(&visit("bob", 3));
        scored.apply(&time_is(10 + WINDOW + GRACE));
        let examples = scored.examples();
        assert!(examples.iter().any(|example| example.outcome_time.is_none()), "{learn_from:?}");
        for example in examples {
            let challenger = example.challenger.unwrap();
            assert_eq!(probabilities(&challenger), score_of(second_model(), &visit_values()));
        }
    }
}

#[test]
fn a_challenger_has_its_own_columns_and_no_feature_contract() {
    let columns = vec![
        Column::new("minutes", ColumnKind::Numeric),
        Column::new("country", ColumnKind::Categorical),
        Column::new("visits", ColumnKind::Numeric),
    ];
    let challenger = model_of(columns, &classes(&["no", "yes"]), 9, Origin::default());
    let policies = [ContractPolicy::GoOn, ContractPolicy::Refuse, ContractPolicy::HoldBack];
    for policy in policies {
        let mut scored = Scored::new(&Settings { policy, ..Settings::default() });
        scored.challenge(&challenger);
        scored.apply(&Operation::Event(
            "ann",
            0,
            json!({"visits": 3, "plan": "never seen", "minutes": 1.5}),
        ));
        assert_eq!(scored.contract.violations(), [], "its question country is gone: {policy:?}");
        let prediction = scored.predictions().pop().unwrap();
        let values = [Value::Number(1.5), Value::Missing, Value::Number(3.0)];
        let score = prediction.challenger.unwrap();
        assert_eq!(probabilities(&score), score_of(&challenger, &values));
        assert_eq!(scored.counter("foretell_unseen_categories_total", None), 1, "the champion's");
    }
}

#[test]
fn a_model_that_cannot_be_the_challenger_leaves_the_champion_alone() {
    let other_classes = model(&classes(&["no", "maybe", "yes"]), 1, Origin::default());
    let [bundle, alias] = records_of(&third_model(), "test", NOW).unwrap();
    let corrupted = |byte: usize, value: u8| {
        let mut bundle = bundle.clone();
        bundle.bundle.as_mut().unwrap()[byte] = value;
        bundle
    };
    let missing = foretell::events::model::Model { bundle: None, ..bundle.clone() };
    let mut scored = Scored::new(&Settings::default());
    let (mut refused, name) = (0, "foretell_models_refused_total");
    for broken in [missing, corrupted(0, 9), corrupted(20, 0)] {
        scored.challenge(second_model());
        scored.table.apply(&broken).unwrap();
        let alias =
            foretell::events::model::Model { alias: Some(CHALLENGER.to_owned()), ..alias.clone() };
        scored.table.apply(&alias).unwrap_err();
        refused += 1;
        assert_eq!(scored.counter(name, Some(CHALLENGER)), refused);
        scored.apply(&visit("ann", 10 * i64::try_from(refused).unwrap()));
        let prediction = scored.predictions().pop().unwrap();
        assert_eq!(versions(&prediction), [Some(version(first_model()).as_str()), None]);
    }
    scored.challenge(second_model());
    let error = scored.announce(&other_classes, CHALLENGER).unwrap_err();
    assert!(matches!(error, ModelTableError::OtherClasses { .. }), "{error}");
    scored.apply(&visit("bob", 0));
    assert_eq!(scored.predictions()[0].challenger, None);
    assert_eq!(scored.table.refused(), None);
    assert_eq!(scored.counter(name, Some(CHAMPION)), 0);
}

#[test]
fn a_challenger_alone_scores_nothing() {
    let mut scored = Scored::without_model(&Settings::default());
    scored.challenge(second_model());
    scored.apply(&visit("ann", 0));
    assert!(scored.predictions().is_empty());
    scored.serve(first_model());
    assert_eq!(scored.driver.process().unwrap(), Progress::Idle);
    let names = [first_model(), second_model()].map(version);
    let expected = names.each_ref().map(|name| Some(name.as_str()));
    assert_eq!(versions(&scored.predictions()[0]), expected);
}

#[test]
fn a_reply_has_the_prediction_of_its_topic() {
    let mut scored = Scored::new(&Settings::default());
    scored.challenge(second_model());
    let header = |value: &str| Header {
        name: foretell::events::reply::REQUEST_HEADER.to_owned(),
        value: value.as_bytes().to_vec(),
    };
    let fields = json!({"id": "e", "visits": 3, "plan": "gold", "minutes": 1.5});
    for request in ["first", "again"] {
        scored.event_with_headers("ann", 0, &fields, vec![header(request)]);
    }
    let replies = scored.replies();
    let prediction = scored.predictions().pop().unwrap();
    assert!(prediction.challenger.is_some());
    let predicted = Predicted { prediction, actions: Vec::new() };
    assert_eq!(replies[0].result, ReplyResult::Predicted(predicted.clone()));
    assert_eq!(replies[1].result, ReplyResult::Duplicate(Some(predicted)), "from the store");
}
