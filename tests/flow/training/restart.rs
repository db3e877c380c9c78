//! The copy of the training set on disk: a training after a restart has the examples of the log, whatever has happened to the
//! copy and to the log.

use std::{fs, path::Path};

use foretell::{
    events::labelled_example::{ExampleOrigin, LabelledExample},
    processors::{
        initial_data::Manifest,
        learning::{
            job::JobFailure,
            trainer::Work as _,
            training_log::{DiskCopy, TrainingLog},
        },
    },
};
use foretell_ml::{
    Column, ColumnKind, DataPolicy, InitialPolicy, Label, PipelineSpec, Retention, Scaling, Seed,
    Value,
};
use foretell_streams::{
    record::OutputRecord,
    runtime::broker::{Broker as _, Isolation},
    time::EventTime,
};
use proptest::prelude::*;

use super::{Application, OFTEN, SELDOM, Trainings, correction, example, stream};
use crate::fixture::{EPOCH_MS, classes};

impl Application {
    /// The training log of a process that starts with the copy in `folder`, which is replaced after every read.
    fn log_on(&self, folder: &Path) -> TrainingLog {
        let disk = DiskCopy::open(folder).map(|disk| disk.replaced_after(1));
        assert!(disk.is_some(), "an earlier process has the folder");
        TrainingLog { disk, ..self.work().log }
    }

    /// The number of copies by what was done with them.
    #[track_caller]
    fn expect_copies(&self, result: &str, expected: u32) {
        let counted = self.counter("foretell_training_set_copies_total", result);
        assert!((counted - f64::from(expected)).abs() < f64::EPSILON, "{result}: {counted}");
    }
}

/// Everything that a training gets.
#[derive(Debug, PartialEq)]
struct Drawn {
    values: Vec<Vec<Value>>,
    labels: Vec<Label>,
    weights: Vec<u32>,
    offsets: Vec<i64>,
    initial: usize,
}

/// The sample of the log before an offset.
fn draw(log: &mut TrainingLog, through: i64) -> Result<Drawn, JobFailure> {
    log.read_to(through, &|_, _, _| true)?;
    let (sample, initial) = log.sample(0)?;
    Ok(Drawn {
        values: sample.values().map(|values| values.map(Value::from).collect()).collect(),
        labels: sample.labels().collect(),
        weights: sample.weights().into_iter().map(f32::to_bits).collect(),
        offsets: log.stream().unwrap().offsets(&sample),
        initial,
    })
}

/// Reads before an offset, replaces the copy, and ends the process.
fn copy_before(application: &Application, folder: &Path, through: i64) {
    let mut log = application.log_on(folder);
    log.read_to(through, &|_, _, _| true).unwrap();
    log.save(&|| true);
}

#[derive(Clone, Copy, Debug)]
enum Written {
    Initial { generation: u64, row: u64 },
    Stream { id: u32, jitter: i64, is_correction: bool, is_known: bool },
    Unreadable,
}

/// Rows of each table of the property test.
const TABLE_ROWS: u64 = 5;

fn records() -> impl Strategy<Value = Written> {
    prop_oneof![
        3 => (1..4_u64, 0..TABLE_ROWS)
            .prop_map(|(generation, row)| Written::Initial { generation, row }),
        6 => (0..40_u32, 0..30_i64, any::<bool>(), prop::bool::weighted(0.9)).prop_map(
            |(id, jitter, is_correction, is_known)| Written::Stream { id, jitter, is_correction, is_known },
        ),
        1 => Just(Written::Unreadable),
    ]
}

fn policies() -> impl Strategy<Value = DataPolicy> {
    let retention = prop_oneof![
        Just(Retention::All),
        (1..30_usize).prop_map(Retention::Last),
        (1..100_i64).prop_map(Retention::Within),
        (1..30_usize).prop_map(Retention::Reservoir),
    ];
    let initial = prop_oneof![Just(InitialPolicy::Keep), Just(InitialPolicy::Age)];
    let half_life = prop_oneof![Just(None), Just(Some(20))];
    (retention, initial, half_life).prop_map(|(retention, initial, half_life)| DataPolicy {
        retention,
        half_life,
        initial,
    })
}

fn append(application: &mut Application, place: u32, written: Written) {
    match written {
        Written::Initial { generation, row } => {
            let table = ["a", "b", "a"][usize::try_from(generation - 1).unwrap()].repeat(64);
            application.manifest = Manifest { generation, table, examples: TABLE_ROWS };
            let rows = u32::try_from(row).unwrap()..u32::try_from(row + 1).unwrap();
            application.append(&application.initial(rows, OFTEN));
        }
        Written::Stream { id, jitter, is_correction, is_known } => {
            let named = example(ExampleOrigin::Stream, &format!("p-{id}"), place, OFTEN);
            let label = if is_known { named.label.clone() } else { "perhaps".to_owned() };
            let event_time = EventTime(EPOCH_MS + i64::from(place) / 2 + jitter);
            let example = LabelledExample { label, event_time, correction: is_correction, ..named };
            application.append(&[example]);
        }
        Written::Unreadable => publish(application, b"garbage"),
    }
}

/// Writes a record that is no example.
fn publish(application: &Application, value: &[u8]) {
    let topic = &application.fixture.topics.labelled_examples;
    let mut publisher = application.broker.publish().unwrap();
    publisher.send(OutputRecord::new(topic, None, Some(value), EventTime(0))).unwrap();
    publisher.flush().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Tables replace each other before and after the copies, rows and examples repeat, some records cannot be used. A
    /// process copies at two offsets, which may be beyond the one that the next needs.
    #[test]
    fn a_restart_from_the_copy_has_the_examples_of_the_log(
        written in prop::collection::vec(records(), 1..150),
        policy in policies(),
        [copied, again, through] in any::<[prop::sample::Index; 3]>(),
    ) {
        // Without an example there is nothing to copy.
        let first = Written::Stream { id: 0, jitter: 0, is_correction: false, is_known: true };
        let written = [vec![first], written].concat();
        let mut application = Application::new();
        application.policy = policy;
        for (place, one) in (0..).zip(&written) {
            append(&mut application, place, *one);
        }
        let offset = |index: prop::sample::Index| {
            i64::try_from(index.index(written.len())).unwrap() + 1
        };
        let [copied, again, through] = [copied, again, through].map(offset);
        let folder = tempfile::tempdir().unwrap();
        copy_before(&application, folder.path(), copied);
        copy_before(&application, folder.path(), again);
        let mut log = application.log_on(folder.path());
        for through in [through, i64::try_from(written.len()).unwrap()] {
            let expected = draw(&mut application.work().log, through);
            prop_assert_eq!(draw(&mut log, through), expected);
        }
        application.expect_copies("removed", 0);
        // The second process may have read too little to replace the copy of the first.
        let is_read = u32::from(again >= copied) + u32::from(through >= copied.max(again));
        let read = application.counter("foretell_training_set_copies_total", "read");
        prop_assert!(read >= f64::from(is_read), "{} of {}", read, is_read);
    }
}

/// 40 initial examples and 60 from the stream; the copy has the first 80 of them.
fn application_with_copy(folder: &Path) -> Application {
    let mut application = Application::new();
    application.append(&application.initial(0..40, OFTEN));
    application.append(&stream(0..60, OFTEN));
    copy_before(&application, folder, 80);
    application.expect_copies("written", 1);
    application
}

#[test]
fn a_restart_reads_the_copy_and_the_rest_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let application = application_with_copy(folder.path());
    let whole = draw(&mut application.work().log, 100);
    let mut log = application.log_on(folder.path());
    // Nothing before the copy's last record is decoded again.
    application.codec.panic_after(20);
    assert_eq!(draw(&mut log, 100), whole);
    application.expect_copies("read", 1);
    let bytes = application.gauge("foretell_training_set_bytes", "disk");
    let file = fs::metadata(folder.path().join("copy")).unwrap();
    assert!((bytes - file.len() as f64).abs() < f64::EPSILON, "{bytes}");
    assert!(application.gauge("foretell_training_set_bytes", "memory") > 0.0);
}

/// The bytes of the models after a restart from the copy, for each policy.
#[test]
fn a_model_has_the_same_bytes_with_and_without_the_copy() {
    let hour = 3_600_000;
    let retentions =
        [Retention::All, Retention::Last(60), Retention::Within(hour), Retention::Reservoir(60)];
    for retention in retentions {
        let mut application = Application::new();
        let half_life = Some(hour);
        application.policy = DataPolicy { retention, half_life, ..DataPolicy::default() };
        application.append(&application.initial(0..40, OFTEN));
        for first in (0..1_200).step_by(300) {
            let mut examples = stream(first..first + 300, OFTEN);
            for (number, example) in (i64::from(first)..).zip(&mut examples) {
                example.event_time = EventTime(EPOCH_MS + number * 60_000);
            }
            application.append(&examples);
            let corrected = examples.iter().step_by(9).map(correction).collect::<Vec<_>>();
            application.append(&corrected);
        }
        let folder = tempfile::tempdir().unwrap();
        for through in [700, 1_181, 1_370] {
            let train = |log: TrainingLog| {
                let work = super::LearningWork { log, ..application.work() };
                let mut log = Trainings { work, serving: application.serving.clone() };
                let bundle = log.train(1, through, &|_, _, _| true).unwrap();
                log.work.between_jobs(&|| true);
                bundle.to_bytes().unwrap()
            };
            let bytes = train(application.log_on(folder.path()));
            assert!(bytes == train(application.work().log), "{retention:?} at {through}");
        }
        application.expect_copies("written", 3);
        application.expect_copies("read", 2);
    }
}

/// Checks that a damaged copy is removed, that the log is read in its place, and that the next copy is good.
#[track_caller]
fn expect_damaged(folder: &Path, bytes: &[u8], what: &str) {
    let mut application = application_with_copy(folder);
    let path = folder.join("copy");
    fs::write(&path, bytes).unwrap();
    let mut log = application.log_on(folder);
    assert_eq!(draw(&mut log, 100), draw(&mut application.work().log, 100), "{what}");
    application.expect_copies("removed", 1);
    application.expect_copies("read", 0);
    assert!(!path.exists(), "{what}");
    log.save(&|| true);
    drop(log);
    application.append(&stream(60..70, SELDOM));
    let mut log = application.log_on(folder);
    assert_eq!(draw(&mut log, 110), draw(&mut application.work().log, 110), "{what}");
    application.expect_copies("read", 1);
}

#[test]
fn a_damaged_copy_is_removed_and_the_log_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    application_with_copy(folder);
    let whole = fs::read(folder.join("copy")).unwrap();
    for end in (0..whole.len()).step_by(whole.len() / 20) {
        fs::remove_file(folder.join("copy")).unwrap();
        expect_damaged(folder, &whole[..end], &format!("the first {end} bytes"));
    }
    for position in [0, 1, 5, 12, 13, 50, whole.len() / 2, whole.len() - 13, whole.len() - 1] {
        fs::remove_file(folder.join("copy")).unwrap();
        let mut changed = whole.clone();
        changed[position] ^= 4;
        expect_damaged(folder, &changed, &format!("a changed bit of byte {position}"));
    }
    fs::remove_file(folder.join("copy")).unwrap();
    expect_damaged(folder, &[whole.as_slice(), b"x"].concat(), "a byte more");
}

/// A process can die before, while and after it writes, and before and after the new copy takes the place of the old one.
#[test]
fn a_process_that_dies_at_any_step_of_writing_leaves_a_copy_that_can_be_used_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let (copy, unfinished) = (folder.path().join("copy"), folder.path().join("copy.new"));
    let application = application_with_copy(folder.path());
    let before = fs::read(&copy).unwrap();
    copy_before(&application, folder.path(), 95);
    let after = fs::read(&copy).unwrap();
    assert_ne!(before, after);
    let whole = draw(&mut application.work().log, 100);
    let mut read = 1;
    let mut check = |old: Option<&[u8]>, new: Option<&[u8]>| {
        for (path, bytes) in [(&copy, old), (&unfinished, new)] {
            match bytes {
                Some(bytes) => fs::write(path, bytes).unwrap(),
                None => drop(fs::remove_file(path)),
            }
        }
        assert_eq!(draw(&mut application.log_on(folder.path()), 100), whole);
        read += u32::from(old.is_some());
        application.expect_copies("read", read);
        application.expect_copies("removed", 0);
        assert!(!unfinished.exists());
    };
    check(None, None);
    for unfinished in [&after[..0], &after[..1], &after[..after.len() / 2], &after] {
        check(None, Some(unfinished));
        check(Some(&before), Some(unfinished));
    }
    check(Some(&after), None);
}

/// Checks that the copy of another application in the same folder is removed.
#[track_caller]
fn expect_other_log(application: &Application, folder: &Path, through: i64, what: &str) {
    let mut log = application.log_on(folder);
    assert_eq!(draw(&mut log, through), draw(&mut application.work().log, through), "{what}");
    application.expect_copies("removed", 1);
    application.expect_copies("read", 0);
    assert!(!folder.join("copy").exists(), "{what}");
}

#[test]
fn the_copy_of_a_log_that_was_created_again_or_truncated_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let check = |examples: &dyn Fn(&Application) -> Vec<LabelledExample>, what: &str| {
        application_with_copy(folder);
        let mut application = Application::new();
        application.append(&examples(&application));
        let end = application.broker.end(&application.source(), Isolation::ReadUncommitted);
        let through = end.unwrap().0;
        expect_other_log(&application, folder, through, what);
    };
    let all = |application: &Application| {
        [application.initial(0..40, OFTEN), stream(0..60, OFTEN)].concat()
    };
    check(&|application| all(application).split_off(5), "its first records are gone");
    check(&|application| all(application)[..70].to_vec(), "its last records are gone");
    let other_at = |place: usize| {
        move |application: &Application| {
            let mut examples = all(application);
            examples[place].event_time.0 += 1;
            examples
        }
    };
    check(&other_at(0), "it begins with another record");
    check(&other_at(79), "it has another record where the copy ends");
    let shifted = |application: &Application| {
        let mut examples = all(application);
        examples.insert(10, stream(100..101, OFTEN).remove(0));
        examples
    };
    check(&shifted, "it has one record more");
}

#[test]
fn a_copy_of_other_settings_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let check = |change: &dyn Fn(&mut TrainingLog)| {
        let application = application_with_copy(folder.path());
        let mut log = application.log_on(folder.path());
        change(&mut log);
        let mut expected = application.work().log;
        change(&mut expected);
        assert_eq!(draw(&mut log, 100), draw(&mut expected, 100));
        application.expect_copies("removed", 1);
        application.expect_copies("read", 0);
    };
    check(&|log| log.policy.retention = Retention::Last(30));
    check(&|log| log.policy.half_life = Some(1_000));
    check(&|log| log.policy.initial = InitialPolicy::Age);
    check(&|log| log.seed = Seed(2));
    check(&|log| log.classes = classes(&["yes", "no"]));
    check(&|log| {
        let column = Column::new("visits", ColumnKind::Categorical);
        log.spec = PipelineSpec::new(vec![column], Scaling::MinMax, Vec::new()).unwrap();
    });
    let schema = crate::fixture::SCHEMA
        .replace("\"minutes\", \"type\"", "\"minutes\", \"aliases\": [\"m\"], \"type\"");
    let evolved = Application::new().fixture.evolved(&schema);
    check(&|log| log.events = std::sync::Arc::clone(&evolved.schema));
}

#[test]
fn an_earlier_job_does_not_use_a_later_copy_and_leaves_it() {
    let folder = tempfile::tempdir().unwrap();
    let application = application_with_copy(folder.path());
    let mut log = application.log_on(folder.path());
    // Before the copy; on in memory; before that and after the copy; before the copy; on in memory.
    for through in [60, 100, 90, 70, 100] {
        let expected = draw(&mut application.work().log, through);
        assert_eq!(draw(&mut log, through), expected, "{through}");
        application.expect_copies("removed", 0);
    }
    application.expect_copies("read", 1);
    draw(&mut log, 70).unwrap();
    log.save(&|| true);
    application.expect_copies("written", 1);
}

#[test]
fn a_copy_that_cannot_be_checked_now_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let application = application_with_copy(folder.path());
    let mut log = application.log_on(folder.path());
    let expect_retry = |result: Result<Drawn, JobFailure>| {
        assert!(matches!(result, Err(JobFailure::Retry(_))), "{result:?}");
    };
    for reads in [0, 1] {
        application.broker.fail_read_after(reads);
        expect_retry(draw(&mut log, 100));
    }
    application.broker.be_silent(true);
    expect_retry(draw(&mut log, 100));
    application.broker.be_silent(false);
    let stopped = log.read_to(100, &|_, _, _| false);
    assert!(matches!(stopped, Err(JobFailure::Retry(_))), "{stopped:?}");
    application.expect_copies("removed", 0);
    assert_eq!(draw(&mut log, 100), draw(&mut application.work().log, 100));
    application.expect_copies("read", 1);
}

#[test]
fn the_copy_is_replaced_after_enough_records() {
    let folder = tempfile::tempdir().unwrap();
    let mut application = Application::new();
    let open = |application: &Application| {
        let disk = DiskCopy::open(folder.path()).unwrap().replaced_after(30);
        TrainingLog { disk: Some(disk), ..application.work().log }
    };
    let mut log = open(&application);
    let round = |application: &Application, log: &mut TrainingLog, through, written| {
        log.read_to(through, &|_, _, _| true).unwrap();
        log.save(&|| true);
        application.expect_copies("written", written);
    };
    application.append(&stream(0..1_000, OFTEN));
    round(&application, &mut log, 29, 0);
    round(&application, &mut log, 30, 1);
    round(&application, &mut log, 59, 1);
    round(&application, &mut log, 60, 2);
    round(&application, &mut log, 900, 3);
    // A tenth of the examples is more now.
    round(&application, &mut log, 950, 3);
    drop(log);
    // A restart has read 50 records again.
    let mut log = open(&application);
    round(&application, &mut log, 989, 3);
    round(&application, &mut log, 1_000, 4);
    // A process that stops writes nothing.
    application.append(&stream(1_000..1_200, OFTEN));
    log.read_to(1_200, &|_, _, _| true).unwrap();
    log.save(&|| false);
    application.expect_copies("written", 4);
    application.expect_copies("failed", 0);
    drop(log);
    assert_eq!(draw(&mut open(&application), 1_200), draw(&mut application.work().log, 1_200));
}

#[test]
fn a_copy_that_cannot_be_written_is_counted_and_tried_again_later() {
    let folder = tempfile::tempdir().unwrap();
    let mut application = Application::new();
    application.append(&stream(0..100, OFTEN));
    let mut log = application.log_on(folder.path());
    // Neither root nor anyone can write a file where a folder is.
    fs::create_dir(folder.path().join("copy.new")).unwrap();
    for (through, failed) in [(40, 1), (40, 1), (50, 2)] {
        log.read_to(through, &|_, _, _| true).unwrap();
        log.save(&|| true);
        application.expect_copies("failed", failed);
    }
    assert_eq!(draw(&mut log, 100), draw(&mut application.work().log, 100));
    fs::remove_dir(folder.path().join("copy.new")).unwrap();
    log.save(&|| true);
    application.expect_copies("written", 1);
}

/// The registry may have the schema when the log is read again.
#[test]
fn examples_without_those_of_an_unknown_schema_are_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let mut application = Application::new();
    application.append(&stream(0..40, OFTEN));
    publish(&application, &[0, 0, 0, 1, 99, 6]);
    let mut log = application.log_on(folder.path());
    for (through, written) in [(40, 1), (41, 1)] {
        log.read_to(through, &|_, _, _| true).unwrap();
        log.save(&|| true);
        application.expect_copies("written", written);
    }
}
