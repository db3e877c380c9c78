//! `foretell replay`: runs the topologies over a history (the topics of the application, or a table) once for each of several
//! variants of the configuration, as fast as they can, and compares the progressive metrics. Nothing is written outside this
//! process.
//!
//! ```text
//!   topics ─merged by event time─┐
//!   table ──played as in a demo──┴▶ records ─▶ for each variant: a cluster in memory with its first model
//!                                                                 both topologies, record by record (instance.rs)
//!                                                                 scores ─▶ report: tables, charts
//! ```
//!
//! Variants run one after another, so one is in memory at a time: its stores, as in production; its training set, as its policy
//! bounds it; at most 10,000 records of the training log before they are in the training set; the models that an alias points
//! to; 48 windows of scores; and a sample of 100,000 examples to be compared with `current`. Of the topics, a batch of each
//! partition is in memory. A table is in memory as a whole.

mod clock;
mod counts;
mod feed;
mod first_model;
mod history;
mod instance;
mod log;
mod merge;
mod report;
mod scores;
mod shared_work;
mod source;
mod table;
mod task;

use std::{cell::RefCell, sync::Arc};

use anyhow::Context;

pub use counts::Counts;
pub use history::HistoryRequest;
pub use report::{Report, VariantReport};
pub use scores::{Improvement, Promotion, ScoredWindow};
pub use table::TableRequest;

use crate::{
    app::{
        cluster::Cluster,
        init::InitObserver,
        replay::{
            clock::HistoryClock,
            feed::Feed,
            first_model::{FirstModels, VariantCluster},
            history::History,
            instance::{Parts, ReplayInstance},
            scores::Paired,
            source::Source,
            table::PlayedTable,
        },
        shutdown::Shutdown,
    },
    config::{Config, Variant},
    events::labelled_example::{ExampleOrigin, LabelledExample},
    processors::learning::trainer::TrainingProgress,
};
use foretell_avro::{local::LocalRegistry, registry::SchemaRegistry};
use foretell_streams::{
    record::{Offset, OutputRecord},
    time::Clock,
};

/// The name of the plain configuration, which the others are compared with.
pub const CURRENT: &str = "current";

/// The history.
#[derive(Clone, Debug)]
pub enum Request {
    /// A table, without a broker.
    Table(TableRequest),
    /// The topics of the application.
    Topics(HistoryRequest),
}

/// Receives the progress of a replay.
pub trait ReplayObserver: InitObserver {
    /// A variant begins, the `number`-th of `of`.
    fn begins(&mut self, variant: &str, number: usize, of: usize);
    /// The variant has processed `done` of `of` records.
    fn replayed(&mut self, done: u64, of: u64);
    /// The variant trains a model, and its records wait.
    fn training(&mut self, progress: &TrainingProgress);
    /// The variant has ended.
    fn ended(&mut self, variant: &VariantReport);
}

/// Records between two reports of progress.
const RECORDS_A_REPORT: u64 = 200;

/// Replays the history with each variant. The first one is what the others are compared with.
///
/// # Errors
/// If there is no history, or a first model cannot be made. A variant that fails later is in the report with its error.
pub fn run(
    variants: &[Variant],
    clock: &Arc<dyn Clock>,
    shutdown: &Shutdown,
    request: &Request,
    observer: &mut dyn ReplayObserver,
) -> anyhow::Result<Report> {
    let adapted = |variant: &Variant| Variant {
        name: variant.name.clone(),
        config: adapted(&variant.config),
    };
    let variants: Vec<Variant> = variants.iter().map(adapted).collect();
    let current = &variants.first().context("there is no variant")?.config;
    let registry: Arc<dyn SchemaRegistry> = Arc::new(LocalRegistry::new());
    let (source, described) = open(current, &registry, clock, request, observer)?;
    let mut replay = Replay {
        source,
        current,
        registry,
        machine: clock,
        shutdown,
        first_models: FirstModels::default(),
    };
    for variant in variants.iter().filter(|variant| replay.needs_init(&variant.config)) {
        let checked = first_model::check_initial(&variant.config);
        checked.with_context(|| format!("variant {}", variant.name))?;
    }
    let mut report = Report { source: described, variants: Vec::new(), is_stopped: false };
    let mut of_current: Option<Paired> = None;
    for (number, variant) in (1..).zip(&variants) {
        observer.begins(&variant.name, number, variants.len());
        let run = replay.run(variant, observer);
        if shutdown.signal().is_stopped() {
            report.is_stopped = true;
            break;
        }
        let (mut result, paired) = run.with_context(|| format!("variant {}", variant.name))?;
        let seed = current.learning.seed;
        result.improvement = of_current.as_ref().and_then(|of| paired.improvement_over(of, seed));
        of_current = of_current.or(Some(paired));
        observer.ended(&result);
        report.variants.push(result);
    }
    Ok(report)
}

/// The configuration for a cluster in memory. All partitions of the history are one there.
fn adapted(config: &Config) -> Config {
    let mut config = config.clone();
    config.partitions = 1;
    // A cache of schemas on disk belongs to the instances.
    config.schema_registry.cache_dir = None;
    config
}

/// Opens the history, and describes it.
fn open(
    config: &Config,
    registry: &Arc<dyn SchemaRegistry>,
    clock: &Arc<dyn Clock>,
    request: &Request,
    observer: &mut dyn ReplayObserver,
) -> anyhow::Result<(Source, String)> {
    match request {
        Request::Table(request) => {
            first_model::register(config, registry)?;
            let cluster = Cluster { registry: Arc::clone(registry), ..Cluster::embedded(clock) };
            let table = PlayedTable::read(config, &cluster, request)?;
            table.lines.iter().for_each(|line| observer.step(line));
            let configured = config.data.play.as_ref().or(config.data.initial.as_ref());
            let path = request.path.as_ref().or(configured.map(|table| &table.path));
            let described = path.map_or(String::new(), |path| path.display().to_string());
            Ok((Source::Table(table), described))
        }
        Request::Topics(request) => {
            let cluster = Cluster::connect(config, clock)?;
            let history = History::open(config, cluster, request.clone())?;
            observer.step(&match &history.first_model {
                Some(bundle) => format!("the first model is {}", bundle.version()),
                None => "there is no model on the topic of models: the first is made as init does"
                    .to_owned(),
            });
            Ok((Source::Topics(Box::new(history)), history::described(config)))
        }
    }
}

/// What all variants share.
struct Replay<'a> {
    source: Source,
    current: &'a Config,
    registry: Arc<dyn SchemaRegistry>,
    machine: &'a Arc<dyn Clock>,
    shutdown: &'a Shutdown,
    first_models: FirstModels,
}

impl Replay<'_> {
    /// Whether a variant begins with a model of its own.
    fn needs_init(&self, config: &Config) -> bool {
        match &self.source {
            Source::Table(_) => true,
            Source::Topics(history) => {
                history.first_model.is_none() || !first_model::can_share_model(config, self.current)
            }
        }
    }

    fn run(
        &mut self,
        variant: &Variant,
        observer: &mut dyn ReplayObserver,
    ) -> anyhow::Result<(VariantReport, Paired)> {
        let (config, started) = (&variant.config, self.machine.elapsed());
        let clock = Arc::new(HistoryClock::at(self.source.start(), self.machine));
        let shared: Arc<dyn Clock> = Arc::<HistoryClock>::clone(&clock);
        let to = VariantCluster::open(config, &self.registry, &shared)?;
        let needs_init = self.needs_init(config);
        if needs_init {
            // The first model is not evaluated on the table that is replayed.
            let mut config = config.clone();
            config.data.play = None;
            self.first_models.init(&config, &to, &clock, self.shutdown, observer)?;
        } else if let Source::Topics(history) = &self.source
            && let Some(bundle) = &history.first_model
        {
            to.serve(config, bundle)?;
        }
        let codecs = self.source.codecs(to.cluster.codecs(config)?, config)?;
        let observer = RefCell::new(observer);
        let on_training = |progress: &TrainingProgress| observer.borrow_mut().training(progress);
        let mut instance = ReplayInstance::start(Parts {
            config,
            cluster: &to.cluster,
            broker: &to.broker,
            codecs,
            clock: &clock,
            shutdown: self.shutdown,
            on_training: &on_training,
        })?;
        self.add_earlier(config, &to, &mut instance, needs_init)?;
        let mut feed = self.source.feed(config)?;
        let fed = self.feed(feed.as_mut(), &mut instance, &observer);
        let (scores, counts) = instance.stop();
        let mut report = VariantReport::new(&variant.name, &scores, counts);
        if let Err(error) = fed {
            report.error = Some(format!("{error:#}"));
        }
        report.seconds = self.machine.elapsed().saturating_sub(started).as_secs_f64();
        Ok((report, scores.paired().clone()))
    }

    /// Adds what the training log had before the history begins. With the first model of the topic, records keep their offsets,
    /// because it names the one that it was trained up to; otherwise `init` has added the initial data.
    fn add_earlier(
        &self,
        config: &Config,
        to: &VariantCluster,
        instance: &mut ReplayInstance<'_>,
        has_initial: bool,
    ) -> anyhow::Result<()> {
        let Source::Topics(history) = &self.source else { return Ok(()) };
        let topic = &config.topics.labelled_examples;
        let codec = to.cluster.codec::<LabelledExample>(config, topic)?;
        history.each_earlier(config, |record, example| {
            if has_initial && example.origin == ExampleOrigin::Initial {
                return Ok(());
            }
            let mut bytes = Vec::new();
            codec.encode(&example, &mut bytes)?;
            let copy = OutputRecord {
                headers: record.headers.clone(),
                ..OutputRecord::new(topic, record.key.as_deref(), Some(&bytes), record.timestamp)
            };
            let at = (!has_initial).then_some(record.offset);
            instance.add_earlier(copy, at, example.origin)
        })?;
        match &history.first_model {
            Some(bundle) if !has_initial => {
                instance.skip_to(Offset(bundle.lineage.origin.examples_through))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn feed(
        &self,
        feed: &mut dyn Feed,
        instance: &mut ReplayInstance<'_>,
        observer: &RefCell<&mut dyn ReplayObserver>,
    ) -> anyhow::Result<()> {
        let stop = self.shutdown.signal();
        let mut number = 0_u64;
        while let Some(record) = feed.next()? {
            anyhow::ensure!(!stop.is_stopped(), "stopped");
            instance.process(record)?;
            number += 1;
            if number.is_multiple_of(RECORDS_A_REPORT) {
                let position = feed.position();
                observer.borrow_mut().replayed(position.done, position.of);
            }
        }
        let position = feed.position();
        observer.borrow_mut().replayed(position.of, position.of);
        Ok(())
    }
}
