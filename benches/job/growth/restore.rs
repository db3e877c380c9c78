//! The restore of a task in whose outcome store predictions wait, beside consuming the same changelog bare.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use foretell_ml::ModelBundle;
use foretell_streams::{
    metrics::StreamsMetrics,
    record::Topic,
    runtime::{
        StatusBoard, StopSignal, Worker, WorkerParts, WorkerSettings, WorkerStatus,
        broker::{Cleanup, Membership, TopicSpec},
    },
    state::MemoryStores,
    topology::Topology,
};
use prometheus::Registry;

use crate::{
    drained::Application,
    growth::{
        entries::{fill, size_of},
        progress, waiting,
    },
    measure::{
        bare,
        usage::{Speed, Start, resident_bytes},
    },
    task::{self, ScoringTask},
};

const ROUNDS: usize = 3;
const WAIT: Duration = Duration::from_millis(100);

/// A restore.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Restored {
    pub(crate) entries: usize,
    /// Microseconds a record.
    pub(crate) restore: Speed,
    pub(crate) bare: Speed,
    /// Resident memory that an entry takes afterwards.
    pub(crate) bytes_an_entry: f64,
    /// Bytes of its key and value in the changelog.
    pub(crate) encoded_bytes: f64,
}

pub(crate) fn measure(model: &ModelBundle, entries: usize) -> anyhow::Result<Restored> {
    let mut settings = waiting::settings(entries, 0);
    settings.push("topics.partitions=1".to_owned());
    let application = Application::prepare(model, &settings)?;
    let codecs = application.cluster().codecs(application.config())?;
    let (topology, _serving) = task::topology(application.config(), &codecs, model)?;
    let changelogs = topology.changelogs();
    let suffix = format!("-{}-changelog", waiting::STORE);
    let changelog = changelogs.iter().find(|name| name.as_str().ends_with(&suffix));
    let changelog = changelog.context("a changelog of the outcomes")?;
    create(&application, &changelogs)?;
    settings.push(format!("topics.prefix={}", application.config().topic_prefix));
    let encoded_bytes = publish(&application, model, &settings, entries)?;
    let (mut bare, mut restores, mut bytes_an_entry) = (Vec::new(), Vec::new(), 0.0);
    for round in 0..ROUNDS {
        let group = format!("{changelog}-bare");
        let records = u64::try_from(entries)?;
        bare.push(bare::consume(&application.servers, &group, changelog.as_str(), records)?);
        let before = resident_bytes()?;
        let (worker, speed) = restore(&application, &topology, entries)?;
        if round == 0 {
            // Later ones use memory that this one leaves.
            bytes_an_entry = resident_bytes()?.saturating_sub(before) as f64 / entries as f64;
        }
        let stop = StopSignal::default();
        stop.stop();
        worker.run(&stop)?;
        progress(&format!("round {round}, bare: {:.2?}", bare[round]));
        progress(&format!("round {round}, restore: {speed:.2?}"));
        restores.push(speed);
    }
    Ok(Restored {
        entries,
        restore: Speed::median(&restores),
        bare: Speed::median(&bare),
        bytes_an_entry,
        encoded_bytes,
    })
}

fn create(application: &Application, changelogs: &[Topic]) -> anyhow::Result<()> {
    let spec = |name: &Topic| TopicSpec {
        name: name.clone(),
        partitions: 1,
        // Not compacted, so that every round reads the same.
        cleanup: Cleanup::Delete { retention: None },
        message_bytes_max: None,
    };
    let specs: Vec<_> = changelogs.iter().map(spec).collect();
    application.cluster().broker.create_topics(&specs)?;
    Ok(())
}

/// Writes the changelogs of a task in which so many predictions wait. Returns the bytes of an entry.
fn publish(
    application: &Application,
    model: &ModelBundle,
    settings: &[String],
    entries: usize,
) -> anyhow::Result<f64> {
    progress(&format!("writing a changelog of {entries} predictions"));
    let mut publisher = application.cluster().broker.publish()?;
    let mut task = ScoringTask::open(model, settings)?;
    let steps = waiting::steps(&task, entries)?;
    let (mut encoded, mut sent) = (0, Ok(()));
    fill(&mut task, &steps, entries, |record| {
        encoded += size_of(record);
        if sent.is_ok() {
            sent = publisher.send(record.to_owned());
        }
    })?;
    sent?;
    publisher.flush()?;
    // Freeing it would leave pages in the heap that a restore uses.
    std::mem::forget(task);
    Ok(encoded as f64 / entries as f64)
}

/// Joins a group of its own and restores the task's stores, from the assignment to the first turn in which it may process.
fn restore(
    application: &Application,
    topology: &Arc<Topology>,
    entries: usize,
) -> anyhow::Result<(Worker, Speed)> {
    let (config, board) = (application.config(), StatusBoard::default());
    let mut worker = Worker::join(WorkerParts {
        broker: Arc::clone(&application.cluster().broker),
        topology: Arc::clone(topology),
        membership: Membership {
            group: config.application(),
            member: format!("{}-restored", config.application()),
            lead: topology.lead().clone(),
            co_partitioned: topology.co_partitioned(),
            guarantee: config.streams.processing_guarantee,
            commit_interval: config.streams.commit_interval,
        },
        settings: WorkerSettings::default(),
        stores: Arc::new(MemoryStores),
        clock: foretell::app::clock(),
        metrics: StreamsMetrics::register(&Registry::new())?,
        board: board.clone(),
    })?;
    let has = |condition: fn(&WorkerStatus) -> bool| board.read().values().any(condition);
    while !has(|status| status.joined) {
        worker.turn(Duration::from_millis(1))?;
    }
    let start = Start::now()?;
    while !has(WorkerStatus::is_running) {
        worker.turn(WAIT)?;
    }
    let speed = start.until_now(u64::try_from(entries)?)?;
    let board = board.read();
    let task = board.values().next().and_then(|status| status.tasks.first());
    let restored = task.context("a task")?.restored;
    anyhow::ensure!(restored >= entries, "restored {restored} of {entries} records");
    Ok((worker, speed))
}
