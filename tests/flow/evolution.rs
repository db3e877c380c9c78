//! Schema evolution: events, instances and models of two versions of the event schema at the same time.

use foretell::{
    events::{
        action::ExampleActions,
        labelled_example::{ExampleOrigin, LabelledExample},
        prediction::Prediction,
        questionnaire::{Answer, AnswerRow},
    },
    processors::{
        contract::{ContractPolicy, Problem, Violation},
        convert,
        outcome_join::ConflictPolicy,
    },
};
use foretell_ml::{ColumnKind, Origin, Value};
use foretell_streams::{codec::Codec as _, time::EventTime};
use serde_json::{Value as Json, json};

use crate::{
    fixture::{EPOCH_MS, Fixture, SCHEMA, classes, model_of, model_rarely_given},
    scored::{CONTRACT_WINDOW, Operation, Scored, Settings, encoded, header, outcome, visit},
};

/// A version in which `plan` is renamed to `tariff`, and `device` is new.
fn renamed() -> String {
    let added = r#"{"name": "device", "type": ["null", "string"], "default": null}"#;
    let schema = SCHEMA.replace(r#""name": "plan""#, r#""name": "tariff", "aliases": ["plan"]"#);
    schema.replace("\n  ]}", &format!(",\n    {added}\n  ]}}"))
}

/// A version without `minutes`.
fn without_minutes() -> String {
    let field = r#",
    {"name": "minutes", "type": ["null", "double"], "default": null}"#;
    assert!(SCHEMA.contains(field));
    SCHEMA.replace(field, "")
}

fn event(fixture: &Fixture, who: &str, at: i64, fields: Json) -> Operation {
    let mut fields = fields;
    fields["who"] = json!(who);
    let at = EventTime(EPOCH_MS + at * 1_000);
    let event = fixture.schema.from_json(&fields, "", at).unwrap();
    let mut bytes = Vec::new();
    fixture.codecs.questionnaire.encode(&event, &mut bytes).unwrap();
    Operation::Raw(fixture.topics.questionnaire_events.clone(), "key", Some(bytes))
}

fn said<'s>(scored: &'s Scored, prediction: &Prediction) -> Vec<(&'s str, Option<Answer>)> {
    scored.fixture.named_answers(&prediction.answers)
}

fn text(text: &str) -> Option<Answer> {
    Some(Answer::Text(text.to_owned()))
}

fn only(scored: &mut Scored) -> Prediction {
    let mut predictions = scored.predictions();
    assert_eq!(predictions.len(), 1);
    predictions.remove(0)
}

#[test]
fn events_of_both_versions_are_scored_alike_by_instances_of_both() {
    let settings = Settings::default();
    let mut scored = Scored::new(&settings);
    let old = scored.fixture.evolved(SCHEMA);
    let new = scored.fixture.evolved(&renamed());
    let whole = json!({"visits": 3, "plan": "gold", "minutes": 1.5, "done": true});
    let mut evolved = whole.clone();
    evolved["tariff"] = evolved["plan"].take();
    evolved.as_object_mut().unwrap().remove("plan");
    evolved["device"] = json!("phone");

    scored.apply(&event(&old, "ann", 1, whole.clone()));
    let expected = only(&mut scored).probabilities;
    // An old instance reads a new event. It does not know the new name, which the contract reports.
    scored.apply(&event(&new, "bob", 2, evolved.clone()));
    let blind = only(&mut scored);
    assert_eq!(said(&scored, &blind)[1], ("plan", None));

    scored.evolve(&settings, &renamed());
    for (who, sent) in
        [("cem", event(&old, "cem", 3, whole)), ("dee", event(&new, "dee", 4, evolved))]
    {
        scored.apply(&sent);
        let prediction = only(&mut scored);
        assert_eq!(prediction.probabilities, expected, "{who}: the model knows it as plan");
        let names: Vec<&str> = said(&scored, &prediction).iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["visits", "tariff", "minutes", "device"], "{who}");
        let is_given = said(&scored, &prediction)[3].1 == text("phone");
        assert_eq!(is_given, who == "dee", "what the model ignores is kept for the next training");
    }
    assert!(scored.contract.violations().is_empty(), "nothing that the model uses is gone");
}

#[test]
fn an_observation_survives_an_upgrade_in_both_directions() {
    let settings = Settings::default();
    let mut scored = Scored::new(&settings);
    scored.apply(&Operation::Event("ann", 1, json!({"plan": "gold"})));
    scored.evolve(&settings, &renamed());
    scored.apply(&Operation::Event("ann", 2, json!({"device": "phone"})));
    // Back to an instance whose schema has neither the new name nor the new question: it keeps both answers.
    scored.evolve(&settings, SCHEMA);
    scored.apply(&Operation::Event("ann", 3, json!({"visits": 7})));
    assert!(scored.predictions().is_empty());
    scored.evolve(&settings, &renamed());
    scored.apply(&Operation::Event("ann", 4, json!({"minutes": 2.0})));
    let prediction = only(&mut scored);
    let expected = [
        ("visits", Some(Answer::Number(7.0))),
        ("tariff", text("gold")),
        ("minutes", Some(Answer::Number(2.0))),
        ("device", text("phone")),
    ];
    assert_eq!(said(&scored, &prediction), expected);
}

#[test]
fn of_two_answers_under_an_old_and_a_new_name_the_later_one_counts() {
    let settings = Settings::default();
    let mut scored = Scored::new(&settings);
    scored.apply(&Operation::Event("ann", 5, json!({"plan": "gold"})));
    scored.evolve(&settings, &renamed());
    scored.apply(&Operation::Event("ann", 3, json!({"tariff": "free"})));
    scored.apply(&Operation::Event("ann", 6, json!({"done": true})));
    let prediction = only(&mut scored);
    assert_eq!(said(&scored, &prediction)[1], ("tariff", text("gold")));
}

#[test]
fn a_prediction_that_waits_for_its_outcome_survives_an_upgrade_in_both_directions() {
    let settings = Settings::default();
    let mut scored = Scored::new(&settings);
    scored.apply(&visit("ann", 1));
    scored.evolve(&settings, &renamed());
    scored.apply(&outcome("ann", 2, "yes"));
    scored.apply(&event(&scored.fixture.evolved(&renamed()), "bob", 3, whole_visit()));
    scored.evolve(&settings, SCHEMA);
    scored.apply(&outcome("bob", 4, "no"));
    scored.evolve(&settings, &without_minutes());
    let without = json!({"visits": 3, "plan": "gold", "done": true});
    scored.apply(&Operation::Event("cem", 5, without));
    scored.evolve(&settings, &renamed());
    scored.apply(&outcome("cem", 6, "no"));
    let mut learned = scored.outputs();
    learned.retain(|line| line.starts_with("learned"));
    // All are read by the newest schema: visits, tariff, minutes and device.
    let expected = [
        "learned ann@1 yes after 1 s 3 gold 1.5 -",
        // The instance in between does not know the new name, and had not read the device.
        "learned bob@3 no after 1 s 3 - 1.5 -",
        "learned cem@5 no after 1 s 3 gold - -",
    ];
    assert_eq!(learned, expected);
}

fn whole_visit() -> Json {
    json!({"visits": 3, "tariff": "gold", "minutes": 1.5, "device": "phone", "done": true})
}

/// An outcome is learned from once; its prediction is not kept for corrections that the settings do not allow.
#[test]
fn a_correction_needs_a_prediction_that_was_stored_for_corrections() {
    let (first, last) =
        (Settings::default(), Settings { conflict: ConflictPolicy::Last, ..Settings::default() });
    let mut scored = Scored::new(&first);
    scored.apply(&visit("ann", 1));
    scored.apply(&outcome("ann", 2, "yes"));
    scored.evolve(&last, SCHEMA);
    scored.apply(&outcome("ann", 3, "no"));
    scored.apply(&visit("bob", 4));
    scored.apply(&outcome("bob", 5, "yes"));
    scored.apply(&outcome("bob", 6, "no"));
    let mut lines = scored.outputs();
    lines.retain(|line| !line.starts_with("scored"));
    let expected = [
        "learned ann@1 yes after 1 s 3 gold 1.5",
        "learned bob@4 yes after 1 s 3 gold 1.5",
        "corrected bob@4 no after 2 s 3 gold 1.5",
    ];
    assert_eq!(lines, expected);
    assert_eq!(scored.counter("foretell_outcomes_total", Some("conflicting")), 1);
}

#[test]
fn a_model_of_the_new_names_serves_on_an_old_instance() {
    let mut scored = Scored::new(&Settings::default());
    scored.apply(&visit("ann", 1));
    let expected = only(&mut scored).probabilities;
    let mut columns = scored.fixture.evolved(&renamed()).columns();
    columns.pop();
    let newer = model_of(columns, &classes(&["no", "yes"]), 1, Origin::default());
    scored.serve(&newer);
    scored.apply(&visit("bob", 2));
    assert_eq!(only(&mut scored).probabilities, expected, "its tariff is their plan");
    assert!(scored.contract.violations().is_empty());
}

#[test]
fn models_are_trained_on_examples_of_both_versions() {
    let old = Fixture::new();
    let new = old.evolved(&renamed());
    let visits = || Some(Answer::Number(1.0));
    let values = |writer: &Fixture, answers: &[Option<Answer>]| {
        let example = example_of(writer.row(answers));
        let bytes = encoded::<LabelledExample>(writer.codecs.labelled_example.as_ref(), &example);
        let read = new.codecs.labelled_example.decode(&bytes).unwrap();
        let classes = classes(&["yes"]);
        convert::example_of(&read, &new.columns(), &new.schema, &classes).unwrap().values
    };
    let gold = Value::Text("gold".to_owned());
    let of_old = [Value::Number(1.0), gold.clone(), Value::Missing, Value::Missing];
    let of_new = [Value::Number(1.0), gold, Value::Missing, Value::Text("phone".to_owned())];
    assert_eq!(values(&old, &[visits(), text("gold"), None]), of_old);
    assert_eq!(values(&new, &[visits(), text("gold"), None, text("phone")]), of_new);
}

fn example_of(answers: AnswerRow) -> LabelledExample {
    LabelledExample {
        example_id: "e".to_owned(),
        respondent_id: "ann".to_owned(),
        origin: ExampleOrigin::Stream,
        event_time: EventTime(EPOCH_MS),
        outcome_time: None,
        label: "yes".to_owned(),
        prediction: None,
        challenger: None,
        correction: false,
        replaced: None,
        actions: ExampleActions::default(),
        answers,
    }
}

fn violation(feature: &str, problem: Problem) -> Violation {
    Violation { feature: feature.to_owned(), problem }
}

const GAUGE: &str = "foretell_feature_contract_violated";

#[test]
fn a_removed_feature_is_reported_until_a_model_without_it_serves() {
    let settings = Settings::default();
    let mut scored = Scored::new(&settings);
    scored.evolve(&settings, &without_minutes());
    scored.apply(&Operation::Event("ann", 1, json!({"visits": 3, "plan": "gold"})));
    assert_eq!(scored.predictions().len(), 1, "it goes on");
    assert_eq!(scored.contract.violations(), [violation("minutes", Problem::Gone)]);
    assert_eq!(scored.gauge(GAUGE, &["minutes", "gone"]), Some(1.0));
    assert!(!scored.contract.holds_back());

    let mut columns = scored.fixture.columns();
    columns.push(columns[0].clone());
    columns[2].name = "visits_again".to_owned();
    columns[2].aliases = vec!["visits".to_owned()];
    scored.serve(&model_of(columns, &classes(&["no", "yes"]), 5, Origin::default()));
    scored.apply(&Operation::Event("bob", 2, json!({"visits": 3, "plan": "gold"})));
    assert_eq!(scored.predictions().len(), 1);
    assert_eq!(scored.contract.violations(), []);
    assert_eq!(scored.gauge(GAUGE, &["minutes", "gone"]), Some(0.0));
}

#[test]
fn the_violations_that_a_task_reports_are_removed_with_it() {
    let settings = Settings::default();
    let mut scored = Scored::new(&settings);
    scored.evolve(&settings, &without_minutes());
    scored.apply(&Operation::Event("ann", 1, json!({"visits": 3, "plan": "gold"})));
    assert_eq!(scored.contract.violations(), [violation("minutes", Problem::Gone)]);
    // Another task of this instance reports the same violation, and stays.
    let mut other = Scored::sharing(&settings, &scored, &without_minutes());
    other.apply(&Operation::Event("bob", 1, json!({"visits": 3, "plan": "gold"})));
    scored.driver.restart();
    assert_eq!(scored.contract.violations(), [violation("minutes", Problem::Gone)]);
    assert_eq!(scored.gauge(GAUGE, &["minutes", "gone"]), Some(1.0));
    other.driver.restart();
    assert_eq!(scored.contract.violations(), []);
    assert_eq!(scored.gauge(GAUGE, &["minutes", "gone"]), Some(0.0));
}

#[test]
fn a_missing_category_counts_as_missing_like_a_number() {
    let window = usize::try_from(CONTRACT_WINDOW).unwrap();
    for (missing, fields) in [
        ("plan", json!({"visits": 3, "minutes": 2.0, "done": true})),
        ("minutes", json!({"visits": 3, "plan": "gold", "done": true})),
        ("visits", json!({"minutes": 2.0, "plan": "gold", "done": true})),
    ] {
        let mut scored = Scored::new(&Settings::default());
        for at in 1..=i64::try_from(window).unwrap() {
            scored.apply(&Operation::Event("ann", at, fields.clone()));
        }
        assert_eq!(scored.predictions().len(), window);
        assert_eq!(scored.contract.violations(), [violation(missing, Problem::MostlyMissing)]);
    }
}

#[test]
fn a_number_that_became_a_category_is_rejected_with_the_policy_refuse() {
    let settings = Settings { policy: ContractPolicy::Refuse, ..Settings::default() };
    let mut scored = Scored::new(&settings);
    // A model fitted when `visits` was a category and `plan` a number.
    let mut columns = scored.fixture.columns();
    columns[0].kind = ColumnKind::Categorical;
    columns[1].kind = ColumnKind::Numeric;
    columns.swap(0, 1);
    scored.serve(&model_of(columns, &classes(&["no", "yes"]), 6, Origin::default()));
    scored.apply(&visit("ann", 1));
    assert!(scored.predictions().is_empty());
    let letters = scored.driver.read(&scored.fixture.topics.dead_letters);
    assert_eq!(letters.len(), 1);
    assert_eq!(header(&letters[0], "foretell.error.class"), "feature_contract");
    assert!(header(&letters[0], "foretell.error.message").contains("other_kind"), "{letters:?}");
    let expected = [violation("plan", Problem::OtherKind), violation("visits", Problem::OtherKind)];
    assert_eq!(scored.contract.violations(), expected);
}

#[test]
fn a_feature_that_is_mostly_missing_is_reported_until_it_is_given_again() {
    let settings = Settings { policy: ContractPolicy::Refuse, ..Settings::default() };
    let mut scored = Scored::new(&settings);
    let window = i64::try_from(CONTRACT_WINDOW).unwrap();
    let mut at = 0;
    let mut send = |scored: &mut Scored, fields: &Json, count: i64| {
        for _ in 0..count {
            at += 1;
            scored.apply(&Operation::Event("ann", at, fields.clone()));
        }
    };
    let poor = json!({"visits": 3, "plan": "gold", "done": true});
    let whole = json!({"visits": 3, "plan": "gold", "minutes": 2.0, "done": true});
    send(&mut scored, &whole, 2);
    send(&mut scored, &poor, window - 3);
    assert_eq!(scored.contract.violations(), [], "it takes a whole window");
    send(&mut scored, &poor, 1);
    assert_eq!(scored.contract.violations(), [violation("minutes", Problem::MostlyMissing)]);
    assert_eq!(
        scored.predictions().len(),
        usize::try_from(window).unwrap(),
        "none was refused yet"
    );
    // Observations with the answer are scored, those without are rejected.
    send(&mut scored, &poor, 1);
    send(&mut scored, &whole, 1);
    assert_eq!(scored.predictions().len(), 1);
    let expected = [violation("minutes", Problem::MostlyMissing)];
    assert_eq!(scored.contract.violations(), expected, "it takes a whole window to recover, too");
    send(&mut scored, &whole, window - 2);
    assert_eq!(scored.contract.violations(), []);
    send(&mut scored, &poor, 1);
    assert_eq!(scored.predictions().len(), usize::try_from(window).unwrap() - 1);
}

#[test]
fn a_feature_that_is_never_given_is_reported_if_it_was_expected() {
    let window = i64::try_from(CONTRACT_WINDOW).unwrap();
    let poor = json!({"visits": 3, "plan": "gold", "done": true});
    let whole = json!({"visits": 3, "plan": "gold", "minutes": 2.0, "done": true});
    let never = [violation("minutes", Problem::NeverGiven)];
    // In a window of 20, ten answers are expected of a feature that every second training example had.
    for (one_in, expected) in [(0, &never[..]), (2, &never[..]), (4, &never[..0])] {
        let settings = Settings { policy: ContractPolicy::Refuse, ..Settings::default() };
        let mut scored = Scored::new(&settings);
        scored.serve(&model_rarely_given(one_in));
        let mut at = 0;
        let mut send = |scored: &mut Scored, fields: &Json, count: i64| {
            for _ in 0..count {
                at += 1;
                scored.apply(&Operation::Event("ann", at, fields.clone()));
            }
        };
        send(&mut scored, &poor, window - 1);
        assert_eq!(scored.contract.violations(), [], "it takes a whole window");
        send(&mut scored, &poor, 1);
        assert_eq!(scored.contract.violations(), expected, "one in {one_in}");
        let gauge = scored.gauge(GAUGE, &["minutes", "never_given"]);
        assert_eq!(gauge, (!expected.is_empty()).then_some(1.0), "one in {one_in}");
        // Windows do not overlap: one answer in the next window is enough, and counts at its end.
        send(&mut scored, &poor, window - 2);
        send(&mut scored, &whole, 1);
        assert_eq!(scored.contract.violations(), expected, "one in {one_in}");
        send(&mut scored, &poor, 1);
        assert_eq!(scored.contract.violations(), [], "one in {one_in}");
        assert_eq!(
            scored.predictions().len(),
            usize::try_from(2 * window).unwrap(),
            "none refused"
        );
    }
}

#[test]
fn observations_that_are_held_back_are_scored_by_a_model_that_fits() {
    let settings = Settings { policy: ContractPolicy::HoldBack, ..Settings::default() };
    let mut scored = Scored::new(&settings);
    let first = model_of(
        {
            let mut columns = scored.fixture.columns();
            columns[2].name = "seconds".to_owned();
            columns
        },
        &classes(&["no", "yes"]),
        7,
        Origin::default(),
    );
    scored.serve(&first);
    let bytes = scored.event("ann", 1, &json!({"visits": 3, "plan": "gold", "minutes": 1.0}));
    let topic = scored.fixture.topics.questionnaire_events.clone();
    let piped = scored.driver.pipe(&topic, Some(b"ann"), Some(&bytes), EventTime(EPOCH_MS));
    piped.unwrap();
    assert!(scored.predictions().is_empty(), "it waits");
    assert!(scored.contract.holds_back());
    assert_eq!(scored.contract.violations(), [violation("seconds", Problem::Gone)]);
    scored.serve(crate::fixture::second_model());
    scored.driver.process().unwrap();
    assert_eq!(scored.predictions().len(), 1, "it was not lost");
    assert!(!scored.contract.holds_back());
}
