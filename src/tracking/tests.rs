//! Tracking against a fake server: what MLflow has in the end, whatever fails on the way.

mod fake_server;

use std::{
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use prometheus::Registry;

use crate::{
    config::{Config, MlflowCredentials, MlflowSettings},
    events::{
        decision::{Decision, DecisionOutcome, ModelComparison},
        model::Model,
        quality::{Quality, QualityMetrics, StabilityIndex},
        trial::{Trial, TrialParameter},
    },
    processors::{learning::outputs::records_of, small_model::small_bundle},
    tracking::{
        TrackingCodecs, TrackingParts,
        client::{Client, TrackingError},
        mapping::{MODEL_VERSION, TRAINING_ID, TRIAL},
        metrics::TrackingMetrics,
        sender::{SenderThread, Sent},
        tests::fake_server::{Contents, FakeRun, FakeServer, Fault},
        tracker::{Entry, Tracker},
    },
};
use foretell_streams::{
    codec::{Codec, CodecError},
    local::LocalBroker,
    record::{OutputRecord, Topic},
    runtime::{StopSignal, broker::Broker},
    time::{Clock, EventTime, SystemClock, WallTime},
};

const APPLICATION: &str = "shop";
/// The bound of a wait, far longer than any wait takes.
const SOON: Duration = Duration::from_secs(60);

fn settings(server: &FakeServer) -> MlflowSettings {
    MlflowSettings {
        tracking_uri: server.uri(),
        experiment: APPLICATION.to_owned(),
        registered_model: "shop-model".to_owned(),
        credentials: MlflowCredentials::None,
        ca_file: None,
        timeout: SOON,
        trials: true,
        live_metrics: true,
        named: "x.toml: [mlflow]".to_owned(),
    }
}

fn tracker(settings: MlflowSettings) -> Tracker {
    let client = Client::new(&settings).unwrap();
    Tracker::new(client, settings, APPLICATION.to_owned(), Topic::new("labelled-examples"))
}

/// Applies an entry until the server has it.
fn apply(tracker: &mut Tracker, entry: &Entry) {
    for _ in 0..20 {
        match tracker.apply(entry) {
            Ok(()) => return,
            Err(TrackingError::Unavailable { .. }) => {}
            Err(error) => panic!("{error}: {entry:?}"),
        }
    }
    panic!("always unavailable: {entry:?}");
}

fn trial(study: &str, number: u32, at: i64) -> Trial {
    let parameter = |name: &str, value: f64, text: Option<&str>| TrialParameter {
        name: name.to_owned(),
        value,
        text: text.map(ToOwned::to_owned),
    };
    Trial {
        study: study.to_owned(),
        number,
        parameters: vec![
            parameter("num_leaves", 31.0, None),
            parameter("boosting", 0.0, Some("gbdt")),
        ],
        log_loss: if number == 1 { f64::INFINITY } else { 0.4 },
        auc: Some(0.8),
        iterations: 10,
        pruned: false,
        created_at: WallTime(at),
        objective: "log_loss".to_owned(),
        value: Some(0.4),
        sampler: "tpe".to_owned(),
        failure: (number == 1).then(|| "LightGBM refused it".to_owned()),
    }
}

/// The record of a model of a training.
fn model(training: u64, at: i64) -> Model {
    let mut bundle = small_bundle();
    bundle.lineage.origin.training = training;
    let [model, _] = records_of(&bundle, "500 new labels", WallTime(at)).unwrap();
    model
}

fn alias(alias: &str, model: Option<&Model>, at: i64) -> Model {
    let version = model.map_or(String::new(), |model| model.version.clone());
    let record = self::model(0, at);
    Model { version, alias: Some(alias.to_owned()), bundle: None, ..record }
}

fn decision(id: &str, outcome: DecisionOutcome, candidate: Option<&Model>, at: i64) -> Decision {
    let comparison = ModelComparison {
        metric: "log_loss".to_owned(),
        examples: 400,
        candidate: 0.3,
        champion: 0.4,
        difference: 0.1,
        low: 0.05,
        high: 0.15,
        confidence: 0.95,
        margin: 0.0,
    };
    Decision {
        decision_id: id.to_owned(),
        outcome,
        reason: "it's better".to_owned(),
        trigger: Some("500 new labels".to_owned()),
        requested_by: None,
        training: id.strip_prefix("training-").map(|number| number.parse().unwrap()),
        candidate: candidate.map(|model| model.version.clone()),
        champion: None,
        comparison: candidate.map(|_| comparison),
        first_offset: Some(0),
        end_offset: Some(at),
        decided_at: WallTime(at),
    }
}

fn quality(model: &Model, window: i64, labels: i64) -> Quality {
    let live = QualityMetrics { log_loss: Some(0.5), ..QualityMetrics::default() };
    Quality {
        model_version: model.version.clone(),
        window_start: EventTime(window),
        window_end: EventTime(window + 3_600_000),
        closed: false,
        predictions: 100,
        labels,
        trained: QualityMetrics::default(),
        estimated: QualityMetrics::default(),
        live,
        features: vec![
            StabilityIndex { name: "x".to_owned(), psi: 0.1 },
            StabilityIndex { name: "kind".to_owned(), psi: 0.3 },
        ],
        scores: Vec::new(),
        updated_at: WallTime(window + labels),
    }
}

/// The first model, a training whose model is promoted, and one that fails.
fn history() -> Vec<Entry> {
    let (first, second) = (model(0, 20), model(1, 200));
    let trial = |study: &str, number, at| Entry::Trial(Box::new(trial(study, number, at)));
    let model = |model: &Model| Entry::Model(Box::new(model.clone()));
    let decision = |id: &str, outcome, candidate: Option<&Model>, at| {
        Entry::Decision(Box::new(decision(id, outcome, candidate, at)))
    };
    vec![
        trial("shop-first", 0, 10),
        trial("shop-first", 1, 15),
        model(&first),
        model(&alias("champion", Some(&first), 20)),
        trial("training-1", 0, 200),
        model(&second),
        model(&alias("challenger", Some(&second), 200)),
        decision("training-1", DecisionOutcome::Challenger, Some(&second), 200),
        Entry::Quality(vec![quality(&first, 7_200_000, 10), quality(&second, 7_200_000, 20)]),
        model(&alias("champion", Some(&second), 300)),
        model(&alias("challenger", None, 300)),
        decision("judgement-9", DecisionOutcome::Promoted, Some(&second), 300),
        decision("training-2", DecisionOutcome::Failed, None, 400),
        // A command that was refused.
        decision("c1", DecisionOutcome::Refused, None, 500),
        trial("night-tpe", 0, 600),
    ]
}

/// What the server has after the history, with these faults.
fn after_history(faults: impl FnMut(usize, &str) -> Option<Fault> + Send + 'static) -> Contents {
    let server = FakeServer::start();
    server.fail(faults);
    let mut tracker = tracker(settings(&server));
    for entry in history() {
        apply(&mut tracker, &entry);
    }
    server.contents()
}

fn run_named<'c>(contents: &'c Contents, name: &str) -> &'c FakeRun {
    contents.runs.iter().find(|run| run.name == name).unwrap_or_else(|| panic!("no run {name}"))
}

#[test]
fn a_history_becomes_runs_models_versions_and_aliases() {
    let contents = after_history(|_, _| None);
    assert_eq!(contents.experiments, [APPLICATION]);
    let trainings = contents.runs_with(TRAINING_ID);
    let shown: Vec<_> =
        trainings.iter().map(|run| (run.name.as_str(), run.status.as_str())).collect();
    let expected = [
        ("training-0", "FINISHED"),
        ("training-1", "FINISHED"),
        ("training-2", "FAILED"),
        ("study-night-tpe", "FINISHED"),
    ];
    assert_eq!(shown, expected);
    let trials = contents.runs_with(TRIAL);
    let parents: Vec<_> =
        trials.iter().map(|run| (run.tags["mlflow.parentRunId"].as_str(), &*run.status)).collect();
    // Runs in the order of their creation: 0 is training-0, 1 and 2 are its trials.
    let expected = [("0", "FINISHED"), ("0", "FAILED"), ("3", "FINISHED"), ("6", "FINISHED")];
    assert_eq!(parents, expected);
    let infinite = ("log_loss".to_owned(), 0, 15, "Infinity".to_owned());
    assert!(trials[1].metrics.contains(&infinite), "{:?}", trials[1].metrics);
    assert_eq!(trials[0].parameters["num_leaves"], "31");
    assert_eq!(trials[0].parameters["boosting"], "gbdt");

    let promoted = run_named(&contents, "training-1");
    assert_eq!(promoted.tags["foretell.decision"], "promoted");
    assert_eq!(promoted.tags["mlflow.note.content"], "**Promoted**: it's better");
    assert_eq!(promoted.parameters["num_leaves"], "7");
    assert_eq!(promoted.parameters["classes"], "no, yes");
    let has = |name: &str, step: i64| {
        promoted.metrics.iter().any(|(other, at, ..)| other == name && *at == step)
    };
    assert!(has("auc", 0) && has("live.log_loss", 7_200) && has("drift.features", 7_200));
    assert!(has("judged.difference", 200) && has("judged.difference", 300));
    assert!(has("tuning.log_loss", 0), "{:?}", promoted.metrics);
    assert_eq!(promoted.datasets.len(), 1);

    assert_eq!(contents.models.len(), 2);
    let files: Vec<&str> = contents.models[1].files.keys().map(String::as_str).collect();
    let expected = [
        "MLmodel",
        "code/foretell_model.py",
        "code/foretell_pyfunc.py",
        "conda.yaml",
        "input_example.json",
        "lineage.json",
        "model.txt",
        "pipeline.json",
        "python_env.yaml",
        "requirements.txt",
        "serving_input_example.json",
    ];
    assert_eq!(files, expected);
    assert!(contents.models.iter().all(|model| model.is_ready));
    let file = |name: &str| String::from_utf8(contents.models[1].files[name].clone()).unwrap();
    let description = file("MLmodel");
    for line in [
        "artifact_path: \"mlflow-artifacts:/1/models/1/artifacts\"",
        "    data: model.txt",
        "    loader_module: foretell_pyfunc",
        "model_id: \"1\"",
        "run_id: \"3\"",
        "utc_time_created: \"1970-01-01 00:00:00.200\"",
        r#"  outputs: "[{\"type\":\"double\",\"name\":\"no\"},{\"type\":\"double\",\"name\":\"yes\"}]""#,
    ] {
        assert!(description.lines().any(|other| other == line), "{line} in {description}");
    }
    assert!(description.contains(r#"{\"type\":\"string\",\"name\":\"kind\",\"required\":false}"#));
    assert!(file("input_example.json").starts_with(r#"{"columns":["x","kind","noise"],"data":[["#));
    assert_eq!(contents.versions.len(), 2);
    assert_eq!(contents.aliases, [("champion".to_owned(), "2".to_owned())].into());
}

#[test]
fn a_request_that_is_lost_or_refused_for_a_time_adds_nothing() {
    let expected = after_history(|_, _| None);
    for request in 0..expected.requests {
        for fault in [Fault::AfterEffect, Fault::Status(500)] {
            let mut contents = after_history(move |number, _| (number == request).then_some(fault));
            assert!(contents.requests > expected.requests);
            contents.requests = expected.requests;
            assert_eq!(contents, expected, "{fault:?} at request {request}");
        }
    }
}

#[test]
fn a_history_that_is_sent_again_adds_nothing() {
    let server = FakeServer::start();
    let send = || {
        let mut tracker = tracker(settings(&server));
        for entry in history() {
            apply(&mut tracker, &entry);
        }
        Contents { requests: 0, ..server.contents() }
    };
    let once = send();
    let mut twice = send();
    // The decisions about one run are written again in their order, so the last one counts as before.
    assert_eq!(twice, once);
    // A zombie created runs and a version at the same time.
    server.change(|contents| {
        let twice = |run: &&FakeRun| run.tags.contains_key(TRIAL) || run.name == "training-1";
        let mut added: Vec<FakeRun> = contents.runs.iter().filter(twice).cloned().collect();
        for run in &mut added {
            run.metrics.clear();
        }
        contents.runs.extend(added);
        contents.versions.push(contents.versions[1].clone());
    });
    twice = send();
    let kept = |contents: &Contents, tag: &str| {
        let runs = contents.runs_with(tag).into_iter().cloned();
        runs.collect::<Vec<_>>()
    };
    for tag in [TRIAL, TRAINING_ID, MODEL_VERSION] {
        assert_eq!(kept(&twice, tag), kept(&once, tag), "{tag}");
    }
    assert!(twice.versions[2].is_deleted && !twice.versions[1].is_deleted);
    assert_eq!(twice.aliases, once.aliases);
}

#[test]
fn a_training_that_is_repeated_under_its_number_has_a_run_of_its_own() {
    let server = FakeServer::start();
    let mut tracker = tracker(settings(&server));
    let again = {
        let mut bundle = small_bundle();
        bundle.threshold = 0.3;
        records_of(&bundle, "again", WallTime(90)).unwrap()
    };
    let mut entries: Vec<Entry> = history().drain(..4).collect();
    entries.push(Entry::Trial(Box::new(trial("shop-first", 0, 80))));
    entries.extend(again.map(|model| Entry::Model(Box::new(model))));
    for entry in &entries {
        apply(&mut tracker, entry);
    }
    let contents = server.contents();
    let runs = contents.runs_with(TRAINING_ID);
    assert_eq!(runs.len(), 2);
    assert_ne!(runs[0].tags[MODEL_VERSION], runs[1].tags[MODEL_VERSION]);
    let parents: Vec<_> = contents
        .runs_with(TRIAL)
        .iter()
        .map(|run| run.tags["mlflow.parentRunId"].clone())
        .collect();
    assert_eq!(parents, ["0", "0", "3"]);
    assert_eq!(contents.aliases["champion"], "2");
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
    of_kind.map_or(0, |metric| metric.get_counter().get_value() as u64)
}

#[test]
fn what_the_server_refuses_is_counted_and_skipped() {
    let server = FakeServer::start();
    let registry = Registry::new();
    let metrics = TrackingMetrics::register(&registry).unwrap();
    let sender = SenderThread::start(tracker(settings(&server)), metrics, 1).unwrap();
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
        let sender = SenderThread::start(tracker(quick), metrics, 1).unwrap();
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
    let sender = SenderThread::start(tracker(settings(&server)), metrics(), 1).unwrap();
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
    server.fail(|number, _| (number < 2).then_some(Fault::Status(503)));
    let registry = Registry::new();
    let metrics = TrackingMetrics::register(&registry).unwrap();
    let sent = |kind: &str| total(&registry, "foretell_mlflow_sent_total", kind);
    let all = || {
        ["trial", "model", "alias", "decision", "quality"].map(|kind| sent(kind)) == [4, 2, 4, 4, 2]
    };
    let (stop, thread) = application.send(&settings(&server), metrics);
    until("everything is sent", all);
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
