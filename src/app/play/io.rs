//! I/O of a play: sends actions to the topics, and follows the predictions.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    app::{
        cluster::Cluster,
        play::{Action, PlaySources},
    },
    config::Config,
    events::{outcome::Outcome, prediction::Prediction},
};
use foretell_streams::{
    codec::Codec,
    record::{InputRecord, OutputRecord, Partition, Topic, TopicPartition},
    runtime::{
        StopSignal,
        broker::{Broker, Publisher, ReadFrom},
    },
    time::{Clock, EventTime},
};

/// Sends actions to their topics.
pub struct PlaySender {
    publisher: Box<dyn Publisher>,
    sources: PlaySources,
    outcome_codec: Arc<dyn Codec<Outcome>>,
    outcomes: Topic,
    clock: Arc<dyn Clock>,
    sent: usize,
}

impl PlaySender {
    /// Opens a producer.
    ///
    /// # Errors
    /// If the broker refuses one, or a schema is not registered.
    pub fn open(
        config: &Config,
        cluster: &Cluster,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            publisher: cluster.broker.publish()?,
            sources: PlaySources::open(config, cluster)?,
            outcome_codec: cluster.codecs(config)?.outcome,
            outcomes: config.topics.outcomes.clone(),
            clock: Arc::clone(clock),
            sent: 0,
        })
    }

    /// Number of records sent so far.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Sends the record of an action.
    ///
    /// # Errors
    /// If it cannot be encoded or written.
    pub fn send(&mut self, action: &Action) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        let (topic, key) = match action {
            Action::Event { event, .. } => {
                (self.sources.encode(event, &mut bytes)?, &event.respondent_id)
            }
            Action::Outcome(outcome) | Action::OutcomeIf { outcome, .. } => {
                self.outcome_codec.encode(outcome, &mut bytes)?;
                (&self.outcomes, &outcome.respondent_id)
            }
            Action::Bad { key, value, .. } => {
                bytes.extend_from_slice(value);
                (self.sources.lead(), key)
            }
        };
        self.publisher.send(OutputRecord {
            topic: topic.clone(),
            partition: None,
            timestamp: EventTime(self.clock.now().0),
            key: Some(key.clone().into_bytes()),
            value: Some(bytes),
            headers: Vec::new(),
        })?;
        self.sent += 1;
        Ok(())
    }

    /// Waits until the broker has acknowledged every record.
    ///
    /// # Errors
    /// If a record was not written.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.publisher.flush()?)
    }
}

/// A prediction that was read from its topic.
#[derive(Clone, Debug)]
pub struct ReceivedPrediction {
    pub prediction: Prediction,
    /// Time from sending the event to reading the committed prediction; `None` if the event was not awaited.
    pub latency: Option<Duration>,
    /// Whether a model was being trained when the event was sent, or when the prediction was read.
    pub while_training: bool,
}

/// The awaited and the received predictions, shared with the threads that read them.
#[derive(Clone, Default)]
pub struct PredictionLog(Arc<(Mutex<LogState>, Condvar)>);

/// State of a [`PredictionLog`].
#[derive(Default)]
pub struct LogState {
    /// By prediction id: when the event was sent, and whether a model was being trained then.
    awaited: BTreeMap<String, (Duration, bool)>,
    /// In the order in which they were read.
    pub received: Vec<ReceivedPrediction>,
    /// Number of awaited predictions that were received. A prediction that was made twice counts once.
    pub answered: usize,
}

impl PredictionLog {
    /// Adds an awaited prediction. Its event is sent `now`.
    pub fn expect(&self, prediction_id: &str, now: Duration, is_training: bool) {
        self.lock().awaited.insert(prediction_id.to_owned(), (now, is_training));
    }

    fn add(&self, prediction: Prediction, now: Duration, is_training: bool) {
        let (_, changed) = &*self.0;
        let mut state = self.lock();
        let sent = state.awaited.remove(&prediction.prediction_id);
        state.answered += usize::from(sent.is_some());
        let latency = sent.map(|(at, _)| now.saturating_sub(at));
        let while_training = is_training || sent.is_some_and(|(_, is_training)| is_training);
        state.received.push(ReceivedPrediction { prediction, latency, while_training });
        changed.notify_all();
    }

    /// The current state.
    pub fn lock(&self) -> MutexGuard<'_, LogState> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until at most `open` predictions are awaited. Returns `false` if no prediction is received for `idle_max`.
    #[must_use]
    pub fn wait_for_open(&self, open: usize, idle_max: Duration) -> bool {
        let (_, changed) = &*self.0;
        let mut state = self.lock();
        while state.awaited.len() > open {
            let before = state.received.len();
            let (next, _) = changed
                .wait_timeout_while(state, idle_max, |state| state.received.len() == before)
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
            if state.received.len() == before {
                return false;
            }
        }
        true
    }
}

/// Timeout of one read. A thread checks `stop` between two reads.
const READ_WAIT: Duration = Duration::from_millis(100);

/// Reads new records of a topic until `stop`, with one thread for each partition.
///
/// # Errors
/// If the topic cannot be read.
pub fn follow(
    broker: &dyn Broker,
    topic: &Topic,
    stop: &StopSignal,
    visit: impl Fn(&InputRecord) + Clone + Send + 'static,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let partitions = broker.partitions(topic)?.unwrap_or(0);
    let mut threads = Vec::new();
    for number in 0..partitions {
        let source =
            TopicPartition { topic: topic.clone(), partition: Partition(i32::try_from(number)?) };
        let mut reader = broker.read(&source, ReadFrom::End)?;
        // The first read sets the start: the end of the partition as it is now.
        let mut records = Vec::new();
        reader.read(Duration::ZERO, &mut records)?;
        let (stop, visit) = (stop.clone(), visit.clone());
        let thread = std::thread::Builder::new().name(format!("follow {source}"));
        threads.push(thread.spawn(move || {
            while !stop.is_stopped() {
                records.iter().for_each(&visit);
                records.clear();
                if let Err(error) = reader.read(READ_WAIT, &mut records) {
                    tracing::warn!(%source, %error, "cannot read new records");
                }
            }
        })?);
    }
    Ok(threads)
}

/// Reads new predictions into a log until `stop`. `is_training` is called for each.
///
/// # Errors
/// If the topic cannot be read.
pub fn follow_predictions(
    config: &Config,
    cluster: &Cluster,
    clock: &Arc<dyn Clock>,
    stop: &StopSignal,
    is_training: impl Fn() -> bool + Clone + Send + 'static,
) -> anyhow::Result<(PredictionLog, Vec<JoinHandle<()>>)> {
    let log = PredictionLog::default();
    let codec = cluster.codec::<Prediction>(config, &config.topics.predictions)?;
    let (into, clock) = (log.clone(), Arc::clone(clock));
    let visit = move |record: &InputRecord| {
        let Some(bytes) = &record.value else { return };
        match codec.decode(bytes) {
            Ok(prediction) => into.add(prediction, clock.elapsed(), is_training()),
            Err(error) => tracing::warn!(%error, "cannot decode a prediction"),
        }
    };
    let threads = follow(cluster.broker.as_ref(), &config.topics.predictions, stop, visit)?;
    Ok((log, threads))
}
