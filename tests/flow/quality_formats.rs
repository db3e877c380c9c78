//! The formats of the store of quality and of summaries, which later releases must read: see `formats`.

use std::{fmt::Write as _, fs, time::Duration};

use foretell_ml::{ModelBundle, Probabilities, TrainingSet, drift::Profile};
use foretell_streams::record::{OutputRecord, Topic};

use crate::{
    fixture::{Fixture, examples, first_model},
    formats::{bytes, golden, hex, leave, left},
    quality_instance::{Live, answers_of, settings, true_label, unlabelled},
};

/// An instance with the model of the golden file, because a training on another machine may differ in the last bit, after some
/// predictions and labels in two windows.
fn instance_of_the_golden_files() -> (Live, Vec<OutputRecord>) {
    let bytes = fs::read(golden("model-v1.bundle")).unwrap();
    let set = TrainingSet::of(&Fixture::new().columns(), &examples(50, 2, 1));
    let profile = Profile::of(&set.sample());
    let profile = profile.with_scores(&[Probabilities::new(vec![0.25, 0.75])]);
    let model = ModelBundle::from_bytes(&bytes).unwrap();
    let model = ModelBundle { profile: Some(profile), ..model };
    let mut live = Live::new(settings(), &model);
    let examples = examples(6, 2, 2);
    live.play(0, &examples[..3], true_label);
    live.play(60, &examples[3..], unlabelled);
    let topic = live.scored.fixture.topics.window_summaries.clone();
    for (number, example) in examples.iter().enumerate() {
        let who = format!("more-{number}");
        let event = live.scored.event(&who, 7, &answers_of(example));
        let topic = live.scored.fixture.topics.questionnaire_events.clone();
        live.pipe(&topic, &who, &event);
    }
    live.scored.driver.advance(Duration::from_secs(1)).unwrap();
    live.scored.driver.commit();
    let summaries = live.scored.driver.read(&topic);
    (live, summaries)
}

const CHANGELOG: &str = "shop-learning-quality-changelog";

#[test]
fn the_store_of_quality_is_written_in_its_format_and_restored() {
    let (live, _) = instance_of_the_golden_files();
    let mut lines = String::new();
    for record in live.learner.changelog(&Topic::new(CHANGELOG)) {
        let key = hex(record.key.as_deref().unwrap());
        let value = hex(record.value.as_deref().unwrap());
        writeln!(lines, "{CHANGELOG} {} {key} {value}", record.timestamp.0).unwrap();
    }
    let kept = fs::read_to_string(golden("quality-v1.txt")).unwrap();
    assert_eq!(lines, kept, "raise QualityEntry::FORMAT, and keep reading the old one");

    let mut other = Live::new(settings(), first_model());
    leave(&mut other.learner, &left("quality-v1.txt"));
    other.crash_of_the_learner();
    other.pass_on();
    let records = other.records();
    let counts = records.values().map(|record| (record.predictions, record.labels));
    assert_eq!(counts.collect::<Vec<_>>(), [(3, 3), (3, 0)]);
}

#[test]
fn a_summary_is_written_in_its_format_and_read() {
    let (_, summaries) = instance_of_the_golden_files();
    let [summary] = summaries.as_slice() else { panic!("{summaries:?}") };
    let kept = fs::read_to_string(golden("window-summary-v1.txt")).unwrap();
    let kept = kept.trim();
    assert_eq!(
        hex(summary.value.as_deref().unwrap()),
        kept,
        "raise WindowSummary::FORMAT, and keep reading the old one"
    );
    let mut other = Live::new(settings(), first_model());
    let value = Some(bytes(kept));
    other.learner.pipe_record(OutputRecord { value, ..summary.clone() }).unwrap();
    other.pass_on();
    let records = other.records();
    assert_eq!(records.values().map(|record| record.predictions).collect::<Vec<_>>(), [6]);
}
