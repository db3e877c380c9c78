//! The embedded cluster of a variant, with its first model: that of the topic of models, or the one that `init` makes of the
//! variant's settings. Variants with the same settings of `init` share it.

use std::sync::Arc;

use crate::{
    app::{
        cluster::Cluster,
        init::{self, InitObserver},
        initial::Prepared,
        replay::{ReplayObserver, clock::HistoryClock},
        schemas::{self, SetLevels},
        shutdown::Shutdown,
    },
    config::Config,
    events::model::Model,
    processors::learning::outputs::records_of,
};
use foretell_avro::registry::SchemaRegistry;
use foretell_ml::{ModelBundle, training::Trial};
use foretell_streams::{
    local::{LocalBroker, LocalSettings},
    record::{OutputRecord, Topic},
    runtime::broker::Broker,
    time::{Clock, EventTime},
};

/// Memory of the embedded broker: initial data of some million rows, models that an alias points to, and trials.
const LOG_BYTES_MAX: u64 = 2 << 30;

/// A broker in this process for one variant.
pub(super) struct VariantCluster {
    pub(super) broker: LocalBroker,
    pub(super) cluster: Cluster,
}

/// The first models that `init` has made, each with the settings of it, and the records of its models and trials.
#[derive(Default)]
pub(super) struct FirstModels(Vec<(String, Vec<OutputRecord>)>);

impl VariantCluster {
    /// A broker with the topics, whose schemas are in `registry`.
    ///
    /// # Errors
    /// If a schema cannot be registered.
    pub(super) fn open(
        config: &Config,
        registry: &Arc<dyn SchemaRegistry>,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let settings = LocalSettings { log_bytes_max: LOG_BYTES_MAX, ..LocalSettings::default() };
        let broker = LocalBroker::with_settings(Arc::clone(clock), settings);
        broker.create_topics(&config.topics.specs(config.partitions))?;
        register(config, registry)?;
        let shared: Arc<dyn Broker> = Arc::new(broker.clone());
        let registry = Arc::clone(registry);
        let cluster = Cluster { broker: shared, registry, is_lasting: false };
        Ok(Self { broker, cluster })
    }

    /// Makes `bundle` the champion.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn serve(&self, config: &Config, bundle: &ModelBundle) -> anyhow::Result<()> {
        let topic = &config.topics.models;
        let codec = self.cluster.codec::<Model>(config, topic)?;
        let mut publisher = self.broker.publish()?;
        for model in records_of(bundle, "replay", foretell_streams::time::WallTime(0))? {
            let key = model.alias.clone().unwrap_or_else(|| model.version.clone());
            let mut bytes = Vec::new();
            codec.encode(&model, &mut bytes)?;
            let record = OutputRecord::new(topic, Some(key.as_bytes()), Some(&bytes), EventTime(0));
            publisher.send(record)?;
        }
        Ok(publisher.flush()?)
    }
}

/// Registers the schemas of the configuration, as `init` does.
///
/// # Errors
/// If one is refused.
pub(super) fn register(config: &Config, registry: &Arc<dyn SchemaRegistry>) -> anyhow::Result<()> {
    schemas::register_with(config, registry.as_ref(), SetLevels::WithNewVersions, &mut |_| {})
}

impl FirstModels {
    /// Runs `init`, or takes its result for a variant before. The initial data are on the training log then.
    ///
    /// # Errors
    /// If `init` fails.
    pub(super) fn init(
        &mut self,
        config: &Config,
        to: &VariantCluster,
        clock: &Arc<HistoryClock>,
        shutdown: &Shutdown,
        observer: &mut dyn ReplayObserver,
    ) -> anyhow::Result<()> {
        let settings = settings_of_init(config);
        let known = self.0.iter().find(|(known, _)| *known == settings);
        let is_known = known.is_some();
        if let Some((_, records)) = known {
            let mut publisher = to.broker.publish()?;
            for record in records {
                publisher.send(record.clone())?;
            }
            publisher.flush()?;
        }
        let clock: Arc<dyn Clock> = Arc::<HistoryClock>::clone(clock);
        let mut observer = Steps { observer, is_silent: is_known };
        init::init(config, &to.cluster, &clock, shutdown, false, &mut observer)?;
        if !is_known {
            let topics = [&config.topics.models, &config.topics.trials];
            let records = topics.map(|topic| records_on(to, topic)).into_iter();
            let records: Vec<Vec<OutputRecord>> = records.collect::<anyhow::Result<_>>()?;
            self.0.push((settings, records.concat()));
        }
        Ok(())
    }
}

/// Checks that `init` will be able to make a first model, before anything else has taken time.
///
/// # Errors
/// If the initial data cannot be used.
pub(super) fn check_initial(config: &Config) -> anyhow::Result<()> {
    Prepared::from(config).map(drop)
}

/// The settings that the first model depends on, as text.
fn settings_of_init(config: &Config) -> String {
    let learning = &config.learning;
    format!(
        "{:?} {:?} {:?} {:?} {} {:?} {:?}",
        config.data.initial,
        config.pipeline,
        config.tuning,
        config.classes,
        learning.seed,
        learning.threshold,
        learning.calibration,
    )
}

/// Whether two configurations have the same initial data and features, so that one can begin with a model of the other.
pub(super) fn can_share_model(one: &Config, other: &Config) -> bool {
    let of = |config: &Config| format!("{:?} {:?}", config.data.initial, config.pipeline);
    of(one) == of(other)
}

fn records_on(from: &VariantCluster, topic: &Topic) -> anyhow::Result<Vec<OutputRecord>> {
    let mut records = Vec::new();
    from.cluster.read_to_end(topic, |record| {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        records.push(OutputRecord::new(topic, key, value, record.timestamp));
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    Ok(records)
}

/// Passes trials and warnings on, not the other steps of `init`.
struct Steps<'o> {
    observer: &'o mut dyn ReplayObserver,
    is_silent: bool,
}

impl InitObserver for Steps<'_> {
    fn step(&mut self, line: &str) {
        if line.starts_with("warning: ") && !self.is_silent {
            self.observer.step(line);
        }
    }

    fn trial(&mut self, trial: &Trial, of: u32) {
        self.observer.trial(trial, of);
    }
}
