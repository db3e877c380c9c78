//! Metrics, modelled on those of Kafka Streams (KIP-444), in the base units of Prometheus.

use std::{cell::RefCell, time::Duration};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
    core::{Atomic, Collector, GenericGaugeVec},
};

use crate::commit_times::CommitTimes;

/// A counter for [`Context::count`](crate::topology::Context::count), which adds to it when the record is committed.
#[derive(Clone, Debug)]
pub struct Counter(IntCounter);

impl Counter {
    /// Wraps a Prometheus counter.
    #[must_use]
    pub fn new(counter: IntCounter) -> Self {
        Self(counter)
    }

    /// A counter that no registry exposes.
    #[cfg(test)]
    pub(crate) fn unread() -> Self {
        Self(IntCounter::new("unread", "unread").expect("the name is a valid one"))
    }

    /// Adds `by` at once, even if the present record is aborted later.
    pub fn add(&self, by: u64) {
        self.0.inc_by(by);
    }

    /// Returns the count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// The Prometheus type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A value that only grows.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Counts of observations by size, in buckets.
    Histogram,
}

impl MetricKind {
    /// Returns the name of the type in the Prometheus exposition format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The declaration of a registered metric.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredMetric {
    /// The name in the registry.
    pub name: String,
    /// The help text: one sentence.
    pub help: String,
    /// The type.
    pub kind: MetricKind,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// The upper bounds of the buckets of a histogram; otherwise empty.
    pub buckets: Vec<f64>,
}

/// Creates metrics, registers them, and lists their declarations, also for the metrics of an application. (A registry lists
/// only metrics that have series.)
///
/// ```
/// use foretell_streams::metrics::{Counter, Registration};
///
/// let registry = prometheus::Registry::new();
/// let to = Registration::in_registry(&registry);
/// let clicks = to.counter("clicks_total", "Clicks processed.")?;
/// let clicks = Counter::new(clicks); // For `Context::count`.
/// clicks.add(2);
/// assert_eq!(clicks.get(), 2);
/// assert_eq!(to.declared()[0].name, "clicks_total");
/// # Ok::<(), prometheus::Error>(())
/// ```
#[derive(Debug)]
pub struct Registration<'r> {
    registry: &'r Registry,
    declared: RefCell<Vec<DeclaredMetric>>,
}

impl<'r> Registration<'r> {
    /// A registration into `registry`.
    #[must_use]
    pub fn in_registry(registry: &'r Registry) -> Self {
        Self { registry, declared: RefCell::default() }
    }

    /// Returns the metrics registered so far, in order.
    #[must_use]
    pub fn declared(&self) -> Vec<DeclaredMetric> {
        self.declared.borrow().clone()
    }

    fn add<C: Collector + Clone + 'static>(
        &self,
        metric: C,
        kind: MetricKind,
        buckets: &[f64],
    ) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(metric.clone()))?;
        let declared = metric.desc().into_iter().map(|desc| DeclaredMetric {
            name: desc.fq_name.clone(),
            help: desc.help.clone(),
            kind,
            labels: desc.variable_labels.clone(),
            buckets: buckets.to_vec(),
        });
        self.declared.borrow_mut().extend(declared);
        Ok(metric)
    }

    /// Creates a counter.
    ///
    /// # Errors
    /// If the registry has a metric with this name, or the name is invalid.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::new(name, help)?, MetricKind::Counter, &[])
    }

    /// Creates an integer gauge.
    ///
    /// # Errors
    /// See [`Self::counter`].
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(name, help)?, MetricKind::Gauge, &[])
    }

    /// Creates a counter with labels.
    ///
    /// # Errors
    /// See [`Self::counter`].
    pub fn counters_by(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?, MetricKind::Counter, &[])
    }

    /// Creates a counter with one label. The series of the `known` values of the label are exposed as 0 from the start, so
    /// that Prometheus sees their first count as an increase.
    ///
    /// # Errors
    /// See [`Self::counter`].
    pub fn counters(
        &self,
        name: &str,
        help: &str,
        label: &str,
        known: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        let counters = self.counters_by(name, help, &[label])?;
        for value in known {
            counters.with_label_values(&[*value]);
        }
        Ok(counters)
    }

    /// Creates a gauge with labels, of integers or of floating-point numbers.
    ///
    /// # Errors
    /// See [`Self::counter`].
    pub fn gauges<N: Atomic + 'static>(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GenericGaugeVec<N>, prometheus::Error> {
        self.add(GenericGaugeVec::new(Opts::new(name, help), labels)?, MetricKind::Gauge, &[])
    }

    /// Creates a histogram; `buckets` are the upper bounds of its buckets.
    ///
    /// # Errors
    /// See [`Self::counter`].
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(options)?, MetricKind::Histogram, buckets)
    }

    /// Creates a histogram with one label. The series of the `known` values of the label are exposed from the start.
    ///
    /// # Errors
    /// See [`Self::counter`].
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        (label, known): (&str, &[&str]),
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let histograms = HistogramVec::new(options, &[label])?;
        for value in known {
            histograms.with_label_values(&[*value]);
        }
        self.add(histograms, MetricKind::Histogram, buckets)
    }
}

/// The gauge of the time for which one task has been blocked. It is reset to 0 on drop.
pub(crate) struct BlockedSeconds(IntGauge);

impl BlockedSeconds {
    pub(crate) fn set(&self, span: Duration) {
        self.0.set(i64::try_from(span.as_secs()).unwrap_or(i64::MAX));
    }
}

impl Drop for BlockedSeconds {
    fn drop(&mut self) {
        self.0.set(0);
    }
}

/// The metrics of all workers, tasks and standbys of a process.
///
/// ```
/// use foretell_streams::metrics::StreamsMetrics;
///
/// let registry = prometheus::Registry::new();
/// let metrics = StreamsMetrics::register(&registry)?;
/// // For `WorkerParts::metrics` or a `TopologyDriver`.
/// # drop(metrics);
/// let names: Vec<_> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
/// assert!(names.contains(&"foretell_stream_commits_total".to_owned()));
/// # Ok::<(), prometheus::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct StreamsMetrics {
    records: IntCounterVec,
    records_ahead: IntCounterVec,
    records_before_2000: IntCounterVec,
    dead_letters: IntCounterVec,
    commits: IntCounterVec,
    commit_latency: Histogram,
    commit_phases: HistogramVec,
    punctuations_failed: IntCounter,
    blocked: IntGaugeVec,
    restored: IntCounter,
    restore_remaining: IntGaugeVec,
    lag: IntGaugeVec,
    standby_tasks: IntGaugeVec,
    standby_lag: IntGaugeVec,
    threads_alive: IntGauge,
}

/// 2 ms to 30 s; a commit on an idle broker takes about 10 ms.
const COMMIT_SECONDS: [f64; 10] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

impl StreamsMetrics {
    /// Creates the metrics in `registry`.
    ///
    /// # Errors
    /// If `registry` has them already: register once, and clone the result.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Self::declare(&Registration::in_registry(registry))
    }

    /// Creates the metrics through `to`, which lists their declarations.
    ///
    /// # Errors
    /// If the registry has them already.
    pub fn declare(to: &Registration<'_>) -> Result<Self, prometheus::Error> {
        let alive = "Worker threads that are running.";
        Ok(Self {
            records: to.counters(
                "foretell_records_processed_total",
                "Records taken from a topic, processed and committed.",
                "topic",
                &[],
            )?,
            records_ahead: to.counters(
                "foretell_stream_records_ahead_total",
                "Records whose event time was ahead of the clock by more than streams.clock_tolerance.",
                "topic",
                &[],
            )?,
            records_before_2000: to.counters(
                "foretell_stream_records_before_2000_total",
                "Records whose event time was before the year 2000: probably in another unit.",
                "topic",
                &[],
            )?,
            dead_letters: to.counters(
                "foretell_dead_letters_total",
                "Records sent to the dead-letter topic, by error class.",
                "class",
                &[],
            )?,
            commits: to.counters(
                "foretell_stream_commits_total",
                "Commits, by result.",
                "result",
                &["committed", "aborted"],
            )?,
            commit_latency: to.histogram(
                "foretell_stream_commit_latency_seconds",
                "Time from the end of processing to the end of the commit.",
                &COMMIT_SECONDS,
            )?,
            commit_phases: commit_phases(to)?,
            punctuations_failed: to.counter(
                "foretell_stream_punctuations_failed_total",
                "Punctuations (calls by the clock or by stream time) that failed; they are retried when next due.",
            )?,
            blocked: to.gauges(
                "foretell_stream_task_blocked_seconds",
                "How long a task has processed nothing because a record waits, in seconds; 0 if none waits.",
                &["worker", "task"],
            )?,
            restored: to.counter(
                "foretell_stream_task_restore_records_total",
                "Changelog records read to restore stores.",
            )?,
            restore_remaining: to.gauges(
                "foretell_stream_task_restore_remaining_records",
                "Changelog records that a worker's tasks have still to read before they run, at most.",
                &["worker"],
            )?,
            lag: lag(to)?,
            standby_tasks: to.gauges(
                "foretell_stream_standby_tasks",
                "Tasks of other instances that have a standby copy on this instance.",
                &["group"],
            )?,
            standby_lag: to.gauges(
                "foretell_stream_standby_lag_records",
                "Changelog records that the standby copies have still to read, at most.",
                &["group"],
            )?,
            threads_alive: to.gauge("foretell_stream_threads_alive", alive)?,
        })
    }

    /// Creates the metrics in a new registry that is not exposed: for tests, examples and applications without Prometheus.
    #[must_use]
    pub fn unregistered() -> Self {
        Self::register(&Registry::new()).expect("an empty registry has none of them")
    }

    pub(crate) fn records(&self, topic: &str) -> Counter {
        Counter(self.records.with_label_values(&[topic]))
    }

    /// The gauge of the time for which a task has been blocked.
    pub(crate) fn blocked(&self, worker: &str, task: &str) -> BlockedSeconds {
        BlockedSeconds(self.blocked.with_label_values(&[worker, task]))
    }

    pub(crate) fn punctuation_failed(&self) {
        self.punctuations_failed.inc();
    }

    #[cfg(test)]
    pub(crate) fn blocked_seconds(&self, worker: &str, task: &str) -> i64 {
        self.blocked.with_label_values(&[worker, task]).get()
    }

    #[cfg(test)]
    pub(crate) fn punctuations_failed_so_far(&self) -> u64 {
        self.punctuations_failed.get()
    }

    pub(crate) fn records_ahead(&self, topic: &str) -> Counter {
        Counter(self.records_ahead.with_label_values(&[topic]))
    }

    pub(crate) fn records_before_2000(&self, topic: &str) -> Counter {
        Counter(self.records_before_2000.with_label_values(&[topic]))
    }

    /// Exposes the counters of an input topic as 0, so that Prometheus sees their first count as an increase.
    pub(crate) fn expose_input(&self, topic: &str) {
        for of_topic in [&self.records, &self.records_ahead, &self.records_before_2000] {
            of_topic.with_label_values(&[topic]).inc_by(0);
        }
    }

    /// Exposes the counters of dead letters of these classes as 0, so that Prometheus sees the first dead letter of a class as
    /// an increase.
    pub fn begin_at_zero(&self, classes: &[&str]) {
        for class in classes {
            self.dead_letters.with_label_values(&[*class]);
        }
    }

    pub(crate) fn dead_letters(&self, class: &str) -> Counter {
        Counter(self.dead_letters.with_label_values(&[class]))
    }

    pub(crate) fn committed(&self, times: CommitTimes) {
        self.commits.with_label_values(&["committed"]).inc();
        let phases = times.by_phase();
        self.commit_latency.observe(phases.iter().map(|(_, took)| took.as_secs_f64()).sum());
        for (phase, took) in phases {
            self.commit_phases.with_label_values(&[phase]).observe(took.as_secs_f64());
        }
    }

    pub(crate) fn aborted(&self) {
        self.commits.with_label_values(&["aborted"]).inc();
    }

    pub(crate) fn restored(&self, records: usize) {
        self.restored.inc_by(u64::try_from(records).unwrap_or(u64::MAX));
    }

    /// The number of observations of each phase.
    #[cfg(test)]
    pub(crate) fn commit_phases_so_far(&self) -> [u64; 4] {
        let histogram = |phase| self.commit_phases.with_label_values(&[phase]);
        CommitTimes::default().by_phase().map(|(phase, _)| histogram(phase).get_sample_count())
    }

    #[cfg(test)]
    pub(crate) fn restored_so_far(&self) -> u64 {
        self.restored.get()
    }

    pub(crate) fn restore_remaining(&self, worker: &str, records: u64) {
        let records = i64::try_from(records).unwrap_or(i64::MAX);
        self.restore_remaining.with_label_values(&[worker]).set(records);
    }

    /// Sets the lag of this process in a topic.
    pub(crate) fn lag(&self, topic: &str, records: u64) {
        self.lag.with_label_values(&[topic]).set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// The lag of this process in a topic.
    #[cfg(test)]
    pub(crate) fn lag_of(&self, topic: &str) -> i64 {
        self.lag.with_label_values(&[topic]).get()
    }

    pub(crate) fn standby(&self, group: &str, tasks: usize, lag: u64) {
        let tasks = i64::try_from(tasks).unwrap_or(i64::MAX);
        self.standby_tasks.with_label_values(&[group]).set(tasks);
        self.standby_lag.with_label_values(&[group]).set(i64::try_from(lag).unwrap_or(i64::MAX));
    }

    pub(crate) fn thread_started(&self) {
        self.threads_alive.inc();
    }

    pub(crate) fn thread_ended(&self) {
        self.threads_alive.dec();
    }
}

fn lag(to: &Registration<'_>) -> Result<IntGaugeVec, prometheus::Error> {
    to.gauges(
        "foretell_stream_lag_records",
        "Records of a topic that are committed and not processed yet, in the partitions of this instance; read every 5 s.",
        &["topic"],
    )
}

fn commit_phases(to: &Registration<'_>) -> Result<HistogramVec, prometheus::Error> {
    let phases = CommitTimes::default().by_phase().map(|(phase, _)| phase);
    to.histograms(
        "foretell_stream_commit_phase_seconds",
        "Time of a commit by phase: send (encode outputs and changelogs), write (until the broker has them), commit (the \
         offsets, exactly once with the transaction), apply (to the stores).",
        ("phase", &phases),
        &COMMIT_SECONDS,
    )
}
