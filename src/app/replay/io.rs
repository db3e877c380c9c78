//! Where a script is played: happenings go out to the topics, and what comes back is watched.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    app::{cluster::Cluster, replay::Action},
    config::Config,
    events::{outcome::Outcome, prediction::Prediction, questionnaire::QuestionnaireEvent},
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

/// Writes happenings to their topics.
pub struct ReplaySender {
    publisher: Box<dyn Publisher>,
    event_codec: Arc<dyn Codec<QuestionnaireEvent>>,
    outcome_codec: Arc<dyn Codec<Outcome>>,
    events: Topic,
    outcomes: Topic,
    clock: Arc<dyn Clock>,
    sent: usize,
}

impl ReplaySender {
    /// A stage with a producer of its own.
    ///
    /// # Errors
    /// If no producer can be had, or a schema is not registered.
    pub fn open(
        config: &Config,
        cluster: &Cluster,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            publisher: cluster.broker.publish()?,
            event_codec: cluster.sample_codec(config)?,
            outcome_codec: cluster.codecs(config)?.outcome,
            events: config.topics.questionnaire_events.clone(),
            outcomes: config.topics.outcomes.clone(),
            clock: Arc::clone(clock),
            sent: 0,
        })
    }

    /// Records sent so far.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Sends what an action says.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn play(&mut self, action: &Action) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        let (topic, key) = match action {
            Action::Event { event, .. } => {
                self.event_codec.encode(event, &mut bytes)?;
                (&self.events, &event.respondent_id)
            }
            Action::Outcome(outcome) => {
                self.outcome_codec.encode(outcome, &mut bytes)?;
                (&self.outcomes, &outcome.respondent_id)
            }
            Action::Bad { key, value, .. } => {
                bytes.extend_from_slice(value);
                (&self.events, key)
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

    /// Waits until the broker has everything.
    ///
    /// # Errors
    /// If it has not.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.publisher.flush()?)
    }
}

/// A prediction that came back.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What came.
    pub prediction: Prediction,
    /// From its event's sending to its being readable, committed; none for an event that is not ours.
    pub latency: Option<Duration>,
    /// Whether a model was being trained when the event was sent, or when it came back.
    pub while_training: bool,
}

/// What is awaited and what came back, shared with the threads that read.
#[derive(Clone, Default)]
pub struct Watch(Arc<(Mutex<Log>, Condvar)>);

/// See [`Watch`].
#[derive(Default)]
pub struct Log {
    sent: BTreeMap<String, (Duration, bool)>,
    /// What came back, in the order in which it was read.
    pub seen: Vec<Seen>,
    /// What of the above was awaited; a prediction made twice counts once.
    pub answered: usize,
}

impl Watch {
    /// An event goes out that is to come back as a prediction.
    pub fn expect(&self, prediction_id: &str, now: Duration, while_training: bool) {
        self.lock().sent.insert(prediction_id.to_owned(), (now, while_training));
    }

    fn arrived(&self, prediction: Prediction, now: Duration, while_training: bool) {
        let (_, changed) = &*self.0;
        let mut log = self.lock();
        let sent = log.sent.remove(&prediction.prediction_id);
        log.answered += usize::from(sent.is_some());
        let latency = sent.map(|(at, _)| now.saturating_sub(at));
        let while_training = while_training || sent.is_some_and(|(_, training)| training);
        log.seen.push(Seen { prediction, latency, while_training });
        changed.notify_all();
    }

    /// What is known now.
    pub fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until at most `open` awaited predictions are still to come, or nothing has come for
    /// `patience`; true if it is so.
    #[must_use]
    pub fn wait_for_open(&self, open: usize, patience: Duration) -> bool {
        let (_, changed) = &*self.0;
        let mut log = self.lock();
        while log.sent.len() > open {
            let before = log.seen.len();
            let (next, _) = changed
                .wait_timeout_while(log, patience, |log| log.seen.len() == before)
                .unwrap_or_else(PoisonError::into_inner);
            log = next;
            if log.seen.len() == before {
                return false;
            }
        }
        true
    }
}

/// How long a reading thread waits for records before it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Follows a topic from where it ends now, one thread a partition, until `stop`.
///
/// # Errors
/// If it can't be read.
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
        // The end is that of the first read.
        let mut records = Vec::new();
        reader.read(Duration::ZERO, &mut records)?;
        let (stop, visit) = (stop.clone(), visit.clone());
        let thread = std::thread::Builder::new().name(format!("watch {source}"));
        threads.push(thread.spawn(move || {
            while !stop.is_stopped() {
                records.iter().for_each(&visit);
                records.clear();
                if let Err(error) = reader.read(LOOK, &mut records) {
                    tracing::warn!(%source, %error, "cannot read what comes back");
                }
            }
        })?);
    }
    Ok(threads)
}

/// Follows the predictions into a watch. `is_training` is asked as each one comes.
///
/// # Errors
/// If they can't be read.
pub fn watch_predictions(
    config: &Config,
    cluster: &Cluster,
    clock: &Arc<dyn Clock>,
    stop: &StopSignal,
    is_training: impl Fn() -> bool + Clone + Send + 'static,
) -> anyhow::Result<(Watch, Vec<JoinHandle<()>>)> {
    let watch = Watch::default();
    let codec = cluster.codec::<Prediction>(&config.topics.predictions)?;
    let (into, clock) = (watch.clone(), Arc::clone(clock));
    let visit = move |record: &InputRecord| {
        let Some(bytes) = &record.value else { return };
        match codec.decode(bytes) {
            Ok(prediction) => into.arrived(prediction, clock.elapsed(), is_training()),
            Err(error) => tracing::warn!(%error, "a prediction cannot be read"),
        }
    };
    let threads = follow(cluster.broker.as_ref(), &config.topics.predictions, stop, visit)?;
    Ok((watch, threads))
}
