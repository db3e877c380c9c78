//! Maturity: the share of the predictions that have their label, by age.

use std::time::Duration;

use serde::Serialize;

use crate::processors::quality::QualitySettings;
use foretell_streams::time::EventTime;

/// The predictions of an age.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Maturity {
    /// The least age of the predictions in event time, in milliseconds; the next entry's is the end.
    pub older_than_ms: u64,
    /// The number of predictions.
    pub predictions: u64,
    /// The number of those whose label is known.
    pub labels: u64,
    /// The share of those whose label is known; none without predictions.
    pub labelled: Option<f64>,
}

/// Predictions and labels of a model in a window.
pub(super) struct WindowLabels {
    /// The start of the window.
    pub(super) start: EventTime,
    /// The number of predictions; none of a challenger, which only has labels.
    pub(super) predictions: u64,
    /// The number of labels.
    pub(super) labels: u64,
}

/// The least ages, in eighths of the time in which labels can come.
const EIGHTHS: [u32; 5] = [0, 1, 2, 4, 8];

/// The least ages of [`maturity`].
pub(super) fn ages(settings: &QualitySettings) -> [Duration; EIGHTHS.len()] {
    EIGHTHS.map(|eighths| (settings.labels_within / 8).saturating_mul(eighths))
}

/// Sums up windows by age: from the start of the window to that of the newest one.
pub(super) fn maturity(
    windows: impl IntoIterator<Item = WindowLabels>,
    newest: EventTime,
    settings: &QualitySettings,
) -> Vec<Maturity> {
    let ages = ages(settings);
    let mut sums = [(0, 0); EIGHTHS.len()];
    for WindowLabels { start, predictions, labels } in windows {
        let age = newest.since(start);
        let place = ages.iter().rposition(|least| *least <= age).unwrap_or_default();
        sums[place].0 += predictions;
        // Counts of predictions may lack those of a crash.
        sums[place].1 += labels.min(predictions);
    }
    let of_age = |(age, (predictions, labels)): (Duration, (u64, u64))| Maturity {
        older_than_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        predictions,
        labels,
        labelled: (predictions > 0).then(|| labels as f64 / predictions as f64),
    };
    ages.into_iter().zip(sums).map(of_age).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_count_by_their_age() {
        let settings = QualitySettings {
            window: Duration::from_secs(60),
            labels_within: Duration::from_secs(800),
            psi_alert: 0.25,
            log_loss_alert: 0.1,
            labels_min: 1,
            predictions_min: 1,
            retrain_on_drift: false,
        };
        let window = |start: i64, predictions, labels| WindowLabels {
            start: EventTime(start * 1_000),
            predictions,
            labels,
        };
        let windows = [
            window(1_000, 100, 5),
            window(901, 100, 15),
            window(900, 50, 20),
            // A challenger's, and one of which a crash has lost predictions.
            window(900, 0, 20),
            window(300, 10, 12),
            window(0, 7, 7),
        ];
        let found = maturity(windows, EventTime(1_000_000), &settings);
        let found: Vec<_> = found.iter().map(|one| (one.older_than_ms, one.labelled)).collect();
        let expected = [
            (0, Some(0.1)),
            (100_000, Some(0.4)),
            (200_000, None),
            (400_000, Some(1.0)),
            (800_000, Some(1.0)),
        ];
        assert_eq!(found, expected);
    }
}
