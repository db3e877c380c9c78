//! The thread that sends, and the outbox on a broker in this process.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use prometheus::Registry;

use crate::{
    config::{Config, MlflowSettings},
    events::{decision::Decision, model::Model, quality::Quality, trial::Trial},
    processors::tracking_status::TrackingStatus,
    tracking::{
        TrackingCodecs, TrackingParts,
        mapping::TRIAL,
        metrics::TrackingMetrics,
        sender::{SenderThread, Sent},
        tests::{
            APPLICATION, SOON, after_history,
            fake_server::{Contents, FakeServer, Fault},
            history::{alias, history, model, quality, trial},
            run_named, settings, tracker,
        },
        tracker::Entry,
    },
};
use foretell_streams::{
    codec::{Codec, CodecError},
    local::LocalBroker,
    record::{OutputRecord, Topic},
    runtime::{StopSignal, broker::Broker},
    time::{Clock, EventTime, SystemClock},
};

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn metrics() -> TrackingMetrics {
    TrackingMetrics::register(&Registry::new()).unwrap()
}

fn total(registry: &Registry, name: &str, kind: &str) -> u64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).unwrap();
    let of_kind = family.get_metric().iter().find(|metric| {
        metric.get_label().iter().any(|label| label.value() == kind) || kind.is_empty()
    });
    of_kind.map_or(0, |metric| metric.get_counter().get_value().to_string().parse().unwrap())
}

#[test]
fn what_the_server_refuses_is_counted_and_skipped() {
    let server = FakeServer::start();
    let registry = Registry::new();
    let metrics = TrackingMetrics::register(&registry).unwrap();
    let sender = SenderThread::start(tracker(settings(&server)), metrics, clock(), 1).unwrap();
    let send = |entry: Entry| {
        sender.send(entry);
        assert_eq!(sender.result(SOON), Some(Sent::Done));
    };
    let (first, second) = (model(0, 20), model(1, 200));
    let record = |model: &Model| Entry::Model(Box::new(model.clone()));
    send(record(&first));
    // The run of the first was deleted: one more attempt finds none.
    server.change(|contents| contents.runs[0].is_deleted = true);
    send(Entry::Quality(vec![quality(&first, 0, 1)]));
    // An alias of a model that is not there, a bundle that is none, and one of another model.
    send(record(&alias("champion", Some(&second), 300)));
    send(record(&Model { bundle: Some(vec![1, 2, 3]), ..second.clone() }));
    send(record(&Model { bundle: first.bundle.clone(), ..second.clone() }));
    send(record(&second));
    for (kind, sent, failed) in [("model", 2, 2), ("alias", 0, 1), ("quality", 0, 1)] {
        assert_eq!(total(&registry, "foretell_mlflow_sent_total", kind), sent, "{kind}");
        assert_eq!(total(&registry, "foretell_mlflow_failed_total", kind), failed, "{kind}");
    }
    sender.join();
}

#[test]
fn a_server_that_is_slow_full_or_rejects_the_credentials_gets_it_later() {
    for fault in [Fault::Hang, Fault::Status(500), Fault::Status(507), Fault::Status(401)] {
        let server = FakeServer::start();
        let quick = MlflowSettings { timeout: Duration::from_millis(100), ..settings(&server) };
        server.fail(move |number, _| (number < 2).then_some(fault));
        let registry = Registry::new();
        let metrics = TrackingMetrics::register(&registry).unwrap();
        let sender = SenderThread::start(tracker(quick), metrics.clone(), clock(), 1).unwrap();
        sender.send(Entry::Trial(Box::new(trial("shop-first", 0, 10))));
        assert_eq!(sender.result(SOON), Some(Sent::Done), "{fault:?}");
        assert!(total(&registry, "foretell_mlflow_retries_total", "") >= 2, "{fault:?}");
        assert_eq!(server.contents().runs_with(TRIAL).len(), 1);
        sender.join();
    }
}

#[test]
fn an_entry_can_be_cancelled_while_the_server_is_away() {
    let server = FakeServer::start();
    server.fail(|_, _| Some(Fault::Status(503)));
    let sender = SenderThread::start(tracker(settings(&server)), metrics(), clock(), 1).unwrap();
    let cancel = sender.send(Entry::Trial(Box::new(trial("shop-first", 0, 10))));
    assert_eq!(sender.result(Duration::from_millis(50)), None);
    cancel.stop();
    assert_eq!(sender.result(SOON), Some(Sent::Cancelled));
    sender.join();
}

/// A codec without a schema: the bytes are the number of the value.
struct NumberCodec<T>(Mutex<Vec<T>>);

impl<T: Clone + Send> Codec<T> for NumberCodec<T> {
    fn encode(&self, value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        let mut values = self.0.lock().unwrap();
        bytes.extend((values.len() as u64).to_be_bytes());
        values.push(value.clone());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        let unreadable = || CodecError::Unreadable {
            class: "malformed",
            schema_id: None,
            message: "it is no number".to_owned(),
        };
        let number = u64::from_be_bytes(bytes.try_into().map_err(|_| unreadable())?);
        let values = self.0.lock().unwrap();
        values.get(usize::try_from(number).unwrap()).cloned().ok_or_else(unreadable)
    }
}

fn codec<T: Clone + Send + 'static>() -> Arc<dyn Codec<T>> {
    Arc::new(NumberCodec(Mutex::default()))
}

/// An application on a broker in this process, and an outbox that sends its records.
struct Application {
    config: Config,
    broker: Arc<dyn Broker>,
    clock: Arc<dyn Clock>,
    trial: Arc<dyn Codec<Trial>>,
    model: Arc<dyn Codec<Model>>,
    decision: Arc<dyn Codec<Decision>>,
    quality: Arc<dyn Codec<Quality>>,
    /// The time at which the history begins.
    start: i64,
}

impl Application {
    fn new() -> Self {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/adult/foretell.toml");
        let id = format!("application.id={APPLICATION}");
        let config = Config::load(std::path::Path::new(example), &[id]).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let broker: Arc<dyn Broker> = Arc::new(LocalBroker::new(Arc::clone(&clock)));
        broker.create_topics(&config.topics.specs(config.partitions)).unwrap();
        let start = clock.now().0;
        let (trial, model, decision, quality) = (codec(), codec(), codec(), codec());
        Self { config, broker, clock, trial, model, decision, quality, start }
    }

    fn write<T>(&self, topic: &Topic, (codec, value): (&Arc<dyn Codec<T>>, &T), at: i64) {
        let mut bytes = Vec::new();
        codec.encode(value, &mut bytes).unwrap();
        self.write_bytes(topic, &bytes, at);
    }

    fn write_bytes(&self, topic: &Topic, bytes: &[u8], at: i64) {
        let mut publisher = self.broker.publish().unwrap();
        // Each with a key of its own, so that compaction keeps all.
        let time = EventTime(self.start + at);
        publisher.send(OutputRecord::new(topic, Some(bytes), Some(bytes), time)).unwrap();
        publisher.flush().unwrap();
    }

    /// Writes the history, each topic for itself.
    fn write_history(&self) {
        let topics = &self.config.topics;
        self.write_bytes(&topics.decisions, b"garbage", 1);
        for entry in history() {
            match entry {
                Entry::Trial(trial) => {
                    self.write(&topics.trials, (&self.trial, &*trial), trial.created_at.0);
                }
                Entry::Model(model) => {
                    self.write(&topics.models, (&self.model, &*model), model.created_at.0);
                }
                Entry::Decision(decision) => {
                    let at = decision.decided_at.0;
                    self.write(&topics.decisions, (&self.decision, &*decision), at);
                }
                Entry::Quality(windows) => {
                    for window in windows {
                        self.write(&topics.quality, (&self.quality, &window), window.updated_at.0);
                    }
                }
            }
        }
    }

    /// Sends on a thread until the signal stops it.
    fn send(
        &self,
        settings: &MlflowSettings,
        metrics: TrackingMetrics,
    ) -> (StopSignal, JoinHandle<()>) {
        let parts = TrackingParts {
            config: &self.config,
            broker: Arc::clone(&self.broker),
            codecs: TrackingCodecs {
                trial: Arc::clone(&self.trial),
                model: Arc::clone(&self.model),
                decision: Arc::clone(&self.decision),
                quality: Arc::clone(&self.quality),
            },
            clock: Arc::clone(&self.clock),
            metrics,
            seed: 1,
        };
        let outbox = parts.outbox(settings).unwrap();
        let stop = StopSignal::default();
        let stopped = stop.clone();
        (stop, thread::spawn(move || outbox.run(&stopped).unwrap()))
    }
}

fn until(condition: &str, mut is_true: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    while !is_true() {
        assert!(clock.elapsed() < SOON, "not within {SOON:?}: {condition}");
        thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn the_log_is_sent_later_in_order_and_once() {
    let application = Application::new();
    application.write_history();
    let server = FakeServer::start();
    let is_away = Arc::new(AtomicBool::new(true));
    let away = Arc::clone(&is_away);
    server.fail(move |_, _| away.load(Ordering::SeqCst).then_some(Fault::Status(503)));
    let registry = Registry::new();
    let metrics = TrackingMetrics::register(&registry).unwrap();
    let sent = |kind: &str| total(&registry, "foretell_mlflow_sent_total", kind);
    let all = || ["trial", "model", "alias", "decision", "quality"].map(sent) == [4, 2, 4, 4, 2];
    let board = metrics.board().clone();
    assert_eq!(board.read(), TrackingStatus::default());
    let (stop, thread) = application.send(&settings(&server), metrics);
    until("the outage is in the status", || {
        let TrackingStatus { sends, unavailable_since, reason, .. } = board.read();
        let is_named = reason.is_some_and(|reason| reason.contains("503"));
        assert!(unavailable_since.is_none() || sends, "only who sends knows");
        unavailable_since.is_some() && is_named
    });
    is_away.store(false, Ordering::SeqCst);
    until("everything is sent", all);
    let status = board.read();
    assert!(
        status.sends && status.unavailable_since.is_none() && status.reason.is_none(),
        "{status:?}"
    );
    stop.stop();
    thread.join().unwrap();
    assert_eq!(total(&registry, "foretell_mlflow_failed_total", "decision"), 1);
    let expected = after_history(|_, _| None);
    let contents = server.contents();
    let names = |contents: &Contents| {
        let runs = contents.runs.iter();
        let mut names: Vec<_> =
            runs.map(|run| (run.name.clone(), run.status.clone(), run.metrics.clone())).collect();
        names.sort_by(|a, b| format!("{a:?}").cmp(&format!("{b:?}")));
        names
    };
    assert_eq!(names(&contents), names(&expected));
    assert_eq!(contents.aliases, expected.aliases);
    assert_eq!(
        run_named(&contents, "training-1").tags["foretell.decision"],
        "promoted",
        "the decisions are in order"
    );

    // The next process continues where this one has stopped.
    let next = Registry::new();
    let metrics = TrackingMetrics::register(&next).unwrap();
    let (stop, thread) = application.send(&settings(&server), metrics);
    let more = trial("night-tpe", 1, 700);
    let trials = &application.config.topics.trials;
    application.write(trials, (&application.trial, &more), 700);
    until("the new trial is sent", || total(&next, "foretell_mlflow_sent_total", "trial") == 1);
    stop.stop();
    thread.join().unwrap();
    for kind in ["model", "alias", "decision", "quality"] {
        assert_eq!(total(&next, "foretell_mlflow_sent_total", kind), 0, "{kind}");
    }
}
