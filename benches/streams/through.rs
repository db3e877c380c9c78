//! Foretell's own contender: a topology that decodes, puts into a store, encodes. The public API and nothing else.

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
    COMMIT_INTERVAL,
    cluster::{Cluster, PARTITIONS, Reading},
    contender::Contender,
    usage::{Speed, Start},
};

struct Remember {
    store: KeyValueHandle<Reading>,
    read: Arc<AtomicU64>,
}

impl Processor for Remember {
    type In = Reading;
    type Out = Reading;

    fn process(
        &mut self,
        record: &Record<Reading>,
        ctx: &mut Context<'_, Reading>,
    ) -> Result<(), ProcessError> {
        ctx.key_value(&self.store).put(&record.value.sensor, &record.value)?;
        self.read.fetch_add(1, Ordering::Relaxed);
        ctx.forward(record)
    }
}

/// A worker with that topology.
pub(crate) struct Through {
    worker: Worker,
    board: StatusBoard,
    registry: Registry,
    read: Arc<AtomicU64>,
}

const WAIT: Duration = Duration::from_millis(100);

impl Through {
    /// From `input` to `output`.
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
        let remember = move || Remember { store: store.clone(), read: Arc::clone(&counted) };
        let remembered = topology.process("remember", &[source], &[id], remember);
        topology.sink("out", &[remembered], output.clone(), codec);
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
            },
            // By time alone, as the bare loop does.
            settings: WorkerSettings {
                commit_interval: COMMIT_INTERVAL,
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

impl Contender for Through {
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
        // A count of seconds is as good as any: it is a whole number.
        Duration::from_secs_f64(total).as_secs()
    }

    fn leave(self: Box<Self>) -> anyhow::Result<()> {
        let stop = StopSignal::default();
        stop.stop();
        Ok(self.worker.run(&stop)?)
    }
}

/// How fast a task restores its store from a changelog of `entries` records, written under the name of `application`:
/// from its assignment to the first turn in which it may process.
pub(crate) fn restore(cluster: &Cluster, application: &str, entries: u64) -> anyhow::Result<Speed> {
    let input = cluster.topic(&cluster.name("nothing"), 1)?;
    let guarantee = ProcessingGuarantee::ExactlyOnce;
    let mut through = Through::start_as(application, cluster, [&input, &input], guarantee)?;
    while !through.has(|status| status.joined) {
        through.worker.turn(Duration::from_millis(1))?;
    }
    let start = Start::now()?;
    while !through.has(foretell_streams::runtime::WorkerStatus::is_running) {
        through.worker.turn(WAIT)?;
    }
    let speed = start.until_now(entries)?;
    let board = through.board.read();
    let task = board.values().next().and_then(|status| status.tasks.first());
    let restored = task.context("a task")?.restored as u64;
    anyhow::ensure!(restored == entries, "restored {restored} of {entries} records");
    Box::new(through).leave()?;
    Ok(speed)
}

impl Through {
    fn has(&self, is_so: fn(&foretell_streams::runtime::WorkerStatus) -> bool) -> bool {
        self.board.read().values().any(is_so)
    }
}
