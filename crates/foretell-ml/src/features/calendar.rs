//! Parts of dates and times, such as weekday and hour, as features; in UTC and the Gregorian calendar.

use serde::{Deserialize, Serialize};

/// A part of the date or time in a numeric column, as a feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalendarFeature {
    /// Name of the numeric column.
    pub column: String,
    /// Part of the date or time that is the feature.
    pub part: CalendarPart,
    /// Unit of the column's numbers.
    pub unit: TimeUnit,
}

/// A part of a date or a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalendarPart {
    /// The year, such as 1990.
    Year,
    /// 1 to 12.
    Month,
    /// 1 to 31.
    Day,
    /// 1 (Monday) to 7 (Sunday).
    Weekday,
    /// 0 to 23.
    Hour,
    /// 0 to 59.
    Minute,
}

/// Unit and epoch of a column of dates or times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeUnit {
    /// Days since 1970-01-01.
    Days,
    /// Fractions of a second, this many per second (1000 for milliseconds), since midnight or since 1970-01-01.
    PartsOfSecond(u32),
}

const SECONDS_PER_DAY: f64 = 86_400.0;
/// Dates more than ten thousand years from 1970 have no parts: as nanoseconds in a 64-bit float they are too imprecise.
const DAYS_MAX: f64 = 10_000.0 * 366.0;

impl CalendarPart {
    /// Name of the part in configurations and in names of features.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Year => "year",
            Self::Month => "month",
            Self::Day => "day",
            Self::Weekday => "weekday",
            Self::Hour => "hour",
            Self::Minute => "minute",
        }
    }

    /// Whether this is a part of the time of day; the others are parts of a date.
    #[must_use]
    pub fn is_of_day(self) -> bool {
        match self {
            Self::Hour | Self::Minute => true,
            Self::Year | Self::Month | Self::Day | Self::Weekday => false,
        }
    }

    /// This part of `number`, which is in `unit`; NaN if it is not finite or beyond `DAYS_MAX`.
    pub(super) fn of(self, number: f64, unit: TimeUnit) -> f64 {
        let days_and_fraction = match unit {
            TimeUnit::Days => number,
            TimeUnit::PartsOfSecond(per_second) => {
                // Whole seconds first: the fraction of a day in a large number of nanoseconds would be rounded.
                (number / f64::from(per_second)).floor() / SECONDS_PER_DAY
            }
        };
        let days = days_and_fraction.floor();
        if !days.is_finite() || days.abs() > DAYS_MAX {
            return f64::NAN;
        }
        let second = match unit {
            TimeUnit::Days => 0.0,
            TimeUnit::PartsOfSecond(per_second) => {
                (number / f64::from(per_second)).floor() - days * SECONDS_PER_DAY
            }
        };
        #[expect(clippy::cast_possible_truncation, reason = "guarded: it is whole, and small")]
        let (year, month, day) = civil(days as i64);
        match self {
            Self::Year => year as f64,
            Self::Month => month as f64,
            Self::Day => day as f64,
            // 1970 began on a Thursday.
            Self::Weekday => (days + 3.0).rem_euclid(7.0) + 1.0,
            Self::Hour => (second / 3_600.0).floor(),
            Self::Minute => (second / 60.0).floor().rem_euclid(60.0),
        }
    }
}

/// Year, month and day of a number of days since 1970-01-01, in the proleptic Gregorian calendar. The algorithm lets years
/// begin in March, so that a leap day is the last day of a year; 400 years have 146,097 days.
#[must_use]
pub fn civil(days: i64) -> (i64, i64, i64) {
    let from_march = days + 719_468;
    let era = from_march.div_euclid(146_097);
    let day_of_era = from_march.rem_euclid(146_097);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(number: f64, unit: TimeUnit, expected: [f64; 6]) {
        use CalendarPart::{Day, Hour, Minute, Month, Weekday, Year};
        let parts = [Year, Month, Day, Weekday, Hour, Minute].map(|part| part.of(number, unit));
        assert_eq!(parts.map(f64::to_bits), expected.map(f64::to_bits), "{parts:?}");
    }

    #[test]
    fn parts_of_dates_and_times() {
        check(0.0, TimeUnit::Days, [1970.0, 1.0, 1.0, 4.0, 0.0, 0.0]);
        check(-1.0, TimeUnit::Days, [1969.0, 12.0, 31.0, 3.0, 0.0, 0.0]);
        check(11_016.0, TimeUnit::Days, [2000.0, 2.0, 29.0, 2.0, 0.0, 0.0]);
        let now = [2026.0, 11.0, 28.0, 6.0, 17.0, 5.0];
        check(1_795_885_530_999.0, TimeUnit::PartsOfSecond(1_000), now);
        check(1_795_885_530_999_999.0, TimeUnit::PartsOfSecond(1_000_000), now);
        check(1_795_885_530_000_000_000.0, TimeUnit::PartsOfSecond(1_000_000_000), now);
        check(-1.0, TimeUnit::PartsOfSecond(1_000), [1969.0, 12.0, 31.0, 3.0, 23.0, 59.0]);
        assert!(CalendarPart::Year.of(f64::NAN, TimeUnit::Days).is_nan());
        assert!(CalendarPart::Hour.of(1e300, TimeUnit::Days).is_nan());
    }

    #[test]
    fn days_follow_each_other() {
        let mut before = civil(-800_000);
        for day in -799_999..800_000 {
            let (year, month, date) = civil(day);
            let is_next = match before {
                (y, m, d) if (year, month) == (y, m) => date == d + 1,
                (y, m, d) if year == y => month == m + 1 && date == 1 && d >= 28,
                (y, m, d) => (year, month, date) == (y + 1, 1, 1) && (m, d) == (12, 31),
            };
            assert!(is_next, "{before:?} {:?}", (year, month, date));
            before = (year, month, date);
        }
    }
}
