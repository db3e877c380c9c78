//! The threads of an instance that publish what it counts and does, and that follow the reports of the others.
//!
//! ```text
//!   sampler, every second: metrics, status ─▶ own report ─┬─▶ application ─▶ dashboard
//!                                                         ▼         ▲
//!   reporter, every 3 s:           own report ─▶ instances ┘ (topic)
//! ```
//! Only the reporter calls the broker, so the numbers of this instance are shown while the broker is unavailable. It never stops
//! an instance: scoring does not depend on it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus::Registry;

use crate::{
    app::{
        cluster::Cluster,
        counted::{self, Inputs},
    },
    config::Config,
    processors::{
        instances::{
            ApplicationBoard, InstanceReport, InstanceTable, RECENT_MAX, REPORT_INTERVAL, Recent,
            Sample,
        },
        overview::{Overview, Snapshot},
    },
};
use foretell_streams::{
    record::{InputRecord, OutputRecord, Partition, Topic, TopicPartition},
    runtime::{
        StopSignal,
        broker::{Broker, BrokerError, Publisher, ReadFrom, ReadTo, Reader},
    },
    time::{Clock, EventTime, WallTime},
};

/// The time between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// The time after which the topic is tried again if it failed.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What both threads use.
#[derive(Clone)]
pub(super) struct Instances {
    /// The name of the application.
    application: String,
    /// The name of the process.
    instance: String,
    /// What `/api/v1/status` shows.
    status: Arc<dyn Fn() -> Snapshot + Send + Sync>,
    pub(super) registry: Registry,
    pub(super) board: ApplicationBoard,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) clock: Arc<dyn Clock>,
    /// The topic of reports.
    pub(super) topic: Topic,
    pub(super) inputs: Inputs,
    started_at: WallTime,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    table: InstanceTable,
    /// The newest report of this instance.
    own: InstanceReport,
}

impl Instances {
    pub(super) fn new(
        config: &Config,
        cluster: &Cluster,
        clock: &Arc<dyn Clock>,
        overview: Overview,
        registry: &Registry,
    ) -> Self {
        let topics = &config.topics;
        Self {
            application: overview.application.clone(),
            instance: overview.instance.clone(),
            status: Arc::new(move || overview.snapshot()),
            registry: registry.clone(),
            board: ApplicationBoard::default(),
            broker: Arc::clone(&cluster.broker),
            clock: Arc::clone(clock),
            topic: topics.instances.clone(),
            inputs: Inputs {
                events: topics.of_events().cloned().collect(),
                outcomes: topics.outcomes.clone(),
            },
            started_at: clock.now(),
            shared: Arc::default(),
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the application every second until `stop`.
    pub(super) fn sample(&self, stop: &StopSignal) {
        let mut samples = VecDeque::new();
        while !stop.is_stopped() {
            let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
            let sample = counted::sample(&self.registry, &self.inputs);
            let own = self.report(&mut samples, sample, now, elapsed);
            let mut shared = self.shared();
            shared.own = own.clone();
            let application = shared.table.application(&self.application, own, now, elapsed);
            drop(shared);
            self.board.publish(application);
            stop.wait(SAMPLE_INTERVAL);
        }
    }

    fn report(
        &self,
        samples: &mut VecDeque<(Duration, Sample)>,
        sample: Sample,
        now: WallTime,
        elapsed: Duration,
    ) -> InstanceReport {
        let (counters, label_delay) = (sample.counters.clone(), sample.label_delay.clone());
        let lag = sample.lag;
        samples.push_back((elapsed, sample));
        let is_old = |at: Duration| elapsed.saturating_sub(at) > RECENT_MAX;
        while samples.len() > 2 && samples.front().is_some_and(|(at, _)| is_old(*at)) {
            samples.pop_front();
        }
        InstanceReport {
            instance: self.instance.clone(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            at: now,
            counters,
            label_delay,
            recent: Recent::of(samples),
            lag,
            status: InstanceReport::status_of(&(self.status)()),
        }
    }

    /// Writes and follows reports until `stop`. A failure is logged once and tried again.
    pub(super) fn exchange(&self, stop: &StopSignal) {
        let mut logged = None;
        while !stop.is_stopped() {
            let Err(error) = self.exchange_until_failure(stop, &mut logged) else { break };
            let reason = error.to_string();
            if logged.as_ref() != Some(&reason) {
                tracing::warn!(topic = %self.topic, reason, "the dashboard shows this instance only; retrying");
            }
            logged = Some(reason);
            stop.wait(TRY_AGAIN_AFTER);
        }
    }

    fn exchange_until_failure(
        &self,
        stop: &StopSignal,
        logged: &mut Option<String>,
    ) -> Result<(), BrokerError> {
        let mut publisher = self.broker.publish()?;
        let source = TopicPartition { topic: self.topic.clone(), partition: Partition(0) };
        let mut reader = self.broker.read(&source, ReadFrom::Beginning)?;
        while !stop.is_stopped() && self.follow(reader.as_mut(), None)? == ReadTo::More {}
        let mut next = self.clock.elapsed();
        while !stop.is_stopped() {
            let now = self.clock.elapsed();
            if now >= next {
                next = now + REPORT_INTERVAL;
                let own = self.shared().own.clone();
                if !own.instance.is_empty() {
                    self.write(publisher.as_mut(), Some(own.to_bytes()))?;
                    *logged = None;
                }
            }
            self.follow(reader.as_mut(), Some(next))?;
            // A reader at the end may return at once.
            stop.wait(Duration::from_millis(100));
        }
        // The others need not wait to see that it is gone.
        self.write(publisher.as_mut(), None)
    }

    fn write(
        &self,
        publisher: &mut dyn Publisher,
        value: Option<Vec<u8>>,
    ) -> Result<(), BrokerError> {
        let key = self.instance.as_bytes();
        let time = EventTime(self.clock.now().0);
        let record = OutputRecord::new(&self.topic, Some(key), value.as_deref(), time);
        publisher.send(record)?;
        publisher.flush()
    }

    /// Reads the reports of others, until `until` at most. Without it, those that were there before.
    fn follow(
        &self,
        reader: &mut dyn Reader,
        until: Option<Duration>,
    ) -> Result<ReadTo, BrokerError> {
        const WAIT: Duration = Duration::from_millis(200);
        let wait = until.map_or(WAIT, |until| until.saturating_sub(self.clock.elapsed()).min(WAIT));
        let mut records: Vec<InputRecord> = Vec::new();
        let read = reader.read(wait, &mut records);
        let received_at = until.map(|_| self.clock.elapsed());
        let mut shared = self.shared();
        for record in &records {
            let instance = record.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            if instance == self.instance {
                continue;
            }
            match record.value.as_deref().map(InstanceReport::from_bytes) {
                Some(Some(report)) if report.instance == instance => {
                    shared.table.insert(report, received_at);
                }
                Some(_) => {
                    tracing::debug!(offset = %record.offset, "skipping a record that is not a report");
                }
                None => shared.table.remove(&instance),
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, thread};

    use super::*;
    use crate::{
        app::telemetry,
        events::topics::Topics,
        processors::{instances::Application, waiting::WaitingNow},
    };
    use foretell_streams::{local::LocalBroker, time::SystemClock};

    /// Bound of a wait, longer than any wait takes.
    const SOON: Duration = Duration::from_secs(180);

    /// One process: its two threads.
    struct Running {
        board: ApplicationBoard,
        stop: StopSignal,
        threads: Vec<thread::JoinHandle<()>>,
    }

    fn snapshot(instance: &str) -> Snapshot {
        Snapshot {
            application: "shop".to_owned(),
            instance: instance.to_owned(),
            ready: true,
            contract: Vec::new(),
            model: None,
            challenger: None,
            training: None,
            training_refused: None,
            quality: None,
            uplift: Vec::new(),
            outcomes: BTreeMap::new(),
            examples: BTreeMap::new(),
            waiting: WaitingNow::default(),
            mlflow: None,
            topics: Topics::with_prefix("").names(),
            workers: BTreeMap::new(),
        }
    }

    fn start(name: &str, broker: &Arc<dyn Broker>, clock: &Arc<dyn Clock>) -> Running {
        let (topics, of) = (Topics::with_prefix(""), name.to_owned());
        let instances = Instances {
            application: "shop".to_owned(),
            instance: name.to_owned(),
            status: Arc::new(move || snapshot(&of)),
            registry: telemetry::metrics_registry().unwrap(),
            board: ApplicationBoard::default(),
            broker: Arc::clone(broker),
            clock: Arc::clone(clock),
            topic: topics.instances,
            inputs: Inputs { events: vec![topics.questionnaire_events], outcomes: topics.outcomes },
            started_at: clock.now(),
            shared: Arc::default(),
        };
        let (board, stop) = (instances.board.clone(), StopSignal::default());
        let (sampler, reporter) = (instances.clone(), instances);
        let stops = [stop.clone(), stop.clone()];
        let [one, other] = stops;
        let threads = vec![
            thread::spawn(move || sampler.sample(&one)),
            thread::spawn(move || reporter.exchange(&other)),
        ];
        Running { board, stop, threads }
    }

    impl Running {
        #[track_caller]
        fn wait_for(&self, clock: &dyn Clock, expected: &[(&str, bool)]) {
            let shown = |application: &Application| -> Vec<(String, bool)> {
                let all = application.instances.iter();
                all.map(|one| (one.instance.clone(), one.gone)).collect()
            };
            let expected: Vec<(String, bool)> =
                expected.iter().map(|(name, gone)| ((*name).to_owned(), *gone)).collect();
            let deadline = clock.elapsed() + SOON;
            loop {
                let found = self.board.read().as_deref().map(shown).unwrap_or_default();
                if found == expected {
                    return;
                }
                assert!(clock.elapsed() < deadline, "{found:?}, not {expected:?}");
                thread::park_timeout(Duration::from_millis(20));
            }
        }

        fn end(self) {
            self.stop.stop();
            self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
    }

    #[test]
    fn every_instance_shows_all_of_them_until_they_stop() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let broker: Arc<dyn Broker> = Arc::new(LocalBroker::new(Arc::clone(&clock)));
        let topics = Topics::with_prefix("");
        // The topic comes later: an instance goes on without it.
        let one = start("one", &broker, &clock);
        one.wait_for(clock.as_ref(), &[("one", false)]);
        broker.create_topics(&topics.specs(1)).unwrap();
        // An instance that was killed minutes ago, and a record of somebody else.
        let mut publisher = broker.publish().unwrap();
        let dead = InstanceReport {
            instance: "dead".to_owned(),
            at: WallTime(clock.now().0 - 60_000),
            ..InstanceReport::default()
        };
        for (key, value) in [("dead", dead.to_bytes()), ("other", b"not a report".to_vec())] {
            let key = Some(key.as_bytes());
            let record =
                OutputRecord::new(&topics.instances, key, Some(&value), EventTime(clock.now().0));
            publisher.send(record).unwrap();
        }
        publisher.flush().unwrap();
        let two = start("two", &broker, &clock);
        let all = [("one", false), ("two", false), ("dead", true)];
        one.wait_for(clock.as_ref(), &all);
        two.wait_for(clock.as_ref(), &all);
        two.end();
        one.wait_for(clock.as_ref(), &[("one", false), ("dead", true)]);
        one.end();
    }
}
