//! The numbers of the last minutes, so that a page has its charts at once.

use std::{collections::VecDeque, time::Duration};

use serde_json::{Map, Value as Json, json};

use crate::processors::instances::LiveNumbers;
use foretell_streams::time::WallTime;

/// The time between two points.
pub const HISTORY_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum number of points: 15 minutes. With nine numbers each they take 40 KB.
pub const HISTORY_POINTS_MAX: usize = 450;

/// The newest points.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Oldest first.
    points: VecDeque<Point>,
}

#[derive(Clone, Debug)]
struct Point {
    at: WallTime,
    numbers: [Option<f64>; NAMES.len()],
}

/// The names of the numbers, as [`LiveNumbers::charted`] has them.
const NAMES: [&str; 9] = [
    "events",
    "predictions",
    "outcomes",
    "examples",
    "dead_letters",
    "scored_p50_ms",
    "scored_p99_ms",
    "committed_p99_ms",
    "lag",
];

impl History {
    /// Adds a point, unless the last one is younger than [`HISTORY_INTERVAL`].
    pub fn add(&mut self, live: &LiveNumbers) {
        if let Some(last) = self.points.back() {
            // A clock that was set back begins the history again: its times must ascend.
            if live.at < last.at {
                self.points.clear();
            } else if live.at.since(last.at) < HISTORY_INTERVAL {
                return;
            }
        }
        if self.points.len() >= HISTORY_POINTS_MAX {
            self.points.pop_front();
        }
        self.points.push_back(Point { at: live.at, numbers: live.charted() });
    }

    /// The points by the name of the number, as lists of the same length.
    #[must_use]
    pub fn columns(&self) -> Map<String, Json> {
        let mut columns = Map::new();
        let times: Vec<i64> = self.points.iter().map(|point| point.at.0).collect();
        columns.insert("at".to_owned(), json!(times));
        for (index, name) in NAMES.iter().enumerate() {
            let numbers = self.points.iter().map(|point| point.numbers[index].map(rounded));
            columns.insert((*name).to_owned(), json!(numbers.collect::<Vec<_>>()));
        }
        columns
    }
}

/// Two digits after the point are enough for a chart, and half as many bytes.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_points_are_kept_in_order() {
        let mut history = History::default();
        let add = |history: &mut History, at: i64| {
            history.add(&LiveNumbers { at: WallTime(at), ..LiveNumbers::default() });
        };
        for second in 0..2_000 {
            add(&mut history, second * 1_000);
        }
        let columns = history.columns();
        let times: Vec<i64> = serde_json::from_value(columns["at"].clone()).unwrap();
        assert_eq!(times.len(), HISTORY_POINTS_MAX);
        assert_eq!(times.last(), Some(&1_998_000));
        assert!(times.is_sorted_by(|one, next| next - one == 2_000));
        assert!(columns.values().all(|list| list.as_array().unwrap().len() == times.len()));
        add(&mut history, 5_000);
        assert_eq!(history.columns()["at"], json!([5_000]));
    }
}
