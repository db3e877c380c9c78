//! The report of an instance, as its record on the topic `instances`: JSON, of which another release reads the fields that it
//! knows.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::{events::labelled_example::LabelSource, processors::overview::Snapshot};
use foretell_streams::time::WallTime;

/// The time that recent counts are taken over.
pub const RECENT_MAX: Duration = Duration::from_secs(10);

/// The bytes that a report has at most: half of a broker's default limit for a message.
pub const REPORT_BYTES_MAX: usize = 512 * 1024;

/// The counts of an instance since its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Events that were processed.
    pub events: u64,
    /// Outcomes that were processed.
    pub outcomes: u64,
    /// Predictions.
    pub predictions: u64,
    /// Predictions by model version.
    pub predictions_by_model: BTreeMap<String, u64>,
    /// Outcomes by state, without those that wait.
    pub outcome_results: BTreeMap<String, u64>,
    /// Labelled examples by the source of their label, and corrections of them.
    pub examples: BTreeMap<String, u64>,
    /// Predictions whose window passed without an outcome.
    pub unlabelled: u64,
    /// Repeated events.
    pub duplicates: u64,
    /// Answers with a category that the model was not trained on.
    pub unseen_categories: u64,
    /// Answers with a number outside of the range of the training.
    pub out_of_range: u64,
    /// Dead letters by class.
    pub dead_letters: BTreeMap<String, u64>,
    /// Actions by rule, then by state.
    pub actions: BTreeMap<String, BTreeMap<String, u64>>,
    /// Decisions about models by outcome.
    pub decisions: BTreeMap<String, u64>,
    /// Trainings by result.
    pub trainings: BTreeMap<String, u64>,
}

/// A histogram: how many values were at most each bound, and above the last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Buckets {
    /// The bounds, ascending.
    pub bounds: Vec<f64>,
    /// The number of values of each bucket, one more than there are bounds. Not cumulative.
    pub counts: Vec<u64>,
}

/// What an instance has counted at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The counts.
    pub counters: Counters,
    /// Seconds from an event's record to its score.
    pub scored: Buckets,
    /// Seconds of commits.
    pub committed: Buckets,
    /// Seconds of event time from a prediction to its outcome.
    pub label_delay: Buckets,
    /// Events and outcomes that are not processed yet; none if it is not known.
    pub lag: Option<u64>,
}

/// What an instance has counted in the last [`RECENT_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recent {
    /// The time, in seconds; 0 before the second sample.
    pub seconds: f64,
    /// Events.
    pub events: u64,
    /// Outcomes.
    pub outcomes: u64,
    /// Predictions.
    pub predictions: u64,
    /// Labelled examples.
    pub examples: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Seconds from an event's record to its score.
    pub scored: Buckets,
    /// Seconds of commits.
    pub committed: Buckets,
}

/// The report of an instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceReport {
    /// The name of the process.
    pub instance: String,
    /// The release that it runs.
    pub release: String,
    /// The time of its start.
    pub started_at: WallTime,
    /// The time of the report.
    pub at: WallTime,
    /// The counts since its start.
    pub counters: Counters,
    /// Seconds of event time from a prediction to its outcome, since its start.
    pub label_delay: Buckets,
    /// The last seconds.
    pub recent: Recent,
    /// Events and outcomes that are written and not processed, in the partitions of its tasks; none while the broker does not
    /// say.
    pub lag: Option<u64>,
    /// What `/api/v1/status` of the instance shows.
    pub status: Json,
}

impl InstanceReport {
    /// The record's value. What takes most room is left out if it would be too large: a report must never be unwritable.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut report = self.clone();
        for key in ["/quality/distributions", "/quality/windows", "/quality/features", "/contract"]
        {
            let bytes = serde_json::to_vec(&report).unwrap_or_default();
            if bytes.len() <= REPORT_BYTES_MAX {
                return bytes;
            }
            if let Some(list) = report.status.pointer_mut(key) {
                *list = Json::Array(Vec::new());
            }
        }
        report.status = Json::Null;
        serde_json::to_vec(&report).unwrap_or_default()
    }

    /// Reads a record's value; none if it is not a report.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|report: &Self| !report.instance.is_empty())
    }

    /// The status as it is reported.
    #[must_use]
    pub fn status_of(snapshot: &Snapshot) -> Json {
        serde_json::to_value(snapshot).unwrap_or(Json::Null)
    }
}

impl Buckets {
    /// Adds the values of another instance, if it has the same bounds: another release may have others.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.clone_from(other);
        } else if self.bounds == other.bounds && self.counts.len() == other.counts.len() {
            for (count, more) in self.counts.iter_mut().zip(&other.counts) {
                *count += more;
            }
        }
    }

    /// The values since `earlier`; all of them if the histogram began anew since then.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = self.counts.iter().zip(&earlier.counts);
        let is_continued = earlier.counts.len() == self.counts.len()
            && pairs.clone().all(|(now, then)| now >= then);
        if !is_continued {
            return self.clone();
        }
        let counts = pairs.map(|(now, then)| now - then).collect();
        Self { bounds: self.bounds.clone(), counts }
    }

    /// The number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The value that the share `q` of the values is below, interpolated in its bucket as Prometheus does. The last bound if it
    /// is above that; none without values.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let rank = q * total as f64;
        let (mut below, mut low) = (0.0, 0.0);
        for (count, bound) in self.counts.iter().zip(&self.bounds) {
            let within = *count as f64;
            if within > 0.0 && below + within >= rank {
                return Some(low + (bound - low) * ((rank - below) / within).clamp(0.0, 1.0));
            }
            (below, low) = (below + within, *bound);
        }
        self.bounds.last().copied()
    }
}

impl Recent {
    /// What was counted between the first and the last of `samples`, which have the time since some start.
    #[must_use]
    pub fn of(samples: &VecDeque<(Duration, Sample)>) -> Self {
        let (Some((then, first)), Some((now, last))) = (samples.front(), samples.back()) else {
            return Self::default();
        };
        let since =
            |of: fn(&Counters) -> u64| of(&last.counters).saturating_sub(of(&first.counters));
        Self {
            seconds: now.saturating_sub(*then).as_secs_f64(),
            events: since(|counters| counters.events),
            outcomes: since(|counters| counters.outcomes),
            predictions: since(|counters| counters.predictions),
            examples: since(Counters::labelled_examples),
            dead_letters: since(|counters| counters.dead_letters.values().sum()),
            scored: last.scored.since(&first.scored),
            committed: last.committed.since(&first.committed),
        }
    }
}

impl Counters {
    /// Labelled examples. A correction is not another one.
    #[must_use]
    pub fn labelled_examples(&self) -> u64 {
        let sources = [LabelSource::Outcome, LabelSource::Policy];
        sources.iter().filter_map(|source| self.examples.get(source.name())).sum()
    }

    /// Adds the counts of another instance.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.outcomes += other.outcomes;
        self.predictions += other.predictions;
        self.unlabelled += other.unlabelled;
        self.duplicates += other.duplicates;
        self.unseen_categories += other.unseen_categories;
        self.out_of_range += other.out_of_range;
        for (sum, more) in [
            (&mut self.predictions_by_model, &other.predictions_by_model),
            (&mut self.outcome_results, &other.outcome_results),
            (&mut self.examples, &other.examples),
            (&mut self.dead_letters, &other.dead_letters),
            (&mut self.decisions, &other.decisions),
            (&mut self.trainings, &other.trainings),
        ] {
            add_each(sum, more);
        }
        for (rule, states) in &other.actions {
            add_each(self.actions.entry(rule.clone()).or_default(), states);
        }
    }
}

fn add_each(sum: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (name, count) in more {
        *sum.entry(name.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(counts: [u64; 4]) -> Buckets {
        Buckets { bounds: vec![1.0, 2.0, 4.0], counts: counts.to_vec() }
    }

    #[test]
    fn quantiles_are_interpolated_and_never_beyond_the_last_bound() {
        let check = |counts: [u64; 4], q: f64, expected: Option<f64>| {
            let found = buckets(counts).quantile(q);
            let is_close = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() < 1e-9,
                (found, expected) => found == expected,
            };
            assert!(is_close, "{counts:?} {q}: {found:?}");
        };
        check([0, 0, 0, 0], 0.5, None);
        check([10, 0, 0, 0], 0.5, Some(0.5));
        check([0, 0, 10, 0], 0.5, Some(3.0));
        check([5, 5, 0, 0], 0.99, Some(1.98));
        check([0, 0, 0, 3], 0.5, Some(4.0));
        assert_eq!(Buckets::default().quantile(0.5), None);
    }

    #[test]
    fn histograms_are_summed_and_a_restart_begins_anew() {
        let mut sum = Buckets::default();
        sum.merge(&buckets([1, 2, 3, 4]));
        sum.merge(&buckets([1, 0, 0, 0]));
        sum.merge(&Buckets { bounds: vec![9.0], counts: vec![5, 5] });
        assert_eq!(sum, buckets([2, 2, 3, 4]));
        assert_eq!(sum.since(&buckets([1, 2, 0, 0])), buckets([1, 0, 3, 4]));
        assert_eq!(buckets([0, 1, 0, 0]).since(&sum), buckets([0, 1, 0, 0]));
    }

    #[test]
    fn a_report_that_is_too_large_loses_its_lists_first() {
        let large: Vec<String> =
            (0..20_000).map(|number| format!("feature-{number:030}")).collect();
        let status = serde_json::json!({
            "model": "m1", "quality": {"distributions": large, "windows": [], "labels": 7},
        });
        let report = InstanceReport { instance: "one".to_owned(), status, ..Default::default() };
        let bytes = report.to_bytes();
        assert!(bytes.len() < REPORT_BYTES_MAX);
        let back = InstanceReport::from_bytes(&bytes).unwrap();
        assert_eq!(back.status["model"], "m1");
        assert_eq!(back.status["quality"]["labels"], 7);
        assert_eq!(back.status["quality"]["distributions"], Json::Array(vec![]));
        let hopeless = InstanceReport { status: Json::String("x".repeat(1 << 20)), ..report };
        let back = InstanceReport::from_bytes(&hopeless.to_bytes()).unwrap();
        assert_eq!(back.status, Json::Null);
    }

    #[test]
    fn other_records_are_no_reports() {
        for bytes in ["", "null", "{}", "[1]", "{\"instance\": 7}", "\u{0}"] {
            assert_eq!(InstanceReport::from_bytes(bytes.as_bytes()), None, "{bytes:?}");
        }
        let newer = br#"{"instance": "one", "counters": {"events": 3, "new": 1}, "added": []}"#;
        assert_eq!(InstanceReport::from_bytes(newer).unwrap().counters.events, 3);
    }
}
