//! Golden bytes of records, for each version of each schema: the current reader reads all of them, and the current writer
//! writes those of the newest version. The files in `golden/<subject>/` never change, because topics have such records.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::PathBuf,
    sync::Arc,
};

use foretell::events::{
    action::{
        Action, ActionReasonRef, ActionReasons, ActionState, ExampleActionRef, ExampleActions,
    },
    answered::{AnsweredCodec, AnsweredRecord, ClassProbabilities, ClassProbability},
    challenger::ChallengerScore,
    command::{Command, CommandKind},
    decision::{Decision, DecisionOutcome, ModelComparison},
    labelled_example::{ExampleOrigin, ExamplePrediction, LabelledExample},
    model::Model,
    outcome::Outcome,
    prediction::{Prediction, ScoreTrigger},
    quality::{Quality, QualityMetrics, StabilityIndex},
    questionnaire::{
        Answer, AnswerRow, EventSource, MetadataFields, QuestionnaireCodec, QuestionnaireEvent,
        QuestionnaireSchema,
    },
    trial::{Trial, TrialParameter},
};
use foretell_avro::{
    codec::{AvroCodec, AvroRecord},
    datum::DatumCodec,
    framing,
    local::LocalRegistry,
    registry::SchemaRegistry,
};
use foretell_streams::{
    codec::{Codec, Stored},
    time::{EventTime, WallTime},
};

use crate::{example_schema, histories, history};

/// The bytes in `golden/<name>.hex`: hexadecimal digits, with any white space.
fn golden(name: &str) -> Vec<u8> {
    let path = folder().join(format!("{name}.hex"));
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    hex::decode(digits).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemas/golden"))
}

/// A registry with every version of a subject. The ids are the numbers of the versions.
fn registry(subject: &str) -> Arc<LocalRegistry> {
    let registry = Arc::new(LocalRegistry::new());
    for version in &history(subject).versions {
        registry.register(subject, &version.text).expect("compatible with the version before");
    }
    registry
}

/// Asserts that the file `<subject>/v<version>-<case>` decodes to `value`. If it has the newest version, `value` is also
/// encoded to the same bytes, each time. A value is the same after a round trip through a local store.
fn check<T>(value: &T, name: &str)
where
    T: AvroRecord + Clone + PartialEq + fmt::Debug,
{
    let (subject, _) = name.split_once('/').expect("a subject and a case");
    let codec = AvroCodec::<T>::new(registry(subject), subject)
        .expect("the newest version is the one in use");
    check_with(&codec, value, name);
    let stored = Stored::version(1);
    let mut bytes = Vec::new();
    stored.encode(value, &mut bytes).unwrap();
    assert_eq!(stored.decode(&bytes).as_ref(), Ok(value), "from a store");
}

/// As [`check`], for records with answers to the questions of [`small_schema`]. In the newest version their schema is the
/// template with these questions.
fn check_answered<R>(value: &R, name: &str)
where
    R: AnsweredRecord + Clone + PartialEq + fmt::Debug,
{
    let (subject, _) = name.split_once('/').expect("a subject and a case");
    let (registry, schema) = (filled_registry(subject), Arc::new(small_schema()));
    let codec = AnsweredCodec::<R>::new(registry, subject, schema).expect("the template is in use");
    check_with(&codec, value, name);
}

/// As [`registry`], for the templates of records with answers to the questions of [`small_schema`].
fn filled_registry(subject: &str) -> Arc<LocalRegistry> {
    let registry = Arc::new(LocalRegistry::new());
    for version in &history(subject).versions {
        registry
            .register(subject, &small_schema().fill_answers(&version.text))
            .expect("compatible");
    }
    registry
}

fn check_with<T>(codec: &dyn Codec<T>, value: &T, name: &str)
where
    T: Clone + PartialEq + fmt::Debug,
{
    let (subject, case) = name.split_once('/').expect("a subject and a case");
    let version: u32 =
        case.split_once('-').and_then(|(v, _)| v[1..].parse().ok()).expect("a version");
    let mut bytes = Vec::new();
    framing::frame(version, &mut bytes);
    bytes.extend(golden(name));
    assert_eq!(codec.decode(&bytes).as_ref(), Ok(value), "{name}");
    if usize::try_from(version) == Ok(history(subject).newest().number) {
        for _ in 0..2 {
            let mut written = Vec::new();
            codec.encode(&value.clone(), &mut written).expect("encodable");
            assert_eq!(hex::encode(&written), hex::encode(&bytes), "{name}: {value:?}");
        }
    }
}

#[test]
fn every_version_has_golden_bytes() {
    let mut lacking = BTreeSet::new();
    for history in histories() {
        let files = fs::read_dir(folder().join(history.name())).into_iter().flatten();
        let files: Vec<String> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        for version in &history.versions {
            let prefix = format!("{}-", version.name());
            if !files.iter().any(|file| file.starts_with(&prefix)) {
                lacking.insert(format!("{}/{}", history.name(), version.name()));
            }
        }
    }
    assert!(
        lacking.is_empty(),
        "no golden bytes of {lacking:?}: add a record of each to this file, and the bytes of its encoding, in hex, to \
         golden/<record>/<version>-<case>.hex"
    );
}

fn text(text: &str) -> String {
    text.to_owned()
}

/// The questions of the golden records: `z`, `a` and `m`.
fn small_schema() -> QuestionnaireSchema {
    let avsc = r#"{"type":"record","name":"R","fields":[
        {"name":"who","type":"string"},{"name":"at","type":"long"},
        {"name":"z","type":["null","int"],"default":null,"doc":"A number."},
        {"name":"a","type":["null","string"],"default":null,"aliases":["b"]},
        {"name":"m","type":["null","boolean"],"default":null}]}"#;
    let fields = MetadataFields {
        event_id: None,
        respondent_id: text("who"),
        event_time: text("at"),
        completed: None,
    };
    QuestionnaireSchema::new(avsc, &fields, &[]).unwrap()
}

fn answers() -> AnswerRow {
    let given = [Some(Answer::Number(39.0)), Some(Answer::Text(text("w"))), None];
    small_schema().layout().row_of(&given)
}

fn probabilities() -> ClassProbabilities {
    let class = |label, probability| ClassProbability { label, probability };
    ClassProbabilities::from_iter([class("no", 0.25), class("yes", 0.75)])
}

fn challenger() -> ChallengerScore {
    let class = |label| ClassProbability { label, probability: 0.5 };
    let probabilities = ClassProbabilities::from_iter([class("no"), class("yes")]);
    ChallengerScore { model_version: text("c"), probabilities }
}

#[test]
fn outcomes() {
    let mut outcome = Outcome {
        respondent_id: text("r"),
        outcome_time: EventTime(1),
        label: text("yes"),
        outcome_id: None,
    };
    check(&outcome, "outcome/v1-plain");
    outcome.outcome_id = Some(text("o"));
    check(&outcome, "outcome/v1-named");
}

#[test]
fn predictions() {
    let mut prediction = Prediction {
        prediction_id: text("p"),
        respondent_id: text("r"),
        event_id: text("e"),
        event_time: EventTime(1),
        received_at: WallTime(2),
        predicted_at: WallTime(3),
        model_version: text("v"),
        label: text("yes"),
        probabilities: probabilities(),
        challenger: None,
        trigger: ScoreTrigger::Complete,
        answers: answers(),
    };
    for version in ["v1", "v2", "v3", "v4"] {
        check_answered(&prediction, &format!("prediction/{version}-one"));
    }
    prediction.challenger = Some(challenger());
    check_answered(&prediction, "prediction/v3-challenged");
    prediction.trigger = ScoreTrigger::SessionEnd;
    check_answered(&prediction, "prediction/v4-left");
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
        prediction: None,
        challenger: None,
        correction: false,
        replaced: None,
        actions: ExampleActions::default(),
        answers: answers(),
    };
    for version in ["v1", "v2", "v3", "v4"] {
        check_answered(&example, &format!("labelled-example/{version}-initial"));
    }
    example.origin = ExampleOrigin::Stream;
    example.outcome_time = Some(EventTime(2));
    example.answers = small_schema().layout().row_of(&[]);
    example.prediction = Some(ExamplePrediction {
        prediction_id: text("p"),
        model_version: text("v"),
        predicted_at: WallTime(3),
        probabilities: probabilities(),
    });
    example.correction = true;
    for version in ["v1", "v2", "v3", "v4"] {
        check_answered(&example, &format!("labelled-example/{version}-joined"));
    }
    example.challenger = Some(challenger());
    check_answered(&example, "labelled-example/v3-challenged");
    example.replaced = Some(text("no"));
    let action = |action_id, acted| ExampleActionRef {
        action_id,
        rule: "call",
        rule_version: "0a",
        acted,
        propensity: 0.5,
        acted_at: EventTime(4),
    };
    example.actions = ExampleActions::of([action("a", true), action("b", false)].into_iter());
    check_answered(&example, "labelled-example/v4-acted");
}

#[test]
fn actions() {
    let reason = ActionReasonRef { feature: "z", contribution: -0.5 };
    let action = Action {
        action_id: text("a"),
        state: ActionState::HeldOut,
        respondent_id: text("r"),
        prediction_id: text("p"),
        rule: text("call"),
        rule_version: text("0a"),
        reason: text("why"),
        due: EventTime(5),
        event_time: EventTime(4),
        decided_at: WallTime(6),
        model_version: text("v"),
        label: text("yes"),
        probabilities: probabilities(),
        propensity: 0.5,
        reasons: ActionReasons::of([reason].into_iter()),
        answers: answers(),
    };
    check_answered(&action, "action/v1-held-out");
}

/// During an upgrade, instances of a release before read what instances of this one have written.
#[test]
fn earlier_releases_read_records_without_the_fields_that_they_do_not_know() {
    for (subject, new, old) in [
        ("prediction", "v3-challenged", "v2-one"),
        ("prediction", "v3-one", "v2-one"),
        ("prediction", "v4-one", "v2-one"),
        ("prediction", "v4-left", "v3-challenged"),
        ("labelled-example", "v3-challenged", "v2-joined"),
        ("labelled-example", "v3-initial", "v2-initial"),
        ("labelled-example", "v4-acted", "v3-challenged"),
        ("labelled-example", "v4-initial", "v3-initial"),
    ] {
        let version = |case: &str| case[1..2].parse::<u32>().unwrap();
        let reader = &history(subject).versions[version(old) as usize - 1].text;
        let reader = small_schema().fill_answers(reader);
        let codec = DatumCodec::new(filled_registry(subject), subject, &reader).unwrap();
        let mut bytes = Vec::new();
        framing::frame(version(new), &mut bytes);
        bytes.extend(golden(&format!("{subject}/{new}")));
        let read = codec.read(&bytes, |datum| Ok(hex::encode(datum))).unwrap();
        assert_eq!(read, hex::encode(golden(&format!("{subject}/{old}"))), "{subject}/{new}");
    }
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
    check(&model, "model/v1-bundle");
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
    check(&model, "model/v1-alias");
}

#[test]
fn trials() {
    let number = |name: &str, value| TrialParameter { name: text(name), value, text: None };
    let trial = Trial {
        study: text("s"),
        number: 1,
        parameters: vec![number("num_leaves", 31.0), number("lambda_l1", 0.25)],
        log_loss: 0.25,
        auc: Some(0.75),
        iterations: 100,
        pruned: false,
        created_at: WallTime(4),
        objective: text("log_loss"),
        value: None,
        sampler: text("tpe"),
        failure: None,
    };
    check(&trial, "trial/v1-one");
    let dart = TrialParameter { name: text("boosting"), value: 0.0, text: Some(text("dart")) };
    let by_f1 = Trial {
        parameters: vec![number("num_leaves", 31.0), dart],
        objective: text("f1"),
        value: Some(0.5),
        sampler: text("gp"),
        ..trial.clone()
    };
    check(&by_f1, "trial/v2-one");
    let failed = Trial {
        parameters: Vec::new(),
        log_loss: f64::INFINITY,
        auc: None,
        pruned: true,
        failure: Some(text("no")),
        ..trial
    };
    check(&failed, "trial/v2-failed");
}

#[test]
fn commands() {
    let command = Command {
        command_id: text("c"),
        kind: CommandKind::RollBack,
        model_version: None,
        reason: Some(text("why")),
        requested_by: Some(text("ann")),
        requested_at: WallTime(4),
    };
    check(&command, "command/v1-rollback");
}

#[test]
fn decisions() {
    let comparison = ModelComparison {
        metric: text("log_loss"),
        examples: 500,
        candidate: 0.25,
        champion: 0.5,
        difference: 0.25,
        low: 0.125,
        high: 0.375,
        confidence: 0.75,
        margin: 0.0,
    };
    let mut decision = Decision {
        decision_id: text("training-3"),
        outcome: DecisionOutcome::Promoted,
        reason: text("better"),
        trigger: Some(text("labelled examples")),
        requested_by: None,
        training: Some(3),
        candidate: Some(text("v")),
        champion: Some(text("u")),
        comparison: Some(comparison),
        first_offset: Some(1),
        end_offset: Some(2),
        decided_at: WallTime(4),
    };
    check(&decision, "decision/v1-judged");
    decision.outcome = DecisionOutcome::RolledBack;
    decision.trigger = None;
    decision.requested_by = Some(text("ann"));
    (decision.training, decision.candidate, decision.champion) = (None, None, None);
    (decision.comparison, decision.first_offset, decision.end_offset) = (None, None, None);
    check(&decision, "decision/v1-rollback");
}

#[test]
fn windows_of_quality() {
    let metrics = |log_loss, auc, accuracy, calibration_error| QualityMetrics {
        log_loss: Some(log_loss),
        auc: Some(auc),
        accuracy: Some(accuracy),
        calibration_error,
    };
    let index = |name: &str, psi| StabilityIndex { name: text(name), psi };
    let mut quality = Quality {
        model_version: text("v"),
        window_start: EventTime(3_600_000),
        window_end: EventTime(7_200_000),
        closed: true,
        predictions: 500,
        labels: 300,
        trained: metrics(0.25, 0.875, 0.75, None),
        estimated: metrics(0.5, 0.75, 0.625, None),
        live: metrics(1.5, 0.25, 0.5, Some(0.125)),
        features: vec![index("age", 0.5)],
        scores: vec![index("yes", 0.25)],
        updated_at: WallTime(4),
    };
    check(&quality, "quality/v1-window");
    let nothing = QualityMetrics::default();
    (quality.closed, quality.predictions, quality.labels) = (false, 1, 0);
    (quality.trained, quality.estimated, quality.live) = (nothing, nothing, nothing);
    (quality.features, quality.scores) = (Vec::new(), Vec::new());
    check(&quality, "quality/v1-empty");
}

#[test]
fn questionnaire_events() {
    const NAME: &str = "questionnaire-event/v1-piece";
    let schema = Arc::new(example_schema());
    let codec = QuestionnaireCodec::new(
        registry("questionnaire-event"),
        "questionnaire-event",
        Arc::clone(&schema),
    );
    let codec = codec.unwrap();
    let event = QuestionnaireEvent {
        source: EventSource::Lead,
        event_id: text("e"),
        respondent_id: text("r"),
        event_time: EventTime(1),
        completed: true,
        answers: schema
            .layout()
            .row_of(&[Some(Answer::Number(39.0)), Some(Answer::Text(text("State-gov")))]),
    };
    let mut bytes = Vec::new();
    framing::frame(1, &mut bytes);
    bytes.extend(golden(NAME));
    assert_eq!(codec.decode(&bytes), Ok(event.clone()));
    if history("questionnaire-event").newest().number == 1 {
        for _ in 0..2 {
            let mut written = Vec::new();
            codec.encode(&event, &mut written).unwrap();
            assert_eq!(hex::encode(&written), hex::encode(&bytes));
        }
    }
}
