//! Changelogs that are truncated (by retention, for example) or deleted and recreated: stores are restored from the
//! records that are left, and processing continues.

use std::{fs, path::Path, process::Command, sync::Arc, time::Duration};

use foretell::app::cluster::Cluster;
use foretell_kafka::{KafkaBroker, KafkaConfig};
use foretell_streams::{
    codec::{Stored, Utf8},
    metrics::StreamsMetrics,
    record::{Offset, OutputRecord, Partition, Topic, TopicPartition},
    runtime::{
        StatusBoard, Worker, WorkerParts, WorkerSettings, WorkerStatus,
        broker::{Broker, Cleanup, Isolation, Membership, ProcessingGuarantee, TopicSpec},
    },
    state::{KeyValueHandle, MemoryStores},
    time::{EventTime, SystemClock},
    topology::{Context, ProcessError, Processor, Record, TopologyBuilder},
};
use prometheus::Registry;

use crate::{
    application::{Application, brokers},
    operator::Operator,
    process::{Process, SOON, until},
    stores::{RESTORED, ready, send, until_joined},
};

const ENTRIES: i64 = 50_000;
const LEFT: i64 = 100;

/// Stores the last value of each key.
struct StoreLast {
    last: KeyValueHandle<String>,
}

impl Processor for StoreLast {
    type In = String;
    type Out = String;

    fn process(
        &mut self,
        record: &Record<String>,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        Ok(ctx.key_value(&self.last).put(&record.value, &record.value)?)
    }
}

/// A broker client that prefetches little, so that a truncation affects records that it has not fetched yet.
fn broker() -> Arc<dyn Broker> {
    let properties = [
        ("consumer.queued.min.messages", "1000"),
        ("consumer.queued.max.messages.kbytes", "64"),
        ("consumer.max.partition.fetch.bytes", "65536"),
    ];
    let config = KafkaConfig {
        bootstrap_servers: brokers(),
        properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..KafkaConfig::default()
    };
    Arc::new(KafkaBroker::connect(&config).unwrap())
}

fn create(broker: &dyn Broker, name: &Topic) {
    let spec = TopicSpec {
        name: name.clone(),
        partitions: 1,
        cleanup: Cleanup::Delete { retention: None },
        message_bytes_max: None,
    };
    broker.create_topics(&[spec]).unwrap();
}

fn fill(broker: &dyn Broker, changelog: &Topic) {
    let mut publisher = broker.publish().unwrap();
    for number in 0..ENTRIES {
        let record = OutputRecord {
            topic: changelog.clone(),
            partition: Some(Partition(0)),
            timestamp: EventTime(1_700_000_000_000),
            key: Some(format!("{number:08}").into_bytes()),
            value: Some(b"a value".to_vec()),
            headers: Vec::new(),
        };
        publisher.send(record).unwrap();
    }
    publisher.flush().unwrap();
}

/// During a restore, all but the newest [`LEFT`] records are deleted: the restored store has these and no others.
#[test]
fn a_changelog_truncated_during_a_restore_is_restored_from_what_is_left() {
    let (broker, folder) = (broker(), tempfile::tempdir().unwrap());
    let unique = folder.path().file_name().unwrap().to_str().unwrap();
    let application = format!("trimmed{unique}");
    let input = Topic::new(&format!("{application}-in"));
    let mut topology = TopologyBuilder::new(&application, input.clone());
    let source = topology.source("source", input.clone(), Arc::new(Utf8));
    let last = topology.key_value_store("last", Arc::new(Stored::version(1)));
    let stores = [last.id()];
    topology.process("store-last", &[source], &stores, move || StoreLast { last: last.clone() });
    let topology = Arc::new(topology.build());
    let [changelog] = &topology.changelogs()[..] else { panic!("there is one store") };
    create(broker.as_ref(), &input);
    create(broker.as_ref(), changelog);
    fill(broker.as_ref(), changelog);

    let (registry, board) = (Registry::new(), StatusBoard::default());
    let mut worker = Worker::join(WorkerParts {
        broker,
        topology: Arc::clone(&topology),
        membership: Membership {
            group: application,
            member: "worker".to_owned(),
            lead: input,
            co_partitioned: Vec::new(),
            guarantee: ProcessingGuarantee::ExactlyOnce,
            commit_interval: Membership::COMMIT_INTERVAL,
        },
        stores: Arc::new(MemoryStores),
        settings: WorkerSettings::default(),
        clock: Arc::new(SystemClock::new()),
        metrics: StreamsMetrics::register(&registry).unwrap(),
        board: board.clone(),
    })
    .unwrap();
    let mut turn = || worker.turn(Duration::from_millis(1)).unwrap();
    until("the restore has begun", SOON, || {
        turn();
        (restored(&registry) > 0.0).then_some(())
    });
    let source = TopicPartition { topic: changelog.clone(), partition: Partition(0) };
    Operator::new().trim(&source, Offset(ENTRIES - LEFT));
    let is_restored = board.read().values().any(WorkerStatus::is_running);
    assert!(!is_restored, "the restore ended before the truncation");
    until("the task runs", SOON, || {
        turn();
        board.read().values().any(WorkerStatus::is_running).then_some(())
    });
    let board = board.read();
    let task = &board["worker"].tasks[0];
    assert_eq!(task.store_entries["last"], usize::try_from(LEFT).unwrap());
    assert!(restored(&registry) < ENTRIES as f64, "deleted records were not read");
}

fn restored(registry: &Registry) -> f64 {
    let families = registry.gather();
    let restored = families.iter().filter(|family| family.name() == RESTORED);
    restored.flat_map(|family| family.get_metric()).map(|one| one.get_counter().get_value()).sum()
}

/// The stores on disk are an old copy, and their checkpoints point at offsets that were deleted since.
#[test]
fn a_store_whose_checkpoint_was_truncated_away_is_restored_from_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let (state, old) = (folder.path().join("state"), folder.path().join("old"));
    let state_dir = format!("streams.state_dir={}", state.display());
    let more = [&state_dir, "broker.session_timeout=6s", "broker.transaction_timeout=5s"];
    let application = Application::new("truncated", &more);
    application.init();
    let run = |work: &dyn Fn()| {
        let (mut process, http) = ready(&application);
        let restored = http.metric(RESTORED);
        work();
        process.signal("TERM");
        assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
        (restored, process.errors())
    };
    let (first, second, third) = (400, 200, 100);
    run(&|| {
        send(&application, first, "1");
        until_joined(&application, first);
    });
    copy(&state, &old);
    run(&|| {
        send(&application, second, "2");
        until_joined(&application, first + second);
    });
    let left = trim_changelogs(&application);
    fs::remove_dir_all(&state).unwrap();
    copy(&old, &state);

    let (restored, errors) = run(&|| {
        send(&application, third, "3");
        until_joined(&application, first + second + third);
    });
    assert!(
        errors.contains("truncated during the restore: restoring from the beginning"),
        "{errors}"
    );
    // The changelog of the learning task is not truncated, and has at most one record a training.
    assert!(restored > 0.0 && restored <= left as f64 + 10.0, "{restored} of {left}: {errors}");
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

/// Truncates each changelog of the scoring tasks to its newest records, and returns how many offsets are left in all.
fn trim_changelogs(application: &Application) -> i64 {
    const FEW: i64 = 10;
    let config = application.config();
    let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
    let (operator, mut left) = (Operator::new(), 0);
    for store in ["observations", "outcomes", "recent-events"] {
        let name = format!("{}-scoring-{store}-changelog", config.application());
        let topic = Topic::new(&name);
        operator.set(&topic, &[("cleanup.policy", "compact,delete")]);
        for number in 0..i32::try_from(config.partitions).unwrap() {
            let source = TopicPartition { topic: topic.clone(), partition: Partition(number) };
            let Offset(end) = cluster.broker.end(&source, Isolation::ReadCommitted).unwrap();
            operator.trim(&source, Offset((end - FEW).max(0)));
            left += end.min(FEW);
        }
    }
    left
}

/// A changelog is deleted and recreated, and another instance has since written more records to it than the old one had. So
/// the checkpoint of a store on disk is a valid offset of the new changelog, but the store belongs to the old one.
#[test]
fn stores_of_a_deleted_changelog_are_not_mixed_with_the_recreated_one() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let quick = ["broker.session_timeout=6s", "broker.transaction_timeout=5s"];
    let application = Application::new("recreated", &quick);
    let [first, second, fresh] = folders.each_ref().map(|folder| {
        application.with(&[format!("streams.state_dir={}", folder.path().display())])
    });
    let stop = |mut process: Process| {
        process.signal("TERM");
        assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
    };
    first.init();
    let (process, _) = ready(&first);
    send(&first, 200, "1");
    until_joined(&first, 200);
    stop(process);

    let operator = Operator::new();
    for store in ["outcomes", "observations", "recent-events"] {
        let changelog = format!("{}-scoring-{store}-changelog", first.config().application());
        operator.delete(&Topic::new(&changelog));
    }
    first.start(&["init"]).succeed(SOON);
    let (process, _) = ready(&second);
    send(&second, 600, "2");
    until_joined(&second, 800);
    stop(process);

    let (process, http) = ready(&fresh);
    let all = http.metric(RESTORED);
    stop(process);
    let (process, http) = ready(&first);
    let restored = http.metric(RESTORED);
    // A restore from the old checkpoint would skip about a quarter of the records, those of 200 events of 800.
    assert!(
        all > 600.0 && restored > 0.9 * all,
        "restored from the old checkpoint: {restored} of {all}"
    );
    send(&first, 100, "3");
    until_joined(&first, 900);
    stop(process);
}
