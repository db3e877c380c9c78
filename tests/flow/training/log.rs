//! The training log alone: the training set of a request, after earlier requests and failures.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU32, Ordering},
};

use foretell::{events::labelled_example::LabelledExample, processors::learning::job::JobFailure};
use foretell_ml::{DataPolicy, InitialPolicy, ModelBundle, Origin, Params, Retention, Seed};
use foretell_streams::{record::OutputRecord, runtime::broker::Broker as _, time::EventTime};

use super::{
    Application, Concept, OFTEN, SELDOM, Trainings, answers, correction, expect_concept, stream,
};
use crate::fixture::{EPOCH_MS, classes, first_model, model};

fn try_train(log: &mut Trainings, through: i64) -> Result<ModelBundle, JobFailure> {
    log.train(1, through, &|_, _, _| true)
}

/// Trains on the records before `through`.
fn train(log: &mut Trainings, through: i64) -> ModelBundle {
    try_train(log, through).unwrap()
}

/// The numbers of initial examples and of stream examples.
fn learned_from(bundle: &ModelBundle) -> (u64, u64) {
    let origin = &bundle.lineage.origin;
    (origin.initial_examples, origin.stream_examples)
}

/// Checks that both were trained on the same examples, which may have other offsets.
#[track_caller]
fn expect_same_examples(one: &ModelBundle, other: &ModelBundle) {
    assert_eq!(learned_from(one), learned_from(other));
    assert_eq!(one.booster, other.booster);
    assert_eq!(one.pipeline, other.pipeline);
    assert_eq!(one.evaluation, other.evaluation);
}

#[test]
fn a_model_has_the_origin_of_its_training_set() {
    let mut application = Application::new();
    application.append(&application.initial(0..40, OFTEN));
    application.append(&stream(0..20, OFTEN));
    let bundle = application.log().train(7, 60, &|_, _, _| true).unwrap();
    let origin = &bundle.lineage.origin;
    assert_eq!((origin.training, origin.examples_through), (7, 60));
    assert_eq!(origin.parent, Some(first_model().version()));
    assert_eq!(learned_from(&bundle), (40, 20));
    assert_eq!(bundle.classes, ["no", "yes"]);
    expect_concept(&bundle, OFTEN);
}

#[test]
fn the_newest_examples_up_to_the_bound_are_used() {
    let mut application = Application::new();
    application.policy.retention = Retention::Last(40);
    application.append(&stream(0..40, OFTEN));
    application.append(&stream(40..80, SELDOM));
    let bundle = train(&mut application.log(), 80);
    assert_eq!(learned_from(&bundle), (0, 40));
    expect_concept(&bundle, SELDOM);
    // Exactly the newest 40: an older example gives another model.
    let mut newest = Application::new();
    newest.append(&stream(40..80, SELDOM));
    expect_same_examples(&bundle, &train(&mut newest.log(), 40));
    // All of them, if there are fewer than the bound.
    assert_eq!(learned_from(&train(&mut application.log(), 39)), (0, 39));
}

/// One example a minute, in the order of the log but for one that is late by an hour.
fn timed(numbers: Range<u32>, concept: Concept) -> Vec<LabelledExample> {
    let mut examples = stream(numbers.clone(), concept);
    for (number, example) in numbers.zip(&mut examples) {
        let late = if number % 50 == 3 { 60 } else { 0 };
        example.event_time = EventTime(EPOCH_MS + (i64::from(number) - late) * MINUTE);
    }
    examples
}

const MINUTE: i64 = 60_000;

#[test]
fn the_examples_within_a_time_before_the_newest_are_used() {
    let mut application = Application::new();
    application.policy.retention = Retention::Within(40 * MINUTE);
    application.append(&timed(0..40, OFTEN));
    application.append(&timed(40..80, SELDOM));
    let bundle = train(&mut application.log(), 80);
    // Those from minute 40 to 79 but number 53, which is of minute -7.
    assert_eq!(learned_from(&bundle), (0, 39));
    expect_concept(&bundle, SELDOM);
    assert_eq!(bundle.lineage.origin.policy, application.policy);
}

#[test]
fn the_reservoir_is_drawn_with_the_seed() {
    let mut application = Application::new();
    application.policy.retention = Retention::Reservoir(40);
    application.append(&stream(0..400, OFTEN));
    let bundle = train(&mut application.log(), 400);
    assert_eq!(learned_from(&bundle), (0, 40));
    let mut other = application.log();
    other.work.log.seed = Seed(2);
    assert_ne!(train(&mut other, 400).pipeline, bundle.pipeline);
}

#[test]
fn a_half_life_lets_newer_examples_outweigh_older_ones() {
    // The same visitors three times, so that nothing but the event time tells old from new.
    let visitors = |round: i64, concept| {
        let mut examples = timed(0..40, concept);
        for example in &mut examples {
            example.example_id = format!("{}-{round}", example.example_id);
            example.event_time.0 += round * 40 * MINUTE;
        }
        examples
    };
    let mut application = Application::new();
    for (round, concept) in (0..).zip([OFTEN, OFTEN, SELDOM]) {
        application.append(&visitors(round, concept));
    }
    expect_concept(&train(&mut application.log(), 120), OFTEN);
    application.policy.half_life = Some(10 * MINUTE);
    expect_concept(&train(&mut application.log(), 120), SELDOM);
}

/// Under every policy the bytes of a model follow from the records before its offset: not from the trainings before, from
/// where reads ended, nor from the process.
#[test]
fn a_restart_or_a_move_gives_the_same_bytes_under_every_policy() {
    let hour = 60 * MINUTE;
    // Enough that examples are removed from memory several times. Some are corrected later, many of them when they are not
    // kept any more, and some are written again.
    let mut written = Vec::new();
    for first in (0..3_000).step_by(300) {
        written.extend(timed(first..first + 300, OFTEN));
        written.extend(timed(first / 2..first / 2 + 30, OFTEN).iter().map(correction));
        written.extend(timed(first + 290..first + 292, SELDOM));
    }
    let retentions =
        [Retention::All, Retention::Last(60), Retention::Within(hour), Retention::Reservoir(60)];
    for (retention, initial) in retentions
        .into_iter()
        .flat_map(|retention| [(retention, InitialPolicy::Keep), (retention, InitialPolicy::Age)])
    {
        let mut application = Application::new();
        application.policy = DataPolicy { retention, initial, half_life: Some(hour) };
        application.append(&application.initial(0..40, OFTEN));
        application.append(&written);
        let mut log = application.log();
        for through in [200, 203, 1_500, 2_981, 3_360] {
            let bundle = train(&mut log, through).to_bytes().unwrap();
            let restarted = train(&mut application.log(), through).to_bytes().unwrap();
            assert!(bundle == restarted, "{retention:?} {initial:?} at {through}");
        }
        // An aborted transaction: an earlier request again, in the same process.
        let again = train(&mut log, 1_500).to_bytes().unwrap();
        let expected = train(&mut application.log(), 1_500).to_bytes().unwrap();
        assert!(again == expected, "{retention:?} {initial:?} again");
    }
}

#[test]
fn aging_initial_data_are_replaced_oldest_first() {
    let mut application = Application::new();
    application.policy.retention = Retention::Last(40);
    application.append(&application.initial(0..20, OFTEN));
    application.append(&application.initial(20..40, SELDOM));
    application.append(&stream(0..20, SELDOM));
    assert_eq!(learned_from(&train(&mut application.log(), 60)), (40, 20), "they are kept");
    application.policy.initial = InitialPolicy::Age;
    let bundle = train(&mut application.log(), 60);
    assert_eq!(learned_from(&bundle), (20, 20));
    expect_concept(&bundle, SELDOM);
    application.append(&stream(20..40, SELDOM));
    assert_eq!(learned_from(&train(&mut application.log(), 79)), (1, 39));
    assert_eq!(learned_from(&train(&mut application.log(), 80)), (0, 40));
}

#[test]
fn initial_data_that_have_aged_out_may_be_missing() {
    let mut application = Application::new();
    application.policy.retention = Retention::Last(40);
    application.policy.initial = InitialPolicy::Age;
    application.append(&application.initial(7..40, OFTEN));
    application.append(&stream(0..40, OFTEN));
    assert!(try_train(&mut application.log(), 72).is_err(), "there is room for one of them");
    assert_eq!(learned_from(&train(&mut application.log(), 73)), (0, 40));
}

#[test]
fn a_table_that_replaces_another_leaves_nothing_of_it() {
    let mut application = Application::new();
    application.append(&application.initial(0..40, OFTEN));
    application.append(&stream(0..20, SELDOM));
    let mut log = application.log();
    let before = train(&mut log, 60);
    application.manifest.generation = 2;
    let newer = application.initial(0..40, SELDOM);
    application.append(&newer[..30]);
    expect_same_examples(&train(&mut log, 90), &before);
    application.append(&newer[30..]);
    let bundle = train(&mut log, 100);
    assert_eq!(learned_from(&bundle), (40, 20));
    expect_concept(&bundle, SELDOM);
    let mut other = Application::new();
    other.append(&newer);
    other.append(&stream(0..20, SELDOM));
    expect_same_examples(&bundle, &train(&mut other.log(), 60));
}

#[test]
fn a_correction_replaces_its_example() {
    let examples = stream(0..40, OFTEN);
    let mut application = Application::new();
    application.append(&examples);
    let corrected = [0, 7, 13, 39].map(|number| correction(&examples[number]));
    application.append(&corrected);
    let mut log = application.log();
    // Also if the example was used in a training before.
    let before = train(&mut log, 40);
    let after = train(&mut log, 44);
    assert_ne!(before.booster, after.booster);
    // The same as without the corrected examples.
    let mut right = examples.clone();
    for (number, correction) in [0, 7, 13, 39].into_iter().zip(corrected) {
        right[number] = correction;
    }
    let mut other = Application::new();
    other.append(&right);
    expect_same_examples(&after, &train(&mut other.log(), 40));
    expect_same_examples(&after, &train(&mut application.log(), 44));
}

#[test]
fn a_model_has_the_parameters_of_the_one_that_serves() {
    let mut application = Application::new();
    application.append(&stream(0..40, OFTEN));
    let bundle = train(&mut application.log(), 40);
    let tuned = &first_model().lineage.params;
    assert_ne!(*tuned, Params::default(), "or the test shows nothing");
    assert_eq!(bundle.lineage.params, *tuned);
    // Also after a new model serves.
    let origin = Origin { training: 3, ..Origin::default() };
    let mut other = model(&classes(&["no", "yes"]), 5, origin);
    other.lineage.params.num_leaves = 5;
    application.serve(&other);
    assert_eq!(train(&mut application.log(), 40).lineage.params.num_leaves, 5);
}

#[test]
fn an_earlier_request_does_not_use_later_examples() {
    let mut application = Application::new();
    application.append(&stream(0..40, OFTEN));
    let correction = correction(&stream(0..1, OFTEN)[0]);
    application.append(&[correction]);
    application.append(&stream(40..80, SELDOM));
    let mut log = application.log();
    let first = train(&mut log, 40);
    assert_eq!(train(&mut log, 81).lineage.origin.stream_examples, 80);
    // The transaction of the second request was aborted.
    assert_eq!(train(&mut log, 40), first);
    assert_eq!(train(&mut log, 81), train(&mut application.log(), 81));
    // The same request again reads nothing.
    let readers = application.broker.readers();
    assert_eq!(train(&mut log, 81).lineage.origin.stream_examples, 80);
    assert_eq!(application.broker.readers(), readers);
}

#[test]
fn records_that_were_read_ahead_are_used_by_the_next_request() {
    let mut application = Application::new();
    application.append(&stream(0..80, OFTEN));
    let mut log = application.log();
    // A read returns seven records, so each request ends inside one.
    for through in [20, 21, 40, 58, 80] {
        let bundle = train(&mut log, through);
        assert_eq!(bundle, train(&mut application.log(), through), "{through}");
        let examples = bundle.lineage.origin.stream_examples;
        assert_eq!(i64::try_from(examples), Ok(through));
    }
}

/// A log that was read up to 20, and fails before 60.
fn fails_on_the_way(fault: impl Fn(&Application)) {
    let mut application = Application::new();
    application.append(&stream(0..60, OFTEN));
    let whole = train(&mut application.log(), 60);
    let mut log = application.log();
    train(&mut log, 20);
    fault(&application);
    let failed = catch_unwind(AssertUnwindSafe(|| try_train(&mut log, 60)));
    match failed {
        Err(_panicked) => {}
        Ok(result) => assert!(matches!(result, Err(JobFailure::Retry(_))), "{result:?}"),
    }
    assert_eq!(train(&mut log, 60), whole, "nothing is missing, and nothing is there twice");
}

#[test]
fn a_failed_read_loses_no_example() {
    fails_on_the_way(|application| application.broker.fail_read_after(0));
    fails_on_the_way(|application| application.broker.fail_read_after(3));
}

#[test]
fn an_unavailable_registry_loses_no_example() {
    fails_on_the_way(|application| application.codec.fail_after(0));
    fails_on_the_way(|application| application.codec.fail_after(11));
}

#[test]
fn a_panic_loses_no_example() {
    fails_on_the_way(|application| application.codec.panic_after(11));
}

#[test]
fn a_training_is_cancelled_while_it_reads_if_the_process_stops() {
    let mut application = Application::new();
    application.append(&stream(0..40, OFTEN));
    let mut log = application.log();
    let stopped = log.train(1, 40, &|_, _, _| false);
    assert!(matches!(stopped, Err(JobFailure::Retry(_))), "{stopped:?}");
    assert_eq!(train(&mut log, 40), train(&mut application.log(), 40));
}

#[test]
fn records_that_are_not_examples_are_counted_and_skipped() {
    let mut application = Application::new();
    let mut examples = stream(0..40, OFTEN);
    let whole = {
        let mut other = Application::new();
        other.append(&examples);
        train(&mut other.log(), 40)
    };
    let mut unknown = stream(100..101, OFTEN);
    unknown[0].label = "perhaps".to_owned();
    examples.splice(10..10, unknown);
    let record = application.append(&examples).remove(0);
    let mut publisher = application.broker.publish().unwrap();
    for value in [Some(b"garbage".to_vec()), None] {
        let record = OutputRecord { value, ..record.clone() };
        publisher.send(record).unwrap();
    }
    expect_same_examples(&train(&mut application.log(), 43), &whole);
    let counted = application.counter("foretell_unreadable_records_total", "labelled-examples");
    assert!((counted - 1.0).abs() < f64::EPSILON, "{counted}");
}

#[test]
fn a_log_that_ends_before_the_requested_offset_is_incomplete() {
    let mut application = Application::new();
    application.append(&stream(0..40, OFTEN));
    let mut log = application.log();
    let result = try_train(&mut log, 41);
    assert!(matches!(result, Err(JobFailure::Incomplete(_))), "{result:?}");
    // The records are written after all.
    application.append(&stream(40..41, OFTEN));
    assert_eq!(learned_from(&train(&mut log, 41)), (0, 41));
    // An empty log is incomplete too.
    let (mut log, reads) = (Application::new().log(), AtomicU32::new(0));
    let result = log.train(1, 40, &|_, _, _| {
        reads.fetch_add(1, Ordering::SeqCst);
        true
    });
    assert!(matches!(result, Err(JobFailure::Incomplete(_))), "{result:?}");
    assert_eq!(reads.into_inner(), 1);
}

#[test]
fn the_wait_for_a_log_without_records_is_bounded() {
    let mut application = Application::new();
    application.append(&stream(0..40, OFTEN));
    application.broker.be_silent(true);
    let (mut log, calls) = (application.log(), AtomicU32::new(0));
    let result = log.train(1, 40, &|_, _, _| calls.fetch_add(1, Ordering::SeqCst) < 1_000);
    assert!(matches!(result, Err(JobFailure::Incomplete(_))), "{result:?} after {calls:?}");
    application.broker.be_silent(false);
    assert_eq!(learned_from(&train(&mut log, 40)), (0, 40));
}

#[test]
fn a_log_without_records_for_a_while_is_waited_for() {
    let mut application = Application::new();
    application.append(&stream(0..40, OFTEN));
    application.broker.be_silent(true);
    let (mut log, calls) = (application.log(), AtomicU32::new(0));
    let result = log.train(1, 40, &|_, _, _| {
        application.broker.be_silent(calls.fetch_add(1, Ordering::SeqCst) < 50);
        true
    });
    assert_eq!(learned_from(&result.unwrap()), (0, 40));
}

#[test]
fn a_log_of_many_small_reads_is_read_to_its_end() {
    let mut application = Application::new();
    application.append(&stream(0..260, OFTEN));
    application.broker.read_one_by_one();
    assert_eq!(learned_from(&train(&mut application.log(), 260)), (0, 260));
}

#[test]
fn a_model_larger_than_a_record_is_a_failure() {
    let mut application = Application::new();
    let mut examples = stream(0..4_096, OFTEN);
    let mut state = 1_u64;
    for example in &mut examples {
        // Each category has 5,500 characters that do not compress, which gives a bundle of more than 15 MiB.
        let character = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'0' + u8::try_from(state >> 58).unwrap())
        };
        let text: String = (0..5_500).map(character).collect();
        example.answers = answers(1, &text, 1.0);
    }
    application.append(&examples);
    let result = try_train(&mut application.log(), 4_096).map(|bundle| bundle.version());
    let Err(JobFailure::Failed(reason)) = result else { panic!("{result:?}") };
    assert!(reason.contains("is too large for a record"), "{reason}");
}

#[test]
fn the_champion_gives_the_minimum_of_initial_examples() {
    let mut application = Application::new();
    let origin = Origin { initial_examples: 40, ..Origin::default() };
    application.serve(&model(&classes(&["no", "yes"]), 5, origin));
    application.append(&stream(0..40, OFTEN));
    let result = try_train(&mut application.log(), 40);
    assert!(matches!(result, Err(JobFailure::Incomplete(_))), "{result:?}");
    application.append(&application.initial(0..40, OFTEN));
    assert_eq!(learned_from(&train(&mut application.log(), 80)), (40, 40));
}

#[test]
fn a_training_with_missing_initial_examples_is_incomplete() {
    let mut application = Application::new();
    application.append(&application.initial(1..40, OFTEN));
    application.append(&stream(0..20, OFTEN));
    let mut log = application.log();
    let result = try_train(&mut log, 59);
    assert!(matches!(result, Err(JobFailure::Incomplete(_))), "{result:?}");
    application.append(&application.initial(0..1, OFTEN));
    assert_eq!(learned_from(&train(&mut log, 60)), (40, 20));
}
