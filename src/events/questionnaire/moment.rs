//! Dates, times of day and timestamps: converts ISO 8601 text to a number in the unit of the field's logical type.

/// The unit of a number with a date or time logical type, in UTC. `local-timestamp-*` has no zone and is read as UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MomentKind {
    /// Days since 1970.
    Date,
    /// Parts of a second since midnight.
    Time {
        /// 1,000 or 1,000,000.
        per_second: i64,
    },
    /// Parts of a second since 1970.
    Timestamp {
        /// 1,000, 1,000,000 or 1,000,000,000.
        per_second: i64,
    },
}

/// The unit of event times in the schema. In an event they are always milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeUnit {
    Millis,
    Micros,
    Nanos,
}

const SECONDS_PER_DAY: i64 = 86_400;

impl MomentKind {
    /// The logical type as Avro calls it.
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Self::Date => "date",
            Self::Time { per_second: 1_000 } => "time-millis",
            Self::Time { .. } => "time-micros",
            Self::Timestamp { per_second: 1_000 } => "timestamp-millis",
            Self::Timestamp { per_second: 1_000_000 } => "timestamp-micros",
            Self::Timestamp { .. } => "timestamp-nanos",
        }
    }

    /// Whether its Avro type is `int`.
    pub(super) fn is_int(self) -> bool {
        matches!(self, Self::Date | Self::Time { per_second: 1_000 })
    }

    /// A description of the valid texts.
    pub(super) fn wanted(self) -> &'static str {
        match self {
            Self::Date => "a date, such as 1990-05-17, or days since 1970",
            Self::Time { per_second: 1_000 } => {
                "a time, such as 17:05:30, or milliseconds of the day"
            }
            Self::Time { .. } => "a time, such as 17:05:30, or microseconds of the day",
            Self::Timestamp { per_second: 1_000 } => {
                "a time, such as 2026-11-28T17:05:30Z, or milliseconds since 1970"
            }
            Self::Timestamp { per_second: 1_000_000 } => {
                "a time, such as 2026-11-28T17:05:30Z, or microseconds since 1970"
            }
            Self::Timestamp { .. } => {
                "a time, such as 2026-11-28T17:05:30Z, or nanoseconds since 1970"
            }
        }
    }

    /// Parses ISO 8601 text; digits finer than the unit are dropped.
    pub fn parse(self, text: &str) -> Option<i64> {
        match self {
            Self::Date => date(text),
            Self::Time { per_second } => {
                let number = time(text, per_second)?;
                (number < SECONDS_PER_DAY * per_second).then_some(number)
            }
            Self::Timestamp { per_second } => timestamp(text, per_second),
        }
    }
}

/// `1990-05-17` as days since 1970.
fn date(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let mut parts = digits.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let is_whole = parts.next().is_none() && year.len() == 4 && month.len() == 2 && day.len() == 2;
    let (year, month, day) = (sign * digits_of(year)?, digits_of(month)?, digits_of(day)?);
    let is_there = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    (is_whole && is_there).then(|| days_from_civil(year, month, day))
}

/// `17:05`, `17:05:30` or `17:05:30.25` as parts of a second since midnight.
fn time(text: &str, per_second: i64) -> Option<i64> {
    let (clock, fraction) = text.split_once(['.', ',']).unwrap_or((text, ""));
    let mut parts = clock.split(':');
    let (hour, minute) = (parts.next()?, parts.next()?);
    let second = parts.next();
    let has_fraction = clock.len() < text.len();
    if parts.next().is_some() || (has_fraction && (second.is_none() || fraction.is_empty())) {
        return None;
    }
    let two = |part: &str| (part.len() == 2).then(|| digits_of(part)).flatten();
    let (hour, minute) = (two(hour)?, two(minute)?);
    let second = second.map_or(Some(0), two)?;
    if hour > 23 || minute > 59 || second > 59 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut number = ((hour * 60 + minute) * 60 + second) * per_second;
    let mut place = per_second / 10;
    for digit in fraction.bytes() {
        number += i64::from(digit - b'0') * place;
        place /= 10;
    }
    Some(number)
}

/// `2026-11-28T17:05:30+01:00`, also with a space for the `T`; without a zone it is UTC; a date alone is its midnight.
fn timestamp(text: &str, per_second: i64) -> Option<i64> {
    let Some(split) = text.find(['T', 't', ' ']) else {
        return date(text)?.checked_mul(SECONDS_PER_DAY)?.checked_mul(per_second);
    };
    let (day, clock) = (date(&text[..split])?, &text[split + 1..]);
    let (clock, ahead) = match clock.find(['Z', 'z', '+', '-']) {
        None => (clock, 0),
        Some(end) => (&clock[..end], zone(&clock[end..])?),
    };
    let within = time(clock, per_second)?;
    let seconds = day.checked_mul(SECONDS_PER_DAY)? - ahead;
    seconds.checked_mul(per_second)?.checked_add(within)
}

/// The seconds that a zone is ahead of UTC: `Z`, `+01:00`, `-0330`, `+01`.
fn zone(text: &str) -> Option<i64> {
    if text == "Z" || text == "z" {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        (_, _) => return None,
    };
    let digits: String = rest.chars().filter(|c| *c != ':').collect();
    let (hours, minutes) = match digits.len() {
        2 => (digits_of(&digits)?, 0),
        4 => (digits_of(&digits[..2])?, digits_of(&digits[2..])?),
        _ => return None,
    };
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes) * 60)
}

fn digits_of(text: &str) -> Option<i64> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain { text.parse().ok() } else { None }
}

fn days_in(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970 of a date of the Gregorian calendar. Years are counted from March, so that the leap day is the last day; 400
/// years have 146,097 days.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: MomentKind, text: &str, expected: Option<i64>) {
        assert_eq!(kind.parse(text), expected, "{text:?}");
    }

    #[test]
    fn dates() {
        check(MomentKind::Date, "1970-01-01", Some(0));
        check(MomentKind::Date, "1969-12-31", Some(-1));
        check(MomentKind::Date, "2000-02-29", Some(11_016));
        check(MomentKind::Date, "2026-11-28", Some(20_785));
        for text in
            ["2001-02-29", "2001-13-01", "2001-1-1", "01-01-2001", "", "today", "2001-01-01T"]
        {
            check(MomentKind::Date, text, None);
        }
    }

    #[test]
    fn times_of_the_day() {
        let kind = MomentKind::Time { per_second: 1_000 };
        check(kind, "00:00", Some(0));
        check(kind, "17:05:30.25", Some(61_530_250));
        check(kind, "17:05:30.2509", Some(61_530_250));
        for text in ["24:00", "7:05", "17:05:30.", "17:05.5", "17:05:30.x", "17"] {
            check(kind, text, None);
        }
    }

    #[test]
    fn moments() {
        let kind = MomentKind::Timestamp { per_second: 1_000 };
        check(kind, "2026-11-28T17:05:30Z", Some(1_795_885_530_000));
        check(kind, "2026-11-28 17:05:30", Some(1_795_885_530_000));
        check(kind, "2026-11-28T18:05:30.007+01:00", Some(1_795_885_530_007));
        check(kind, "2026-11-28T13:35:30-0330", Some(1_795_885_530_000));
        check(kind, "1969-12-31T23:59:59.999Z", Some(-1));
        check(kind, "2026-11-28", Some(1_795_824_000_000));
        check(
            MomentKind::Timestamp { per_second: 1_000_000 },
            "1970-01-01T00:00:01.5",
            Some(1_500_000),
        );
        for text in ["2026-11-28T", "2026-11-28T17:05:30+25:00", "2026-11-28X17:05", "17:05"] {
            check(kind, text, None);
        }
        // Outside the range of a `long` of nanoseconds.
        check(MomentKind::Timestamp { per_second: 1_000_000_000 }, "9999-01-01", None);
    }
}
