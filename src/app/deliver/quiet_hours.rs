//! The part of each day at which nothing is sent.

use std::time::Duration;

use crate::config::QuietHours;
use foretell_streams::time::WallTime;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// The time until the quiet hours end; `None` outside of them.
pub(super) fn remaining(hours: QuietHours, now: WallTime) -> Option<Duration> {
    let local = now.0.saturating_add(hours.zone * MINUTE).rem_euclid(DAY);
    let [from, to] = [hours.from, hours.to].map(|minute| minute * MINUTE);
    let since_begin = (local - from).rem_euclid(DAY);
    let length = (to - from).rem_euclid(DAY);
    let remaining = length - since_begin;
    (remaining > 0).then(|| Duration::from_millis(remaining.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-29 00:00 UTC.
    const MIDNIGHT: i64 = 1_795_910_400_000;

    fn check(hours: QuietHours, at: &str, expected: Option<i64>) {
        let (hour, minute) = at.split_once(':').unwrap();
        let minutes = hour.parse::<i64>().unwrap() * 60 + minute.parse::<i64>().unwrap();
        let found = remaining(hours, WallTime(MIDNIGHT + minutes * MINUTE));
        let expected =
            expected.map(|minutes| Duration::from_millis((minutes * MINUTE).unsigned_abs()));
        assert_eq!(found, expected, "{hours:?} at {at}");
    }

    #[test]
    fn they_end_at_the_end_also_on_the_next_day() {
        assert_eq!(MIDNIGHT % DAY, 0);
        let night = QuietHours { from: 20 * 60, to: 8 * 60, zone: 0 };
        check(night, "19:59", None);
        check(night, "20:00", Some(12 * 60));
        check(night, "23:30", Some(8 * 60 + 30));
        check(night, "00:00", Some(8 * 60));
        check(night, "07:59", Some(1));
        check(night, "08:00", None);
        let noon = QuietHours { from: 12 * 60, to: 13 * 60, zone: 0 };
        check(noon, "11:59", None);
        check(noon, "12:15", Some(45));
        check(noon, "13:00", None);
        check(noon, "23:00", None);
    }

    #[test]
    fn they_are_local() {
        let east = QuietHours { from: 20 * 60, to: 8 * 60, zone: 60 };
        check(east, "18:59", None);
        check(east, "19:00", Some(12 * 60));
        check(east, "06:59", Some(1));
        check(east, "07:00", None);
        let west = QuietHours { from: 20 * 60, to: 8 * 60, zone: -330 };
        check(west, "01:29", None);
        check(west, "01:30", Some(12 * 60));
        check(west, "13:30", None);
    }

    #[test]
    fn times_before_1970_have_a_time_of_the_day() {
        let night = QuietHours { from: 20 * 60, to: 8 * 60, zone: 0 };
        assert_eq!(remaining(night, WallTime(-1)), Some(Duration::from_millis(8 * 3_600_000 + 1)));
        assert!(remaining(night, WallTime(i64::MAX)).is_none_or(|left| left.as_secs() < 86_400));
    }
}
