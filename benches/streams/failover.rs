//! Failover: the time from killing the instance that runs a task until another instance, with a standby or without, may
//! process records, by the size of the store.
//!
//! ```text
//!   this binary as the victim ──kill -9──▶ session timeout ──▶ task assigned here ──▶ store restored: may process
//! ```

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use foretell_kafka::{KafkaBroker, KafkaConfig};
use foretell_streams::{
    codec::{Codec, Stored},
    metrics::StreamsMetrics,
    record::{OutputRecord, Topic},
    runtime::{
        Standby, StandbyParts, StatusBoard, StopSignal, TaskStatus, Worker, WorkerParts,
        WorkerSettings, WorkerStatus,
        broker::{Broker, Membership, ProcessingGuarantee},
    },
    state::{DiskStores, KeyValueHandle, MemoryStores, StoreSupplier},
    time::{EventTime, SystemClock},
    topology::{Context, ProcessError, Processor, Record, Topology, TopologyBuilder},
};
use prometheus::Registry;
use tempfile::TempDir;

use crate::{
    cluster::{Cluster, Reading},
    usage::median,
};

/// The session timeout, after which the group expels the victim. Its open transaction is aborted before.
pub(crate) const SESSION: Duration = Duration::from_secs(4);
const TRANSACTION: Duration = Duration::from_secs(3);

/// Environment variable with the victim's application, input topic and folder, separated by spaces.
pub(crate) const VICTIM: &str = "FORETELL_BENCH_VICTIM";
const IS_RUNNING: &str = "the task of the victim is running";

const WAIT: Duration = Duration::from_millis(1);
/// Interval between two records: short enough that a transaction is open whenever the victim is killed.
const LOAD_EVERY: Duration = Duration::from_millis(5);
/// A standby is warm when its lag has been at most this many records for [`WARM_FOR`]. It reports its lag every second.
const WARM_RECORDS_MAX: f64 = 1000.0;
const WARM_FOR: Duration = Duration::from_secs(3);
/// The benchmark fails without a result within this time.
const WITHIN: Duration = Duration::from_secs(120);

/// Puts each record into a store.
struct StoreLast {
    last: KeyValueHandle<Reading>,
}

impl Processor for StoreLast {
    type In = Reading;
    type Out = Reading;

    fn process(
        &mut self,
        record: &Record<Reading>,
        ctx: &mut Context<'_, Reading>,
    ) -> Result<(), ProcessError> {
        Ok(ctx.key_value(&self.last).put(&record.value.sensor, &record.value)?)
    }
}

/// An application with one task and one store.
struct Application<'a> {
    cluster: &'a Cluster,
    broker: Arc<dyn Broker>,
    name: String,
    input: Topic,
    topology: Arc<Topology>,
}

/// The medians of several failovers.
pub(crate) struct Failover {
    pub(crate) entries: u64,
    pub(crate) is_warm: bool,
    pub(crate) seconds_from_kill: f64,
    pub(crate) seconds_from_assignment: f64,
    /// Changelog records that were restored.
    pub(crate) restored: f64,
}

pub(crate) fn measure(
    cluster: &Cluster,
    entries: u64,
    rounds: usize,
    is_warm: bool,
) -> anyhow::Result<Failover> {
    let name = cluster.name("failover");
    let input = cluster.topic(&format!("{name}-in"), 1)?;
    let changelog = cluster.topic(&format!("{name}-last-changelog"), 1)?;
    cluster.fill_changelog(&changelog, entries)?;
    let application = Application::of(cluster, name, input)?;
    let folder = tempfile::tempdir()?;
    let stores: Arc<dyn StoreSupplier> = match is_warm {
        true => Arc::new(DiskStores::open(folder.path())?),
        false => Arc::new(MemoryStores),
    };
    let (stop, is_over) = (StopSignal::default(), AtomicBool::new(false));
    let registry = Registry::new();
    let rounds = thread::scope(|scope| {
        let standby = is_warm.then(|| {
            scope.spawn(|| -> anyhow::Result<()> {
                Ok(application.standby(&stores, &registry)?.run(&stop)?)
            })
        });
        let load = scope.spawn(|| application.send(&is_over));
        let rounds = (0..rounds).map(|_| {
            let warm = is_warm.then_some(&registry);
            let round = application.round(&stores, warm)?;
            println!(
                "failover of {entries} entries, warm: {is_warm}, sessions of {SESSION:?}: {round:.2?}"
            );
            Ok(round)
        });
        let rounds: anyhow::Result<Vec<[f64; 3]>> = rounds.collect();
        stop.stop();
        is_over.store(true, Ordering::Relaxed);
        load.join().expect("the load does not panic")?;
        standby.map(|standby| standby.join().expect("a standby does not panic")).transpose()?;
        rounds
    })?;
    let [seconds_from_kill, seconds_from_assignment, restored] =
        [0, 1, 2].map(|figure| median(rounds.iter().map(|round| round[figure]).collect()));
    Ok(Failover { entries, is_warm, seconds_from_kill, seconds_from_assignment, restored })
}

/// The other process, which runs the task until it is killed.
pub(crate) fn victim(names: &str) -> anyhow::Result<()> {
    let mut names = names.splitn(3, ' ');
    let mut next = || names.next().context("an application, a topic and a folder");
    let (name, input, folder) = (next()?, next()?, next()?);
    let cluster = Cluster::connect(env::var("FORETELL_TEST_BROKERS")?)?;
    let application = Application::of(&cluster, name.to_owned(), Topic::new(input))?;
    let board = StatusBoard::default();
    // On disk, as with standbys: a worker with stores in memory writes no marks, without which a standby cannot be sure that
    // its store belongs to this changelog.
    let stores = Arc::new(DiskStores::open(Path::new(folder))?);
    let mut worker = application.join("victim", stores, &board)?;
    let mut is_reported = false;
    loop {
        worker.turn(WAIT)?;
        if !is_reported && task(&board).is_some() && is_running(&board) {
            println!("{IS_RUNNING}");
            is_reported = true;
        }
    }
}

impl<'a> Application<'a> {
    fn of(cluster: &'a Cluster, name: String, input: Topic) -> anyhow::Result<Self> {
        let mut topology = TopologyBuilder::new(&name, Topic::new("no-dead-letters"));
        let codec: Arc<dyn Codec<Reading>> = Arc::clone(&cluster.codec) as _;
        let source = topology.source("readings", input.clone(), codec);
        let last = topology.key_value_store("last", Arc::new(Stored::version(1)));
        let stores = [last.id()];
        topology
            .process("store-last", &[source], &stores, move || StoreLast { last: last.clone() });
        let config = KafkaConfig {
            bootstrap_servers: cluster.servers.clone(),
            session_timeout: SESSION,
            transaction_timeout: TRANSACTION,
            ..KafkaConfig::default()
        };
        let broker = Arc::new(KafkaBroker::connect(&config)?);
        Ok(Self { cluster, broker, name, input, topology: Arc::new(topology.build()) })
    }

    fn join(
        &self,
        member: &str,
        stores: Arc<dyn StoreSupplier>,
        board: &StatusBoard,
    ) -> anyhow::Result<Worker> {
        Ok(Worker::join(WorkerParts {
            broker: Arc::clone(&self.broker),
            topology: Arc::clone(&self.topology),
            membership: Membership {
                group: self.name.clone(),
                member: format!("{}-{member}", self.name),
                lead: self.input.clone(),
                co_partitioned: Vec::new(),
                guarantee: ProcessingGuarantee::ExactlyOnce,
                commit_interval: Membership::COMMIT_INTERVAL,
            },
            settings: WorkerSettings::default(),
            stores,
            clock: Arc::new(SystemClock::new()),
            metrics: StreamsMetrics::register(&Registry::new())?,
            board: board.clone(),
        })?)
    }

    fn standby(
        &self,
        stores: &Arc<dyn StoreSupplier>,
        registry: &Registry,
    ) -> anyhow::Result<Standby> {
        Ok(Standby::new(StandbyParts {
            broker: Arc::clone(&self.broker),
            topology: Arc::clone(&self.topology),
            group: self.name.clone(),
            stores: Arc::clone(stores),
            clock: Arc::new(SystemClock::new()),
            metrics: StreamsMetrics::register(registry)?,
        }))
    }

    /// Runs one failover. Returns the seconds from the kill, the seconds from the assignment, and the restored records.
    /// `standby` has the metrics of the standby, if there is one.
    fn round(
        &self,
        stores: &Arc<dyn StoreSupplier>,
        standby: Option<&Registry>,
    ) -> anyhow::Result<[f64; 3]> {
        let mut victim = Victim::start(self)?;
        let board = StatusBoard::default();
        let mut successor = self.join("successor", Arc::clone(stores), &board)?;
        let (begun, mut warm_since) = (Instant::now(), Instant::now());
        while standby.is_some() && warm_since.elapsed() < WARM_FOR {
            ensure!(begun.elapsed() < WITHIN, "the standby did not become warm");
            successor.turn(WAIT)?;
            if !standby.is_some_and(is_warm) {
                warm_since = Instant::now();
            }
        }
        while !board.read().values().any(|status| status.joined) {
            successor.turn(WAIT)?;
        }
        ensure!(task(&board).is_none(), "the victim has no task");
        victim.kill()?;
        let (killed, mut assigned) = (Instant::now(), None);
        while assigned.is_none() || !is_running(&board) {
            ensure!(killed.elapsed() < WITHIN, "the successor did not take over");
            let turn = Instant::now();
            successor.turn(WAIT)?;
            if assigned.is_none() && task(&board).is_some() {
                assigned = Some(turn);
            }
        }
        let from_kill = killed.elapsed().as_secs_f64();
        let from_assignment = assigned.map_or(0.0, |turn| turn.elapsed().as_secs_f64());
        let restored = task(&board).context("the successor has no task")?.restored as f64;
        let stop = StopSignal::default();
        stop.stop();
        successor.run(&stop)?;
        Ok([from_kill, from_assignment, restored])
    }

    fn send(&self, is_over: &AtomicBool) -> anyhow::Result<()> {
        let (mut publisher, mut index) = (self.broker.publish()?, 0);
        while !is_over.load(Ordering::Relaxed) {
            let (key, value) = self.cluster.reading(index)?;
            publisher.send(OutputRecord {
                topic: self.input.clone(),
                partition: None,
                timestamp: EventTime(1_700_000_000_000),
                key: Some(key.into_bytes()),
                value: Some(value),
                headers: Vec::new(),
            })?;
            index += 1;
            thread::park_timeout(LOAD_EVERY);
        }
        Ok(publisher.flush()?)
    }
}

/// The victim process, which is killed when this value is dropped.
struct Victim {
    process: Child,
    /// The folder of its stores.
    _folder: TempDir,
}

impl Victim {
    fn start(application: &Application<'_>) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let Application { name, input, .. } = application;
        let names = format!("{name} {input} {}", folder.path().display());
        let mut command = Command::new(env::current_exe()?);
        command.env(VICTIM, names).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut victim = Self { process: command.spawn()?, _folder: folder };
        let output = victim.process.stdout.take().context("it is piped")?;
        for line in BufReader::new(output).lines() {
            if line? == IS_RUNNING {
                return Ok(victim);
            }
        }
        anyhow::bail!("the victim ended before its task was running")
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            println!("cannot kill the victim: {error}");
        }
    }
}

fn task(board: &StatusBoard) -> Option<TaskStatus> {
    board.read().values().find_map(|status| status.tasks.first().cloned())
}

fn is_running(board: &StatusBoard) -> bool {
    board.read().values().all(WorkerStatus::is_running)
}

fn is_warm(registry: &Registry) -> bool {
    let families = registry.gather();
    let gauge = |name: &str| {
        let matching = families.iter().filter(|family| family.name() == name);
        let values = matching.flat_map(|family| family.get_metric());
        values.map(|metric| metric.get_gauge().get_value()).sum::<f64>()
    };
    gauge("foretell_stream_standby_tasks") > 0.0
        && gauge("foretell_stream_standby_lag_records") <= WARM_RECORDS_MAX
}
