//! The result of a replay: variants side by side, as a table, as JSON and as a page with charts.

use serde::Serialize;

use crate::app::{
    plot::{self, LineChart, Series},
    replay::{
        counts::Counts,
        scores::{Improvement, Promotion, ScoredWindow, Scores},
    },
};
use foretell_ml::drift::LiveMetrics;

/// The result of a replay.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was replayed.
    pub source: String,
    /// Each variant that was replayed; the plain configuration, or its replacement, is `current` and comes first.
    pub variants: Vec<VariantReport>,
    /// Whether it was stopped before the last variant ended. The variants above are complete.
    pub is_stopped: bool,
}

/// The result of one variant.
#[derive(Clone, Debug, Serialize)]
pub struct VariantReport {
    /// Its name.
    pub name: String,
    /// Why it ended before the history did; none if it did not.
    pub error: Option<String>,
    /// What it has done.
    #[serde(flatten)]
    pub counts: Counts,
    /// Progressive metrics of all labels.
    pub total: LiveMetrics,
    /// Progressive metrics of the labels in the last quarter of the windows.
    pub last_quarter: LiveMetrics,
    /// How much better the log loss is than that of `current`.
    pub improvement: Option<Improvement>,
    /// Progressive metrics by windows of about equal numbers of labels.
    pub windows: Vec<ScoredWindow>,
    /// When other models began to serve.
    pub promotions: Vec<Promotion>,
    /// The time that it took.
    pub seconds: f64,
}

/// Milliseconds in an hour and in a day.
const HOUR_MS: f64 = 3_600_000.0;
const DAY_MS: f64 = 24.0 * HOUR_MS;

impl VariantReport {
    pub(super) fn new(name: &str, scores: &Scores, counts: Counts) -> Self {
        Self {
            name: name.to_owned(),
            error: None,
            counts,
            total: scores.total(),
            last_quarter: scores.last_quarter(),
            improvement: None,
            windows: scores.windows(),
            promotions: scores.promotions().to_vec(),
            seconds: 0.0,
        }
    }
}

impl Report {
    /// Counts and metrics of all labels; the first row is the head.
    #[must_use]
    pub fn table(&self) -> Vec<Vec<String>> {
        let head = [
            "variant",
            "predictions",
            "labelled",
            "trainings",
            "promoted",
            "refused",
            "rolled back",
            "challenger",
            "failed",
            "dead letters",
            "seconds",
        ];
        let row = |variant: &VariantReport| {
            let counts = &variant.counts;
            let numbers = [
                counts.predictions,
                variant.total.labels,
                counts.trainings,
                counts.promoted,
                counts.refused,
                counts.rolled_back,
                counts.challenger,
                counts.failed,
                counts.dead_letters.values().sum(),
            ];
            let mut row = vec![variant.name.clone()];
            row.extend(numbers.map(|number| number.to_string()));
            row.push(format!("{:.1}", variant.seconds));
            row
        };
        self.with_head(&head, row)
    }

    /// Progressive metrics of all labels, and the improvement; the first row is the head.
    #[must_use]
    pub fn totals_table(&self) -> Vec<Vec<String>> {
        let mut table = self.metrics_table(|variant| &variant.total);
        table[0].push("improvement of log loss (95 % interval)".to_owned());
        for (row, variant) in table.iter_mut().skip(1).zip(&self.variants) {
            row.push(variant.improvement.map_or("-".to_owned(), |found| {
                format!("{:+.4} ({:+.4} to {:+.4})", found.log_loss, found.low, found.high)
            }));
        }
        table
    }

    /// Progressive metrics of the last quarter; the first row is the head.
    #[must_use]
    pub fn last_quarter_table(&self) -> Vec<Vec<String>> {
        self.metrics_table(|variant| &variant.last_quarter)
    }

    fn metrics_table(&self, of: fn(&VariantReport) -> &LiveMetrics) -> Vec<Vec<String>> {
        let head = ["variant", "log loss", "AUC", "accuracy", "calibration error"];
        self.with_head(&head, |variant| {
            let LiveMetrics { log_loss, auc, accuracy, calibration_error, .. } = of(variant);
            let values = [log_loss, auc, accuracy, calibration_error].map(|value| number(*value));
            std::iter::once(variant.name.clone()).chain(values).collect()
        })
    }

    fn with_head(
        &self,
        head: &[&str],
        row: impl Fn(&VariantReport) -> Vec<String>,
    ) -> Vec<Vec<String>> {
        let head = head.iter().map(|name| (*name).to_owned()).collect();
        std::iter::once(head).chain(self.variants.iter().map(row)).collect()
    }

    /// A page of HTML with the courses of log loss and AUC by event time, and the tables.
    ///
    /// # Errors
    /// As [`plot::page`].
    pub fn page(&self) -> anyhow::Result<String> {
        let by_window = "by window; a dot: another model begins to serve";
        let charts = [
            self.chart("log loss", "of all labels so far", so_far),
            self.chart("log loss", by_window, |windows| course(windows, |it| it.log_loss)),
            self.chart("AUC", by_window, |windows| course(windows, |it| it.auc)),
        ];
        let tables = [
            ("What each variant did", self.table()),
            ("Progressive metrics", self.totals_table()),
            ("Progressive metrics of the last quarter of the labels", self.last_quarter_table()),
        ];
        plot::page(&format!("Replay of {}", self.source), &charts, &tables)
    }

    /// A chart of a metric, whose values are given for the windows of a variant.
    fn chart(
        &self,
        name: &str,
        what: &str,
        values: fn(&[ScoredWindow]) -> Vec<Option<f64>>,
    ) -> LineChart {
        let windows = self.variants.iter().flat_map(|variant| &variant.windows);
        let times: Vec<i64> = windows.map(|window| window.until).collect();
        let first = times.iter().copied().min().unwrap_or_default();
        let span = times.iter().map(|time| (time - first) as f64).fold(0.0, f64::max);
        let (unit, length) =
            if span > 2.0 * DAY_MS { ("days", DAY_MS) } else { ("hours", HOUR_MS) };
        let series = self.variants.iter().map(|variant| {
            let times = variant.windows.iter().map(|window| window.until);
            let points = times
                .zip(values(&variant.windows))
                .filter_map(|(time, value)| Some((time, ((time - first) as f64 / length, value?))));
            let points: Vec<(i64, (f64, f64))> = points.collect();
            let mark = |promotion: &Promotion| {
                let at = promotion.time?;
                points.iter().find(|(time, _)| *time >= at).map(|(_, point)| *point)
            };
            Series {
                name: variant.name.clone(),
                marks: variant.promotions.iter().filter_map(mark).collect(),
                points: points.iter().map(|(_, point)| *point).collect(),
            }
        });
        LineChart {
            title: format!("progressive {name} {what}"),
            x_label: format!("{unit} of event time after the first window"),
            y_label: name.to_owned(),
            series: series.collect(),
        }
    }
}

/// A metric of each window.
fn course(windows: &[ScoredWindow], of: fn(&LiveMetrics) -> Option<f64>) -> Vec<Option<f64>> {
    windows.iter().map(|window| of(&window.metrics)).collect()
}

/// The log loss of all labels up to the end of each window. Variants differ less than windows do, so it shows their order.
fn so_far(windows: &[ScoredWindow]) -> Vec<Option<f64>> {
    let (mut labels, mut sum) = (0_u64, 0.0);
    let value = |window: &ScoredWindow| {
        let metrics = &window.metrics;
        labels += metrics.labels;
        sum += metrics.log_loss? * metrics.labels as f64;
        Some(sum / labels as f64)
    };
    windows.iter().map(value).collect()
}

fn number(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.4}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(name: &str, loss: f64) -> VariantReport {
        let metrics = LiveMetrics { labels: 100, log_loss: Some(loss), ..LiveMetrics::default() };
        let window = |number: i64| ScoredWindow { until: number * 3_600_000, metrics };
        let scores = Scores::new(2);
        VariantReport {
            total: metrics,
            windows: (1..4).map(window).collect(),
            promotions: vec![
                Promotion { time: None, model: "first".to_owned() },
                Promotion { time: Some(3_600_001), model: "second".to_owned() },
            ],
            improvement: (name != "current").then_some(Improvement {
                examples: 100,
                log_loss: 0.01,
                low: -0.005,
                high: 0.02,
            }),
            ..VariantReport::new(name, &scores, Counts { predictions: 120, ..Counts::default() })
        }
    }

    fn report() -> Report {
        let variants = vec![variant("current", 0.31), variant("frozen", 0.3)];
        Report { source: "a table".to_owned(), variants, is_stopped: false }
    }

    #[test]
    fn tables_have_a_row_for_each_variant() {
        let report = report();
        let (table, metrics) = (report.table(), report.totals_table());
        assert!(table.iter().all(|row| row.len() == table[0].len()));
        assert_eq!(table[1][..3], ["current", "120", "100"]);
        assert!(metrics.iter().all(|row| row.len() == metrics[0].len()));
        assert_eq!(metrics[2][..3], ["frozen", "0.3000", "-"]);
        assert_eq!(metrics[2].last().unwrap(), "+0.0100 (-0.0050 to +0.0200)");
        assert_eq!(report.last_quarter_table()[0].len(), 5);
    }

    #[test]
    fn the_page_has_charts_with_a_line_for_each_variant_and_marks() {
        let page = report().page().unwrap();
        assert_eq!(page.matches("<svg").count(), 3);
        assert_eq!(page.matches("hours of event time").count(), 3);
        assert!(page.contains("frozen") && page.contains("improvement of log loss"));
        // One mark for each variant in both charts of the log loss: the AUC is undefined here.
        assert_eq!(page.matches("<circle").count(), 4, "{page}");
    }

    #[test]
    fn the_log_loss_so_far_is_weighted_by_labels() {
        let window = |labels, log_loss| ScoredWindow {
            until: 0,
            metrics: LiveMetrics { labels, log_loss: Some(log_loss), ..LiveMetrics::default() },
        };
        let found = so_far(&[window(10, 0.2), window(30, 0.6)]);
        assert_eq!(found.len(), 2);
        assert!((found[0].unwrap() - 0.2).abs() < 1e-12 && (found[1].unwrap() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn json_has_the_numbers() {
        let json = serde_json::to_value(report()).unwrap();
        let at = |path: &str| json.pointer(path).unwrap().clone();
        assert_eq!(at("/variants/0/predictions"), 120);
        assert_eq!(at("/variants/1/improvement/examples"), 100);
        assert_eq!(at("/variants/1/windows/0/labels"), 100);
        assert_eq!(at("/is_stopped"), false);
    }
}
