//! The formats that later releases must read: changelogs, models, folders of stores. The files in `golden/` were written by the
//! first release with the format in their name, and are never changed. A release that changes a format raises its number, and
//! still reads these files.

use std::{fmt::Write as _, fs, path::PathBuf, process::Command, time::Duration};

use foretell::{
    events::command::CommandKind,
    processors::{
        actions::{After, CancelOn, RuleSettings},
        learning::{
            job::{Cause, CheckRequest, Job, TrainingRequest},
            outputs::records_of,
            state::{Challenger, Due, LearningState, ModelRef, Predecessor},
        },
        model_table::ModelTableError,
        outcome_join::Emit,
    },
};
use foretell_ml::{ModelBundle, ModelVersion, Scorer, Scratch, Value};
use foretell_streams::{
    codec::Codec as _,
    local::TopologyDriver,
    record::{Offset, Partition, Topic, TopicPartition},
    state::{Access, DiskStores, Incarnation, StateError, StoreSupplier as _},
    time::EventTime,
};
use serde_json::json;

use crate::{
    actions::rule,
    fixture::{NOW, second_model},
    respondents,
    scored::{GRACE, Operation, Scored, Settings, WINDOW, outcome, time_is, visit},
};

pub(crate) fn golden(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flow/golden")).join(name)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").unwrap();
        digits
    })
}

pub(crate) fn bytes(digits: &str) -> Vec<u8> {
    let byte = |place| u8::from_str_radix(&digits[place..place + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

const STORES: [&str; 3] = [
    "shop-scoring-observations-changelog",
    "shop-scoring-outcomes-changelog",
    "shop-scoring-recent-events-changelog",
];

/// An observation, two predictions (one with a challenger) and an outcome that wait, and one of each that is complete.
fn stores_a_value_of_each_kind(scored: &mut Scored) {
    scored.apply(&Operation::Event("ann", 10, json!({"visits": 3, "plan": "gold"})));
    scored.apply(&visit("bob", 11));
    scored.apply(&outcome("cem", 12, "yes"));
    scored.apply(&visit("dee", 13));
    scored.apply(&outcome("dee", 14, "no"));
    let golden = ModelBundle::from_bytes(&fs::read(golden("model-v1.bundle")).unwrap()).unwrap();
    scored.challenge(&ModelBundle { threshold: 0.25, ..golden });
    scored.apply(&Operation::Event("eve", 15, json!({"minutes": 1.0})));
    scored.apply(&Operation::Event("eve", 16, json!({"visits": 1, "done": true})));
    scored.apply(&Operation::Commit);
}

/// An instance with the model of the golden file, because a training on another machine may differ in the last bit.
fn instance() -> Scored {
    instance_with(&Settings::default())
}

fn instance_with(settings: &Settings) -> Scored {
    let mut scored = Scored::without_model(settings);
    let bytes = fs::read(golden("model-v1.bundle")).unwrap();
    scored.serve(&ModelBundle::from_bytes(&bytes).unwrap());
    scored
}

/// A line for each record: topic, timestamp, key, value.
pub(crate) fn changelog_lines(scored: &Scored, stores: &[&str]) -> String {
    let mut lines = String::new();
    for store in stores {
        for record in scored.driver.changelog(&Topic::new(store)) {
            let key = hex(record.key.as_deref().unwrap());
            let value = record.value.as_deref().map_or("-".to_owned(), hex);
            writeln!(lines, "{store} {} {key} {value}", record.timestamp.0).unwrap();
        }
    }
    lines
}

/// A changelog record of an earlier process.
pub(crate) struct ChangelogRecord {
    changelog: Topic,
    timestamp: EventTime,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// Parses the records of a golden file, which [`changelog_lines`] has written.
pub(crate) fn left(name: &str) -> Vec<ChangelogRecord> {
    let lines = fs::read_to_string(golden(name)).unwrap();
    let record = |line: &str| {
        let [changelog, timestamp, key, value] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        ChangelogRecord {
            changelog: Topic::new(changelog),
            timestamp: EventTime(timestamp.parse().unwrap()),
            key: bytes(key),
            value: (value != "-").then(|| bytes(value)),
        }
    };
    lines.lines().map(record).collect()
}

/// Writes them to the changelogs before the next task starts.
pub(crate) fn leave(driver: &mut TopologyDriver, records: &[ChangelogRecord]) {
    for ChangelogRecord { changelog, timestamp, key, value } in records {
        driver.append_to_changelog(changelog, key, value.as_deref(), *timestamp);
    }
}

#[test]
fn changelogs_are_written_in_their_format() {
    let mut scored = instance();
    stores_a_value_of_each_kind(&mut scored);
    let kept = fs::read_to_string(golden("changelogs-v8.txt")).unwrap();
    assert_eq!(
        changelog_lines(&scored, &STORES),
        kept,
        "the stores' format has changed: raise its number beside the type, keep reading the old one, \
         and put what is written now into golden/changelogs-v9.txt"
    );
}

const STORES_OF_ACTIONS: [&str; 3] = [
    "shop-scoring-actions-by-stream-time-changelog",
    "shop-scoring-actions-by-wall-clock-changelog",
    "shop-scoring-acted-changelog",
];

/// A rule with a timer of each kind, and one that acts at once.
fn rules_of_each_kind() -> Settings {
    let (soon, seconds) =
        (Duration::from_secs(10), RuleSettings { reasons: 0, ..rule("", "true") });
    let rules = [
        ("soon", After::EventTime(soon)),
        ("clock", After::Wall(soon)),
        ("now", After::EventTime(Duration::ZERO)),
    ];
    let rule = |(name, after): (&str, After)| RuleSettings {
        name: name.to_owned(),
        after,
        ..seconds.clone()
    };
    Settings { rules: rules.map(rule).into(), ..Settings::default() }
}

#[test]
fn the_stores_of_actions_are_written_in_their_format() {
    let mut scored = instance_with(&rules_of_each_kind());
    scored.apply(&visit("ann", 10));
    scored.apply(&Operation::Commit);
    let kept = fs::read_to_string(golden("actions-v2.txt")).unwrap();
    assert_eq!(
        changelog_lines(&scored, &STORES_OF_ACTIONS),
        kept,
        "the stores' format has changed: raise its number beside the type, keep reading the old one, \
         and put what is written now into golden/actions-v3.txt"
    );
}

#[test]
fn the_store_of_cancelled_actions_is_written_in_its_format_and_restored() {
    let stores = ["shop-scoring-cancelled-actions-changelog"];
    let mut settings = rules_of_each_kind();
    settings.rules[0].cancel_on = vec![CancelOn::Outcome];
    let shown = |scored: &mut Scored| {
        let known = respondents::answer(scored, "ann").actions;
        known.into_iter().find_map(|action| Some((action.rule, action.cancelled?)))
    };
    let mut scored = instance_with(&settings);
    scored.apply(&visit("ann", 10));
    scored.apply(&outcome("ann", 11, "no"));
    scored.apply(&Operation::Commit);
    let kept = fs::read_to_string(golden("cancelled-actions-v1.txt")).unwrap();
    assert_eq!(changelog_lines(&scored, &stores), kept, "raise the number of the format");
    let expected = Some(("soon".to_owned(), "an outcome came".to_owned()));
    assert_eq!(shown(&mut scored), expected);
    let mut scored = instance_with(&settings);
    leave(&mut scored.driver, &left("cancelled-actions-v1.txt"));
    scored.apply(&Operation::Restart);
    scored.apply(&time_is(12));
    assert_eq!(shown(&mut scored), expected);
}

#[test]
fn a_held_example_is_written_in_its_format_and_restored() {
    let settings = Settings { emit: Emit::OnClose, ..Settings::default() };
    let mut scored = instance_with(&settings);
    scored.apply(&visit("ann", 10));
    scored.apply(&outcome("ann", 11, "no"));
    scored.apply(&Operation::Commit);
    let kept = fs::read_to_string(golden("held-v1.txt")).unwrap();
    let written = changelog_lines(&scored, &["shop-scoring-outcomes-changelog"]);
    assert_eq!(written, kept, "raise the number of the format");
    let mut scored = instance_with(&settings);
    leave(&mut scored.driver, &left("held-v1.txt"));
    scored.apply(&Operation::Restart);
    scored.apply(&time_is(10 + WINDOW + GRACE + 5));
    assert_eq!(scored.outputs(), ["learned ann@10 no after 1 s 3 gold 1.5"]);
}

#[test]
fn the_stores_of_actions_are_restored() {
    ["actions-v1.txt", "actions-v2.txt"].into_iter().for_each(actions_are_restored);
}

fn actions_are_restored(format: &str) {
    let mut scored = instance_with(&rules_of_each_kind());
    leave(&mut scored.driver, &left(format));
    scored.apply(&Operation::Restart);
    scored.driver.advance(Duration::ZERO).unwrap();
    // At most one of each rule: those that were due count.
    scored.apply(&visit("ann", 11));
    scored.apply(&time_is(20));
    scored.driver.advance(Duration::from_secs(10)).unwrap();
    scored.apply(&outcome("ann", 30, "yes"));
    let rules: Vec<String> = scored.actions().into_iter().map(|action| action.rule).collect();
    assert_eq!(rules, ["soon", "clock"]);
    let example = scored.examples().pop().unwrap();
    let acted: Vec<&str> = example.actions.iter().map(|action| action.rule).collect();
    // The first was before this prediction, and that by the clock after the outcome.
    assert_eq!(acted, ["soon"], "{format}");
}

#[test]
fn changelogs_of_each_format_are_restored() {
    for version in 1..=8 {
        let format = &format!("changelogs-v{version}.txt");
        let mut scored = instance();
        leave(&mut scored.driver, &left(format));
        scored.apply(&Operation::Restart);
        scored.apply(&Operation::Event("ann", 20, json!({"minutes": 2.0})));
        scored.apply(&outcome("bob", 21, "yes"));
        scored.apply(&visit("cem", 22));
        let expected = [
            "scored ann@20 3 gold 2",
            "learned bob@11 yes after 10 s 3 gold 1.5",
            "scored cem@22 3 gold 1.5",
            "learned cem@22 yes after -10 s 3 gold 1.5",
        ];
        assert_eq!(scored.outputs(), expected, "{format}");
        scored.apply(&outcome("eve", 23, "yes"));
        let challenger = scored.examples().pop().unwrap().challenger;
        assert_eq!(challenger.is_some(), version >= 4, "{format}");
    }
}

#[test]
fn the_learning_store_is_written_in_its_format() {
    let version = ModelVersion::new("0123456789ab");
    let champion = ModelRef { version: version.clone(), training: 0 };
    let request = TrainingRequest {
        training: 3,
        through: 1_234,
        parent: Some(version),
        cause: Cause::examples(),
    };
    let state = LearningState {
        examples: 10,
        through: 1_300,
        trainings: 2,
        running: Some(Job::Train(request.clone())),
        due: Due { training: Some((1_300, Cause::examples())), ..Due::default() },
        champion: Some(champion),
        ..LearningState::default()
    };
    let codec = LearningState::codec();
    let value = |file: &str| left(file)[0].value.clone().unwrap();
    assert_eq!(codec.decode(&value("learning-v1.txt")).as_ref(), Ok(&state));
    let model = |training| ModelRef { version: ModelVersion::new("ba9876543210"), training };
    let check = CheckRequest {
        command_id: "c-1".to_owned(),
        kind: CommandKind::Promote,
        version: ModelVersion::new("ba9876543210"),
        reason: Some("a test".to_owned()),
        requested_by: None,
    };
    let state = LearningState {
        interrupted: Some(request),
        predecessor: Some(Predecessor {
            model: model(1),
            since: 1_100,
            examples: 8,
            is_automatic: true,
        }),
        challenger: Some(Challenger { model: model(2), since: 1_200 }),
        schedule: Some(("@daily".to_owned(), 86_400_000)),
        recent_commands: ["c-1".to_owned()].into(),
        due: Due {
            judgement: Some(1_300),
            rollback_check: Some(1_290),
            commands: [check].into(),
            ..state.due.clone()
        },
        ..state
    };
    let kept = value("learning-v2.txt");
    assert_eq!(codec.decode(&kept).as_ref(), Ok(&state));
    let mut written = Vec::new();
    codec.encode(&state, &mut written).unwrap();
    assert_eq!(
        hex(&written),
        hex(&kept),
        "raise LearningState::FORMAT, and keep reading the old one"
    );
}

/// The first byte of a value is the number of its format.
#[test]
fn a_changelog_of_a_later_format_has_an_error_of_its_own() {
    let mut later = left("changelogs-v1.txt");
    for value in later.iter_mut().filter_map(|record| record.value.as_mut()) {
        assert_eq!(value[0], 1);
        value[0] = 9;
    }
    let mut scored = instance();
    leave(&mut scored.driver, &later);
    scored.apply(&Operation::Restart);
    let event = scored.event("ann", 20, &json!({"minutes": 2.0}));
    let topic = scored.fixture.topics.questionnaire_events.clone();
    let refused = scored.driver.pipe(&topic, Some(b"ann"), Some(&event), EventTime(NOW.0));
    let Err(error @ StateError::OtherFormat { .. }) = refused else { panic!("{refused:?}") };
    let message = error.to_string();
    for words in [STORES[0], "format 9", "format 4", "start the release that wrote them"] {
        assert!(message.contains(words), "{words:?} in {message}");
    }
}

#[test]
fn models_of_each_format_score_the_same_as_when_they_were_written() {
    let bytes = fs::read(golden("model-v1.bundle")).unwrap();
    let bundle = ModelBundle::from_bytes(&bytes).unwrap();
    let scorer = Scorer::from_bytes(&bytes).unwrap();
    let text = |text: &str| Value::Text(text.to_owned());
    let rows = [
        [Value::Number(3.0), text("gold"), Value::Number(1.5)],
        [Value::Number(15.0), text("never seen"), Value::Missing],
        [Value::Missing, Value::Missing, Value::Missing],
    ];
    let said = rows.iter().map(|row| {
        let probabilities = scorer.score(row, &mut Scratch::default());
        format!("{:016x}\n", probabilities.as_slice()[1].to_bits())
    });
    let said = format!("{}\n{}", scorer.version().as_str(), said.collect::<String>());
    assert_eq!(said, fs::read_to_string(golden("model-v1.scores.txt")).unwrap());
    let again = bundle.to_bytes().unwrap();
    assert_eq!(
        ModelBundle::with_version(&again).unwrap(),
        (bundle, scorer.version().clone()),
        "the bundle's content has changed: what it had must keep its bytes, and what is new must not be written for an \
         old model; or raise the format's number in crates/foretell-ml/src/bundle.rs, and keep reading this one"
    );
}

#[test]
fn a_model_of_a_later_format_does_not_serve() {
    let mut scored = instance();
    let mut announced = records_of(second_model(), "test", NOW).unwrap();
    for record in &mut announced {
        if let Some(bundle) = &mut record.bundle {
            bundle[0] = 9;
        }
    }
    let results: Vec<_> = announced.iter().map(|record| scored.table.apply(record)).collect();
    let Some(Err(error @ ModelTableError::Bundle { .. })) = results.last() else {
        panic!("{results:?}")
    };
    let message = in_full(error);
    assert!(message.contains("format 9") && message.contains("format 1"), "{message}");
    scored.apply(&visit("ann", 1));
    let kept = fs::read_to_string(golden("model-v1.scores.txt")).unwrap();
    assert!(kept.starts_with(&scored.predictions()[0].model_version), "the one before goes on");
}

fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

/// Unpacks a folder of stores of a release into a temporary folder.
fn folder(name: &str) -> tempfile::TempDir {
    let into = tempfile::tempdir().unwrap();
    let archive = golden(name);
    let unpacked = Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(into.path()).status();
    assert!(unpacked.unwrap().success(), "{}", archive.display());
    into
}

const INCARNATION: Incarnation = Incarnation { id: 0x0123_4567_89ab_cdef, offset: Offset(3) };

#[test]
fn a_folder_of_each_format_is_reused() {
    let folder = folder("stores-v2.tar.gz");
    let stores = DiskStores::open(folder.path()).unwrap();
    let changelog = TopicPartition { topic: Topic::new("changelog"), partition: Partition(0) };
    let store = stores.open(&changelog, Access::ByKey).unwrap();
    let checkpoint = store.checkpoint().expect("it has one");
    assert_eq!((checkpoint.offset, checkpoint.stream_time), (Offset(42), EventTime(420)));
    assert_eq!(checkpoint.incarnation, Some(INCARNATION));
    assert_eq!(store.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    assert_eq!(store.get(b"gone").unwrap(), None);
}

/// The first format does not name the changelog.
#[test]
fn a_folder_of_the_first_format_is_rebuilt() {
    let folder = folder("stores-v1.tar.gz");
    let stores = DiskStores::open(folder.path()).unwrap();
    let changelog = TopicPartition { topic: Topic::new("changelog"), partition: Partition(0) };
    let store = stores.open(&changelog, Access::ByKey).unwrap();
    assert_eq!(store.checkpoint(), None);
    assert_eq!(store.get(b"key").unwrap(), None);
}
