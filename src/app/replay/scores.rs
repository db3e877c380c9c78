//! Progressive metrics of one variant: each label is judged with the probabilities that were predicted before it was known.
//! Memory does not depend on the number of labels.
//!
//! ```text
//!   labelled examples ─▶ windows of equal numbers of labels ─merge─▶ total, last quarter, courses
//!                    └─▶ a sample of them by the hash of the id ─▶ pairs with another variant ─▶ difference and interval
//! ```

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::events::labelled_example::{ExampleOrigin, LabelledExample};
use foretell_ml::{
    Label, Metric, ModelBundle, Probabilities, Seed,
    drift::{LiveMetrics, Progressive},
    judge::{self, Predictions},
};
use foretell_streams::time::EventTime;

/// Maximum number of windows, which is even. When all are full, each two neighbours become one.
const WINDOWS_MAX: usize = 48;
/// Labels of a window at first.
const LABELS_AT_FIRST: u64 = 25;
/// Maximum number of examples of the paired comparison, 4 MB. Beyond it, every second one by its hash is dropped.
const PAIRED_MAX: usize = 100_000;

/// Sums over the labelled examples of a variant.
pub(super) struct Scores {
    classes: usize,
    /// Labels of a complete window.
    window_labels: u64,
    windows: Vec<Sums>,
    /// The decision threshold of each model.
    thresholds: BTreeMap<String, f64>,
    paired: Paired,
    promotions: Vec<Promotion>,
}

/// A promotion or rollback, by the newest event time of a labelled example before it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Promotion {
    /// The event time in milliseconds since 1970; none before the first label.
    pub time: Option<i64>,
    /// The model that serves from then on.
    pub model: String,
}

/// Sums over the labels of one window.
#[derive(Clone)]
struct Sums {
    /// The newest event time.
    until: EventTime,
    progressive: Progressive,
    correct: u64,
}

/// Progressive metrics of a window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoredWindow {
    /// The newest event time of its examples, in milliseconds since 1970.
    pub until: i64,
    /// Its metrics.
    #[serde(flatten)]
    pub metrics: LiveMetrics,
}

/// How much better a variant's log loss is than that of another variant, on the examples that both have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Improvement {
    /// Number of examples that were compared, a random sample if there are more than 100,000.
    pub examples: u64,
    /// The other variant's log loss minus this one's: positive if this one is better.
    pub log_loss: f64,
    /// Lower end of the 95 % interval of a paired bootstrap.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The probability of the true class of a sample of the examples.
#[derive(Clone, Default)]
pub(super) struct Paired {
    /// An example is in the sample if its hash has none of these bits.
    mask: u64,
    of_label: BTreeMap<u64, f64>,
}

impl Scores {
    pub(super) fn new(classes: usize) -> Self {
        Self {
            classes,
            window_labels: LABELS_AT_FIRST,
            windows: Vec::new(),
            thresholds: BTreeMap::new(),
            paired: Paired::default(),
            promotions: Vec::new(),
        }
    }

    /// Notes a model whose predictions may follow.
    pub(super) fn note_model(&mut self, bundle: &ModelBundle) {
        self.thresholds.insert(bundle.version().as_str().to_owned(), bundle.threshold);
    }

    /// Notes that another model serves from now on.
    pub(super) fn note_promotion(&mut self, model: String) {
        let time = self.windows.last().map(|newest| newest.until.0);
        self.promotions.push(Promotion { time, model });
    }

    /// Adds the label of an example. The first label counts, not its corrections: the windows
    /// have a number of labels, and that of a correction may have passed.
    pub(super) fn add(&mut self, example: &LabelledExample) {
        let Some(prediction) = &example.prediction else { return };
        if example.origin == ExampleOrigin::Initial || example.correction {
            return;
        }
        let (mut probabilities, mut label) = (Vec::with_capacity(self.classes), None);
        for class in prediction.probabilities.iter() {
            if class.label == example.label {
                label = Some(probabilities.len());
            }
            probabilities.push(class.probability);
        }
        let threshold = self.thresholds.get(&prediction.model_version).copied().unwrap_or(0.5);
        let is_full = |last: &Sums| last.progressive.labels() >= self.window_labels;
        if self.windows.last().is_none_or(is_full) {
            self.begin_window(example.event_time);
        }
        let Some(window) = self.windows.last_mut() else { return };
        if !window.progressive.add(&probabilities, label) {
            return;
        }
        window.until = window.until.max(example.event_time);
        let of_label = label.map_or(0.0, |label| probabilities[label]);
        self.paired.add(&example.example_id, of_label);
        let probabilities = Probabilities::new(probabilities);
        let decided = match self.classes {
            2 => probabilities.decide(threshold),
            _ => probabilities.most_probable(),
        };
        window.correct += u64::from(label == Some(decided.index()));
    }

    fn begin_window(&mut self, at: EventTime) {
        if self.windows.len() >= WINDOWS_MAX {
            let merged = self.windows.chunks(2).map(Sums::of).collect();
            self.windows = merged;
            self.window_labels *= 2;
        }
        // Labels come out of order, and the course of a variant goes forward.
        let until = self.windows.last().map_or(at, |last| last.until.max(at));
        let progressive = Progressive::new(self.classes, 0.5);
        self.windows.push(Sums { until, progressive, correct: 0 });
    }

    /// Metrics of all labels.
    pub(super) fn total(&self) -> LiveMetrics {
        metrics_of(&self.windows)
    }

    /// Metrics of the labels in the last quarter of the windows.
    pub(super) fn last_quarter(&self) -> LiveMetrics {
        let number = self.windows.len().div_ceil(4);
        metrics_of(&self.windows[self.windows.len() - number..])
    }

    /// Metrics of each window.
    pub(super) fn windows(&self) -> Vec<ScoredWindow> {
        let window = |sums: &Sums| ScoredWindow { until: sums.until.0, metrics: sums.metrics() };
        self.windows.iter().map(window).collect()
    }

    /// The promotions, in order.
    pub(super) fn promotions(&self) -> &[Promotion] {
        &self.promotions
    }

    /// The sample for comparisons.
    pub(super) fn paired(&self) -> &Paired {
        &self.paired
    }
}

fn metrics_of(windows: &[Sums]) -> LiveMetrics {
    if windows.is_empty() { LiveMetrics::default() } else { Sums::of(windows).metrics() }
}

impl Sums {
    /// The sums of windows, of which there is one at least.
    fn of(windows: &[Self]) -> Self {
        let mut sums = windows[0].clone();
        for more in &windows[1..] {
            sums.until = sums.until.max(more.until);
            sums.progressive.merge(&more.progressive);
            sums.correct += more.correct;
        }
        sums
    }

    /// The metrics, with the decisions by the threshold of each model.
    fn metrics(&self) -> LiveMetrics {
        let metrics = self.progressive.metrics();
        let accuracy = (metrics.labels > 0).then(|| self.correct as f64 / metrics.labels as f64);
        LiveMetrics { accuracy, ..metrics }
    }
}

impl Paired {
    fn add(&mut self, example_id: &str, of_label: f64) {
        let digest: [u8; 32] = Sha256::digest(example_id.as_bytes()).into();
        let hash = u64::from_le_bytes(std::array::from_fn(|index| digest[index]));
        if hash & self.mask != 0 {
            return;
        }
        self.of_label.insert(hash, of_label);
        while self.of_label.len() > PAIRED_MAX {
            self.mask = self.mask << 1 | 1;
            let mask = self.mask;
            self.of_label.retain(|hash, _| hash & mask == 0);
        }
    }

    /// How much better these predictions are than `other` on the examples in both. None of fewer than 30.
    pub(super) fn improvement_over(&self, other: &Self, seed: u64) -> Option<Improvement> {
        let both = self.of_label.iter();
        let both = both.filter_map(|(hash, one)| Some((*one, *other.of_label.get(hash)?)));
        let (mut own, mut others) = (Predictions::default(), Predictions::default());
        for (one, another) in both {
            for (predictions, of_label) in [(&mut own, one), (&mut others, another)] {
                predictions.probabilities.push(Probabilities::new(vec![1.0 - of_label, of_label]));
                predictions.decisions.push(Label(1));
            }
        }
        let labels = vec![Label(1); own.decisions.len()];
        let settings = judge::Settings {
            metric: Metric::LogLoss,
            seed: Seed(seed),
            ..judge::Settings::default()
        };
        let found = judge::compare_any(&own, &others, &labels, &settings)?;
        Some(Improvement {
            examples: found.examples,
            log_loss: found.difference,
            low: found.low,
            high: found.high,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{
        action::ExampleActions, answered::ClassProbability, labelled_example::ExamplePrediction,
        questionnaire::AnswerRow,
    };
    use foretell_streams::time::WallTime;

    /// The example `number` with a probability of "yes".
    fn example(number: u32, yes: f64, label: &str) -> LabelledExample {
        let classes = [("no", 1.0 - yes), ("yes", yes)];
        let classes = classes.map(|(label, probability)| ClassProbability { label, probability });
        LabelledExample {
            example_id: format!("p-{number}"),
            respondent_id: "ann".to_owned(),
            origin: ExampleOrigin::Stream,
            event_time: EventTime(number.into()),
            outcome_time: None,
            label: label.to_owned(),
            prediction: Some(ExamplePrediction {
                prediction_id: format!("p-{number}"),
                model_version: "m".to_owned(),
                predicted_at: WallTime(0),
                probabilities: classes.into_iter().collect(),
            }),
            challenger: None,
            correction: false,
            replaced: None,
            actions: ExampleActions::default(),
            answers: AnswerRow::default(),
        }
    }

    fn scores(number: u32, yes: impl Fn(u32) -> f64) -> Scores {
        let mut scores = Scores::new(2);
        for number in 0..number {
            let label = if number % 3 == 0 { "yes" } else { "no" };
            scores.add(&example(number, yes(number), label));
        }
        scores
    }

    #[test]
    fn windows_have_the_sums_of_all_labels_and_a_bound() {
        for number in [0, 1, 25, 26, 48 * 25, 48 * 25 + 1, 10_000] {
            let scores = scores(number, |number| if number % 3 == 0 { 0.8 } else { 0.3 });
            let (total, windows) = (scores.total(), scores.windows());
            assert_eq!(total.labels, u64::from(number));
            assert!(windows.len() <= WINDOWS_MAX, "{number}");
            assert_eq!(windows.iter().map(|one| one.metrics.labels).sum::<u64>(), total.labels);
            assert!(windows.is_sorted_by_key(|one| one.until));
            let quarter = scores.last_quarter().labels;
            let expected = u64::from(number) / 4;
            assert!(quarter >= expected.min(1) && quarter <= expected + 2 * scores.window_labels);
        }
        let metrics = scores(3_000, |number| if number % 3 == 0 { 0.8 } else { 0.3 }).total();
        let expected = -(0.8_f64.ln() + 2.0 * 0.7_f64.ln()) / 3.0;
        assert!((metrics.log_loss.unwrap() - expected).abs() < 1e-9);
        assert!((metrics.auc.unwrap() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_course_goes_forward_though_labels_come_out_of_order() {
        let mut scores = Scores::new(2);
        for number in 0..200 {
            let time = if number % 50 < 25 { number + 40 } else { number };
            scores.add(&LabelledExample {
                event_time: EventTime(time.into()),
                ..example(number, 0.4, "no")
            });
        }
        let windows = scores.windows();
        assert_eq!(windows.len(), 8);
        assert!(windows.is_sorted_by_key(|one| one.until), "{windows:?}");
    }

    #[test]
    fn decisions_are_those_of_the_threshold_of_each_model() {
        let mut scores = Scores::new(2);
        scores.thresholds.insert("m".to_owned(), 0.2);
        scores.add(&example(0, 0.3, "yes"));
        scores.add(&example(1, 0.1, "no"));
        assert_eq!(scores.total().accuracy, Some(1.0));
    }

    #[test]
    fn corrections_and_examples_without_a_prediction_do_not_count() {
        let mut scores = Scores::new(2);
        scores.add(&LabelledExample { correction: true, ..example(0, 0.3, "yes") });
        scores.add(&LabelledExample { prediction: None, ..example(0, 0.3, "yes") });
        assert_eq!((scores.total().labels, scores.windows().len()), (0, 0));
        assert_eq!(scores.total().log_loss, None);
    }

    #[test]
    fn variants_are_compared_on_the_examples_that_both_have() {
        let better = scores(500, |number| if number % 3 == 0 { 0.8 } else { 0.3 });
        let worse = scores(400, |_| 0.4);
        let found = better.paired().improvement_over(worse.paired(), 1).unwrap();
        assert_eq!(found.examples, 400);
        assert!(found.low > 0.0 && found.low < found.log_loss && found.log_loss < found.high);
        let opposite = worse.paired().improvement_over(better.paired(), 1).unwrap();
        assert!((opposite.log_loss + found.log_loss).abs() < 1e-12);
        assert!(scores(20, |_| 0.4).paired().improvement_over(better.paired(), 1).is_none());
    }

    #[test]
    fn a_large_sample_is_thinned_in_the_same_way_for_each_variant() {
        let (mut one, mut other) = (Paired::default(), Paired::default());
        for number in 0..150_000 {
            one.add(&number.to_string(), 0.5);
            if number < 90_000 {
                other.add(&number.to_string(), 0.4);
            }
        }
        assert!(
            (60_000..PAIRED_MAX).contains(&one.of_label.len()) && other.of_label.len() == 90_000
        );
        let found = one.improvement_over(&other, 1).unwrap();
        assert!((40_000..50_000).contains(&found.examples), "{found:?}");
    }
}
