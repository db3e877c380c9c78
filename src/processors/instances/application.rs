//! The whole application as one instance knows it: the sums over all instances.

use serde::Serialize;
use serde_json::Value as Json;

use crate::processors::{
    instances::{Buckets, Counters, InstanceReport, Recent},
    waiting::WaitingNow,
};
use foretell_streams::time::WallTime;

/// An application.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Application {
    /// Its name.
    pub application: String,
    /// The instance that says so.
    pub instance: String,
    /// The numbers that change all the time.
    pub live: LiveNumbers,
    /// Its instances, by name. Those that are gone are last.
    pub instances: Vec<ShownInstance>,
    /// Drift and live quality, from the instance with the learning task.
    pub quality: Json,
    /// What the rules of actions change, from the same instance.
    pub uplift: Json,
    /// The time from a prediction to its outcome: the number of labels by bucket.
    pub label_delay: Buckets,
}

/// Numbers that are summed over the instances.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LiveNumbers {
    /// The time of the numbers.
    pub at: WallTime,
    /// Whether every running instance is ready, and there is one.
    pub ready: bool,
    /// The counts of each instance since its start.
    pub totals: Counters,
    /// The counts per second of the last ten seconds.
    pub rates: Rates,
    /// The time from an event's record to its score, without the commit.
    pub scored: Latency,
    /// The time of a commit.
    pub committed: Latency,
    /// Events and outcomes that are not processed yet; none while an instance does not know.
    pub lag: Option<u64>,
    /// What waits in the outcome stores now; none if an instance does not know.
    pub waiting: WaitingNow,
}

/// Counts per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Events.
    pub events: f64,
    /// Outcomes.
    pub outcomes: f64,
    /// Predictions.
    pub predictions: f64,
    /// Labelled examples.
    pub examples: f64,
    /// Dead letters.
    pub dead_letters: f64,
}

/// Quantiles of a time in milliseconds; none without values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// The median.
    pub p50_ms: Option<f64>,
    /// The 99th percentile.
    pub p99_ms: Option<f64>,
}

/// One instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ShownInstance {
    /// The name of the process.
    pub instance: String,
    /// Whether it still reports; its other fields are as of its last report.
    pub gone: bool,
    /// The release that it runs.
    pub release: String,
    /// The time of its start.
    pub started_at: WallTime,
    /// The time of its last report.
    pub at: WallTime,
    /// Its events per second.
    pub events_per_second: f64,
    /// What is not processed yet in the partitions of its tasks.
    pub lag: Option<u64>,
    /// What `/api/v1/status` of the instance shows, without what concerns the application.
    pub status: Json,
}

/// Fields of a status that are shown once for the application.
const OF_APPLICATION: [&str; 2] = ["quality", "uplift"];

impl Application {
    /// The sum of `reports`, each with whether its instance is gone, in the order of their names.
    pub(super) fn of<'r>(
        application: &str,
        instance: &str,
        at: WallTime,
        reports: impl Iterator<Item = (&'r InstanceReport, bool)> + Clone,
    ) -> Self {
        let running = || reports.clone().filter(|(_, gone)| !gone).map(|(report, _)| report);
        let mut label_delay = Buckets::default();
        let mut totals = Counters::default();
        for (report, _) in reports.clone() {
            totals.add(&report.counters);
            label_delay.merge(&report.label_delay);
        }
        // The learning task is on one instance; while it moves, on none or for a moment on two.
        let newest = |key: &str| {
            let of_key = running().filter(|report| is_given(&report.status[key]));
            let newest = of_key.max_by_key(|report| report.at);
            newest.map_or(Json::Null, |report| report.status[key].clone())
        };
        let mut instances: Vec<ShownInstance> = reports.clone().map(shown).collect();
        instances.sort_by_key(|instance| instance.gone);
        Self {
            application: application.to_owned(),
            instance: instance.to_owned(),
            live: LiveNumbers::of(at, totals, running),
            instances,
            quality: newest("quality"),
            uplift: newest("uplift"),
            label_delay,
        }
    }
}

fn is_given(value: &Json) -> bool {
    !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty())
}

fn shown((report, gone): (&InstanceReport, bool)) -> ShownInstance {
    let mut status = report.status.clone();
    if let Json::Object(fields) = &mut status {
        for key in OF_APPLICATION {
            fields.remove(key);
        }
    }
    ShownInstance {
        instance: report.instance.clone(),
        gone,
        release: report.release.clone(),
        started_at: report.started_at,
        at: report.at,
        events_per_second: per_second(report.recent.events, &report.recent),
        lag: report.lag,
        status,
    }
}

fn per_second(count: u64, recent: &Recent) -> f64 {
    if recent.seconds > 0.0 { count as f64 / recent.seconds } else { 0.0 }
}

impl LiveNumbers {
    fn of<'r, I>(at: WallTime, totals: Counters, running: impl Fn() -> I) -> Self
    where
        I: Iterator<Item = &'r InstanceReport>,
    {
        let rate = |of: fn(&Recent) -> u64| {
            running().map(|report| per_second(of(&report.recent), &report.recent)).sum()
        };
        let latency = |of: fn(&Recent) -> &Buckets| {
            let mut sum = Buckets::default();
            running().for_each(|report| sum.merge(of(&report.recent)));
            Latency::of(&sum)
        };
        let is_ready = |report: &InstanceReport| report.status["ready"] == true;
        let lags = running().map(|report| report.lag);
        let waiting = |what: &str| {
            running().map(|report| report.status["waiting"][what].as_u64()).sum::<Option<u64>>()
        };
        Self {
            at,
            ready: running().next().is_some() && running().all(is_ready),
            totals,
            rates: Rates {
                events: rate(|recent| recent.events),
                outcomes: rate(|recent| recent.outcomes),
                predictions: rate(|recent| recent.predictions),
                examples: rate(|recent| recent.examples),
                dead_letters: rate(|recent| recent.dead_letters),
            },
            scored: latency(|recent| &recent.scored),
            committed: latency(|recent| &recent.committed),
            lag: lags.sum(),
            waiting: WaitingNow {
                predictions: waiting("predictions"),
                outcomes: waiting("outcomes"),
            },
        }
    }

    /// The numbers of a point of the history, in the order of its names.
    pub(super) fn charted(&self) -> [Option<f64>; 9] {
        let Rates { events, predictions, outcomes, examples, dead_letters } = self.rates;
        [
            Some(events),
            Some(predictions),
            Some(outcomes),
            Some(examples),
            Some(dead_letters),
            self.scored.p50_ms,
            self.scored.p99_ms,
            self.committed.p99_ms,
            self.lag.map(|lag| lag as f64),
        ]
    }
}

impl Latency {
    fn of(buckets: &Buckets) -> Self {
        let millis = |q| buckets.quantile(q).map(|seconds| seconds * 1e3);
        Self { p50_ms: millis(0.5), p99_ms: millis(0.99) }
    }
}
