//! Splits the rows into those that the first model is trained on, and those that the demo plays.

use serde::Serialize;

/// Share of the rows that is played, in percent.
const PLAYED_PERCENT: usize = 30;
/// Maximum number of rows that are played: half a minute of the demo.
const PLAYED_MAX: usize = 20_000;
/// Fewer rows are too few for two tables.
const ROWS_MIN: usize = 20;

/// A row that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The index of its class.
    pub(super) class: u16,
    /// Its event time, in milliseconds since 1970; 0 if the file has none.
    pub(super) millis: i64,
}

/// How rows were split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitRule {
    /// The last rows by event time are played.
    EventTime,
    /// The last rows of the file are played.
    FileOrder,
    /// Rows from the whole file are played, because its last rows have other labels than its first.
    Spread,
}

/// Which rows are played.
#[derive(Clone, Debug)]
pub(super) struct Split {
    pub(super) rule: SplitRule,
    /// Whether each row is played.
    pub(super) is_played: Vec<bool>,
    pub(super) played: usize,
}

impl Split {
    /// Splits `rows` with `classes` classes.
    ///
    /// # Errors
    /// If there are too few rows.
    pub(super) fn of(rows: &[Row], classes: usize, has_times: bool) -> anyhow::Result<Self> {
        anyhow::ensure!(
            rows.len() >= ROWS_MIN,
            "{} rows can be used; at least {ROWS_MIN} are needed",
            rows.len()
        );
        let played = (rows.len() * PLAYED_PERCENT / 100).min(PLAYED_MAX);
        let first_played = rows.len() - played;
        let mut order: Vec<usize> = (0..rows.len()).collect();
        if has_times {
            // Stable: rows of one time stay in the order of the file.
            order.sort_by_key(|index| rows[*index].millis);
        }
        let mut is_played = vec![false; rows.len()];
        for index in &order[first_played..] {
            is_played[*index] = true;
        }
        let rule = if has_times { SplitRule::EventTime } else { SplitRule::FileOrder };
        let split = Self { rule, is_played, played };
        let is_usable = match rule {
            // What comes later may differ, as in real life, but a model needs two classes.
            SplitRule::EventTime => split.classes_of_initial(rows, classes) >= 2,
            SplitRule::FileOrder | SplitRule::Spread => !split.is_sorted_by_class(rows, classes),
        };
        Ok(if is_usable { split } else { Self::spread(rows.len(), played) })
    }

    /// Plays `played` rows that are evenly spread.
    fn spread(rows: usize, played: usize) -> Self {
        let before = |index: usize| index * played / rows;
        let is_played = (0..rows).map(|index| before(index + 1) > before(index)).collect();
        Self { rule: SplitRule::Spread, is_played, played }
    }

    fn counts(&self, rows: &[Row], classes: usize) -> Vec<[usize; 2]> {
        let mut counts = vec![[0, 0]; classes];
        for (row, is_played) in rows.iter().zip(&self.is_played) {
            counts[usize::from(row.class)][usize::from(*is_played)] += 1;
        }
        counts
    }

    /// Number of classes that two rows or more are trained on.
    fn classes_of_initial(&self, rows: &[Row], classes: usize) -> usize {
        let counts = self.counts(rows, classes);
        counts.iter().filter(|[initial, _]| *initial >= 2).count()
    }

    /// Whether a class has far more or fewer rows in one of the two parts than by chance.
    fn is_sorted_by_class(&self, rows: &[Row], classes: usize) -> bool {
        /// Rows below which nothing can be said.
        const ROWS_MIN: f64 = 4.0;
        /// In standard deviations of a number of rows.
        const FAR: f64 = 4.0;
        let share = self.played as f64 / rows.len() as f64;
        let is_far = |found: usize, expected: f64| {
            let found = found as f64;
            found < expected / 2.0 || (found - expected).abs() > FAR * expected.sqrt()
        };
        let is_sorted = self.counts(rows, classes).iter().any(|[initial, played]| {
            let class = (initial + played) as f64;
            let expected = [class * (1.0 - share), class * share];
            expected[0].min(expected[1]) >= ROWS_MIN
                && (is_far(*initial, expected[0]) || is_far(*played, expected[1]))
        });
        is_sorted || self.classes_of_initial(rows, classes) < 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(labels: &[u16], millis: impl Fn(usize) -> i64) -> Vec<Row> {
        let rows = labels.iter().enumerate();
        rows.map(|(index, class)| Row { class: *class, millis: millis(index) }).collect()
    }

    fn played(split: &Split) -> Vec<usize> {
        (0..split.is_played.len()).filter(|index| split.is_played[*index]).collect()
    }

    #[test]
    fn the_last_rows_are_played() {
        let mixed: Vec<u16> = (0..20).map(|row| row % 2).collect();
        let split = Split::of(&rows(&mixed, |_| 0), 2, false).unwrap();
        assert_eq!(split.rule, SplitRule::FileOrder);
        assert_eq!(played(&split), [14, 15, 16, 17, 18, 19]);
        let split = Split::of(&rows(&mixed, |row| -i64::try_from(row).unwrap()), 2, true).unwrap();
        assert_eq!(split.rule, SplitRule::EventTime);
        assert_eq!(played(&split), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_file_that_is_sorted_by_the_label_is_spread() {
        let sorted: Vec<u16> = (0..150).map(|row| row / 50).collect();
        let split = Split::of(&rows(&sorted, |_| 0), 3, false).unwrap();
        assert_eq!((split.rule, split.played), (SplitRule::Spread, 45));
        let counts = split.counts(&rows(&sorted, |_| 0), 3);
        assert_eq!(counts, [[35, 15], [35, 15], [35, 15]]);
        let sorted: Vec<u16> = (0..100).map(|row| u16::from(row > 90)).collect();
        let split = Split::of(&rows(&sorted, |row| i64::try_from(row).unwrap()), 2, true).unwrap();
        assert_eq!(split.rule, SplitRule::Spread);
    }

    #[test]
    fn few_rows_are_refused_and_many_are_bounded() {
        assert!(Split::of(&rows(&[0; 19], |_| 0), 2, false).is_err());
        let many: Vec<u16> = (0..100_000_u32).map(|row| u16::from(row % 3 == 0)).collect();
        let split = Split::of(&rows(&many, |_| 0), 2, false).unwrap();
        assert_eq!((split.played, played(&split)[0]), (20_000, 80_000));
    }
}
