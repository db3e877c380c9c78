//! One scoring task of the worked example without a broker, driven as a worker drives it.

use std::{collections::BTreeMap, convert::Infallible, hint::black_box, sync::Arc};

use foretell::{
    app::{cluster::Cluster, schemas},
    config::Config,
    events::{codecs::Codecs, model::Model},
    processors::{
        contract::ContractBoard,
        learning::outputs::records_of,
        metrics::ApplicationMetrics,
        model_table::{CHALLENGER, ModelTable, Serving},
        topology::{ScoringParts, scoring},
    },
};
use foretell_ml::ModelBundle;
use foretell_streams::{
    metrics::StreamsMetrics,
    record::{InputRecord, Offset, OutputRecord, OutputRecordRef, Partition, TopicPartition},
    state::MemoryStores,
    task::{Progress, Task},
    time::{Clock, ManualClock, WallTime},
    topology::{Outbox, Topology},
};

use crate::{meter::Meter, process::example, workload};

/// The stages of a commit, in the order in which a worker runs them.
pub(crate) const STAGES: [&str; 5] =
    ["queue", "process", "hand out outputs", "flush changes", "commit to stores"];

/// One meter per stage.
pub(crate) type Meters = [Meter; STAGES.len()];

/// The task, with what it was made of.
pub(crate) struct ScoringTask {
    pub(crate) config: Config,
    pub(crate) cluster: Cluster,
    pub(crate) codecs: Codecs,
    pub(crate) serving: Serving,
    task: Task,
    clock: ManualClock,
    offset: i64,
}

impl ScoringTask {
    /// Opens a task without state. `settings` are keys of the configuration with their values.
    pub(crate) fn open(model: &ModelBundle, settings: &[String]) -> anyhow::Result<Self> {
        let settings = [settings, &crate::more_settings()?].concat();
        let config = Config::load(example().as_ref(), &settings)?;
        let clock: Arc<dyn Clock> = foretell::app::clock();
        let cluster = Cluster::embedded(&clock);
        let levels = schemas::SetLevels::WithNewVersions;
        schemas::register_with(&config, cluster.registry.as_ref(), levels, &mut |_| {})?;
        let codecs = cluster.codecs(&config)?;
        let (topology, serving) = topology(&config, &codecs, model)?;
        let metrics = StreamsMetrics::register(&prometheus::Registry::new())?;
        let mut task = Task::open(&topology, Partition(0), &metrics, &MemoryStores)?;
        task.start(clock.now());
        let clock = ManualClock::at(clock.now());
        Ok(Self { config, cluster, codecs, serving, task, clock, offset: 0 })
    }

    /// Announces `model`, under another version, as the challenger.
    pub(crate) fn challenge(&self, model: &ModelBundle) -> anyhow::Result<()> {
        let metrics = ApplicationMetrics::register(&prometheus::Registry::new())?;
        let mut table = ModelTable::new(self.serving.clone(), metrics);
        let other = ModelBundle { threshold: model.threshold / 2.0, ..model.clone() };
        let [bundle, alias] = records_of(&other, "benchmark", self.now())?;
        table.apply(&bundle)?;
        table.apply(&Model { alias: Some(CHALLENGER.to_owned()), ..alias })?;
        Ok(())
    }

    /// Processes records of `events` events, as much as one commit has. Pass the outputs to [`Self::commit`].
    pub(crate) fn process(
        &mut self,
        events: usize,
        records: impl IntoIterator<Item = OutputRecord>,
        [queue, process, send, ..]: &mut Meters,
    ) -> anyhow::Result<Outbox> {
        let records: Vec<_> = records.into_iter().map(|record| self.input(record)).collect();
        let (task, now) = (&mut self.task, self.clock.now());
        queue.measure(events, || records.into_iter().for_each(|record| task.add(record)));
        process.measure(events, || -> anyhow::Result<()> {
            while task.process_next(now)? == Progress::Processed {}
            Ok(())
        })?;
        Ok(send.measure(events, || {
            let outbox = task.take_outbox();
            outbox.iter().for_each(|record| {
                black_box(record);
            });
            outbox
        }))
    }

    /// Commits what was processed; `flushed` gets the records of the changelogs.
    pub(crate) fn commit(
        &mut self,
        events: usize,
        outbox: Outbox,
        [.., flush, keep]: &mut Meters,
        mut flushed: impl FnMut(OutputRecordRef<'_>),
    ) -> anyhow::Result<()> {
        let (task, now) = (&mut self.task, self.clock.now());
        task.return_outbox(outbox);
        flush.measure(events, || {
            let all: Result<(), Infallible> = task.flush_changes(|record| {
                flushed(black_box(record));
                Ok(())
            });
            let Ok(()) = all;
        });
        keep.measure(events, || task.apply_commit(now, &BTreeMap::new()))?;
        Ok(())
    }

    /// The number of entries of each store.
    pub(crate) fn store_entries(&self) -> BTreeMap<String, usize> {
        self.task.store_entries()
    }

    /// The time by the clock of the task, which stands still.
    pub(crate) fn now(&self) -> WallTime {
        self.clock.now()
    }

    fn input(&mut self, record: OutputRecord) -> InputRecord {
        self.offset += 1;
        InputRecord {
            source: TopicPartition { topic: record.topic, partition: Partition(0) },
            offset: Offset(self.offset),
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            headers: record.headers,
        }
    }
}

/// The scoring topology under the name of the configured application, in which `model` serves.
pub(crate) fn topology(
    config: &Config,
    codecs: &Codecs,
    model: &ModelBundle,
) -> anyhow::Result<(Arc<Topology>, Serving)> {
    let metrics = ApplicationMetrics::register(&prometheus::Registry::new())?;
    let serving = Serving::default();
    let mut table = ModelTable::new(serving.clone(), metrics.clone());
    for record in workload::announcements(model)? {
        table.apply(&record)?;
    }
    let topology = scoring(ScoringParts {
        application: config.application(),
        topics: config.topics.clone(),
        codecs: codecs.clone(),
        gather: config.gather.clone(),
        events: config.event_schemas.clone(),
        join: config.join.clone(),
        actions: config.actions.clone(),
        partitions: 1,
        times: config.time_bounds(),
        duplicates_within: config.events.duplicates_within,
        serving: serving.clone(),
        contract: config.contract.clone(),
        board: ContractBoard::new(config.contract.policy, metrics.clone()),
        quality_window: config.quality.window,
        metrics,
    });
    Ok((Arc::new(topology), serving))
}
