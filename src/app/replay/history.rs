//! The topics of the application as the history: read by readers without a group, partition by partition, and merged by event
//! time. Nothing is written, and of the events a batch of each partition is in memory.

use std::{ops::ControlFlow, sync::Arc};

use anyhow::Context;

use crate::{
    app::{
        cluster::Cluster,
        replay::{feed::Feed, merge::MergedFeed},
        telemetry, times,
    },
    config::Config,
    events::{
        codecs,
        decision::{Decision, DecisionOutcome},
        labelled_example::{ExampleOrigin, LabelledExample},
        model::Model,
        outcome::Outcome,
        questionnaire::QuestionnaireEvent,
    },
    processors::{
        metrics::ApplicationMetrics, model_archive::ModelArchive, outcome_join::JoinSettings,
    },
};
use foretell_ml::ModelBundle;
use foretell_streams::{
    codec::Codec,
    record::{InputRecord, Offset, Partition, Topic, TopicPartition},
    runtime::broker::{Isolation, ReadFrom},
    time::{Clock, EventTime},
};

/// Which part of the history is replayed.
#[derive(Clone, Debug, Default)]
pub struct HistoryRequest {
    /// The first event time; none: from the beginning.
    pub from: Option<EventTime>,
    /// The event time after the last; none: to the end that the topics have when the replay starts.
    pub until: Option<EventTime>,
    /// The version, its beginning or an alias of the first model; none: the model that served at `from`.
    pub model: Option<String>,
}

impl HistoryRequest {
    /// The request of texts as on the command line: `beginning`, a time in RFC 3339, or a span before now.
    ///
    /// # Errors
    /// If a text is none of these, or the range is empty.
    pub fn new(
        from: &str,
        until: Option<&str>,
        model: Option<String>,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let now = EventTime(clock.now().0);
        let from = times::parse(from, now).context("--from")?;
        let until = match until {
            None => None,
            Some(until) => {
                let until = times::parse(until, now).context("--until")?;
                Some(until.context("--until: nothing is before the beginning")?)
            }
        };
        if let (Some(from), Some(until)) = (from, until) {
            anyhow::ensure!(from < until, "--until: it is not after --from");
        }
        Ok(Self { from, until, model })
    }
}

/// The topics of events and outcomes.
fn inputs(config: &Config) -> impl Iterator<Item = &Topic> {
    config.topics.of_events().chain([&config.topics.outcomes])
}

/// The topics that are replayed, for messages.
pub(super) fn described(config: &Config) -> String {
    let events = config.topics.of_events().map(Topic::as_str).collect::<Vec<_>>();
    format!("{} and {}", events.join(", "), config.topics.outcomes)
}

/// The topics of the application.
pub(super) struct History {
    cluster: Cluster,
    request: HistoryRequest,
    /// The partitions of events and outcomes, with the ends that are replayed.
    ends: Vec<(TopicPartition, Offset)>,
    /// The model that serves at the beginning, if the topic of models has one.
    pub(super) first_model: Option<Arc<ModelBundle>>,
    start: EventTime,
}

/// The codecs of the events, in the order of their topics, and of the outcomes.
type InputCodecs = (Vec<Arc<dyn Codec<QuestionnaireEvent>>>, Arc<dyn Codec<Outcome>>);

impl History {
    /// Looks up what there is to replay.
    ///
    /// # Errors
    /// If the topics are missing or empty, or there is no such model. The message says what to do.
    pub(super) fn open(
        config: &Config,
        cluster: Cluster,
        request: HistoryRequest,
    ) -> anyhow::Result<Self> {
        let mut history =
            Self { cluster, request, ends: Vec::new(), first_model: None, start: EventTime::MIN };
        for topic in inputs(config) {
            history.ends.extend(history.ends_of(topic)?);
        }
        if history.ends.iter().all(|(_, end)| end.0 == 0) {
            anyhow::bail!("there is no history: {} are empty", described(config));
        }
        history.first_model = history.find_first_model(config)?.map(Arc::new);
        let first = history.feed(config)?.next()?;
        let first = first.with_context(|| {
            "there is no history between --from and --until: event times count, not when a record was written"
        })?;
        history.start = first.timestamp;
        Ok(history)
    }

    fn ends_of(&self, topic: &Topic) -> anyhow::Result<Vec<(TopicPartition, Offset)>> {
        let broker = &self.cluster.broker;
        let partitions = broker.partitions(topic)?;
        let partitions = partitions.with_context(|| {
            format!(
                "topic {topic} does not exist: run `foretell init`, or replay a table with --table"
            )
        })?;
        let end = |number: u32| {
            let partition = Partition(i32::try_from(number)?);
            let source = TopicPartition { topic: topic.clone(), partition };
            let end = broker.end(&source, Isolation::ReadCommitted)?;
            Ok((source, end))
        };
        (0..partitions).map(end).collect()
    }

    /// The time at which the first record was written.
    pub(super) fn start(&self) -> EventTime {
        self.start
    }

    /// The codecs of the events and outcomes, as a variant reads them.
    pub(super) fn codecs(&self, config: &Config) -> anyhow::Result<InputCodecs> {
        let (cluster, topics) = (&self.cluster, &config.topics);
        let events = codecs::event_codecs(&cluster.registry, topics, &config.event_schemas)?;
        let shared = |codec| Arc::new(codec) as Arc<dyn Codec<QuestionnaireEvent>>;
        let events = events.into_iter().map(shared).collect();
        Ok((events, cluster.codec(config, &topics.outcomes)?))
    }

    /// The events and outcomes, in order of event time.
    pub(super) fn feed(&self, config: &Config) -> anyhow::Result<Box<dyn Feed>> {
        let (events, outcomes) = self.codecs(config)?;
        let ahead_max = config.streams.clock_tolerance;
        let range = (self.request.from, self.request.until);
        let mut feed = MergedFeed::new(range, ahead_max);
        for (source, end) in &self.ends {
            let reader = self.cluster.broker.read(source, ReadFrom::Beginning)?;
            let place = config.topics.of_events().position(|topic| *topic == source.topic);
            let of_events = place.and_then(|place| events.get(place)).map(Arc::clone);
            let outcomes = Arc::clone(&outcomes);
            feed.add(source, reader, *end, move |bytes| match &of_events {
                Some(events) => events.decode(bytes).map(|event| event.event_time),
                None => outcomes.decode(bytes).map(|outcome| outcome.outcome_time),
            });
        }
        Ok(Box::new(feed))
    }

    /// Passes the records of the training log that are older than the history, with their values: the initial data, and the
    /// examples from the stream that had joined before it begins.
    ///
    /// # Errors
    /// If the log cannot be read, or `visit` fails.
    pub(super) fn each_earlier(
        &self,
        config: &Config,
        mut visit: impl FnMut(&InputRecord, LabelledExample) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let topic = &config.topics.labelled_examples;
        if self.cluster.broker.partitions(topic)?.is_none() {
            return Ok(());
        }
        let mut failed = None;
        self.cluster.read_records(config, topic, |record, example: LabelledExample| {
            // One without an outcome was labelled when its window and grace had passed.
            let JoinSettings { window, grace, .. } = config.join;
            let joined = match example.outcome_time {
                Some(outcome_time) => outcome_time.max(example.event_time),
                None => example.event_time + window + grace,
            };
            let is_earlier = example.origin == ExampleOrigin::Initial
                || self.request.from.is_some_and(|from| joined < from);
            if is_earlier && let Err(error) = visit(record, example) {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        failed.map_or(Ok(()), Err)
    }

    fn find_first_model(&self, config: &Config) -> anyhow::Result<Option<ModelBundle>> {
        let topic = &config.topics.models;
        if self.cluster.broker.partitions(topic)?.is_none() {
            return Ok(None);
        }
        let archive = ModelArchive {
            broker: Arc::clone(&self.cluster.broker),
            source: TopicPartition { topic: topic.clone(), partition: Partition(0) },
            codec: self.cluster.codec::<Model>(config, topic)?,
            metrics: ApplicationMetrics::register(&telemetry::metrics_registry()?)?,
        };
        let catalogue = archive.catalogue()?;
        let named = match &self.request.model {
            Some(named) => Some(catalogue.find(named).context("--model")?.version.clone()),
            None => self.champion_before(config)?.or_else(|| {
                let first = catalogue.models.iter().find(|model| model.training == 0);
                first.map(|model| model.version.clone())
            }),
        };
        let Some(version) = named else { return Ok(None) };
        let bundle = archive.bundle(&version)?;
        anyhow::ensure!(
            bundle.classes == config.classes,
            "model {version} has the classes {:?}, but [outcomes] labels is {:?}: name another with --model",
            bundle.classes,
            config.classes
        );
        Ok(Some(bundle))
    }

    /// The champion at the beginning, by the decisions before it; none if there are none.
    fn champion_before(&self, config: &Config) -> anyhow::Result<Option<String>> {
        let topic = &config.topics.decisions;
        let Some(from) = self.request.from else { return Ok(None) };
        if self.cluster.broker.partitions(topic)?.is_none() {
            return Ok(None);
        }
        let mut champion = None;
        self.cluster.read_values(config, topic, |decision: Decision| {
            let moves =
                matches!(decision.outcome, DecisionOutcome::Promoted | DecisionOutcome::RolledBack);
            if moves && decision.decided_at.0 < from.0 {
                champion = decision.candidate.or(champion.take());
            }
            ControlFlow::Continue(())
        })?;
        Ok(champion)
    }
}
