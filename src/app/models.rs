//! Follows the `models` topic: reads it to its end before the instance starts, and continues from there.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crate::{
    app::cluster::Cluster,
    config::Config,
    events::{model::Model, topics::TOPICS},
    processors::{
        metrics::ApplicationMetrics,
        model_archive::ModelArchive,
        model_table::{CHALLENGER, ModelTable, Serving},
    },
};
use foretell_streams::{
    codec::{Codec, CodecError},
    record::{InputRecord, Partition, TopicPartition},
    runtime::{
        StopSignal,
        broker::{BrokerError, ReadFrom, ReadTo, Reader},
    },
    time::Clock,
};

/// The time for a partition to elect a leader, and for the registry to answer, before a start fails.
const LEADER_WITHIN: Duration = Duration::from_secs(30);
/// The time that one read waits for records.
const WAIT: Duration = Duration::from_millis(200);

/// The source of the models, and the scorers that serve them.
pub(super) struct Models<'a> {
    pub(super) config: &'a Config,
    pub(super) cluster: &'a Cluster,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) codec: Arc<dyn Codec<Model>>,
    pub(super) serving: Serving,
    pub(super) metrics: ApplicationMetrics,
}

/// The reader of the topic.
pub(super) struct ModelFollower {
    reader: Box<dyn Reader>,
    /// Reads a bundle again that is not in memory any more.
    archive: ModelArchive,
    table: ModelTable,
    /// Records that were read, and wait for the registry to be decoded.
    waiting: Vec<InputRecord>,
    /// Models of one read that are not applied yet, because the bundle of the first must be read again.
    decoded: VecDeque<Model>,
}

impl Models<'_> {
    /// Reads the topic to its end.
    ///
    /// # Errors
    /// If no model serves then, or a model with other classes than the configured ones.
    pub(super) fn catch_up(self) -> anyhow::Result<ModelFollower> {
        let topic = self.config.topics.models.clone();
        let source = TopicPartition { topic, partition: Partition(0) };
        let reader =
            self.with_retries(|| self.cluster.broker.read(&source, ReadFrom::Beginning))?;
        let metrics = self.metrics.clone();
        let table = ModelTable::new(self.serving.clone(), metrics.clone());
        let archive = ModelArchive {
            broker: Arc::clone(&self.cluster.broker),
            source,
            codec: Arc::clone(&self.codec),
            metrics,
        };
        let mut follower =
            ModelFollower { reader, archive, table, waiting: Vec::new(), decoded: VecDeque::new() };
        while self.with_retries(|| follower.read())? == ReadTo::More {}
        let Some(scorer) = self.serving.scorer() else {
            if let Some(why) = follower.table.refused() {
                anyhow::bail!(
                    "no model serves: {why}. Start the release that trained it, or train another first model with \
                     `foretell init --force`"
                );
            }
            anyhow::bail!(
                "no model serves: topic {} is empty. Run `foretell init` first",
                follower.archive.source.topic
            );
        };
        let labels = &self.config.classes;
        anyhow::ensure!(
            scorer.classes() == labels.as_slice(),
            "the model that serves has the classes {:?}, but [outcomes] labels is {labels:?}: \
             set it to the classes of the model, or train another first model with `foretell init --force`",
            scorer.classes()
        );
        Ok(follower)
    }

    /// Repeats `request` while it fails with `Retry`, for at most [`LEADER_WITHIN`].
    fn with_retries<T>(
        &self,
        mut request: impl FnMut() -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let deadline = self.clock.elapsed() + LEADER_WITHIN;
        loop {
            match request() {
                Err(BrokerError::Retry(reason)) if self.clock.elapsed() < deadline => {
                    tracing::warn!(reason, "cannot read the models; retrying");
                }
                answer => return answer,
            }
        }
    }
}

impl ModelFollower {
    /// Follows the topic until `stop`.
    ///
    /// # Errors
    /// The first error that a retry cannot recover from.
    pub(super) fn run(&mut self, stop: &StopSignal) -> Result<(), String> {
        let mut logged = None;
        while !stop.is_stopped() {
            match self.read() {
                Ok(_) => logged = None,
                Err(BrokerError::Retry(reason)) => {
                    // Logged once for all retries.
                    if logged.as_ref() != Some(&reason) {
                        tracing::warn!(reason, "cannot follow the models now; retrying");
                    }
                    logged = Some(reason);
                }
                Err(error) => return Err(format!("cannot follow the models: {error}")),
            }
        }
        Ok(())
    }

    /// Reads and applies the next records.
    fn read(&mut self) -> Result<ReadTo, BrokerError> {
        self.apply_decoded()?;
        let mut records: Vec<InputRecord> = std::mem::take(&mut self.waiting);
        let read = self.reader.read(WAIT, &mut records);
        let mut unavailable = None;
        for (index, record) in records.iter().enumerate() {
            match self.decode(record) {
                Ok(model) => self.decoded.extend(model),
                Err(message) => {
                    self.waiting = records[index..].to_vec();
                    unavailable = Some(message);
                    break;
                }
            }
        }
        self.apply_decoded()?;
        match unavailable {
            Some(message) => Err(BrokerError::Retry(message)),
            None => read,
        }
    }

    /// The model of a record; none if it cannot be read.
    ///
    /// # Errors
    /// The reason why the registry does not answer.
    fn decode(&self, record: &InputRecord) -> Result<Option<Model>, String> {
        let Some(bytes) = &record.value else { return Ok(None) };
        match self.archive.codec.decode(bytes) {
            Ok(model) => Ok(Some(model)),
            Err(CodecError::Unavailable { message }) => Err(message),
            Err(error) => {
                self.archive.metrics.unreadable(TOPICS.models.name);
                tracing::error!(offset = %record.offset, %error, "skipping a model record that cannot be decoded");
                Ok(None)
            }
        }
    }

    fn apply_decoded(&mut self) -> Result<(), BrokerError> {
        while let Some(model) = self.decoded.front() {
            // Of several moves of an alias in one batch, only the last is applied.
            let is_moved_again = |later: &Model| later.alias == model.alias;
            if model.alias.is_none() || !self.decoded.iter().skip(1).any(is_moved_again) {
                if self.table.lacks_bundle_of(model)
                    && let Some(bundle) = self.archive.record(&model.version)?
                {
                    drop(self.table.apply(&bundle));
                }
                apply(&mut self.table, model);
            }
            self.decoded.pop_front();
        }
        Ok(())
    }
}

/// Applies a model, and logs the result.
fn apply(table: &mut ModelTable, model: &Model) {
    let (version, training) = (model.version.as_str(), model.training);
    let is_challenger = model.alias.as_deref() == Some(CHALLENGER);
    match table.apply(model) {
        Ok(true) if is_challenger && version.is_empty() => {
            tracing::info!("the challenger is cleared");
        }
        Ok(true) if is_challenger => {
            tracing::info!(version, training, "comparing a new challenger with the champion");
        }
        Ok(true) => tracing::info!(version, training, "serving a new model"),
        Ok(false) => {}
        Err(error) => {
            let error = format!("{:#}", anyhow::Error::from(error));
            if is_challenger {
                tracing::error!(version, error, "a challenger cannot be used: there is none now");
            } else {
                let message = "a model cannot be used: the previous one continues to serve";
                tracing::error!(version, error, message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        app::{self, schemas, telemetry},
        processors::{
            learning::outputs::records_of, model_table::CHAMPION, small_model::small_bundle,
        },
    };
    use foretell_ml::ModelBundle;
    use foretell_streams::{
        record::OutputRecord,
        time::{EventTime, WallTime},
    };

    const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/adult/foretell.toml");

    struct Fixture {
        config: Config,
        cluster: Cluster,
        clock: Arc<dyn Clock>,
    }

    /// One process.
    struct Instance {
        serving: Serving,
        follower: ModelFollower,
    }

    impl Fixture {
        fn new() -> Self {
            let config = Config::load(EXAMPLE.as_ref(), &[]).unwrap();
            let clock = app::clock();
            let cluster = Cluster::embedded(&clock);
            cluster.broker.create_topics(&config.topics.specs(1)).unwrap();
            let levels = schemas::SetLevels::WithNewVersions;
            schemas::register_with(&config, cluster.registry.as_ref(), levels, &mut |_| {})
                .unwrap();
            Self { config, cluster, clock }
        }

        /// The records of a model that differs for each number, and of the alias of the champion.
        fn records(&self, number: u32) -> [Model; 2] {
            let threshold = f64::from(number) / 100.0;
            let classes = self.config.classes.clone();
            let bundle = ModelBundle { threshold, classes, ..small_bundle() };
            records_of(&bundle, "test", WallTime(0)).unwrap()
        }

        fn name_of(&self, number: u32) -> String {
            self.records(number)[0].version.clone()
        }

        fn publish(&self, models: impl IntoIterator<Item = Model>) {
            let topic = &self.config.topics.models;
            let codec = self.cluster.codec::<Model>(&self.config, topic).unwrap();
            let mut publisher = self.cluster.broker.publish().unwrap();
            for model in models {
                let mut value = Vec::new();
                codec.encode(&model, &mut value).unwrap();
                let key = model.alias.unwrap_or(model.version).into_bytes();
                let record = OutputRecord {
                    topic: topic.clone(),
                    partition: None,
                    timestamp: EventTime(0),
                    key: Some(key),
                    value: Some(value),
                    headers: Vec::new(),
                };
                publisher.send(record).unwrap();
            }
            publisher.flush().unwrap();
        }

        /// Moves an alias, or clears it.
        fn point(&self, alias: &str, to: Option<u32>) {
            let [_, record] = self.records(to.unwrap_or_default());
            let version = to.map_or_else(String::new, |number| self.name_of(number));
            self.publish([Model { alias: Some(alias.to_owned()), version, ..record }]);
        }

        fn start(&self) -> anyhow::Result<Instance> {
            let serving = Serving::default();
            let topic = &self.config.topics.models;
            let models = Models {
                config: &self.config,
                cluster: &self.cluster,
                clock: &self.clock,
                codec: self.cluster.codec(&self.config, topic).unwrap(),
                serving: serving.clone(),
                metrics: ApplicationMetrics::register(&telemetry::metrics_registry().unwrap())
                    .unwrap(),
            };
            Ok(Instance { follower: models.catch_up()?, serving })
        }

        /// Asserts that a running instance and one that starts now have these models.
        #[track_caller]
        fn expect(&self, running: &mut Instance, champion: u32, challenger: Option<u32>) {
            let expected = (Some(self.name_of(champion)), challenger.map(|it| self.name_of(it)));
            running.follow_until(|models| *models == expected);
            assert_eq!(self.start().unwrap().models(), expected, "after a restart");
        }
    }

    impl Instance {
        fn models(&self) -> (Option<String>, Option<String>) {
            let name = |scorer: Arc<foretell_ml::Scorer>| scorer.version().as_str().to_owned();
            (self.serving.scorer().map(name), self.serving.challenger().map(name))
        }

        /// A reader reports an end that it has reached, so more records may follow.
        #[track_caller]
        fn follow_until(&mut self, is_reached: impl Fn(&(Option<String>, Option<String>)) -> bool) {
            for _ in 0..100 {
                if is_reached(&self.models()) {
                    return;
                }
                self.follower.read().unwrap();
            }
            panic!("the instance has {:?}", self.models());
        }
    }

    #[test]
    fn aliases_are_followed_to_versions_that_are_not_in_memory() {
        let fixture = Fixture::new();
        for number in 1..=20 {
            fixture.publish(fixture.records(number));
        }
        let mut instance = fixture.start().unwrap();
        fixture.expect(&mut instance, 20, None);
        fixture.point(CHALLENGER, Some(2));
        fixture.expect(&mut instance, 20, Some(2));
        fixture.point(CHAMPION, Some(1));
        fixture.expect(&mut instance, 1, Some(2));
        fixture.point(CHAMPION, Some(2));
        fixture.expect(&mut instance, 2, None);
        fixture.point(CHALLENGER, Some(3));
        fixture.expect(&mut instance, 2, Some(3));
        fixture.point(CHALLENGER, None);
        fixture.expect(&mut instance, 2, None);
    }

    #[test]
    fn the_last_of_several_moves_in_one_read_counts_for_each_alias() {
        let fixture = Fixture::new();
        for number in 1..=4 {
            fixture.publish(fixture.records(number));
        }
        let mut instance = fixture.start().unwrap();
        for (alias, to) in
            [(CHAMPION, 1), (CHALLENGER, 2), (CHAMPION, 2), (CHALLENGER, 3), (CHAMPION, 4)]
        {
            fixture.point(alias, Some(to));
        }
        fixture.expect(&mut instance, 4, Some(3));
    }

    #[test]
    fn a_challenger_without_a_bundle_stops_no_start() {
        let fixture = Fixture::new();
        fixture.publish(fixture.records(1));
        fixture.point(CHALLENGER, Some(77));
        let mut instance = fixture.start().unwrap();
        fixture.expect(&mut instance, 1, None);
        // A champion without a bundle does.
        fixture.point(CHAMPION, Some(77));
        let other = Fixture::new();
        other.point(CHAMPION, Some(77));
        let error = other.start().map(drop).unwrap_err().to_string();
        assert!(error.contains("no model serves") && error.contains(&other.name_of(77)), "{error}");
        fixture.publish([fixture.records(77)[0].clone()]);
        fixture.point(CHAMPION, Some(77));
        fixture.expect(&mut instance, 77, None);
    }
}
