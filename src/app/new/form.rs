//! The form of a column's values: what kind they are, and how each cell is written for Foretell.

use std::collections::BTreeSet;

use crate::app::new::{
    column::{ColumnSummary, MomentCounts},
    units::Unit,
    values::{self, DayOrder, DecimalMark, Moment, Number},
};

/// What the cells of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Whole(DecimalMark),
    Decimal(DecimalMark),
    Category,
    Boolean {
        yes: &'static str,
    },
    Date(DayOrder),
    Time(DayOrder),
    /// Whole numbers of seconds, or of parts of a second, since 1970.
    Epoch {
        per_second: i64,
    },
}

/// The kind of a column, and the values among its cells that count as missing.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub(super) kind: Kind,
    /// Texts that are no values of this kind.
    pub(super) odd: BTreeSet<Box<str>>,
    /// Numbers that stand for "no answer".
    pub(super) sentinels: Vec<i64>,
    /// What is left out around each number.
    pub(super) unit: Unit,
    /// Why it is this kind; empty if it is plain.
    pub(super) why: String,
    /// What the user should look at.
    pub(super) warning: Option<String>,
}

/// What is known of all columns together.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileForm {
    /// The decimal mark that the user names, or that of the columns that are certain of it.
    pub(super) mark: Option<DecimalMark>,
    /// The decimal mark that the user names.
    pub(super) named_mark: Option<DecimalMark>,
    pub(super) dates: Option<DayOrder>,
    pub(super) delimiter: u8,
}

impl FileForm {
    /// Finds the decimal mark of a file from its columns.
    pub(super) fn of(
        columns: &[ColumnSummary],
        named_mark: Option<DecimalMark>,
        dates: Option<DayOrder>,
        delimiter: u8,
    ) -> Self {
        let (mut point, mut comma) = (0, 0);
        for column in columns {
            if is_most(column.point.all.max(column.comma.all), column, column.no_numbers.len()) {
                point += column.point.certain;
                comma += column.comma.certain;
            }
        }
        let mark = match (point, comma) {
            (0, 0) => None,
            (_, 0) => Some(DecimalMark::Point),
            (0, _) => Some(DecimalMark::Comma),
            // Each column by itself.
            (_, _) => None,
        };
        Self { mark: named_mark.or(mark), named_mark, dates, delimiter }
    }
}

/// Whether `count` of a column's cells are nearly all, and the others are few different texts.
fn is_most(count: u64, column: &ColumnSummary, odd_texts: usize) -> bool {
    const ODD_TEXTS_MAX: usize = 5;
    let odd = column.filled() - count.min(column.filled());
    odd == 0 && count > 0 || (odd * 50 <= column.filled() && odd_texts <= ODD_TEXTS_MAX)
}

impl Form {
    /// The form of a column without values.
    pub(super) fn plain_category() -> Self {
        Self::plain(Kind::Category)
    }

    fn plain(kind: Kind) -> Self {
        Self {
            kind,
            odd: BTreeSet::new(),
            sentinels: Vec::new(),
            unit: Unit::default(),
            why: String::new(),
            warning: None,
        }
    }

    fn because(kind: Kind, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..Self::plain(kind) }
    }

    /// The form of a column that has values.
    pub(super) fn of(column: &ColumnSummary, file: &FileForm) -> Self {
        let texts = column.values.keys().map(AsRef::as_ref);
        if !column.has_more_values
            && column.values.len() <= 6
            && let Some((no, yes)) = values::boolean_words(texts)
        {
            let why =
                if yes == "true" { String::new() } else { format!("{yes} is true, {no} is false") };
            return Self::because(Kind::Boolean { yes }, why);
        }
        Self::of_moments(column, file)
            .or_else(|| Self::of_numbers(column, file))
            .or_else(|| Self::of_mixed(column))
            .unwrap_or_else(|| Self::plain(Kind::Category))
    }

    /// The form of a column with more numbers or dates than other texts, but too many other texts to take them for missing.
    fn of_mixed(column: &ColumnSummary) -> Option<Self> {
        let dates = column.day_first.all.max(column.month_first.all);
        let numbers = column.point.all.max(column.comma.all);
        let (count, what, others) = if dates > numbers {
            (dates, "dates or times", &column.no_moments)
        } else {
            (numbers, "numbers", &column.no_numbers)
        };
        if count * 2 <= column.filled() {
            return None;
        }
        let percent = count * 100 / column.filled();
        let most = others.iter().max_by_key(|(_, rows)| **rows);
        let (but, such) = match most {
            Some((text, _)) => (
                format!("but not {text:?}"),
                format!("if {text:?} and the like mean \"no answer\", name them with --missing"),
            ),
            None => (
                "but not in one notation".to_owned(),
                "write them in one notation, or leave the column out with --ignore".to_owned(),
            ),
        };
        let warning = format!(
            "column {:?}: {percent}% are {what}, {but}, so all stay text: {such}",
            column.name
        );
        let form = Self::because(Kind::Category, format!("{percent}% are {what}, {but}"));
        Some(Self { warning: Some(warning), ..form })
    }

    fn of_moments(column: &ColumnSummary, file: &FileForm) -> Option<Self> {
        let (day_first, month_first) = (column.day_first, column.month_first);
        let is_dates = |counts: MomentCounts| is_most(counts.all, column, column.no_moments.len());
        let (order, counts, why) = match (is_dates(day_first), is_dates(month_first)) {
            (false, false) => return None,
            (true, false) => {
                (DayOrder::DayFirst, day_first, "the day is first, for it is above 12")
            }
            (false, true) => (
                DayOrder::MonthFirst,
                month_first,
                "the month is first, for the second number is above 12",
            ),
            (true, true) if column.ambiguous_dates == 0 => (DayOrder::DayFirst, day_first, ""),
            (true, true) => match file.dates {
                Some(DayOrder::DayFirst) => (DayOrder::DayFirst, day_first, "--dates"),
                Some(DayOrder::MonthFirst) => (DayOrder::MonthFirst, month_first, "--dates"),
                None => {
                    let warning = format!(
                        "column {:?}: no date such as {:?} tells whether the day or the month is first, so they stay text: set --dates dmy \
                         or --dates mdy",
                        column.name, column.example
                    );
                    let form = Self::because(Kind::Category, "dates in an unclear order");
                    return Some(Self { warning: Some(warning), ..form });
                }
            },
        };
        let kind = if counts.dates == counts.all { Kind::Date(order) } else { Kind::Time(order) };
        let why = if column.ambiguous_dates == 0 { "" } else { why };
        let is_other = file.dates.is_some_and(|named| named != order) && column.ambiguous_dates > 0;
        let warning = is_other.then(|| {
            format!(
                "column {:?} has days and months in another order than --dates says, and is read with it: {why}",
                column.name
            )
        });
        let odd = column.no_moments.keys().cloned().collect();
        Some(Self { odd, warning, ..Self::because(kind, why) })
    }

    fn of_numbers(column: &ColumnSummary, file: &FileForm) -> Option<Self> {
        let is_numbers = |count: u64| is_most(count, column, column.no_numbers.len());
        let (point, comma) = (column.point, column.comma);
        // One number that has one mark only tells the mark of the column.
        let is_point = is_numbers(point.all) && point.all >= comma.all;
        let is_comma = is_numbers(comma.all) && comma.all >= point.all;
        let (mark, why) = match (is_point, is_comma) {
            (false, false) => return None,
            (true, false) => (DecimalMark::Point, grouped(point.grouped)),
            (false, true) => (DecimalMark::Comma, decimal_comma(comma.grouped)),
            (true, true) => match (file.mark, point.grouped, comma.grouped) {
                (_, 0, 0) => (DecimalMark::Point, String::new()),
                (Some(DecimalMark::Point), _, _) => (DecimalMark::Point, grouped(point.grouped)),
                (Some(DecimalMark::Comma), _, _) => {
                    (DecimalMark::Comma, decimal_comma(comma.grouped))
                }
                // Exports have no groups, so `1.234` is a decimal number.
                (None, 0, _) => (DecimalMark::Point, String::new()),
                // Where the comma is the decimal mark, spreadsheets write `;` between cells.
                (None, _, 0) if file.delimiter == b';' => (DecimalMark::Comma, decimal_comma(0)),
                // `1 234` has the same value with both marks.
                (None, one, other) if one == other => (DecimalMark::Point, grouped(one)),
                (None, _, _) => {
                    let warning = format!(
                        "column {:?}: the comma in numbers such as {:?} may be a decimal comma or separate thousands, so they stay \
                         text: set --decimal , or --decimal .",
                        column.name, column.example
                    );
                    let form = Self::because(Kind::Category, "numbers with an unclear comma");
                    return Some(Self { warning: Some(warning), ..form });
                }
            },
        };
        let contradiction = file.named_mark.filter(|named| *named != mark && is_point != is_comma).map(|_| {
            format!(
                "column {:?} has another decimal mark than --decimal says, and is read with it: its numbers are such as {:?}",
                column.name, column.example
            )
        });
        if column.codes > 0 {
            return Some(Self::because(Kind::Category, "codes: some begin with 0"));
        }
        let counts = if mark == DecimalMark::Point { point } else { comma };
        let is_whole = counts.whole == counts.all;
        if is_whole && counts.whole_in_range < counts.whole {
            return Some(Self::because(Kind::Category, "numbers of more than 64 bits"));
        }
        if is_whole
            && is_named_for_time(&column.name)
            && column.unit.as_ref().is_none_or(Unit::is_none)
            && let Some(per_second) = epoch_unit(column)
        {
            let unit = if per_second == 1 { "seconds" } else { "milliseconds" };
            return Some(Self::because(Kind::Epoch { per_second }, format!("{unit} since 1970")));
        }
        let kind = if is_whole { Kind::Whole(mark) } else { Kind::Decimal(mark) };
        let mut form = Self::because(kind, why);
        form.odd = column.no_numbers.keys().cloned().collect();
        form.warning = contradiction;
        form.add_sentinels(column);
        let distinct = column.values.len();
        if is_whole && distinct <= 2 && !column.has_more_values && form.sentinels.is_empty() {
            form.why = "two numbers stay numbers".to_owned();
        }
        form.unit = column.unit.clone().unwrap_or_default();
        if !form.unit.is_none() {
            let unit = format!("the unit {} is left out", form.unit.name());
            form.why = if form.why.is_empty() { unit } else { format!("{unit}; {}", form.why) };
        }
        Some(form)
    }

    /// Adds numbers such as -999 among numbers that are not negative.
    fn add_sentinels(&mut self, column: &ColumnSummary) {
        let repeated = column.sentinels.iter().filter(|(_, rows)| **rows > 1);
        if column.least >= 0.0 && column.least.is_finite() {
            self.sentinels = repeated.map(|(number, _)| *number).collect();
        }
        if !self.sentinels.is_empty() {
            let numbers: Vec<String> = self.sentinels.iter().map(ToString::to_string).collect();
            self.why = format!("{} is missing: no other number is negative", numbers.join(", "));
        }
    }

    /// The value of a trimmed cell, as it is written for Foretell; none if it is missing or no value of this kind.
    pub(super) fn convert(&self, text: &str) -> Option<String> {
        match self.kind {
            Kind::Category => Some(text.to_owned()),
            Kind::Boolean { yes } => Some(text.eq_ignore_ascii_case(yes).to_string()),
            Kind::Whole(mark) | Kind::Decimal(mark) => {
                let text = self.unit.strip(text)?;
                let number = Number::parse(&text, mark)?;
                if number.whole_value().is_some_and(|whole| self.sentinels.contains(&whole)) {
                    return None;
                }
                if let Kind::Whole(_) = self.kind {
                    number.whole().map(|whole| whole.to_string())
                } else {
                    Some(number.text())
                }
            }
            Kind::Date(order) | Kind::Time(order) => self.moment(text, order).map(Moment::text),
            Kind::Epoch { .. } => self.moment(text, DayOrder::DayFirst).map(Moment::text),
        }
    }

    fn moment(&self, text: &str, order: DayOrder) -> Option<Moment> {
        match self.kind {
            Kind::Epoch { per_second } => {
                let number = Number::parse(text, DecimalMark::Point)?.whole()?;
                Moment::of_epoch(number, per_second)
            }
            Kind::Time(_) => {
                // Midnight may be written as a date.
                Moment::parse(text, order).map(|moment| Moment { is_date: false, ..moment })
            }
            Kind::Whole(_)
            | Kind::Decimal(_)
            | Kind::Category
            | Kind::Boolean { .. }
            | Kind::Date(_) => Moment::parse(text, order),
        }
    }

    /// The time of a trimmed cell, in milliseconds since 1970.
    pub(super) fn millis(&self, text: &str) -> Option<i64> {
        let order = match self.kind {
            Kind::Date(order) | Kind::Time(order) => order,
            Kind::Epoch { .. } => DayOrder::DayFirst,
            Kind::Whole(_) | Kind::Decimal(_) | Kind::Category | Kind::Boolean { .. } => {
                return None;
            }
        };
        self.moment(text, order).map(|moment| moment.millis)
    }

    pub(super) fn is_moment(&self) -> bool {
        matches!(self.kind, Kind::Date(_) | Kind::Time(_) | Kind::Epoch { .. })
    }
}

impl Kind {
    /// The name for users.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Whole(_) => "whole number",
            Self::Decimal(_) => "decimal number",
            Self::Category => "category",
            Self::Boolean { .. } => "boolean",
            Self::Date(_) => "date",
            Self::Time(_) | Self::Epoch { .. } => "time",
        }
    }

    /// The Avro type, in JSON.
    pub(super) fn avro(self) -> serde_json::Value {
        match self {
            Self::Whole(_) => "long".into(),
            Self::Decimal(_) => "double".into(),
            Self::Category => "string".into(),
            Self::Boolean { .. } => "boolean".into(),
            Self::Date(_) => serde_json::json!({"type": "int", "logicalType": "date"}),
            Self::Time(_) | Self::Epoch { .. } => {
                serde_json::json!({"type": "long", "logicalType": "timestamp-millis"})
            }
        }
    }
}

fn grouped(count: u64) -> String {
    if count > 0 { "with separators of thousands".to_owned() } else { String::new() }
}

fn decimal_comma(grouped: u64) -> String {
    let groups = if grouped > 0 { ", separators of thousands" } else { "" };
    format!("decimal comma{groups}")
}

fn is_named_for_time(name: &str) -> bool {
    let words = words_of(name);
    const WORDS: &[&str] = &[
        "time",
        "timestamp",
        "ts",
        "date",
        "datetime",
        "epoch",
        "at",
        "when",
        "created",
        "updated",
    ];
    words.iter().any(|word| WORDS.contains(&word.as_str()))
}

/// Parts of a second in which all numbers of a column are times of this century.
fn epoch_unit(column: &ColumnSummary) -> Option<i64> {
    let (low, high) = column.whole_range?;
    let is_unit = |unit: &i64| {
        Moment::of_epoch(low, *unit).is_some() && Moment::of_epoch(high, *unit).is_some()
    };
    [1, 1_000].into_iter().find(is_unit)
}

/// The words of a name in lower case: of `PassengerId`, `passenger-id` and `PASSENGER_ID`.
pub(super) fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for character in name.chars() {
        if !character.is_alphanumeric() || (character.is_uppercase() && was_lower) {
            words.push(String::new());
        }
        was_lower = character.is_lowercase() || character.is_ascii_digit();
        if character.is_alphanumeric() {
            words.last_mut().expect("there is one").extend(character.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(name: &str, cells: &[&str], file: (Option<DecimalMark>, Option<DayOrder>, u8)) -> Form {
        let mut column = ColumnSummary::new(name.to_owned(), 1);
        for cell in cells {
            column.add(cell, None);
        }
        let (mark, dates, delimiter) = file;
        let file = FileForm::of(std::slice::from_ref(&column), mark, dates, delimiter);
        Form::of(&column, &file)
    }

    fn check(cells: &[&str], kind: Kind, converted: &[&str]) {
        let found = form("x", cells, (None, None, b','));
        assert_eq!(found.kind, kind, "{cells:?}");
        let values: Vec<String> =
            cells.iter().map(|cell| found.convert(cell).unwrap_or_default()).collect();
        assert_eq!(values, converted, "{cells:?}");
    }

    const POINT: DecimalMark = DecimalMark::Point;
    const COMMA: DecimalMark = DecimalMark::Comma;

    #[test]
    fn numbers() {
        check(&["1", "-2", "30"], Kind::Whole(POINT), &["1", "-2", "30"]);
        check(&["1.5", "2", "3.0"], Kind::Decimal(POINT), &["1.5", "2", "3.0"]);
        check(&["1,5", "2", "1.234,5"], Kind::Decimal(COMMA), &["1.5", "2", "1234.5"]);
        check(&["1,234,567", "89"], Kind::Whole(POINT), &["1234567", "89"]);
        check(&["1.234", "5.678"], Kind::Decimal(POINT), &["1.234", "5.678"]);
        check(&["1 234", "56"], Kind::Whole(POINT), &["1234", "56"]);
        check(&["007", "123"], Kind::Category, &["007", "123"]);
        check(&["12345678901234567890", "1"], Kind::Category, &["12345678901234567890", "1"]);
    }

    #[test]
    fn numbers_that_stand_for_no_answer_are_so_however_they_are_written() {
        let whole = ["-999", "-9999", "-99999", "-999999"];
        for sentinel in whole {
            check(&["5", sentinel, "7", sentinel], Kind::Whole(POINT), &["5", "", "7", ""]);
        }
        for sentinel in ["-999", "-999.0", "-999.00", "-9999.0", "-9,999.0", "-999."] {
            let cells = ["5.5", sentinel, "7", sentinel];
            check(&cells, Kind::Decimal(POINT), &["5.5", "", "7", ""]);
        }
        for sentinel in ["-999", "-999,0", "-999,00"] {
            let cells = ["5,5", sentinel, "7", sentinel];
            check(&cells, Kind::Decimal(COMMA), &["5.5", "", "7", ""]);
        }
        // In one column, both are the same number.
        check(&["5.5", "-999.0", "7", "-999"], Kind::Decimal(POINT), &["5.5", "", "7", ""]);
        // With another negative number, and numbers that may well be values.
        for (kind, cells) in [
            (Kind::Whole(POINT), ["5", "-999", "-7", "-999"]),
            (Kind::Decimal(POINT), ["5.5", "-999.0", "-7", "-999.0"]),
            (Kind::Decimal(POINT), ["5.5", "-999.5", "7", "-999.5"]),
            (Kind::Decimal(POINT), ["5.5", "9999.0", "7", "9999.0"]),
        ] {
            check(&cells, kind, &cells);
        }
    }

    #[test]
    fn few_texts_among_numbers_are_missing() {
        let mut cells = vec!["1"; 98];
        cells.push("n.a.");
        let found = form("x", &cells, (None, None, b','));
        assert_eq!(found.kind, Kind::Whole(POINT));
        assert!(found.odd.contains("n.a.") && found.convert("n.a.").is_none());
        let cells = [vec!["1"; 90], vec!["none of them"; 9]].concat();
        assert_eq!(form("x", &cells, (None, None, b',')).kind, Kind::Category);
    }

    #[test]
    fn an_unclear_comma_stays_text_until_the_user_says_what_it_is() {
        let cells = ["1,234", "5,678"];
        let found = form("x", &cells, (None, None, b','));
        assert_eq!(found.kind, Kind::Category);
        assert!(found.warning.unwrap().contains("--decimal"));
        assert_eq!(form("x", &cells, (None, None, b';')).kind, Kind::Decimal(COMMA));
        assert_eq!(form("x", &cells, (None, None, b'\t')).kind, Kind::Category);
        assert_eq!(form("x", &cells, (Some(COMMA), None, b',')).kind, Kind::Decimal(COMMA));
        assert_eq!(form("x", &cells, (Some(POINT), None, b',')).kind, Kind::Whole(POINT));
    }

    #[test]
    fn dates_and_times() {
        use DayOrder::{DayFirst, MonthFirst};
        check(&["2026-05-17", "2026-06-01"], Kind::Date(DayFirst), &["2026-05-17", "2026-06-01"]);
        check(&["17/5/2026", "01/06/2026"], Kind::Date(DayFirst), &["2026-05-17", "2026-06-01"]);
        check(&["5/17/2026", "01/06/2026"], Kind::Date(MonthFirst), &["2026-05-17", "2026-01-06"]);
        check(
            &["2026-05-17 08:00", "2026-05-18"],
            Kind::Time(DayFirst),
            &["2026-05-17T08:00:00Z", "2026-05-18T00:00:00Z"],
        );
        let cells = ["05/04/2026", "06/05/2026"];
        assert!(form("x", &cells, (None, None, b',')).warning.unwrap().contains("--dates dmy"));
        assert_eq!(form("x", &cells, (None, Some(MonthFirst), b',')).kind, Kind::Date(MonthFirst));
        let epoch = ["1600000000", "1600000060"];
        assert_eq!(form("x", &epoch, (None, None, b',')).kind, Kind::Whole(POINT));
        let found = form("created_at", &epoch, (None, None, b','));
        assert_eq!(found.convert(epoch[0]).unwrap(), "2020-09-13T12:26:40Z");
    }

    #[test]
    fn words() {
        let check = |name: &str, expected: &[&str]| assert_eq!(words_of(name), expected, "{name}");
        check("PassengerId", &["passenger", "id"]);
        check("PASSENGER_ID", &["passenger", "id"]);
        check("visit-uuid", &["visit", "uuid"]);
        check("paid", &["paid"]);
        check("Unnamed: 0", &["unnamed", "0"]);
    }
}
