//! What is known of a column after all of its cells were read. Everything that is kept has a bound.

use std::collections::BTreeMap;

use crate::app::new::{
    units::Unit,
    values::{DayOrder, DecimalMark, Moment, Number},
};

/// Values that are kept of all columns together.
const VALUES_OF_ALL_MAX: usize = 1_000_000;
/// Values that are kept of one column.
const VALUES_MAX: usize = 10_000;
/// Bytes of a kept value.
const VALUE_BYTES_MAX: usize = 64;
/// Classes whose ranges are kept.
const CLASSES_MAX: usize = 256;
/// Texts kept of a column that has other values.
const ODD_TEXTS_MAX: usize = 20;
/// Whole numbers that stand for "no answer" in many data sets.
const SENTINELS: [i64; 4] = [-999, -9_999, -99_999, -999_999];

/// The rows of one value.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValueCount {
    pub(super) rows: u64,
    /// The class of its first row that has a label.
    pub(super) class: Option<usize>,
    /// Rows of other classes.
    pub(super) others: u64,
}

/// Cells that are numbers with a decimal mark.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NumberCounts {
    pub(super) all: u64,
    /// Not numbers with the other decimal mark.
    pub(super) certain: u64,
    /// With groups of three digits.
    pub(super) grouped: u64,
    /// Without a fraction and an exponent.
    pub(super) whole: u64,
    /// Those of them that have at most 64 bits.
    pub(super) whole_in_range: u64,
}

/// Cells that are dates or times in an order of day and month.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MomentCounts {
    pub(super) all: u64,
    pub(super) dates: u64,
}

/// A text that does not fit the other cells, such as `n.a.` among numbers; with its number of rows.
pub(super) type OddTexts = BTreeMap<Box<str>, u64>;

/// What is known of a column.
#[derive(Clone, Debug)]
pub(super) struct ColumnSummary {
    /// The name in the file, or one by its number.
    pub(super) name: String,
    /// Whether the header has no name for it.
    pub(super) is_unnamed: bool,
    values_max: usize,
    pub(super) rows: u64,
    pub(super) missing: u64,
    /// The marks of missing values that occur.
    pub(super) marks: BTreeMap<Box<str>, u64>,
    /// The first value.
    pub(super) example: String,
    pub(super) values: BTreeMap<Box<str>, ValueCount>,
    /// Whether there are more values than are kept.
    pub(super) has_more_values: bool,
    /// Rows whose value was there before.
    pub(super) repeats: u64,
    /// What is around the numbers, from the first one on.
    pub(super) unit: Option<Unit>,
    pub(super) point: NumberCounts,
    pub(super) comma: NumberCounts,
    /// Whole numbers that begin with a 0.
    pub(super) codes: u64,
    pub(super) whole_range: Option<(i64, i64)>,
    /// Whether each whole number is one more than the one before it.
    pub(super) is_run: bool,
    last_whole: Option<i64>,
    /// Rows of each sentinel, however it is written, and the least other number.
    pub(super) sentinels: BTreeMap<i64, u64>,
    pub(super) least: f64,
    pub(super) day_first: MomentCounts,
    pub(super) month_first: MomentCounts,
    /// Cells whose date depends on the order of day and month.
    pub(super) ambiguous_dates: u64,
    pub(super) first_moment: Option<(Moment, Moment)>,
    /// Texts that are not numbers, and texts that are not dates.
    pub(super) no_numbers: OddTexts,
    pub(super) no_moments: OddTexts,
    pub(super) words: u64,
    pub(super) bytes_max: usize,
    /// Least and greatest number of each class, with a decimal point.
    pub(super) ranges: BTreeMap<usize, (f64, f64)>,
    /// Rows without a value, by class.
    pub(super) missing_of_class: BTreeMap<usize, u64>,
}

impl ColumnSummary {
    pub(super) fn new(name: String, columns: usize) -> Self {
        Self {
            name,
            is_unnamed: false,
            values_max: VALUES_MAX.min(VALUES_OF_ALL_MAX / columns.max(1)),
            rows: 0,
            missing: 0,
            marks: BTreeMap::new(),
            example: String::new(),
            values: BTreeMap::new(),
            has_more_values: false,
            repeats: 0,
            unit: None,
            point: NumberCounts::default(),
            comma: NumberCounts::default(),
            codes: 0,
            whole_range: None,
            is_run: true,
            last_whole: None,
            sentinels: BTreeMap::new(),
            least: f64::INFINITY,
            day_first: MomentCounts::default(),
            month_first: MomentCounts::default(),
            ambiguous_dates: 0,
            first_moment: None,
            no_numbers: OddTexts::new(),
            no_moments: OddTexts::new(),
            words: 0,
            bytes_max: 0,
            ranges: BTreeMap::new(),
            missing_of_class: BTreeMap::new(),
        }
    }

    /// Adds a cell that is blank or a mark.
    pub(super) fn add_missing(&mut self, mark: &str, class: Option<usize>) {
        self.rows += 1;
        self.missing += 1;
        if let Some(class) = class {
            *self.missing_of_class.entry(class).or_default() += 1;
        }
        if !mark.is_empty() {
            count(&mut self.marks, mark);
        }
    }

    /// Adds a trimmed cell with a value. `class` is that of its row.
    pub(super) fn add(&mut self, text: &str, class: Option<usize>) {
        self.rows += 1;
        if self.example.is_empty() {
            self.example = text.chars().take(40).collect();
        }
        self.bytes_max = self.bytes_max.max(text.len());
        self.words += u64::try_from(text.split_whitespace().count()).unwrap_or(0);
        self.add_value(text, class);
        self.add_number(text, class);
        self.add_moment(text);
    }

    fn add_value(&mut self, text: &str, class: Option<usize>) {
        let is_long = text.len() > VALUE_BYTES_MAX;
        let key = if is_long { shortened(text) } else { String::new() };
        let key = if is_long { key.as_str() } else { text };
        if let Some(count) = self.values.get_mut(key) {
            self.repeats += 1;
            count.rows += 1;
            if class.is_some() && count.class.is_some() && class != count.class {
                count.others += 1;
            }
            count.class = count.class.or(class);
        } else if self.values.len() < self.values_max {
            self.values.insert(key.into(), ValueCount { rows: 1, class, others: 0 });
        } else {
            self.has_more_values = true;
        }
    }

    fn add_number(&mut self, text: &str, class: Option<usize>) {
        let unit = self.unit.clone().or_else(|| Unit::of_number(text));
        let number = unit.as_ref().and_then(|unit| unit.strip(text)).unwrap_or_default();
        self.unit = unit;
        let point = Number::parse(&number, DecimalMark::Point);
        let comma = Number::parse(&number, DecimalMark::Comma);
        self.point.add(point, comma.is_some());
        self.comma.add(comma, point.is_some());
        let Some(number) = point.or(comma) else {
            self.is_run = false;
            keep(&mut self.no_numbers, text);
            return;
        };
        let value = number.value();
        if let Some(class) = class.filter(|class| *class < CLASSES_MAX) {
            let (low, high) = self.ranges.entry(class).or_insert((value, value));
            (*low, *high) = (low.min(value), high.max(value));
        }
        match number.whole_value().filter(|whole| SENTINELS.contains(whole)) {
            Some(sentinel) => *self.sentinels.entry(sentinel).or_default() += 1,
            None => self.least = self.least.min(value),
        }
        if !number.is_whole() {
            self.is_run = false;
            return;
        }
        self.codes += u64::from(number.is_code());
        let Some(whole) = number.whole() else {
            self.is_run = false;
            return;
        };
        self.is_run &= self.last_whole.is_none_or(|last| last.checked_add(1) == Some(whole));
        self.last_whole = Some(whole);
        let (low, high) = self.whole_range.unwrap_or((whole, whole));
        self.whole_range = Some((low.min(whole), high.max(whole)));
    }

    fn add_moment(&mut self, text: &str) {
        let day_first = Moment::parse(text, DayOrder::DayFirst);
        let month_first = Moment::parse(text, DayOrder::MonthFirst);
        self.day_first.add(day_first);
        self.month_first.add(month_first);
        match (day_first, month_first) {
            (Some(one), Some(other)) if one != other => self.ambiguous_dates += 1,
            (None, None) => keep(&mut self.no_moments, text),
            (_, _) => {}
        }
        if let Some(moment) = day_first.or(month_first) {
            let (low, high) = self.first_moment.unwrap_or((moment, moment));
            self.first_moment = Some((low.min(moment), high.max(moment)));
        }
    }

    /// Rows with a value.
    pub(super) fn filled(&self) -> u64 {
        self.rows - self.missing
    }

    /// Number of different values, at least.
    pub(super) fn distinct(&self) -> u64 {
        u64::try_from(self.values.len()).unwrap_or(u64::MAX)
    }

    /// Whether no value that was kept came again.
    pub(super) fn is_unique(&self) -> bool {
        self.repeats == 0 && self.filled() > 1
    }
}

impl NumberCounts {
    fn add(&mut self, number: Option<Number<'_>>, is_other: bool) {
        let Some(number) = number else { return };
        self.all += 1;
        self.certain += u64::from(!is_other);
        self.grouped += u64::from(number.group.is_some());
        self.whole += u64::from(number.is_whole());
        self.whole_in_range += u64::from(number.whole().is_some());
    }
}

impl MomentCounts {
    fn add(&mut self, moment: Option<Moment>) {
        if let Some(moment) = moment {
            self.all += 1;
            self.dates += u64::from(moment.is_date);
        }
    }
}

fn keep(texts: &mut OddTexts, text: &str) {
    if text.len() <= VALUE_BYTES_MAX {
        count(texts, text);
    }
}

/// Counts a text, if it is kept or there is room.
fn count(texts: &mut OddTexts, text: &str) {
    if let Some(count) = texts.get_mut(text) {
        *count += 1;
    } else if texts.len() < ODD_TEXTS_MAX {
        texts.insert(text.into(), 1);
    }
}

/// The start of a long text, and a hash of all of it.
fn shortened(text: &str) -> String {
    let start: String = text.chars().take(10).collect();
    // FNV-1a.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{start}…{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(cells: &[&str]) -> ColumnSummary {
        let mut summary = ColumnSummary::new("x".to_owned(), 1);
        for cell in cells {
            summary.add(cell, None);
        }
        summary
    }

    #[test]
    fn numbers_are_counted_for_both_decimal_marks() {
        let found = summary(&["1.5", "2", "1,234.5", "1.234"]);
        assert_eq!((found.point.all, found.point.certain), (4, 2));
        assert_eq!((found.comma.all, found.comma.certain), (2, 0));
        assert_eq!((found.point.grouped, found.comma.grouped), (1, 1));
        assert_eq!((found.point.whole, found.comma.whole), (1, 2));
        assert_eq!(found.no_numbers.len(), 0);
        assert_eq!(summary(&["1", "x", "y"]).no_numbers.len(), 2);
    }

    #[test]
    fn a_run_is_the_number_of_the_row() {
        assert!(summary(&["1", "2", "3"]).is_run);
        assert!(summary(&["0", "1"]).is_run);
        assert!(!summary(&["1", "3"]).is_run);
        assert!(!summary(&["1", "2", "x"]).is_run);
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut summary = ColumnSummary::new("x".to_owned(), 1_000);
        for number in 0..5_000 {
            let text = format!("{number}{}", "x".repeat(500));
            summary.add(&text, Some(number));
            summary.add_missing(&text, Some(0));
        }
        assert_eq!(summary.values.len(), 1_000);
        assert!(summary.has_more_values && summary.is_unique());
        assert!(summary.values.keys().all(|value| value.len() <= VALUE_BYTES_MAX));
        assert!(summary.marks.len() <= ODD_TEXTS_MAX && summary.no_numbers.len() <= ODD_TEXTS_MAX);
    }
}
