//! The measured pipeline of the streams layer: a topology that decodes a record, puts it into a store and encodes it. It uses
//! public API only.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use foretell_streams::{
    codec::{Codec, Stored},
    metrics::StreamsMetrics,
    record::Topic,
    runtime::{
        StatusBoard, StopSignal, Worker, WorkerParts, WorkerSettings,
        broker::{Membership, ProcessingGuarantee},
    },
    state::{KeyValueHandle, MemoryStores},
    time::SystemClock,
    topology::{Context, ProcessError, Processor, Record, TopologyBuilder},
};
use prometheus::Registry;

use crate::{
    cluster::{Cluster, PARTITIONS, Reading},
    measure::bare::COMMIT_INTERVAL,
    pipeline::Pipeline,
    usage::{Speed, Start},
};

/// Puts each record into a store and forwards it.
struct StoreLast {
    store: KeyValueHandle<Reading>,
    read: Arc<AtomicU64>,
}

impl Processor for StoreLast {
    type In = Reading;
    type Out = Reading;

    fn process(
        &mut self,
        record: &Record<Reading>,
        ctx: &mut Context<'_, Reading>,
    ) -> Result<(), ProcessError> {
        ctx.key_value(&self.store).put(&record.value.sensor, &record.value)?;
        // Only this thread counts: an atomic addition would wait for all earlier writes, a tenth of the pipeline's time.
        self.read.store(self.read.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        ctx.forward(record)
    }
}

/// A worker that runs the topology.
pub(crate) struct StreamsPipeline {
    worker: Worker,
    board: StatusBoard,
    registry: Registry,
    read: Arc<AtomicU64>,
}

const WAIT: Duration = Duration::from_millis(100);

impl StreamsPipeline {
    /// Starts a worker that reads `input` and writes to `output`.
    pub(crate) fn start(
        cluster: &Cluster,
        input: &Topic,
        output: &Topic,
        guarantee: ProcessingGuarantee,
    ) -> anyhow::Result<Self> {
        let application = cluster.name("through");
        cluster.topic(&format!("{application}-last-changelog"), PARTITIONS)?;
        Self::start_as(&application, cluster, [input, output], guarantee)
    }

    fn start_as(
        application: &str,
        cluster: &Cluster,
        [input, output]: [&Topic; 2],
        guarantee: ProcessingGuarantee,
    ) -> anyhow::Result<Self> {
        let read = Arc::new(AtomicU64::new(0));
        let dead_letters = Topic::new("no-dead-letters");
        let mut topology = TopologyBuilder::new(application, dead_letters);
        let codec: Arc<dyn Codec<Reading>> = Arc::clone(&cluster.codec) as _;
        let source = topology.source("readings", input.clone(), Arc::clone(&codec));
        let store = topology.key_value_store("last", Arc::new(Stored::version(1)));
        let (id, counted) = (store.id(), Arc::clone(&read));
        let store_last = move || StoreLast { store: store.clone(), read: Arc::clone(&counted) };
        let stored = topology.process("store-last", &[source], &[id], store_last);
        topology.sink("out", &[stored], output.clone(), codec);
        let (registry, board) = (Registry::new(), StatusBoard::default());
        let worker = Worker::join(WorkerParts {
            broker: Arc::clone(&cluster.broker),
            topology: Arc::new(topology.build()),
            membership: Membership {
                group: application.to_owned(),
                member: "worker-0".to_owned(),
                lead: input.clone(),
                co_partitioned: Vec::new(),
                guarantee,
                commit_interval: COMMIT_INTERVAL,
            },
            // Commits by time alone, like the bare loop.
            settings: WorkerSettings {
                commit_records_max: usize::MAX,
                ..WorkerSettings::default()
            },
            stores: Arc::new(MemoryStores),
            clock: Arc::new(SystemClock::new()),
            metrics: StreamsMetrics::register(&registry)?,
            board: board.clone(),
        })?;
        Ok(Self { worker, board, registry, read })
    }
}

impl Pipeline for StreamsPipeline {
    fn turn(&mut self) -> anyhow::Result<()> {
        Ok(self.worker.turn(WAIT)?)
    }

    fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    fn committed(&self) -> u64 {
        let families = self.registry.gather();
        let processed =
            families.iter().find(|family| family.name() == "foretell_records_processed_total");
        let counts = processed.iter().flat_map(|family| family.get_metric());
        let total: f64 = counts.map(|metric| metric.get_counter().get_value()).sum();
        // The total is a whole number. A Duration converts it to an integer without a lossy cast.
        Duration::from_secs_f64(total).as_secs()
    }

    fn leave(self: Box<Self>) -> anyhow::Result<()> {
        let stop = StopSignal::default();
        stop.stop();
        Ok(self.worker.run(&stop)?)
    }
}

/// Measures how fast a task restores its store from the changelog of `application` with `entries` records, from its
/// assignment to the first turn in which it may process records.
pub(crate) fn restore(cluster: &Cluster, application: &str, entries: u64) -> anyhow::Result<Speed> {
    let input = cluster.topic(&cluster.name("nothing"), 1)?;
    let guarantee = ProcessingGuarantee::ExactlyOnce;
    let mut pipeline =
        StreamsPipeline::start_as(application, cluster, [&input, &input], guarantee)?;
    while !pipeline.has(|status| status.joined) {
        pipeline.worker.turn(Duration::from_millis(1))?;
    }
    let start = Start::now()?;
    while !pipeline.has(foretell_streams::runtime::WorkerStatus::is_running) {
        pipeline.worker.turn(WAIT)?;
    }
    let speed = start.until_now(entries)?;
    let board = pipeline.board.read();
    let task = board.values().next().and_then(|status| status.tasks.first());
    let restored = task.context("a task")?.restored as u64;
    anyhow::ensure!(restored == entries, "restored {restored} of {entries} records");
    Box::new(pipeline).leave()?;
    Ok(speed)
}

impl StreamsPipeline {
    fn has(&self, condition: fn(&foretell_streams::runtime::WorkerStatus) -> bool) -> bool {
        self.board.read().values().any(condition)
    }
}
