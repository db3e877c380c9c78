//! One instance under a steady load for long: it takes no more and more memory, and forgets what its windows have
//! passed by. Event time runs much faster than the clock, so that window and grace pass many times.
//!
//! ```text
//!   load ──events, outcomes──▶ Kafka ◀──▶ foretell        each a while: resident memory, entries of the stores
//!   in the end: the last third of the time against the second
//! ```
//! `make soak SECONDS=600 MODE=disk` is a long one. By itself it is too short to say anything of memory.

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
        questionnaire::{Answer, QuestionnaireEvent},
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

/// Respondents a second. Each is scored once; what comes with it depends on its number.
const RATE: usize = 300;

/// A second of the clock is so much of event time: window and grace, 24 minutes, pass every 8 seconds.
const EVENT_TIME: u32 = 180;
const WINDOWS: &[&str] = &[
    "outcomes.window=20m",
    "outcomes.grace=4m",
    "scoring.retention=20m",
    "learning.retrain_after=100000000",
];

/// Shorter runs end before allocators and caches have found their sizes: they are held to the entries alone.
const MEMORY_IS_JUDGED_FROM: Duration = Duration::from_secs(120);

/// What the last third of a run may have of the second. Window and grace pass at least twice in a third, so both
/// have as many entries, but for a few per cent of chance. Of memory, a leak of 100 bytes a respondent is 6 MB in 200 s: a
/// tenth of the least that an instance takes.
const GROWTH_MAX: f64 = 1.10;

/// What nine stores on disk may take besides, until their caches are full: blocks of files, and 8 MiB each of what is
/// not flushed yet (`crates/foretell-streams/src/state/disk/`). That takes longer than 600 s.
const CACHES_BYTES: u64 = (64 + 9 * 8) << 20;

const PACE: Duration = Duration::from_millis(10);
const SAMPLES: u32 = 30;

struct Sample {
    at: Duration,
    resident_bytes: u64,
    /// Of all tasks.
    entries: u64,
    predictions: u64,
}

#[test]
fn a_long_run_takes_no_more_and_more() {
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

    let (config, is_over, sent) =
        (application.config(), AtomicBool::new(false), AtomicUsize::new(0));
    let samples = thread::scope(|scope| {
        let load = scope.spawn(|| Respondents::new(config, span).run(&is_over, &sent));
        let samples = watch(&http, span, || load.is_finished());
        is_over.store(true, Ordering::SeqCst);
        load.join().expect("the load got through");
        samples
    });
    let sent = sent.load(Ordering::SeqCst);
    until("everyone is scored", SOON, || {
        (predictions(&http) >= u64::try_from(sent).unwrap()).then_some(())
    });
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());

    let memory = growth(&samples, |sample| sample.resident_bytes);
    let entries = growth(&samples, |sample| sample.entries);
    tell(&table(&samples));
    tell(&format!(
        "soak, stores in {mode}, {sent} respondents: last third to second: memory {memory:.3}, entries {entries:.3}"
    ));
    let is_on_disk = mode == "disk";
    // A tree counts what was deleted until it has merged that away, which takes many flushes: those are no entries.
    assert!(is_on_disk || entries <= GROWTH_MAX, "the stores grow: {entries:.3}");
    let [first, last] = [&samples[0], &samples[samples.len() - 1]];
    let fits_caches = is_on_disk && last.resident_bytes <= first.resident_bytes + CACHES_BYTES;
    let is_judged = span >= MEMORY_IS_JUDGED_FROM;
    assert!(!is_judged || fits_caches || memory <= GROWTH_MAX, "memory grows: {memory:.3}");
}

fn watch(http: &Http, span: Duration, has_ended: impl Fn() -> bool) -> Vec<Sample> {
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

/// A count of seconds is as good as any: it is a whole number.
fn whole(metric: f64) -> u64 {
    Duration::from_secs_f64(metric).as_secs()
}

/// The median of the last third to that of the second.
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

/// Sends respondents at an even rate, their event times at a multiple of it.
struct Respondents {
    config: Config,
    codecs: Codecs,
    publisher: Box<dyn Publisher>,
    /// So that event time ends about now.
    begins: EventTime,
}

impl Respondents {
    fn new(config: Config, span: Duration) -> Self {
        let cluster = Cluster::connect(&config, &foretell::app::clock()).unwrap();
        let codecs = cluster.codecs(&config).unwrap();
        let publisher = cluster.broker.publish().unwrap();
        let past = i64::try_from((span * EVENT_TIME).as_millis()).unwrap();
        let begins = EventTime(SystemClock::new().now().0 - past);
        Self { config, codecs, publisher, begins }
    }

    fn run(mut self, is_over: &AtomicBool, sent: &AtomicUsize) {
        let (clock, mut number) = (SystemClock::new(), 0);
        while !is_over.load(Ordering::SeqCst) {
            let elapsed = clock.elapsed();
            let due = usize::try_from(elapsed.as_millis()).unwrap() * RATE / 1000;
            let passed = i64::try_from((elapsed * EVENT_TIME).as_millis()).unwrap();
            while number < due {
                self.send(number, EventTime(self.begins.0 + passed));
                number += 1;
            }
            thread::park_timeout(PACE);
        }
        self.publisher.flush().unwrap();
        sent.store(number, Ordering::SeqCst);
    }

    /// A questionnaire in one piece or two, or one that is never ended besides; an outcome before it or after it, or none;
    /// an outcome for nobody.
    fn send(&mut self, number: usize, now: EventTime) {
        let (name, label) = (format!("r{number}"), ["<=50K", ">50K"][number % 2]);
        match number % 8 {
            0..3 => {}
            3 => self.outcome(&name, label, now),
            4 => self.piece(&name, Some(40), false, now),
            5 => self.piece(&format!("{name}-leaves"), Some(41), false, now),
            6 => self.outcome(&format!("{name}-is-nobody"), label, now),
            _ => self.outcome(&format!("r{}", number.saturating_sub(RATE)), label, now),
        }
        self.piece(&name, Some(39), true, now);
        if number % 8 < 2 {
            self.outcome(&name, label, now);
        }
    }

    fn piece(&mut self, respondent: &str, age: Option<u32>, completed: bool, now: EventTime) {
        let questions = self.config.event_schema.questions().iter();
        let age_of = |name: &str| age.filter(|_| name == "age");
        let event = QuestionnaireEvent {
            event_id: format!("{respondent}-{completed}"),
            respondent_id: respondent.to_owned(),
            event_time: now,
            completed,
            answers: questions
                .map(|question| age_of(&question.name).map(|age| Answer::Number(f64::from(age))))
                .collect(),
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

#[expect(clippy::disallowed_methods, reason = "a test target is told by its environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(format!("FORETELL_SOAK_{name}")).ok().filter(|value| !value.is_empty())
}

/// To a person who watches, also where the output of tests is captured.
fn tell(text: &str) {
    // Not printed, which a lint forbids; a terminal that is gone is no reason to fail.
    let told = writeln!(std::io::stderr(), "{text}");
    drop(told);
}
