//! Drift and live quality: alerts, windows, and the labels that count.

use std::{collections::BTreeMap, time::Duration};

use foretell::{
    events::{
        action::ExampleActions,
        answered::ClassProbability,
        command::CommandKind,
        labelled_example::{ExampleOrigin, ExamplePrediction, LabelledExample},
        model::Model,
        quality::Quality,
    },
    processors::{
        learning::outputs::records_of,
        model_table::CHALLENGER,
        quality::{AlertCause, QualitySettings, QualityStatus},
    },
};
use foretell_ml::{Example, ModelBundle, Value};
use foretell_streams::time::EventTime;

use crate::{
    fixture::{EPOCH_MS, NOW, examples, first_model, profiled_model, second_model},
    quality_instance::{Live, answers_of, settings, true_label, unlabelled},
    scored::{QUALITY_WINDOW, encoded},
};

/// The other class for every second example.
fn half_flipped(number: usize, truth: &'static str) -> Option<&'static str> {
    let flipped = if truth == "yes" { "no" } else { "yes" };
    Some(if number.is_multiple_of(2) { flipped } else { truth })
}

fn value(number: Option<f64>) -> f64 {
    number.expect("it is defined")
}

#[test]
fn an_alert_rings_when_half_of_the_labels_are_flipped() {
    let mut live = Live::new(settings(), profiled_model());
    live.play(0, &examples(600, 2, 21), true_label);
    let before = live.status();
    assert_eq!(before.alerts, [], "{before:?}");
    assert_eq!((before.predictions, before.labels), (600, 600));
    assert!(value(before.live.auc) > 0.95, "{before:?}");
    assert_eq!(live.metric("foretell_quality_alert", &["log_loss"]), Some(0.0));

    live.play(60, &examples(600, 2, 22), half_flipped);
    let after = live.status();
    assert_eq!(live.causes(), [AlertCause::LogLoss], "{after:?}");
    assert!(value(after.live.auc) < 0.75, "{after:?}");
    assert!(after.alerts[0].message.contains("the log loss of 600 labels is"), "{after:?}");
    // The inputs are as before, and so is what is expected without labels.
    assert!(value(after.estimated.auc) > 0.9, "{after:?}");
    assert_eq!(live.metric("foretell_quality_alert", &["log_loss"]), Some(1.0));
    assert_eq!(live.metric("foretell_quality_alert", &["features"]), Some(0.0));
    let version = after.model_version.as_str();
    let auc = live.metric("foretell_quality", &[version, "live", "auc"]);
    assert_eq!(auc, after.live.auc);

    // True labels again: the newest window has enough of them.
    live.play(120, &examples(600, 2, 23), true_label);
    assert_eq!(live.causes(), [], "{:?}", live.status());
    assert_eq!(live.metric("foretell_quality_alert", &["log_loss"]), Some(0.0));
}

#[test]
fn exactly_the_features_that_drift_are_named() {
    let mut live = Live::new(settings(), profiled_model());
    live.play(0, &examples(600, 2, 31), unlabelled);
    let status = live.status();
    assert_eq!((status.alerts.as_slice(), status.features.len()), (&[][..], 3), "{status:?}");
    let mut drifted = examples(600, 2, 32);
    for example in &mut drifted {
        let Value::Number(minutes) = &mut example.values[2] else { panic!("{example:?}") };
        *minutes += 30.0;
    }
    live.play(60, &drifted, unlabelled);
    let status = live.status();
    assert_eq!(live.causes(), [AlertCause::Features], "the model does not use it: {status:?}");
    let high = status.features.iter().filter(|index| index.psi >= 0.25);
    assert_eq!(high.map(|index| index.name.as_str()).collect::<Vec<_>>(), ["minutes"]);
    assert!(live.metric("foretell_quality_psi", &["feature", "minutes"]).unwrap() >= 0.25);
    assert!(live.metric("foretell_quality_psi", &["score", "yes"]).unwrap() < 0.25);
}

#[test]
fn scores_that_drift_are_an_alert() {
    let mut live = Live::new(settings(), profiled_model());
    let mut drifted = examples(600, 2, 33);
    for example in &mut drifted {
        example.values[1] = Value::Text("gold".to_owned());
    }
    live.play(0, &drifted, unlabelled);
    assert_eq!(live.causes(), [AlertCause::Features, AlertCause::Scores], "{:?}", live.status());
}

#[test]
fn the_truth_comes_beside_the_estimate_of_a_window() {
    let mut live = Live::new(settings(), profiled_model());
    let examples = examples(600, 2, 41);
    live.play(0, &examples, unlabelled);
    let key = format!("{}/{EPOCH_MS}", profiled_model().version());
    let records = live.records();
    assert_eq!(records.keys().collect::<Vec<_>>(), [&key]);
    let estimated = &records[&key];
    assert_eq!((estimated.predictions, estimated.labels, estimated.closed), (600, 0, false));
    assert_eq!(estimated.live, Default::default());
    assert!(value(estimated.estimated.log_loss) > 0.0);
    let youngest = |live: &Live| live.status().maturity[0].labelled;
    assert_eq!(youngest(&live), Some(0.0));
    let evaluation = &profiled_model().evaluation;
    assert_eq!(estimated.trained.log_loss, evaluation.log_loss);

    // Labels of the same window, a minute later.
    let topic = live.scored.fixture.topics.outcomes.clone();
    for (number, example) in examples.iter().enumerate() {
        let who = format!("r{number}");
        let truth = if example.label.index() == 1 { "yes" } else { "no" };
        let outcome = live.scored.outcome(&who, 61, truth);
        live.pipe(&topic, &who, &outcome);
    }
    live.pass_on();
    let records = live.records();
    assert_eq!(records.keys().collect::<Vec<_>>(), [&key], "the same window");
    let labelled = &records[&key];
    assert_eq!((labelled.predictions, labelled.labels), (600, 600));
    assert_eq!(labelled.estimated, estimated.estimated);
    // The small model is less certain than it should be, so the truth is better than the estimate.
    let estimate = value(labelled.estimated.accuracy);
    assert!((0.8..value(labelled.live.accuracy)).contains(&estimate), "{labelled:?}");
    assert_eq!(youngest(&live), Some(1.0));
    assert_eq!(live.metric("foretell_labelled_share", &["0s"]), Some(1.0));
    // Nothing has changed since.
    live.pass_on();
    assert_eq!(live.records(), BTreeMap::new());
}

#[test]
fn a_window_is_closed_when_its_labels_are_too_late() {
    let mut live = Live::new(settings(), profiled_model());
    live.play(0, &examples(20, 2, 51), true_label);
    live.play(120, &examples(20, 2, 52), true_label);
    let closed = |records: &BTreeMap<String, Quality>| {
        let closed = records.values().filter(|record| record.closed);
        closed.map(|record| (record.window_start.0 - EPOCH_MS) / 1_000).collect::<Vec<_>>()
    };
    assert_eq!(closed(&live.records()), [] as [i64; 0]);
    live.play(180, &examples(20, 2, 53), true_label);
    assert_eq!(closed(&live.records()), [0], "60 s, and 120 s for the labels");
    assert_eq!(live.status().windows.len(), 3);
    // A day of windows later, what comes for it is only counted.
    live.play(60 * 40, &examples(20, 2, 54), true_label);
    let summary = |live: &mut Live| {
        live.scored.driver.read_all();
        let topic = live.scored.fixture.topics.questionnaire_events.clone();
        let event = live.scored.event("late", 1, &answers_of(&examples(1, 2, 55)[0]));
        live.pipe(&topic, "late", &event);
        live.pass_on();
    };
    summary(&mut live);
    assert_eq!(live.metric("foretell_quality_late_total", &["predictions"]), Some(1.0));
    let records = live.records();
    assert!(records.values().all(|record| record.window_start.0 > EPOCH_MS), "{records:?}");
}

#[test]
fn a_crash_of_the_learner_loses_no_label() {
    let mut live = Live::new(settings(), profiled_model());
    live.play(0, &examples(400, 2, 61), true_label);
    let before = live.status();
    live.crash_of_the_learner();
    assert_eq!(live.board.read(), None, "the status is withdrawn with the task");
    live.pass_on();
    let restored = live.status();
    let sums = |status: &QualityStatus| (status.predictions, status.labels, status.live);
    assert_eq!(sums(&restored), sums(&before));
    assert_eq!((restored.features, restored.estimated), (before.features, before.estimated));
    live.play(40, &examples(100, 2, 62), true_label);
    assert_eq!((live.status().predictions, live.status().labels), (500, 500));
}

#[test]
fn the_training_of_a_model_is_known_before_its_first_prediction() {
    let mut live = Live::new(settings(), profiled_model());
    live.pass_on();
    let status = live.status();
    assert_eq!((status.predictions, status.has_profile), (0, true));
    let evaluated = profiled_model().evaluation.log_loss;
    assert!(evaluated.is_some() && status.trained.log_loss == evaluated, "{status:?}");
    assert_eq!((status.alerts, status.features), (vec![], vec![]));
}

#[test]
fn each_model_has_windows_of_its_own() {
    let mut live = Live::new(settings(), profiled_model());
    live.play(0, &examples(400, 2, 71), true_label);
    live.serve(second_model());
    live.play(40, &examples(100, 2, 72), half_flipped);
    let status = live.status();
    assert_eq!(status.model_version, second_model().version().as_str());
    assert_eq!((status.predictions, status.labels, status.has_profile), (100, 100, false));
    assert_eq!(status.alerts, [], "too few labels, and the model has no profile: {status:?}");
    let records = live.records();
    let of = |model: &ModelBundle| &records[&format!("{}/{EPOCH_MS}", model.version())];
    assert_eq!((of(profiled_model()).labels, of(second_model()).labels), (400, 100));
    let other = profiled_model().version();
    assert_eq!(live.metric("foretell_quality", &[other.as_str()]), None, "series of one model");
    // Without a profile there are estimates, and no index.
    assert!(of(second_model()).features.is_empty());
    assert!(of(second_model()).estimated.log_loss.is_some());
}

#[test]
fn an_alert_requests_one_training_for_each_window_if_drift_may_retrain() {
    let mut live =
        Live::new(QualitySettings { retrain_on_drift: true, ..settings() }, first_model());
    live.play(0, &examples(400, 2, 81), true_label);
    assert_eq!(live.commands(), []);
    live.play(60, &examples(400, 2, 82), half_flipped);
    let commands = live.commands();
    let [command] = commands.as_slice() else { panic!("{commands:?}") };
    let version = first_model().version();
    assert_eq!(command.command_id, format!("drift-{version}-{}", EPOCH_MS + 60_000));
    assert_eq!(command.kind, CommandKind::Retrain);
    assert_eq!(command.requested_by.as_deref(), Some("drift"));
    assert!(command.reason.as_deref().is_some_and(|reason| reason.contains("log loss")));
    live.pass_on();
    live.crash_of_the_learner();
    live.pass_on();
    assert_eq!(live.commands(), [], "once for each window");
    live.play(120, &examples(400, 2, 83), half_flipped);
    assert_eq!(live.commands().len(), 1);
}

#[test]
fn summaries_are_sent_every_second_while_something_is_scored() {
    let mut live = Live::new(settings(), profiled_model());
    let topic = live.scored.fixture.topics.window_summaries.clone();
    let sent = |live: &mut Live, examples: &[Example], seconds: u64| {
        let topics = live.scored.fixture.topics.clone();
        for (number, example) in examples.iter().enumerate() {
            let who = format!("s{}-{number}", live.respondents);
            let at = i64::try_from(number).unwrap() * 60;
            let event = live.scored.event(&who, at, &answers_of(example));
            live.pipe(&topics.questionnaire_events, &who, &event);
        }
        live.respondents += 1;
        live.scored.driver.advance(Duration::from_secs(seconds)).unwrap();
        live.scored.driver.commit();
        live.scored.driver.read(&topic).len()
    };
    assert_eq!(sent(&mut live, &[], 3), 0);
    assert_eq!(sent(&mut live, &examples(3, 2, 91), 0), 0, "not yet");
    assert_eq!(sent(&mut live, &[], 1), 3, "one for each window");
    assert_eq!(sent(&mut live, &[], 3), 0);
    assert_eq!(sent(&mut live, &examples(6, 2, 92), 0), 2, "four windows are in memory");
}

#[test]
fn of_more_than_a_thousand_predictions_in_a_second_every_eighth_counts_eight_times() {
    let mut live = Live::new(settings(), profiled_model());
    let topics = live.scored.fixture.topics.clone();
    for (number, example) in examples(1_815, 2, 4).iter().enumerate() {
        let who = format!("s{number}");
        let event = live.scored.event(&who, 1, &answers_of(example));
        live.pipe(&topics.questionnaire_events, &who, &event);
    }
    live.pass_on();
    let status = live.status();
    assert_eq!(status.predictions, 1_808);
    assert_eq!(status.alerts, [], "the shares are those of all predictions: {status:?}");
    live.play(10, &examples(10, 2, 5), unlabelled);
    assert_eq!(live.status().predictions, 1_818, "all are counted after the summary");
}

#[test]
fn of_too_many_windows_the_oldest_are_closed_and_removed() {
    let labels_within = Duration::from_secs(1 << 40);
    let mut live = Live::new(QualitySettings { labels_within, ..settings() }, first_model());
    let example = &examples(1, 2, 3)[0];
    let topic = live.scored.fixture.topics.questionnaire_events.clone();
    let event = |live: &mut Live, window: i64| {
        let who = format!("w{}", live.respondents);
        live.respondents += 1;
        let event = live.scored.event(&who, window * QUALITY_WINDOW, &answers_of(example));
        live.pipe(&topic, &who, &event);
    };
    for window in 0..1_003 {
        event(&mut live, window);
        if window == 500 {
            live.pass_on();
        }
    }
    live.pass_on();
    let closed = |live: &mut Live| {
        let records = live.records();
        let closed = records.values().filter(|record| record.closed);
        closed.map(|record| (record.window_start.0 - EPOCH_MS) / 60_000).collect::<Vec<_>>()
    };
    assert_eq!(closed(&mut live), [0, 1, 2]);
    event(&mut live, 2);
    event(&mut live, 3);
    live.pass_on();
    assert_eq!(live.metric("foretell_quality_late_total", &["predictions"]), Some(1.0));
    let records = live.records();
    assert_eq!(records.values().map(|record| record.predictions).collect::<Vec<_>>(), [2]);
}

/// An example of the model that serves, which gives "yes" a probability of 0.75.
fn example(
    live: &Live,
    origin: ExampleOrigin,
    label: &str,
    (correction, replaced): (bool, Option<&str>),
) -> LabelledExample {
    let prediction = ExamplePrediction {
        prediction_id: "p".to_owned(),
        model_version: profiled_model().version().as_str().to_owned(),
        predicted_at: NOW,
        probabilities: [("no", 0.25), ("yes", 0.75)]
            .map(|(label, probability)| ClassProbability { label, probability })
            .into_iter()
            .collect(),
    };
    LabelledExample {
        example_id: "p".to_owned(),
        respondent_id: "ann".to_owned(),
        origin,
        event_time: EventTime(EPOCH_MS),
        outcome_time: None,
        label: label.to_owned(),
        challenger: None,
        prediction: (origin == ExampleOrigin::Stream).then_some(prediction),
        correction,
        replaced: replaced.map(str::to_owned),
        actions: ExampleActions::default(),
        answers: live.scored.fixture.row(&[]),
    }
}

/// Passes an example to the learner.
fn learn(live: &mut Live, example: &LabelledExample) {
    let topic = live.scored.fixture.topics.labelled_examples.clone();
    let bytes = encoded(live.scored.fixture.codecs.labelled_example.as_ref(), example);
    live.learner.pipe(&topic, Some(b"ann"), Some(&bytes), EventTime(0)).unwrap();
    live.pass_on();
}

#[test]
fn initial_examples_and_corrections_of_earlier_releases_are_not_counted() {
    let mut live = Live::new(settings(), profiled_model());
    live.play(0, &examples(10, 2, 6), true_label);
    let initial = example(&live, ExampleOrigin::Initial, "yes", (false, None));
    learn(&mut live, &initial);
    let correction = example(&live, ExampleOrigin::Stream, "yes", (true, None));
    learn(&mut live, &correction);
    assert_eq!(live.status().labels, 10);
}

#[test]
fn a_correction_replaces_the_label_that_was_counted() {
    let mut live = Live::new(settings(), profiled_model());
    // Of a window that is not stored: it is counted as late.
    let early = example(&live, ExampleOrigin::Stream, "no", (true, Some("yes")));
    learn(&mut live, &early);
    assert_eq!(live.metric("foretell_quality_late_total", &["labels"]), Some(1.0));
    let key = format!("{}/{EPOCH_MS}", profiled_model().version());
    let steps: [(&str, Option<&str>, f64); 4] = [
        ("yes", None, 0.75),
        ("no", Some("yes"), 0.25),
        ("yes", Some("no"), 0.75),
        // A label that the model does not have.
        ("other", Some("yes"), 1e-15),
    ];
    for (label, replaced, probability) in steps {
        let example = example(&live, ExampleOrigin::Stream, label, (replaced.is_some(), replaced));
        learn(&mut live, &example);
        let status = live.status();
        assert_eq!(status.labels, 1, "{label}");
        let expected = -f64::ln(probability);
        let loss = value(status.live.log_loss);
        assert!((loss - expected).abs() < 1e-9, "{label}: {loss}, not {expected}");
        // The window is reported again, though it has as many labels as before.
        let record = live.records().remove(&key).unwrap();
        assert_eq!((record.labels, record.live), (1, status.live), "{label}");
    }
}

#[test]
fn what_is_no_summary_becomes_a_dead_letter() {
    let mut live = Live::new(settings(), profiled_model());
    let topics = live.scored.fixture.topics.clone();
    live.learner.pipe(&topics.window_summaries, None, Some(b"\x01x"), EventTime(0)).unwrap();
    live.play(0, &examples(10, 2, 7), true_label);
    assert_eq!((live.status().predictions, live.status().labels), (10, 10));
    assert_eq!(live.learner.read(&topics.dead_letters).len(), 1);
}

#[test]
fn labels_count_for_the_challenger_too() {
    let mut live = Live::new(settings(), profiled_model());
    for record in records_of(second_model(), "test", NOW).unwrap() {
        let alias = record.alias.is_some().then(|| CHALLENGER.to_owned());
        live.scored.table.apply(&Model { alias, ..record }).unwrap();
    }
    live.play(0, &examples(400, 2, 101), true_label);
    let records = live.records();
    let of = |model: &ModelBundle| &records[&format!("{}/{EPOCH_MS}", model.version())];
    let (champion, challenger) = (of(profiled_model()), of(second_model()));
    assert_eq!((champion.predictions, champion.labels), (400, 400));
    assert_eq!((challenger.predictions, challenger.labels), (0, 400));
    assert!(value(challenger.live.auc) > 0.9, "{challenger:?}");
    assert_eq!(live.status().model_version, profiled_model().version().as_str());
}
