//! Starts an instance (models, trainer, workers, HTTP), and stops it in the order of `shutdown.rs`.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context;
use prometheus::Registry;
use rand::{TryRng, rngs::SysRng};

use crate::{
    app::{
        cluster::Cluster,
        counted,
        http_server::{self, BoundServer, HttpServer, ServedParts},
        instances::Instances,
        learning::learning_work,
        library,
        models::Models,
        open_files,
        shutdown::{Shutdown, StopReason},
        telemetry, topic_changes,
        topologies::TopologyParts,
    },
    config::Config,
    events::{codecs::Codecs, topics::Group},
    http::DeadLetterAccess,
    processors::{
        contract::ContractBoard,
        learning::trainer::Trainer,
        metrics::{ApplicationMetrics, DEAD_LETTER_CLASSES},
        model_table::Serving,
        overview::Overview,
        quality::QualityBoard,
        tracking_status::TrackingBoard,
        uplift::UpliftBoard,
    },
    tracking::{self, TrackingCodecs, TrackingParts, metrics::TrackingMetrics},
};
use foretell_streams::{
    metrics::StreamsMetrics,
    runtime::{
        LagMonitor, Standby, StandbyParts, StatusBoard, StopSignal, TopicMonitor, Worker,
        WorkerError, WorkerParts, WorkerSettings,
        broker::{BrokerError, Membership},
    },
    state::{DiskStores, MemoryStores, StoreSupplier},
    time::Clock,
    topology::Topology,
};

/// A running instance.
pub struct Instance {
    /// Snapshots of the instance's state.
    pub overview: Overview,
    /// The metrics.
    pub registry: Registry,
    /// The address of the HTTP server.
    pub address: SocketAddr,
    shutdown: Shutdown,
    threads: Vec<JoinHandle<()>>,
    clock: Arc<dyn Clock>,
    http: HttpServer,
}

/// The time that workers may take to commit and to leave their groups at a stop: less than a supervisor waits before it
/// kills the process (30 s in Kubernetes and in `deploy/compose.yaml`).
const STOPPING_MAX: Duration = Duration::from_secs(25);

/// Time between two commits of the learner, if those of the scoring workers are not rarer. Nobody waits for what it writes
/// while it only counts examples, and ten commits a second take a tenth of the CPU time at 1,000 events/s.
const LEARNER_COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// What the threads of an instance share.
struct Parts<'a> {
    config: &'a Config,
    cluster: &'a Cluster,
    clock: &'a Arc<dyn Clock>,
    codecs: Codecs,
    streams_metrics: StreamsMetrics,
    metrics: ApplicationMetrics,
    serving: Serving,
    board: StatusBoard,
    contract: ContractBoard,
    quality: QualityBoard,
    uplift: UpliftBoard,
    stores: Arc<dyn StoreSupplier>,
    shutdown: Shutdown,
}

/// Checks what would make an instance fail only after other work: that its port is free, and the settings of MLflow can be used.
///
/// # Errors
/// If not. The message says what to do.
pub fn check_local(config: &Config) -> anyhow::Result<()> {
    check_tracking(config)?;
    http_server::check_address(config)
}

/// Checks that the settings of MLflow can be used. Connects to nothing.
///
/// # Errors
/// If not.
pub fn check_tracking(config: &Config) -> anyhow::Result<()> {
    config.mlflow.as_ref().map_or(Ok(()), |settings| Ok(tracking::check(settings)?))
}

impl Instance {
    /// Starts every thread. Workers join their groups on their own threads.
    ///
    /// # Errors
    /// If topics, schemas or a model are missing, or the port is taken. The message says what to do.
    pub fn start(
        config: &Config,
        cluster: &Cluster,
        clock: &Arc<dyn Clock>,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        open_files::raise_for(config.http.connections_max);
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        cluster.check_topics(&config.topics, config.partitions)?;
        let registry = telemetry::metrics_registry()?;
        let metrics = ApplicationMetrics::register(&registry)?;
        let streams_metrics = StreamsMetrics::register(&registry)?;
        streams_metrics.begin_at_zero(&DEAD_LETTER_CLASSES);
        let parts = Parts {
            config,
            cluster,
            clock,
            codecs: cluster.codecs(config)?,
            streams_metrics,
            contract: ContractBoard::new(config.contract.policy, metrics.clone()),
            metrics,
            quality: QualityBoard::default(),
            uplift: UpliftBoard::default(),
            serving: Serving::default(),
            board: StatusBoard::default(),
            stores: open_stores(config, cluster)?,
            shutdown,
        };
        let server = BoundServer::bind(config)?;
        let address = server.address;

        let mut threads = vec![parts.follow_models()?];
        let (trainer, thread) = parts.spawn_trainer()?;
        threads.push(thread);
        threads.extend(parts.spawn_workers(&trainer)?);
        let tracking = parts.spawn_tracking(&registry)?;
        let (thread, mlflow) = tracking.unzip();
        threads.extend(thread);

        let overview = parts.overview(trainer, mlflow, &registry);
        let (gateway, work) = http_server::gateway(config, cluster, parts.codecs.clone(), clock)?;
        for thread in work {
            threads.push(parts.spawn(thread.name.to_owned(), move |_| {
                (thread.work)();
                Ok(())
            })?);
        }
        let library = library::with_codecs(config, cluster, &parts.codecs, &parts.metrics);
        let instances = Instances::new(config, cluster, clock, overview.clone(), &registry);
        let letters = cluster.dead_letters(config, clock);
        let served = ServedParts {
            overview: overview.clone(),
            gateway,
            library,
            board: instances.board.clone(),
            dead_letters: DeadLetterAccess::new(letters),
        };
        threads.extend(parts.spawn_instances(instances)?);
        let http = server.serve(config, served, &registry)?;
        let shutdown = parts.shutdown.clone();
        let clock = Arc::clone(clock);
        Ok(Self { overview, registry, address, shutdown, threads, clock, http })
    }

    /// Stops every thread and waits for its end.
    ///
    /// # Errors
    /// The failure that made the instance stop; else a thread that did not end in time or panicked.
    pub fn stop(self) -> anyhow::Result<()> {
        self.shutdown.stop(StopReason::Asked);
        self.overview.trainer.stop();
        drop(self.overview);
        let served = self.http.stop();
        let joined = join(self.threads, self.clock.as_ref());
        // The failure that caused the stop is reported, not a thread that was slow to stop.
        if let Some(StopReason::Failed(reason)) = self.shutdown.wait(Duration::ZERO) {
            if let Err(error) = joined {
                tracing::warn!(%error, "threads did not stop in time, or panicked");
            }
            anyhow::bail!(reason);
        }
        joined?;
        served?;
        Ok(())
    }
}

/// Waits for the threads, until [`STOPPING_MAX`] has passed. A `JoinHandle` has no wait with a limit, so one more thread
/// joins them and reports each.
fn join(threads: Vec<JoinHandle<()>>, clock: &dyn Clock) -> anyhow::Result<()> {
    let name = |thread: &JoinHandle<()>| thread.thread().name().unwrap_or("a thread").to_owned();
    let names: Vec<String> = threads.iter().map(name).collect();
    let (ended, results) = mpsc::channel();
    let joining = move || threads.into_iter().try_for_each(|thread| ended.send(thread.join()));
    let joiner = std::thread::Builder::new().name("join".to_owned()).spawn(joining)?;
    let deadline = clock.elapsed() + STOPPING_MAX;
    for name in names {
        match results.recv_timeout(deadline.saturating_sub(clock.elapsed())) {
            Ok(Ok(())) => {}
            Ok(Err(_)) => anyhow::bail!("a thread panicked; its message is above"),
            // The end of the process ends the thread, as a crash would: nothing is lost.
            Err(_) => anyhow::bail!(
                "{name} did not stop within {STOPPING_MAX:?}; what it had not committed is processed again"
            ),
        }
    }
    joiner.join().is_ok_and(|sent| sent.is_ok()).then_some(()).context("threads were not joined")
}

impl Parts<'_> {
    fn overview(
        &self,
        trainer: Trainer,
        mlflow: Option<TrackingBoard>,
        registry: &Registry,
    ) -> Overview {
        let registry = registry.clone();
        Overview {
            application: self.config.application(),
            instance: self.config.instance(),
            board: self.board.clone(),
            serving: self.serving.clone(),
            contract: self.contract.clone(),
            quality: self.quality.clone(),
            uplift: self.uplift.clone(),
            joins: Arc::new(move || counted::joins(&registry)),
            waiting: self.metrics.waiting().clone(),
            mlflow,
            topics: self.config.topics.clone(),
            trainer,
        }
    }

    /// Reads `models` to its end, so that a model serves before the first event, and follows the topic on a thread.
    fn follow_models(&self) -> anyhow::Result<JoinHandle<()>> {
        let models = Models {
            config: self.config,
            cluster: self.cluster,
            clock: self.clock,
            codec: Arc::clone(&self.codecs.model),
            serving: self.serving.clone(),
            metrics: self.metrics.clone(),
        };
        let mut following = models.catch_up()?;
        let (stop, shutdown) = (self.shutdown.signal(), self.shutdown.clone());
        let thread = std::thread::Builder::new().name("models".to_owned());
        Ok(thread.spawn(move || shutdown.stop_on_failure(|| following.run(&stop)))?)
    }

    fn spawn_trainer(&self) -> anyhow::Result<(Trainer, JoinHandle<()>)> {
        let work = learning_work(
            self.config,
            self.cluster,
            self.codecs.clone(),
            self.clock,
            self.metrics.clone(),
        );
        let (clock, metrics) = (Arc::clone(self.clock), self.metrics.clone());
        Ok(Trainer::spawn(work, clock, metrics, self.config.learning.time_max)?)
    }

    fn spawn_workers(&self, trainer: &Trainer) -> anyhow::Result<Vec<JoinHandle<()>>> {
        let application = self.config.application();
        let instance = self.config.instance();
        let topologies = TopologyParts {
            config: self.config,
            codecs: &self.codecs,
            serving: &self.serving,
            metrics: &self.metrics,
        };
        let scoring = topologies.scoring(self.contract.clone());
        let learning = topologies.learning(trainer, self.quality.clone(), self.uplift.clone());
        let groups = [(Group::Scoring, Arc::new(scoring)), (Group::Learning, Arc::new(learning))];
        let mut threads = Vec::new();
        for (group, topology) in &groups {
            self.create_changelogs(*group, topology)?;
        }
        for (group, topology) in &groups {
            let name = group.name(&application);
            let members = match group {
                Group::Scoring => {
                    let numbers = 0..self.config.streams.threads;
                    numbers.map(|number| format!("{name}-{instance}-{number}")).collect()
                }
                Group::Learning => vec![format!("{name}-{instance}")],
            };
            for member in members {
                threads.push(self.spawn_worker(*group, topology, member)?);
            }
        }
        if self.config.streams.standby && self.stores.is_lasting() {
            for (group, topology) in &groups {
                threads.push(self.spawn_standby(topology, group.name(&application))?);
            }
        }
        threads.push(self.watch_topics(&groups)?);
        threads.push(self.measure_lag(&groups)?);
        Ok(threads)
    }

    fn measure_lag(&self, groups: &[(Group, Arc<Topology>)]) -> anyhow::Result<JoinHandle<()>> {
        let broker = Arc::clone(&self.cluster.broker);
        let inputs = groups.iter().flat_map(|(_, topology)| {
            std::iter::once(topology.lead().clone()).chain(topology.co_partitioned())
        });
        let monitor = LagMonitor::new(broker, self.board.clone(), self.streams_metrics.clone())
            .with_topics(inputs);
        self.spawn("lag".to_owned(), move |stop| {
            monitor.run(stop);
            Ok(())
        })
    }

    /// Sends to MLflow, if a server is configured. The board has what became of it.
    fn spawn_tracking(
        &self,
        registry: &Registry,
    ) -> anyhow::Result<Option<(JoinHandle<()>, TrackingBoard)>> {
        let Some(settings) = &self.config.mlflow else { return Ok(None) };
        let metrics = TrackingMetrics::register(registry)?;
        let board = metrics.board().clone();
        let parts = TrackingParts {
            config: self.config,
            broker: Arc::clone(&self.cluster.broker),
            codecs: TrackingCodecs::of(&self.codecs),
            clock: Arc::clone(self.clock),
            metrics,
            // Not from the configured seed: two processes must not repeat at the same times.
            seed: SysRng.try_next_u64().context("the system has no random numbers")?,
        };
        let outbox = parts.outbox(settings)?;
        let run = move |stop: &StopSignal| outbox.run(stop).map_err(WorkerError::Broker);
        Ok(Some((self.spawn("tracking".to_owned(), run)?, board)))
    }

    fn watch_topics(&self, groups: &[(Group, Arc<Topology>)]) -> anyhow::Result<JoinHandle<()>> {
        let partitions = self.config.partitions;
        let used: BTreeSet<_> = groups.iter().flat_map(|(_, topology)| topology.topics()).collect();
        let specs = self.config.topics.specs(partitions).into_iter();
        let used = specs.filter(|spec| used.contains(&spec.name));
        let changelogs = groups.iter().flat_map(|(group, topology)| {
            let tasks = group.tasks(partitions);
            topology.changelogs().into_iter().map(move |changelog| (changelog, tasks))
        });
        let topics = used.map(|spec| (spec.name, spec.partitions)).chain(changelogs).collect();
        let (broker, clock) = (Arc::clone(&self.cluster.broker), Arc::clone(self.clock));
        let watch = TopicMonitor::new(broker, topics, clock);
        self.spawn("topics".to_owned(), move |stop| watch.run(stop))
    }

    /// The threads that report what this instance does, and follow the reports of others.
    fn spawn_instances(&self, instances: Instances) -> anyhow::Result<[JoinHandle<()>; 2]> {
        let exchanging = instances.clone();
        let sampler = self.spawn("sampler".to_owned(), move |stop| {
            instances.sample(stop);
            Ok(())
        })?;
        let reporter = self.spawn("reporter".to_owned(), move |stop| {
            exchanging.exchange(stop);
            Ok(())
        })?;
        Ok([sampler, reporter])
    }

    fn spawn_standby(
        &self,
        topology: &Arc<Topology>,
        group: String,
    ) -> anyhow::Result<JoinHandle<()>> {
        let parts = StandbyParts {
            broker: Arc::clone(&self.cluster.broker),
            topology: Arc::clone(topology),
            group: group.clone(),
            stores: Arc::clone(&self.stores),
            clock: Arc::clone(self.clock),
            metrics: self.streams_metrics.clone(),
        };
        self.spawn(format!("{group}-standby"), move |stop| Standby::new(parts).run(stop))
    }

    /// Runs `work` on a thread until the instance stops.
    fn spawn(
        &self,
        name: String,
        work: impl FnOnce(&StopSignal) -> Result<(), WorkerError> + Send + 'static,
    ) -> anyhow::Result<JoinHandle<()>> {
        let (stop, shutdown) = (self.shutdown.signal(), self.shutdown.clone());
        let topics = self.config.topics.clone();
        let describe = move |error: WorkerError| match &error {
            WorkerError::Broker(BrokerError::Gone(topic)) => topic_changes::deleted(&topics, topic),
            WorkerError::Repartitioned(topics) => topic_changes::repartitioned(topics),
            WorkerError::Broker(_) | WorkerError::FencedAgain { .. } | WorkerError::State(_) => {
                error.to_string()
            }
        };
        let thread = std::thread::Builder::new().name(name);
        Ok(thread.spawn(move || shutdown.stop_on_failure(|| work(&stop).map_err(describe)))?)
    }

    fn create_changelogs(&self, group: Group, topology: &Topology) -> anyhow::Result<()> {
        let changelogs = topology.changelogs().into_iter();
        let specs = changelogs.map(|name| group.changelog(name, self.config.partitions));
        self.cluster.broker.create_topics(&specs.collect::<Vec<_>>())?;
        Ok(())
    }

    fn spawn_worker(
        &self,
        group: Group,
        topology: &Arc<Topology>,
        member: String,
    ) -> anyhow::Result<JoinHandle<()>> {
        let streams = &self.config.streams;
        let parts = WorkerParts {
            broker: Arc::clone(&self.cluster.broker),
            topology: Arc::clone(topology),
            membership: Membership {
                group: group.name(&self.config.application()),
                member: member.clone(),
                lead: topology.lead().clone(),
                co_partitioned: topology.co_partitioned(),
                guarantee: streams.processing_guarantee,
                commit_interval: commit_interval(group, self.config),
            },
            stores: Arc::clone(&self.stores),
            settings: WorkerSettings {
                commit_records_max: streams.commit_records_max,
                max_task_idle: streams.max_task_idle,
                quiet_after: streams.quiet_after,
                ..WorkerSettings::default()
            },
            clock: Arc::clone(self.clock),
            metrics: self.streams_metrics.clone(),
            board: self.board.clone(),
        };
        self.board.publish(&member, foretell_streams::runtime::WorkerStatus::default());
        // The worker joins on its own thread, the only one that may use the group member.
        self.spawn(member, move |stop| Worker::join(parts)?.run(stop))
    }
}

/// Time between two commits of a worker of this group, in which a transaction may be open.
fn commit_interval(group: Group, config: &Config) -> Duration {
    let configured = config.streams.commit_interval;
    match group {
        Group::Scoring => configured,
        Group::Learning => {
            let rarely = LEARNER_COMMIT_INTERVAL.min(config.broker.transaction_timeout / 4);
            configured.max(rarely)
        }
    }
}

/// Stores in memory, or under the configured folder, where each instance has a folder of its own.
fn open_stores(config: &Config, cluster: &Cluster) -> anyhow::Result<Arc<dyn StoreSupplier>> {
    // Stores on disk are useless without their changelogs, which end with an embedded broker.
    let folder = config.streams.state_dir.as_ref().filter(|_| cluster.is_lasting);
    let Some(folder) = folder else { return Ok(Arc::new(MemoryStores)) };
    let folder = folder.join(config.application()).join(config.instance());
    let stores = DiskStores::open(&folder)?;
    tracing::info!(folder = %folder.display(), "stores are on disk");
    Ok(Arc::new(stores))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learner_commits_more_rarely_within_its_transactions() {
        let check = |interval: &str, transactions: &str, expected: u64| {
            let settings = [
                format!("streams.commit_interval={interval}"),
                format!("broker.transaction_timeout={transactions}"),
            ];
            let example = std::path::Path::new(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/deploy/adult/foretell.toml"
            ));
            let config = Config::load(example, &settings).unwrap();
            let learner = commit_interval(Group::Learning, &config);
            assert_eq!(learner, Duration::from_millis(expected), "{interval}, {transactions}");
            let scoring = commit_interval(Group::Scoring, &config);
            assert_eq!(scoring, config.streams.commit_interval);
        };
        check("100ms", "10s", 1_000);
        check("5s", "10s", 5_000);
        check("100ms", "1s", 250);
        check("100ms", "200ms", 100);
    }
}
