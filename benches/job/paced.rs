//! `foretell run` at a steady rate: CPU an event, and how long an event takes to its committed prediction.

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use foretell::events::prediction::Prediction;
use foretell_streams::time::EventTime;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use crate::{
    drained::{Application, cpu_by_thread},
    process::{Http, SOON},
    workload::Workload,
};

const STEP: Duration = Duration::from_millis(2);
const WAIT: Duration = Duration::from_millis(5);
/// Fetching and batches have found their sizes by then.
const WARM_UP: Duration = Duration::from_secs(5);
/// Predictions of the last events may take this long.
const REST: Duration = Duration::from_secs(20);

/// A steady rate.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Paced {
    pub(crate) rate: usize,
    pub(crate) cpu_micros: f64,
    pub(crate) cpu_micros_by_thread: BTreeMap<String, f64>,
    /// Of the broker, if the benchmark has started it.
    pub(crate) broker_cpu_micros: Option<f64>,
    /// Milliseconds from sending an event to reading its prediction: p50, p99, p99.9.
    pub(crate) latency_millis: [f64; 3],
    /// Mean milliseconds of each part of it, in order.
    pub(crate) parts_millis: Vec<(&'static str, f64)>,
    pub(crate) commits_a_second: f64,
    pub(crate) lost: usize,
}

/// What the processes had used, and the instance's metrics, at one time.
struct Sample {
    cpu: BTreeMap<String, f64>,
    broker_cpu: Option<f64>,
    /// Sum and count of the observations of each histogram of [`HISTOGRAMS`].
    histograms: Vec<[f64; 2]>,
}

/// The parts of the latency that the instance measures. Commits of the learner, one a second, are among them.
const HISTOGRAMS: [(&str, &str); 5] = [
    ("until it is scored", "foretell_scoring_latency_seconds"),
    ("commit: send", "foretell_stream_commit_phase_seconds{phase=\"send\"}"),
    ("commit: write", "foretell_stream_commit_phase_seconds{phase=\"write\"}"),
    ("commit: commit", "foretell_stream_commit_phase_seconds{phase=\"commit\"}"),
    ("commit: apply", "foretell_stream_commit_phase_seconds{phase=\"apply\"}"),
];

/// What was measured while events were sent.
pub(crate) struct Load<T> {
    pub(crate) observed: T,
    /// Every event that was predicted.
    pub(crate) seen: Vec<Seen>,
    /// Number of events that were not.
    pub(crate) lost: usize,
}

/// An event that was predicted.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) sent: Instant,
    /// Until its committed prediction was read.
    pub(crate) latency: Duration,
}

/// Sends `rate` events a second with their outcomes while `observe` runs, which begins after a warm-up.
pub(crate) fn under_load<T>(
    application: &Application,
    rate: usize,
    observe: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<Load<T>> {
    let sent: Mutex<BTreeMap<String, Instant>> = Mutex::default();
    let (is_sent, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let (observed, seen) = thread::scope(|scope| {
        let reader = scope.spawn(|| read(application, &sent, &is_over));
        let sender = scope.spawn(|| send(application, rate, &is_sent, &sent));
        thread::park_timeout(WARM_UP);
        let observed = observe();
        is_sent.store(true, Ordering::SeqCst);
        let result = sender.join().expect("the sender does not panic");
        let waited = Instant::now();
        while !sent.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
            && waited.elapsed() < REST
        {
            thread::park_timeout(WAIT);
        }
        is_over.store(true, Ordering::SeqCst);
        let seen = reader.join().expect("the reader does not panic");
        result.and(seen).map(|seen| (observed, seen))
    })?;
    let lost = sent.lock().unwrap_or_else(PoisonError::into_inner).len();
    Ok(Load { observed: observed?, seen, lost })
}

/// Sends `rate` events a second with their outcomes for `span`.
pub(crate) fn measure(
    application: &Application,
    rate: usize,
    span: Duration,
) -> anyhow::Result<Paced> {
    let mut process = application.process(&["run"], &[]);
    let http = process.http();
    http.ready();
    let Load { observed, seen, lost } = under_load(application, rate, || {
        let (begun, first) = (Instant::now(), Sample::of(process.id(), &http)?);
        thread::park_timeout(span);
        Ok((begun, first, Sample::of(process.id(), &http)?))
    })?;
    process.signal("TERM");
    anyhow::ensure!(process.end(SOON).success(), "{}", process.errors());
    let (begun, first, last) = observed;
    let latencies: Vec<Duration> =
        seen.iter().filter(|seen| seen.sent >= begun).map(|seen| seen.latency).collect();
    let events = rate as f64 * span.as_secs_f64();
    let by_thread = last.cpu.iter().map(|(name, seconds)| {
        (name.clone(), (seconds - first.cpu.get(name).unwrap_or(&0.0)) * 1e6 / events)
    });
    let by_thread: BTreeMap<_, _> = by_thread.collect();
    let broker = last.broker_cpu.zip(first.broker_cpu);
    let mean = latencies.iter().sum::<Duration>().as_secs_f64() * 1e3 / latencies.len() as f64;
    Ok(Paced {
        rate,
        cpu_micros: by_thread.values().sum(),
        cpu_micros_by_thread: by_thread,
        broker_cpu_micros: broker.map(|(last, first)| (last - first) * 1e6 / events),
        latency_millis: quantiles(latencies)?,
        parts_millis: parts(&first, &last, mean),
        commits_a_second: (last.histograms[1][1] - first.histograms[1][1]) / span.as_secs_f64(),
        lost,
    })
}

impl Sample {
    fn of(process: u32, http: &Http) -> anyhow::Result<Self> {
        let broker_cpu = match env::var("FORETELL_TEST_KAFKA") {
            Ok(folder) => {
                let id = fs::read_to_string(Path::new(&folder).join("node1/pid"))?;
                Some(cpu_by_thread(id.trim().parse()?)?.values().sum())
            }
            Err(_) => None,
        };
        let histograms = HISTOGRAMS.iter().map(|(_, metric)| {
            let (name, labels) = metric.split_at(metric.find('{').unwrap_or(metric.len()));
            ["sum", "count"].map(|figure| http.metric(&format!("{name}_{figure}{labels}")))
        });
        Ok(Self { cpu: cpu_by_thread(process)?, broker_cpu, histograms: histograms.collect() })
    }
}

/// The mean of each part between two samples. The rest of `mean`, the whole latency, is the wait for the commit, and the
/// time of the reader.
fn parts(first: &Sample, last: &Sample, mean: f64) -> Vec<(&'static str, f64)> {
    let means = first.histograms.iter().zip(&last.histograms).zip(HISTOGRAMS);
    let mut parts: Vec<_> = means
        .map(|(([first_sum, first_count], [sum, count]), (name, _))| {
            (name, (sum - first_sum) * 1e3 / (count - first_count))
        })
        .collect();
    let rest = mean - parts.iter().map(|(_, millis)| millis).sum::<f64>();
    parts.insert(1, ("until the commit starts, and is read", rest));
    parts
}

/// p50, p99 and p99.9 in milliseconds.
pub(crate) fn quantiles(mut latencies: Vec<Duration>) -> anyhow::Result<[f64; 3]> {
    latencies.sort_unstable();
    let count = latencies.len();
    let at = |thousandths: usize| {
        let latency = latencies.get(count * thousandths / 1000).context("no predictions")?;
        Ok::<_, anyhow::Error>(latency.as_secs_f64() * 1e3)
    };
    Ok([at(500)?, at(990)?, at(999)?])
}

fn send(
    application: &Application,
    rate: usize,
    is_over: &AtomicBool,
    sent: &Mutex<BTreeMap<String, Instant>>,
) -> anyhow::Result<()> {
    let workload = Workload::new(application.config(), application.cluster())?;
    let mut publisher = application.cluster().broker.publish()?;
    let (begun, mut number) = (Instant::now(), 0);
    while !is_over.load(Ordering::SeqCst) {
        let due = begun.elapsed().mul_f64(rate as f64).as_secs() as usize;
        while number < due {
            let now = EventTime(foretell::app::clock().now().0);
            let (event, outcome) = workload.pair(number, now);
            let [event, outcome] = workload.encode(&event, &outcome)?;
            let id = format!("event-{number}");
            sent.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Instant::now());
            publisher.send(event)?;
            publisher.send(outcome)?;
            number += 1;
        }
        publisher.flush()?;
        thread::park_timeout(STEP);
    }
    publisher.flush()?;
    Ok(())
}

/// Reads the predictions, until it is over.
fn read(
    application: &Application,
    sent: &Mutex<BTreeMap<String, Instant>>,
    is_over: &AtomicBool,
) -> anyhow::Result<Vec<Seen>> {
    let config = application.config();
    let topic = &config.topics.predictions;
    let codec = application.cluster().codec::<Prediction>(config, topic)?;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &application.servers)
        .set("group.id", "bench-job-latency")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "10")
        .create()?;
    let partitions = application.cluster().broker.partitions(topic)?.context("the topic exists")?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions)? {
        assignment.add_partition_offset(topic.as_str(), partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let mut seen = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        let Some(message) = consumer.poll(WAIT) else { continue };
        let message = message?;
        let now = Instant::now();
        let prediction: Prediction = codec.decode(message.payload().unwrap_or_default())?;
        let sent = sent.lock().unwrap_or_else(PoisonError::into_inner).remove(&prediction.event_id);
        seen.extend(sent.map(|sent| Seen { sent, latency: now.duration_since(sent) }));
    }
    Ok(seen)
}
