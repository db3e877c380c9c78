//! What an instance has counted, taken from its metrics: for the dashboard.

use std::collections::BTreeMap;

use prometheus::{
    Registry,
    proto::{Metric, MetricFamily},
};

use crate::{
    events::label::UNKNOWN_LABEL,
    processors::{
        instances::{Buckets, Counters, Sample},
        overview::JoinCounts,
    },
};
use foretell_streams::record::Topic;

/// Maximum number of values of a label, such as of model versions: the largest counts. Metrics of a process that runs for months
/// may have more.
const LABEL_VALUES_MAX: usize = 100;

/// The topics whose records are counted.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    pub(super) events: Vec<Topic>,
    pub(super) outcomes: Topic,
}

/// The present counts.
pub(super) fn sample(registry: &Registry, inputs: &Inputs) -> Sample {
    let metrics = Gathered(registry.gather());
    let Inputs { events, outcomes } = inputs;
    let records = metrics.by_label("foretell_records_processed_total", "topic");
    let of_topic = |topic: &Topic| records.get(topic.as_str()).copied().unwrap_or_default();
    let predictions = metrics.by_label("foretell_predictions_total", "model_version");
    let counters = Counters {
        events: events.iter().map(of_topic).sum(),
        outcomes: of_topic(outcomes),
        predictions: predictions.values().sum(),
        predictions_by_model: largest(predictions),
        outcome_results: metrics.outcomes(),
        examples: metrics.examples(),
        unlabelled: metrics.total("foretell_unlabelled_total"),
        duplicates: metrics.total("foretell_duplicate_events_total"),
        unseen_categories: metrics.total("foretell_unseen_categories_total"),
        out_of_range: metrics.total("foretell_out_of_range_total"),
        dead_letters: largest(metrics.by_label("foretell_dead_letters_total", "class")),
        actions: metrics.actions(),
        decisions: metrics.by_label("foretell_decisions_total", "outcome"),
        trainings: metrics.by_label("foretell_trainings_total", "result"),
    };
    Sample {
        counters,
        scored: metrics.buckets("foretell_scoring_latency_seconds"),
        committed: metrics.buckets("foretell_stream_commit_latency_seconds"),
        label_delay: metrics.buckets("foretell_label_delay_seconds"),
        lag: metrics.lag(events.iter().chain([outcomes])),
    }
}

/// What became of outcomes and predictions.
pub(super) fn joins(registry: &Registry) -> JoinCounts {
    let metrics = Gathered(registry.gather());
    JoinCounts { outcomes: metrics.outcomes(), examples: metrics.examples() }
}

/// The classes of dead letters that are outcomes whose label can be read: each is a state of outcomes by its own name.
const OF_OUTCOMES: [(&str, &str); 2] = [("late_outcome", "late"), (UNKNOWN_LABEL, UNKNOWN_LABEL)];

struct Gathered(Vec<MetricFamily>);

impl Gathered {
    fn series(&self, name: &str) -> &[Metric] {
        let family = self.0.iter().find(|family| family.name() == name);
        family.map_or(&[][..], |family| family.get_metric())
    }

    fn total(&self, name: &str) -> u64 {
        self.series(name).iter().map(count_of).sum()
    }

    fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, u64> {
        let series = self.series(name).iter();
        series.map(|metric| (label_of(metric, label), count_of(metric))).collect()
    }

    /// Outcomes by their state. One that waited has another state since then, or waits now: `waiting` of the status.
    fn outcomes(&self) -> BTreeMap<String, u64> {
        let mut states = self.by_label("foretell_outcomes_total", "result");
        states.remove("waiting");
        let letters = self.by_label("foretell_dead_letters_total", "class");
        for (class, state) in OF_OUTCOMES {
            states.insert(state.to_owned(), letters.get(class).copied().unwrap_or_default());
        }
        states
    }

    /// Labelled examples by the source of their label, and corrections.
    fn examples(&self) -> BTreeMap<String, u64> {
        self.by_label("foretell_labelled_examples_total", "source")
    }

    /// Records of actions by rule, then by state. Rules are at most a hundred.
    fn actions(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let mut rules: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for metric in self.series("foretell_actions_total") {
            let states = rules.entry(label_of(metric, "rule")).or_default();
            states.insert(label_of(metric, "state"), count_of(metric));
        }
        rules
    }

    /// Records of some topics that are not processed yet; none before they were measured for the first time.
    fn lag<'t>(&self, mut topics: impl Iterator<Item = &'t Topic>) -> Option<u64> {
        let series = self.series("foretell_stream_lag_records");
        topics.try_fold(0, |sum, topic| {
            let of_topic = series.iter().find(|one| label_of(one, "topic") == topic.as_str())?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a number of records"
            )]
            let records = of_topic.get_gauge().get_value() as u64;
            Some(sum + records)
        })
    }

    /// A histogram without labels. Prometheus' buckets are cumulative, these are not.
    fn buckets(&self, name: &str) -> Buckets {
        let Some(metric) = self.series(name).first() else { return Buckets::default() };
        let histogram = metric.get_histogram();
        let (mut buckets, mut below) = (Buckets::default(), 0);
        for bucket in histogram.get_bucket() {
            if bucket.upper_bound().is_finite() {
                buckets.bounds.push(bucket.upper_bound());
                buckets.counts.push(bucket.cumulative_count().saturating_sub(below));
                below = bucket.cumulative_count();
            }
        }
        buckets.counts.push(histogram.get_sample_count().saturating_sub(below));
        buckets
    }
}

fn label_of(metric: &Metric, name: &str) -> String {
    let label = metric.get_label().iter().find(|label| label.name() == name);
    label.map_or_else(String::new, |label| label.value().to_owned())
}

fn count_of(metric: &Metric) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a counter's value"
    )]
    let count = metric.get_counter().get_value() as u64;
    count
}

fn largest(counts: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    if counts.len() <= LABEL_VALUES_MAX {
        return counts;
    }
    let mut by_count: Vec<(String, u64)> = counts.into_iter().collect();
    by_count.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    by_count.truncate(LABEL_VALUES_MAX);
    by_count.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{app::telemetry, processors::metrics::ApplicationMetrics};
    use foretell_streams::metrics::StreamsMetrics;

    #[test]
    fn counts_and_histograms_are_those_of_the_metrics() {
        let registry = telemetry::metrics_registry().unwrap();
        let metrics = ApplicationMetrics::register(&registry).unwrap();
        StreamsMetrics::register(&registry).unwrap().begin_at_zero(&["framing"]);
        let inputs =
            Inputs { events: vec![Topic::new("events")], outcomes: Topic::new("outcomes") };
        let empty = sample(&registry, &inputs);
        assert_eq!((empty.counters.events, empty.counters.predictions), (0, 0));
        assert_eq!(empty.counters.dead_letters["framing"], 0);
        let states: Vec<&str> = empty.counters.outcome_results.keys().map(String::as_str).collect();
        let expected = [
            "conflicting",
            "corrected",
            "duplicate",
            "joined",
            "late",
            "unknown_label",
            "unmatched",
        ];
        assert_eq!(states, expected);
        let sources: Vec<&str> = empty.counters.examples.keys().map(String::as_str).collect();
        assert_eq!(sources, ["correction", "outcome", "policy"]);
        assert_eq!(empty.scored.counts.len(), empty.scored.bounds.len() + 1);
        assert!(!empty.committed.bounds.is_empty() && !empty.label_delay.bounds.is_empty());
        metrics.unreadable("models");
        assert_eq!(sample(&registry, &inputs), empty, "it is not one of the counts");
    }

    #[test]
    fn the_largest_counts_stay() {
        let counts: BTreeMap<String, u64> =
            (0..1_000).map(|number| (format!("m{number}"), number)).collect();
        let kept = largest(counts);
        assert_eq!(kept.len(), LABEL_VALUES_MAX);
        assert!(kept.values().all(|count| *count >= 900));
    }
}
