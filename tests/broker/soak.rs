//! Soak test: one instance under a steady load whose memory and stores must not grow. Event time runs much faster than the
//! clock, so that window and grace pass many times and entries expire.
//!
//! ```text
//!   load ──events, outcomes──▶ Kafka ◀──▶ foretell        samples: resident memory, entries of the stores
//!   at the end: the median of the last third of the samples, to that of the second third
//! ```
//! `make soak SECONDS=600 MODE=disk` runs it for long. The default in `make test` is too short to check memory.

use std::{
    fmt::Write as _,
    io::Write as _,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use foretell::{
    app::cluster::Cluster,
    config::Config,
    events::{
        codecs::Codecs,
        outcome::Outcome,
        questionnaire::{Answer, EventSource, QuestionnaireEvent},
    },
};
use foretell_streams::{
    record::{OutputRecord, Topic},
    runtime::broker::Publisher,
    time::{Clock, EventTime, SystemClock},
};

use crate::{
    application::Application,
    process::{Http, SOON, at, until},
};

/// Respondents a second. Each is scored once; [`Load::send`] says what else is sent for it.
const RATE: usize = 300;

/// Seconds of event time in a second of the clock: window and grace, 24 minutes, pass every 8 seconds.
const EVENT_TIME: u32 = 180;
const WINDOWS: &[&str] = &[
    "outcomes.window=20m",
    "outcomes.grace=4m",
    "sessions.gap=20m",
    "learning.retrain_after=100000000",
];

/// Shortest run whose memory is checked. In shorter ones, allocators and caches have not reached their sizes yet.
const MEMORY_CHECK_SPAN_MIN: Duration = Duration::from_secs(120);

/// Maximum ratio of the last third of a run to the second. Window and grace pass at least twice in a third, so the numbers of
/// entries differ by a few per cent only. A leak of 100 bytes a respondent would be 6 MB in 200 s, a tenth of the least
/// memory of an instance.
const GROWTH_MAX: f64 = 1.10;

/// Additional memory that nine stores on disk may take until their caches are full, which takes longer than 600 s: the block
/// cache, and 8 MiB of unflushed writes for each store (`crates/foretell-streams/src/state/disk/`).
const CACHES_BYTES: u64 = (64 + 9 * 8) << 20;

/// Interval between two batches of the load.
const SEND_INTERVAL: Duration = Duration::from_millis(10);
const SAMPLES: u32 = 30;

struct Sample {
    at: Duration,
    resident_bytes: u64,
    /// Store entries of all tasks.
    entries: u64,
    predictions: u64,
}

#[test]
fn memory_and_stores_do_not_grow_under_a_steady_load() {
    let span = variable("SECONDS").map_or(36, |text| text.parse().expect("a number of seconds"));
    let span = Duration::from_secs(span);
    let mode = variable("MODE").unwrap_or_else(|| "memory".to_owned());
    let folder = tempfile::tempdir().unwrap();
    let state_dir = format!("streams.state_dir={}", folder.path().display());
    let more = match mode.as_str() {
        "memory" => WINDOWS.to_vec(),
        "disk" => [WINDOWS, &[state_dir.as_str()]].concat(),
        other => panic!("MODE is memory or disk, not {other}"),
    };
    let application = Application::new("soak", &more);
    application.init();
    let mut process = application.instance("one");
    let http = process.http();
    http.ready();

    let (config, stop, sent) = (application.config(), AtomicBool::new(false), AtomicUsize::new(0));
    let samples = thread::scope(|scope| {
        let load = scope.spawn(|| Load::new(config, span).run(&stop, &sent));
        let samples = sample(&http, span, || load.is_finished());
        stop.store(true, Ordering::SeqCst);
        load.join().expect("the load thread does not panic");
        samples
    });
    let sent = sent.load(Ordering::SeqCst);
    until("every respondent is scored", SOON, || {
        (predictions(&http) >= u64::try_from(sent).unwrap()).then_some(())
    });
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());

    let memory = growth(&samples, |sample| sample.resident_bytes);
    let entries = growth(&samples, |sample| sample.entries);
    print_progress(&table(&samples));
    print_progress(&format!(
        "soak, stores in {mode}, {sent} respondents: last third to second: memory {memory:.3}, entries {entries:.3}"
    ));
    let is_on_disk = mode == "disk";
    // On disk, deleted entries are counted until compaction removes them, which takes many flushes.
    assert!(is_on_disk || entries <= GROWTH_MAX, "the stores grow: {entries:.3}");
    let [first, last] = [&samples[0], &samples[samples.len() - 1]];
    let fits_caches = is_on_disk && last.resident_bytes <= first.resident_bytes + CACHES_BYTES;
    let checks_memory = span >= MEMORY_CHECK_SPAN_MIN;
    assert!(!checks_memory || fits_caches || memory <= GROWTH_MAX, "memory grows: {memory:.3}");
}

/// Takes [`SAMPLES`] samples, evenly over `span`.
fn sample(http: &Http, span: Duration, has_ended: impl Fn() -> bool) -> Vec<Sample> {
    let clock = SystemClock::new();
    let mut samples = Vec::new();
    for number in 1..=SAMPLES {
        let due = span * number / SAMPLES;
        until("the next sample", span + SOON, || {
            assert!(!has_ended(), "the load has stopped");
            (clock.elapsed() >= due).then_some(())
        });
        samples.push(Sample {
            at: clock.elapsed(),
            resident_bytes: whole(http.metric("process_resident_memory_bytes")),
            entries: entries(http),
            predictions: predictions(http),
        });
    }
    samples
}

fn entries(http: &Http) -> u64 {
    let status = http.status();
    let workers = at(&status, "/workers").as_object().unwrap().values();
    let tasks = workers.flat_map(|worker| at(worker, "/tasks").as_array().unwrap());
    let stores = tasks.flat_map(|task| at(task, "/store_entries").as_object().unwrap().values());
    stores.map(|entries| entries.as_u64().unwrap()).sum()
}

fn predictions(http: &Http) -> u64 {
    whole(http.metric("foretell_predictions_total"))
}

/// Converts a metric with a whole, non-negative value without a lossy cast.
fn whole(metric: f64) -> u64 {
    Duration::from_secs_f64(metric).as_secs()
}

/// Ratio of the median of the last third of the samples to that of the second third.
fn growth(samples: &[Sample], figure: impl Fn(&Sample) -> u64) -> f64 {
    let third = samples.len() / 3;
    let median = |samples: &[Sample]| {
        let mut figures: Vec<u64> = samples.iter().map(&figure).collect();
        figures.sort_unstable();
        figures[figures.len() / 2] as f64
    };
    median(&samples[2 * third..]) / median(&samples[third..2 * third])
}

fn table(samples: &[Sample]) -> String {
    let mut text = format!("\n{:>8}{:>12}{:>12}{:>14}\n", "", "memory", "entries", "predictions");
    for Sample { at, resident_bytes, entries, predictions } in samples {
        let (seconds, megabytes) = (at.as_secs(), *resident_bytes as f64 / 1e6);
        writeln!(text, "{seconds:>6} s{megabytes:>9.1} MB{entries:>12}{predictions:>14}").unwrap();
    }
    text
}

/// Sends [`RATE`] respondents a second, with event times that advance by [`EVENT_TIME`] seconds a second.
struct Load {
    config: Config,
    codecs: Codecs,
    publisher: Box<dyn Publisher>,
    /// Event time of the first respondent, so that the last one's is about now.
    begins: EventTime,
}

impl Load {
    fn new(config: Config, span: Duration) -> Self {
        let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
        let codecs = cluster.codecs(&config).unwrap();
        let publisher = cluster.broker.publish().unwrap();
        let past = i64::try_from((span * EVENT_TIME).as_millis()).unwrap();
        let begins = EventTime(SystemClock::new().now().0 - past);
        Self { config, codecs, publisher, begins }
    }

    fn run(mut self, stop: &AtomicBool, sent: &AtomicUsize) {
        let (clock, mut number) = (SystemClock::new(), 0);
        while !stop.load(Ordering::SeqCst) {
            let elapsed = clock.elapsed();
            let due = usize::try_from(elapsed.as_millis()).unwrap() * RATE / 1000;
            let passed = i64::try_from((elapsed * EVENT_TIME).as_millis()).unwrap();
            while number < due {
                self.send(number, EventTime(self.begins.0 + passed));
                number += 1;
            }
            thread::park_timeout(SEND_INTERVAL);
        }
        self.publisher.flush().unwrap();
        sent.store(number, Ordering::SeqCst);
    }

    /// Sends a completed questionnaire and, by the number of the respondent: an outcome after or before it, a first piece, a
    /// questionnaire that is never completed, an outcome without events, or an outcome for an earlier respondent.
    fn send(&mut self, number: usize, now: EventTime) {
        let (name, label) = (format!("r{number}"), ["<=50K", ">50K"][number % 2]);
        match number % 8 {
            0..3 => {}
            3 => self.outcome(&name, label, now),
            4 => self.piece(&name, Some(40), false, now),
            5 => self.piece(&format!("{name}-incomplete"), Some(41), false, now),
            6 => self.outcome(&format!("{name}-unmatched"), label, now),
            _ => self.outcome(&format!("r{}", number.saturating_sub(RATE)), label, now),
        }
        self.piece(&name, Some(39), true, now);
        if number % 8 < 2 {
            self.outcome(&name, label, now);
        }
    }

    fn piece(&mut self, respondent: &str, age: Option<u32>, completed: bool, now: EventTime) {
        let schema = &self.config.event_schema;
        let age_of = |name: &str| age.filter(|_| name == "age");
        let answers = schema
            .questions()
            .iter()
            .map(|question| age_of(&question.name).map(|age| Answer::Number(f64::from(age))));
        let event = QuestionnaireEvent {
            source: EventSource::Lead,
            event_id: format!("{respondent}-{completed}"),
            respondent_id: respondent.to_owned(),
            event_time: now,
            completed,
            answers: schema.layout().row_of(&answers.collect::<Vec<_>>()),
        };
        let mut value = Vec::new();
        self.codecs.questionnaire.encode(&event, &mut value).unwrap();
        self.publish(&self.config.topics.questionnaire_events.clone(), respondent, value, now);
    }

    fn outcome(&mut self, respondent: &str, label: &str, now: EventTime) {
        let outcome = Outcome {
            respondent_id: respondent.to_owned(),
            outcome_time: now,
            label: label.to_owned(),
            outcome_id: None,
        };
        let mut value = Vec::new();
        self.codecs.outcome.encode(&outcome, &mut value).unwrap();
        self.publish(&self.config.topics.outcomes.clone(), respondent, value, now);
    }

    fn publish(&mut self, topic: &Topic, key: &str, value: Vec<u8>, timestamp: EventTime) {
        let record = OutputRecord {
            topic: topic.clone(),
            partition: None,
            timestamp,
            key: Some(key.as_bytes().to_vec()),
            value: Some(value),
            headers: Vec::new(),
        };
        self.publisher.send(record).unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test target is configured by its environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(format!("FORETELL_SOAK_{name}")).ok().filter(|value| !value.is_empty())
}

/// Prints progress to standard error, which the test runner does not capture.
fn print_progress(text: &str) {
    // `eprintln!` would be captured; a closed standard error is no reason to fail.
    let written = writeln!(std::io::stderr(), "{text}");
    drop(written);
}
